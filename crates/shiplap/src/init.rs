//! What to write into a `shiplap.yaml`, from what a folder holds.

mod hints;

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::Path;

use shiplap_compose::model::{Project, Service};
use shiplap_compose::{OsFiles, Request, default_file, normal_name};

pub use hints::Hint;

/// Where the edge listens behind another proxy.
const BEHIND: &str = "127.0.0.1:7080";
/// The most files of a folder that are looked at.
const MOST_FILES: usize = 1000;
/// The longest configuration of a proxy that is looked at.
const LONGEST: u64 = 1 << 20;

/// Middle parts of file names that are no environment.
const NO_ENVIRONMENT: &[&str] = &[
    "override", "local", "example", "sample", "template", "dist", "versions", "coolify", "dokploy",
    "test", "ci", "debug", "vault", "keys", "swarm", "build",
];
/// Names of one and the same environment, the usual one first.
const ALIASES: &[&[&str]] = &[
    &["prod", "production", "live"],
    &["staging", "stage", "preprod"],
    &["dev", "development", "devel"],
];

/// A proxy in front of the edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Front {
    /// Caddy
    Caddy,
    /// nginx
    Nginx,
}

impl fmt::Display for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Caddy => "Caddy",
            Self::Nginx => "nginx",
        })
    }
}

/// What a folder holds.
#[derive(Debug, Clone, Default)]
pub struct Folder {
    /// Names of its files, in order.
    pub files: Vec<String>,
    /// The name of its Compose file.
    pub base: String,
    /// The project's name, as Compose has it.
    pub name: String,
    /// The project of the base file alone, where it can be loaded without its variables.
    pub project: Option<Project>,
    /// Published host ports by service file that comes on top of the base.
    pub with: BTreeMap<String, Project>,
    /// Hosts that some proxy's configuration sends to a service.
    pub hints: Vec<Hint>,
}

impl Folder {
    /// Reads it.
    pub fn read(here: &Path) -> Self {
        let names = |folder: &Path| {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            let names = entries.take(MOST_FILES).filter(|entry| entry.path().is_file());
            let mut names: Vec<String> =
                names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
            names.sort();
            names
        };
        let files = names(here);
        let base = default_file(here, &OsFiles);
        let base = base.and_then(|path| Some(path.file_name()?.to_str()?.to_owned()));
        let base = base.unwrap_or_default();
        // A base whose variables are those of an environment cannot be loaded without one's.
        let project = load(here, &[&base], None).or_else(|| {
            let own = files.iter().find(|file| variables(file).is_some())?;
            load(here, &[&base], Some(own.clone()))
        });
        let folder = here.file_name().unwrap_or_default().to_string_lossy();
        let name = match &project {
            Some(project) => project.name.clone(),
            None => normal_name(&folder),
        };
        let overlays = files.iter().filter_map(|name| Some((name, overlay(name)?)));
        let with = overlays
            .filter_map(|(name, environment)| {
                let variables = env_file(&files, Some(&environment));
                Some((name.clone(), load(here, &[&base, name], variables)?))
            })
            .collect();
        let mut hints = project.as_ref().map(hints::of_labels).unwrap_or_default();
        for folder in ["", "caddy", "nginx", "nginx/conf.d", "conf.d", "deploy"] {
            for name in names(&here.join(folder)) {
                let path = here.join(folder).join(&name);
                if let (Some(kind), Some(text)) = (hints::kind(&name), read(&path)) {
                    hints.extend(hints::hints(kind, &text));
                }
            }
        }
        Self { files, base, name, project, with, hints }
    }
}

fn read(path: &Path) -> Option<String> {
    use shiplap_compose::FileSource as _;
    String::from_utf8(OsFiles.read(path, LONGEST).ok()?).ok()
}

