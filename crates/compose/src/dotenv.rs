//! `.env` files as Compose reads them.

use std::cell::RefCell;
use std::fmt;

use indexmap::IndexMap;

use crate::interpolate::{self, Lookup, Problem};

/// A file that is not of the form; never holds a value of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DotenvError {
    /// From 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for DotenvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

impl std::error::Error for DotenvError {}

/// All values of a load's files together, in bytes: `B=$A$A`, `C=$B$B` … must end.
const MAX_SIZE: usize = 4 << 20;

pub(crate) type Variables = IndexMap<String, String>;

/// Adds the variables of a file to `variables`. Values may use earlier ones and those of `lookup`,
/// which come first.
///
/// `KEY=value`, `KEY: value`, `export KEY=value`; a bare `KEY` takes the value of `lookup`. Single
/// quotes keep everything, double quotes know `\n`, `\t`, `\"`, `\$` and variables, both span
/// lines. ` #` starts a comment outside of quotes.
pub(crate) fn parse(
    text: &str,
    variables: &mut Variables,
    lookup: Lookup<'_>,
) -> Result<(), DotenvError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut parser = Parser { rest: text, line: 1 };
    let mut size: usize = variables.values().map(String::len).sum();
    while parser.skip_to_statement() {
        let (key, inherited) = parser.key()?;
        if key.contains(' ') {
            return Err(parser.error("a variable's name contains a space"));
        }
        if inherited {
            if let Some(value) = lookup(&key) {
                variables.insert(key, value);
            }
            continue;
        }
        let value = {
            let both = |name: &str| lookup(name).or_else(|| variables.get(name).cloned());
            parser.value(&key, &both)?
        };
        size += value.len();
        if size > MAX_SIZE {
            return Err(parser.error("the values take too much room"));
        }
        variables.insert(key, value);
    }
    Ok(())
}

/// Tells every variable that a file looks up.
pub(crate) fn mention(text: &str, tell: &mut dyn FnMut(&str)) {
    let tell = RefCell::new(tell);
    let lookup = |name: &str| {
        (tell.borrow_mut())(name);
        Some("x".to_string())
    };
    let _ = parse(text, &mut Variables::new(), &lookup);
}

/// Adds the variables of a file in the format `raw`: nothing in it is special.
pub(crate) fn parse_raw(
    text: &str,
    variables: &mut Variables,
    lookup: Lookup<'_>,
) -> Result<(), DotenvError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = match line.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (line, None),
        };
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err(DotenvError {
                line: index + 1,
                message: "a name is missing or contains white space".into(),
            });
        }
        if let Some(value) = value.map(str::to_string).or_else(|| lookup(key)) {
            variables.insert(key.into(), value);
        }
    }
    Ok(())
}

struct Parser<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Parser<'a> {
    fn error(&self, message: impl Into<String>) -> DotenvError {
        DotenvError { line: self.line, message: message.into() }
    }

    fn advance(&mut self, bytes: usize) {
        self.line += self.rest[..bytes].matches('\n').count();
        self.rest = &self.rest[bytes..];
    }

    /// Goes past white space and comments; false at the end.
    fn skip_to_statement(&mut self) -> bool {
        loop {
            let Some(at) = self.rest.find(|c: char| !c.is_whitespace()) else { return false };
            self.advance(at);
            if !self.rest.starts_with('#') {
                return true;
            }
            let Some(end) = self.rest.find('\n') else { return false };
            self.advance(end);
        }
    }

    /// The name before `=`, `:` or the end of the line; the latter inherits its value.
    fn key(&mut self) -> Result<(String, bool), DotenvError> {
        if let Some(rest) = self.rest.strip_prefix("export") {
            let trimmed = rest.trim_start();
            if trimmed.len() < rest.len() {
                self.advance("export".len() + rest.len() - trimmed.len());
            }
        }
        for (at, c) in self.rest.char_indices() {
            match c {
                '=' | ':' | '\n' => {
                    let key = self.rest[..at].trim_end().to_string();
                    self.advance(at + 1);
                    let spaces = self.rest.len() - self.rest.trim_start_matches(is_space).len();
                    self.advance(spaces);
                    return Ok((key, c == '\n'));
                }
                '_' | '.' | '-' | '[' | ']' => {}
                c if is_space(c) || c.is_alphanumeric() => {}
                c => return Err(self.error(format!("`{c}` cannot stand in a variable's name"))),
            }
        }
        // The last line without a line break.
        let key = self.rest.trim_end().to_string();
        self.advance(self.rest.len());
        Ok((key, true))
    }

    fn value(&mut self, key: &str, lookup: Lookup<'_>) -> Result<String, DotenvError> {
        match self.rest.chars().next() {
            Some(quote @ ('"' | '\'')) => self.quoted(key, quote, lookup),
            _ => {
                let line = self.rest.split('\n').next().unwrap_or("");
                let value = line.split(" #").next().unwrap_or("").trim_end();
                let value = self.expand(key, value, lookup)?;
                self.advance((line.len() + 1).min(self.rest.len()));
                Ok(value)
            }
        }
    }

    fn quoted(
        &mut self,
        key: &str,
        quote: char,
        lookup: Lookup<'_>,
    ) -> Result<String, DotenvError> {
        let mut content = String::new();
        let mut escaped = false;
        for (at, c) in self.rest.char_indices().skip(1) {
            if escaped {
                escaped = false;
                if c != quote {
                    content.push('\\');
                }
                content.push(c);
            } else if c == '\\' {
                escaped = true;
            } else if c == quote {
                let value = if quote == '"' {
                    self.expand(key, &unescape(&content), lookup)?
                } else {
                    content
                };
                self.advance(at + 1);
                return Ok(value);
            } else {
                content.push(c);
            }
        }
        Err(self.error(format!("the quote of `{key}` is not closed")))
    }

    fn expand(&self, key: &str, value: &str, lookup: Lookup<'_>) -> Result<String, DotenvError> {
        match interpolate::substitute(value, lookup) {
            Ok(replaced) => Ok(replaced.text),
            Err(Problem::Missing { name, .. }) => {
                Err(self.error(format!("`{key}` requires `{name}`, which has no value")))
            }
            Err(Problem::Invalid) => {
                Err(self.error(format!("`{key}` holds a `${{…}}` of unknown form")))
            }
            Err(Problem::TooDeep) => Err(self.error(format!("`{key}` nests too deep"))),
            Err(Problem::TooLong) => Err(self.error(format!("`{key}` becomes too long"))),
        }
    }
}

