//! How a later file changes an earlier one: the specification's rule for each attribute.

use std::collections::HashSet;

use crate::context::Context;
use crate::node::{Map, Node, Value};

/// So many pairs of address pools are compared; nobody has more than a few.
const MAX_POOLS: usize = 10_000;

/// How two values at a place become one.
enum Rule {
    /// Mappings by key, lists one after the other, the rest replaced.
    Usual,
    /// The later one.
    Replace,
    /// Both as lines `KEY=value`, one after the other; doubles go later.
    Lines,
    /// As lines, without those that are there already.
    Hosts,
    /// Both as mappings from names.
    Names,
    /// Both as mappings from names to dependencies.
    DependsOn,
    /// A lone text is the context.
    Build,
    /// Options are kept only if the driver stays.
    Logging,
    /// By subnet.
    IpamPools,
}

fn rule(path: &[String]) -> Rule {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    match path.as_slice() {
        ["networks", _, "ipam", "config"] => Rule::IpamPools,
        ["networks" | "volumes", _, "labels"] => Rule::Lines,
        ["services", _, rest @ ..] => service_rule(rest),
        _ => Rule::Usual,
    }
}

fn service_rule(path: &[&str]) -> Rule {
    match path {
        ["command" | "entrypoint"] | ["healthcheck", "test"] | ["ulimits", _] => Rule::Replace,
        [
            "annotations" | "dns" | "dns_opt" | "dns_search" | "env_file" | "label_file"
            | "environment" | "labels" | "sysctls" | "tmpfs",
        ]
        | ["build", "args" | "additional_contexts" | "labels"]
        | ["deploy", "labels"] => Rule::Lines,
        ["extra_hosts"] | ["build", "extra_hosts"] => Rule::Hosts,
        ["networks" | "models"] => Rule::Names,
        ["depends_on"] => Rule::DependsOn,
        ["build"] => Rule::Build,
        ["logging"] => Rule::Logging,
        _ => Rule::Usual,
    }
}

/// Puts `over` on top of `base`, both standing at `path`.
pub(crate) fn merge(base: Node, over: Node, path: &mut Vec<String>, ctx: &mut Context<'_>) -> Node {
    match rule(path) {
        Rule::Replace => over,
        Rule::Lines => {
            let mut lines = lines(&base);
            lines.extend(self::lines(&over));
            over.derive(Value::List(lines))
        }
        Rule::Hosts => {
            let mut lines = lines(&base);
            let there: HashSet<String> = lines.iter().filter_map(Node::scalar_text).collect();
            let mut more = self::lines(&over);
            more.retain(|line| line.scalar_text().is_none_or(|text| !there.contains(&text)));
            lines.extend(more);
            over.derive(Value::List(lines))
        }
        Rule::Names => merge_maps(names(base, false), names(over, false), path, ctx),
        Rule::DependsOn => merge_maps(names(base, true), names(over, true), path, ctx),
        Rule::Build => merge_maps(build(base), build(over), path, ctx),
        Rule::Logging => match (base.as_map(), over.as_map()) {
            (Some(old), Some(new)) => {
                let same_driver = match (old.get("driver"), new.get("driver")) {
                    (Some(old), Some(new)) => old.same(new),
                    _ => true,
                };
                if same_driver { merge_maps(base, over, path, ctx) } else { over }
            }
            _ => usual(base, over, path, ctx),
        },
        Rule::IpamPools => match (&base.value, &over.value) {
            (Value::List(olds), Value::List(news)) if olds.len() * news.len() <= MAX_POOLS => {
                ipam_pools(base, over, path, ctx)
            }
            _ => usual(base, over, path, ctx),
        },
        Rule::Usual => usual(base, over, path, ctx),
    }
}