/// A project as far as it can be told. Variables that are missing here may be there elsewhere.
fn load(here: &Path, files: &[&str], variables: Option<String>) -> Option<Project> {
    let variable = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    let request = Request {
        files: files.iter().map(|name| here.join(name)).collect(),
        env_files: variables.into_iter().map(|name| here.join(name)).collect(),
        working_dir: here.to_path_buf(),
        environment: std::env::vars_os().filter_map(variable).collect(),
        ..Request::default()
    };
    shiplap_compose::load(&request, &OsFiles).ok().map(|loaded| loaded.project)
}

/// `docker-compose.prod.yml` is of the environment `prod`.
fn overlay(file: &str) -> Option<String> {
    let stem = file.strip_suffix(".yml").or_else(|| file.strip_suffix(".yaml"))?;
    let middle = stem
        .strip_prefix("docker-compose.")
        .or_else(|| stem.strip_prefix("compose."))
        .or_else(|| stem.strip_prefix("docker-compose-"))?;
    named(middle)
}

/// `.env.prod` is of the environment `prod`.
fn variables(file: &str) -> Option<String> {
    named(file.strip_prefix(".env.")?)
}

fn named(middle: &str) -> Option<String> {
    let name = middle.to_ascii_lowercase();
    let is_one = shiplap_config::is_name(&name) && !NO_ENVIRONMENT.contains(&name.as_str());
    is_one.then_some(name)
}

/// Whether two names mean one environment.
fn same(one: &str, other: &str) -> bool {
    one == other || ALIASES.iter().any(|names| names.contains(&one) && names.contains(&other))
}

/// The file of variables of an environment, where it has one of its own.
fn env_file(files: &[String], environment: Option<&str>) -> Option<String> {
    let environment = environment?;
    let exact = format!(".env.{environment}");
    let other =
        || files.iter().find(|file| variables(file).is_some_and(|name| same(&name, environment)));
    files.iter().find(|file| **file == exact).or_else(other).cloned()
}

/// An environment to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Environment {
    name: String,
    compose: Option<String>,
    env_file: Option<String>,
    /// Whether its host ports are those of one before it.
    collides: bool,
}

/// What is to be written.
#[derive(Debug, Clone)]
pub struct Plan {
    base: String,
    project: Option<String>,
    environments: Vec<Environment>,
    versions: bool,
    front: Option<Front>,
    hints: Vec<Hint>,
    /// A service and its port, to show what a route looks like.
    example: (String, u16),
}

impl Plan {
    /// Finds out what to write.
    pub fn of(folder: &Folder, front: Option<Front>) -> Self {
        let mut names: Vec<String> = Vec::new();
        let overlays = folder.files.iter().filter_map(|file| overlay(file));
        for name in overlays.chain(folder.files.iter().filter_map(|file| variables(file))) {
            if !names.iter().any(|known| same(known, &name)) {
                names.push(name);
            }
        }
        // The first one keeps names and ports that the files fix.
        let rank = |name: &String| {
            let known = ALIASES.iter().position(|names| names.contains(&name.as_str()));
            (known.unwrap_or(ALIASES.len()), name.clone())
        };
        names.sort_by_key(rank);
        if names.is_empty() {
            names.push("prod".to_owned());
        }
        let mut taken: Vec<(String, String)> = Vec::new();
        let environments = names.into_iter().map(|name| {
            let compose = folder.files.iter().find(|file| overlay(file).is_some_and(|o| o == name));
            let project = match compose {
                Some(file) => folder.with.get(file),
                None => folder.project.as_ref(),
            };
            let ports = project.map(published).unwrap_or_default();
            let collides = ports.iter().any(|port| taken.contains(port));
            taken.extend(ports);
            Environment {
                env_file: env_file(&folder.files, Some(&name)),
                compose: compose.cloned(),
                name,
                collides,
            }
        });
        let services: Vec<String> =
            folder.project.iter().flat_map(|project| project.services.keys().cloned()).collect();
        let known = |hint: &&Hint| services.contains(&hint.service);
        let mut hints: Vec<Hint> = folder.hints.iter().filter(known).cloned().collect();
        hints.sort();
        hints.dedup_by(|a, b| (&a.host, &a.path) == (&b.host, &b.path));
        for hint in &mut hints {
            let service = folder.project.as_ref().and_then(|p| p.services.get(&hint.service));
            hint.port = hint.port.or_else(|| service.and_then(only_port));
        }
        Self {
            base: folder.base.clone(),
            project: Some(folder.name.clone()).filter(|name| shiplap_config::is_name(name)),
            environments: environments.collect(),
            versions: folder.files.iter().any(|file| file == ".env.versions"),
            front,
            hints,
            example: example(folder.project.as_ref()),
        }
    }

