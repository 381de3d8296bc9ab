//! What a request's head may look like, and how it goes on.

use std::net::{IpAddr, Ipv6Addr};

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Uri, Version};

use super::client::{Client, Scheme};
use super::policy::{Asker, inside};
use super::refusal::Refusal;
use crate::table::Subnet;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const FORWARDED_SSL: HeaderName = HeaderName::from_static("x-forwarded-ssl");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
/// What is ours to say, besides `X-Forwarded-*`, or decides what a message is about.
const OURS: [&str; 7] = [
    "forwarded",
    "x-real-ip",
    "host",
    "content-length",
    "transfer-encoding",
    "authorization",
    "cookie",
];
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

/// The protocol a request asks to change to. Not HTTP/2: requests in such a tunnel would be seen by
/// nobody here, and nobody needs it.
pub(super) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let asked = headers.get_all(header::CONNECTION).iter().any(|value| {
        let names = value.as_bytes().split(|byte| *byte == b',');
        names.into_iter().any(|name| name.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
    });
    let protocol = if asked { headers.get(header::UPGRADE)? } else { return None };
    let is_http2 = |name: &[u8]| {
        let name = name.trim_ascii();
        name.get(..2).is_some_and(|start| start.eq_ignore_ascii_case(b"h2"))
            || name.get(..4).is_some_and(|start| start.eq_ignore_ascii_case(b"http"))
    };
    let offered = protocol.as_bytes().split(|byte| *byte == b',').any(is_http2);
    (!offered).then(|| protocol.clone())
}

/// Whose request it is. A trusted proxy says for whom it asks: of the addresses that it names, the
/// last that is not a trusted proxy itself.
pub(super) fn asker(headers: &HeaderMap, client: &Client, trusted: &[Subnet]) -> Asker {
    let (mut address, mut scheme) = (client.peer, client.scheme);
    if !inside(trusted, client.peer) {
        return Asker { address, scheme, is_believed: false };
    }
    let named = headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
    let named: Vec<&str> = named.flat_map(|value| value.split(',')).map(str::trim).collect();
    for named in named.into_iter().rev() {
        let Ok(named) = named.parse::<IpAddr>() else { break };
        address = named.to_canonical();
        if !inside(trusted, address) {
            break;
        }
    }
    match headers.get(FORWARDED_PROTO).map(HeaderValue::as_bytes) {
        Some(b"https") => scheme = Scheme::Https,
        Some(b"http") => scheme = Scheme::Http,
        Some(_) | None => {}
    }
    Asker { address, scheme, is_believed: true }
}

/// Turns the head of a client's request into the one for the replica.
pub(super) fn forward(
    parts: &mut Parts,
    client: &Client,
    asker: &Asker,
    upgrade: Option<&HeaderValue>,
) {
    let authority = parts.uri.authority().map(|authority| authority.as_str());
    // The same as the header, if there is one.
    if let Some(host) = authority.and_then(|host| HeaderValue::from_str(host).ok()) {
        parts.headers.insert(header::HOST, host);
    }
    let path = match parts.uri.path_and_query() {
        Some(path) => path.clone(),
        None => PathAndQuery::from_static("/"),
    };
    parts.uri = Uri::from(path);
    let trailers = wants_trailers(&parts.headers);
    strip(&mut parts.headers);
    if trailers {
        parts.headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    // We answer it ourselves, when the replica is ready for the body.
    parts.headers.remove(header::EXPECT);
    if let Some(protocol) = upgrade {
        parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(header::UPGRADE, protocol.clone());
    }
    join_cookies(&mut parts.headers);
    forwarded(&mut parts.headers, client, asker);
}

/// HTTP/2 may send cookies one by one; HTTP/1 servers expect one header (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> =
        headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(cookies) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(header::COOKIE, cookies);
    }
}

/// Asked for by gRPC, and passed on to replicas that speak HTTP/2.
fn wants_trailers(headers: &HeaderMap) -> bool {
    headers.get(header::TE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"trailers"))
}

