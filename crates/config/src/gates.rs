//! What must hold of an image before it runs for the first time.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use shiplap_compose::Diagnostic;
use shiplap_compose::document::Cursor;

use crate::file::{self, Files, Gates, ReportFormat, Scan, Signature, Signatures, Weight};
use crate::settings::{HOOK_TIMEOUT, duration, words};
use crate::{Config, HookSettings, Settings};

/// How long a report of a scanner counts unless the file says otherwise. What was not known
/// yesterday may be today.
const MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// Who must have signed which images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureSettings {
    /// Registry and repository, `*` for any text; all images where empty.
    pub repositories: Vec<String>,
    /// By whom, or by which command that is found out.
    pub by: SignedBy,
}

/// How it is found out who signed an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignedBy {
    /// One of these public keys must have.
    Keys {
        /// Files in PEM.
        files: Vec<PathBuf>,
        /// How long it may take.
        timeout: Duration,
    },
    /// A command says.
    Command(HookSettings),
}

/// A scanner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanSettings {
    /// Its command.
    pub hook: HookSettings,
    /// Registry and repository, `*` for any text; all images where empty.
    pub repositories: Vec<String>,
    /// What its report may say; its exit code alone says yes or no where there is nothing.
    pub report: Option<ReportSettings>,
}

/// What a scanner's report may say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportSettings {
    /// Its form.
    pub format: ReportFormat,
    /// From which weight on it is too much.
    pub fail_on: Weight,
    /// What is accepted, by name.
    pub ignore: BTreeSet<String>,
    /// How long it counts.
    pub max_age: Duration,
}

/// The rules about signatures, one after the other.
pub(crate) fn rules(gates: &Gates) -> &[Signature] {
    match &gates.signature {
        None => &[],
        Some(Signatures::One(rule)) => std::slice::from_ref(rule),
        Some(Signatures::Several(rules)) => rules,
    }
}

pub(crate) fn signatures(gates: &Gates, config: &Config) -> Vec<SignatureSettings> {
    let settings = |rule: &Signature| {
        let timeout = time(rule.timeout.as_deref(), HOOK_TIMEOUT);
        let by = match &rule.command {
            Some(command) => SignedBy::Command(HookSettings {
                command: words(command),
                timeout,
                folder: config.folder.clone(),
            }),
            None => SignedBy::Keys {
                files: keys(rule).iter().map(|path| config.folder.join(path)).collect(),
                timeout,
            },
        };
        SignatureSettings { repositories: rule.repositories.clone(), by }
    };
    rules(gates).iter().map(settings).collect()
}

fn keys(rule: &Signature) -> &[String] {
    match &rule.key {
        None => &[],
        Some(Files::One(one)) => std::slice::from_ref(one),
        Some(Files::Several(several)) => several,
    }
}

pub(crate) fn scan(given: &Scan, config: &Config) -> ScanSettings {
    ScanSettings {
        hook: HookSettings {
            command: words(&given.command),
            timeout: time(given.timeout.as_deref(), HOOK_TIMEOUT),
            folder: config.folder.clone(),
        },
        repositories: given.repositories.clone(),
        report: given.format.map(|format| ReportSettings {
            format,
            fail_on: given.fail_on,
            ignore: given.ignore.iter().cloned().collect(),
            max_age: time(given.max_age.as_deref(), MAX_AGE),
        }),
    }
}

fn time(text: Option<&str>, usual: Duration) -> Duration {
    text.and_then(duration).unwrap_or(usual)
}

/// What the schema cannot say of gates.
pub(crate) fn check(here: &Cursor<'_>, gates: &Gates, problems: &mut Vec<Diagnostic>) {
    for (index, rule) in rules(gates).iter().enumerate() {
        let index = index.to_string();
        let path: &[&str] = match &gates.signature {
            Some(Signatures::Several(_)) => &["gates", "signature", &index],
            Some(Signatures::One(_)) | None => &["gates", "signature"],
        };
        let problem = match (keys(rule), &rule.command) {
            ([], None) => "it says neither `key` nor `command`",
            ([_, ..], Some(_)) => "it is either `key` or `command`",
            ([], Some(_)) | ([_, ..], None) => continue,
        };
        let at = here.nearest(path);
        let message = format!("`{}` is not complete: {problem}", at.path());
        problems.push(at.error("config/wrong-value", message, "here").help("`key: cosign.pub`"));
    }
    let Some(scan) = &gates.scan else { return };
    let is_default = scan.fail_on == Weight::default();
    let unused = [
        ("fail_on", !is_default),
        ("ignore", !scan.ignore.is_empty()),
        ("max_age", scan.max_age.is_some()),
    ];
    for (field, _) in unused.iter().filter(|(_, given)| *given && scan.format.is_none()) {
        let at = here.nearest(&["gates", "scan", field]);
        let message =
            format!("`{}` needs `format`: what is not a report cannot be read", at.path());
        let problem = at.error("config/wrong-value", message, "nothing to read");
        problems.push(problem.help("`format: sarif` or `format: cyclonedx`"));
    }
}

/// That a registry has a user and a secret, or neither.
pub(crate) fn check_registries(config: &Config, problems: &mut Vec<Diagnostic>) {
    for (host, access) in &config.file.registries {
        let missing = match (&access.user, &access.secret) {
            (Some(_), None) => "secret",
            (None, Some(_)) => "user",
            (Some(_), Some(_)) | (None, None) => {
                let fits = |b: u8| b.is_ascii_alphanumeric() || b".-:[]".contains(&b);
                if host.is_empty() || !host.bytes().all(fits) {
                    let at = config.at(&["registries", host]);
                    let message = format!("`{host}` is no registry");
                    problems.push(
                        Diagnostic::error("config/wrong-value", message)
                            .at(at.key_location(), "not a host")
                            .help("such as ghcr.io or registry.lan:5000; Docker's is docker.io"),
                    );
                }
                continue;
            }
        };
        let at = config.at(&["registries", host]);
        let message = format!("`{}` does not say `{missing}`", at.path());
        problems.push(
            at.error("config/missing", message, "not complete")
                .help("`user: NAME` and `secret: NAME`; `shiplap secrets set NAME` reads it"),
        );
    }
}

impl Settings {
    /// That a key of a rule about signatures, counted from 0, cannot be used.
    #[must_use]
    pub fn bad_key(&self, rule: usize, key: usize, why: &str) -> Diagnostic {
        let gates = &self.given().gates;
        let (rule, key) = (rule.to_string(), key.to_string());
        let mut path = vec!["gates", "signature"];
        if let Some(Signatures::Several(_)) = &gates.signature {
            path.push(&rule);
        }
        path.push("key");
        let at = self.at(&path);
        let at = match at.kind() {
            shiplap_compose::document::Kind::List => at.nearest(&[&key]),
            _ => at,
        };
        let message = format!("`{}` is no public key: {why}", at.path());
        at.error("config/bad-key", message, "this file")
            .help("`cosign generate-key-pair`, or `cosign public-key --key …`, writes one")
    }

    /// That a registry's secret is missing in the store.
    #[must_use]
    pub fn missing_login(&self, host: &str) -> Diagnostic {
        let access: Option<&file::RegistryAccess> = self.registries.get(host);
        let name = access.and_then(|access| access.secret.as_deref()).unwrap_or_default();
        let message = format!("environment `{}` has no secret `{name}`", self.name);
        self.of_file(&["registries", host, "secret"])
            .error("config/no-secret", message, "not in the store")
            .help(format!("`shiplap -e {} secrets set {name}` reads it", self.name))
    }
}
