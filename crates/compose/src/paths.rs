//! Relative paths of a file, made absolute.

use std::path::Path;

use crate::context::{Context, clean};
use crate::node::{Node, Value};

/// Makes every path of a project absolute, relative ones starting at `base`.
pub(crate) fn resolve(root: &mut Node, base: &Path, ctx: &mut Context<'_>) {
    let resolver = Resolver { base, home: ctx.home.clone() };
    let services = root.get_mut("services").and_then(Node::as_map_mut);
    for (name, service) in services.into_iter().flatten() {
        resolver.service(name, service, ctx);
    }
    for section in ["configs", "secrets"] {
        let resources = root.get_mut(section).and_then(Node::as_map_mut);
        for resource in resources.into_iter().flat_map(|resources| resources.values_mut()) {
            resolver.field(resource, "file");
        }
    }
    let volumes = root.get_mut("volumes").and_then(Node::as_map_mut);
    for volume in volumes.into_iter().flat_map(|volumes| volumes.values_mut()) {
        // A local volume with `o: bind` is a bind mount in disguise.
        if volume.text_at("driver") != Some("local") {
            continue;
        }
        if let Some(options) = volume.get_mut("driver_opts")
            && options.text_at("o") == Some("bind")
        {
            resolver.field(options, "device");
        }
    }
}

struct Resolver<'a> {
    base: &'a Path,
    home: Option<String>,
}

impl Resolver<'_> {
    fn service(&self, name: &str, service: &mut Node, ctx: &mut Context<'_>) {
        if let Some(build) = service.get_mut("build") {
            if let Some(context) = build.get_mut("context") {
                self.build_context(context);
            }
            let contexts = build.get_mut("additional_contexts").and_then(Node::as_map_mut);
            for context in contexts.into_iter().flat_map(|contexts| contexts.values_mut()) {
                self.build_context(context);
            }
        }
        for item in items(service, "env_file") {
            self.field(item, "path");
        }
        for item in items(service, "label_file") {
            self.apply(item);
        }
        if let Some(extends) = service.get_mut("extends") {
            self.field(extends, "file");
        }
        if let Some(develop) = service.get_mut("develop") {
            for item in items(develop, "watch") {
                self.field(item, "path");
            }
        }
        for mount in items(service, "volumes") {
            if mount.text_at("type") != Some("bind") {
                continue;
            }
            if mount.get("source").is_none() {
                ctx.error(
                    "compose/missing-source",
                    format!("a bind mount of `{name}` needs a `source`: the path on the host"),
                    mount.place(),
                    "no source",
                );
            }
            self.field(mount, "source");
        }
    }

    fn field(&self, node: &mut Node, key: &str) {
        if let Some(path) = node.get_mut(key) {
            self.apply(path);
        }
    }

    fn build_context(&self, node: &mut Node) {
        let Some(text) = node.as_text() else { return };
        let remote = ["https://", "http://", "git://", "ssh://", "github.com/", "git@", "service:"];
        if text.contains("://") || remote.iter().any(|prefix| text.starts_with(prefix)) {
            return;
        }
        self.apply(node);
    }

    fn apply(&self, node: &mut Node) {
        if let Value::Text(text) = &mut node.value {
            *text = self.absolute(text);
        }
    }

    fn absolute(&self, text: &str) -> String {
        let expanded = match (text.strip_prefix('~'), &self.home) {
            (Some(rest), Some(home)) => join(Path::new(home), rest.trim_start_matches('/')),
            _ => text.to_string(),
        };
        if expanded.is_empty() || expanded.starts_with('/') || is_windows(&expanded) {
            return expanded;
        }
        join(self.base, &expanded)
    }
}

fn items<'a>(node: &'a mut Node, key: &str) -> impl Iterator<Item = &'a mut Node> {
    node.get_mut(key).and_then(Node::as_list_mut).into_iter().flatten()
}

pub(crate) fn join(base: &Path, text: &str) -> String {
    clean(&base.join(text)).to_string_lossy().into_owned()
}

/// `C:\…` or `\\server\…`
fn is_windows(text: &str) -> bool {
    let bytes = text.as_bytes();
    text.starts_with(r"\\")
        || (bytes.len() > 2
            && bytes[0].is_ascii_alphabetic()
            && bytes[1] == b':'
            && matches!(bytes[2], b'\\' | b'/'))
}
