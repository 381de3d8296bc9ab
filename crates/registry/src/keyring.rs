//! Logins: those of the user's Docker configuration, its helpers, and those given by hand.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use shiplap_model::Secret;
use tokio::io::AsyncWriteExt as _;

/// A credential helper asks a keychain; one that asks the user has nobody to ask here.
const HELPER_LIMIT: Duration = Duration::from_secs(30);
/// The key under which Docker keeps the login of its own registry.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";
/// The name by which images call it.
const DOCKER_HUB_HOST: &str = "docker.io";
/// A user name by which a helper says that the secret is a token.
const TOKEN_USER: &str = "<token>";

/// Who we are to a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    /// A name and a password, or what counts as one.
    Password {
        /// The name.
        user: String,
        /// The password.
        password: Secret<String>,
    },
    /// A token that is exchanged for one that opens a repository.
    Identity(Secret<String>),
}

impl Login {
    /// The form in which an engine takes it, with the address that it is for.
    #[must_use]
    pub fn for_engine(&self, host: &str) -> Value {
        let address = server_address(host);
        match self {
            Self::Password { user, password } => {
                json!({"username": user, "password": password.expose(), "serveraddress": address})
            }
            Self::Identity(token) => {
                json!({"identitytoken": token.expose(), "serveraddress": address})
            }
        }
    }
}

/// Where logins are looked up.
#[derive(Debug, Default)]
pub struct Keyring {
    folder: PathBuf,
    given: RwLock<BTreeMap<String, Login>>,
}

/// The folder of the user's Docker configuration.
#[must_use]
pub fn config_dir() -> PathBuf {
    match std::env::var_os("DOCKER_CONFIG").filter(|dir| !dir.is_empty()) {
        Some(dir) => dir.into(),
        None => PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".docker"),
    }
}

impl Keyring {
    /// The logins of the user who runs this, as `docker` has them.
    #[must_use]
    pub fn of_this_user() -> Self {
        Self::in_folder(&config_dir())
    }

    /// Those of a folder with a `config.json`.
    #[must_use]
    pub fn in_folder(folder: &Path) -> Self {
        Self { folder: folder.to_path_buf(), given: RwLock::default() }
    }

    /// Adds a login, which wins over Docker's.
    pub fn give(&self, host: &str, login: Login) {
        let mut given = self.given.write().unwrap_or_else(PoisonError::into_inner);
        given.insert(bare_host(host).to_owned(), login);
    }

    fn given(&self) -> BTreeMap<String, Login> {
        self.given.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The login for a registry, if there is one.
    pub async fn login(&self, host: &str) -> Option<Login> {
        if let Some(login) = self.given().remove(host) {
            return Some(login);
        }
        of_docker(&self.config()?, host).await
    }

    /// All logins, by registry.
    pub async fn all(&self) -> BTreeMap<String, Login> {
        let config = self.config().unwrap_or_default();
        let mut all = BTreeMap::new();
        for section in ["auths", "credHelpers"] {
            for key in config[section].as_object().into_iter().flatten().map(|(key, _)| key) {
                let host = bare_host(key);
                if let Some(login) = of_docker(&config, host).await {
                    all.insert(host.to_owned(), login);
                }
            }
        }
        all.extend(self.given());
        all
    }

    fn config(&self) -> Option<Value> {
        serde_json::from_slice(&std::fs::read(self.folder.join("config.json")).ok()?).ok()
    }
}

async fn of_docker(config: &Value, host: &str) -> Option<Login> {
    let helper = config["credHelpers"][host].as_str().or_else(|| config["credsStore"].as_str());
    if let Some(helper) = helper.filter(|helper| !helper.is_empty())
        && let Some(login) = ask_helper(helper, server_address(host)).await
    {
        return Some(login);
    }
    let auths = config["auths"].as_object()?;
    let (_, entry) = auths.iter().find(|(key, _)| bare_host(key) == host)?;
    let token = entry["identitytoken"].as_str().filter(|token| !token.is_empty());
    if let Some(token) = token {
        return Some(Login::Identity(Secret::new(token.to_owned())));
    }
    let (user, password) = match entry["auth"].as_str().filter(|auth| !auth.is_empty()) {
        Some(auth) => {
            let text = String::from_utf8(STANDARD.decode(auth).ok()?).ok()?;
            let (user, password) = text.split_once(':')?;
            (user.to_owned(), password.trim_end_matches('\0').to_owned())
        }
        None => (entry["username"].as_str()?.to_owned(), entry["password"].as_str()?.to_owned()),
    };
    Some(Login::Password { user, password: Secret::new(password) })
}

/// Runs `docker-credential-HELPER get`, which reads the address and prints JSON.
async fn ask_helper(helper: &str, address: &str) -> Option<Login> {
    let mut child = tokio::process::Command::new(format!("docker-credential-{helper}"))
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .ok()?;
    let mut input = child.stdin.take().expect("it was piped");
    let answer = async {
        input.write_all(address.as_bytes()).await.ok()?;
        drop(input);
        child.wait_with_output().await.ok().filter(|output| output.status.success())
    };
    let output = tokio::time::timeout(HELPER_LIMIT, answer).await.ok()??;
    let answer: Value = serde_json::from_slice(&output.stdout).ok()?;
    let (user, secret) = (answer["Username"].as_str()?, answer["Secret"].as_str()?);
    let secret = Secret::new(secret.to_owned());
    Some(if user == TOKEN_USER {
        Login::Identity(secret)
    } else {
        Login::Password { user: user.to_owned(), password: secret }
    })
}

fn server_address(host: &str) -> &str {
    if host == DOCKER_HUB_HOST { DOCKER_HUB } else { host }
}

/// `https://registry.example/v1/` to `registry.example`.
fn bare_host(key: &str) -> &str {
    if key == DOCKER_HUB || key == "index.docker.io" {
        return DOCKER_HUB_HOST;
    }
    let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(user: &str, password: &str) -> Login {
        Login::Password { user: user.to_owned(), password: Secret::new(password.to_owned()) }
    }

    fn keyring(config: &Value) -> (tempfile::TempDir, Keyring) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        let keyring = Keyring::in_folder(folder.path());
        (folder, keyring)
    }

    #[tokio::test]
    async fn logins_are_found_however_their_key_is_written() {
        let (_folder, keyring) = keyring(&json!({"auths": {
            "https://reg.example/v1/": {"auth": STANDARD.encode("me:pass:word")},
            "https://index.docker.io/v1/": {"identitytoken": "t"},
        }}));
        assert_eq!(keyring.login("reg.example").await, Some(password("me", "pass:word")));
        let hub = keyring.login("docker.io").await.unwrap();
        let sent = json!({"identitytoken": "t", "serveraddress": DOCKER_HUB});
        assert_eq!(hub.for_engine("docker.io"), sent);
        assert_eq!(keyring.login("other.example").await, None);
    }

    #[tokio::test]
    async fn a_login_given_by_hand_wins() {
        let auth = json!({"auths": {"ghcr.io": {"auth": STANDARD.encode("me:old")}}});
        let (_folder, keyring) = keyring(&auth);
        keyring.give("ghcr.io", password("robot", "new"));
        keyring.give("reg.lan:5000", password("robot", "lan"));
        assert_eq!(keyring.login("ghcr.io").await, Some(password("robot", "new")));
        let all: Vec<String> = keyring.all().await.into_keys().collect();
        assert_eq!(all, ["ghcr.io", "reg.lan:5000"]);
    }

    #[test]
    fn a_login_does_not_print_its_secret() {
        assert!(!format!("{:?}", password("robot", "hunter2")).contains("hunter2"));
    }
}
