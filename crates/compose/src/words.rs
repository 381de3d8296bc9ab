//! Command lines: from one text to words, as the reference splits them.

/// Splits a command line. An unquoted `;`, `&`, `|`, `<` or `>` ends it: what follows is lost, in
/// Docker Compose too.
pub(crate) fn split(line: &str) -> Result<Vec<String>, &'static str> {
    const UNBALANCED: &str = "a quote or a bracket is not closed";
    let mut words = Vec::new();
    let mut word = String::new();
    let mut in_word = false;
    let (mut escaped, mut double, mut single, mut back, mut dollar) =
        (false, false, false, false, false);
    for c in line.chars() {
        if escaped {
            word.push(c);
            (escaped, in_word) = (false, true);
            continue;
        }
        if c == '\\' {
            if single {
                word.push(c);
            } else {
                escaped = true;
            }
            continue;
        }
        if matches!(c, ' ' | '\t' | '\r' | '\n') {
            if single || double || back || dollar {
                word.push(c);
            } else if in_word {
                words.push(std::mem::take(&mut word));
                in_word = false;
            }
            continue;
        }
        match c {
            '`' if !single && !double && !dollar => back = !back,
            ')' if !single && !double && !back => dollar = !dollar,
            '(' if !single && !double && !back => {
                if !dollar && word.ends_with('$') {
                    dollar = true;
                    word.push(c);
                    continue;
                }
                return Err(UNBALANCED);
            }
            '"' if !single && !dollar => {
                in_word |= double;
                double = !double;
                continue;
            }
            '\'' if !double && !dollar => {
                in_word |= single;
                single = !single;
                continue;
            }
            ';' | '&' | '|' | '<' | '>' if !(single || double || back || dollar) => {
                if c == '>' && word.starts_with(|c: char| c.is_ascii_digit()) {
                    in_word = false;
                }
                break;
            }
            _ => {}
        }
        in_word = true;
        word.push(c);
    }
    if in_word {
        words.push(word);
    }
    if escaped || double || single || back || dollar {
        return Err(UNBALANCED);
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_escapes_are_taken_off() {
        for (line, expected) in [
            (r#"a  "b c" 'd e' f\ g"#, vec!["a", "b c", "d e", "f g"]),
            (r#"a "" b"#, vec!["a", "", "b"]),
            ("a && b", vec!["a"]),
            ("sh -c 'a && b'", vec!["sh", "-c", "a && b"]),
            ("echo $(a b)", vec!["echo", "$(a b)"]),
            ("a 2>b", vec!["a"]),
            ("", vec![]),
        ] {
            assert_eq!(split(line).unwrap(), expected, "{line}");
        }
        assert!(split("a 'b").is_err());
        assert!(split("a (b)").is_err());
    }
}
