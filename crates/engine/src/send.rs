//! An image from one engine to another, without a registry: only the layers that are missing travel.
//!
//! The classic image store looks for a layer by the digests of it and all below it, and does not open
//! the file of one that it has; so an archive may leave those out. What arrives in one archive is
//! there as a whole or not at all. Therefore layers go in parts, each an image of the layers so far,
//! that are removed in the end: who begins again after an interruption finds what has arrived.
//!
//! A containerd image store wants every file that an archive names, and gets them all.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, pin_mut};
use serde_json::Value;
use shiplap_model::{EngineError, EngineErrorKind, ImageInfo, Limit, Progress, ProgressSink};
use tokio::io::AsyncWriteExt as _;

use crate::archive::{Config, Packing, SavedImage, Shared, sha256};
use crate::client::{Call, encoded};
use crate::context::written;
use crate::endpoint::Endpoint;
use crate::engine::DockerEngine;
use crate::error::{from_bollard, with_kind};

/// Layers go together until they are so large, bytes of their tars: what an interruption may cost.
const PART: u64 = 32 << 20;
/// How often progress is told.
const TELL: Duration = Duration::from_millis(500);
/// What `GET /info` says of a containerd image store.
const CONTAINERD: &str = "io.containerd.snapshotter.v1";
/// Images that are looked at side by side.
const LOOKS: usize = 16;

/// What became of an image that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The image there.
    pub image: ImageInfo,
    /// Layers that it has.
    pub layers: usize,
    /// Layers that were missing there.
    pub sent_layers: usize,
    /// Bytes that travelled.
    pub sent_bytes: u64,
}

impl DockerEngine {
    /// Takes an image out of the engine, into a file without a name below a folder.
    ///
    /// # Errors
    /// When the engine does not have it, or the disk is full.
    pub async fn save(
        &self,
        reference: &str,
        folder: &Path,
        progress: &ProgressSink,
    ) -> Result<SavedImage, EngineError> {
        self.api().await?;
        let doing = || format!("saving {reference}");
        let disk = |error: std::io::Error| {
            let kind = match error.kind() {
                std::io::ErrorKind::StorageFull => EngineErrorKind::DiskFull,
                _ => EngineErrorKind::Internal,
            };
            with_kind(kind, doing(), format!("{}: {error}", folder.display()))
        };
        let file = tempfile::tempfile_in(folder).map_err(disk)?;
        let mut out = tokio::fs::File::from_std(file.try_clone().map_err(disk)?);
        let silence = self.client.wait(Limit::Silence);
        let stream = self.client.stream(Call::get(format!("/images/{}/get", encoded(reference))));
        pin_mut!(stream);
        let mut saved = 0;
        loop {
            let chunk = match tokio::time::timeout(silence.time, stream.next()).await {
                Ok(Some(chunk)) => chunk.map_err(|error| from_bollard(doing(), &error))?,
                Ok(None) => break,
                Err(_) => return Err(silence.over(doing(), "no progress")),
            };
            out.write_all(&chunk).await.map_err(disk)?;
            saved += chunk.len() as u64;
            progress(Progress::Bytes { done_bytes: saved, total_bytes: 0 });
        }
        out.flush().await.map_err(disk)?;
        let opened = tokio::task::spawn_blocking(move || SavedImage::open(file)).await;
        opened.expect("reading an archive does not panic").map_err(disk)
    }

    /// Brings an image here under a name; its id stays. Layers that are here are not sent.
    ///
    /// # Errors
    /// When it cannot be loaded. What has arrived stays, and is not sent again the next time.
    pub async fn receive(
        &self,
        image: SavedImage,
        name: &str,
        progress: &ProgressSink,
    ) -> Result<Sent, EngineError> {
        self.api().await?;
        let image: Shared = Arc::new(image);
        let layers = image.layers();
        if let Some(info) = self.inspect_image(&image.id()).await? {
            self.tag_image(&info.id, name).await?;
            let info = self.inspect_image(name).await?.unwrap_or(info);
            return Ok(Sent { image: info, layers, sent_layers: 0, sent_bytes: 0 });
        }
        let mut delivery = Delivery { engine: self, image, name, progress, sent_bytes: 0 };
        let is_classic = self.has_classic_store().await?;
        let here = if is_classic { delivery.layers_here().await? } else { 0 };
        let first = match delivery.bring(here, is_classic).await {
            // An image that had them was removed since.
            Err(error) if here > 0 && lacks_a_layer(&error) => {
                delivery.bring(0, is_classic).await.map(|()| 0)
            }
            result => result.map(|()| here),
        }?;
        let missing = || {
            let message = "the engine loaded it and does not have it";
            with_kind(EngineErrorKind::Internal, format!("sending {name}"), message)
        };
        let info = self.inspect_image(name).await?.ok_or_else(missing)?;
        let sent_bytes = delivery.sent_bytes;
        Ok(Sent { image: info, layers, sent_layers: layers - first, sent_bytes })
    }

