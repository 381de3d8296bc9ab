//! From the short syntaxes to the long ones, and the defaults that the reference writes out.

use crate::context::Context;
use crate::diagnostic::Diagnostic;
use crate::merge::{dependency, lines};
use crate::mounts;
use crate::node::{Map, Node, Path, Value};
use crate::ports;
use crate::words;

/// Rewrites all short syntaxes of a project.
pub(crate) fn expand(root: &mut Node, ctx: &mut Context<'_>) {
    let Some(sections) = root.as_map_mut() else { return };
    if let Some(services) = sections.get_mut("services").and_then(Node::as_map_mut) {
        for (name, service) in services {
            if let Some(service) = service.as_map_mut() {
                expand_service(name, service, ctx);
            }
        }
    }
    for section in ["volumes", "networks", "secrets", "configs"] {
        if let Some(resources) = sections.get_mut(section).and_then(Node::as_map_mut) {
            for (name, resource) in resources {
                expand_external(&format!("{section}.{name}"), resource, ctx);
            }
        }
    }
}

fn edit(map: &mut Map, key: &str, change: impl FnOnce(&mut Node)) {
    if let Some(node) = map.get_mut(key) {
        change(node);
    }
}

fn expand_service(name: &str, service: &mut Map, ctx: &mut Context<'_>) {
    edit(service, "build", expand_build);
    edit(service, "depends_on", |node| to_map(node, dependency));
    edit(service, "networks", |node| to_map(node, |name| name.derive(Value::Null)));
    edit(service, "models", |node| to_map(node, |name| name.derive(Value::Null)));
    edit(service, "extends", |node| wrap(node, "service"));
    edit(service, "env_file", |node| {
        to_list(node);
        each(node, |item| {
            wrap(item, "path");
            let yes = item.derive(Value::Bool(true));
            if let Some(map) = item.as_map_mut() {
                map.entry("required".into()).or_insert(yes);
            }
        });
    });
    edit(service, "label_file", to_list);
    edit(service, "dns", |node| {
        to_list(node);
        if let Some(items) = node.as_list_mut() {
            items.retain(|item| item.as_text() != Some(""));
        }
    });
    edit(service, "gpus", |node| {
        if node.as_text() == Some("all") {
            let mut request = Map::new();
            request.insert("count".into(), node.clone());
            *node = node.derive(Value::List(vec![node.derive(Value::Map(request))]));
        }
    });
    edit(service, "devices", |node| each(node, |item| expand_device(name, item, ctx)));
    edit(service, "secrets", |node| each(node, |item| wrap(item, "source")));
    edit(service, "configs", |node| each(node, |item| wrap(item, "source")));
    edit(service, "volumes", |node| each(node, |item| expand_mount(name, item, ctx)));
    edit(service, "ports", |node| expand_ports(name, node, ctx));
    edit(service, "provider", |provider| {
        for (_, option) in
            provider.get_mut("options").and_then(Node::as_map_mut).into_iter().flatten()
        {
            if let Some(text) = option.scalar_text() {
                *option = option.derive(Value::List(vec![option.text(text)]));
            }
        }
    });
}

fn expand_build(build: &mut Node) {
    wrap(build, "context");
    let Some(map) = build.as_map_mut() else { return };
    edit(map, "additional_contexts", |node| {
        let mut contexts = Map::new();
        for line in lines(node) {
            if let Some((name, context)) = line.as_text().and_then(|text| text.split_once('=')) {
                contexts.insert(name.to_string(), line.text(context));
            }
        }
        *node = node.derive(Value::Map(contexts));
    });
    edit(map, "secrets", |node| each(node, |item| wrap(item, "source")));
}

/// A lone text becomes a mapping with the text below `key`.
fn wrap(node: &mut Node, key: &str) {
    if node.as_text().is_some() {
        let mut map = Map::new();
        let mut inner = node.clone();
        inner.key = crate::node::Span::default();
        map.insert(key.to_string(), inner);
        *node = node.derive(Value::Map(map));
    }
}

/// A lone text becomes a list of it.
fn to_list(node: &mut Node) {
    if node.as_text().is_some() {
        *node = node.derive(Value::List(vec![node.clone()]));
    }
}

fn to_map(node: &mut Node, value: impl Fn(&Node) -> Node) {
    let Value::List(items) = &node.value else { return };
    let entries =
        items.iter().filter_map(|item| Some((item.as_text()?.to_string(), value(item)))).collect();
    *node = node.derive(Value::Map(entries));
}

