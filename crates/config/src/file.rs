//! The file's own form. The schema that editors use and that files are checked against is made
//! from these types, and so are their descriptions.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;

/// What Shiplap should know of a project that its Compose files do not say.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "shiplap.yaml")]
pub struct File {
    /// The project's name; else as Compose names it. Environments are deployed as NAME-ENVIRONMENT.
    #[schemars(regex(pattern = r"^[a-z0-9][a-z0-9_-]*$"))]
    pub project: Option<String>,
    /// Compose files of all environments, merged in order; else as Compose finds them. Paths start
    /// from this file's folder.
    pub compose: Vec<String>,
    /// Machines by name: `local`, `unix:///path` or `ssh://[user@]host[:port][/socket]`.
    pub targets: BTreeMap<String, String>,
    /// Where the edge listens for routes, where it does not listen yet.
    pub edge: Entries,
    /// The instances of the project. Of fixed names that several use, the first one declared keeps
    /// them.
    pub environments: IndexMap<String, Environment>,
    /// Environments that are deployed together, by the name that `-e` takes for all of them: all
    /// of them get their new release, or none does.
    pub groups: IndexMap<String, Vec<String>>,
    /// Registries by host, such as `ghcr.io` or `registry.lan:5000`, where Docker's own configuration
    /// (`docker login`) does not say enough.
    pub registries: BTreeMap<String, RegistryAccess>,
    /// What a control server (`shiplap serve`) takes as a request to deploy.
    pub triggers: Triggers,
}

/// What a control server takes as a request to deploy, in forms that others know.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Triggers {
    /// Dispatches of a workflow, as Forgejo, Gitea and GitHub take them; with one of our tokens.
    pub dispatch: Vec<Dispatch>,
    /// Notifications of a registry about images that were pushed.
    pub registry: Vec<Registry>,
    /// Webhooks of a git host about commits that were pushed.
    pub push: Vec<Push>,
}

/// The dispatch of a workflow.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Dispatch {
    /// `owner/name` in the address that is called; any, where it is not given.
    #[schemars(regex(pattern = r"^[^/]+/[^/]+$"))]
    pub repository: Option<String>,
    /// The workflow's file in that address, such as `deploy.yml`; any, where it is not given.
    pub workflow: Option<String>,
    /// Branches and tags that it may be for; `*` stands for any text. All, where none is given.
    pub refs: Vec<String>,
    /// Inputs that are tags, and whose: `ENVIRONMENT/SERVICE`, or several of them. An input that is
    /// empty changes nothing.
    pub inputs: BTreeMap<String, Places>,
}

/// `ENVIRONMENT/SERVICE`, one or several.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Places {
    /// `prod/api`
    One(String),
    /// `[prod/api, prod/worker]`
    Several(Vec<String>),
}

/// How a registry is asked.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RegistryAccess {
    /// The user's name there.
    pub user: Option<String>,
    /// The name of the secret in the environment's store that is the password or token:
    /// `shiplap secrets set NAME`.
    pub secret: Option<String>,
    /// Whether it speaks TLS. One without is asked readably; engines want it in
    /// `insecure-registries` besides.
    pub tls: bool,
}

impl Default for RegistryAccess {
    fn default() -> Self {
        Self { user: None, secret: None, tls: true }
    }
}

/// Notifications of a registry (CNCF Distribution).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    /// A file with the secret that comes in the header `Authorization`.
    pub secret_file: String,
    /// By repository without the registry's host, such as `shop/api`: which tags are deployed, and
    /// where.
    pub images: BTreeMap<String, Image>,
}

/// What becomes of an image that was pushed.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Tags; `*` stands for any text: `v*`.
    pub tags: String,
    /// `ENVIRONMENT/SERVICE`, or several of them.
    pub to: Places,
}

/// Webhooks about commits that were pushed.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Push {
    /// Who sends them.
    pub from: GitHost,
    /// A file with the secret by which they are signed.
    pub secret_file: String,
    /// `owner/name` of the repository; any, where it is not given.
    #[serde(default)]
    #[schemars(regex(pattern = r"^[^/]+/[^/]+$"))]
    pub repository: Option<String>,
    /// By branch (`*` stands for any text): the environments that are deployed, as the files say
    /// then.
    pub branches: BTreeMap<String, Vec<String>>,
    /// Whether this file's folder is brought up to date first, by `git pull --ff-only`.
    #[serde(default)]
    pub pull: bool,
}

