//! Where the values of a loaded project were written.

use std::sync::Arc;

use crate::diagnostic::Location;
use crate::node::{Node, Sources, Span, Value};

/// The merged tree with the places of its values.
#[derive(Clone, Debug)]
pub(crate) struct Spans {
    root: Arc<Node>,
    sources: Arc<Sources>,
}

impl Spans {
    pub fn new(root: Node, sources: Sources) -> Self {
        Self { root: Arc::new(root), sources: Arc::new(sources) }
    }

    pub fn locate(&self, path: &[&str]) -> Option<Location> {
        self.sources.locate(find(&self.root, path)?)
    }

    /// Whether the value stands in a file as it is, without a variable.
    pub fn is_literal(&self, path: &[&str]) -> bool {
        let mut node: &Node = &self.root;
        for step in path {
            match child(node, step) {
                Some(next) => node = next,
                None => return false,
            }
        }
        !node.interpolated && node.span.is_known() && !matches!(node.value, Value::Null)
    }
}

/// The place of a value, or of the nearest thing around it that was written.
pub(crate) fn find(root: &Node, path: &[&str]) -> Option<Span> {
    let mut node = root;
    let mut best = None;
    for step in path {
        match child(node, step) {
            Some(next) => node = next,
            None => break,
        }
        let place = pointer(node);
        if place.is_known() {
            best = Some(place);
        }
    }
    best
}

/// Where to point for a value: large ones and empty ones by their key.
fn pointer(node: &Node) -> Span {
    match node.value {
        Value::List(_) | Value::Map(_) | Value::Null => node.key_place(),
        _ => node.place(),
    }
}

/// The child of that name or index; variables in a list are found by their names.
fn child<'a>(node: &'a Node, step: &str) -> Option<&'a Node> {
    match &node.value {
        Value::Map(map) => map.get(step),
        Value::List(items) => match step.parse::<usize>() {
            Ok(index) => items.get(index),
            Err(_) => items.iter().find(|item| {
                item.as_text().is_some_and(|text| {
                    text.strip_prefix(step)
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
                })
            }),
        },
        _ => None,
    }
}
