//! What is shipped for editors and readers is what files are checked against. `UPDATE_EXPECT=1`
//! writes both files anew.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use expect_test::expect_file;
use serde_json::Value;

#[test]
fn the_shipped_schema_is_the_generated_one() {
    let schema = format!("{:#}\n", shiplap_config::schema());
    expect_file!["../../../docs/shiplap.schema.json"].assert_eq(&schema);
}

#[test]
fn the_reference_lists_every_setting() {
    expect_file!["../../../docs/shiplap-yaml.md"].assert_eq(&reference());
}

const BEGINNING: &str = "\
# shiplap.yaml

What Shiplap should know of a project that its Compose files do not say. Without the file, the project in
a folder is deployed as one environment, `default`. `shiplap init` writes one for what is in a folder,
`shiplap check` reports everything that is wrong with it, `shiplap env show NAME` prints what an
environment comes to, and `shiplap schema` prints the JSON Schema ([shiplap.schema.json](shiplap.schema.json))
from which this page is made. For completion in an editor, the first line of the file:

    # yaml-language-server: $schema=https://shiplap.dev/schema/shiplap.json

It is looked for in the folder where a command runs and in those above it; all paths in it start from its
own folder. Keys that begin with `x-` are for people, at the top level. What is left empty is as if it was not there.

    project: shop
    environments:
      prod:
        compose: [docker-compose.prod.yml]
        env_files: [.env.prod]
        routes:
          - { host: shop.example, service: web, port: 3000 }
        tls: acme
      dev:
        compose: [docker-compose.dev.yml]
        env_files: [.env.dev]
        ports: none
        routes:
          - { host: dev.shop.example, service: web, port: 3000 }
        protect: { basic_auth: secrets/dev.htpasswd, noindex: true }
        limits: { cpus: 2, memory: 2GiB }

Then `shiplap -e dev deploy`. Names that Compose files fix (`container_name`, `name` of a volume or a
network) stay with the first environment that is declared; the others get `-ENVIRONMENT` behind it.

An environment that `shiplap env create NAME --from BASE` makes is in no file and has what BASE says, but: its
Compose project is PROJECT-NAME, `ports: keep` is `any`, a host without `{environment}` gets `NAME.` in front, routes
for every host stay with BASE, and external volumes are its own unless BASE says `shared`.
";

fn reference() -> String {
    let schema = shiplap_config::schema();
    let mut text = BEGINNING.to_owned();
    let mut seen = BTreeSet::new();
    section(&mut text, &schema, "The file", &schema, &mut seen);
    text
}

/// An object's settings, then those of the objects in it.
fn section(
    text: &mut String,
    root: &Value,
    title: &str,
    object: &Value,
    seen: &mut BTreeSet<String>,
) {
    let description = object["description"].as_str().unwrap_or_default();
    let _ = write!(text, "\n## {title}\n\n{}\n\n", one_line(description));
    text.push_str("| setting | is | means |\n|---|---|---|\n");
    let required: Vec<&str> =
        object["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let properties = object["properties"].as_object().expect("an object has settings");
    let mut inner = Vec::new();
    for (name, property) in properties {
        let mut means = one_line(property["description"].as_str().unwrap_or_default());
        if means.is_empty() {
            means = one_line(referred(root, property)["description"].as_str().unwrap_or_default());
        }
        if required.contains(&name.as_str()) {
            means.push_str(" Required.");
        }
        if let Some(default) = property["default"].as_str() {
            let _ = write!(means, " `{default}` unless given.");
        }
        let mut words = Vec::new();
        describe(root, property, &mut words, &mut inner);
        words.dedup();
        let _ = writeln!(text, "| `{name}` | {} | {means} |", words.join(" or "));
    }
    for name in inner {
        if seen.insert(name.clone()) {
            section(text, root, &name, &root["$defs"][&name], seen);
        }
    }
}

fn referred<'a>(root: &'a Value, property: &'a Value) -> &'a Value {
    match property["$ref"].as_str() {
        Some(reference) => root.pointer(&reference[1..]).expect("it leads somewhere"),
        None => property,
    }
}

/// What a value can be, in words; objects that it names are collected.
fn describe(root: &Value, property: &Value, words: &mut Vec<String>, inner: &mut Vec<String>) {
    if let Some(reference) = property["$ref"].as_str() {
        let name = reference.trim_start_matches("#/$defs/");
        let object = &root["$defs"][name];
        if object["properties"].is_object() {
            inner.push(name.to_owned());
            return words.push(format!("[{name}](#{})", name.to_lowercase()));
        }
        return describe(root, object, words, inner);
    }
    for branches in ["anyOf", "oneOf"] {
        if let Some(branches) = property[branches].as_array() {
            return branches.iter().for_each(|branch| describe(root, branch, words, inner));
        }
    }
    if let Some(word) = property["const"].as_str() {
        return words.push(format!("`{word}`"));
    }
    if let Some(list) = property["enum"].as_array() {
        return words.extend(list.iter().filter_map(Value::as_str).map(|word| format!("`{word}`")));
    }
    let kinds: Vec<&str> = match &property["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        other => panic!("a setting without a type: {other} in {property}"),
    };
    for kind in kinds {
        match kind {
            "null" => {}
            "boolean" => words.push("`true` or `false`".to_owned()),
            "integer" | "number" => words.push("a number".to_owned()),
            "string" => words.push("a text".to_owned()),
            "array" => {
                let mut items = Vec::new();
                describe(root, &property["items"], &mut items, inner);
                items.dedup();
                words.push(format!("a list of {}", plural(&items)));
            }
            "object" => {
                let mut values = Vec::new();
                describe(root, &property["additionalProperties"], &mut values, inner);
                values.dedup();
                words.push(format!("by name: {}", values.join(" or ")));
            }
            other => panic!("a setting of a type that is not described: {other}"),
        }
    }
}

fn plural(words: &[String]) -> String {
    let words = words.iter().map(|word| match word.as_str() {
        "a text" => "texts".to_owned(),
        "a number" => "numbers".to_owned(),
        other => other.to_owned(),
    });
    words.collect::<Vec<_>>().join(" or ")
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}
