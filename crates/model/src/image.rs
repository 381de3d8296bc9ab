//! Images, pinned.

use std::collections::BTreeMap;

/// What the engine knows about an image that it holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageInfo {
    /// The image's id, `sha256:…` of its configuration.
    pub id: String,
    /// Names that point to it, `repository:tag`.
    pub tags: Vec<String>,
    /// Digests by which registries know it, `repository@sha256:…`.
    pub repo_digests: Vec<String>,
    /// Size on disk in bytes.
    pub size_bytes: u64,
    /// When it was made, seconds since 1970.
    pub created_s: i64,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// TCP ports that its configuration exposes.
    pub exposed_tcp: Vec<u16>,
    /// Its environment, `NAME` to value.
    pub environment: BTreeMap<String, String>,
    /// Mount points of anonymous volumes (`VOLUME`).
    pub volumes: Vec<String>,
    /// Whether its configuration declares a health check that is not `NONE`.
    pub has_healthcheck: bool,
    /// The health check's `start_period`, in milliseconds, 0 when none.
    pub start_period_ms: u64,
}

/// Where a pinned image comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageOrigin {
    /// The engine holds it.
    Local,
    /// It is pulled, by digest.
    Pull,
    /// It is built through the engine.
    Build,
}

/// A service's image, pinned so that nothing can move under a deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagePin {
    /// What the Compose file says, `repository:tag` (or the name a build gets).
    pub reference: String,
    /// The image's id once the engine holds it.
    pub id: Option<String>,
    /// The registry's manifest digest, `sha256:…`, where a registry knows the image.
    pub digest: Option<String>,
    /// Where it comes from.
    pub origin: ImageOrigin,
    /// What the engine says of it, once it holds it.
    pub info: Option<ImageInfo>,
}

impl ImagePin {
    /// The reference that pulls exactly this image: `repository@sha256:…`.
    #[must_use]
    pub fn by_digest(&self) -> Option<String> {
        let digest = self.digest.as_ref()?;
        Some(format!("{}@{digest}", repository(&self.reference)))
    }

    /// Twelve hexadecimal digits that a person can compare, or `?` before a build.
    #[must_use]
    pub fn short(&self) -> String {
        let full = self.id.as_deref().or(self.digest.as_deref()).unwrap_or("?");
        let hex = full.strip_prefix("sha256:").unwrap_or(full);
        hex.chars().take(12).collect()
    }

    /// Whether a container that runs image `id` with these registry digests runs this image.
    #[must_use]
    pub fn is(&self, id: &str, repo_digests: &[String]) -> bool {
        match (&self.id, &self.digest) {
            (Some(own), _) => own == id,
            (None, Some(digest)) => {
                repo_digests.iter().any(|d| d.rsplit('@').next() == Some(digest.as_str()))
            }
            (None, None) => false,
        }
    }
}

/// `registry.example:5000/team/api:v2@sha256:…` to `registry.example:5000/team/api`.
pub(crate) fn repository(reference: &str) -> &str {
    let named = reference.split('@').next().unwrap_or(reference);
    match named.rfind(':') {
        Some(colon) if !named[colon..].contains('/') => &named[..colon],
        _ => named,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_the_registry_is_not_a_tag() {
        assert_eq!(repository("localhost:5000/api"), "localhost:5000/api");
        assert_eq!(repository("localhost:5000/api:v1"), "localhost:5000/api");
        assert_eq!(repository("api:v1@sha256:aa"), "api");
    }
}
