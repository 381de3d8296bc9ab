//! Images: looking, pulling, naming, removing.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bollard::errors::Error;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, pin_mut};
use serde_json::{Map, Value, json};
use shiplap_model::{
    EngineError, EngineErrorKind, ImageInfo, Limit, Progress, ProgressSink, RegistryAnswer,
};
use shiplap_registry::retry;

use crate::client::{Call, Lines, Wait, encoded};
use crate::engine::DockerEngine;
use crate::error::{self, from_bollard};
use crate::inspect::milliseconds;
use crate::observe::found;
use crate::registry;

/// Deleting the layers of a large image on a slow disk.
const REMOVE_LIMIT: Duration = Duration::from_secs(5 * 60);

impl DockerEngine {
    pub(crate) async fn inspect_image(
        &self,
        reference: &str,
    ) -> Result<Option<ImageInfo>, EngineError> {
        Ok(self.inspect_image_with_config(reference).await?.map(|(info, _)| info))
    }

    /// An image, and its configuration in the engine's words.
    pub(crate) async fn inspect_image_with_config(
        &self,
        reference: &str,
    ) -> Result<Option<(ImageInfo, Arc<Value>)>, EngineError> {
        self.api().await?;
        let call = Call::get(format!("/images/{}/json", encoded(reference)));
        let doing = || format!("looking at image {reference}");
        let Some(image) = found(self.client.fetch(call, doing).await)? else { return Ok(None) };
        let info = image_info(&image);
        let config = match self.remembered_image(&info.id) {
            Some(config) => config,
            None => self.remember_image(&info.id, image["Config"].clone()),
        };
        Ok(Some((info, config)))
    }

    pub(crate) async fn all_images(&self) -> Result<Vec<ImageInfo>, EngineError> {
        self.api().await?;
        let all = self.client.fetch(Call::get("/images/json"), || "listing images".into()).await?;
        let ids: BTreeSet<String> = all
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|image| image["Id"].as_str().map(str::to_owned))
            .collect();
        let mut out = Vec::new();
        let infos = futures_util::stream::iter(ids)
            .map(|id| async move { self.inspect_image(&id).await })
            .buffered(16);
        pin_mut!(infos);
        while let Some(info) = infos.next().await {
            out.extend(info?);
        }
        Ok(out)
    }

    pub(crate) async fn used_images(&self) -> Result<Vec<String>, EngineError> {
        self.api().await?;
        let call = Call::get("/containers/json").query("all", "1");
        let all = self.client.fetch(call, || "listing containers".into()).await?;
        let ids: BTreeSet<String> = all
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|container| container["ImageID"].as_str().map(str::to_owned))
            .collect();
        Ok(ids.into_iter().collect())
    }

    pub(crate) async fn ask_registry(
        &self,
        reference: &str,
    ) -> Result<RegistryAnswer, EngineError> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let answer = self.ask_registry_once(reference).await?;
            // An engine does not pass on for how long the registry wants to be left alone.
            let RegistryAnswer::RateLimited(_) = answer else { return Ok(answer) };
            match retry::wait(attempts, None) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Ok(answer),
            }
        }
    }

    async fn ask_registry_once(&self, reference: &str) -> Result<RegistryAnswer, EngineError> {
        self.api().await?;
        let mut call = Call::get(format!("/distribution/{}/json", encoded(reference)));
        if let Some(header) = registry::auth_header(&self.keyring, reference).await {
            call = call.header("x-registry-auth", header);
        }
        let doing = || format!("asking the registry for {reference}");
        match self.client.send_within(call, self.client.wait(Limit::Registry), doing).await {
            Ok(body) => {
                let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
                Ok(match answer["Descriptor"]["digest"].as_str() {
                    Some(digest) => RegistryAnswer::Digest(digest.to_owned()),
                    None => RegistryAnswer::Missing("the answer names no digest".into()),
                })
            }
            Err(error) => said_no(error),
        }
    }

    pub(crate) async fn pull_image(
        &self,
        reference: &str,
        platform: Option<&str>,
        progress: &ProgressSink,
    ) -> Result<ImageInfo, EngineError> {
        self.api().await?;
        let doing = || format!("pulling {reference}");
        let (name, tag) = split_reference(reference);
        let mut call = Call::post("/images/create").query("fromImage", name).query("tag", tag);
        if let Some(platform) = platform {
            call = call.query("platform", platform);
        }
        if let Some(header) = registry::auth_header(&self.keyring, reference).await {
            call = call.header("x-registry-auth", header);
        }
        let mut layers = Layers::default();
        let outcome = self
            .follow(call, Limit::Pull, doing, &AtomicU64::new(0), |event| {
                if let Some(bytes) = layers.update(event) {
                    progress(bytes);
                }
            })
            .await;
        if let Err(mut error) = outcome {
            explain(&mut error, reference);
            return Err(error);
        }
        let missing = || {
            let message = "the engine pulled it and does not have it";
            error::with_kind(EngineErrorKind::Internal, doing(), message)
        };
        self.inspect_image(reference).await?.ok_or_else(missing)
    }

    pub(crate) async fn tag_image(
        &self,
        image_id: &str,
        reference: &str,
    ) -> Result<(), EngineError> {
        self.api().await?;
        let (name, tag) = split_reference(reference);
        let path = format!("/images/{}/tag", encoded(image_id));
        let call = Call::post(path).query("repo", name).query("tag", tag);
        let doing = || format!("tagging {image_id} as {reference}");
        self.client.send(call, doing).await.map(drop)
    }

    pub(crate) async fn untag_image(&self, reference: &str) -> Result<(), EngineError> {
        self.api().await?;
        let call = Call::delete(format!("/images/{}", encoded(reference)));
        let doing = || format!("removing image {reference}");
        let wait = Wait { limit: Limit::EngineCall, time: REMOVE_LIMIT };
        found(self.client.send_within(call, wait, doing).await).map(drop)
    }

    /// Follows a long call's events until its end, within a limit, or until it is silent for too
    /// long.
    pub(crate) async fn follow(
        &self,
        call: Call,
        limit: Limit,
        doing: impl Fn() -> String,
        sent: &AtomicU64,
        on_event: impl FnMut(&Value),
    ) -> Result<(), EngineError> {
        let (whole, silence) = (self.client.wait(limit), self.client.wait(Limit::Silence));
        let stream = self.client.stream(call);
        let followed = follow_stream(stream, silence, &doing, sent, on_event);
        match tokio::time::timeout(whole.time, followed).await {
            Ok(result) => result,
            Err(_) => Err(whole.over(doing(), "not done")),
        }
    }
}