fn each(node: &mut Node, mut change: impl FnMut(&mut Node)) {
    for item in node.as_list_mut().into_iter().flatten() {
        change(item);
    }
}

/// Whether a short syntax may be left alone: it holds a variable that is not to be replaced.
fn is_open(text: &str, ctx: &Context<'_>) -> bool {
    !ctx.interpolate && text.contains('$')
}

fn expand_device(service: &str, item: &mut Node, ctx: &mut Context<'_>) {
    let Some(text) = item.as_text() else {
        return;
    };
    if is_open(text, ctx) {
        return;
    }
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, permissions) = match parts.as_slice() {
        [source] => (*source, *source, "rwm"),
        [source, target] => (*source, *target, "rwm"),
        [source, target, permissions] => (*source, *target, *permissions),
        _ => {
            let message = format!("a device of `{service}` has too many parts");
            ctx.error("compose/bad-device", message, item.span, "too many colons");
            return;
        }
    };
    let target = if target.is_empty() { source } else { target };
    let entries = [("source", source), ("target", target), ("permissions", permissions)];
    let map = entries.map(|(key, value)| (key.to_string(), item.text(value)));
    *item = item.derive(Value::Map(map.into_iter().collect()));
}

fn expand_mount(service: &str, item: &mut Node, ctx: &mut Context<'_>) {
    let Some(text) = item.as_text() else { return };
    let spec_len = text.len();
    let mount = match mounts::parse(text) {
        Ok(mount) => mount,
        Err(_) if is_open(text, ctx) => return,
        Err(reason) => {
            let message = format!("a mount of `{service}` cannot be read: {reason}");
            let diagnostic = Diagnostic::error("compose/bad-mount", message)
                .at(ctx.at(item.span), "not `source:target:options`")
                .help("write `./folder:/path/in/container` or `volume:/path/in/container`");
            ctx.push(diagnostic);
            return;
        }
    };
    let drive = |path: &str| {
        path.as_bytes().first().is_some_and(u8::is_ascii_alphabetic) && path[1..].starts_with(":/")
    };
    if mount.source.as_deref().is_some_and(drive) || drive(&mount.target) {
        let diagnostic = Diagnostic::warning(
            "compose/drive-letter",
            format!("a mount of `{service}` starts with a Windows drive: no volume has one letter"),
        )
        .at(ctx.at(item.span), "a single letter before the colon")
        .help("give the volume a longer name, or use the long syntax");
        ctx.push(diagnostic);
    }
    let text = |text: &str| item.text(text);
    let yes = || item.derive(Value::Bool(true));
    let mut map = Map::new();
    map.insert("type".into(), text(if mount.bind { "bind" } else { "volume" }));
    if let Some(source) = &mount.source {
        map.insert("source".into(), text(source));
    }
    map.insert("target".into(), text(&clean_target(&mount.target)));
    if mount.read_only {
        map.insert("read_only".into(), yes());
    }
    let mut bind = Map::new();
    if let Some(selinux) = &mount.selinux {
        bind.insert("selinux".into(), text(selinux));
    }
    if let Some(propagation) = &mount.propagation {
        bind.insert("propagation".into(), text(propagation));
    }
    if mount.bind {
        bind.insert("create_host_path".into(), yes());
    }
    if !bind.is_empty() {
        map.insert("bind".into(), item.derive(Value::Map(bind)));
    }
    let mut volume = Map::new();
    if mount.no_copy {
        volume.insert("nocopy".into(), yes());
    }
    // The reference does not say so for names of one or two letters.
    if mount.no_copy || !mount.bind && spec_len > 2 {
        map.insert("volume".into(), item.derive(Value::Map(volume)));
    }
    *item = item.derive(Value::Map(map));
}

/// A path in the container without `.`, `..` and doubled slashes.
fn clean_target(target: &str) -> String {
    crate::context::clean(std::path::Path::new(target)).to_string_lossy().into_owned()
}

