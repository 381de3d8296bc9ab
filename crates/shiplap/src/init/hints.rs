//! Which host goes to which service, as far as configurations of other proxies tell. They are read
//! line by line: what is found is a proposal, and what is not found is asked of nobody.

use shiplap_compose::model::{Project, Service};

/// A proposal for a route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hint {
    /// The host.
    pub host: String,
    /// The path, where it is not all.
    pub path: Option<String>,
    /// The service.
    pub service: String,
    /// Its port.
    pub port: Option<u16>,
}

/// Whose configuration a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Caddy,
    Nginx,
}

/// Whose configuration a file is, by its name.
pub fn kind(file: &str) -> Option<Kind> {
    let is_caddy = file.eq_ignore_ascii_case("caddyfile") || file.ends_with(".caddy");
    match (is_caddy, file.ends_with(".conf")) {
        (true, _) => Some(Kind::Caddy),
        (false, true) => Some(Kind::Nginx),
        (false, false) => None,
    }
}

/// What a configuration tells.
pub fn hints(kind: Kind, text: &str) -> Vec<Hint> {
    match kind {
        Kind::Caddy => caddy(text),
        Kind::Nginx => nginx(text),
    }
}

fn caddy(text: &str) -> Vec<Hint> {
    let mut found = Vec::new();
    let mut depth = 0_usize;
    let mut hosts: Vec<String> = Vec::new();
    let mut path: Option<String> = None;
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        if depth == 0 && line.ends_with('{') {
            let addresses = line.trim_end_matches('{').split([',', ' ']);
            hosts = addresses.filter_map(host).collect();
        }
        if depth == 1 && matches!(words.first(), Some(&("handle" | "handle_path" | "route"))) {
            path = words.get(1).and_then(|word| prefix(word));
        }
        if let Some(rest) = words.strip_prefix(&["reverse_proxy"]) {
            let own = rest.first().and_then(|word| prefix(word));
            let upstream = rest.iter().find(|word| !word.starts_with(['/', '@', '*', '{']));
            if let Some((service, port)) = upstream.and_then(|word| upstream_of(word)) {
                let path = own.or_else(|| path.clone());
                found.extend(hosts.iter().map(|host| Hint {
                    host: host.clone(),
                    path: path.clone(),
                    service: service.clone(),
                    port,
                }));
            }
        }
        depth += line.matches('{').count();
        depth = depth.saturating_sub(line.matches('}').count());
        if depth <= 1 {
            path = None;
        }
    }
    found
}

fn nginx(text: &str) -> Vec<Hint> {
    let mut found = Vec::new();
    let mut hosts: Vec<String> = Vec::new();
    let mut path: Option<String> = None;
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        let words: Vec<&str> = line.trim_end_matches([';', '{']).split_whitespace().collect();
        match words.as_slice() {
            ["server"] => hosts.clear(),
            ["server_name", names @ ..] => hosts = names.iter().copied().filter_map(host).collect(),
            ["location", words @ ..] => {
                path = words.last().and_then(|word| prefix(word));
            }
            ["proxy_pass", to] => {
                if let Some((service, port)) = upstream_of(to) {
                    found.extend(hosts.iter().map(|host| Hint {
                        host: host.clone(),
                        path: path.clone(),
                        service: service.clone(),
                        port,
                    }));
                }
            }
            _ => {}
        }
    }
    found
}

/// What labels for Traefik and for Caddy tell.
pub fn of_labels(project: &Project) -> Vec<Hint> {
    project
        .services
        .iter()
        .flat_map(|(name, service)| {
            let mut found = traefik(name, service);
            found.extend(caddy_labels(name, service));
            found
        })
        .collect()
}

fn traefik(name: &str, service: &Service) -> Vec<Hint> {
    let with_end = |end: &str| {
        let end = end.to_owned();
        service
            .labels
            .iter()
            .filter(move |(key, _)| key.starts_with("traefik.http.") && key.ends_with(end.as_str()))
    };
    let port = with_end(".loadbalancer.server.port").find_map(|(_, port)| port.parse().ok());
    let hints = with_end(".rule").flat_map(|(_, rule)| {
        let path = between(rule, "PathPrefix(`", "`").next().filter(|path| *path != "/");
        let hosts = between(rule, "Host(`", "`").filter_map(host);
        hosts
            .map(|host| Hint {
                host,
                path: path.map(str::to_owned),
                service: name.to_owned(),
                port,
            })
            .collect::<Vec<_>>()
    });
    hints.collect()
}

