//! Secret values that are the same in two environments. Values are compared in memory, and
//! nothing of them leaves this file.

use std::collections::{BTreeMap, BTreeSet};

use shiplap_model::Secret;

use crate::check::Report;
use crate::container::{Container, MountKind, Variable};
use crate::finding::{Code, Finding, Party, Tried, count, list};
use crate::seen::{Snapshot, pairs};
use crate::url::targets;

/// Shorter values are equal by chance.
const SHORTEST: usize = 6;
/// Numbers up to nine digits are ports, times and sizes.
const LONGEST_NUMBER: usize = 9;
/// Longer files are data.
const LONGEST_FILE: usize = 64 << 10;
/// Where Compose puts secrets.
const SECRETS_FOLDER: &str = "/run/secrets";
/// Parts of names that say secret wherever they stand.
const PARTS: &[&str] =
    &["PASSWORD", "PASSWD", "PASSPHRASE", "SECRET", "TOKEN", "CREDENTIAL", "APIKEY"];
/// Those that do so as a word only: MONKEY is none.
const WORDS: &[&str] = &["KEY", "KEYS", "PASS", "PWD", "DSN", "SALT", "PEPPER", "AUTH", "HTPASSWD"];
/// Last words that say that it is about a secret, and is none.
const ABOUT: &[&str] = &[
    "FILE",
    "PATH",
    "DIR",
    "TYPE",
    "NAME",
    "ID",
    "ALGORITHM",
    "ALG",
    "TTL",
    "EXPIRY",
    "EXPIRES",
    "LENGTH",
    "SIZE",
    "ISSUER",
    "AUDIENCE",
    "HEADER",
    "PREFIX",
    "ENABLED",
    "REQUIRED",
    "USER",
    "USERNAME",
    "HOST",
    "PORT",
    "METHOD",
    "REALM",
    "DOMAIN",
    "SCHEME",
    "ROLE",
    "ENDPOINT",
    "REGION",
    "VERSION",
    "COUNT",
    "LIMIT",
    "TIMEOUT",
    "INTERVAL",
    "LIFETIME",
    "DURATION",
    "CLASS",
    "FORMAT",
    "FIELD",
    "URL",
    "URI",
    "MODE",
    "POLICY",
    "PROVIDER",
    "BACKEND",
];
/// Words of keys that are made to be known.
const PUBLIC: &[&str] = &["PUBLIC", "PUBLISHABLE", "SITE"];
/// Beginnings of tokens that are known by their shape, whatever their variable is called.
const SHAPES: &[&str] = &[
    "sk_live_",
    "sk_test_",
    "rk_live_",
    "ghp_",
    "gho_",
    "ghs_",
    "github_pat_",
    "glpat-",
    "xoxb-",
    "xoxp-",
    "AGE-SECRET-KEY-",
    "SG.",
    "npm_",
    "hvs.",
    "dckr_pat_",
];

/// A value, and where it stands.
struct Held {
    value: Secret<String>,
    place: Place,
}

/// Where a value stands, in words that hold nothing of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    what: String,
    party: Party,
}

pub(crate) fn check(all: &[Snapshot], report: &mut Report) {
    let held: Vec<Vec<Held>> = all.iter().map(of_environment).collect();
    let total = held.iter().map(Vec::len).sum();
    let text = format!(
        "compared {} of variables and files",
        count(total, "secret value", "secret values")
    );
    let findings = pairs(&held).flat_map(|(one, two)| shared(one, two)).collect::<Vec<_>>();
    report.add(Tried { what: "secrets", count: total, text }, findings);
}

fn shared(one: &[Held], two: &[Held]) -> Vec<Finding> {
    let by_value = |all: &[Held]| {
        let mut map: BTreeMap<String, BTreeSet<Place>> = BTreeMap::new();
        for held in all {
            map.entry(held.value.expose().clone()).or_default().insert(held.place.clone());
        }
        map
    };
    let theirs = by_value(two);
    let mut found: Vec<Finding> = by_value(one)
        .into_iter()
        .filter_map(|(value, ours)| {
            let theirs = theirs.get(&value)?;
            let places = ours.iter().chain(theirs);
            let words = |places: &BTreeSet<Place>| {
                list(places.iter().map(|place| format!("{} of {}", place.what, place.party)))
            };
            let between: BTreeSet<Party> = places.map(|place| place.party.clone()).collect();
            Some(Finding {
                code: Code::SharedSecret,
                what: format!("the same value: {}; and {}", words(&ours), words(theirs)),
                between: between.into_iter().collect(),
                fix: "give each environment a value of its own, and change the one that both know"
                    .to_owned(),
            })
        })
        .collect();
    // By place: the order of values would tell something about them.
    found.sort();
    found
}

