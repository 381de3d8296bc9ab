//! The short syntax of `ports`: `[ADDRESS:][HOST:]CONTAINER[/PROTOCOL]`, also with ranges.

use std::net::IpAddr;

/// One port of a short syntax.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShortPort {
    pub host_ip: Option<String>,
    pub published: Option<String>,
    pub target: u16,
    pub protocol: String,
}

/// Reads `127.0.0.1:8000-8002:80-82/tcp`. Ranges of the same length go pairwise; a host range for
/// one container port stays a range.
pub(crate) fn parse(spec: &str) -> Result<Vec<ShortPort>, String> {
    let parts: Vec<&str> = spec.split(':').collect();
    let (ip, host, container) = match parts.as_slice() {
        [container] => (String::new(), "", *container),
        [host, container] => (String::new(), *host, *container),
        [ip @ .., host, container] => (ip.join(":"), *host, *container),
        [] => unreachable!("split gives at least one part"),
    };
    // `80/tcp/x` is `80/tcp` to the reference.
    let mut parts = container.splitn(3, '/');
    let (container, protocol) = match (parts.next(), parts.next()) {
        (Some(container), Some(protocol)) if !protocol.is_empty() => (container, protocol),
        (container, _) => (container.unwrap_or_default(), "tcp"),
    };
    let bare = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']'));
    if bare.is_none() && ip.contains(':') {
        return Err("an IPv6 address stands in brackets: `[::1]:80:80`".into());
    }
    let ip = bare.unwrap_or(&ip).to_string();
    if !ip.is_empty() && ip.parse::<IpAddr>().is_err() {
        return Err("the host must be given by its IP address".into());
    }
    if container.is_empty() {
        return Err("the port in the container is missing".into());
    }
    let protocol = protocol.to_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err("the protocol must be `tcp`, `udp` or `sctp`".into());
    }
    let targets = range(container)?;
    let hosts = if host.is_empty() { None } else { Some(range(host)?) };
    if let Some(hosts) = hosts {
        let same_length = hosts.1 - hosts.0 == targets.1 - targets.0;
        if !same_length && targets.0 != targets.1 {
            return Err("the two ranges differ in length".into());
        }
    }
    let mut ports: Vec<ShortPort> = (targets.0..=targets.1)
        .map(|target| ShortPort {
            host_ip: Some(ip.clone()).filter(|ip| !ip.is_empty()),
            published: hosts.map(|(first, last)| {
                if targets.0 == targets.1 && first != last {
                    format!("{first}-{last}")
                } else {
                    (first + (target - targets.0)).to_string()
                }
            }),
            target,
            protocol: protocol.clone(),
        })
        .collect();
    // The reference sorts them as texts: 10000 comes before 9999.
    ports.sort_by_key(|port| format!("{}/{}", port.target, port.protocol));
    Ok(ports)
}

fn range(text: &str) -> Result<(u16, u16), String> {
    let mut parts = text.split('-');
    let first = parts.next().unwrap_or_default();
    let last = parts.next().unwrap_or(first);
    let number = |text: &str| -> Result<u16, String> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let port = digits.then(|| text.parse().ok()).flatten();
        port.ok_or_else(|| "a port is a whole number up to 65535".to_string())
    };
    let (first, last) = (number(first)?, number(last)?);
    if last < first {
        return Err("the range ends before it starts".into());
    }
    Ok((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(spec: &str) -> String {
        match parse(spec) {
            Ok(ports) => ports
                .iter()
                .map(|port| {
                    format!(
                        "{}:{}:{}/{}",
                        port.host_ip.as_deref().unwrap_or("-"),
                        port.published.as_deref().unwrap_or("-"),
                        port.target,
                        port.protocol
                    )
                })
                .collect::<Vec<_>>()
                .join(" "),
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn every_form_is_read() {
        for (spec, expected) in [
            ("80", "-:-:80/tcp"),
            ("8080:80", "-:8080:80/tcp"),
            ("127.0.0.1::80/udp", "127.0.0.1:-:80/udp"),
            ("[::1]:8080:80", "::1:8080:80/tcp"),
            ("8000-8001:80-81", "-:8000:80/tcp -:8001:81/tcp"),
            ("8000-8009:80", "-:8000-8009:80/tcp"),
            ("9999-10000:9999-10000", "-:10000:10000/tcp -:9999:9999/tcp"),
            ("::1:80:80", "error: an IPv6 address stands in brackets: `[::1]:80:80`"),
            ("localhost:80:80", "error: the host must be given by its IP address"),
            ("80:", "error: the port in the container is missing"),
            ("80/icmp", "error: the protocol must be `tcp`, `udp` or `sctp`"),
            ("1-3:1-2", "error: the two ranges differ in length"),
            ("70000", "error: a port is a whole number up to 65535"),
            ("2-1", "error: the range ends before it starts"),
        ] {
            assert_eq!(shown(spec), expected, "{spec}");
        }
    }
}