fn usual(base: Node, over: Node, path: &mut Vec<String>, ctx: &mut Context<'_>) -> Node {
    match (&base.value, &over.value) {
        (_, Value::Null) => base,
        (Value::Map(_), Value::Map(_)) => merge_maps(base, over, path, ctx),
        (Value::List(_), Value::List(_)) => {
            let mut merged = over.derive(Value::Null);
            let (Value::List(mut items), Value::List(more)) = (base.value, over.value) else {
                return merged;
            };
            items.extend(more);
            merged.value = Value::List(items);
            merged
        }
        (Value::Map(_) | Value::List(_), _) => {
            let kind = if matches!(base.value, Value::Map(_)) { "a mapping" } else { "a list" };
            let there = ctx.at(base.key_place());
            let diagnostic = crate::Diagnostic::error(
                "compose/cannot-override",
                format!("`{}` is {kind} in an earlier file", path.join(".")),
            )
            .at(ctx.at(over.place()), "this cannot be merged with it")
            .related("the earlier one", there)
            .help("write it the same way, or replace it with `!override`");
            ctx.push(diagnostic);
            base
        }
        _ => over,
    }
}

fn merge_maps(base: Node, over: Node, path: &mut Vec<String>, ctx: &mut Context<'_>) -> Node {
    let mut merged = base.derive(Value::Null);
    let mut map = into_map(base);
    for (key, value) in into_map(over) {
        let value = match map.get_mut(&key) {
            Some(there) => {
                let there = std::mem::replace(there, Node::new(Value::Null, value.span));
                path.push(key.clone());
                let merged = merge(there, value, path, ctx);
                path.pop();
                merged
            }
            None => value,
        };
        map.insert(key, value);
    }
    merged.value = Value::Map(map);
    merged
}

fn into_map(node: Node) -> Map {
    match node.value {
        Value::Map(map) => map,
        _ => Map::new(),
    }
}

/// A mapping as sorted lines `KEY=value`, a list as it is.
pub(crate) fn lines(node: &Node) -> Vec<Node> {
    match &node.value {
        Value::Map(map) => {
            let mut lines = Vec::new();
            for (key, value) in map {
                let mut line = |text: String, of: &Node| {
                    let mut line = of.text(text);
                    line.key = value.key;
                    lines.push(line);
                };
                match &value.value {
                    Value::List(items) => {
                        for item in items {
                            let text = item.scalar_text().unwrap_or_default();
                            line(format!("{key}={text}"), item);
                        }
                    }
                    _ => match value.scalar_text() {
                        Some(text) => line(format!("{key}={text}"), value),
                        None => line(key.clone(), value),
                    },
                }
            }
            lines.sort_by(|a, b| a.as_text().cmp(&b.as_text()));
            lines
        }
        Value::List(items) => items.clone(),
        Value::Text(_) => vec![node.clone()],
        _ => Vec::new(),
    }
}

/// A list of names as a mapping.
fn names(node: Node, dependencies: bool) -> Node {
    let Value::List(items) = &node.value else { return node };
    let mut map = Map::new();
    for item in items {
        let Some(name) = item.as_text() else { continue };
        let value = if dependencies { dependency(item) } else { item.derive(Value::Null) };
        map.insert(name.to_string(), value);
    }
    node.derive(Value::Map(map))
}

/// What a bare name in `depends_on` means.
pub(crate) fn dependency(name: &Node) -> Node {
    let mut map = Map::new();
    map.insert("condition".into(), name.text("service_started"));
    map.insert("required".into(), name.derive(Value::Bool(true)));
    let mut node = name.derive(Value::Map(map));
    node.key = name.span;
    node
}

fn build(node: Node) -> Node {
    match &node.value {
        Value::Text(_) => {
            let mut map = Map::new();
            map.insert("context".into(), node.clone());
            node.derive(Value::Map(map))
        }
        _ => node,
    }
}

fn ipam_pools(base: Node, over: Node, path: &mut Vec<String>, ctx: &mut Context<'_>) -> Node {
    let mut merged = over.derive(Value::Null);
    let (Value::List(olds), Value::List(news)) = (base.value, over.value) else { return merged };
    let subnet = |node: &Node| node.text_at("subnet").map(str::to_string);
    let mut pools: Vec<Node> = Vec::new();
    for old in &olds {
        for new in &news {
            let known = |pools: &[Node], wanted: &Option<String>| {
                pools.iter().position(|pool| subnet(pool) == *wanted)
            };
            if subnet(old) != subnet(new) && known(&pools, &subnet(new)).is_none() {
                pools.push(new.clone());
                continue;
            }
            let both = merge_maps(old.clone(), new.clone(), path, ctx);
            match known(&pools, &subnet(&both)) {
                Some(at) => pools[at] = both,
                None => pools.push(both),
            }
        }
    }
    merged.value = Value::List(pools);
    merged
}