    async fn has_classic_store(&self) -> Result<bool, EngineError> {
        let info = self.client.fetch(Call::get("/info"), || "asking for the store".into()).await?;
        let status = info["DriverStatus"].as_array().into_iter().flatten();
        Ok(!status.into_iter().any(|pair| pair[1] == CONTAINERD))
    }
}

fn lacks_a_layer(error: &EngineError) -> bool {
    error.message.contains("no such file or directory") || error.message.contains("not found")
}

/// An image on its way.
struct Delivery<'a> {
    engine: &'a DockerEngine,
    image: Shared,
    name: &'a str,
    progress: &'a ProgressSink,
    sent_bytes: u64,
}

impl Delivery<'_> {
    /// How many of the lowest layers the engine has: the most that any image there begins with.
    async fn layers_here(&self) -> Result<usize, EngineError> {
        let call = Call::get("/images/json").query("all", "1");
        let all = self.engine.client.fetch(call, || "listing images".into()).await?;
        let ids: BTreeSet<String> = all
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|image| image["Id"].as_str().map(str::to_owned))
            .collect();
        let looks = futures_util::stream::iter(ids).map(|id| async move {
            let call = Call::get(format!("/images/{}/json", encoded(&id)));
            self.engine.client.fetch(call, || format!("looking at image {id}")).await
        });
        let looks = looks.buffer_unordered(LOOKS);
        pin_mut!(looks);
        let mut most = 0;
        while let Some(image) = looks.next().await {
            // One that was removed since has nothing to tell.
            let Ok(image) = image else { continue };
            most = most.max(in_common(&image["RootFS"]["Layers"], &self.image));
        }
        Ok(most)
    }

    /// Sends all layers from one on, and names the image.
    async fn bring(&mut self, first: usize, in_parts: bool) -> Result<(), EngineError> {
        let layers = self.image.layers();
        let ends = if in_parts { parts(&self.image, first) } else { Vec::new() };
        let total_bytes = self.image.length(first..layers);
        let mut from = first;
        for end in ends {
            self.send(Which::Part, from..end, total_bytes).await?;
            from = end;
        }
        self.send(Which::Whole, from..layers, total_bytes).await?;
        if in_parts {
            self.remove_parts().await;
        }
        Ok(())
    }

    async fn send(
        &mut self,
        which: Which,
        layers: Range<usize>,
        total_bytes: u64,
    ) -> Result<(), EngineError> {
        let before = total_bytes - self.image.length(layers.start..self.image.layers());
        let (sent, read) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let packing = match self.engine.endpoint() {
            Endpoint::Unix(_) => Packing::Plain,
            Endpoint::Tcp(_) | Endpoint::Ssh(_) => Packing::Gzip,
        };
        let (image, name) = (Arc::clone(&self.image), self.name.to_owned());
        let counted = Arc::clone(&read);
        let body = written(Arc::clone(&sent), move |out| {
            let config = match which {
                Which::Whole => Config::Whole { tag: &name },
                Which::Part => Config::Part,
            };
            image.write(config, layers, packing, &counted, out)
        });
        let call = Call::post("/images/load").query("quiet", "1").tar_stream(body);
        let doing = || format!("sending {}", self.name);
        let loading = self.engine.follow(call, Limit::Pull, doing, &sent, |_| {});
        pin_mut!(loading);
        let outcome = loop {
            tokio::select! {
                outcome = &mut loading => break outcome,
                () = tokio::time::sleep(TELL) => {
                    let done_bytes = before + read.load(Ordering::Relaxed);
                    (self.progress)(Progress::Bytes { done_bytes, total_bytes });
                }
            }
        };
        self.sent_bytes += sent.load(Ordering::Relaxed);
        outcome
    }

    /// Removes the images of parts; the layers stay, since the whole one has them.
    async fn remove_parts(&self) {
        for layers in 1..=self.image.layers() {
            let id = sha256(&self.image.part(layers));
            // Whatever stays has no name: `docker image prune` takes it.
            let _ = self.engine.untag_image(&id).await;
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    Whole,
    Part,
}

/// How many layers from the lowest on are the same.
fn in_common(layers: &Value, image: &SavedImage) -> usize {
    let there = layers.as_array().map(Vec::as_slice).unwrap_or_default();
    there.iter().zip(image.diff_ids()).take_while(|(there, wanted)| there == wanted).count()
}

/// Where parts end: those before the last, which goes with the whole image.
fn parts(image: &SavedImage, first: usize) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut from = first;
    for end in first + 1..image.layers() {
        if image.length(from..end) >= PART {
            ends.push(end);
            from = end;
        }
    }
    ends
}
