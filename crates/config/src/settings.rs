//! What one environment says, with defaults filled in and paths made whole.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use shiplap_compose::Diagnostic;
use shiplap_compose::document::{Cursor, split_words};
use shiplap_compose::model::{ByteSize, Duration as Span};

use crate::file::{self, Challenge, Command, Environment, Ports, Scalar, Sharing, Size};
use crate::{Config, gates};

/// Let's Encrypt's directory.
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// How long a command may take unless it says otherwise: a dump of a large database fits.
pub(crate) const HOOK_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// Everything that one environment says.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The environment's name.
    pub name: String,
    /// The environment in the file that it is, or was made from.
    pub base: String,
    /// The project's name, which all its environments share.
    pub project: String,
    /// The Compose project name on the machine.
    pub project_name: String,
    /// Where it is deployed.
    pub target: Target,
    /// The Compose files, merged in this order; as Compose finds them where empty.
    pub files: Vec<PathBuf>,
    /// Files of variables; `.env` where empty.
    pub env_files: Vec<PathBuf>,
    /// The file of variables that holds the versions.
    pub versions: Option<PathBuf>,
    /// Whether its changes are committed with git.
    pub commit_versions: bool,
    /// Profiles to activate.
    pub profiles: Vec<String>,
    /// Services that it goes without.
    pub exclude: Vec<String>,
    /// Variables, which win over files and over the process's.
    pub variables: BTreeMap<String, String>,
    /// Names that must be in the secret store.
    pub secrets: Vec<String>,
    /// The domain of generated hosts.
    pub domain: Option<String>,
    /// What becomes of published host ports.
    pub ports: Ports,
    /// What becomes of external networks, by key.
    pub networks: BTreeMap<String, Sharing>,
    /// What becomes of external volumes, by key.
    pub volumes: BTreeMap<String, Sharing>,
    /// CPUs for all services together.
    pub cpus: Option<f64>,
    /// Bytes of memory for all services together.
    pub memory_bytes: Option<u64>,
    /// Jobs before the switch, in order.
    pub jobs: Vec<JobSettings>,
    /// What must hold.
    pub gates: GateSettings,
    /// How registries are asked, by host.
    pub registries: BTreeMap<String, RegistryAccess>,
    /// Where certificates come from.
    pub tls: Option<TlsSettings>,
    /// How long new replicas are watched.
    pub watch: Option<Duration>,
    /// Where the edge listens for routes without TLS, where it does not yet.
    pub http: EntryPoint,
    /// The same, with TLS.
    pub https: EntryPoint,
    pub(crate) config: Config,
}

/// A machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The engine that `docker` would use here.
    Here,
    /// An engine's address, such as `unix:///run/docker.sock`.
    At(String),
}

/// An address and a port of the edge; no address for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryPoint {
    /// The address.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: u16,
}

/// A command in a container like a service's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobSettings {
    /// Its name.
    pub name: String,
    /// The service.
    pub service: String,
    /// Its words.
    pub command: Vec<String>,
    /// How long it may take; the limit `job` where nothing is said.
    pub timeout: Option<Duration>,
}

/// A command on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookSettings {
    /// Its words, at least one.
    pub command: Vec<String>,
    /// How long it may take.
    pub timeout: Duration,
    /// Where it starts.
    pub folder: PathBuf,
}

/// What must hold before a deployment goes on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GateSettings {
    /// Once per new image; all must hold.
    pub signature: Vec<SignatureSettings>,
    /// Once per new image.
    pub scan: Option<ScanSettings>,
    /// In the environment that is promoted from.
    pub tests: Option<JobSettings>,
    /// Whether a person must say yes.
    pub approval: Approval,
    /// Right before the jobs.
    pub backup: Option<HookSettings>,
}

pub use crate::file::{Approval, RegistryAccess};
pub use crate::gates::{ReportSettings, ScanSettings, SignatureSettings, SignedBy};

/// Where certificates come from, and for how long browsers are bound to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// Where they come from.
    pub from: Certificates,
    /// How long browsers are to come with TLS only.
    pub hsts: Option<Duration>,
}