/// White space that does not end a line.
fn is_space(c: char) -> bool {
    matches!(c, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ' | '\u{85}' | '\u{a0}')
}

/// The escapes of double quotes; what is none stays as it is.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        let mut rest = chars.clone();
        let simple = match rest.next().map(|(_, c)| c) {
            Some('a') => "\u{7}",
            Some('b') => "\u{8}",
            Some('c') => "\\c",
            Some('f') => "\u{c}",
            Some('n') => "\n",
            Some('r') => "\r",
            Some('t') => "\t",
            Some('v') => "\u{b}",
            Some('\\') => "\\",
            Some('"') => "\"",
            Some('$') => "$$",
            Some('0') => {
                let digits: String = text[at + 2..]
                    .chars()
                    .take(3)
                    .take_while(|c| ('0'..='7').contains(c))
                    .collect();
                match u32::from_str_radix(&digits, 8).ok().and_then(char::from_u32) {
                    Some(c) if digits.len() == 3 => {
                        out.push(c);
                        for _ in 0..4 {
                            chars.next();
                        }
                    }
                    _ => out.push('\\'),
                }
                continue;
            }
            _ => {
                out.push('\\');
                continue;
            }
        };
        out.push_str(simple);
        chars = rest;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(text: &str, expected: Expect) {
        let mut variables = Variables::new();
        let lookup = |name: &str| (name == "HOST").then(|| "outside".to_string());
        let result = parse(text, &mut variables, &lookup);
        let mut got: String =
            variables.iter().map(|(key, value)| format!("{key} = {value:?}\n")).collect();
        if let Err(error) = result {
            got += &format!("line {}: {}\n", error.line, error.message);
        }
        expected.assert_eq(&got);
    }

    #[test]
    fn all_forms_are_read() {
        check(
            "# comment\nA=1\nexport B = two words # comment\nC: yaml\nHOST\nNONE\nD='a $A # b'\nE=\"x\\ty $A\"\n\nF=\nG=a#b\n",
            expect![[r##"
                A = "1"
                B = "two words"
                C = "yaml"
                HOST = "outside"
                D = "a $A # b"
                E = "x\ty 1"
                F = ""
                G = "a#b"
            "##]],
        );
    }

    #[test]
    fn quotes_span_lines_and_escape() {
        check(
            "A=\"one\ntwo\" # c\nB='it\\'s'\nC=\"\\$A \\\\ \\\" \\q\"\nD=${A:-x}-${Z:-d}\n",
            expect![[r#"
                A = "one\ntwo"
                B = "it's"
                C = "$A \\ \" \\q"
                D = "one\ntwo-d"
            "#]],
        );
    }

    #[test]
    fn outer_variables_come_first_and_the_byte_order_mark_is_dropped() {
        check(
            "\u{feff}HOST=inside\r\nB=$HOST\r\n",
            expect![[r#"
                HOST = "inside"
                B = "outside"
            "#]],
        );
    }

    #[test]
    fn errors_show_no_value() {
        check(
            "A=1\nB=\"secret\n",
            expect![[r#"
                A = "1"
                line 2: the quote of `B` is not closed
            "#]],
        );
        check(
            "A%=secret\n",
            expect![[r#"
            line 1: `%` cannot stand in a variable's name
        "#]],
        );
        check(
            "A B=secret\n",
            expect![[r#"
            line 1: a variable's name contains a space
        "#]],
        );
        check(
            "A=${B?secret}\n",
            expect![[r#"
            line 1: `A` requires `B`, which has no value
        "#]],
        );
    }
}
