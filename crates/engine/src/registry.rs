//! What the user's Docker configuration says: credentials of registries, proxies.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use http::HeaderValue;
use serde_json::{Map, Value, json};
use shiplap_compose::model::Service;
use shiplap_model::Desired;
use tokio::io::AsyncWriteExt;

use crate::address::read_json;
use crate::create::seccomp_profile;
use crate::endpoint::Endpoint;

/// A credential helper asks a keychain; one that asks the user has nobody to ask here.
const HELPER_LIMIT: Duration = Duration::from_secs(30);
/// The key under which Docker keeps the credentials of its own registry.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";
/// The name by which images call it.
const DOCKER_HUB_HOST: &str = "docker.io";
/// A user name by which a helper says that the secret is a token.
const TOKEN_USER: &str = "<token>";

/// The folder of the user's Docker configuration.
pub(crate) fn config_dir() -> PathBuf {
    match std::env::var_os("DOCKER_CONFIG").filter(|dir| !dir.is_empty()) {
        Some(dir) => dir.into(),
        None => PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".docker"),
    }
}

/// The host of a reference's registry.
pub(crate) fn host(reference: &str) -> &str {
    match reference.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => DOCKER_HUB_HOST,
    }
}

/// The header that carries credentials for a reference, if there are any.
pub(crate) async fn auth_header(reference: &str) -> Option<HeaderValue> {
    let config = read_json(&config_dir().join("config.json"))?;
    let auth = credentials(&config, host(reference)).await?;
    sensitive(&auth)
}

/// The header that carries all credentials, for a build, which may pull from anywhere.
pub(crate) async fn all_auths_header() -> Option<HeaderValue> {
    let config = read_json(&config_dir().join("config.json"))?;
    let mut hosts: Vec<&str> = Vec::new();
    for section in ["auths", "credHelpers"] {
        let keys = config[section].as_object().into_iter().flatten();
        hosts.extend(keys.map(|(key, _)| bare_host(key)));
    }
    hosts.sort_unstable();
    hosts.dedup();
    let mut all = Map::new();
    for host in hosts {
        if let Some(auth) = credentials(&config, host).await {
            all.insert(server_address(host).to_owned(), auth);
        }
    }
    if all.is_empty() { None } else { sensitive(&Value::Object(all)) }
}

fn sensitive(value: &Value) -> Option<HeaderValue> {
    let mut header = HeaderValue::from_str(&URL_SAFE.encode(value.to_string())).ok()?;
    header.set_sensitive(true);
    Some(header)
}

async fn credentials(config: &Value, host: &str) -> Option<Value> {
    let address = server_address(host);
    let helper = config["credHelpers"][host].as_str().or_else(|| config["credsStore"].as_str());
    if let Some(helper) = helper.filter(|helper| !helper.is_empty())
        && let Some(auth) = ask_helper(helper, address).await
    {
        return Some(auth);
    }
    let auths = config["auths"].as_object()?;
    let (_, entry) = auths.iter().find(|(key, _)| bare_host(key) == host)?;
    let token = entry["identitytoken"].as_str().filter(|token| !token.is_empty());
    if let Some(token) = token {
        return Some(json!({"identitytoken": token, "serveraddress": address}));
    }
    let (user, password) = match entry["auth"].as_str().filter(|auth| !auth.is_empty()) {
        Some(auth) => {
            let text = String::from_utf8(STANDARD.decode(auth).ok()?).ok()?;
            let (user, password) = text.split_once(':')?;
            (user.to_owned(), password.trim_end_matches('\0').to_owned())
        }
        None => (entry["username"].as_str()?.to_owned(), entry["password"].as_str()?.to_owned()),
    };
    Some(json!({"username": user, "password": password, "serveraddress": address}))
}

/// Runs `docker-credential-HELPER get`, which reads the address and prints JSON.
async fn ask_helper(helper: &str, address: &str) -> Option<Value> {
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
    Some(if user == TOKEN_USER {
        json!({"identitytoken": secret, "serveraddress": address})
    } else {
        json!({"username": user, "password": secret, "serveraddress": address})
    })
}

fn server_address(host: &str) -> &str {
    if host == DOCKER_HUB_HOST { DOCKER_HUB } else { host }
}

/// `https://registry.example/v1/` to `registry.example`.
fn bare_host(key: &str) -> &str {
    if key == DOCKER_HUB {
        return DOCKER_HUB_HOST;
    }
    let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

/// Proxy variables that Docker's own clients add to every container and build.
pub(crate) fn proxies(endpoint: &Endpoint) -> BTreeMap<String, String> {
    let config = read_json(&config_dir().join("config.json")).unwrap_or_default();
    proxies_of(&config, &endpoint.to_string())
}

fn proxies_of(config: &Value, endpoint: &str) -> BTreeMap<String, String> {
    let section = config["proxies"].get(endpoint).unwrap_or(&config["proxies"]["default"]);
    let mut out = BTreeMap::new();
    for (key, name) in [
        ("httpProxy", "HTTP_PROXY"),
        ("httpsProxy", "HTTPS_PROXY"),
        ("noProxy", "NO_PROXY"),
        ("ftpProxy", "FTP_PROXY"),
        ("allProxy", "ALL_PROXY"),
    ] {
        if let Some(value) = section[key].as_str().filter(|value| !value.is_empty()) {
            out.insert(name.to_owned(), value.to_owned());
            out.insert(name.to_ascii_lowercase(), value.to_owned());
        }
    }
    out
}

/// Reads the seccomp profiles that a service names; by path, as compact JSON.
pub(crate) fn seccomp_profiles(
    desired: &Desired,
    service: &Service,
) -> Result<BTreeMap<String, String>, String> {
    let mut out = BTreeMap::new();
    for path in service.security_opt.iter().filter_map(|option| seccomp_profile(option)) {
        let full = Path::new(&desired.working_dir).join(path);
        let text = std::fs::read(&full).map_err(|e| format!("seccomp profile {path}: {e}"))?;
        let profile: Value =
            serde_json::from_slice(&text).map_err(|e| format!("seccomp profile {path}: {e}"))?;
        out.insert(path.to_owned(), profile.to_string());
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_names_its_registry() {
        assert_eq!(host("busybox:1"), "docker.io");
        assert_eq!(host("team/api"), "docker.io");
        assert_eq!(host("localhost/api"), "localhost");
        assert_eq!(host("reg.example:5000/team/api@sha256:aa"), "reg.example:5000");
    }

    #[tokio::test]
    async fn credentials_are_found_however_their_key_is_written() {
        let config = json!({"auths": {
            "https://reg.example/v1/": {"auth": STANDARD.encode("me:pass:word")},
            "https://index.docker.io/v1/": {"identitytoken": "t"},
        }});
        let found = credentials(&config, "reg.example").await.unwrap();
        assert_eq!(found["password"], "pass:word");
        let found = credentials(&config, "docker.io").await.unwrap();
        assert_eq!(found, json!({"identitytoken": "t", "serveraddress": DOCKER_HUB}));
        assert_eq!(credentials(&config, "other.example").await, None);
    }

    #[test]
    fn proxies_of_the_engine_come_before_the_default() {
        let config = json!({"proxies": {
            "default": {"httpProxy": "http://a"}, "tcp://vm:1": {"httpProxy": "http://b"},
        }});
        assert_eq!(proxies_of(&config, "tcp://vm:1")["http_proxy"], "http://b");
        assert_eq!(proxies_of(&config, "unix:///x")["HTTP_PROXY"], "http://a");
    }
}
