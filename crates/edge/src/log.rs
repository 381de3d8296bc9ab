//! One line per event, on standard error. Never fails: a closed standard error stops nobody.

use std::fmt::Display;
use std::io::Write;

/// Writes `edge worker event name=value …`.
pub(crate) fn event(role: &str, name: &str, fields: &[(&str, &dyn Display)]) {
    let mut line = format!("edge {role} {name}");
    for (key, value) in fields {
        let value = value.to_string();
        if value.is_empty() || value.contains([' ', '"', '\n']) {
            line.push_str(&format!(" {key}={value:?}"));
        } else {
            line.push_str(&format!(" {key}={value}"));
        }
    }
    line.push('\n');
    let _ = std::io::stderr().write_all(line.as_bytes());
}
