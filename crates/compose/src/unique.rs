//! Lists in which a later item replaces an earlier one of the same meaning.

use indexmap::IndexMap;

use crate::context::Context;
use crate::mounts;
use crate::node::{Node, Value};

/// What makes two items the same.
#[derive(Clone, Copy)]
enum Identity {
    /// The text before `=`.
    Key,
    /// The path in the container.
    MountTarget,
    DeviceTarget,
    /// The path in the container, below a default folder.
    FileTarget(&'static str),
    Expose,
    Port,
    EnvFile,
}

const SERVICE_LISTS: &[(&str, Identity)] = &[
    ("annotations", Identity::Key),
    ("cap_add", Identity::Key),
    ("cap_drop", Identity::Key),
    ("configs", Identity::FileTarget("")),
    ("devices", Identity::DeviceTarget),
    ("dns", Identity::Key),
    ("dns_opt", Identity::Key),
    ("dns_search", Identity::Key),
    ("env_file", Identity::EnvFile),
    ("environment", Identity::Key),
    ("expose", Identity::Expose),
    ("labels", Identity::Key),
    ("links", Identity::Key),
    ("ports", Identity::Port),
    ("profiles", Identity::Key),
    ("secrets", Identity::FileTarget("/run/secrets")),
    ("sysctls", Identity::Key),
    ("tmpfs", Identity::Key),
    ("volumes", Identity::MountTarget),
];

const BUILD_LISTS: &[&str] = &["args", "additional_contexts", "tags", "labels"];

/// Removes the earlier ones of same items everywhere in a project.
pub(crate) fn project(root: &mut Node, ctx: &mut Context<'_>) {
    let Some(sections) = root.as_map_mut() else { return };
    for node in section(sections.get_mut("networks")) {
        lists(node, &["labels"], ctx);
        if let Some(ipam) = node.get_mut("ipam") {
            lists(ipam, &["options"], ctx);
        }
    }
    let services = sections.get_mut("services").and_then(Node::as_map_mut);
    for (service_name, service) in services.into_iter().flatten() {
        for (name, identity) in SERVICE_LISTS {
            if let Some(list) = service.get_mut(name) {
                dedupe(list, *identity, service_name, ctx);
            }
        }
        if let Some(build) = service.get_mut("build") {
            lists(build, BUILD_LISTS, ctx);
        }
        if let Some(deploy) = service.get_mut("deploy") {
            lists(deploy, &["labels"], ctx);
        }
        for attachment in section(service.get_mut("networks")) {
            lists(attachment, &["aliases", "link_local_ips"], ctx);
        }
    }
}

fn section(node: Option<&mut Node>) -> impl Iterator<Item = &mut Node> {
    node.and_then(Node::as_map_mut).into_iter().flat_map(|map| map.values_mut())
}

fn lists(node: &mut Node, names: &[&str], ctx: &mut Context<'_>) {
    for name in names {
        if let Some(list) = node.get_mut(name) {
            dedupe(list, Identity::Key, "", ctx);
        }
    }
}

fn dedupe(list: &mut Node, identity: Identity, service: &str, ctx: &mut Context<'_>) {
    let Value::List(items) = &mut list.value else { return };
    let mut kept: IndexMap<String, Node> = IndexMap::with_capacity(items.len());
    let mut strange = 0;
    for item in std::mem::take(items) {
        let key = match key(&item, identity, service, ctx) {
            Some(key) => key,
            None => {
                strange += 1;
                format!("\0{strange}")
            }
        };
        kept.insert(key, item);
    }
    items.extend(kept.into_values());
}

/// What the item is the same by; `None` for items of a wrong kind, which the schema reports.
fn key(item: &Node, identity: Identity, service: &str, ctx: &mut Context<'_>) -> Option<String> {
    match identity {
        Identity::Key => {
            let text = item.as_text()?;
            Some(text.split_once('=').map_or(text, |(key, _)| key).to_string())
        }
        Identity::Expose => item.scalar_text(),
        Identity::EnvFile => item.as_text().or_else(|| item.text_at("path")).map(str::to_string),
        Identity::FileTarget(folder) => match item.as_text() {
            Some(name) => Some(format!("{folder}/{name}")),
            None => {
                let source = item.get("source").and_then(Node::scalar_text);
                let target = item.get("target").and_then(Node::scalar_text);
                target.or_else(|| Some(format!("{folder}/{}", source?)))
            }
        },
        Identity::DeviceTarget => match item.as_text() {
            Some(text) => text.split(':').nth(1).or(Some(text)).map(str::to_string),
            None => target(item, &format!("a device of `{service}`"), ctx),
        },
        Identity::MountTarget => match item.as_text() {
            Some(text) => mounts::parse(text).ok().map(|mount| mount.target),
            None => target(item, &format!("a mount of `{service}`"), ctx),
        },
        Identity::Port => port_key(item, service, ctx),
    }
}

fn target(item: &Node, what: &str, ctx: &mut Context<'_>) -> Option<String> {
    item.as_map()?;
    let target = item.text_at("target").map(str::to_string);
    if target.is_none() && item.get("target").is_none() {
        ctx.error(
            "compose/missing-target",
            format!("{what} needs a `target`"),
            item.place(),
            "no target",
        );
    }
    target
}

fn port_key(item: &Node, service: &str, ctx: &mut Context<'_>) -> Option<String> {
    if item.as_map().is_none() {
        return item.scalar_text();
    }
    let Some(target) = item.get("target") else {
        let message = format!("a port of `{service}` needs a `target`: the port in the container");
        ctx.error("compose/missing-target", message, item.place(), "no target");
        return None;
    };
    let field = |name: &str, default: &str| {
        item.get(name).and_then(Node::scalar_text).unwrap_or_else(|| default.into())
    };
    let target = target.scalar_text()?;
    let (host, published) = (field("host_ip", "0.0.0.0"), field("published", ""));
    Some(format!("{host}:{published}:{target}/{}", field("protocol", "tcp")))
}
