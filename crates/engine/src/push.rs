//! Images to registries.

use std::sync::atomic::AtomicU64;

use http::HeaderValue;
use serde_json::Value;
use shiplap_model::{EngineError, Limit, Progress, ProgressSink};
use shiplap_registry::retry;

use crate::client::{Call, encoded};
use crate::engine::DockerEngine;
use crate::images::{explain, is_rate_limit, split_reference};
use crate::registry;

/// What an engine takes for a login where there is none; without the header it refuses to push.
const NO_LOGIN: &str = "e30=";

/// An image that is in its registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The digest of its manifest there.
    pub digest: String,
}

impl DockerEngine {
    /// Pushes an image by its name, with the login for its registry.
    ///
    /// # Errors
    /// When the registry does not take it; an engine that has no such image.
    pub async fn push(
        &self,
        reference: &str,
        progress: &ProgressSink,
    ) -> Result<Pushed, EngineError> {
        self.api().await?;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let mut error = match self.push_once(reference, progress).await {
                Ok(pushed) => return Ok(pushed),
                Err(error) => error,
            };
            let pause = match is_rate_limit(&error) {
                true => retry::wait(attempts, None),
                false => None,
            };
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => {
                    explain(&mut error, reference);
                    return Err(error);
                }
            }
        }
    }

    async fn push_once(
        &self,
        reference: &str,
        progress: &ProgressSink,
    ) -> Result<Pushed, EngineError> {
        let doing = || format!("pushing {reference}");
        let (name, tag) = split_reference(reference);
        let login = registry::auth_header(&self.keyring, reference).await;
        let login = login.unwrap_or(HeaderValue::from_static(NO_LOGIN));
        let call = Call::post(format!("/images/{}/push", encoded(name)))
            .query("tag", tag)
            .header("x-registry-auth", login);
        let mut digest = None;
        let mut layers = Layers::default();
        self.follow(call, Limit::Pull, doing, &AtomicU64::new(0), |event| {
            if let Some(found) = event["aux"]["Digest"].as_str() {
                digest = Some(found.to_owned());
            }
            if let Some(bytes) = layers.update(event) {
                progress(bytes);
            }
        })
        .await?;
        // Engines that name no digest at the end know it by then.
        let known = match digest {
            Some(digest) => Some(digest),
            None => self.digest_of(reference).await?,
        };
        let missing = || {
            let message = "the engine pushed it and names no digest";
            crate::error::with_kind(shiplap_model::EngineErrorKind::Internal, doing(), message)
        };
        Ok(Pushed { digest: known.ok_or_else(missing)? })
    }

    async fn digest_of(&self, reference: &str) -> Result<Option<String>, EngineError> {
        let (name, _) = split_reference(reference);
        let info = self.inspect_image(reference).await?;
        let digests = info.into_iter().flat_map(|info| info.repo_digests);
        let mut digests = digests.filter_map(|known| {
            let (repository, digest) = known.split_once('@')?;
            (repository == name).then(|| digest.to_owned())
        });
        Ok(digests.next())
    }
}

/// Bytes of each layer: done, total.
#[derive(Default)]
struct Layers {
    layers: std::collections::HashMap<String, (u64, u64)>,
}

impl Layers {
    fn update(&mut self, event: &Value) -> Option<Progress> {
        let id = event["id"].as_str()?;
        if event["status"] != "Pushing" {
            return None;
        }
        let number = |key: &str| event["progressDetail"][key].as_u64().unwrap_or(0);
        let (current, total) = (number("current"), number("total"));
        self.layers.insert(id.to_owned(), (current, total.max(current)));
        let sums = self.layers.values().fold((0, 0), |sum, l| (sum.0 + l.0, sum.1 + l.1));
        Some(Progress::Bytes { done_bytes: sums.0, total_bytes: sums.1 })
    }
}
