//! Advice about a project that loads: what has cost people a night before.

mod data;
mod reach;
mod running;

use crate::diagnostic::{Diagnostic, Severity};
use crate::model::Service;
use crate::request::Loaded;

/// Everything that deserves a second thought, in the order of the files. The last line of help
/// names a page of this project's documentation: what it is, what it has cost, how to mend it.
///
/// ```
/// use shiplap_compose::{MemoryFiles, Request, advise, load};
///
/// let files = MemoryFiles::from([("/shop/compose.yaml", "services: {web: {image: nginx}}")]);
/// let request = Request { working_dir: "/shop".into(), ..Request::default() };
/// let advice = advise(&load(&request, &files).unwrap());
/// let codes: Vec<_> = advice.iter().map(|advice| advice.code).collect();
/// assert_eq!(codes, ["compose/no-restart", "compose/unbounded-logs", "compose/floating-tag"]);
/// assert_eq!(advice[0].help.last().unwrap(), "see docs/advice/no-restart.md");
/// ```
pub fn advise(loaded: &Loaded) -> Vec<Diagnostic> {
    let mut advice = Advice { loaded, found: Vec::new() };
    for (name, service) in &loaded.project.services {
        // Services from outside have no container of ours.
        if service.provider.is_some() {
            continue;
        }
        advice.image(name, service);
        advice.health(name, service);
        advice.restart(name, service);
        advice.grace(name, service);
        advice.dependencies(name, service);
        advice.container(name, service);
        advice.environment(name, service);
        advice.ports(name, service);
        advice.network(name, service);
        advice.mounts(name, service);
        advice.kept_data(name, service);
    }
    advice.logs();
    advice.shared_volumes();
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
        let page = code.trim_start_matches("compose/");
        let diagnostic = Diagnostic::new(Severity::Advice, code, message)
            .at(self.loaded.span(path), label)
            .help(help)
            .help(format!("see docs/advice/{page}.md"));
        self.found.push(diagnostic);
    }
}

/// The last part of the image's name: `postgres` of `docker.io/library/postgres:16`.
fn program(service: &Service) -> &str {
    let image = service.image.as_deref().unwrap_or_default();
    let name = image.rsplit('/').next().unwrap_or_default();
    name.split(['@', ':']).next().unwrap_or_default()
}

/// Whether the image is a program that keeps data. Tools around one, such as an exporter, do not.
fn is_database(service: &Service) -> bool {
    const TOOLS: &[&str] =
        &["exporter", "backup", "admin", "express", "commander", "insight", "proxy", "client"];
    let program = program(service);
    DATABASES.iter().any(|database| program.contains(database))
        && !TOOLS.iter().any(|tool| program.contains(tool))
}

/// Whether something tells when the service is ready.
fn is_checked(service: &Service) -> bool {
    service.healthcheck.as_ref().is_some_and(|health| {
        !health.disable && health.test.first().is_some_and(|first| first != "NONE")
    })
}

/// Whether requests reach it from outside.
fn is_served(service: &Service) -> bool {
    const ROUTERS: &[&str] = &["traefik.http.", "traefik.tcp.", "caddy"];
    service.ports.iter().any(|port| port.protocol.as_deref() != Some("udp"))
        || service.labels.keys().any(|label| ROUTERS.iter().any(|router| label.starts_with(router)))
}
