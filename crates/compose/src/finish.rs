//! From the checked tree to the normal form as JSON: every value gets its type.

use serde_json::{Map as JsonMap, Number, Value as Json};

use crate::canonical::command_words;
use crate::context::Context;
use crate::diagnostic::Diagnostic;
use crate::merge::lines;
use crate::node::{Node, Path, Value, parse_bool};
use crate::shape::{Nulls, Object, Others, PROJECT, Scalar, Shape, Target, kind};
use crate::units::{ByteSize, Duration, FileMode};

/// The whole project in its normal form. What has no normal form is reported and left out.
pub(crate) fn project(node: &Node, ctx: &mut Context<'_>) -> Json {
    convert(node, &Shape::Object(&PROJECT), &mut Path::default(), ctx).unwrap_or(Json::Null)
}

/// `None` for what is left out.
fn convert(node: &Node, shape: &Shape, path: &mut Path, ctx: &mut Context<'_>) -> Option<Json> {
    match shape {
        Shape::Any => Some(plain(node)),
        Shape::Scalar(scalar) => convert_scalar(node, scalar, path, ctx),
        Shape::List { item, .. } => {
            let items = node.as_list()?;
            let mut converted = Vec::with_capacity(items.len());
            for (index, node) in items.iter().enumerate() {
                let before = path.enter_item(index);
                converted.extend(convert(node, item, path, ctx));
                path.leave(before);
            }
            Some(Json::Array(converted))
        }
        Shape::Object(object) => convert_object(node, object, path, ctx),
        Shape::Either(shapes) => {
            let shape = shapes.iter().find(|shape| accepts(node, shape))?;
            convert(node, shape, path, ctx)
        }
        Shape::Dict(nulls) => Some(dict(node, *nulls)),
        Shape::Lines => {
            let mut texts: Vec<String> = lines(node).iter().filter_map(Node::scalar_text).collect();
            texts.sort();
            Some(texts.into())
        }
        Shape::Hosts => Some(hosts(node, path, ctx)),
        Shape::Command => match &node.value {
            Value::Text(_) => Some(command_words(node, path, ctx).into()),
            Value::List(items) => Some(items.iter().filter_map(Node::as_text).collect()),
            _ => None,
        },
        Shape::HealthTest => match &node.value {
            Value::Text(text) => Some(["CMD-SHELL", text].into_iter().collect()),
            Value::List(items) => Some(items.iter().filter_map(Node::as_text).collect()),
            _ => None,
        },
        Shape::Texts => match &node.value {
            Value::Text(text) => Some([text.as_str()].into_iter().collect()),
            Value::List(items) => Some(items.iter().filter_map(Node::as_text).collect()),
            _ => None,
        },
    }
}

fn accepts(node: &Node, shape: &Shape) -> bool {
    match shape {
        Shape::Scalar(scalar) => match node.value {
            Value::Null => scalar.kinds & kind::NULL != 0,
            Value::List(_) | Value::Map(_) => false,
            _ => scalar.kinds != kind::NULL,
        },
        Shape::List { .. } => node.as_list().is_some(),
        Shape::Object(_) => node.as_map().is_some(),
        _ => true,
    }
}

fn convert_object(
    node: &Node,
    object: &'static Object,
    path: &mut Path,
    ctx: &mut Context<'_>,
) -> Option<Json> {
    let mut out = JsonMap::new();
    for (key, value) in node.as_map()? {
        let shape = match (object.field(key), &object.others) {
            (Some(shape), _) => shape,
            (None, _) if object.extensions && key.starts_with("x-") => Shape::Any,
            (None, Others::Each(shape) | Others::Named(shape) | Others::NamedOrOpen(shape)) => {
                *shape
            }
            (None, Others::Open) => Shape::Any,
            (None, Others::Forbidden) => continue,
        };
        let before = path.enter_key(key);
        let converted = convert(value, &shape, path, ctx);
        path.leave(before);
        // A name without more stands for itself; an attribute without a value is not there.
        let named = object.fields.is_empty();
        match converted {
            Some(Json::Null) | None if named => {
                out.insert(key.clone(), Json::Null);
            }
            Some(Json::Null) if !key.starts_with("x-") => {}
            Some(value) => {
                out.insert(key.clone(), value);
            }
            None => {}
        }
    }
    Some(Json::Object(out))
}

/// A value without a shape, as it was written.
pub(crate) fn plain(node: &Node) -> Json {
    match &node.value {
        Value::Null | Value::Date => Json::Null,
        Value::Bool(value) => Json::Bool(*value),
        Value::Int(value) => Json::from(*value),
        Value::Huge(value) => Json::from(*value),
        Value::Float(value) => number(*value),
        Value::Text(text) => Json::String(text.clone()),
        Value::List(items) => items.iter().map(plain).collect(),
        Value::Map(map) => {
            Json::Object(map.iter().map(|(key, value)| (key.clone(), plain(value))).collect())
        }
    }
}

fn number(value: f64) -> Json {
    if value.fract() == 0.0 && value.abs() < 9e15 {
        return Json::from(value as i64);
    }
    Number::from_f64(value).map_or(Json::Null, Json::Number)
}

