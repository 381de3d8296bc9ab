//! Masks the strings of JSON documents.

use serde_json::Value;

use super::class::Class;
use super::detect;
use super::fake::Faker;
use super::names;

/// Writes the document with what is personal replaced. A document in which nothing is stays byte
/// by byte as it was, so that numbers of any precision survive.
pub(super) fn masked(faker: &Faker, text: &str, class: Option<Class>, out: &mut Vec<u8>) {
    let Ok(mut document) = serde_json::from_str::<Value>(text) else {
        // Not JSON after all: a column of text, say.
        let masked =
            detect::replaced(text, |class, found, out| faker.text(class, found, None, out));
        out.extend_from_slice(masked.as_bytes());
        return;
    };
    match walk(faker, &mut document, class) {
        true => serde_json::to_writer(&mut *out, &document).expect("writing to memory works"),
        false => out.extend_from_slice(text.as_bytes()),
    }
}

/// Whether anything changed.
fn walk(faker: &Faker, value: &mut Value, class: Option<Class>) -> bool {
    match value {
        Value::String(text) => match string(faker, text, class) {
            Some(new) => {
                *value = new;
                true
            }
            None => false,
        },
        Value::Number(number) => match (class, number.as_i64()) {
            (Some(Class::Null), _) => {
                *value = Value::Null;
                true
            }
            (Some(Class::Phone | Class::Id), Some(integer)) => {
                *value = faker.integer(Class::Id, integer, i64::MAX).into();
                true
            }
            _ => false,
        },
        Value::Array(items) => {
            items.iter_mut().fold(false, |changed, item| walk(faker, item, class) | changed)
        }
        Value::Object(entries) => entries.iter_mut().fold(false, |changed, (key, item)| {
            walk(faker, item, names::class_of(key).or(class)) | changed
        }),
        Value::Null | Value::Bool(_) => false,
    }
}

/// What stands for a string; nothing, if it stays.
fn string(faker: &Faker, text: &str, class: Option<Class>) -> Option<Value> {
    let fake = |class| {
        let mut out = Vec::new();
        faker.text(class, text, None, &mut out);
        Value::String(String::from_utf8_lossy(&out).into_owned())
    };
    match class {
        Some(Class::Null) => Some(Value::Null),
        Some(Class::Text | Class::Json) | None => {
            let replaced = detect::replaced(text, |class, found, out| {
                faker.text(class, found, None, out);
            });
            match replaced {
                std::borrow::Cow::Borrowed(_) => None,
                std::borrow::Cow::Owned(new) => Some(Value::String(new)),
            }
        }
        Some(class) => Some(fake(class)),
    }
}

/// Whether any key of a document says that its value is personal or secret.
pub(super) fn has_telling_key(text: &str) -> bool {
    fn tells(value: &Value) -> bool {
        match value {
            Value::Array(items) => items.iter().any(tells),
            Value::Object(entries) => entries.iter().any(|(key, item)| {
                let telling = names::class_of(key).is_some_and(|class| class != Class::Text);
                (telling && (item.is_string() || item.is_object())) || tells(item)
            }),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
        }
    }
    serde_json::from_str::<Value>(text).is_ok_and(|document| tells(&document))
}
