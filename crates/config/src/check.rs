//! Checks a file against the schema that is made from [`File`], and reports everything that does
//! not fit, each with its line.

use std::sync::LazyLock;

use serde_json::{Map, Value};
use shiplap_compose::Diagnostic;
use shiplap_compose::document::{Cursor, Kind, nearest_word};

use crate::file::File;

/// The JSON Schema of `shiplap.yaml`, draft 2020-12.
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(File).to_value();
    // `x-…` is for people: anchors, and what other programs read.
    schema["patternProperties"] = serde_json::json!({"^x-": true});
    schema["$id"] = "https://shiplap.dev/schema/shiplap.json".into();
    schema
}

static SCHEMA: LazyLock<Value> = LazyLock::new(schema);

/// Reports everything that does not fit the schema.
pub(crate) fn check(root: &Cursor<'_>) -> Vec<Diagnostic> {
    let mut problems = Vec::new();
    Checker { problems: &mut problems }.value(root, &SCHEMA);
    problems
}

struct Checker<'a> {
    problems: &'a mut Vec<Diagnostic>,
}

/// The schema behind a reference.
fn resolve(schema: &Value) -> &Value {
    match schema.get("$ref").and_then(Value::as_str) {
        Some(reference) => {
            let pointer = reference.strip_prefix('#').expect("our references are inside");
            SCHEMA.pointer(pointer).expect("our references lead somewhere")
        }
        None => schema,
    }
}

impl Checker<'_> {
    fn say(&mut self, at: &Cursor<'_>, code: &'static str, message: String, label: &str) {
        self.problems.push(at.error(code, message, label));
    }

    fn value(&mut self, at: &Cursor<'_>, schema: &Value) {
        let schema = resolve(schema);
        if let Some(branches) = schema.get("anyOf").or_else(|| schema.get("oneOf")) {
            return self.branches(at, branches.as_array().expect("branches are a list"));
        }
        let kinds = kinds(schema);
        // What is left empty is as if it was not there.
        if at.kind() == Kind::Null && (kinds.is_empty() || !kinds.contains(&"string")) {
            return;
        }
        if !kinds.is_empty() && !kinds.iter().any(|kind| is(at.kind(), kind)) {
            let wanted = words(&kinds);
            let message = format!("`{}` must be {wanted}, not {}", at.path(), at.kind().words());
            return self.say(at, "config/wrong-type", message, &format!("{wanted} is wanted here"));
        }
        match at.kind() {
            Kind::Map => self.map(at, schema),
            Kind::List => {
                let items = schema.get("items").unwrap_or(&Value::Null);
                at.items().for_each(|item| self.value(&item, items));
            }
            Kind::Text => self.text(at, schema),
            Kind::Integer | Kind::Number => self.number(at, schema),
            Kind::Null | Kind::Bool => {}
        }
    }

    fn map(&mut self, at: &Cursor<'_>, schema: &Value) {
        let none = Map::new();
        let known = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
        let others = schema.get("additionalProperties").unwrap_or(&Value::Bool(true));
        for (key, value) in at.entries() {
            match (known.get(key), others) {
                (Some(schema), _) => self.value(&value, schema),
                (None, Value::Bool(false)) if at.path().is_empty() && key.starts_with("x-") => {}
                (None, Value::Bool(false)) => self.unknown(at, key, &value, known),
                (None, Value::Bool(true)) => {}
                (None, schema) => self.value(&value, schema),
            }
        }
        let required = schema.get("required").and_then(Value::as_array);
        for key in required.into_iter().flatten().filter_map(Value::as_str) {
            if at.get(key).is_none() {
                let message = format!("`{}` does not say `{key}`", at.path());
                self.say(at, "config/missing", message, &format!("`{key}:` is missing"));
            }
        }
    }

    fn unknown(
        &mut self,
        at: &Cursor<'_>,
        key: &str,
        value: &Cursor<'_>,
        known: &Map<String, Value>,
    ) {
        let place = if at.path().is_empty() { "this file" } else { &format!("`{}`", at.path()) };
        let message = format!("{place} knows no `{key}`");
        let mut diagnostic = Diagnostic::error("config/unknown-key", message)
            .at(value.key_location(), "no such setting");
        let words: Vec<&str> = known.keys().map(String::as_str).collect();
        diagnostic = match nearest_word(key, words.iter().copied()) {
            Some(near) => diagnostic.help(format!("did you mean `{near}`?")),
            None => diagnostic.help(format!("it knows {}", words.join(", "))),
        };
        self.problems.push(diagnostic);
    }

    /// Of several forms, the one of the value's kind.
    fn branches(&mut self, at: &Cursor<'_>, branches: &[Value]) {
        let branches = forms(branches);
        let fits = |branch: &&&Value| kinds(branch).iter().any(|kind| is(at.kind(), kind));
        // Words of an enumeration are branches each.
        let texts: Vec<&&Value> =
            branches.iter().filter(|branch| !choices(branch).is_empty()).collect();
        if at.kind() == Kind::Text && !texts.is_empty() {
            let words: Vec<&str> = texts.iter().flat_map(|branch| choices(branch)).collect();
            return self.choice(at, &words);
        }
        match branches.iter().find(fits) {
            Some(branch) => self.value(at, branch),
            None if at.kind() == Kind::Null => {}
            None => {
                let kinds: Vec<&str> = branches.iter().flat_map(|b| kinds(b)).collect();
                let wanted = words(&kinds);
                let message =
                    format!("`{}` must be {wanted}, not {}", at.path(), at.kind().words());
                self.say(at, "config/wrong-type", message, &format!("{wanted} is wanted here"));
            }
        }
    }

    fn text(&mut self, at: &Cursor<'_>, schema: &Value) {
        let text = at.text().unwrap_or_default();
        let words = choices(schema);
        if !words.is_empty() {
            return self.choice(at, &words);
        }
        if let Some(pattern) = schema.get("pattern").and_then(Value::as_str)
            && !fits_pattern(pattern, text)
        {
            let message = format!("`{}` cannot be `{text}`", at.path());
            self.problems.push(
                at.error("config/wrong-value", message, "not of the form that it must have")
                    .help(pattern_words(pattern)),
            );
        }
    }

    fn choice(&mut self, at: &Cursor<'_>, words: &[&str]) {
        let text = at.text().unwrap_or_default();
        if words.contains(&text) {
            return;
        }
        let message = format!("`{}` cannot be `{text}`", at.path());
        let help = match nearest_word(text, words.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("it is one of {}", words.join(", ")),
        };
        self.problems.push(at.error("config/wrong-value", message, "no such word").help(help));
    }

    fn number(&mut self, at: &Cursor<'_>, schema: &Value) {
        let value = at.to_json().as_f64().unwrap_or_default();
        let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
        let (least, most) = (bound("minimum"), bound("maximum"));
        if least.is_some_and(|least| value < least) || most.is_some_and(|most| value > most) {
            let range = match (least, most) {
                (Some(least), Some(most)) => format!("from {least} to {most}"),
                (Some(least), None) => format!("{least} at least"),
                (None, Some(most)) => format!("{most} at most"),
                (None, None) => String::new(),
            };
            let message = format!("`{}` must be {range}, not {value}", at.path());
            self.say(at, "config/wrong-value", message, "out of range");
        }
    }
}

