//! The tree of a Compose file, in which every value knows where it was written.

use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;

use crate::diagnostic::Location;

/// A range of bytes in one source; `Span::default()` is nowhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    /// The source's number, from 1.
    pub file: u32,
    pub start: u32,
    pub len: u32,
}

impl Span {
    pub fn is_known(self) -> bool {
        self.file != 0
    }
}

/// What a tag asks of merging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// `!reset`: forget what earlier files said; this value counts for nothing.
    Reset,
    /// `!override`: this value replaces what earlier files said.
    Override,
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub value: Value,
    pub span: Span,
    /// The key before it, if it stands in a mapping.
    pub key: Span,
    pub mark: Option<Mark>,
    /// Whether a variable went into it, so that it must not be shown.
    pub interpolated: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    /// A whole number that only fits without a sign.
    Huge(u64),
    Float(f64),
    Text(String),
    /// A plain scalar that YAML takes for a date: no attribute allows it.
    Date,
    List(Vec<Node>),
    Map(Map),
}

pub(crate) type Map = IndexMap<String, Node>;

impl Node {
    pub fn new(value: Value, span: Span) -> Self {
        Self { value, span, key: Span::default(), mark: None, interpolated: false }
    }

    /// A value that stands where `self` stands.
    pub fn derive(&self, value: Value) -> Self {
        Self { value, span: self.span, key: self.key, mark: None, interpolated: self.interpolated }
    }

    pub fn text(&self, text: impl Into<String>) -> Self {
        self.derive(Value::Text(text.into()))
    }

    pub fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_map(&self) -> Option<&Map> {
        match &self.value {
            Value::Map(map) => Some(map),
            _ => None,
        }
    }

    pub fn as_map_mut(&mut self) -> Option<&mut Map> {
        match &mut self.value {
            Value::Map(map) => Some(map),
            _ => None,
        }
    }

    pub fn as_list(&self) -> Option<&[Node]> {
        match &self.value {
            Value::List(list) => Some(list),
            _ => None,
        }
    }

    pub fn as_list_mut(&mut self) -> Option<&mut Vec<Node>> {
        match &mut self.value {
            Value::List(list) => Some(list),
            _ => None,
        }
    }

    pub fn get(&self, key: &str) -> Option<&Node> {
        self.as_map()?.get(key)
    }

    pub fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        self.as_map_mut()?.get_mut(key)
    }

    /// The text below `key`.
    pub fn text_at(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_text()
    }

    pub fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// A scalar as Go prints it: `1.50` is `1.5`, `1e3` is `1000`.
    pub fn scalar_text(&self) -> Option<String> {
        match &self.value {
            Value::Bool(value) => Some(value.to_string()),
            Value::Int(value) => Some(value.to_string()),
            Value::Huge(value) => Some(value.to_string()),
            Value::Float(value) => Some(go_float(*value)),
            Value::Text(text) => Some(text.clone()),
            Value::Null | Value::Date | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// The same content, wherever it was written.
    pub fn same(&self, other: &Node) -> bool {
        match (&self.value, &other.value) {
            (Value::Null, Value::Null) | (Value::Date, Value::Date) => true,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::Int(a), Value::Int(b)) => a == b,
            (Value::Huge(a), Value::Huge(b)) => a == b,
            (Value::Float(a), Value::Float(b)) => a == b,
            (Value::Int(a), Value::Float(b)) | (Value::Float(b), Value::Int(a)) => *a as f64 == *b,
            (Value::Text(a), Value::Text(b)) => a == b,
            (Value::List(a), Value::List(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same(b))
            }
            (Value::Map(a), Value::Map(b)) => {
                a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| a.same(b)))
            }
            _ => false,
        }
    }

    /// How many nodes this is.
    pub fn size(&self) -> usize {
        1 + match &self.value {
            Value::List(items) => items.iter().map(Node::size).sum(),
            Value::Map(map) => map.values().map(Node::size).sum(),
            _ => 0,
        }
    }

    /// Where to point for this value: the value itself, else its key.
    pub fn place(&self) -> Span {
        if self.span.is_known() { self.span } else { self.key }
    }

    /// Where to point for this entry of a mapping: its key, else its value.
    pub fn key_place(&self) -> Span {
        if self.key.is_known() { self.key } else { self.span }
    }
}

