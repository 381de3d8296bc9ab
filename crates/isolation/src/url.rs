//! Addresses of services in values of variables.

/// Where a URL, or something like one, points to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Target {
    /// `postgresql`; empty where there is none.
    pub scheme: String,
    /// Before the `:` in front of the `@`.
    pub user: String,
    /// Behind it, decoded.
    pub password: Option<String>,
    /// Hosts with ports, in lower case.
    pub hosts: Vec<(String, Option<u16>)>,
    /// What follows the first slash, without the query.
    pub path: String,
}

/// Every target that a text names: URLs, also several and within other text, MySQL's
/// `user:password@tcp(host:port)/name`, and `host=… password=…`.
pub(crate) fn targets(text: &str) -> Vec<Target> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let is_scheme = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        let before = &rest[..at];
        let scheme = &before[before.rfind(|c| !is_scheme(c)).map_or(0, |n| n + 1)..];
        let after = &rest[at + 3..];
        let end = after.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>'));
        // A list of URLs: the next one's scheme is no part of this one.
        let next = after.find("://").and_then(|next| after[..next].rfind([',', ';', ' ']));
        let end = end.unwrap_or(after.len()).min(next.unwrap_or(after.len()));
        found.push(url(scheme, &after[..end]));
        rest = &after[end..];
    }
    if found.is_empty() {
        found.extend(mysql(text).or_else(|| pairs(text)));
    }
    found
}

fn url(scheme: &str, text: &str) -> Target {
    let (authority, rest) = text.split_at(text.find(['/', '?', '#']).unwrap_or(text.len()));
    // The last one: an `@` in a password should be escaped, and often is not.
    let (user_info, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = match user_info.split_once(':') {
        Some((user, password)) => (user, Some(decoded(password))),
        None => (user_info, None),
    };
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let of_query = query.split('&').filter_map(|pair| pair.split_once('='));
    let of_query = of_query.filter(|(name, _)| name.eq_ignore_ascii_case("password"));
    Target {
        scheme: scheme.to_ascii_lowercase(),
        user: decoded(user),
        password: password.or_else(|| of_query.map(|(_, value)| decoded(value)).next()),
        hosts: self::hosts(hosts),
        path: path.trim_matches('/').to_owned(),
    }
}

fn mysql(text: &str) -> Option<Target> {
    let (user_info, rest) = text.split_once("@tcp(")?;
    let (hosts, path) = rest.split_once(')')?;
    let (user, password) = user_info.split_once(':').unwrap_or((user_info, ""));
    Some(Target {
        scheme: "mysql".to_owned(),
        user: user.to_owned(),
        password: (!password.is_empty()).then(|| password.to_owned()),
        hosts: self::hosts(hosts),
        path: path.trim_matches('/').split('?').next().unwrap_or_default().to_owned(),
    })
}

/// `host=db port=5432 user=shop password=…`, also with `;`.
fn pairs(text: &str) -> Option<Target> {
    let pairs: Vec<(String, &str)> = text
        .split([' ', ';'])
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| {
            (name.trim().to_ascii_lowercase(), value.trim_matches(['\'', '"', ' ']))
        })
        .collect();
    let of = |names: &[&str]| {
        pairs.iter().find(|(name, _)| names.contains(&name.as_str())).map(|(_, value)| *value)
    };
    let host = of(&["host", "server", "source"])?;
    let port = of(&["port"]).and_then(|port| port.parse().ok());
    Some(Target {
        scheme: String::new(),
        user: of(&["user", "username", "uid"]).unwrap_or_default().to_owned(),
        password: of(&["password", "pwd"]).map(str::to_owned),
        hosts: self::hosts(host).into_iter().map(|(host, own)| (host, own.or(port))).collect(),
        path: of(&["dbname", "database"]).unwrap_or_default().to_owned(),
    })
}

/// `a:5672,b`, `[::1]:80`: hosts with their ports.
pub(crate) fn hosts(text: &str) -> Vec<(String, Option<u16>)> {
    let parts = text.split(|c: char| c == ',' || c == ';' || c.is_whitespace());
    parts.map(str::trim).filter(|part| !part.is_empty()).map(host).collect()
}

fn host(text: &str) -> (String, Option<u16>) {
    if let Some((address, rest)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return (address.to_ascii_lowercase(), rest.trim_start_matches(':').parse().ok());
    }
    match text.split_once(':') {
        // More than one colon: an IPv6 address without brackets.
        Some((name, port)) if !port.contains(':') => (name.to_ascii_lowercase(), port.parse().ok()),
        Some(_) | None => (text.trim_end_matches('.').to_ascii_lowercase(), None),
    }
}

fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(|_| bytes[at] == b'%') {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let one = |t: Target| {
            let hosts: Vec<String> =
                t.hosts.iter().map(|(h, p)| p.map_or(h.clone(), |p| format!("{h}:{p}"))).collect();
            let password = t.password.as_deref().unwrap_or("-");
            format!("{}|{}|{password}|{}|{}", t.scheme, t.user, hosts.join("+"), t.path)
        };
        targets(text).into_iter().map(one).collect::<Vec<_>>().join("  ")
    }

    #[test]
    fn targets_are_found_however_they_are_written() {
        for (text, expected) in [
            ("postgres://shop:p%40ss@DB:5432/shop?sslmode=off", "postgres|shop|p@ss|db:5432|shop"),
            ("redis://:pw@cache/0", "redis||pw|cache|0"),
            ("amqp://a:b@h1:1,h2:2/", "amqp|a|b|h1:1+h2:2|"),
            ("http://a:1,http://b:2", "http||-|a:1|  http||-|b:2|"),
            ("jdbc:postgresql://db/shop?user=x&password=y", "postgresql||y|db|shop"),
            ("mqtt://[::1]:1883", "mqtt||-|::1:1883|"),
            ("u:p@tcp(db:3306)/shop?x=1", "mysql|u|p|db:3306|shop"),
            ("host=db port=5432 user=u password='p' dbname=shop", "|u|p|db:5432|shop"),
            ("Server=db;Database=shop;Pwd=p", "||p|db|shop"),
            ("sh -c 'redis-cli -u redis://cache:6379'", "redis||-|cache:6379|"),
            ("postgres://u:p@ss@db/x", "postgres|u|p@ss|db|x"),
            ("just words", ""),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }
}