/// Where certificates come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Certificates {
    /// An authority that looks at the host by itself.
    Acme(AcmeSettings),
    /// An authority of our own.
    Internal,
    /// Files.
    Files {
        /// The chain, in PEM.
        certificate: PathBuf,
        /// Its key, in PEM.
        key: PathBuf,
    },
}

/// An authority that looks at the host by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcmeSettings {
    /// The address of its directory.
    pub directory: String,
    /// An address of mail that it may write to.
    pub email: Option<String>,
    /// Whom to believe that it is the directory.
    pub roots: Option<PathBuf>,
    /// How to prove that a host is ours.
    pub challenge: Challenge,
}

impl Settings {
    pub(crate) fn new(config: &Config, name: &str, project: &str, given: &Environment) -> Self {
        let whole = |path: &String| config.folder.join(path);
        let file = &config.file;
        let project = file.project.clone().unwrap_or_else(|| project.to_owned());
        Self {
            project_name: project_name(&project, name, given),
            name: name.to_owned(),
            base: name.to_owned(),
            target: match &given.target {
                None => Target::Here,
                Some(name) => target(&file.targets[name]),
            },
            files: file.compose.iter().chain(&given.compose).map(whole).collect(),
            env_files: given.env_files.iter().map(whole).collect(),
            versions: given.versions.as_ref().map(whole),
            commit_versions: given.commit_versions,
            profiles: given.profiles.clone(),
            exclude: given.exclude.clone(),
            variables: given.variables.iter().map(|(k, v)| (k.clone(), scalar(v))).collect(),
            secrets: given.secrets.clone(),
            domain: given.domain.as_ref().map(|domain| fill(domain, &project, name)),
            ports: given.ports,
            networks: given.networks.clone(),
            volumes: given.volumes.clone(),
            cpus: given.limits.cpus,
            memory_bytes: given.limits.memory.as_ref().and_then(bytes),
            jobs: given.jobs.before_switch.iter().map(|(name, given)| job(name, given)).collect(),
            gates: GateSettings {
                signature: gates::signatures(&given.gates, config),
                scan: given.gates.scan.as_ref().map(|scan| gates::scan(scan, config)),
                tests: given.gates.tests.as_ref().map(|given| job("tests", given)),
                approval: given.gates.approval,
                backup: given.gates.backup.as_ref().map(|hook| self::hook(hook, config)),
            },
            registries: file.registries.clone(),
            tls: given.tls.as_ref().map(|tls| self::tls(tls, config)),
            watch: given.watch.as_deref().and_then(duration),
            http: entry(file.edge.http.as_ref(), 80),
            https: entry(file.edge.https.as_ref(), 443),
            project,
            config: config.clone(),
        }
    }

    /// The same for another environment, which is in no file.
    pub(crate) fn derive(self, name: &str) -> Self {
        let domain = self.given().domain.as_ref().map(|domain| fill(domain, &self.project, name));
        Self {
            name: name.to_owned(),
            project_name: format!("{}-{name}", self.project),
            domain,
            // The ports of the file are those of the environment that it is made from.
            ports: match self.ports {
                Ports::Keep | Ports::Any => Ports::Any,
                Ports::None => Ports::None,
            },
            ..self
        }
    }

    /// Whether it is in no file, but made from another environment.
    #[must_use]
    pub fn is_derived(&self) -> bool {
        self.base != self.name
    }

    /// What becomes of an external volume. One that is made from another environment never writes
    /// to that one's data unless the file says so.
    #[must_use]
    pub fn sharing_of_volume(&self, key: &str) -> Sharing {
        let usual = if self.is_derived() { Sharing::Own } else { Sharing::Shared };
        self.volumes.get(key).copied().unwrap_or(usual)
    }

    /// The environments that are declared before this one for the same machine, in order.
    #[must_use]
    pub fn earlier(&self) -> Vec<Self> {
        let environments = &self.config.file.environments;
        let before = environments.iter().take_while(|(name, _)| **name != self.base);
        let all =
            before.chain(environments.get_key_value(&self.base).filter(|_| self.base != self.name));
        let same = all.filter(|(_, given)| given.target == self.given().target);
        same.map(|(name, given)| Self::new(&self.config, name, &self.project, given)).collect()
    }

