//! From the bytes of a YAML file to trees: anchors, merge keys, tags and scalars as Compose's own
//! YAML library has them, within bounds.

use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle, Tag};

use crate::node::{Map, Mark, Node, Span, Value};

/// The most nodes one load may hold, with aliases expanded. A thousand services need 50,000.
const MAX_NODES: usize = 500_000;
/// The most text that aliases may multiply to.
const MAX_TEXT: usize = 64 << 20;

/// A file that is not YAML that Compose accepts.
#[derive(Debug)]
pub(crate) struct YamlError {
    pub code: &'static str,
    pub message: Box<str>,
    pub label: &'static str,
    pub span: Span,
    /// The keys on the way to it.
    pub path: Vec<String>,
    /// Another place that matters, and what it is.
    pub other: Option<(&'static str, Span)>,
}

/// What may still be built; shared by all files of a load.
#[derive(Debug)]
pub(crate) struct Budget {
    nodes: usize,
    text: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { nodes: MAX_NODES, text: MAX_TEXT }
    }
}

impl Budget {
    /// Takes room for so many nodes and bytes of text; false if there is none.
    pub fn take(&mut self, nodes: usize, text: usize) -> bool {
        match (self.nodes.checked_sub(nodes), self.text.checked_sub(text)) {
            (Some(nodes), Some(text)) => {
                *self = Self { nodes, text };
                true
            }
            _ => false,
        }
    }
}

/// Reads all documents of a text.
pub(crate) fn parse(text: &str, file: u32, budget: &mut Budget) -> Result<Vec<Node>, YamlError> {
    let mut composer =
        Composer { parser: Parser::new_from_str(text), file, budget, anchors: HashMap::new() };
    composer.documents(text)
}

struct Composer<'a, 'b> {
    parser: Parser<'a, granit_parser::StrInput<'a>>,
    file: u32,
    budget: &'b mut Budget,
    /// Finished anchors with their size; `None` while the anchored node is still open.
    anchors: HashMap<usize, Option<Anchored>>,
}

#[derive(Clone)]
struct Anchored {
    node: Node,
    nodes: usize,
    text: usize,
}

type Step<'a> = (Event<'a>, granit_parser::Span);

