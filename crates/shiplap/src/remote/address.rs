//! Where a control server listens.

use std::path::PathBuf;

use shiplap_engine::{Address, SshAddress};

use super::http::Failure;

/// Where a control server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerAddress {
    /// A Unix socket of this machine.
    Unix(PathBuf),
    /// A Unix socket of another one, over SSH.
    Ssh(SshAddress),
    /// A host and a port.
    Tcp {
        /// The host's name or address, without brackets.
        host: String,
        /// The port.
        port: u16,
        /// Whether it is TLS.
        tls: bool,
    },
}

/// Where a control server that root runs has its socket.
pub const DEFAULT_SOCKET: &str = "/var/lib/shiplap/serve.sock";

impl ServerAddress {
    /// Reads `https://host[:port]`, `http://127.0.0.1:port`, `unix:///path` or
    /// `ssh://[user@]host[:port][/path/of/the.sock]`.
    ///
    /// # Errors
    /// Other forms; and a token must not travel in the clear, so `http://` is for this machine.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let wrong = || {
            Failure::new(format!("`{text}` is no address of a control server"))
                .help("https://HOST, unix:///PATH or ssh://USER@HOST")
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        match scheme {
            "unix" if rest.starts_with('/') => Ok(Self::Unix(rest.into())),
            "ssh" => {
                let bare = rest.trim_end_matches('/');
                let socket = if bare.contains('/') { "" } else { DEFAULT_SOCKET };
                match Address::parse(&format!("ssh://{bare}{socket}")) {
                    Ok(Address::Ssh(address)) => Ok(Self::Ssh(address)),
                    Ok(_) => Err(wrong()),
                    Err(error) => Err(Failure::new(error.message).help("ssh://USER@HOST")),
                }
            }
            "http" | "https" => {
                let tls = scheme == "https";
                let authority = rest.trim_end_matches('/');
                let uri: ::http::Uri =
                    format!("{scheme}://{authority}").parse().map_err(|_| wrong())?;
                let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(wrong)?;
                let has_more =
                    uri.path() != "/" || uri.query().is_some() || authority.contains('@');
                if has_more {
                    return Err(wrong());
                }
                let host = host.trim_matches(['[', ']']).to_owned();
                if !tls && !is_here(&host) {
                    return Err(Failure::new(format!(
                        "a token must not travel to `{host}` without TLS"
                    ))
                    .help("https://HOST, or ssh://USER@HOST"));
                }
                let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
                Ok(Self::Tcp { host, port, tls })
            }
            _ => Err(wrong()),
        }
    }
}

fn is_here(host: &str) -> bool {
    host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<ServerAddress> {
        ServerAddress::parse(text).ok()
    }

    #[test]
    fn addresses_of_four_kinds_are_read() {
        let tcp =
            |host: &str, port, tls| Some(ServerAddress::Tcp { host: host.to_owned(), port, tls });
        assert_eq!(parse("https://deploy.shop.example"), tcp("deploy.shop.example", 443, true));
        assert_eq!(parse("https://[2001:db8::1]:8443/"), tcp("2001:db8::1", 8443, true));
        assert_eq!(parse("http://127.0.0.1:7480"), tcp("127.0.0.1", 7480, false));
        assert_eq!(parse("unix:///run/s.sock"), Some(ServerAddress::Unix("/run/s.sock".into())));
        let ssh = |text: &str| match parse(text) {
            Some(ServerAddress::Ssh(address)) => Some(Address::Ssh(address).to_string()),
            _ => None,
        };
        assert_eq!(ssh("ssh://vm1/srv/s.sock").as_deref(), Some("ssh://vm1/srv/s.sock"));
        let usual = format!("ssh://ann@vm1:2222{DEFAULT_SOCKET}");
        assert_eq!(ssh("ssh://ann@vm1:2222").as_deref(), Some(usual.as_str()));
    }

    #[test]
    fn a_token_does_not_travel_in_the_clear_and_nothing_is_taken_for_an_option() {
        for text in [
            "http://shop.example",
            "ssh://-oProxyCommand=x",
            "ssh://",
            "ftp://x",
            "shop.example",
            "https://",
            "https://x/y",
            "https://user:secret@x",
            "unix://relative",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
