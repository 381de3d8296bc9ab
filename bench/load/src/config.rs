use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// What to send, where, how fast and for how long.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where every request goes.
    pub url: Url,
    /// Requests per second; above zero.
    pub rate: f64,
    /// When to end by itself; `None` runs until it is stopped.
    pub duration: Option<Duration>,
    /// Whether connections are used again.
    pub connections: Connections,
    /// The request method.
    pub method: String,
    /// The length of the request body in bytes.
    pub body_bytes: usize,
    /// Further request headers.
    pub headers: Vec<(String, String)>,
    /// The response header whose values are counted, such as `x-version`.
    pub tag: Option<String>,
    /// How long one request may take from the moment it is sent.
    pub timeout: Duration,
    /// More requests in flight than this are not sent but counted as overrun.
    pub max_in_flight: usize,
}

impl Config {
    /// GET requests over reused connections until stopped, 30 s each at most.
    pub fn new(url: Url, rate: f64) -> Self {
        Config {
            url,
            rate,
            duration: None,
            connections: Connections::Reused,
            method: "GET".into(),
            body_bytes: 0,
            headers: Vec::new(),
            tag: None,
            timeout: Duration::from_secs(30),
            // 16 s of answers held at 500 requests per second.
            max_in_flight: 8000,
        }
    }

    /// The bytes of one request.
    pub(crate) fn wire(&self) -> Vec<u8> {
        let mut head = format!(
            "{} {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: shiplap-load\r\nAccept: */*\r\n",
            self.method,
            self.url.path,
            self.url.authority()
        );
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if self.body_bytes > 0 || ["POST", "PUT", "PATCH"].contains(&self.method.as_str()) {
            head.push_str(&format!("Content-Length: {}\r\n", self.body_bytes));
        }
        match self.connections {
            Connections::Reused => {}
            Connections::PerRequest => head.push_str("Connection: close\r\n"),
        }
        head.push_str("\r\n");
        let mut wire = head.into_bytes();
        wire.resize(wire.len() + self.body_bytes, b'x');
        wire
    }
}

/// Whether connections are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connections {
    /// A pool of keep-alive connections, as a browser or a service has.
    Reused,
    /// A new connection for every request.
    PerRequest,
}

/// An `http://` address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) path: String,
}

impl Url {
    /// The same server, another path (with its query).
    pub fn with_path(&self, path: &str) -> Url {
        Url { path: path.into(), ..self.clone() }
    }

    /// `host:port`, as in the `Host` header.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority(), self.path)
    }
}

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let error = |reason| UrlError { url: text.into(), reason };
        let rest = text.strip_prefix("http://").ok_or(error("it must start with `http://`"))?;
        let (authority, path) = match rest.find(['/', '?']) {
            Some(at) if rest[at..].starts_with('/') => (&rest[..at], rest[at..].to_owned()),
            Some(at) => (&rest[..at], format!("/{}", &rest[at..])),
            None => (rest, "/".to_owned()),
        };
        if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(error("its path must be percent-encoded ASCII"));
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().map_err(|_| error("its port is not a number up to 65535"))?)
            }
            Some(_) | None => (authority, 80),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(error("it names no host"));
        }
        Ok(Url { host: host.into(), port, path })
    }
}

/// Why a text is no address to send load to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlError {
    url: String,
    reason: &'static str,
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not an address for load, {}: `{}`", self.reason, self.url)
    }
}

impl std::error::Error for UrlError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> String {
        match text.parse::<Url>() {
            Ok(url) => url.to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn addresses_get_their_default_port_and_path() {
        assert_eq!(parsed("http://a"), "http://a:80/");
        assert_eq!(parsed("http://a:81?x=1"), "http://a:81/?x=1");
        assert_eq!(parsed("http://[::1]:81/x?u=a/b"), "http://[::1]:81/x?u=a/b");
        assert_eq!(parsed("http://[::1]/"), "http://[::1]:80/");
    }

    #[test]
    fn what_is_no_plain_http_address_is_refused() {
        for text in ["https://a", "a:80", "http://", "http://a:99999/", "http://a/x y"] {
            assert!(text.parse::<Url>().is_err(), "{text}");
        }
    }
}
