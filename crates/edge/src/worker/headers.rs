//! What a request's head may look like, and how it goes on.

use std::net::{IpAddr, Ipv6Addr};

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Uri, Version};

use super::client::{Client, Scheme};
use super::refusal::Refusal;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Refuses what is well framed, but says two things at once about whom it is for, or asks for what
/// is not done here.
pub(super) fn check(parts: &Parts) -> Result<(), Refusal> {
    if matches!(parts.method, Method::CONNECT | Method::TRACE) {
        return Err(Refusal::Method);
    }
    let hosts = parts.headers.get_all(header::HOST);
    let mut hosts = hosts.iter().map(HeaderValue::as_bytes);
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Refusal::HostTwice);
    }
    let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    match (authority, host) {
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => {
            return Err(Refusal::HostMismatch);
        }
        (Some(one), _) | (None, Some(one)) if !is_authority(one) => return Err(Refusal::BadHost),
        (None, None) if parts.version != Version::HTTP_10 => return Err(Refusal::NoHost),
        (Some(_), _) | (None, _) => {}
    }
    // The other forms of a target are for CONNECT, and for OPTIONS of a whole server.
    let path = parts.uri.path();
    if !(path.starts_with('/') || path == "*" && parts.method == Method::OPTIONS) {
        return Err(Refusal::BadTarget);
    }
    match parts.headers.get(header::EXPECT) {
        Some(value) if !value.as_bytes().eq_ignore_ascii_case(b"100-continue") => {
            Err(Refusal::Expectation)
        }
        Some(_) | None => Ok(()),
    }
}

/// A name or address, and perhaps a port.
fn is_authority(host: &[u8]) -> bool {
    let (name, port) = match host.iter().rposition(|byte| *byte == b':') {
        Some(colon) if !host.ends_with(b"]") => (&host[..colon], &host[colon + 1..]),
        Some(_) | None => (host, &b""[..]),
    };
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    let name_is_fine = match name.strip_prefix(b"[").and_then(|name| name.strip_suffix(b"]")) {
        Some(address) => {
            let address = std::str::from_utf8(address).ok();
            address.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok())
        }
        None => !name.is_empty() && name.iter().all(plain),
    };
    let port = std::str::from_utf8(port).unwrap_or("x");
    let port_is_fine = port.is_empty()
        || (port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok());
    name_is_fine && port_is_fine
}

/// The protocol a request asks to change to.
pub(super) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let asked = headers.get_all(header::CONNECTION).iter().any(|value| {
        let names = value.as_bytes().split(|byte| *byte == b',');
        names.into_iter().any(|name| name.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
    });
    if asked { headers.get(header::UPGRADE).cloned() } else { None }
}

/// Turns the head of a client's request into the one for the replica.
pub(super) fn forward(parts: &mut Parts, client: &Client, upgrade: Option<&HeaderValue>) {
    let host = parts.uri.authority().map(|authority| authority.as_str().to_owned());
    if let Some(host) = host.and_then(|host| HeaderValue::try_from(host).ok()) {
        // The absolute form: its host wins over the header (RFC 9112, 3.2.2).
        parts.headers.insert(header::HOST, host);
    }
    let path = match parts.uri.path_and_query() {
        Some(path) => path.clone(),
        None => PathAndQuery::from_static("/"),
    };
    parts.uri = Uri::from(path);
    parts.version = Version::HTTP_11;
    strip(&mut parts.headers);
    // We answer it ourselves, when the replica is ready for the body.
    parts.headers.remove(header::EXPECT);
    if let Some(protocol) = upgrade {
        parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(header::UPGRADE, protocol.clone());
    }
    forwarded(&mut parts.headers, client.peer, client.scheme);
}