impl<'a> Composer<'a, '_> {
    fn documents(&mut self, text: &str) -> Result<Vec<Node>, YamlError> {
        let mut documents = Vec::new();
        loop {
            let (event, span) = self.next(text)?;
            match event {
                Event::StreamEnd => return Ok(documents),
                Event::StreamStart | Event::DocumentEnd => {}
                Event::DocumentStart(..) => self.anchors.clear(),
                event => {
                    let node = self.node((event, span), text)?;
                    documents.push(node);
                }
            }
        }
    }

    fn next(&mut self, text: &str) -> Result<Step<'a>, YamlError> {
        loop {
            match self.parser.next_event() {
                Some(Ok((Event::Comment(..), _))) => {}
                Some(Ok(step)) => return Ok(step),
                Some(Err(error)) => {
                    let start = byte_offset(text, error.marker());
                    let span = Span { file: self.file, start, len: 1 };
                    return Err(YamlError {
                        code: "compose/yaml",
                        message: error.info().into(),
                        label: "not valid YAML",
                        span,
                        other: None,
                        path: Vec::new(),
                    });
                }
                None => return Ok((Event::StreamEnd, granit_parser::Span::default())),
            }
        }
    }

    fn span(&self, span: &granit_parser::Span, text: &str) -> Span {
        let start = byte_offset(text, &span.start);
        let end = byte_offset(text, &span.end).max(start);
        Span { file: self.file, start, len: end - start }
    }

    fn node(&mut self, (event, span): Step<'a>, text: &str) -> Result<Node, YamlError> {
        let place = self.span(&span, text);
        if !self.budget.take(1, 0) {
            return Err(self.too_big(place));
        }
        let (anchor, before) = (event.anchor_id(), (self.budget.nodes, self.budget.text));
        if let Some(anchor) = anchor {
            self.anchors.insert(anchor, None);
        }
        let node = match event {
            Event::Alias(anchor) => return self.alias(anchor, place),
            Event::Scalar(content, style, _, tag) => {
                if !self.budget.take(0, content.len()) {
                    return Err(self.too_big(place));
                }
                self.scalar(&content, style, tag.as_deref(), place)?
            }
            Event::SequenceStart(_, _, tag) => {
                let mut items = Vec::new();
                let end = loop {
                    let step = self.next(text)?;
                    if matches!(step.0, Event::SequenceEnd) {
                        break step.1;
                    }
                    items.push(self.node(step, text)?);
                };
                items.shrink_to_fit();
                let mut node = Node::new(Value::List(items), self.cover(place, &end, text));
                node.mark = mark(tag.as_deref());
                node
            }
            Event::MappingStart(_, _, tag) => {
                let (map, end) = self.mapping(text)?;
                let mut node = Node::new(Value::Map(map), self.cover(place, &end, text));
                node.mark = mark(tag.as_deref());
                node
            }
            _ => Node::new(Value::Null, place),
        };
        if let Some(anchor) = anchor {
            let nodes = before.0 - self.budget.nodes + 1;
            let bytes = before.1 - self.budget.text;
            // The copy counts too: anchors inside of anchors would multiply it.
            if !self.budget.take(nodes, bytes) {
                return Err(self.too_big(place));
            }
            self.anchors.insert(
                anchor,
                Some(Anchored { node: without_resets(node.clone()), nodes, text: bytes }),
            );
        }
        Ok(node)
    }

    fn cover(&self, start: Span, end: &granit_parser::Span, text: &str) -> Span {
        let end = byte_offset(text, &end.end).max(start.start);
        Span { len: end - start.start, ..start }
    }

    fn too_big(&self, span: Span) -> YamlError {
        YamlError {
            code: "compose/too-big",
            message: format!("the files hold more than {MAX_NODES} values, with aliases expanded")
                .into(),
            label: "no room for this",
            span,
            other: None,
            path: Vec::new(),
        }
    }

    fn alias(&mut self, anchor: usize, place: Span) -> Result<Node, YamlError> {
        match self.anchors.get(&anchor).cloned().flatten() {
            Some(anchored) => {
                if !self.budget.take(anchored.nodes, anchored.text) {
                    return Err(self.too_big(place));
                }
                Ok(anchored.node)
            }
            None => Err(YamlError {
                code: "compose/alias-cycle",
                message: "an anchor contains itself".into(),
                label: "this alias stands inside its own anchor",
                span: place,
                other: None,
                path: Vec::new(),
            }),
        }
    }

    fn mapping(&mut self, text: &str) -> Result<(Map, granit_parser::Span), YamlError> {
        let mut map = Map::new();
        let mut merges = Vec::new();
        let end = loop {
            let step = self.next(text)?;
            if matches!(step.0, Event::MappingEnd) {
                break step.1;
            }
            let key_span = self.span(&step.1, text);
            let merge = matches!(
                &step.0,
                Event::Scalar(content, ScalarStyle::Plain, _, tag) if content == "<<"
                    && tag.as_ref().is_none_or(|tag| core_name(tag).as_deref() == Some("merge"))
            );
            let key = self.node(step, text)?;
            let value_step = self.next(text)?;
            let mut value = self.node(value_step, text).map_err(|mut error| {
                if let Value::Text(name) = &key.value {
                    error.path.insert(0, name.clone());
                }
                error
            })?;
            if merge {
                merges.push(value);
                continue;
            }
            let Value::Text(name) = key.value else {
                return Err(YamlError {
                    code: "compose/key-type",
                    message: "a key must be a string".into(),
                    label: "put this key in quotes",
                    span: key_span,
                    other: None,
                    path: Vec::new(),
                });
            };
            value.key = key_span;
            if let Some(first) = map.get(&name) {
                let first: &Node = first;
                return Err(YamlError {
                    code: "compose/duplicate-key",
                    message: format!("the key `{name}` is there twice").into(),
                    label: "second one",
                    span: key_span,
                    other: Some(("first one", first.key)),
                    path: Vec::new(),
                });
            }
            map.insert(name, value);
        };
        for merge in merges {
            merge_into(&mut map, merge)?;
        }
        // Most mappings stay as they are: room to grow would be a third of the memory.
        map.shrink_to_fit();
        Ok((map, end))
    }

    fn scalar(
        &self,
        content: &str,
        style: ScalarStyle,
        tag: Option<&Tag>,
        span: Span,
    ) -> Result<Node, YamlError> {
        let plain = style == ScalarStyle::Plain;
        let mark = mark(tag);
        let core = tag.and_then(core_name);
        let value = match core.as_deref() {
            Some("str") => Value::Text(content.into()),
            Some("binary") => Value::Text(content.into()),
            Some(kind) => {
                let value = resolve(content);
                let fits = match kind {
                    "int" => matches!(value, Value::Int(_) | Value::Huge(_)),
                    "float" => matches!(value, Value::Int(_) | Value::Float(_)),
                    "bool" => matches!(value, Value::Bool(_)),
                    "null" => matches!(value, Value::Null),
                    "timestamp" => matches!(value, Value::Date),
                    _ => true,
                };
                if !fits {
                    return Err(YamlError {
                        code: "compose/yaml",
                        message: format!("this is no `!!{kind}`").into(),
                        label: "does not fit its tag",
                        span,
                        other: None,
                        path: Vec::new(),
                    });
                }
                match value {
                    Value::Int(value) if kind == "float" => Value::Float(value as f64),
                    value => value,
                }
            }
            None if mark.is_some() && plain => resolve(content),
            None if tag.is_some() => Value::Text(content.into()),
            None if plain => resolve(content),
            None => Value::Text(content.into()),
        };
        let mut node = Node::new(value, span);
        node.mark = mark;
        Ok(node)
    }
}