/// A host of git repositories.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum GitHost {
    /// Signed by `X-Forgejo-Signature`.
    Forgejo,
    /// Signed by `X-Gitea-Signature`.
    Gitea,
    /// Signed by `X-Hub-Signature-256`.
    Github,
    /// With `X-Gitlab-Token`.
    Gitlab,
}

/// Where the edge listens for routes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Entries {
    /// Without TLS: a port, or `address:port` (behind another proxy: `127.0.0.1:7080`).
    pub http: Option<Entry>,
    /// With TLS.
    pub https: Option<Entry>,
}

/// A port, or an address and a port.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Entry {
    /// On all addresses.
    Port(#[schemars(range(min = 1, max = 65535))] u16),
    /// `127.0.0.1:7080`
    Address(String),
}

/// One instance of the project: its networks, data, secrets and routes.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Environment {
    /// The machine, one of `targets`; else the engine that `docker` would use here.
    pub target: Option<String>,
    /// The Compose project name on that machine; else PROJECT-ENVIRONMENT, and PROJECT for the
    /// environment `default`. What runs there under that name is taken over.
    #[schemars(regex(pattern = r"^[a-z0-9][a-z0-9_-]*$"))]
    pub project_name: Option<String>,
    /// More Compose files, merged after those of all environments.
    pub compose: Vec<String>,
    /// Files of variables instead of `.env`.
    pub env_files: Vec<String>,
    /// A file of variables with the versions that are deployed, such as `.env.versions`. Read after
    /// `env_files`.
    pub versions: Option<String>,
    /// Whether a change of `versions` that a deployment makes is committed with git.
    pub commit_versions: bool,
    /// Profiles to activate.
    pub profiles: Vec<String>,
    /// Services that this environment goes without.
    pub exclude: Vec<String>,
    /// Variables for the Compose files. They win over files of variables and over the shell's.
    pub variables: BTreeMap<String, Scalar>,
    /// Names that must be in the environment's secret store before anything is deployed.
    pub secrets: Vec<String>,
    /// The domain under which variables such as `SERVICE_FQDN_WEB` get their hosts.
    pub domain: Option<String>,
    /// What becomes of host ports that the Compose files publish.
    pub ports: Ports,
    /// By its key in the Compose files: what becomes of an external network.
    pub networks: BTreeMap<String, Sharing>,
    /// By its key in the Compose files: what becomes of an external volume.
    pub volumes: BTreeMap<String, Sharing>,
    /// Which requests at ports 80 and 443 go to which service.
    pub routes: Vec<Route>,
    /// Who may come in from outside, for all routes and published HTTP ports.
    pub protect: Protect,
    /// Where certificates for the routes' hosts come from; without it there is no TLS.
    pub tls: Option<Tls>,
    /// What all services of the environment may use together.
    pub limits: Limits,
    /// Commands that run once per deployment.
    pub jobs: Jobs,
    /// What must hold before a deployment goes on.
    pub gates: Gates,
    /// How long new replicas are watched after the switch, where the Compose file does not say
    /// `monitor`: `30s`, `5m`.
    pub watch: Option<String>,
}

/// A variable's value.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Scalar {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// Another number.
    Number(f64),
    /// A text.
    Text(String),
}

/// What becomes of host ports that the Compose files publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Ports {
    /// They are published as the Compose files say.
    #[default]
    Keep,
    /// Each gets a free host port, which it then keeps; `shiplap status` shows it.
    Any,
    /// None is published: the environment is reached by its routes.
    None,
}

/// What becomes of an external network or volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Sharing {
    /// It is used as it is, with whoever else uses it.
    #[default]
    Shared,
    /// The environment gets one of its own instead.
    Own,
}

