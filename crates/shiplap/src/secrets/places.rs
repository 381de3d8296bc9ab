//! Where the values of secrets came to stand.
//!
//! A variable of a service and a Compose secret are for its container. All other places are seen by
//! more people: plans and history name images, the engine tells labels to everybody who may ask,
//! and arguments of processes can be read by everybody on the machine.

use std::collections::BTreeMap;

use serde_json::Value;
use shiplap_compose::{Diagnostic, Loaded};

/// A value of this length, in bytes, is nowhere by chance.
const UNMISTAKABLE: usize = 12;

/// Who could see what stands in a place.
enum Seen {
    ByItsContainer,
    WithProcesses,
    WithImages,
    WithEngineObjects,
    ByAll,
}

/// Everything that holds a secret and is seen by more than a container.
pub fn open(loaded: &Loaded, secrets: &BTreeMap<&str, &str>) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    if !secrets.is_empty() {
        let search = Search { loaded, secrets };
        search.look(&loaded.canonical, &mut Vec::new(), &mut found);
    }
    found
}

struct Search<'a> {
    loaded: &'a Loaded,
    secrets: &'a BTreeMap<&'a str, &'a str>,
}

impl Search<'_> {
    fn look(&self, value: &Value, path: &mut Vec<String>, found: &mut Vec<Diagnostic>) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    self.inside(key.clone(), value, path, found);
                }
            }
            Value::Array(items) => {
                for (index, value) in items.iter().enumerate() {
                    self.inside(index.to_string(), value, path, found);
                }
            }
            Value::String(text) => self.judge(text, path, found),
            Value::Number(number) => self.judge(&number.to_string(), path, found),
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn inside(
        &self,
        key: String,
        value: &Value,
        path: &mut Vec<String>,
        found: &mut Vec<Diagnostic>,
    ) {
        path.push(key);
        self.look(value, path, found);
        path.pop();
    }

    fn judge(&self, text: &str, path: &[String], found: &mut Vec<Diagnostic>) {
        let (code, why) = match seen(path) {
            Seen::ByItsContainer => return,
            Seen::WithProcesses => {
                ("secrets/in-arguments", "arguments of processes can be read by all on the machine")
            }
            Seen::WithImages => ("secrets/in-image", "it stays in the image, for all who have it"),
            Seen::WithEngineObjects => {
                ("secrets/in-options", "the engine tells it to all who may ask")
            }
            Seen::ByAll => {
                ("secrets/in-the-open", "it would be shown: by plans, by history or by the engine")
            }
        };
        let keys: Vec<&str> = path.iter().map(String::as_str).collect();
        let place = self.loaded.span(&keys);
        let line = place.as_ref().map_or("", |place| place.text.as_str());
        for (name, value) in self.secrets {
            // A short value may be there by chance; then its line does not name the variable.
            let is_meant = value.len() >= UNMISTAKABLE || line.contains(*name);
            if !text.contains(*value) || !is_meant {
                continue;
            }
            let message = format!("`{}` holds the secret `{name}`: {why}", path.join("."));
            let diagnostic = match code {
                "secrets/in-the-open" => Diagnostic::error(code, message),
                _ => Diagnostic::warning(code, message),
            };
            found.push(diagnostic.at(place.clone(), "it comes here").help(
                "a variable of the service, or a Compose secret, is seen by its container alone",
            ));
        }
    }
}

fn seen(path: &[String]) -> Seen {
    let keys: Vec<&str> = path.iter().map(String::as_str).collect();
    if keys.iter().any(|key| key.starts_with("x-")) {
        return Seen::ByItsContainer;
    }
    match keys[..] {
        ["services", _, "environment", ..] => Seen::ByItsContainer,
        [
            "services",
            _,
            "command" | "entrypoint" | "healthcheck" | "post_start" | "pre_stop",
            ..,
        ] => Seen::WithProcesses,
        ["services", _, "build", ..] => Seen::WithImages,
        ["configs" | "secrets", _, "content"] => Seen::ByItsContainer,
        ["networks" | "volumes", _, "driver_opts", ..] => Seen::WithEngineObjects,
        _ => Seen::ByAll,
    }
}