/// Says on whose behalf we ask. What anybody claims about that is replaced, unless it is a proxy
/// that we trust.
fn forwarded(headers: &mut HeaderMap, client: &Client, asker: &Asker) {
    drop_lookalikes(headers);
    let believed = asker.is_believed;
    let had_chain = believed && headers.contains_key(FORWARDED_FOR);
    let chain = if had_chain {
        let mut chain = Vec::new();
        for value in headers.get_all(FORWARDED_FOR) {
            chain.extend_from_slice(value.as_bytes());
            chain.extend_from_slice(b", ");
        }
        chain.extend_from_slice(client.peer_text.as_bytes());
        HeaderValue::from_bytes(&chain).unwrap_or_else(|_| client.peer_text.clone())
    } else {
        client.peer_text.clone()
    };
    headers.insert(FORWARDED_FOR, chain);
    if !believed {
        headers.remove(header::FORWARDED);
        headers.remove(FORWARDED_PREFIX);
        headers.remove(FORWARDED_PORT);
        headers.remove(FORWARDED_SSL);
        headers.remove(REAL_IP);
    }
    if !believed || !headers.contains_key(FORWARDED_PROTO) {
        let scheme = HeaderValue::from_static(client.scheme.name());
        headers.insert(FORWARDED_PROTO, scheme);
    }
    if !believed || !headers.contains_key(FORWARDED_HOST) {
        match headers.get(header::HOST).cloned() {
            Some(host) => headers.insert(FORWARDED_HOST, host),
            None => headers.remove(FORWARDED_HOST),
        };
    }
    // A proxy that does not write `Forwarded` would otherwise be taken for the client.
    if !had_chain || headers.contains_key(header::FORWARDED) {
        let element = element(headers, client);
        if let Ok(element) = HeaderValue::from_bytes(&element) {
            headers.insert(header::FORWARDED, element);
        }
    }
}

/// `Forwarded` (RFC 7239) with our own element at its end.
fn element(headers: &HeaderMap, client: &Client) -> Vec<u8> {
    let mut all = Vec::with_capacity(64);
    for value in headers.get_all(header::FORWARDED) {
        all.extend_from_slice(value.as_bytes());
        all.extend_from_slice(b", ");
    }
    let address = client.peer_text.as_bytes();
    let (open, close): (&[u8], &[u8]) = match client.peer {
        IpAddr::V4(_) => (b"for=", b""),
        IpAddr::V6(_) => (b"for=\"[", b"]\""),
    };
    for part in [open, address, close, b";proto=", client.scheme.name().as_bytes()] {
        all.extend_from_slice(part);
    }
    if let Some(host) = headers.get(header::HOST) {
        // Hosts have no quotes, see `is_authority`.
        for part in [b";host=\"", host.as_bytes(), b"\""] {
            all.extend_from_slice(part);
        }
    }
    all
}

/// To CGI and WSGI, `X_Forwarded_For` is another way to write `X-Forwarded-For`.
fn drop_lookalikes(headers: &mut HeaderMap) {
    let looks = |name: &&HeaderName| name.as_str().contains('_');
    if headers.keys().any(|name| looks(&name)) {
        let names: Vec<HeaderName> = headers.keys().filter(looks).cloned().collect();
        for name in names {
            let plain = name.as_str().replace('_', "-");
            if plain.starts_with("x-forwarded-") || OURS.contains(&plain.as_str()) {
                headers.remove(name);
            }
        }
    }
}