    /// The names of the environments.
    pub fn names(&self) -> Vec<&str> {
        self.environments.iter().map(|environment| environment.name.as_str()).collect()
    }

    /// The file.
    pub fn text(&self) -> String {
        let mut text = String::from(
            "# yaml-language-server: $schema=https://shiplap.dev/schema/shiplap.json\n\
             # What Shiplap should know that the Compose files do not say. `shiplap check` checks it,\n\
             # `shiplap env show NAME` prints what an environment comes to.\n\n",
        );
        if let Some(project) = &self.project {
            let _ = writeln!(text, "project: {project}");
        }
        if self.environments.iter().any(|environment| environment.compose.is_some()) {
            let _ = writeln!(text, "compose: [{}]\n", quoted(&self.base));
        } else {
            text.push_str("# compose: [compose.yaml]   # as Compose finds them, unless given\n\n");
        }
        if self.front.is_some() {
            let _ = writeln!(text, "# The proxy in front passes requests on to here.");
            let _ = writeln!(text, "edge: {{ http: {BEHIND} }}\n");
        }
        text.push_str("environments:\n");
        for (index, environment) in self.environments.iter().enumerate() {
            self.environment(&mut text, environment, index == 0);
        }
        text
    }

    fn environment(&self, text: &mut String, environment: &Environment, is_first: bool) {
        let _ = writeln!(text, "  {}:", environment.name);
        match &self.project {
            Some(project) if self.environments.len() == 1 => {
                let _ = writeln!(
                    text,
                    "    project_name: {project}   # what runs under this name is taken over"
                );
            }
            Some(project) if is_first => {
                let _ = writeln!(
                    text,
                    "    # What runs already, as `docker compose ls` names it, is taken over:\n    \
                     # project_name: {project}"
                );
            }
            Some(_) | None => {}
        }
        if let Some(file) = &environment.compose {
            let _ = writeln!(text, "    compose: [{}]", quoted(file));
        }
        if let Some(file) = &environment.env_file {
            let _ = writeln!(text, "    env_files: [{}]", quoted(file));
        }
        if self.versions {
            text.push_str("    versions: .env.versions\n");
        }
        if environment.collides {
            text.push_str(
                "    # Another environment has its host ports; `none` is enough with routes.\n    \
                 ports: any\n",
            );
        }
        self.routes(text, environment, is_first);
        if !is_first {
            text.push_str(
                "    # protect: { basic_auth: secrets/dev.htpasswd, noindex: true }\n    \
                 # limits: { cpus: 2, memory: 2GiB }\n",
            );
        }
    }

    /// Only behind another proxy is it clear that they do not get in anybody's way.
    fn routes(&self, text: &mut String, environment: &Environment, is_first: bool) {
        // One without a port would be an error.
        let is_active = |hint: &Hint| is_first && self.front.is_some() && hint.port.is_some();
        let mark = |is_active| if is_active { "" } else { "# " };
        let host = |host: &str| match is_first {
            true => host.to_owned(),
            false => format!("{}.{host}", environment.name),
        };
        let _ = writeln!(text, "    {}routes:", mark(self.hints.iter().any(is_active)));
        for hint in &self.hints {
            let path = hint.path.as_ref().map(|path| format!(", path: {}", quoted(path)));
            let port = hint.port.map(|port| format!(", port: {port}"));
            let _ = writeln!(
                text,
                "    {}  - {{ host: {}{}, service: {}{} }}",
                mark(is_active(hint)),
                quoted(&host(&hint.host)),
                path.unwrap_or_default(),
                quoted(&hint.service),
                port.unwrap_or_default()
            );
        }
        if self.hints.is_empty() {
            let (service, port) = &self.example;
            let host = host("shop.example");
            let _ = writeln!(text, "    # - {{ host: {host}, service: {service}, port: {port} }}");
        }
        if self.front.is_none() {
            text.push_str("    # tls: acme\n");
        }
    }