fn dict(node: &Node, nulls: Nulls) -> Json {
    let absent = || match nulls {
        Nulls::Empty => Json::String(String::new()),
        Nulls::Keep => Json::Null,
    };
    let mut out = JsonMap::new();
    match &node.value {
        Value::Map(map) => {
            for (key, value) in map {
                let value = value.scalar_text().map_or_else(absent, Json::String);
                out.insert(key.clone(), value);
            }
        }
        Value::List(items) => {
            for item in items.iter().filter_map(Node::as_text) {
                let (key, value) = match item.split_once('=') {
                    Some((key, value)) => (key, Json::from(value)),
                    None => (item, absent()),
                };
                out.insert(key.to_string(), value);
            }
        }
        _ => {}
    }
    Json::Object(out)
}

/// `host=address`, sorted.
fn hosts(node: &Node, path: &Path, ctx: &mut Context<'_>) -> Json {
    let mut out = Vec::new();
    for line in lines(node) {
        let Some(text) = line.as_text() else { continue };
        let pair = text.split_once('=').or_else(|| text.split_once(':'));
        match pair {
            Some((host, address)) if !host.is_empty() => {
                let address = address
                    .strip_prefix('[')
                    .and_then(|address| address.strip_suffix(']'))
                    .unwrap_or(address);
                out.extend(address.split(',').map(|address| format!("{host}={address}")));
            }
            _ => {
                let message = format!("`{}` takes lines `name=address`", path.text);
                ctx.error("compose/bad-host", message, line.place(), "not of this form");
            }
        }
    }
    out.sort();
    out.into()
}

fn convert_scalar(
    node: &Node,
    scalar: &Scalar,
    path: &Path,
    ctx: &mut Context<'_>,
) -> Option<Json> {
    if node.is_null() {
        return match scalar.target {
            Target::TextOrEmpty => Some(Json::String(String::new())),
            _ => Some(Json::Null),
        };
    }
    let result = match scalar.target {
        Target::Keep => Ok(plain(node)),
        Target::Text | Target::TextOrEmpty => {
            Ok(node.scalar_text().map_or(Json::Null, Json::String))
        }
        Target::Bool => boolean(node),
        Target::Int => whole(node, scalar.range),
        Target::Float => float(node, scalar.kinds & kind::NUMBER == kind::INT),
        Target::Bytes => bytes(node, scalar.range),
        Target::Duration => duration(node),
        Target::Mode => mode(node),
        Target::Count => match node.as_text() {
            Some("all") => Ok(Json::from(-1)),
            _ => whole(node, scalar.range),
        },
    };
    match result {
        Ok(value) => Some(value),
        Err(expected) => {
            let diagnostic = Diagnostic::error(
                "compose/bad-value",
                format!("`{}` must be {expected}", path.text),
            )
            .at(ctx.at(node.place()), "is none");
            ctx.push(diagnostic);
            None
        }
    }
}

type Converted = Result<Json, String>;

fn boolean(node: &Node) -> Converted {
    match &node.value {
        Value::Bool(value) => Ok(Json::Bool(*value)),
        Value::Text(text) => parse_bool(text)
            .map(Json::Bool)
            .ok_or_else(|| "`true` or `false`, or `yes`, `no`, `on`, `off`".into()),
        _ => Err("`true` or `false`".into()),
    }
}

fn whole(node: &Node, (min, max): (i64, i64)) -> Converted {
    let value = match &node.value {
        Value::Int(value) => Some(*value),
        Value::Float(value) if value.fract() == 0.0 => Some(*value as i64),
        Value::Text(text) => text.parse().ok(),
        _ => None,
    };
    match value {
        Some(value) if value >= min && value <= max => Ok(Json::from(value)),
        Some(_) if max == i64::MAX => Err(format!("a whole number, at least {min}")),
        Some(_) => Err(format!("a whole number between {min} and {max}")),
        None => Err("a whole number".into()),
    }
}

fn float(node: &Node, whole: bool) -> Converted {
    let value = match &node.value {
        Value::Int(value) => Some(*value as f64),
        Value::Float(value) => Some(*value),
        Value::Text(text) => text.parse().ok(),
        _ => None,
    };
    let fits = |value: &f64| value.is_finite() && !(whole && value.fract() != 0.0);
    value.filter(fits).map(number).ok_or_else(|| "a number".into())
}

fn bytes(node: &Node, (min, _): (i64, i64)) -> Converted {
    let value = match &node.value {
        Value::Int(value) => Ok(ByteSize::from_bytes(*value)),
        Value::Float(value) => Ok(ByteSize::from_bytes(*value as i64)),
        Value::Text(text) => {
            text.parse::<ByteSize>().ok().filter(|size| size.bytes() >= 0).ok_or(())
        }
        _ => Err(()),
    };
    match value {
        Ok(value) if value.bytes() >= min => Ok(Json::String(value.to_string())),
        _ => Err("a size such as `64m` or `1.5g`".into()),
    }
}

fn duration(node: &Node) -> Converted {
    let text = node.as_text().unwrap_or_default();
    match text.parse::<Duration>() {
        Ok(value) => Ok(Json::String(value.to_string())),
        Err(_) => Err("a duration with its unit, such as `30s` or `1m30s`".into()),
    }
}

fn mode(node: &Node) -> Converted {
    let value = match &node.value {
        Value::Int(value) => Some(FileMode::from_bits(*value)),
        Value::Float(value) => Some(FileMode::from_bits(*value as i64)),
        Value::Text(text) => text.parse().ok(),
        _ => None,
    };
    match value {
        Some(mode) => Ok(Json::String(mode.to_string())),
        None => Err("an octal mode such as `0440`".into()),
    }
}
