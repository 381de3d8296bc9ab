//! The load on the three published ports, from before the second act to the last.

use crate::folder::Folder;
use shiplap_load::{Config, Connections, Load, NoAnswer, Report, Running, Url, first_answer};
use std::time::Duration;

/// The services, in the order of every list and table.
pub const SERVICES: [&str; 3] = ["web", "api", "store"];
/// The header by which an answer tells its version.
const VERSION_HEADER: &str = "x-version";
/// Longer than a service may be held, so that a drop is a drop and not impatience.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
const ORDER_BYTES: usize = 2000;

/// What is asked, and how often.
pub struct Traffic {
    /// Requests per second to each service.
    pub rate: f64,
    /// Requested from web.
    pub web_path: String,
    /// The published ports of the services.
    pub ports: [u16; 3],
}

impl Traffic {
    /// Traffic for the project in the folder.
    pub fn new(folder: &Folder, rate: f64, web_path: &str) -> Traffic {
        Traffic { rate, web_path: web_path.into(), ports: folder.ports }
    }

    /// Starts the load: web is read over kept connections, api gets orders over new ones, store is
    /// read over kept ones.
    pub fn start(&self) -> Result<Vec<Running>, String> {
        let [web, api, store] = self.urls([&self.web_path, "/orders", "/count"]);
        let mut orders = self.config(api);
        orders.connections = Connections::PerRequest;
        orders.method = "POST".into();
        orders.body_bytes = ORDER_BYTES;
        [self.config(web), orders, self.config(store)]
            .into_iter()
            .map(|config| Load::start(config).map_err(|e| format!("starting the load failed: {e}")))
            .collect()
    }

    /// Appends lines to the store, as many as are asked for, and says how many were acknowledged.
    pub async fn append(&self, count: u32) -> Result<Report, String> {
        let [_, _, store] = self.urls(["", "", "/append"]);
        let mut config = self.config(store);
        config.method = "POST".into();
        config.body_bytes = 20;
        config.rate = 100.0;
        config.duration = Some(Duration::from_millis(10 * u64::from(count)));
        let running = Load::start(config).map_err(|e| format!("starting the load failed: {e}"))?;
        Ok(running.finished().await)
    }

    /// The lines that the store has.
    pub async fn count(&self) -> Result<u64, String> {
        let [_, _, store] = self.urls(["", "", "/count"]);
        let answer = shiplap_load::get(&store, None, REQUEST_TIMEOUT).await;
        let answer = answer.map_err(|kind| format!("the store did not answer: {kind}"))?;
        let value: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        value["count"].as_u64().ok_or_else(|| "the store did not answer with a count".into())
    }

    /// Waits until every service answers with the version, and says how long each took.
    pub async fn all_answer(
        &self,
        version: &str,
        limit: Duration,
    ) -> Result<[Duration; 3], String> {
        let urls = self.urls([&self.web_path, "/version", "/version"]);
        let [web, api, store] = &urls;
        let (web, api, store) = tokio::join!(
            first_answer(web, VERSION_HEADER, version, limit),
            first_answer(api, VERSION_HEADER, version, limit),
            first_answer(store, VERSION_HEADER, version, limit),
        );
        let text = |error: NoAnswer| error.to_string();
        Ok([web.map_err(text)?, api.map_err(text)?, store.map_err(text)?])
    }

    fn config(&self, url: Url) -> Config {
        let mut config = Config::new(url, self.rate);
        config.tag = Some(VERSION_HEADER.into());
        config.timeout = REQUEST_TIMEOUT;
        config
    }

    fn urls(&self, paths: [&str; 3]) -> [Url; 3] {
        let [web, api, store] = self.ports.map(|port| -> Url {
            format!("http://127.0.0.1:{port}/").parse().expect("a port makes an address")
        });
        [web.with_path(paths[0]), api.with_path(paths[1]), store.with_path(paths[2])]
    }
}