/// What an engine passes on of a registry that did not name a digest. Most come as the engine's own
/// fault, so the words decide.
fn said_no(error: EngineError) -> Result<RegistryAnswer, EngineError> {
    let lower = error.message.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    match error.kind {
        EngineErrorKind::Unreachable | EngineErrorKind::Broken | EngineErrorKind::TooOld => {
            Err(error)
        }
        EngineErrorKind::Invalid if says(&["invalid reference"]) => Err(error),
        _ if says(RATE_LIMITED) => Ok(RegistryAnswer::RateLimited(error.message)),
        _ if says(&["dial tcp", "no such host"]) => Ok(RegistryAnswer::Unreachable(error.message)),
        _ if says(&["name unknown", "name_unknown"]) => {
            Ok(RegistryAnswer::NoRepository(error.message))
        }
        EngineErrorKind::Denied => Ok(RegistryAnswer::Denied(error.message)),
        EngineErrorKind::NotFound => Ok(RegistryAnswer::Missing(error.message)),
        _ if says(&["unauthorized", "denied", "no basic auth", "authentication required"]) => {
            Ok(RegistryAnswer::Denied(error.message))
        }
        _ if says(&["manifest unknown", "not found"]) => Ok(RegistryAnswer::Missing(error.message)),
        _ => Ok(RegistryAnswer::Unreachable(error.message)),
    }
}

/// What registries say when they are asked too often.
const RATE_LIMITED: &[&str] = &["toomanyrequests", "too many requests", "rate limit", "429"];

/// Whether a registry was asked too often.
pub(crate) fn is_rate_limit(error: &EngineError) -> bool {
    let lower = error.message.to_lowercase();
    RATE_LIMITED.iter().any(|word| lower.contains(word))
}

/// Finds out what kind of trouble a registry made, for pulls and pushes alike.
pub(crate) fn explain(error: &mut EngineError, reference: &str) {
    let host = registry::host(reference);
    let lower = error.message.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    if is_rate_limit(error) {
        error.help = Some(format!("wait, or `docker login {host}`, which has a higher limit"));
    } else if says(&["unauthorized", "denied", "no basic auth", "authentication required"]) {
        error.kind = EngineErrorKind::Denied;
        error.help = Some(format!("docker login {host}"));
    } else if says(&["manifest unknown", "not found", "name unknown"]) {
        error.kind = EngineErrorKind::NotFound;
    }
}

/// Reads a stream of JSON lines; one that names an error ends it.
async fn follow_stream(
    stream: impl Stream<Item = Result<Bytes, Error>>,
    silence: Wait,
    doing: impl Fn() -> String,
    sent: &AtomicU64,
    mut on_event: impl FnMut(&Value),
) -> Result<(), EngineError> {
    pin_mut!(stream);
    let mut lines = Lines::default();
    let mut sent_before = 0;
    loop {
        let chunk = match tokio::time::timeout(silence.time, stream.next()).await {
            Ok(Some(chunk)) => chunk.map_err(|e| from_bollard(doing(), &e))?,
            Ok(None) => break,
            Err(_) => {
                let sent_now = sent.load(Ordering::Relaxed);
                if sent_now == sent_before {
                    return Err(silence.over(doing(), "no progress"));
                }
                sent_before = sent_now;
                continue;
            }
        };
        for line in lines.push(&chunk) {
            event(&line, &doing, &mut on_event)?;
        }
    }
    event(&lines.finish(), &doing, &mut on_event)
}