/// Where we are, as people write it: `services.web.ports[0]`.
#[derive(Default)]
pub(crate) struct Path {
    pub text: String,
}

impl Path {
    pub fn enter_key(&mut self, key: &str) -> usize {
        let before = self.text.len();
        if before > 0 {
            self.text.push('.');
        }
        self.text.push_str(key);
        before
    }

    pub fn enter_item(&mut self, index: usize) -> usize {
        let before = self.text.len();
        self.text.push_str(&format!("[{index}]"));
        before
    }

    pub fn leave(&mut self, before: usize) {
        self.text.truncate(before);
    }
}

/// The words that Compose takes for a boolean.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "y" | "yes" | "on" => Some(true),
        "false" | "n" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// A number as Go's `%v` prints it.
pub(crate) fn go_float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf".into() } else { "-Inf".into() };
    }
    let magnitude = value.abs();
    if magnitude != 0.0 && !(1e-4..1e21).contains(&magnitude) {
        let text = format!("{value:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, digits) = match exponent.strip_prefix('-') {
            Some(digits) => ('-', digits),
            None => ('+', exponent),
        };
        return format!("{mantissa}e{sign}{digits:0>2}");
    }
    format!("{value}")
}

/// The texts that were read, for showing lines of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    files: Vec<Source>,
}

#[derive(Clone, Debug)]
struct Source {
    path: PathBuf,
    text: Arc<str>,
}

/// How much of a very long line is shown.
const SHOWN_LINE: usize = 160;

impl Sources {
    /// Remembers a text and gives its number.
    pub fn add(&mut self, path: PathBuf, text: Arc<str>) -> u32 {
        self.files.push(Source { path, text });
        self.files.len() as u32
    }

    fn source(&self, span: Span) -> Option<&Source> {
        self.files.get((span.file as usize).checked_sub(1)?)
    }

    /// The text as it stands in the file.
    pub fn raw(&self, span: Span) -> Option<&str> {
        self.source(span)?.text.get(span.start as usize..(span.start + span.len) as usize)
    }

    pub fn paths(&self) -> impl Iterator<Item = &FilePath> {
        self.files.iter().map(|source| source.path.as_path())
    }

    pub fn locate(&self, span: Span) -> Option<Location> {
        let source = self.source(span)?;
        let text: &str = &source.text;
        let mut start = (span.start as usize).min(text.len());
        while !text.is_char_boundary(start) {
            start -= 1;
        }
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let line = text[line_start..line_end].trim_end_matches('\r');
        let column = text[line_start..start].chars().count() + 1;
        let end = (start + span.len as usize).min(line_start + line.len()).max(start);
        let covered = text.get(start..end).unwrap_or("").trim_end();
        // Of a very long line, a window that holds the place.
        let skipped = match line.chars().count() {
            length if length <= SHOWN_LINE => 0,
            _ => (column - 1).saturating_sub(SHOWN_LINE / 2),
        };
        let mut shown: String = line.chars().skip(skipped).take(SHOWN_LINE).collect();
        let mut offset = column - 1 - skipped;
        let room = SHOWN_LINE.saturating_sub(offset).max(1);
        if skipped > 0 {
            shown.insert(0, '…');
            offset += 1;
        }
        if line.chars().count() > skipped + SHOWN_LINE {
            shown.push('…');
        }
        Some(Location {
            file: source.path.clone(),
            line: text[..start].matches('\n').count() + 1,
            column,
            width: covered.chars().count().clamp(1, room),
            text: shown,
            offset,
        })
    }
}