/// All forms of a value that may have several, those of forms included.
fn forms(branches: &[Value]) -> Vec<&Value> {
    let mut all = Vec::new();
    for branch in branches.iter().map(resolve) {
        match branch.get("anyOf").or_else(|| branch.get("oneOf")).and_then(Value::as_array) {
            Some(inner) => all.extend(forms(inner)),
            None => all.push(branch),
        }
    }
    all
}

/// The types that a schema allows.
fn kinds(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(kind)) => vec![kind],
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect(),
        _ if !choices(schema).is_empty() => vec!["string"],
        _ => Vec::new(),
    }
}

/// The words that a schema allows, if it allows only words.
fn choices(schema: &Value) -> Vec<&str> {
    if let Some(word) = schema.get("const").and_then(Value::as_str) {
        return vec![word];
    }
    let words = schema.get("enum").and_then(Value::as_array);
    words.into_iter().flatten().filter_map(Value::as_str).collect()
}

fn is(kind: Kind, name: &str) -> bool {
    match kind {
        Kind::Null => name == "null",
        Kind::Bool => name == "boolean",
        Kind::Integer => matches!(name, "integer" | "number"),
        Kind::Number => name == "number",
        Kind::Text => name == "string",
        Kind::List => name == "array",
        Kind::Map => name == "object",
    }
}

fn words(kinds: &[&str]) -> String {
    let mut words: Vec<&str> = Vec::new();
    for kind in kinds {
        let word = match *kind {
            "boolean" => Kind::Bool.words(),
            "integer" => Kind::Integer.words(),
            "number" => Kind::Number.words(),
            "string" => Kind::Text.words(),
            "array" => Kind::List.words(),
            "object" => Kind::Map.words(),
            _ => continue,
        };
        if !words.contains(&word) {
            words.push(word);
        }
    }
    words.join(" or ")
}

/// The few patterns that the types use.
fn fits_pattern(pattern: &str, text: &str) -> bool {
    match pattern {
        r"^/" => text.starts_with('/'),
        r"^[a-z0-9][a-z0-9_-]*$" => is_name(text),
        r"^[^/]+/[^/]+$" => {
            text.split('/').count() == 2 && text.split('/').all(|part| !part.is_empty())
        }
        other => unreachable!("a pattern without a check: {other}"),
    }
}

fn pattern_words(pattern: &str) -> &'static str {
    match pattern {
        r"^/" => "it starts with `/`",
        r"^[^/]+/[^/]+$" => "OWNER/NAME",
        _ => "lower-case letters, digits, `-` and `_`, the first a letter or a digit",
    }
}

/// Whether a text can be the name of a project or an environment.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && text.chars().all(inner)
}
