//! Checks a tree against the shapes, reports everything that does not fit, and takes it out so that
//! later passes can go on.

use std::collections::HashMap;

use crate::context::{Context, nearest};
use crate::diagnostic::Diagnostic;
use crate::node::{Map, Node, Path, Value};
use crate::request::Tolerance;
use crate::shape::{Object, Others, PROJECT, Scalar, Shape, kind};

/// Checks a whole file.
pub(crate) fn project(node: &mut Node, ctx: &mut Context<'_>) {
    let mut path = Path::default();
    check(node, &Shape::Object(&PROJECT), &mut path, ctx);
}

/// Whether the value fits; if not, it was reported and should be taken out.
fn check(node: &mut Node, shape: &Shape, path: &mut Path, ctx: &mut Context<'_>) -> bool {
    match shape {
        Shape::Any => true,
        Shape::Scalar(scalar) => check_scalar(node, scalar, path, ctx),
        Shape::List { item, unique } => check_list(node, item, *unique, path, ctx),
        Shape::Object(object) => check_object(node, object, path, ctx),
        Shape::Either(shapes) => match shapes.iter().find(|shape| accepts(node, shape)) {
            Some(shape) => check(node, shape, path, ctx),
            None => wrong_kind(node, &expected(shape), path, ctx),
        },
        Shape::Dict(_) | Shape::Lines => check_dict(node, path, ctx),
        Shape::Hosts => check_hosts(node, path, ctx),
        Shape::Command | Shape::HealthTest => match &mut node.value {
            Value::Null if matches!(shape, Shape::Command) => true,
            Value::Text(_) => true,
            Value::List(_) => check_list(node, &TEXT, false, path, ctx),
            _ => wrong_kind(node, "a text or a list of texts", path, ctx),
        },
        Shape::Texts => match &mut node.value {
            Value::Text(_) => true,
            Value::List(_) => check_list(node, &TEXT, true, path, ctx),
            _ => wrong_kind(node, "a text or a list of texts", path, ctx),
        },
    }
}

const TEXT: Shape = Shape::Scalar(Scalar {
    kinds: kind::TEXT,
    target: crate::shape::Target::Text,
    words: &[],
    range: (i64::MIN, i64::MAX),
});

/// Whether the kind of the value is right, whatever is inside.
fn accepts(node: &Node, shape: &Shape) -> bool {
    match shape {
        Shape::Scalar(scalar) => kind_of(node) & scalar.kinds != 0,
        Shape::List { .. } => matches!(node.value, Value::List(_)),
        Shape::Object(_) => matches!(node.value, Value::Map(_)),
        Shape::Either(shapes) => shapes.iter().any(|shape| accepts(node, shape)),
        Shape::Any
        | Shape::Dict(_)
        | Shape::Lines
        | Shape::Hosts
        | Shape::Command
        | Shape::HealthTest
        | Shape::Texts => true,
    }
}

fn kind_of(node: &Node) -> u8 {
    match &node.value {
        Value::Null => kind::NULL,
        Value::Bool(_) => kind::BOOL,
        Value::Int(_) | Value::Huge(_) => kind::INT,
        // 3.0 is a whole number too.
        Value::Float(value) if value.fract() == 0.0 => kind::NUMBER,
        Value::Float(_) => kind::NUMBER & !kind::INT,
        Value::Text(_) => kind::TEXT,
        Value::Date | Value::List(_) | Value::Map(_) => 0,
    }
}

fn expected(shape: &Shape) -> String {
    let mut parts: Vec<String> = Vec::new();
    match shape {
        Shape::Scalar(scalar) => {
            let kinds = [
                (kind::TEXT, "a text"),
                (kind::BOOL, "true or false"),
                (kind::NUMBER & !kind::INT, "a number"),
                (kind::NULL, "nothing"),
            ];
            for (bit, name) in kinds {
                if scalar.kinds & bit != 0 {
                    parts.push(name.into());
                }
            }
            if scalar.kinds & kind::NUMBER == kind::INT {
                parts.push("a whole number".into());
            }
        }
        Shape::List { .. } => parts.push("a list".into()),
        Shape::Object(_) => parts.push("a mapping".into()),
        Shape::Either(shapes) => parts.extend(shapes.iter().map(expected)),
        Shape::Dict(_) | Shape::Lines | Shape::Hosts => parts.push("a mapping or a list".into()),
        Shape::Command | Shape::HealthTest | Shape::Texts => {
            parts.push("a text or a list of texts".into());
        }
        Shape::Any => parts.push("anything".into()),
    }
    parts.join(" or ")
}

