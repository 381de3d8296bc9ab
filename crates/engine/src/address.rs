//! Where an engine is, as people write it.

use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use shiplap_model::{EngineError, EngineErrorKind};

use crate::endpoint::Endpoint;
use crate::link::{Link, LinkOptions};

/// Where an engine listens when nothing says otherwise.
pub(crate) const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// Where an engine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A Unix socket of this machine.
    Unix(PathBuf),
    /// `host:port`, without TLS.
    Tcp(String),
    /// A machine that is reached by `ssh`.
    Ssh(SshAddress),
}

/// `ssh://[user@]host[:port][/socket]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshAddress {
    /// Who to be there; as the user's ssh configuration says where it is not said.
    pub user: Option<String>,
    /// The host, or a name of the user's ssh configuration. An IPv6 address is without brackets.
    pub host: String,
    /// Likewise.
    pub port: Option<u16>,
    /// Where the engine listens there.
    pub socket: PathBuf,
}

impl Address {
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

    /// Reads `unix:///path`, `tcp://host:port` or `ssh://[user@]host[:port][/socket]`.
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
        if let Some(rest) = text.strip_prefix("ssh://") {
            return SshAddress::parse(rest).map(Self::Ssh).map_err(|wrong| {
                invalid(
                    format!("{text}: {wrong}"),
                    "it is `ssh://user@host`, with `:port` if need be",
                )
            });
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

    /// Makes it reachable: over ssh by a link, else there is nothing to do.
    ///
    /// # Errors
    /// Why ssh did not get there.
    pub async fn open(&self, options: LinkOptions) -> Result<Endpoint, EngineError> {
        Ok(match self {
            Self::Unix(path) => Endpoint::Unix(path.clone()),
            Self::Tcp(address) => Endpoint::Tcp(address.clone()),
            Self::Ssh(address) => Endpoint::Ssh(Link::open(address, options).await?),
        })
    }
}

impl Default for Address {
    fn default() -> Self {
        Self::Unix(DEFAULT_SOCKET.into())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
            Self::Ssh(address) => address.fmt(f),
        }
    }
}

impl SshAddress {
    /// Reads what stands behind `ssh://`.
    fn parse(text: &str) -> Result<Self, String> {
        let (authority, socket) = match text.find('/') {
            Some(at) => text.split_at(at),
            None => (text, ""),
        };
        let (user, place) = match authority.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, authority),
        };
        let (host, port) = host_and_port(place)?;
        if let Some(user) = user
            && user.contains(':')
        {
            return Err("a password has no place in an address".to_owned());
        }
        // Both become words of a command line, and of the ProxyCommand of a configuration.
        let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-_%:".contains(c);
        if host.is_empty() || host.starts_with('-') || !host.chars().all(is_plain) {
            return Err(format!("`{host}` is no host"));
        }
        if let Some(user) = user
            && (user.is_empty() || user.starts_with('-') || !user.chars().all(is_plain))
        {
            return Err(format!("`{user}` is no user"));
        }
        if text.contains(['?', '#']) || socket.contains("//") {
            return Err(format!("`{socket}` is no path of a socket"));
        }
        let socket = if matches!(socket, "" | "/") { DEFAULT_SOCKET } else { socket };
        Ok(Self {
            user: user.map(str::to_owned),
            host: host.to_owned(),
            port,
            socket: socket.into(),
        })
    }

    /// The words that name it on the command line of `ssh`.
    pub(crate) fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        if let Some(port) = self.port {
            words.extend(["-p".to_owned(), port.to_string()]);
        }
        if let Some(user) = &self.user {
            words.extend(["-l".to_owned(), user.clone()]);
        }
        words.extend(["--".to_owned(), self.host.clone()]);
        words
    }

    /// The same as a person would type it.
    pub(crate) fn typed(&self) -> String {
        let port = self.port.map(|port| format!("-p {port} ")).unwrap_or_default();
        let user = self.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
        format!("ssh {port}{user}{}", self.host)
    }
}

