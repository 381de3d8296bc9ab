use crate::http::{Handler, Reply, Request};
use crate::settings::{Fault, Settings};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The longest answer that `/slow` delays.
const MAX_SLOW_MS: u64 = 60_000;

/// The middle: takes orders and keeps nothing.
pub struct Api {
    settings: Arc<Settings>,
    orders: AtomicU64,
    bytes: AtomicU64,
}

impl Api {
    pub fn new(settings: Arc<Settings>) -> Api {
        Api { settings, orders: AtomicU64::new(0), bytes: AtomicU64::new(0) }
    }

    fn order(&self, request: &Request) -> Reply {
        let received = request.body.len() as u64;
        let number = self.orders.fetch_add(1, Relaxed) + 1;
        self.bytes.fetch_add(received, Relaxed);
        Reply::json(201, json!({ "order": number, "bytes": received }))
    }

    async fn slow(&self, request: &Request) -> Reply {
        let ms = match milliseconds(request) {
            Ok(ms) => ms,
            Err(refusal) => return refusal,
        };
        tokio::time::sleep(Duration::from_millis(ms)).await;
        Reply::json(200, json!({ "version": self.settings.version, "slow_ms": ms }))
    }
}

/// `?ms=…`; a second where nothing is said.
pub fn milliseconds(request: &Request) -> Result<u64, Reply> {
    let wanted = request.query.split('&').find_map(|pair| pair.strip_prefix("ms="));
    let ms = wanted.unwrap_or("1000").parse().ok().filter(|ms| *ms <= MAX_SLOW_MS);
    ms.ok_or_else(|| {
        let error = format!("ms is a number up to {MAX_SLOW_MS}");
        Reply::json(400, json!({ "error": error }))
    })
}

impl Handler for Api {
    async fn handle(&self, request: Request) -> Reply {
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/version") => Reply::json(200, json!({ "version": self.settings.version })),
            ("GET", "/health") => health(&self.settings),
            ("GET", "/slow") => self.slow(&request).await,
            ("GET", "/stream") => Reply::Events,
            ("POST", "/orders") => self.order(&request),
            ("GET", "/orders") => {
                let (orders, bytes) = (self.orders.load(Relaxed), self.bytes.load(Relaxed));
                Reply::json(200, json!({ "orders": orders, "bytes": bytes }))
            }
            _ => Reply::not_found(&request),
        }
    }
}

/// What every role answers to its health check.
pub fn health(settings: &Settings) -> Reply {
    match settings.fault {
        Fault::Health => {
            Reply::json(503, json!({ "status": "this release is never healthy (FAULT=health)" }))
        }
        Fault::None | Fault::Crash | Fault::Slow | Fault::ExitLater => {
            Reply::json(200, json!({ "status": "ok" }))
        }
    }
}
