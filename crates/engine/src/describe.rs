//! What the engine says in its own words, for those who compare containers with each other.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::sync::Arc;

use bytes::BytesMut;
use futures_util::{StreamExt, TryStreamExt, pin_mut, stream};
use serde_json::Value;
use shiplap_model::{EngineError, EngineErrorKind, Limit};

use crate::client::{Call, encoded};
use crate::engine::DockerEngine;
use crate::error::{from_bollard, with_kind};
use crate::listening;

/// Questions asked at once.
const PARALLEL: usize = 16;

impl DockerEngine {
    /// Every container of the engine as it describes them, in order of name.
    ///
    /// # Errors
    /// As for every call.
    pub async fn describe_containers(&self) -> Result<Vec<Value>, EngineError> {
        self.api().await?;
        let list = Call::get("/containers/json").query("all", "1");
        let all = self.client.fetch(list, || "listing containers".into()).await?;
        let ids: Vec<String> = all
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|summary| summary["Id"].as_str().map(str::to_owned))
            .collect();
        let described: Vec<Option<Value>> = stream::iter(ids)
            .map(|id| self.inspect_container(id))
            .buffer_unordered(PARALLEL)
            .try_collect()
            .await?;
        // One may go away between the list and the look at it.
        let mut described: Vec<Value> = described.into_iter().flatten().collect();
        described.sort_by(|a, b| a["Name"].as_str().cmp(&b["Name"].as_str()));
        Ok(described)
    }

    /// Every volume of the engine as it describes them.
    ///
    /// # Errors
    /// As for every call.
    pub async fn describe_volumes(&self) -> Result<Vec<Value>, EngineError> {
        self.api().await?;
        let all = self.client.fetch(Call::get("/volumes"), || "listing volumes".into()).await?;
        Ok(all["Volumes"].as_array().cloned().unwrap_or_default())
    }

    /// The configuration that an image gives to its containers; nothing if it is gone.
    ///
    /// # Errors
    /// As for every call.
    pub async fn image_configuration(&self, id: &str) -> Result<Option<Arc<Value>>, EngineError> {
        if let Some(known) = self.remembered_image(id) {
            return Ok(Some(known));
        }
        Ok(self.inspect_image_with_config(id).await?.map(|(_, configuration)| configuration))
    }

    /// The files at a path in a container and below it, each with its path: as far as the engine
    /// sees them, so without what is in file systems in memory. Empty if there is nothing.
    ///
    /// # Errors
    /// As for every call; `Invalid` if there are more than `longest` bytes.
    pub async fn files(
        &self,
        container: &str,
        path: &str,
        longest: usize,
    ) -> Result<Vec<(String, Vec<u8>)>, EngineError> {
        self.api().await?;
        let doing = || format!("reading {path} in {container}");
        let call =
            Call::get(format!("/containers/{}/archive", encoded(container))).query("path", path);
        let wait = self.client.wait(Limit::EngineCall);
        let chunks = self.client.stream(call);
        let whole = async {
            let mut archive = BytesMut::new();
            pin_mut!(chunks);
            while let Some(chunk) = chunks.next().await {
                archive.extend_from_slice(&chunk.map_err(|e| from_bollard(doing(), &e))?);
                if archive.len() > longest {
                    let message = format!("there are more than {longest} bytes");
                    return Err(with_kind(EngineErrorKind::Invalid, doing(), message));
                }
            }
            Ok(archive)
        };
        let archive = match tokio::time::timeout(wait.time, whole).await {
            Ok(Ok(archive)) => archive,
            Ok(Err(error)) if error.kind == EngineErrorKind::NotFound => return Ok(Vec::new()),
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(wait.over(doing(), "no answer")),
        };
        unpacked(&archive, path)
            .map_err(|e| with_kind(EngineErrorKind::Internal, doing(), e.to_string()))
    }

    /// Files right below a folder that a running container sees, also in a file system in memory:
    /// read from `/proc` of this machine. Nothing where the container is elsewhere, or they may
    /// not be read.
    #[must_use]
    pub fn local_files(
        &self,
        container_id: &str,
        pid: u32,
        folder: &str,
        longest: u64,
    ) -> Option<Vec<(String, Vec<u8>)>> {
        let is_here = self.endpoint().is_here();
        is_here.then(|| listening::files(container_id, pid, folder, longest)).flatten()
    }

    /// The TCP ports on which something in a running container listens for others: read from
    /// `/proc` of this machine. Nothing where that cannot be told.
    #[must_use]
    pub fn listening_ports(&self, container_id: &str, pid: u32) -> Option<BTreeSet<u16>> {
        let is_here = self.endpoint().is_here();
        is_here.then(|| listening::ports(container_id, pid)).flatten()
    }
}

/// The regular files of an archive whose names begin with the last part of `path`.
fn unpacked(archive: &[u8], path: &str) -> std::io::Result<Vec<(String, Vec<u8>)>> {
    let parent = path.trim_end_matches('/').rsplit_once('/').map_or("", |(parent, _)| parent);
    let mut found = Vec::new();
    for entry in tar::Archive::new(archive).entries()? {
        let mut entry = entry?;
        if entry.header().entry_type().is_file() {
            let name = entry.path()?.to_string_lossy().into_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            found.push((format!("{parent}/{name}"), content));
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_an_archive_have_their_paths_in_the_container() {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(2);
        tar.append_data(&mut header, "secrets/db", b"pw".as_slice()).unwrap();
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_size(0);
        tar.append_link(&mut link, "secrets/link", "/etc/shadow").unwrap();
        let archive = tar.into_inner().unwrap();
        let found = unpacked(&archive, "/run/secrets").unwrap();
        assert_eq!(found, [("/run/secrets/db".to_owned(), b"pw".to_vec())]);
    }
}
