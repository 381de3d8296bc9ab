//! JSON values as YAML, always the same way.

use std::fmt::Write;

use serde_json::Value as Json;

use crate::node::Value;
use crate::yaml::resolve;

/// Bytes of a key that may stand before its colon. YAML allows 1,024 characters on the line, and the
/// reference 128; a longer one is announced by a question mark.
const LONGEST_KEY: usize = 128;

/// Prints a value as a YAML document.
pub(crate) fn print(json: &Json) -> String {
    let mut out = String::new();
    match json {
        Json::Object(map) if !map.is_empty() => mapping(map, 0, &mut out),
        Json::Array(items) if !items.is_empty() => sequence(items, 0, &mut out),
        other => {
            inline(other, 0, &mut out);
            out.push('\n');
        }
    }
    out
}

fn mapping(map: &serde_json::Map<String, Json>, indent: usize, out: &mut String) {
    for (index, (key, value)) in map.iter().enumerate() {
        if index > 0 || out.ends_with('\n') || out.is_empty() {
            pad(indent, out);
        }
        if key.len() > LONGEST_KEY {
            out.push_str("? ");
            scalar_text(key, indent, false, out);
            out.push('\n');
            pad(indent, out);
        } else {
            scalar_text(key, indent, false, out);
        }
        out.push(':');
        match value {
            Json::Object(map) if !map.is_empty() => {
                out.push('\n');
                mapping(map, indent + 2, out);
            }
            Json::Array(items) if !items.is_empty() => {
                out.push('\n');
                sequence(items, indent + 2, out);
            }
            Json::Null => out.push_str(" null\n"),
            other => {
                out.push(' ');
                inline(other, indent + 2, out);
                out.push('\n');
            }
        }
    }
}

fn sequence(items: &[Json], indent: usize, out: &mut String) {
    for (index, item) in items.iter().enumerate() {
        if index > 0 || out.ends_with('\n') || out.is_empty() {
            pad(indent, out);
        }
        out.push_str("- ");
        match item {
            Json::Object(map) if !map.is_empty() => mapping(map, indent + 2, out),
            Json::Array(items) if !items.is_empty() => sequence(items, indent + 2, out),
            other => {
                inline(other, indent + 2, out);
                out.push('\n');
            }
        }
    }
}

fn pad(indent: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', indent));
}

fn inline(json: &Json, indent: usize, out: &mut String) {
    match json {
        Json::Object(_) => out.push_str("{}"),
        Json::Array(_) => out.push_str("[]"),
        Json::String(text) => scalar_text(text, indent, true, out),
        Json::Null | Json::Bool(_) | Json::Number(_) => {
            // Writing to a string cannot fail.
            let _ = write!(out, "{json}");
        }
    }
}

fn scalar_text(text: &str, indent: usize, may_be_block: bool, out: &mut String) {
    if is_plain(text) {
        out.push_str(text);
    } else if may_be_block && is_block(text) {
        out.push_str(match text.as_bytes() {
            [.., b'\n', b'\n'] => "|+\n",
            [.., b'\n'] => "|\n",
            _ => "|-\n",
        });
        for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
            if !line.is_empty() {
                pad(indent, out);
            }
            out.push_str(line);
            out.push('\n');
        }
        out.pop();
    } else {
        quoted(text, out);
    }
}

/// Whether the text means itself without quotes.
fn is_plain(text: &str) -> bool {
    // YAML 1.1 takes these for booleans, and other programs still read it so.
    const WORDS: &[&str] = &["y", "n", "yes", "no", "on", "off"];
    let start = |c: char| c.is_alphanumeric() || matches!(c, '/' | '.' | '_' | '$' | '(' | '+');
    let inside = |c: char| {
        c.is_alphanumeric()
            || matches!(
                c,
                ' ' | '.'
                    | '_'
                    | '-'
                    | '/'
                    | '$'
                    | '('
                    | ')'
                    | '+'
                    | '='
                    | '@'
                    | ';'
                    | '~'
                    | '^'
                    | ':'
                    | ','
                    | '?'
            )
    };
    text.starts_with(start)
        && text.chars().all(inside)
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !WORDS.contains(&text.to_ascii_lowercase().as_str())
        && matches!(resolve(text), Value::Text(_))
}

/// Whether the text can stand as a block of lines.
fn is_block(text: &str) -> bool {
    text.contains('\n')
        && !text.starts_with([' ', '\n', '\t'])
        && !text.lines().any(|line| line.ends_with([' ', '\t']))
        && text.chars().all(|c| c == '\n' || c == '\t' || !is_unprintable(c))
}

/// What YAML does not allow as it is, and what some readers take for a line break.
fn is_unprintable(c: char) -> bool {
    c.is_control() || matches!(c, '\u{feff}' | '\u{2028}' | '\u{2029}' | '\u{fffe}' | '\u{ffff}')
}

fn quoted(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if is_unprintable(c) => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finish::plain;
    use crate::yaml::{Budget, parse};
    use expect_test::expect;
    use serde_json::json;

    #[test]
    fn ambiguous_texts_are_quoted_and_blocks_are_blocks() {
        let value = json!({
            "a": "yes", "b": "1.0", "c": "x: y", "d": "", "e": "line\nline\n", "f": " lead\n",
            "g": [1, [2, {"k": "v", "l": []}], {}], "h": null, "i": "a # b", "j": "$$x",
        });
        expect![[r#"
            a: "yes"
            b: "1.0"
            c: "x: y"
            d: ""
            e: |
              line
              line
            f: " lead\n"
            g:
              - 1
              - - 2
                - k: v
                  l: []
              - {}
            h: null
            i: "a # b"
            j: $$x
        "#]]
        .assert_eq(&print(&value));
    }

    #[test]
    fn what_is_printed_reads_back_the_same() {
        let value = json!({
            "texts": ["", "~", "null", "-", "- a", "0x1", "1e3", "2024-01-02", "a\n\nb\n\n", "\tx", "é", "a\u{7}b", "x\n y", "\nx", "'q'", "%a", "@b", "a:", "a: b", "#", "!tag", "&a", "*a", "|", ">", "=", "<<", "[", "{", "\u{feff}x", "a\r\nb", "\u{fffe}", "a\nb\u{ffff}", "012", ".5", "+1"],
            "long": {"k: ".repeat(400): "v", "m".repeat(1100): {"a": ["b"]}},
            "nested": {"0": {"true": [[], {}, [[1.5, true, null]]]}},
        });
        let text = print(&value);
        let documents = parse(&text, 1, &mut Budget::default()).unwrap();
        assert_eq!(plain(&documents[0]), value, "{text}");
    }
}
