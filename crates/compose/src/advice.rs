//! Advice about a project that loads: what has cost people a night before.

use crate::diagnostic::{Diagnostic, Severity};
use crate::model::{Condition, MountKind, Service};
use crate::request::Loaded;

/// Everything that deserves a second thought, in the order of the files.
///
/// ```
/// use shiplap_compose::{MemoryFiles, Request, advise, load};
///
/// let files = MemoryFiles::from([("/shop/compose.yaml", "services: {web: {image: nginx}}")]);
/// let request = Request { working_dir: "/shop".into(), ..Request::default() };
/// let codes: Vec<_> = advise(&load(&request, &files).unwrap()).iter().map(|a| a.code).collect();
/// assert_eq!(codes, ["compose/no-restart", "compose/floating-tag"]);
/// ```
pub fn advise(loaded: &Loaded) -> Vec<Diagnostic> {
    let mut advice = Advice { loaded, found: Vec::new() };
    for (name, service) in &loaded.project.services {
        advice.image(name, service);
        advice.health(name, service);
        advice.restart(name, service);
        advice.environment(name, service);
        advice.ports(name, service);
        advice.mounts(name, service);
        advice.dependencies(name, service);
        advice.container(name, service);
    }
    let mut found = advice.found;
    found.sort_by_cached_key(|diagnostic| {
        diagnostic.location.as_ref().map(|at| (at.file.clone(), at.line, at.column))
    });
    found
}

/// Images of programs that keep data and should not be open to the world.
const DATABASES: &[&str] = &[
    "postgres",
    "postgis",
    "timescaledb",
    "mysql",
    "mariadb",
    "percona",
    "mongo",
    "redis",
    "valkey",
    "memcached",
    "elasticsearch",
    "opensearch",
    "clickhouse",
    "cassandra",
    "couchdb",
    "neo4j",
    "influxdb",
    "rabbitmq",
    "etcd",
    "mssql",
];
/// Parts of the names of variables that hold secrets.
const SECRETS: &[&str] =
    &["PASSWORD", "PASSWD", "SECRET", "TOKEN", "API_KEY", "APIKEY", "PRIVATE_KEY", "ACCESS_KEY"];
/// Folders in which images keep their program.
const CODE: &[&str] =
    &["/app", "/code", "/src", "/usr/src/app", "/usr/src", "/srv", "/var/www/html", "/workspace"];

struct Advice<'a> {
    loaded: &'a Loaded,
    found: Vec<Diagnostic>,
}

