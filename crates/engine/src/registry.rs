//! What the user's Docker configuration says: logins of registries, proxies.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use http::HeaderValue;
use serde_json::{Map, Value};
use shiplap_compose::model::Service;
use shiplap_model::Desired;
use shiplap_registry::Keyring;
pub(crate) use shiplap_registry::config_dir;

use crate::address::read_json;
use crate::create::seccomp_profile;
use crate::endpoint::Endpoint;

/// The name by which images call Docker's own registry.
const DOCKER_HUB: &str = "docker.io";
/// The key under which engines look for its login.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// The host of a reference's registry.
pub(crate) fn host(reference: &str) -> &str {
    match reference.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => DOCKER_HUB,
    }
}

/// The header that carries the login for a reference, if there is one.
pub(crate) async fn auth_header(keyring: &Keyring, reference: &str) -> Option<HeaderValue> {
    let host = host(reference);
    sensitive(&keyring.login(host).await?.for_engine(host))
}

/// The header that carries all logins, for a build, which may pull from anywhere.
pub(crate) async fn all_auths_header(keyring: &Keyring) -> Option<HeaderValue> {
    let mut all = Map::new();
    for (host, login) in keyring.all().await {
        let key = if host == DOCKER_HUB { DOCKER_HUB_KEY.to_owned() } else { host.clone() };
        all.insert(key, login.for_engine(&host));
    }
    if all.is_empty() { None } else { sensitive(&Value::Object(all)) }
}

fn sensitive(value: &Value) -> Option<HeaderValue> {
    let mut header = HeaderValue::from_str(&URL_SAFE.encode(value.to_string())).ok()?;
    header.set_sensitive(true);
    Some(header)
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
    use serde_json::json;

    #[test]
    fn a_reference_names_its_registry() {
        assert_eq!(host("busybox:1"), "docker.io");
        assert_eq!(host("team/api"), "docker.io");
        assert_eq!(host("localhost/api"), "localhost");
        assert_eq!(host("reg.example:5000/team/api@sha256:aa"), "reg.example:5000");
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