/// The name of a tag of YAML itself: `str` of `!!str`.
fn core_name(tag: &Tag) -> Option<std::borrow::Cow<'_, str>> {
    tag.suffix_in_namespace("tag:yaml.org,2002:")
}

fn mark(tag: Option<&Tag>) -> Option<Mark> {
    let tag = tag?;
    match tag.original().as_str() {
        "!reset" => Some(Mark::Reset),
        "!override" => Some(Mark::Override),
        _ => None,
    }
}

/// `<<`: what is already there stays; of several, the first wins.
fn merge_into(map: &mut Map, merge: Node) -> Result<(), YamlError> {
    let span = merge.span;
    let sources = match merge.value {
        Value::Map(source) => vec![source],
        Value::List(items) => {
            let mut sources = Vec::new();
            for item in items {
                let span = item.span;
                match item.value {
                    Value::Map(source) => sources.push(source),
                    _ => return Err(bad_merge(span)),
                }
            }
            sources
        }
        _ => return Err(bad_merge(span)),
    };
    for source in sources {
        for (key, value) in source {
            map.entry(key).or_insert(value);
        }
    }
    Ok(())
}

/// What an alias stands for: its `!reset` has had its effect where the anchor is, as in the
/// reference; `!override` counts here too.
fn without_resets(mut node: Node) -> Node {
    fn strip(node: &mut Node) {
        match &mut node.value {
            Value::List(items) => {
                items.retain(|item| item.mark != Some(Mark::Reset));
                items.iter_mut().for_each(strip);
            }
            Value::Map(map) => {
                map.retain(|_, value| value.mark != Some(Mark::Reset));
                map.values_mut().for_each(strip);
            }
            _ => {}
        }
    }
    strip(&mut node);
    node
}

fn bad_merge(span: Span) -> YamlError {
    YamlError {
        code: "compose/yaml",
        message: "`<<` takes a mapping or a list of mappings".into(),
        label: "not a mapping",
        span,
        other: None,
        path: Vec::new(),
    }
}

fn byte_offset(text: &str, marker: &granit_parser::Marker) -> u32 {
    marker
        .byte_offset()
        .unwrap_or_else(|| text.char_indices().nth(marker.index()).map_or(text.len(), |(at, _)| at))
        as u32
}

/// What a plain scalar means: YAML 1.2 booleans, but `017` is 15, `1_000` is 1000 and
/// `2024-01-02` is a date.
pub(crate) fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Value::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => {
            return Value::Float(f64::INFINITY);
        }
        "-.inf" | "-.Inf" | "-.INF" => return Value::Float(f64::NEG_INFINITY),
        _ => {}
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.')) {
        return Value::Text(text.into());
    }
    if is_date(text) {
        return Value::Date;
    }
    let digits = text.replace('_', "");
    if let Some(value) = integer(&digits) {
        return value;
    }
    if is_float(&digits)
        && let Ok(value) = digits.parse()
    {
        return Value::Float(value);
    }
    Value::Text(text.into())
}

fn integer(text: &str) -> Option<Value> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = if let Some(rest) = lower.strip_prefix("0x") {
        (16, rest)
    } else if let Some(rest) = lower.strip_prefix("0b") {
        (2, rest)
    } else if let Some(rest) = lower.strip_prefix("0o") {
        (8, rest)
    } else if lower.len() > 1 && lower.starts_with('0') {
        (8, &lower[1..])
    } else {
        (10, lower.as_str())
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let value = i128::from_str_radix(digits, radix).ok()?;
    let value = if negative { -value } else { value };
    match i64::try_from(value) {
        Ok(value) => Some(Value::Int(value)),
        Err(_) if u64::try_from(value).is_ok() => Some(Value::Huge(value as u64)),
        Err(_) => None,
    }
}

fn is_float(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let exponent_fits = exponent.is_none_or(|exponent| {
        let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        !exponent.is_empty() && digits(exponent)
    });
    digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty()) && exponent_fits
}

/// `2024-1-2`, also with a time after it.
fn is_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    if bytes.len() < 8 || bytes[4] != b'-' || !bytes[..4].iter().all(u8::is_ascii_digit) {
        return false;
    }
    let (date, time) = match text[5..].find(['T', 't', ' ']) {
        Some(at) => (&text[5..5 + at], Some(text[5 + at + 1..].trim_start())),
        None => (&text[5..], None),
    };
    let Some((month, day)) = date.split_once('-') else { return false };
    let number = |part: &str, max: u32| {
        (1..=2).contains(&part.len())
            && part.bytes().all(|b| b.is_ascii_digit())
            && part.parse::<u32>().is_ok_and(|value| value >= 1 && value <= max)
    };
    if !number(month, 12) || !number(day, 31) {
        return false;
    }
    let Some(time) = time else { return true };
    let mut parts = time.splitn(3, ':');
    let (hour, minute, rest) = (parts.next(), parts.next(), parts.next());
    let small = |part: Option<&str>| {
        part.is_some_and(|part| {
            (1..=2).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit())
        })
    };
    small(hour)
        && small(minute)
        && rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}
