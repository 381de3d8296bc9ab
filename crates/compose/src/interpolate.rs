//! `$NAME` and `${NAME…}` in texts.

use std::cell::RefCell;

/// Gives a variable's value.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Why a text cannot be interpolated. Never holds a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// Not of a known form.
    Invalid,
    /// `${NAME?…}` without a value; the message as it stands in the file.
    Missing { name: String, message: String },
    /// Too many defaults inside of defaults.
    TooDeep,
    /// The values make too long a text.
    TooLong,
}

/// Defaults nest this deep at most. People get to three.
const MAX_DEPTH: usize = 64;

/// A text with its values is this long at most, in bytes.
const MAX_LENGTH: usize = 8 << 20;

/// A text with its variables replaced.
#[derive(Debug, Default)]
pub(crate) struct Replaced {
    pub text: String,
    /// Variables without a value and without a default.
    pub unset: Vec<String>,
}

/// Replaces every variable of `template`.
pub(crate) fn substitute(template: &str, lookup: Lookup<'_>) -> Result<Replaced, Problem> {
    let mut replaced = Replaced::default();
    let text = expand(template, lookup, &mut replaced.unset, 0)?;
    replaced.text = text;
    Ok(replaced)
}

/// Tells every variable of `template`, those of defaults too.
pub(crate) fn mention(template: &str, tell: &mut dyn FnMut(&str)) {
    let tell = RefCell::new(tell);
    let lookup = |name: &str| {
        (tell.borrow_mut())(name);
        // With a value nothing is missing, and branches are expanded whether they are used or not.
        Some("x".to_string())
    };
    // What is not of the form is told by whoever loads.
    let _ = substitute(template, &lookup);
}