    /// What the proxy in front needs.
    pub fn lines_for(&self, front: Front) -> String {
        let mut hosts: Vec<&str> = self.hints.iter().map(|hint| hint.host.as_str()).collect();
        hosts.dedup();
        if hosts.is_empty() {
            hosts.push("shop.example");
        }
        match front {
            Front::Caddy => {
                format!("{} {{\n\treverse_proxy {BEHIND}\n}}", hosts.join(", "))
            }
            Front::Nginx => format!(
                "map $http_upgrade $shiplap_connection {{ default upgrade; '' ''; }}\n\
                 server {{\n    listen 80;  # and 443 with your certificate\n    \
                 server_name {};\n    client_max_body_size 0;\n    location / {{\n        \
                 proxy_pass http://{BEHIND};\n        proxy_http_version 1.1;\n        \
                 proxy_set_header Host $host;\n        \
                 proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n        \
                 proxy_set_header X-Forwarded-Proto $scheme;\n        \
                 proxy_set_header Upgrade $http_upgrade;\n        \
                 proxy_set_header Connection $shiplap_connection;\n        \
                 proxy_buffering off;\n        proxy_request_buffering off;\n        \
                 proxy_read_timeout 1h;\n    }}\n}}",
                hosts.join(" ")
            ),
        }
    }
}

/// Words that YAML takes for something else than a text.
const WORDS: &[&str] = &["null", "true", "false", "yes", "no", "on", "off", "y", "n"];

fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '/');
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '.' || c == '/');
    if starts && text.chars().all(plain) && !WORDS.contains(&text) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "''"))
    }
}

/// A service that is published, else one that declares a port, else any.
fn example(project: Option<&Project>) -> (String, u16) {
    let services = || project.into_iter().flat_map(|project| &project.services);
    let published = services().find(|(_, service)| !service.ports.is_empty());
    let declared = || services().find(|(_, service)| only_port(service).is_some());
    let found = published.or_else(declared).or_else(|| services().next());
    match found {
        Some((name, service)) => {
            let port = service.ports.first().map(|port| port.target);
            (quoted(name), port.or_else(|| only_port(service)).unwrap_or(80))
        }
        None => ("web".to_owned(), 80),
    }
}

/// The port of a service that declares only one.
fn only_port(service: &Service) -> Option<u16> {
    match (service.ports.as_slice(), service.expose.as_slice()) {
        ([port], []) => Some(port.target),
        ([], [port]) => port.trim_end_matches("/tcp").parse().ok(),
        _ => None,
    }
}

/// Host ports with their protocol.
fn published(project: &Project) -> Vec<(String, String)> {
    let ports = project.services.values().flat_map(|service| &service.ports);
    let own = ports.filter_map(|port| {
        let protocol = port.protocol.clone().unwrap_or_else(|| "tcp".to_owned());
        Some((port.published.clone()?, protocol))
    });
    own.collect()
}

#[cfg(test)]
mod tests {
    use shiplap_compose::MemoryFiles;
    use shiplap_config::Config;

    use super::*;

    fn project(compose: &str) -> Project {
        let files = MemoryFiles::from([("/shop/compose.yaml", compose.to_owned())]);
        let request = Request { working_dir: "/shop".into(), ..Request::default() };
        shiplap_compose::load(&request, &files).expect("it is right").project
    }