fn event(
    line: &[u8],
    doing: impl Fn() -> String,
    mut on_event: impl FnMut(&Value),
) -> Result<(), EngineError> {
    let Ok(event) = serde_json::from_slice::<Value>(line) else { return Ok(()) };
    on_event(&event);
    let message = event["errorDetail"]["message"].as_str().or_else(|| event["error"].as_str());
    match message {
        Some(message) => {
            Err(from_bollard(doing(), &Error::DockerStreamError { error: message.to_owned() }))
        }
        None => Ok(()),
    }
}

/// `repository:tag` or `repository@digest` in two parts.
pub(crate) fn split_reference(reference: &str) -> (&str, &str) {
    if let Some((name, digest)) = reference.split_once('@') {
        // A tag beside a digest says nothing more.
        return (split_reference(name).0, digest);
    }
    match reference.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (reference, "latest"),
    }
}

/// Bytes of each layer: done, total.
#[derive(Default)]
struct Layers {
    layers: HashMap<String, (u64, u64)>,
    reported: (u64, u64),
}

impl Layers {
    fn update(&mut self, event: &Value) -> Option<Progress> {
        let id = event["id"].as_str()?;
        let layer = self.layers.entry(id.to_owned()).or_default();
        match event["status"].as_str()? {
            "Downloading" => {
                let number = |key: &str| event["progressDetail"][key].as_u64().unwrap_or(0);
                *layer = (number("current"), number("total"));
            }
            "Download complete" | "Pull complete" => layer.0 = layer.1,
            _ => return None,
        }
        let sums = self.layers.values().fold((0, 0), |sum, l| (sum.0 + l.0, sum.1 + l.1));
        if sums == self.reported {
            return None;
        }
        self.reported = sums;
        Some(Progress::Bytes { done_bytes: sums.0, total_bytes: sums.1 })
    }
}

fn image_info(image: &Value) -> ImageInfo {
    let config = &image["Config"];
    let texts = |value: &Value| -> Vec<String> {
        let list = value.as_array().into_iter().flatten();
        list.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let keys = |value: &Value| -> Vec<String> {
        value.as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect()
    };
    let check = config["Healthcheck"]["Test"].as_array();
    let first = check.and_then(|test| test.first()).and_then(Value::as_str);
    let labels = config["Labels"].as_object().into_iter().flatten();
    ImageInfo {
        id: image["Id"].as_str().unwrap_or_default().to_owned(),
        tags: texts(&image["RepoTags"]),
        repo_digests: texts(&image["RepoDigests"]),
        size_bytes: image["Size"].as_u64().unwrap_or(0),
        created_s: milliseconds(&image["Created"]).unwrap_or(0) / 1000,
        labels: labels
            .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
            .collect(),
        exposed_tcp: keys(&config["ExposedPorts"])
            .iter()
            .filter_map(|port| port.strip_suffix("/tcp").unwrap_or(port).parse().ok())
            .collect(),
        environment: texts(&config["Env"])
            .into_iter()
            .map(|line| match line.split_once('=') {
                Some((name, value)) => (name.to_owned(), value.to_owned()),
                None => (line, String::new()),
            })
            .collect(),
        volumes: keys(&config["Volumes"]),
        has_healthcheck: first.is_some_and(|first| first != "NONE"),
        start_period_ms: config["Healthcheck"]["StartPeriod"].as_u64().unwrap_or(0) / 1_000_000,
    }
}

/// The configuration of an image, as far as [`ImageInfo`] tells.
pub(crate) fn partial_config(info: &ImageInfo) -> Value {
    let variables: Vec<String> =
        info.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let volumes: Map<String, Value> =
        info.volumes.iter().map(|target| (target.clone(), json!({}))).collect();
    json!({"Env": variables, "Labels": info.labels, "Volumes": volumes})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_split_at_the_tag_or_digest() {
        assert_eq!(split_reference("reg:5000/a/b"), ("reg:5000/a/b", "latest"));
        assert_eq!(split_reference("reg:5000/a:v1"), ("reg:5000/a", "v1"));
        assert_eq!(split_reference("a:v1@sha256:ff"), ("a", "sha256:ff"));
    }

    #[test]
    fn progress_of_a_pull_is_summed_over_layers() {
        let mut layers = Layers::default();
        let event = |id: &str, current: u64| {
            json!({"id": id, "status": "Downloading",
                "progressDetail": {"current": current, "total": 10}})
        };
        layers.update(&event("a", 4));
        let progress = layers.update(&event("b", 1));
        assert_eq!(progress, Some(Progress::Bytes { done_bytes: 5, total_bytes: 20 }));
        let done = json!({"id": "a", "status": "Pull complete"});
        let progress = layers.update(&done);
        assert_eq!(progress, Some(Progress::Bytes { done_bytes: 11, total_bytes: 20 }));
        assert_eq!(layers.update(&done), None);
    }
}