    /// The folder that the file's paths start from.
    #[must_use]
    pub fn folder(&self) -> &std::path::Path {
        self.config.folder()
    }

    /// Whether the file names Compose files of all environments, so that none is looked for.
    #[must_use]
    pub fn has_base_files(&self) -> bool {
        !self.config.file.compose.is_empty()
    }

    pub(crate) fn given(&self) -> &Environment {
        &self.config.file.environments[&self.base]
    }

    pub(crate) fn at(&self, path: &[&str]) -> Cursor<'_> {
        let whole: Vec<&str> = ["environments", &self.base].iter().chain(path).copied().collect();
        self.config.at(&whole)
    }

    pub(crate) fn of_file(&self, path: &[&str]) -> Cursor<'_> {
        self.config.at(path)
    }

    /// A text with `{environment}` and `{project}` filled in.
    pub(crate) fn fill(&self, text: &str) -> String {
        fill(text, &self.project, &self.name)
    }

    /// That a name of `secrets` is missing in the store.
    #[must_use]
    pub fn missing_secret(&self, name: &str) -> Diagnostic {
        let index = self.secrets.iter().position(|known| known == name).unwrap_or_default();
        let message = format!("environment `{}` has no secret `{name}`", self.name);
        self.at(&["secrets", &index.to_string()])
            .error("config/no-secret", message, "not in the store")
            .help(format!("`shiplap -e {} secrets set {name}` reads it", self.name))
    }
}

fn fill(text: &str, project: &str, environment: &str) -> String {
    text.replace("{environment}", environment).replace("{project}", project)
}

fn project_name(project: &str, name: &str, given: &Environment) -> String {
    given.project_name.clone().unwrap_or_else(|| match name {
        // What was deployed before there was this file, goes on.
        "default" => project.to_owned(),
        name => format!("{project}-{name}"),
    })
}

fn target(address: &str) -> Target {
    if address == "local" { Target::Here } else { Target::At(address.to_owned()) }
}

fn scalar(value: &Scalar) -> String {
    match value {
        Scalar::Bool(value) => value.to_string(),
        Scalar::Integer(value) => value.to_string(),
        Scalar::Number(value) => value.to_string(),
        Scalar::Text(value) => value.clone(),
    }
}

pub(crate) fn duration(text: &str) -> Option<Duration> {
    text.parse::<Span>().ok()?.as_std()
}

pub(crate) fn bytes(size: &Size) -> Option<u64> {
    match size {
        Size::Bytes(bytes) => Some(*bytes),
        Size::Text(text) => u64::try_from(text.parse::<ByteSize>().ok()?.bytes()).ok(),
    }
}

fn entry(given: Option<&file::Entry>, usual: u16) -> EntryPoint {
    match given {
        None => EntryPoint { address: None, port: usual },
        Some(file::Entry::Port(port)) => EntryPoint { address: None, port: *port },
        Some(file::Entry::Address(text)) => {
            let address = text.parse::<SocketAddr>().unwrap_or((Ipv4Addr::LOCALHOST, usual).into());
            EntryPoint { address: Some(address.ip()), port: address.port() }
        }
    }
}

pub(crate) fn words(command: &Command) -> Vec<String> {
    match command {
        Command::Text(text) => split_words(text).unwrap_or_default(),
        Command::Words(words) => words.clone(),
    }
}

fn job(name: &str, given: &file::Job) -> JobSettings {
    JobSettings {
        name: name.to_owned(),
        service: given.service.clone(),
        command: words(&given.command),
        timeout: given.timeout.as_deref().and_then(duration),
    }
}

fn hook(given: &file::Hook, config: &Config) -> HookSettings {
    HookSettings {
        command: words(&given.command),
        timeout: given.timeout.as_deref().and_then(duration).unwrap_or(HOOK_TIMEOUT),
        folder: config.folder.clone(),
    }
}

