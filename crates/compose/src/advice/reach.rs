//! Who reaches a service, and what it is told.

use super::{Advice, is_database};
use crate::model::Service;

/// Parts of the names of variables that hold secrets.
const SECRETS: &[&str] =
    &["PASSWORD", "PASSWD", "SECRET", "TOKEN", "API_KEY", "APIKEY", "PRIVATE_KEY", "ACCESS_KEY"];
/// Schemes of addresses of programs that have a service of their own.
const SCHEMES: &[&str] = &[
    "postgres",
    "postgresql",
    "mysql",
    "mysql2",
    "mariadb",
    "mongodb",
    "redis",
    "rediss",
    "valkey",
    "amqp",
    "amqps",
    "nats",
    "kafka",
    "memcached",
    "elasticsearch",
];
/// Beginnings of variables that name a host of such a program.
const HOSTS: &[&str] = &[
    "DB",
    "DATABASE",
    "POSTGRES",
    "PG",
    "MYSQL",
    "MONGO",
    "REDIS",
    "RABBITMQ",
    "AMQP",
    "MEMCACHED",
];

impl Advice<'_> {
    pub(super) fn environment(&mut self, name: &str, service: &Service) {
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
            let own = value.as_deref().is_some_and(|value| names_itself(&upper, value));
            if own && service.network_mode.as_deref() != Some("host") {
                let text = format!("`{variable}` of `{name}` points to the container itself");
                let help = "write the name of the service instead of `localhost`";
                self.push("compose/localhost", &path, (text, "nothing listens there"), help);
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

    pub(super) fn ports(&mut self, name: &str, service: &Service) {
        for (index, port) in service.ports.iter().enumerate() {
            let index = index.to_string();
            let path = ["services", name, "ports", &index];
            let open = matches!(port.host_ip.as_deref(), None | Some("" | "0.0.0.0" | "::"));
            if is_database(service) && port.published.is_some() && open {
                let text = format!("`{name}` keeps data and is open to every network of the host");
                let help = "leave `ports` out, services reach it anyway; or write `127.0.0.1:…`";
                self.push(
                    "compose/open-database",
                    &path,
                    (text, "published on all addresses"),
                    help,
                );
            }
            if port.published_range().is_some_and(|(first, last)| first != last) {
                let text =
                    format!("nobody knows on which port `{name}` is: the engine chooses one");
                let help = "publish one port; all replicas are reached through it";
                self.push("compose/port-range", &path, (text, "another one each time"), help);
            }
        }
    }

    pub(super) fn network(&mut self, name: &str, service: &Service) {
        if service.network_mode.as_deref() == Some("host") {
            let text = format!("`{name}` uses the host's ports: two of it cannot run side by side");
            let help = "leave it out and publish `ports`";
            let path = ["services", name, "network_mode"];
            self.push("compose/host-network", &path, (text, "no start before the stop"), help);
        }
    }
}

/// Whether a variable looks for another program in its own container.
fn names_itself(variable: &str, value: &str) -> bool {
    let local = |host: &str| {
        ["localhost", "127.0.0.1", "[::1]"].iter().any(|name| {
            host.strip_prefix(name)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/']))
        })
    };
    if let Some((scheme, rest)) = value.split_once("://") {
        let scheme = scheme.split('+').next().unwrap_or_default();
        let host = rest.split('/').next().unwrap_or_default().rsplit('@').next();
        return SCHEMES.contains(&scheme) && host.is_some_and(local);
    }
    let prefix = variable.strip_suffix("_HOST").or_else(|| variable.strip_suffix("HOST"));
    prefix.is_some_and(|prefix| HOSTS.iter().any(|name| prefix.starts_with(name))) && local(value)
}