fn of_environment(snapshot: &Snapshot) -> Vec<Held> {
    let mut all = Vec::new();
    for container in snapshot.services() {
        let party = snapshot.party(container);
        let mut add = |what: String, value: &str| {
            if is_worth_comparing(value) {
                let place = Place { what, party: Party { container: None, ..party.clone() } };
                all.push(Held { value: Secret::new(value.trim().to_owned()), place });
            }
        };
        for Variable { name, value } in &container.variables {
            for value in of_variable(name, value.expose()) {
                add(format!("variable {name}"), &value);
            }
        }
        for word in &container.words {
            for password in targets(word.expose()).into_iter().filter_map(|target| target.password)
            {
                add("a password in the command".to_owned(), &password);
            }
        }
        for file in &container.files {
            for value in of_file(&file.path, file.content.expose()) {
                add(format!("file {}", file.path), &value);
            }
        }
    }
    all
}

fn of_variable(name: &str, value: &str) -> Vec<String> {
    let is_secret = is_secret_name(name);
    let targets = targets(value);
    let passwords = targets.iter().filter_map(|target| {
        // https://key@sentry.example/1: the user is the key.
        let user = (is_secret && target.password.is_none()).then(|| target.user.clone());
        target.password.clone().or(user)
    });
    let mut found: Vec<String> = passwords.collect();
    if targets.is_empty() && (is_secret || has_shape(value)) {
        found.push(value.to_owned());
    }
    found
}

/// A file that is a secret as a whole, lines of `NAME=value`, or of `name:hash`.
fn of_file(path: &str, content: &[u8]) -> Vec<String> {
    let Ok(text) = std::str::from_utf8(content) else { return Vec::new() };
    if content.len() > LONGEST_FILE {
        return Vec::new();
    }
    let lines =
        || text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    if lines().count() > 0 && lines().all(|line| hash_of(line).is_some()) {
        return lines().filter_map(hash_of).map(str::to_owned).collect();
    }
    if !path.starts_with(SECRETS_FOLDER) && text.contains("-----BEGIN") {
        // Certificates are public; keys are not.
        return if text.contains("PRIVATE KEY-----") { vec![text.to_owned()] } else { Vec::new() };
    }
    let assigned = |line: &str| -> Option<(String, String)> {
        let (name, value) = line.trim_start_matches("export ").split_once('=')?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
        let name = name.trim();
        let value = value.trim().trim_matches(['"', '\'']);
        (!name.is_empty() && name.chars().all(is_name)).then(|| (name.to_owned(), value.to_owned()))
    };
    let is_env = path.rsplit('/').next().is_some_and(|name| name.contains("env"));
    if is_env || (lines().count() > 1 && lines().all(|line| assigned(line).is_some())) {
        let pairs = lines().filter_map(assigned);
        return pairs.flat_map(|(name, value)| of_variable(&name, &value)).collect();
    }
    vec![text.to_owned()]
}

/// The hash of `name:$2y$…`, as in an htpasswd file or Mosquitto's. A salt makes the hashes of one
/// password differ, so an equal one is a copy.
fn hash_of(line: &str) -> Option<&str> {
    let (_, hash) = line.split_once(':')?;
    let is_hash = hash.starts_with('$') || hash.starts_with('{') || hash.starts_with("PBKDF2$");
    is_hash.then_some(hash)
}

fn is_worth_comparing(value: &str) -> bool {
    let value = value.trim();
    let is_number =
        value.bytes().all(|byte| byte.is_ascii_digit()) && value.len() <= LONGEST_NUMBER;
    let is_word = ["enabled", "disabled", "required", "optional", "default"]
        .iter()
        .any(|word| value.eq_ignore_ascii_case(word));
    value.len() >= SHORTEST && !is_number && !is_word
}

fn is_secret_name(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    let words: Vec<&str> = upper.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    let says = PARTS.iter().any(|part| upper.contains(part))
        || words.iter().any(|word| WORDS.contains(word));
    let is_about = words.last().is_some_and(|last| ABOUT.contains(last));
    // The shell's own.
    let is_folder = matches!(upper.as_str(), "PWD" | "OLDPWD");
    says && !is_about && !is_folder && !words.iter().any(|word| PUBLIC.contains(word))
}