impl Advice<'_> {
    fn push(
        &mut self,
        code: &'static str,
        path: &[&str],
        (message, label): (String, &str),
        help: &str,
    ) {
        let diagnostic = Diagnostic::new(Severity::Advice, code, message)
            .at(self.loaded.span(path), label)
            .help(help);
        self.found.push(diagnostic);
    }

    fn image(&mut self, name: &str, service: &Service) {
        let Some(image) = service.image.as_deref().filter(|_| service.build.is_none()) else {
            return;
        };
        if image.contains('@') {
            return;
        }
        let tag =
            image.rsplit('/').next().and_then(|last| last.split_once(':')).map(|(_, tag)| tag);
        if matches!(tag, None | Some("latest")) {
            let text = format!("`{name}` runs whatever `latest` is on the day it is pulled");
            let help = "name a version: `image: name:1.2.3`";
            let path = ["services", name, "image"];
            self.push("compose/floating-tag", &path, (text, "no fixed version"), help);
        }
    }

    fn health(&mut self, name: &str, service: &Service) {
        let served = service.ports.iter().any(|port| port.protocol.as_deref() != Some("udp"));
        let checked = service.healthcheck.as_ref().is_some_and(|health| {
            !health.disable && health.test.first().is_some_and(|t| t != "NONE")
        });
        if served && !checked {
            let text = format!("`{name}` takes requests, but nothing tells when it is ready");
            let help = "add a `healthcheck`, unless the image has one";
            self.push(
                "compose/no-healthcheck",
                &["services", name],
                (text, "no health check"),
                help,
            );
        }
    }

    fn restart(&mut self, name: &str, service: &Service) {
        let policy = service.deploy.as_ref().and_then(|deploy| deploy.restart_policy.as_ref());
        if service.restart.is_none() && policy.is_none() && service.provider.is_none() {
            let text = format!("`{name}` stays down after a crash or a reboot");
            let help = "add `restart: unless-stopped`, or `restart: \"no\"` if that is meant";
            self.push("compose/no-restart", &["services", name], (text, "no `restart`"), help);
        }
    }

    fn environment(&mut self, name: &str, service: &Service) {
        for (variable, value) in &service.environment {
            let upper = variable.to_ascii_uppercase();
            let secret =
                SECRETS.iter().any(|part| upper.contains(part)) && !upper.ends_with("_FILE");
            let path = ["services", name, "environment", variable.as_str()];
            let given = value.as_ref().is_some_and(|value| !value.is_empty());
            // What comes from an `env_file` or from outside has no text of its own here.
            if secret && given && self.loaded.spans.is_literal(&path) {
                let text = format!("the secret `{variable}` of `{name}` stands in the file");
                let help = "take it from a variable, or use `secrets` and a `…_FILE` variable";
                self.push(
                    "compose/plain-secret",
                    &path,
                    (text, "readable by all who see this file"),
                    help,
                );
                self.hide(variable);
            }
        }
    }

    /// Shows the name of the variable only: advice ends up in logs.
    fn hide(&mut self, variable: &str) {
        let Some(place) = self.found.last_mut().and_then(|last| last.location.as_mut()) else {
            return;
        };
        let shown = place.text.find(variable).map(|at| &place.text[..at + variable.len()]);
        let shown = shown.unwrap_or_default().to_string();
        let length = shown.chars().count();
        place.width = variable.chars().count();
        let offset = length.saturating_sub(place.width);
        (place.column, place.offset) = (place.column - place.offset + offset, offset);
        place.text = shown + "…";
    }

    fn ports(&mut self, name: &str, service: &Service) {
        let image = service.image.as_deref().unwrap_or_default();
        let program = image.split(['@', ':']).next().unwrap_or_default();
        let program = program.rsplit('/').next().unwrap_or_default();
        if !DATABASES.iter().any(|database| program.contains(database)) {
            return;
        }
        for (index, port) in service.ports.iter().enumerate() {
            let open = matches!(port.host_ip.as_deref(), None | Some("0.0.0.0" | "::"));
            if port.published.is_some() && open {
                let text = format!("`{name}` keeps data and is open to every network of the host");
                let help = "leave `ports` out, services reach it anyway; or write `127.0.0.1:…`";
                let index = index.to_string();
                let path = ["services", name, "ports", &index];
                self.push(
                    "compose/open-database",
                    &path,
                    (text, "published on all addresses"),
                    help,
                );
            }
        }
    }

    fn mounts(&mut self, name: &str, service: &Service) {
        for (index, mount) in service.volumes.iter().enumerate() {
            let (Some(source), Some(target)) = (&mount.source, &mount.target) else { continue };
            if mount.kind != MountKind::Bind {
                continue;
            }
            let index = index.to_string();
            let path = ["services", name, "volumes", &index];
            let inside = std::path::Path::new(source).starts_with(&self.loaded.project_directory);
            let code =
                CODE.contains(&target.as_str()) || service.working_dir.as_ref() == Some(target);
            if inside && code {
                let text = format!("`{name}` runs code of the host instead of the image's");
                let help = "leave the mount to development: `develop.watch` or an override file";
                self.push("compose/mounted-code", &path, (text, "hides the image's own"), help);
            }
            if source.ends_with("/docker.sock") {
                let text =
                    format!("`{name}` can do everything on this host: it has the engine's socket");
                let help = "put a socket proxy that allows only what is needed in between";
                self.push("compose/engine-socket", &path, (text, "the same as root"), help);
            }
        }
    }

    fn dependencies(&mut self, name: &str, service: &Service) {
        for (wanted, dependency) in &service.depends_on {
            let Some(other) = self.loaded.project.services.get(wanted) else { continue };
            let checked = other.healthcheck.as_ref().is_some_and(|health| !health.disable);
            if dependency.condition == Condition::Started && checked {
                let text = format!("`{name}` starts before `{wanted}` is ready");
                let help = "write `condition: service_healthy`: it has a health check";
                let path = ["services", name, "depends_on", wanted];
                self.push(
                    "compose/started-not-healthy",
                    &path,
                    (text, "waits for the start only"),
                    help,
                );
            }
        }
    }

    fn container(&mut self, name: &str, service: &Service) {
        if service.container_name.is_some() {
            let text =
                format!("`{name}` has a `container_name`: two of it cannot run side by side");
            let help = "leave it out; the service's name is its name on the network";
            let path = ["services", name, "container_name"];
            self.push("compose/fixed-name", &path, (text, "no start before the stop"), help);
        }
        if service.privileged {
            let text = format!("`{name}` is privileged: a hole in it is a hole in the host");
            let help = "name what it needs with `cap_add` and `devices`";
            let path = ["services", name, "privileged"];
            self.push("compose/privileged", &path, (text, "the same as root"), help);
        }
    }
}