fn expand_ports(service: &str, node: &mut Node, ctx: &mut Context<'_>) {
    let Value::List(items) = &mut node.value else { return };
    if items.iter().any(|item| item.as_text().is_some_and(|text| is_open(text, ctx))) {
        return;
    }
    let mut expanded = Vec::with_capacity(items.len());
    for item in std::mem::take(items) {
        match &item.value {
            Value::Int(port) if (0..=65_535).contains(port) => {
                let mut map = Map::new();
                map.insert("target".into(), item.clone());
                expanded.push(item.derive(Value::Map(map)));
            }
            Value::Text(text) => match ports::parse(text) {
                Ok(ports) => {
                    if !ctx.budget.take(ports.len() * 6, 0) {
                        ctx.error("compose/too-big", "too many ports", item.span, "no room");
                        return;
                    }
                    expanded.extend(ports.iter().map(|port| long_port(&item, port)));
                }
                Err(reason) => {
                    let diagnostic = Diagnostic::error(
                        "compose/bad-port",
                        format!("a port of `{service}` cannot be read: {reason}"),
                    )
                    .at(ctx.at(item.span), "not `host:container`");
                    ctx.push(diagnostic);
                }
            },
            Value::Map(_) => expanded.push(item),
            _ => {
                let message = format!(
                    "a port of `{service}` must be a whole number up to 65535, a text or a mapping"
                );
                ctx.error("compose/bad-port", message, item.span, "none of them");
            }
        }
    }
    node.value = Value::List(expanded);
}

fn long_port(item: &Node, port: &ports::ShortPort) -> Node {
    let mut map = Map::new();
    map.insert("mode".into(), item.text("ingress"));
    if let Some(ip) = &port.host_ip {
        map.insert("host_ip".into(), item.text(ip.clone()));
    }
    map.insert("target".into(), item.derive(Value::Int(port.target.into())));
    if let Some(published) = &port.published {
        map.insert("published".into(), item.text(published.clone()));
    }
    map.insert("protocol".into(), item.text(port.protocol.clone()));
    item.derive(Value::Map(map))
}

/// `external: {name: x}` becomes `external: true` and `name: x`.
fn expand_external(path: &str, resource: &mut Node, ctx: &mut Context<'_>) {
    let Some(map) = resource.as_map_mut() else { return };
    let Some(external) = map.get("external") else { return };
    let Some(inner) = external.as_map() else { return };
    let old = inner.get("name").cloned();
    let yes = external.derive(Value::Bool(true));
    map.insert("external".into(), yes);
    let Some(old) = old else { return };
    match map.get("name") {
        Some(name) if !name.same(&old) => {
            let name = name.place();
            let diagnostic = Diagnostic::error(
                "compose/name-conflict",
                format!("`{path}` has two names: `name` and `external.name`"),
            )
            .at(ctx.at(old.place()), "this one")
            .related("and this one", ctx.at(name))
            .help("keep `name` and write `external: true`");
            ctx.push(diagnostic);
        }
        Some(_) => {}
        None => {
            map.insert("name".into(), old);
        }
    }
}

/// Adds the defaults that the reference writes out.
pub(crate) fn defaults(root: &mut Node) {
    let services = root.get_mut("services").and_then(Node::as_map_mut);
    for service in services.into_iter().flat_map(|services| services.values_mut()) {
        let Some(service) = service.as_map_mut() else { continue };
        edit(service, "build", |build| set_default(build, "context", ".".into()));
        edit(service, "secrets", |list| {
            each(list, |item| {
                if let Some(source) = item.text_at("source") {
                    let target = format!("/run/secrets/{source}");
                    set_default(item, "target", target);
                }
            });
        });
        edit(service, "ports", |list| {
            each(list, |item| {
                set_default(item, "protocol", "tcp".into());
                set_default(item, "mode", "ingress".into());
            });
        });
        edit(service, "gpus", |list| each(list, default_count));
        let devices = service
            .get_mut("deploy")
            .and_then(|node| node.get_mut("resources"))
            .and_then(|node| node.get_mut("reservations"))
            .and_then(|node| node.get_mut("devices"));
        if let Some(devices) = devices {
            each(devices, default_count);
        }
    }
}

fn set_default(node: &mut Node, key: &str, value: String) {
    let value = node.text(value);
    if let Some(map) = node.as_map_mut() {
        map.entry(key.into()).or_insert(value);
    }
}

fn default_count(request: &mut Node) {
    if request.get("count").is_none() && request.get("device_ids").is_none() {
        set_default(request, "count", "all".into());
    }
}

/// Splits a command line, reporting one that cannot be.
pub(crate) fn command_words(node: &Node, path: &Path, ctx: &mut Context<'_>) -> Vec<String> {
    let text = node.as_text().unwrap_or_default();
    words::split(text).unwrap_or_else(|reason| {
        let diagnostic = Diagnostic::error(
            "compose/bad-command",
            format!("the command line `{}` cannot be read: {reason}", path.text),
        )
        .at(ctx.at(node.span), "not closed")
        .help("write a list of words: `[\"sh\", \"-c\", \"…\"]`");
        ctx.push(diagnostic);
        Vec::new()
    })
}
