//! Where the engine listens.

use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use shiplap_model::{EngineError, EngineErrorKind};

/// Where the engine listens when nothing says otherwise.
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// Where an engine listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A Unix socket.
    Unix(PathBuf),
    /// `host:port`, without TLS.
    Tcp(String),
}

impl Endpoint {
    /// What `docker` itself would use here: `DOCKER_HOST`, else the current context, else the
    /// default socket.
    ///
    /// # Errors
    /// When one of these names an address of a kind that is not supported.
    pub fn from_environment() -> Result<Self, EngineError> {
        Self::resolve(&|name| std::env::var(name).ok(), &crate::registry::config_dir())
    }

    fn resolve(
        variable: &dyn Fn(&str) -> Option<String>,
        config_dir: &Path,
    ) -> Result<Self, EngineError> {
        if let Some(host) = variable("DOCKER_HOST").filter(|host| !host.is_empty()) {
            return Self::parse(&host);
        }
        let config = read_json(&config_dir.join("config.json"));
        let context = variable("DOCKER_CONTEXT").filter(|name| !name.is_empty()).or_else(|| {
            config.as_ref().and_then(|c| c["currentContext"].as_str().map(str::to_owned))
        });
        match context.as_deref() {
            None | Some("" | "default") => Ok(Self::default()),
            Some(name) => Self::parse(&context_host(config_dir, name).ok_or_else(|| {
                invalid(format!("the docker context `{name}` does not exist"), "docker context ls")
            })?),
        }
    }

    /// Reads `unix:///path` or `tcp://host:port`.
    ///
    /// # Errors
    /// On any other form.
    pub fn parse(text: &str) -> Result<Self, EngineError> {
        if let Some(path) = text.strip_prefix("unix://") {
            return Ok(Self::Unix(if path.is_empty() {
                DEFAULT_SOCKET.into()
            } else {
                path.into()
            }));
        }
        let address = text.strip_prefix("tcp://").or_else(|| text.strip_prefix("http://"));
        match address.map(|address| address.trim_end_matches('/')) {
            Some(address) if !address.is_empty() => {
                let has_port = address
                    .rsplit_once(':')
                    .is_some_and(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
                let port = if has_port { "" } else { ":2375" };
                Ok(Self::Tcp(format!("{address}{port}")))
            }
            _ => Err(invalid(
                format!("an engine address of this form is not supported: {text}"),
                "export DOCKER_HOST=unix:///var/run/docker.sock",
            )),
        }
    }
}

impl Default for Endpoint {
    fn default() -> Self {
        Self::Unix(DEFAULT_SOCKET.into())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// Contexts live in folders named after a digest of their name; there are few, so look at all.
fn context_host(config_dir: &Path, name: &str) -> Option<String> {
    for folder in std::fs::read_dir(config_dir.join("contexts/meta")).ok()?.flatten() {
        let Some(meta) = read_json(&folder.path().join("meta.json")) else { continue };
        if meta["Name"] == name {
            return meta["Endpoints"]["docker"]["Host"].as_str().map(str::to_owned);
        }
    }
    None
}

pub(crate) fn read_json(path: &Path) -> Option<Value> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

fn invalid(message: String, help: &str) -> EngineError {
    EngineError {
        kind: EngineErrorKind::Invalid,
        doing: "finding the engine".into(),
        message,
        help: Some(help.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_docker_reads_them() {
        let parsed = |text| Endpoint::parse(text).map(|e| e.to_string()).ok();
        assert_eq!(parsed("unix:///run/d.sock").as_deref(), Some("unix:///run/d.sock"));
        assert_eq!(parsed("tcp://10.0.0.1").as_deref(), Some("tcp://10.0.0.1:2375"));
        assert_eq!(parsed("tcp://vm:4000/").as_deref(), Some("tcp://vm:4000"));
        assert_eq!(parsed("ssh://vm"), None);
    }

    #[test]
    fn the_current_context_is_used_unless_the_environment_says_otherwise() {
        let dir = tempfile::tempdir().unwrap();
        let meta = dir.path().join("contexts/meta/ab12");
        std::fs::create_dir_all(&meta).unwrap();
        std::fs::write(dir.path().join("config.json"), r#"{"currentContext":"lab"}"#).unwrap();
        let text = r#"{"Name":"lab","Endpoints":{"docker":{"Host":"unix:///lab.sock"}}}"#;
        std::fs::write(meta.join("meta.json"), text).unwrap();
        let found = Endpoint::resolve(&|_| None, dir.path()).unwrap();
        assert_eq!(found, Endpoint::Unix("/lab.sock".into()));
        let host = |name: &str| (name == "DOCKER_HOST").then(|| "tcp://vm:1".to_owned());
        let found = Endpoint::resolve(&host, dir.path()).unwrap();
        assert_eq!(found, Endpoint::Tcp("vm:1".into()));
    }
}