/// Requests for one host and below one path, and who answers.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Route {
    /// `shop.example`, or `*.shop.example` for any name below it; without it, every host.
    /// `{environment}` and `{project}` stand for their names.
    pub host: Option<String>,
    /// A path, with all that is below it.
    #[schemars(regex(pattern = r"^/"))]
    pub path: Option<String>,
    /// The service that answers.
    pub service: Option<String>,
    /// Its port; may be left out where it has only one.
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// Instead of a service: the address to send clients to. Path and query come behind it.
    pub redirect: Option<String>,
    /// The status of a redirect.
    pub status: Option<u16>,
    /// The path is taken off before the request goes on.
    pub strip_path: bool,
    /// What becomes of requests without TLS, where the environment has `tls`.
    pub plain: Plain,
    /// Instead of the environment's `protect`.
    pub protect: Option<Protect>,
    /// A larger request body is refused: `64MiB`.
    pub body: Option<Size>,
    /// How often one may ask.
    pub rate: Option<Rate>,
    /// Changes to the headers that the service gets.
    pub request_headers: Headers,
    /// Changes to the headers that clients get.
    pub response_headers: Headers,
}

/// What becomes of requests without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Plain {
    /// They are sent to the same address with TLS, as soon as there is a certificate.
    #[default]
    Redirect,
    /// They are answered too: for devices that know no TLS.
    Allow,
}

/// Who may come in, and what search engines are told.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Protect {
    /// A file with lines `NAME:HASH`, as `htpasswd -B` writes them.
    pub basic_auth: Option<String>,
    /// Addresses (`192.0.2.7`) and blocks (`192.0.2.0/24`) that are let in; others get 403.
    pub allow: Vec<String>,
    /// `X-Robots-Tag: noindex, nofollow` on every answer, and a robots.txt that disallows all.
    pub noindex: bool,
}

/// A number of bytes, or a text such as `64MiB`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Size {
    /// Bytes.
    Bytes(u64),
    /// `512k`, `64MiB`, `2g`
    Text(String),
}

/// How often one may ask.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rate {
    /// So many requests …
    #[schemars(range(min = 1))]
    pub requests: u32,
    /// … in this time, on average: `1s`, `1m`.
    pub per: Option<String>,
    /// So many may come at once; as many as `requests` unless given.
    #[schemars(range(min = 1))]
    pub burst: Option<u32>,
    /// Whose requests are counted together.
    pub by: RateBy,
}

/// Whose requests are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RateBy {
    /// Those of one client address (of IPv6: one /64).
    #[default]
    Client,
    /// All of the route.
    Route,
}

/// Changes to headers: first `remove`, then `set`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Headers {
    /// Names that are taken out.
    pub remove: Vec<String>,
    /// Names and the value that each has then, whatever it had.
    pub set: BTreeMap<String, String>,
}

/// Where certificates come from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Tls {
    /// `acme` or `internal`
    Kind(TlsKind),
    /// With details.
    Given(TlsGiven),
}

/// Where certificates come from, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TlsKind {
    /// From Let's Encrypt.
    Acme,
    /// From an authority of our own, for development.
    Internal,
}

/// Where certificates come from, with details.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TlsGiven {
    /// From an authority that looks at the host by itself.
    pub acme: Option<Acme>,
    /// A file with the certificate and those that lead to an authority, in PEM.
    pub certificate: Option<String>,
    /// A file with its key, in PEM.
    pub key: Option<String>,
    /// How long browsers are to come with TLS only, from each answer on: `365d`. There is no way
    /// back before that.
    pub hsts: Option<String>,
}

/// An authority that looks at the host by itself (RFC 8555).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Acme {
    /// An address of mail that it may write to.
    pub email: Option<String>,
    /// The address of its directory; else Let's Encrypt's.
    pub directory: Option<String>,
    /// A file with certificates, in PEM: whom to believe that it is the directory.
    pub roots: Option<String>,
    /// How to prove that a host is ours.
    pub challenge: Challenge,
}

/// How to prove that a host is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Challenge {
    /// By an answer at port 80.
    #[default]
    Http01,
    /// By an answer at port 443.
    TlsAlpn01,
}

/// What all services of an environment may use together. What services ask for by themselves is
/// taken off; the rest is split evenly over the replicas of the others.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// CPUs: `2`, `0.5`.
    #[schemars(range(min = 0.01))]
    pub cpus: Option<f64>,
    /// Memory: `2GiB`.
    pub memory: Option<Size>,
}