fn host_and_port(place: &str) -> Result<(&str, Option<u16>), String> {
    let port = |text: &str| {
        let port = text.parse::<u16>().ok().filter(|port| *port != 0);
        port.ok_or_else(|| format!("`{text}` is no port"))
    };
    if let Some(rest) = place.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or("a bracket is not closed")?;
        return match rest.strip_prefix(':') {
            Some(text) => Ok((host, Some(port(text)?))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(format!("`{rest}` is no port")),
        };
    }
    match place.split_once(':') {
        Some((_, rest)) if rest.contains(':') => {
            Err("an IPv6 address stands in brackets".to_owned())
        }
        Some((host, text)) => Ok((host, Some(port(text)?))),
        None => Ok((place, None)),
    }
}

impl fmt::Display for SshAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ssh://")?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        match self.host.contains(':') {
            true => write!(f, "[{}]", self.host)?,
            false => f.write_str(&self.host)?,
        }
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        match self.socket == Path::new(DEFAULT_SOCKET) {
            true => Ok(()),
            false => write!(f, "{}", self.socket.display()),
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

    fn parsed(text: &str) -> Option<String> {
        Address::parse(text).map(|address| address.to_string()).ok()
    }

    #[test]
    fn addresses_are_read_as_docker_reads_them() {
        assert_eq!(parsed("unix:///run/d.sock").as_deref(), Some("unix:///run/d.sock"));
        assert_eq!(parsed("tcp://10.0.0.1").as_deref(), Some("tcp://10.0.0.1:2375"));
        assert_eq!(parsed("tcp://vm:4000/").as_deref(), Some("tcp://vm:4000"));
        assert_eq!(parsed("ssh://vm/").as_deref(), Some("ssh://vm"));
        assert_eq!(parsed("npipe://x"), None);
    }

    #[test]
    fn a_machine_behind_ssh_has_a_user_a_port_and_a_socket() {
        for whole in ["ssh://vm", "ssh://ada@vm:2200", "ssh://[fe80::1%eth0]:22", "ssh://vm/d.sock"]
        {
            assert_eq!(parsed(whole).as_deref(), Some(whole));
        }
        let Ok(Address::Ssh(address)) = Address::parse("ssh://ada@10.0.0.7:2200/run/d.sock") else {
            panic!("it is an address");
        };
        assert_eq!(address.words(), ["-p", "2200", "-l", "ada", "--", "10.0.0.7"]);
        assert_eq!(address.typed(), "ssh -p 2200 ada@10.0.0.7");
        assert_eq!(address.socket, Path::new("/run/d.sock"));
    }

    #[test]
    fn nothing_in_an_address_becomes_an_option_of_ssh() {
        let wrong = [
            "ssh://",
            "ssh://-oProxyCommand=x",
            "ssh://-l@vm",
            "ssh://@vm",
            "ssh://a;b",
            "ssh://a b",
            "ssh://vm:",
            "ssh://vm:0",
            "ssh://vm:70000",
            "ssh://fe80::1",
            "ssh://[::1",
            "ssh://[::1]x",
            "ssh://ada:secret@vm",
            "ssh://vm/a?b",
        ];
        for text in wrong {
            assert_eq!(parsed(text), None, "{text}");
        }
    }

    #[test]
    fn the_current_context_is_used_unless_the_environment_says_otherwise() {
        let dir = tempfile::tempdir().unwrap();
        let meta = dir.path().join("contexts/meta/ab12");
        std::fs::create_dir_all(&meta).unwrap();
        std::fs::write(dir.path().join("config.json"), r#"{"currentContext":"lab"}"#).unwrap();
        let text = r#"{"Name":"lab","Endpoints":{"docker":{"Host":"ssh://lab"}}}"#;
        std::fs::write(meta.join("meta.json"), text).unwrap();
        let found = Address::resolve(&|_| None, dir.path()).unwrap();
        assert_eq!(found.to_string(), "ssh://lab");
        let host = |name: &str| (name == "DOCKER_HOST").then(|| "tcp://vm:1".to_owned());
        let found = Address::resolve(&host, dir.path()).unwrap();
        assert_eq!(found, Address::Tcp("vm:1".into()));
    }
}