fn tls(given: &file::Tls, config: &Config) -> TlsSettings {
    let acme = |given: &file::Acme| {
        Certificates::Acme(AcmeSettings {
            directory: given.directory.clone().unwrap_or_else(|| LETS_ENCRYPT.to_owned()),
            email: given.email.clone(),
            roots: given.roots.as_ref().map(|path| config.folder.join(path)),
            challenge: given.challenge,
        })
    };
    match given {
        file::Tls::Kind(file::TlsKind::Acme) => {
            TlsSettings { from: acme(&file::Acme::default()), hsts: None }
        }
        file::Tls::Kind(file::TlsKind::Internal) => {
            TlsSettings { from: Certificates::Internal, hsts: None }
        }
        file::Tls::Given(given) => TlsSettings {
            from: match (&given.acme, &given.certificate, &given.key) {
                (Some(given), _, _) => acme(given),
                (None, Some(certificate), Some(key)) => Certificates::Files {
                    certificate: config.folder.join(certificate),
                    key: config.folder.join(key),
                },
                (None, _, _) => Certificates::Internal,
            },
            hsts: given.hsts.as_deref().and_then(duration),
        },
    }
}

/// What the schema cannot say of an environment.
pub(crate) fn check(
    config: &Config,
    here: &Cursor<'_>,
    given: &Environment,
    problems: &mut Vec<Diagnostic>,
) {
    if let Some(target) = &given.target
        && !config.file.targets.contains_key(target)
    {
        let message = format!("there is no target `{target}`");
        let known: Vec<&str> = config.file.targets.keys().map(String::as_str).collect();
        let help = match known.as_slice() {
            [] => format!("`targets: {{ {target}: ssh://user@host }}` at the top of the file"),
            known => format!("there are {}", known.join(", ")),
        };
        let at = here.nearest(&["target"]);
        problems.push(at.error("config/unknown-target", message, "no such target").help(help));
    }
    let mut lengths: Vec<(Vec<&str>, &Option<String>)> = vec![(vec!["watch"], &given.watch)];
    let mut commands: Vec<(Vec<&str>, &Command)> = Vec::new();
    for (name, job) in &given.jobs.before_switch {
        lengths.push((vec!["jobs", "before_switch", name, "timeout"], &job.timeout));
        commands.push((vec!["jobs", "before_switch", name, "command"], &job.command));
        if !crate::check::is_name(name) {
            let at = here.nearest(&["jobs", "before_switch", name]);
            let message = format!("a job cannot be called `{name}`");
            problems.push(
                Diagnostic::error("config/wrong-value", message)
                    .at(at.key_location(), "not a name")
                    .help("lower-case letters, digits, `-` and `_`, the first a letter or a digit"),
            );
        }
    }
    if let Some(tests) = &given.gates.tests {
        lengths.push((vec!["gates", "tests", "timeout"], &tests.timeout));
        commands.push((vec!["gates", "tests", "command"], &tests.command));
    }
    if let Some(hook) = &given.gates.backup {
        lengths.push((vec!["gates", "backup", "timeout"], &hook.timeout));
        commands.push((vec!["gates", "backup", "command"], &hook.command));
    }
    if let Some(scan) = &given.gates.scan {
        lengths.push((vec!["gates", "scan", "timeout"], &scan.timeout));
        lengths.push((vec!["gates", "scan", "max_age"], &scan.max_age));
        commands.push((vec!["gates", "scan", "command"], &scan.command));
    }
    let numbers: Vec<String> =
        (0..gates::rules(&given.gates).len()).map(|n| n.to_string()).collect();
    for (rule, number) in gates::rules(&given.gates).iter().zip(&numbers) {
        let place = |field| match &given.gates.signature {
            Some(file::Signatures::Several(_)) => vec!["gates", "signature", number, field],
            Some(file::Signatures::One(_)) | None => vec!["gates", "signature", field],
        };
        lengths.push((place("timeout"), &rule.timeout));
        commands.extend(rule.command.iter().map(|command| (place("command"), command)));
    }
    gates::check(here, &given.gates, problems);
    if let Some(file::Tls::Given(given)) = &given.tls {
        lengths.push((vec!["tls", "hsts"], &given.hsts));
        check_tls(here, given, problems);
    }
    for (path, text) in lengths {
        if let Some(text) = text
            && duration(text).is_none()
        {
            let at = here.nearest(&path);
            let message = format!("`{}` is no length of time: `{text}`", at.path());
            problems.push(
                at.error("config/wrong-value", message, "no length of time")
                    .help("such as 30s, 5m or 12h"),
            );
        }
    }
    for (path, command) in commands {
        let at = here.nearest(&path);
        let problem = match command {
            Command::Text(text) => match split_words(text) {
                Err(why) => Some(why.to_owned()),
                Ok(words) if words.is_empty() => Some("it is empty".to_owned()),
                Ok(_) if text.contains([';', '&', '|', '<', '>']) => {
                    Some("it needs a shell: write `[sh, -c, \"…\"]`".to_owned())
                }
                Ok(_) => None,
            },
            Command::Words(words) => words.is_empty().then(|| "it is empty".to_owned()),
        };
        if let Some(problem) = problem {
            let message = format!("`{}` is no command: {problem}", at.path());
            problems.push(at.error("config/wrong-value", message, "no command"));
        }
    }
    if let Some(Size::Text(text)) = &given.limits.memory
        && bytes(&Size::Text(text.clone())).is_none()
    {
        let at = here.nearest(&["limits", "memory"]);
        let message = format!("`{}` is no amount of memory: `{text}`", at.path());
        problems.push(
            at.error("config/wrong-value", message, "no amount").help("such as 512MiB or 2GiB"),
        );
    }
}

