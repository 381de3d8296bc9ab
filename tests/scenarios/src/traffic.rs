//! Load on published ports, and single requests.

use std::collections::BTreeMap;
use std::time::Duration;

use shiplap_load::{Answer, Config, Connections, DropKind, Load, Report, Url};

use crate::wait::{block_on, until};

/// Requests per second of each kind: 210 for a scenario, which two cores that also build, deploy and
/// proxy without optimisation can take twice at a time.
const RATE: f64 = 70.0;
/// Of each POST.
const BODY_BYTES: usize = 4000;
const FLOWS_WITHIN: Duration = Duration::from_secs(20);
const REQUEST_LIMIT: Duration = Duration::from_secs(20);

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// GET over connections that are kept.
    KeepAlive,
    /// GET, each over a connection of its own.
    NewConnections,
    /// POST with a body, over connections that are kept.
    Post,
}

/// Requests that are being sent.
pub struct Traffic {
    loads: Vec<(String, shiplap_load::Running)>,
}

impl Traffic {
    /// Starts and waits until every kind has been answered.
    ///
    /// # Panics
    /// If that does not happen.
    #[must_use]
    pub fn start(streams: &[(u16, Kind, &str)]) -> Self {
        let streams: Vec<_> =
            streams.iter().map(|(port, kind, path)| (*port, *kind, *path, RATE)).collect();
        Self::at_rates(&streams)
    }

    /// The same with so many requests per second of each.
    ///
    /// # Panics
    /// If not every kind is answered.
    #[must_use]
    pub fn at_rates(streams: &[(u16, Kind, &str, f64)]) -> Self {
        shiplap_load::raise_open_file_limit();
        let loads = streams
            .iter()
            .map(|(port, kind, path, rate)| {
                let mut config = Config::new(url(*port, path), *rate);
                config.tag = Some("x-version".to_owned());
                match kind {
                    Kind::KeepAlive => {}
                    Kind::NewConnections => config.connections = Connections::PerRequest,
                    Kind::Post => {
                        config.method = "POST".to_owned();
                        config.body_bytes = BODY_BYTES;
                    }
                }
                let load = Load::start(config).expect("a thread can be made");
                (format!("{kind:?} {port}{path}"), load)
            })
            .collect();
        let traffic = Self { loads };
        until("every kind of request is answered", FLOWS_WITHIN, || {
            traffic.loads.iter().all(|(_, load)| load.snapshot().ok > 5).then_some(())
        });
        traffic
    }

    /// All three kinds to the `api` of the demo's application.
    #[must_use]
    pub fn to_api(port: u16) -> Self {
        Self::start(&[
            (port, Kind::KeepAlive, "/version"),
            (port, Kind::NewConnections, "/version"),
            (port, Kind::Post, "/orders"),
        ])
    }

    /// All three kinds to the `store` of the demo's application.
    #[must_use]
    pub fn to_store(port: u16) -> Self {
        Self::start(&[
            (port, Kind::KeepAlive, "/count"),
            (port, Kind::NewConnections, "/count"),
            (port, Kind::Post, "/append"),
        ])
    }

    /// Waits until every kind is answered by a version.
    ///
    /// # Panics
    /// If that does not happen.
    pub fn answered_by(&self, version: &str) {
        until(&format!("{version} answers everybody"), FLOWS_WITHIN, || {
            let newest = |load: &shiplap_load::Running| load.snapshot().latest_tag;
            let all = self.loads.iter().all(|(_, load)| newest(load).as_deref() == Some(version));
            all.then_some(())
        });
    }

    /// What became of each kind since the start or the latest cut; requests are sent on.
    #[must_use]
    pub fn cut(&self) -> BTreeMap<String, Report> {
        self.loads.iter().map(|(name, load)| (name.clone(), load.cut())).collect()
    }

    /// Ends, and asserts that every request was answered.
    ///
    /// # Panics
    /// If one was not.
    #[track_caller]
    pub fn end_without_a_drop(self) -> BTreeMap<String, Report> {
        let reports = self.end();
        for (name, report) in &reports {
            assert!(report.ok > 0, "{name}: nothing was answered");
            assert_eq!(report.failed(), 0, "{name}: {:#}", report.to_json());
        }
        reports
    }

    /// Ends, and asserts that a replica that died took nothing with it but POSTs that it was
    /// working on, at most `most`: nobody may send those again.
    ///
    /// # Panics
    /// If more was lost.
    #[track_caller]
    pub fn end_losing_only_posts_in_flight(self, most: u64) -> BTreeMap<String, Report> {
        let reports = self.end();
        for (name, report) in &reports {
            assert!(report.ok > 0, "{name}: nothing was answered");
            let allowed = if name.starts_with("Post") { most } else { 0 };
            assert!(report.failed() <= allowed, "{name}: {:#}", report.to_json());
        }
        reports
    }

    /// Ends, and says what became of each kind.
    #[must_use]
    pub fn end(self) -> BTreeMap<String, Report> {
        for (_, load) in &self.loads {
            load.end();
        }
        self.loads.into_iter().map(|(name, load)| (name, block_on(load.stop()))).collect()
    }
}

/// One GET to a published port.
///
/// # Errors
/// How it was dropped.
pub fn get(port: u16, path: &str) -> Result<Answer, DropKind> {
    block_on(shiplap_load::get(&url(port, path), Some("x-version"), REQUEST_LIMIT))
}

/// One POST to a published port; the whole answer as text.
///
/// # Errors
/// What the operating system says.
pub fn post(port: u16, path: &str, body: &str) -> std::io::Result<String> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(REQUEST_LIMIT))?;
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn url(port: u16, path: &str) -> Url {
    format!("http://127.0.0.1:{port}{path}").parse().expect("a well-formed address")
}
