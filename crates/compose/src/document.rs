//! Other YAML files of a project, read as strictly as Compose files are: every value knows its file
//! and line, and what is nested, repeated or expanded is bounded.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Number, Value as Json};

use crate::context::nearest;
use crate::diagnostic::{Diagnostic, Location};
use crate::node::{Node, Sources, Span, Value};
use crate::yaml::{self, Budget};

/// A file with one YAML document.
#[derive(Clone, Debug)]
pub struct Document {
    root: Node,
    sources: Sources,
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    Null,
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Integer,
    /// Another number.
    Number,
    /// A text, or what YAML takes for a date.
    Text,
    /// A list.
    List,
    /// A mapping.
    Map,
}

impl Kind {
    /// As people say it: `a list`.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool => "true or false",
            Self::Integer => "a whole number",
            Self::Number => "a number",
            Self::Text => "a text",
            Self::List => "a list",
            Self::Map => "a mapping",
        }
    }
}

impl Document {
    /// Reads a text; `path` is its name in messages.
    ///
    /// # Errors
    /// What is no YAML, or not exactly one document with a mapping.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Box<Diagnostic>> {
        let text: Arc<str> = text.strip_prefix('\u{feff}').unwrap_or(text).into();
        let mut sources = Sources::default();
        let file = sources.add(path.to_path_buf(), text.clone());
        let documents = yaml::parse(&text, file, &mut Budget::default()).map_err(|error| {
            let diagnostic = Diagnostic::error(error.code, error.message)
                .at(sources.locate(error.span), error.label);
            Box::new(match error.other {
                Some((what, span)) => diagnostic.related(what, sources.locate(span)),
                None => diagnostic,
            })
        })?;
        let mut documents = documents.into_iter();
        let name = path.display();
        let wrong = |message: String, span: Span| {
            Err(Box::new(
                Diagnostic::error("config/wrong-type", message).at(sources.locate(span), ""),
            ))
        };
        match (documents.next(), documents.next()) {
            (Some(root), None) if matches!(root.value, Value::Map(_)) => Ok(Self { root, sources }),
            (Some(root), None) => wrong(format!("`{name}` must be a mapping"), root.span),
            (Some(_), Some(second)) => {
                wrong(format!("`{name}` holds more than one document"), second.span)
            }
            (None, _) => wrong(format!("`{name}` is empty"), Span::default()),
        }
    }

    /// Its mapping.
    #[must_use]
    pub fn root(&self) -> Cursor<'_> {
        Cursor { document: self, node: &self.root, path: String::new() }
    }
}

/// A value of a document, and where it stands.
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    document: &'a Document,
    node: &'a Node,
    path: String,
}

impl<'a> Cursor<'a> {
    /// What it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self.node.value {
            Value::Null => Kind::Null,
            Value::Bool(_) => Kind::Bool,
            Value::Int(_) | Value::Huge(_) => Kind::Integer,
            Value::Float(_) => Kind::Number,
            Value::Text(_) | Value::Date => Kind::Text,
            Value::List(_) => Kind::List,
            Value::Map(_) => Kind::Map,
        }
    }

    /// Where it stands, as people write it: `environments.prod.routes[0]`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The text, where it is one.
    #[must_use]
    pub fn text(&self) -> Option<&'a str> {
        match &self.node.value {
            Value::Text(text) => Some(text),
            Value::Date => self.document.sources.raw(self.node.span),
            _ => None,
        }
    }

    /// The entry of a mapping.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Self> {
        Some(self.enter_key(key, self.node.get(key)?))
    }

    /// The value at a path of keys and indices, or the nearest thing around it that is there.
    #[must_use]
    pub fn nearest(&self, path: &[&str]) -> Self {
        let mut here = self.clone();
        for step in path {
            let next = match &here.node.value {
                Value::List(_) => {
                    step.parse().ok().and_then(|index: usize| here.items().nth(index))
                }
                _ => here.get(step),
            };
            match next {
                Some(next) => here = next,
                None => break,
            }
        }
        here
    }

    /// The entries of a mapping, in order; none where it is something else.
    pub fn entries(&self) -> impl Iterator<Item = (&'a str, Self)> + use<'a> {
        let here = self.clone();
        let map = self.node.as_map().into_iter().flatten();
        map.map(move |(key, node)| (key.as_str(), here.enter_key(key, node)))
    }

    /// The items of a list, in order; none where it is something else.
    pub fn items(&self) -> impl Iterator<Item = Self> + use<'a> {
        let here = self.clone();
        let list = self.node.as_list().into_iter().flatten().enumerate();
        list.map(move |(index, node)| Self {
            document: here.document,
            node,
            path: format!("{}[{index}]", here.path),
        })
    }

    fn enter_key(&self, key: &str, node: &'a Node) -> Self {
        let dot = if self.path.is_empty() { "" } else { "." };
        Self { document: self.document, node, path: format!("{}{dot}{key}", self.path) }
    }

    /// Where the value was written; of large ones, their key.
    #[must_use]
    pub fn location(&self) -> Option<Location> {
        let span = match self.kind() {
            Kind::List | Kind::Map | Kind::Null => self.node.key_place(),
            Kind::Bool | Kind::Integer | Kind::Number | Kind::Text => self.node.place(),
        };
        self.document.sources.locate(span)
    }

    /// Where its key was written; of an item of a list, the item.
    #[must_use]
    pub fn key_location(&self) -> Option<Location> {
        self.document.sources.locate(self.node.key_place())
    }

    /// An error about the value.
    #[must_use]
    pub fn error(&self, code: &'static str, message: impl Into<String>, label: &str) -> Diagnostic {
        Diagnostic::error(code, message).at(self.location(), label)
    }

    /// The value as JSON.
    #[must_use]
    pub fn to_json(&self) -> Json {
        match &self.node.value {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Int(value) => Json::Number((*value).into()),
            Value::Huge(value) => Json::Number((*value).into()),
            Value::Float(value) => Number::from_f64(*value).map_or(Json::Null, Json::Number),
            Value::Text(_) | Value::Date => Json::from(self.text().unwrap_or_default()),
            Value::List(_) => self.items().map(|item| item.to_json()).collect(),
            Value::Map(_) => {
                let entries = self.entries().map(|(key, value)| (key.to_owned(), value.to_json()));
                Json::Object(entries.collect())
            }
        }
    }
}

/// The known word nearest to what was typed, if it is near enough to be meant.
#[must_use]
pub fn nearest_word<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    nearest(typed, known)
}

/// Splits a command line into words, as a shell would, without being one.
///
/// # Errors
/// A quote or a bracket that is not closed.
pub fn split_words(line: &str) -> Result<Vec<String>, &'static str> {
    crate::words::split(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Document, Box<Diagnostic>> {
        Document::parse(Path::new("shiplap.yaml"), text)
    }

    #[test]
    fn values_know_where_they_stand() {
        let document = parse("a:\n  - x: 1\n    when: 2026-01-02\n").expect("YAML");
        let item = document.root().get("a").and_then(|a| a.items().next()).expect("an item");
        let value = item.get("x").expect("x");
        assert_eq!(value.path(), "a[0].x");
        assert_eq!(value.location().map(|l| (l.line, l.column)), Some((2, 8)));
        assert_eq!(item.to_json(), serde_json::json!({"x": 1, "when": "2026-01-02"}));
        assert_eq!(document.root().nearest(&["a", "0", "y"]).path(), "a[0]");
    }

    #[test]
    fn anything_but_one_mapping_is_refused() {
        for text in ["", "[]", "a: 1\n---\nb: 2\n", "a: [", "a: 1\na: 2\n"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