fn expand(
    template: &str,
    lookup: Lookup<'_>,
    unset: &mut Vec<String>,
    depth: usize,
) -> Result<String, Problem> {
    if depth > MAX_DEPTH {
        return Err(Problem::TooDeep);
    }
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(at) = rest.find('$') {
        if out.len() > MAX_LENGTH {
            return Err(Problem::TooLong);
        }
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let after = &rest[1..];
        match after.as_bytes().first() {
            Some(b'$') => {
                out.push('$');
                rest = &after[1..];
            }
            Some(b'{') => {
                let end = closing_brace(rest).ok_or(Problem::Invalid)?;
                let inner = &rest[2..end];
                out.push_str(&braced(inner, lookup, unset, depth)?);
                rest = &rest[end + 1..];
            }
            Some(first) if first.is_ascii_alphabetic() || *first == b'_' => {
                let (name, tail) = after.split_at(name_len(after));
                out.push_str(&value_or_blank(name, lookup, unset));
                rest = tail;
            }
            _ => {
                out.push('$');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// The place of the brace that closes the `${` at the start. Only `${` opens another level.
fn closing_brace(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut open, mut at) = (0usize, 0);
    while at < bytes.len() {
        match bytes[at] {
            // A default stays on its line.
            b'\n' => return None,
            b'}' => {
                open -= 1;
                if open == 0 {
                    return Some(at);
                }
            }
            b'$' if bytes.get(at + 1) == Some(&b'{') => {
                open += 1;
                at += 1;
            }
            _ => {}
        }
        at += 1;
    }
    None
}

fn name_len(text: &str) -> usize {
    text.bytes().position(|b| !(b.is_ascii_alphanumeric() || b == b'_')).unwrap_or(text.len())
}

fn value_or_blank(name: &str, lookup: Lookup<'_>, unset: &mut Vec<String>) -> String {
    lookup(name).unwrap_or_else(|| {
        unset.push(name.into());
        String::new()
    })
}

/// The inside of `${…}`. The other branch is expanded even if it is not used, as the reference
/// does it: a `?` in it still fails.
fn braced(
    inner: &str,
    lookup: Lookup<'_>,
    unset: &mut Vec<String>,
    depth: usize,
) -> Result<String, Problem> {
    let (name, rest) = inner.split_at(name_len(inner));
    if name.is_empty() || name.as_bytes()[0].is_ascii_digit() {
        return Err(Problem::Invalid);
    }
    if rest.is_empty() {
        return Ok(value_or_blank(name, lookup, unset));
    }
    let (empty_counts, rest) = match rest.strip_prefix(':') {
        Some(rest) => (false, rest),
        None => (true, rest),
    };
    let mut operator = rest.chars();
    let operator_char = operator.next();
    let branch = operator.as_str();
    let value = lookup(name).filter(|value| empty_counts || !value.is_empty());
    let mut unset_in_branch = Vec::new();
    match operator_char {
        Some('-') => {
            let default = expand(branch, lookup, &mut unset_in_branch, depth + 1)?;
            Ok(value.unwrap_or_else(|| {
                unset.append(&mut unset_in_branch);
                default
            }))
        }
        Some('+') => {
            let replacement = expand(branch, lookup, &mut unset_in_branch, depth + 1)?;
            Ok(value.map_or_else(String::new, |_| {
                unset.append(&mut unset_in_branch);
                replacement
            }))
        }
        Some('?') => {
            expand(branch, lookup, &mut unset_in_branch, depth + 1)?;
            value.ok_or_else(|| Problem::Missing { name: name.into(), message: branch.into() })
        }
        _ => Err(Problem::Invalid),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(template: &str, expected: Result<&str, &str>) {
        let lookup = |name: &str| match name {
            "SET" => Some("value".to_string()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let got = substitute(template, &lookup).map(|replaced| replaced.text);
        match (got, expected) {
            (Ok(got), Ok(expected)) => assert_eq!(got, expected, "{template}"),
            (Err(problem), Err(expected)) => {
                assert_eq!(format!("{problem:?}"), expected, "{template}");
            }
            (got, _) => panic!("{template}: {got:?}"),
        }
    }

    #[test]
    fn every_form_is_replaced() {
        check("a $SET b", Ok("a value b"));
        check("${SET}x", Ok("valuex"));
        check("${NONE}", Ok(""));
        check("${NONE:-d}", Ok("d"));
        check("${EMPTY:-d}", Ok("d"));
        check("${EMPTY-d}", Ok(""));
        check("${NONE-d}", Ok("d"));
        check("${SET:+r}", Ok("r"));
        check("${EMPTY:+r}", Ok(""));
        check("${EMPTY+r}", Ok("r"));
        check("${NONE+r}", Ok(""));
        check("${SET:?no}", Ok("value"));
        check("${EMPTY?no}", Ok(""));
        check("$$SET $$$SET", Ok("$SET $value"));
    }

    #[test]
    fn defaults_nest() {
        check("${NONE:-${NONE2:-${SET}}}", Ok("value"));
        check("${NONE:-a${SET}b}c", Ok("avaluebc"));
        check("${NONE:-$${X}}", Ok("${X}"));
        check("${NONE:-{}}", Ok("{}"));
    }

    #[test]
    fn a_dollar_before_anything_else_stays() {
        check("$ $1 $(x) $[x] a$", Ok("$ $1 $(x) $[x] a$"));
    }

    #[test]
    fn other_forms_are_errors() {
        for template in ["${1}", "${}", "${ V }", "${V!x}", "${V:x}", "${V", "${V:-a\nb}", "${V:"] {
            check(template, Err("Invalid"));
        }
        check("${NONE:?say}", Err(r#"Missing { name: "NONE", message: "say" }"#));
        check("${SET:-${NONE?}}", Err(r#"Missing { name: "NONE", message: "" }"#));
    }

    #[test]
    fn every_variable_is_mentioned() {
        let mut told = Vec::new();
        let template = "$A ${B:?no} ${C:-${D}} ${E+$F} $$G ${H?${I}}";
        mention(template, &mut |name| told.push(name.to_string()));
        told.sort();
        assert_eq!(told.concat(), "ABCDEFHI");
    }

    #[test]
    fn deep_nesting_ends() {
        let template = "${A:-".repeat(20_000) + &"}".repeat(20_000);
        check(&template, Err("TooDeep"));
    }
}