fn caddy_labels(name: &str, service: &Service) -> Vec<Hint> {
    let text = |key: &str| service.labels.get(key).map(String::as_str);
    let Some(addresses) = text("caddy") else { return Vec::new() };
    let proxy = text("caddy.reverse_proxy").unwrap_or_default();
    let port = proxy.split(|c: char| !c.is_ascii_digit()).find_map(|digits| digits.parse().ok());
    let hosts = addresses.split([',', ' ']).filter_map(host);
    hosts.map(|host| Hint { host, path: None, service: name.to_owned(), port }).collect()
}

/// Texts between two others.
fn between<'a>(text: &'a str, from: &'a str, to: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(from).skip(1).filter_map(move |rest| rest.split(to).next())
}

/// A host name that a route can have: with a dot, and without a variable.
fn host(word: &str) -> Option<String> {
    let word = word.trim().trim_start_matches("https://").trim_start_matches("http://");
    let word = word.split(':').next().unwrap_or_default().trim_end_matches('/');
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    let is_host = word.contains('.')
        && word.starts_with(|c: char| c.is_ascii_alphanumeric())
        && word.ends_with(|c: char| c.is_ascii_alphabetic())
        && !word.contains("..")
        && word.chars().all(inner);
    is_host.then(|| word.to_ascii_lowercase())
}

/// `/api/*` and `/api/` are `/api`; nothing for all, and for what is no prefix.
fn prefix(word: &str) -> Option<String> {
    let path = word.trim_end_matches('*').trim_end_matches('/');
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '.');
    (path.starts_with('/') && path.chars().all(plain)).then(|| path.to_owned())
}

/// `http://api:8000/` is `api` and 8000.
fn upstream_of(word: &str) -> Option<(String, Option<u16>)> {
    let word = word.trim_start_matches("https://").trim_start_matches("http://");
    let word = word.split('/').next()?;
    let (name, port) = match word.split_once(':') {
        Some((name, port)) => (name, Some(port.parse().ok()?)),
        None => (word, None),
    };
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (!name.is_empty() && name.chars().all(inner)).then(|| (name.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use shiplap_compose::{MemoryFiles, Request};

    use super::*;

    fn shown(hints: &[Hint]) -> Vec<String> {
        let show = |hint: &Hint| {
            let path = hint.path.as_deref().unwrap_or("");
            format!("{}{path} -> {}:{}", hint.host, hint.service, hint.port.unwrap_or(0))
        };
        hints.iter().map(show).collect()
    }

    #[test]
    fn a_caddyfile_tells_hosts_paths_and_services() {
        let text = "{\n\temail a@b.example\n}\n\
            shop.example, www.shop.example {\n\
            \thandle /api/* {\n\t\treverse_proxy api:8000\n\t}\n\
            \thandle {\n\t\treverse_proxy web:3000\n\t}\n}\n\
            vault.example {\n\treverse_proxy /files/* http://vault:9000\n}\n\
            {$DOMAIN} {\n\treverse_proxy web:3000\n}\n";
        assert_eq!(
            shown(&hints(Kind::Caddy, text)),
            [
                "shop.example/api -> api:8000",
                "www.shop.example/api -> api:8000",
                "shop.example -> web:3000",
                "www.shop.example -> web:3000",
                "vault.example/files -> vault:9000",
            ]
        );
    }

    #[test]
    fn a_configuration_of_nginx_tells_them_too() {
        let text = "server {\n  listen 80;\n  server_name shop.example _;\n\
            location /api/ {\n proxy_pass http://api:8000/;\n }\n\
            location / {\n proxy_pass http://web;\n }\n\
            location ~ \\.php$ { proxy_pass http://php:9000; }\n}\n";
        let found = hints(Kind::Nginx, text);
        assert_eq!(shown(&found), ["shop.example/api -> api:8000", "shop.example -> web:0"]);
    }

    #[test]
    fn labels_tell_them_too() {
        let compose = "services:\n  web:\n    image: web\n    labels:\n\
            \x20     traefik.http.routers.web.rule: Host(`a.example`) && PathPrefix(`/x`)\n\
            \x20     traefik.http.services.web.loadbalancer.server.port: \"3000\"\n\
            \x20 api:\n    image: api\n    labels:\n      caddy: b.example\n\
            \x20     caddy.reverse_proxy: \"{{upstreams 8000}}\"\n";
        let files = MemoryFiles::from([("/shop/compose.yaml", compose.to_owned())]);
        let request = Request { working_dir: "/shop".into(), ..Request::default() };
        let project = shiplap_compose::load(&request, &files).expect("it is right").project;
        assert_eq!(
            shown(&of_labels(&project)),
            ["a.example/x -> web:3000", "b.example -> api:8000"]
        );
    }
}