fn found(node: &Node) -> &'static str {
    match &node.value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Int(_) | Value::Huge(_) => "a whole number",
        Value::Float(_) => "a number",
        Value::Text(_) => "a text",
        Value::Date => "a date",
        Value::List(_) => "a list",
        Value::Map(_) => "a mapping",
    }
}

fn wrong_kind(node: &Node, expected: &str, path: &Path, ctx: &mut Context<'_>) -> bool {
    let mut diagnostic =
        Diagnostic::error("compose/wrong-type", format!("`{}` must be {expected}", path.text))
            .at(ctx.at(place(node)), format!("this is {}", found(node)));
    let quotable =
        matches!(node.value, Value::Int(_) | Value::Float(_) | Value::Bool(_) | Value::Date);
    if quotable && expected.contains("a text") {
        diagnostic = diagnostic.help("put it in quotes");
    }
    soften(diagnostic, ctx);
    false
}

/// Where to point for a value that is wrong as a whole: long ones by their key.
fn place(node: &Node) -> crate::node::Span {
    match node.value {
        Value::List(_) | Value::Map(_) | Value::Null => node.key_place(),
        _ => node.place(),
    }
}

/// In tolerant mode the value is left out with a warning.
fn soften(mut diagnostic: Diagnostic, ctx: &mut Context<'_>) {
    if ctx.tolerance == Tolerance::Tolerant {
        diagnostic.severity = crate::diagnostic::Severity::Warning;
        diagnostic = diagnostic.help("it is left out");
    }
    ctx.push(diagnostic);
}

fn check_scalar(node: &Node, scalar: &Scalar, path: &Path, ctx: &mut Context<'_>) -> bool {
    if kind_of(node) & scalar.kinds == 0 {
        return wrong_kind(node, &expected(&Shape::Scalar(*scalar)), path, ctx);
    }
    if let (Value::Text(text), false) = (&node.value, scalar.words.is_empty()) {
        // Without interpolation a variable may stand for any word.
        if !scalar.words.contains(&text.as_str()) && (ctx.interpolate || !text.contains('$')) {
            let words: Vec<_> = scalar.words.iter().map(|word| format!("`{word}`")).collect();
            let mut diagnostic = Diagnostic::error(
                "compose/unknown-word",
                format!("`{}` must be one of {}", path.text, words.join(", ")),
            )
            .at(ctx.at(node.place()), "not one of them");
            if let Some(word) = nearest(text, scalar.words.iter().copied()) {
                diagnostic = diagnostic.help(format!("did you mean `{word}`?"));
            }
            soften(diagnostic, ctx);
            return false;
        }
    }
    if let Value::Int(value) = node.value {
        let (min, max) = scalar.range;
        if value < min || value > max {
            let range = if max == i64::MAX {
                format!("`{}` must be at least {min}", path.text)
            } else {
                format!("`{}` must be between {min} and {max}", path.text)
            };
            let diagnostic = Diagnostic::error("compose/out-of-range", range)
                .at(ctx.at(node.place()), "too far");
            soften(diagnostic, ctx);
            return false;
        }
    }
    true
}

fn check_list(
    node: &mut Node,
    item: &Shape,
    unique: bool,
    path: &mut Path,
    ctx: &mut Context<'_>,
) -> bool {
    let Value::List(items) = &mut node.value else {
        return wrong_kind(node, "a list", path, ctx);
    };
    let mut index = 0;
    items.retain_mut(|node| {
        let before = path.enter_item(index);
        index += 1;
        let fits = check(node, item, path, ctx);
        path.leave(before);
        fits
    });
    if unique {
        check_unique(items, path, ctx);
    }
    true
}

fn check_unique(items: &mut Vec<Node>, path: &Path, ctx: &mut Context<'_>) {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut doubles = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let mut content = crate::finish::plain(item);
        content.sort_all_objects();
        if let Some(first) = seen.insert(content.to_string(), index) {
            doubles.push(index);
            let diagnostic = Diagnostic::error(
                "compose/duplicate-item",
                format!("`{}` holds the same item twice", path.text),
            )
            .at(ctx.at(item.place()), "second one")
            .related("first one", ctx.at(items[first].place()));
            soften(diagnostic, ctx);
        }
    }
    for index in doubles.into_iter().rev() {
        items.remove(index);
    }
}