/// Trailers come after all checks, and say nothing about who asks, or for what.
pub(super) fn strip_trailers(trailers: &mut HeaderMap) {
    strip(trailers);
    let ours = |name: &HeaderName| {
        name.as_str().starts_with("x-forwarded-") || OURS.contains(&name.as_str())
    };
    let names: Vec<HeaderName> = trailers.keys().filter(|name| ours(name)).cloned().collect();
    for name in names {
        trailers.remove(name);
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

/// Names what was taken off the path, after what a proxy in front has taken off.
pub(super) fn prefix(headers: &mut HeaderMap, path: &str) {
    let before = headers.get(FORWARDED_PREFIX).and_then(|value| value.to_str().ok());
    let prefix = format!("{}{path}", before.unwrap_or_default());
    if let Ok(prefix) = HeaderValue::try_from(prefix) {
        headers.insert(FORWARDED_PREFIX, prefix);
    }
}

/// Whether a message is of gRPC, whose streams may be silent for hours.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    const KIND: &[u8] = b"application/grpc";
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    kind.get(..KIND.len()).is_some_and(|start| start.eq_ignore_ascii_case(KIND))
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

    async fn client(peer: &str) -> std::sync::Arc<Client> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let socket = super::super::stream::SharedStream::new(stream);
        Client::new(peer.parse().unwrap(), Scheme::Http, Default::default(), socket)
    }

    /// What a replica is told when this peer says this, and who the edge thinks it is.
    async fn check(peer: &str, given: &[(&'static str, &str)], expected: &str) {
        let client = client(peer).await;
        let trusted = [Subnet::parse("127.0.0.0/8").unwrap(), Subnet::parse("fd00::/8").unwrap()];
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        let asker = asker(&headers, &client, &trusted);
        forwarded(&mut headers, &client, &asker);
        let mut names: Vec<&HeaderName> = headers.keys().collect();
        names.sort_by_key(|name| name.as_str());
        let mut seen = format!("{} {}", asker.address, asker.scheme.name());
        for name in names.into_iter().filter(|name| **name != header::HOST) {
            seen.push_str(&format!("\n{name}: {}", headers[name].to_str().unwrap()));
        }
        let expected: Vec<&str> = expected.lines().map(str::trim).collect();
        assert_eq!(seen, expected.join("\n"), "from {peer}");
    }

    #[tokio::test]
    async fn only_trusted_proxies_are_believed() {
        let given = [
            ("host", "shop.example"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "other.example"),
            ("x-forwarded-port", "444"),
            ("x_forwarded_for", "2.2.2.2"),
            ("x-real-ip", "3.3.3.3"),
        ];
        let replaced = "8.8.8.8 http
            forwarded: for=8.8.8.8;proto=http;host=\"shop.example\"
            x-forwarded-for: 8.8.8.8
            x-forwarded-host: shop.example
            x-forwarded-proto: http";
        check("8.8.8.8", &given, replaced).await;
        check("::ffff:8.8.8.8", &given, replaced).await;
        check("172.18.0.9", &given, &replaced.replace("8.8.8.8", "172.18.0.9")).await;
        let believed = "1.1.1.1 https
            x-forwarded-for: 1.1.1.1, 127.0.0.1
            x-forwarded-host: other.example
            x-forwarded-port: 444
            x-forwarded-proto: https
            x-real-ip: 3.3.3.3";
        check("127.0.0.1", &given, believed).await;
    }

    #[tokio::test]
    async fn a_chain_ends_at_the_last_who_is_not_trusted() {
        let given = [("x-forwarded-for", "6.6.6.6, 1.1.1.1"), ("x-forwarded-for", "fd00::2")];
        let expected = "1.1.1.1 http
            x-forwarded-for: 6.6.6.6, 1.1.1.1, fd00::2, fd00::1
            x-forwarded-proto: http";
        check("fd00::1", &given, expected).await;
        let given = [("forwarded", "for=1.1.1.1"), ("host", "a:80")];
        let expected = "fd00::1 http
            forwarded: for=1.1.1.1, for=\"[fd00::1]\";proto=http;host=\"a:80\"
            x-forwarded-for: fd00::1
            x-forwarded-host: a:80
            x-forwarded-proto: http";
        check("fd00::1", &given, expected).await;
    }

    #[test]
    fn http2_is_no_upgrade() {
        let asked = |protocol: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("connection", "Upgrade, HTTP2-Settings".parse().unwrap());
            headers.insert("upgrade", protocol.parse().unwrap());
            upgrade(&headers).is_some()
        };
        assert!(asked("websocket") && asked("spdy/3.1"));
        assert!(!asked("h2c") && !asked("H2C, websocket") && !asked("HTTP/2.0"));
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