fn has_shape(value: &str) -> bool {
    let is_jwt = value.starts_with("eyJ") && value.split('.').count() == 3;
    is_jwt
        || value.contains("PRIVATE KEY-----")
        || SHAPES.iter().any(|start| value.starts_with(start))
}

/// Paths in a container that may hold secrets: all below `/run/secrets`, and what is mounted
/// under a name that says so.
#[must_use]
pub fn files_to_read(container: &Container) -> Vec<String> {
    let is_path_secret = |path: &str| {
        let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
        let ends = [".pem", ".key", ".env", ".htpasswd", ".age", ".p12", ".pfx"];
        let is_env = name.starts_with(".env");
        is_env
            || ends.iter().any(|end| name.ends_with(end))
            || is_secret_name(&name)
            || ["htpasswd", "passwd", "credentials", "secrets", ".pgpass", ".netrc"]
                .iter()
                .any(|part| name.contains(part))
    };
    let mut paths = BTreeSet::from([SECRETS_FOLDER.to_owned()]);
    for mount in container.mounts.iter().filter(|mount| mount.kind == MountKind::Bind) {
        let source = mount.place.as_ref().map(|place| place.path.to_string_lossy().into_owned());
        let says =
            is_path_secret(&mount.target) || source.is_some_and(|path| is_path_secret(&path));
        if says && !mount.target.starts_with(SECRETS_FOLDER) {
            paths.insert(mount.target.clone());
        } else if mount.target.starts_with(SECRETS_FOLDER) && mount.target != SECRETS_FOLDER {
            // An engine's archive of a folder does not hold what is mounted inside of it.
            paths.insert(mount.target.clone());
        }
    }
    paths.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_secret() {
        for name in [
            "DB_PASSWORD",
            "SECRET_KEY_BASE",
            "API_KEY",
            "GITHUB_TOKEN",
            "SENTRY_DSN",
            "db.pass",
            "AWS_SECRET_ACCESS_KEY",
            "REDIS_PWD",
            "SERVICE_CREDENTIALS",
            "BasicAuth_Password",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in [
            "MONKEY",
            "PASSWORD_FILE",
            "AWS_ACCESS_KEY_ID",
            "NEXT_PUBLIC_KEY",
            "TOKEN_TTL",
            "PWD",
            "PATH",
            "KEYCLOAK_HOST",
            "STRIPE_PUBLISHABLE_KEY",
            "COMPASS",
            "JWT_KEY_ALGORITHM",
        ] {
            assert!(!is_secret_name(name), "{name}");
        }
    }

    #[test]
    fn values_are_taken_out_of_what_holds_them() {
        let of = |name: &str, value: &str| of_variable(name, value).join(" ");
        assert_eq!(of("DATABASE_URL", "postgres://u:hunter2@db/x"), "hunter2");
        assert_eq!(of("DB_PASSWORD", "hunter2"), "hunter2");
        assert_eq!(of("SENTRY_DSN", "https://abcdef@sentry.example/1"), "abcdef");
        assert_eq!(of("GREETING", "hunter2"), "");
        assert_eq!(of("DEPLOY", "ghp_0123456789"), "ghp_0123456789");
        assert_eq!(of("TOKEN_URL", "https://login.example/token"), "");
    }

    #[test]
    fn files_are_secrets_or_hold_some() {
        let of = |path: &str, text: &str| of_file(path, text.as_bytes()).join(" ");
        assert_eq!(of("/run/secrets/db", "hunter2\n"), "hunter2\n");
        assert_eq!(of("/etc/.htpasswd", "ann:$2y$05$abc\nbob:{SHA}def\n"), "$2y$05$abc {SHA}def");
        assert_eq!(of("/app/.env", "GREETING=hello1\nAPI_TOKEN='hunter2'\n"), "hunter2");
        assert_eq!(of("/etc/tls/ca.pem", "-----BEGIN CERTIFICATE-----\nx"), "");
        assert!(of("/etc/tls/a.key", "-----BEGIN PRIVATE KEY-----\nx").contains("PRIVATE"));
    }

    #[test]
    fn trivial_values_are_not_compared() {
        for value in ["", "true", "short", "3600", "123456789", "disabled"] {
            assert!(!is_worth_comparing(value), "{value}");
        }
        for value in ["hunter2", "1234567890", "postgres"] {
            assert!(is_worth_comparing(value), "{value}");
        }
    }
}