fn check_tls(here: &Cursor<'_>, given: &file::TlsGiven, problems: &mut Vec<Diagnostic>) {
    let at = here.nearest(&["tls"]);
    let problem = match (&given.acme, &given.certificate, &given.key) {
        (Some(_), None, None) | (None, Some(_), Some(_)) | (None, None, None) => return,
        (Some(_), _, _) => "it is either `acme`, or `certificate` and `key`",
        (None, Some(_), None) => "a `certificate` needs its `key`",
        (None, None, Some(_)) => "a `key` needs its `certificate`",
    };
    let location = at.key_location();
    let message = format!("`{}` is not complete: {problem}", at.path());
    problems.push(Diagnostic::error("config/wrong-value", message).at(location, "here"));
}

/// Two environments on one machine cannot be one Compose project.
pub(crate) fn check_names(config: &Config, problems: &mut Vec<Diagnostic>) {
    let mut seen: BTreeMap<(Option<&str>, String), &str> = BTreeMap::new();
    for (name, given) in &config.file.environments {
        let full = project_name(config.project().unwrap_or_default(), name, given);
        if let Some(other) = seen.insert((given.target.as_deref(), full.clone()), name) {
            let at = config.at(&["environments", name, "project_name"]);
            let message = format!(
                "environments `{other}` and `{name}` are both the Compose project `{full}`"
            );
            problems.push(
                at.error("config/same-project", message, "the other one has this name")
                    .help("leave `project_name` out, or write another one"),
            );
        }
    }
    let used: BTreeSet<&str> =
        config.file.environments.values().filter_map(|e| e.target.as_deref()).collect();
    for (name, address) in &config.file.targets {
        let known = address == "local"
            || ["unix://", "tcp://", "ssh://"].iter().any(|scheme| address.starts_with(scheme));
        let at = config.at(&["targets", name]);
        if !known {
            let message = format!("`{address}` is no address of an engine");
            problems.push(
                at.error("config/wrong-value", message, "not an address")
                    .help("`local`, `unix:///path`, `tcp://host:port` or `ssh://user@host`"),
            );
        } else if address.starts_with("tcp://") && used.contains(name.as_str()) {
            let message = "a target behind `tcp://` is not there yet: its edge cannot be reached";
            let problem = at.error("config/not-yet", message, "only its engine");
            problems.push(problem.help(format!("`{name}: ssh://user@host`")));
        }
    }
}

/// Addresses of entries.
pub(crate) fn check_entries(config: &Config, problems: &mut Vec<Diagnostic>) {
    let entries = [("http", &config.file.edge.http), ("https", &config.file.edge.https)];
    for (name, given) in entries {
        if let Some(file::Entry::Address(text)) = given
            && text.parse::<SocketAddr>().is_err()
        {
            let at = config.at(&["edge", name]);
            let message = format!("`{text}` is no address and port");
            problems.push(
                at.error("config/wrong-value", message, "not an address")
                    .help("such as 127.0.0.1:7080"),
            );
        }
    }
}