fn check_object(
    node: &mut Node,
    object: &'static Object,
    path: &mut Path,
    ctx: &mut Context<'_>,
) -> bool {
    let place = node.key_place();
    let Value::Map(map) = &mut node.value else {
        return wrong_kind(node, "a mapping", path, ctx);
    };
    for required in object.required {
        if !map.contains_key(*required) {
            let message = format!("`{}` needs `{required}`", path.text);
            ctx.error("compose/missing-key", message, place, "not complete");
            return false;
        }
    }
    map.retain(|key, value| {
        let before = path.enter_key(key);
        let fits = check_entry(key, value, object, path, ctx);
        path.leave(before);
        fits
    });
    true
}

fn check_entry(
    key: &str,
    value: &mut Node,
    object: &'static Object,
    path: &mut Path,
    ctx: &mut Context<'_>,
) -> bool {
    if let Some(shape) = object.field(key) {
        return check(value, &shape, path, ctx);
    }
    if object.extensions && key.starts_with("x-") {
        return true;
    }
    match &object.others {
        Others::Open => true,
        Others::Each(shape) => check(value, shape, path, ctx),
        Others::Named(shape) if is_name(key) => check(value, shape, path, ctx),
        Others::NamedOrOpen(shape) => !is_name(key) || check(value, shape, path, ctx),
        Others::Named(_) => {
            let diagnostic = Diagnostic::error(
                "compose/bad-name",
                format!("`{key}` is no name: letters, digits, `.`, `_` and `-` are allowed"),
            )
            .at(ctx.at(value.key_place()), "not allowed as a name");
            soften(diagnostic, ctx);
            false
        }
        Others::Forbidden => {
            unknown_key(key, value, object, path, ctx);
            false
        }
    }
}

fn unknown_key(key: &str, value: &Node, object: &Object, path: &Path, ctx: &mut Context<'_>) {
    let parent = path.text.strip_suffix(key).unwrap_or("").trim_end_matches('.');
    let message = if parent.is_empty() {
        format!("a Compose file has no section `{key}`")
    } else {
        format!("`{parent}` has no attribute `{key}`")
    };
    let mut diagnostic = Diagnostic::error("compose/unknown-key", message)
        .at(ctx.at(value.key_place()), "not known here");
    if let Some(word) = nearest(key, object.fields.iter().map(|(name, _)| *name)) {
        diagnostic = diagnostic.help(format!("did you mean `{word}`?"));
    } else if parent.is_empty() && matches!(value.value, Value::Map(_)) {
        diagnostic =
            diagnostic.help(format!("a service stands below `services`: `services.{key}`"));
    }
    soften(diagnostic, ctx);
}

/// Letters, digits, `.`, `_` and `-`.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

fn check_dict(node: &mut Node, path: &mut Path, ctx: &mut Context<'_>) -> bool {
    match &mut node.value {
        Value::Map(map) => {
            retain_map(map, path, ctx, |value, path, ctx| {
                let scalar = kind_of(value) != 0;
                scalar || wrong_kind(value, "a text, a number, true, false or nothing", path, ctx)
            });
            true
        }
        Value::List(_) => check_list(node, &TEXT, true, path, ctx),
        _ => wrong_kind(node, "a mapping or a list", path, ctx),
    }
}

fn check_hosts(node: &mut Node, path: &mut Path, ctx: &mut Context<'_>) -> bool {
    match &mut node.value {
        Value::Map(map) => {
            retain_map(map, path, ctx, |value, path, ctx| match &value.value {
                Value::Text(_) => true,
                Value::List(_) => check_list(value, &TEXT, false, path, ctx),
                _ => wrong_kind(value, "a text or a list of texts", path, ctx),
            });
            true
        }
        Value::List(_) => check_list(node, &TEXT, true, path, ctx),
        _ => wrong_kind(node, "a mapping or a list", path, ctx),
    }
}

fn retain_map(
    map: &mut Map,
    path: &mut Path,
    ctx: &mut Context<'_>,
    mut fits: impl FnMut(&mut Node, &mut Path, &mut Context<'_>) -> bool,
) {
    map.retain(|key, value| {
        let before = path.enter_key(key);
        let fits = fits(value, path, ctx);
        path.leave(before);
        fits
    });
}