    fn folder(files: &[&str]) -> Folder {
        let base = project("services: { web: { image: web, ports: [\"8080:80\"] } }");
        let with = files.iter().filter(|file| overlay(file).is_some());
        Folder {
            files: files.iter().map(|file| (*file).to_owned()).collect(),
            base: "docker-compose.yml".to_owned(),
            name: "shop".to_owned(),
            with: with.map(|file| ((*file).to_owned(), base.clone())).collect(),
            project: Some(base),
            hints: Vec::new(),
        }
    }

    #[track_caller]
    fn parsed(plan: &Plan) -> Config {
        let text = plan.text();
        Config::parse(Path::new("/shop/shiplap.yaml"), &text)
            .unwrap_or_else(|problems| panic!("{}\n{text}", problems[0]))
    }

    #[test]
    fn each_overlay_is_an_environment_and_production_comes_first() {
        let folder = folder(&[
            ".env",
            ".env.development",
            ".env.example",
            ".env.prod",
            ".env.versions",
            "docker-compose.coolify.yml",
            "docker-compose.dev.yml",
            "docker-compose.override.yml",
            "docker-compose.prod.yml",
            "docker-compose.yml",
        ]);
        let plan = Plan::of(&folder, None);
        let config = parsed(&plan);
        assert_eq!(config.environments().collect::<Vec<_>>(), ["prod", "dev"]);
        let dev = config.environment("dev", "shop").expect("it is there");
        let names: Vec<_> = dev.files.iter().filter_map(|path| path.file_name()).collect();
        assert_eq!(names, ["docker-compose.yml", "docker-compose.dev.yml"]);
        assert!(dev.env_files[0].ends_with(".env.development"), "{:?}", dev.env_files);
        assert!(dev.versions.is_some());
        assert_eq!(dev.ports, shiplap_config::Ports::Any, "prod has the host ports");
        let prod = config.environment("prod", "shop").expect("it is there");
        assert_eq!(prod.ports, shiplap_config::Ports::Keep);
    }

    #[test]
    fn a_plain_folder_is_one_environment_that_takes_over_what_runs() {
        let plan = Plan::of(&folder(&["docker-compose.yml", ".env"]), None);
        let config = parsed(&plan);
        let prod = config.environment("prod", "shop").expect("it is there");
        assert_eq!(prod.project_name, "shop");
        assert!(prod.files.is_empty(), "the files are found as Compose finds them");
    }

    #[test]
    fn a_folder_whose_files_cannot_be_loaded_yet_gets_a_file_all_the_same() {
        let folder = Folder { project: None, name: "_".to_owned(), ..folder(&["compose.yaml"]) };
        let config = parsed(&Plan::of(&folder, Some(Front::Nginx)));
        assert_eq!(config.environments().collect::<Vec<_>>(), ["prod"]);
    }

    #[test]
    fn behind_another_proxy_routes_are_there_and_its_lines_are_told() {
        let mut folder = folder(&["docker-compose.yml"]);
        let hint = |host: &str, path: Option<&str>| Hint {
            host: host.to_owned(),
            path: path.map(str::to_owned),
            service: "web".to_owned(),
            port: Some(80),
        };
        folder.hints = vec![
            hint("shop.example", None),
            hint("shop.example", Some("/api")),
            Hint { service: "gone".to_owned(), ..hint("b.example", None) },
        ];
        let plan = Plan::of(&folder, Some(Front::Caddy));
        let config = parsed(&plan);
        let prod = config.environment("prod", "shop").expect("it is there");
        assert_eq!(prod.http.port, 7080);
        let table =
            prod.routes(folder.project.as_ref().unwrap(), &[], &MemoryFiles::from([("/x", "")]));
        assert_eq!(table.expect("they lead somewhere").routes.len(), 2);
        assert_eq!(
            plan.lines_for(Front::Caddy),
            "shop.example {\n\treverse_proxy 127.0.0.1:7080\n}"
        );
        assert!(plan.lines_for(Front::Nginx).contains("server_name shop.example;"));
        let comments = Plan::of(&folder, None);
        assert!(comments.text().contains("# routes:"), "{}", comments.text());
        let _ = parsed(&comments);
    }
}
