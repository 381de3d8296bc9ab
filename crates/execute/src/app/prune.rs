//! Freeing what nothing needs any more.

use std::collections::BTreeSet;

use shiplap_model::{DeploymentState, ImageInfo, Outcome};

use super::{App, AppError, KEEP_DEPLOYMENTS};

/// How far back history is searched for images that were ours.
const LOOK_BACK: u32 = 10_000;

/// An image that can go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prunable {
    /// Its id.
    pub id: String,
    /// Its names.
    pub tags: Vec<String>,
    /// Its size in bytes; layers that others share are not freed.
    pub size_bytes: u64,
}

/// What a prune came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Freed {
    /// Images that went.
    pub images: Vec<Prunable>,
    /// Images that did not, with the reason.
    pub kept: Vec<(Prunable, String)>,
}

impl App {
    /// Images that some deployment of any environment used, that no container uses, and that no
    /// rollback of any environment needs. Images that were never ours are not touched.
    ///
    /// # Errors
    /// See [`AppError`].
    pub async fn prunable(&self) -> Result<Vec<Prunable>, AppError> {
        let mut known = BTreeSet::new();
        let mut needed = BTreeSet::new();
        for scope in self.ledger.scopes().await? {
            let mut kept = 0;
            for deployment in self.ledger.deployments(&scope, LOOK_BACK).await? {
                let images = deployment.release.services.values().map(|service| &service.image);
                let identities: Vec<String> = images
                    .flat_map(|image| image.id.iter().chain(&image.digest))
                    .cloned()
                    .collect();
                known.extend(identities.iter().cloned());
                let counts = match &deployment.state {
                    DeploymentState::Unfinished => true,
                    DeploymentState::Ended { outcome, .. } => match outcome {
                        Outcome::Done => deployment.kind != "down",
                        Outcome::Stuck | Outcome::Interrupted => true,
                        Outcome::Failed | Outcome::RolledBack => false,
                    },
                };
                if counts && kept < KEEP_DEPLOYMENTS {
                    kept += 1;
                    needed.extend(identities);
                }
            }
        }
        let used: BTreeSet<String> = self.engine.images_in_use().await?.into_iter().collect();
        let images = self.engine.images().await?;
        Ok(images
            .into_iter()
            .filter(|image| !used.contains(&image.id))
            .filter(|image| {
                // An edge of another build that nothing runs any more.
                image.labels.contains_key(shiplap_model::ROLE)
                    || identities(image).any(|identity| known.contains(identity))
            })
            .filter(|image| !identities(image).any(|identity| needed.contains(identity)))
            .map(|image| Prunable { id: image.id, tags: image.tags, size_bytes: image.size_bytes })
            .collect())
    }

    /// Removes images. What has come into use meanwhile stays.
    ///
    /// # Errors
    /// See [`AppError`].
    pub async fn prune(&self, images: Vec<Prunable>) -> Result<Freed, AppError> {
        let mut freed = Freed::default();
        for image in images {
            // By name first: an image with several names is only untagged by each.
            let mut names: Vec<&str> = image.tags.iter().map(String::as_str).collect();
            names.push(&image.id);
            let mut refused = None;
            for name in names {
                match self.engine.remove_image(name).await {
                    Ok(()) => {}
                    Err(error) if error.kind == shiplap_model::EngineErrorKind::NotFound => {}
                    Err(error) => refused = refused.or(Some(error.message)),
                }
            }
            match refused {
                None => freed.images.push(image),
                Some(reason) => freed.kept.push((image, reason)),
            }
        }
        Ok(freed)
    }
}

fn identities(image: &ImageInfo) -> impl Iterator<Item = &str> {
    let digests = image.repo_digests.iter().filter_map(|known| known.split('@').nth(1));
    digests.chain([image.id.as_str()])
}