/// Says on whose behalf we ask. What a public client claims about that is replaced; a proxy in
/// front of us, on this machine or in a private network, is believed.
fn forwarded(headers: &mut HeaderMap, peer: IpAddr, scheme: Scheme) {
    let believed = is_private(peer);
    let mut chain = String::new();
    if believed {
        for value in headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok()) {
            chain.push_str(value);
            chain.push_str(", ");
        }
    } else {
        headers.remove(header::FORWARDED);
    }
    chain.push_str(&peer.to_string());
    if let Ok(chain) = HeaderValue::try_from(chain) {
        headers.insert(FORWARDED_FOR, chain);
    }
    if !believed || !headers.contains_key(FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static(scheme.name()));
    }
    if !believed || !headers.contains_key(FORWARDED_HOST) {
        match headers.get(header::HOST).cloned() {
            Some(host) => headers.insert(FORWARDED_HOST, host),
            None => headers.remove(FORWARDED_HOST),
        };
    }
}

fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// Removes what is meant for one connection only.
pub(super) fn strip(headers: &mut HeaderMap) {
    let mut named = Vec::new();
    for value in headers.get_all(header::CONNECTION) {
        for name in value.as_bytes().split(|byte| *byte == b',') {
            // What frames the message, or says where it goes, is not the sender's to remove.
            if let Ok(name) = HeaderName::from_bytes(name.trim_ascii())
                && name != header::CONTENT_LENGTH
                && name != header::HOST
            {
                named.push(name);
            }
        }
    }
    for name in named {
        headers.remove(name);
    }
    for name in [
        header::CONNECTION,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        header::TE,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ] {
        headers.remove(name);
    }
}

/// Whether an answer is a stream without an end of its own.
pub(super) fn is_event_stream(headers: &HeaderMap) -> bool {
    const KIND: &[u8] = b"text/event-stream";
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    kind.get(..KIND.len()).is_some_and(|start| start.eq_ignore_ascii_case(KIND))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forwarded_from(peer: &str, given: &[(&'static str, &str)]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        forwarded(&mut headers, peer.parse().unwrap(), Scheme::Http);
        let get = |name| headers.get(name).map_or("-", |v: &HeaderValue| v.to_str().unwrap());
        vec![
            get(FORWARDED_FOR).to_owned(),
            get(FORWARDED_PROTO).to_owned(),
            get(FORWARDED_HOST).to_owned(),
        ]
    }

    #[test]
    fn what_a_public_client_claims_is_replaced() {
        let given = [
            ("host", "shop.example"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "other.example"),
        ];
        assert_eq!(forwarded_from("8.8.8.8", &given), ["8.8.8.8", "http", "shop.example"]);
        let expected = ["1.1.1.1, 127.0.0.1", "https", "other.example"];
        assert_eq!(forwarded_from("127.0.0.1", &given), expected);
        assert_eq!(forwarded_from("8.8.8.8", &[]), ["8.8.8.8", "http", "-"]);
    }

    #[test]
    fn headers_of_one_connection_are_removed() {
        let mut headers = HeaderMap::new();
        headers.insert("connection", "close, X-Once, Content-Length".parse().unwrap());
        headers.insert("x-once", "1".parse().unwrap());
        headers.insert("content-length", "5".parse().unwrap());
        headers.insert("keep-alive", "timeout=5".parse().unwrap());
        headers.insert("x-kept", "1".parse().unwrap());
        strip(&mut headers);
        let left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["content-length", "x-kept"]);
    }

    #[test]
    fn hosts_are_names_or_addresses_with_or_without_a_port() {
        for host in
            ["a", "a.b-c.d:80", "10.0.0.1", "[::1]", "[::1]:8080", "a_b", "a:", "shop.example."]
        {
            assert!(is_authority(host.as_bytes()), "{host}");
        }
        for host in [
            "", ":80", "a b", "a/b", "a@b", "a,b", "a:x", "a:70000", "[::1", "[a]", "a:1:2", "a%00",
        ] {
            assert!(!is_authority(host.as_bytes()), "{host}");
        }
    }
}