/// Commands that run once per deployment.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Jobs {
    /// By name: run in the new image, before any request goes to it. One that fails ends the
    /// deployment, and the release before stays.
    pub before_switch: IndexMap<String, Job>,
}

/// A command in a container like a service's.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// The service whose image, variables, networks and volumes it gets.
    pub service: String,
    /// The command; a text is split into words as a shell would, without a shell.
    pub command: Command,
    /// How long it may take: `10m`.
    #[serde(default)]
    pub timeout: Option<String>,
}

/// A command: its words, or a text that is split into words.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Command {
    /// `alembic upgrade head`
    Text(String),
    /// `[alembic, upgrade, head]`
    Words(Vec<String>),
}

/// What must hold before a deployment goes on, in this order.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Gates {
    /// Who must have signed an image before it runs here for the first time; one rule, or several
    /// that all must hold.
    pub signature: Option<Signatures>,
    /// A scanner, once per image that is new here.
    pub scan: Option<Scan>,
    /// In `promote`: a command in a container like a service's of the environment that is promoted
    /// from.
    pub tests: Option<Job>,
    /// Whether a person must say yes to this very plan, `--yes` notwithstanding.
    pub approval: Approval,
    /// A command on this machine that makes a backup. It runs right before the jobs.
    pub backup: Option<Hook>,
}

/// One rule, or several.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Signatures {
    /// `{ key: cosign.pub }`
    One(Box<Signature>),
    /// `[{ key: team.pub, repositories: [ghcr.io/team/*] }, …]`
    Several(Vec<Signature>),
}

/// Who must have signed an image: by the public key of `cosign`, or as a command says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Signature {
    /// A file with a public key in PEM, or several of which one must have signed.
    pub key: Option<Files>,
    /// Registry and repository of the images that the rule is about; `*` stands for any text:
    /// `ghcr.io/team/*`. All images, where it is not given.
    pub repositories: Vec<String>,
    /// Instead of a key: a command on this machine. `{image}` stands for the image, `{id}` for its
    /// id.
    pub command: Option<Command>,
    /// How long it may take: `10m`.
    pub timeout: Option<String>,
}

/// A file, or several.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Files {
    /// `cosign.pub`
    One(String),
    /// `[old.pub, new.pub]`
    Several(Vec<String>),
}

/// A scanner: its exit code says yes or no, or its report does.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scan {
    /// A command on this machine. `{image}` stands for the image, `{id}` for its id, `{report}` for the
    /// file that it has to write; without that word the report is what it prints.
    pub command: Command,
    /// The form of its report. Without it, the exit code alone says yes or no.
    #[serde(default)]
    pub format: Option<ReportFormat>,
    /// What is too much: anything found of this weight or above.
    #[serde(default)]
    pub fail_on: Weight,
    /// What is known and accepted: `CVE-2024-12345`, or the scanner's own name for it.
    #[serde(default)]
    pub ignore: Vec<String>,
    /// How long a report counts for the same image, scanner and rules: `24h`.
    #[serde(default)]
    pub max_age: Option<String>,
    /// Registry and repository of the images that are scanned; `*` stands for any text. All images,
    /// where it is not given.
    #[serde(default)]
    pub repositories: Vec<String>,
    /// How long it may take: `10m`.
    #[serde(default)]
    pub timeout: Option<String>,
}

/// What a scanner writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReportFormat {
    /// SARIF 2.1.0.
    Sarif,
    /// CycloneDX 1.4 or newer in JSON, with `vulnerabilities`.
    Cyclonedx,
}

/// How bad something is that a scanner has found.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// Of CVSS below 4.
    Low,
    /// Below 7.
    Medium,
    /// Below 9.
    #[default]
    High,
    /// 9 and above.
    Critical,
}

/// A command on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hook {
    /// The command; a text is split into words as a shell would, without a shell. It starts in this
    /// file's folder.
    pub command: Command,
    /// How long it may take: `10m`.
    #[serde(default)]
    pub timeout: Option<String>,
}

/// Whether a person must say yes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Approval {
    /// `--yes` is enough.
    #[default]
    None,
    /// Somebody types yes, or names themselves by `--approve NAME`.
    Required,
}
