//! What must hold, or be done, before a deployment changes anything: gates that are not about a
//! replica.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::image::repository;
use crate::{CreateReplica, Desired, Reference};

/// What is asked for, in the order in which it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RequirementKind {
    /// Whether an image is signed by whom it should be.
    Signature,
    /// Whether an image has holes that are known.
    Scan,
    /// Whether the release passes its tests.
    Tests,
    /// A backup, right before anything that changes data.
    Backup,
}

impl RequirementKind {
    /// Whether it is asked once for each image that is new to the environment.
    #[must_use]
    pub fn is_per_image(self) -> bool {
        match self {
            Self::Signature | Self::Scan => true,
            Self::Tests | Self::Backup => false,
        }
    }

    /// The word for it in plans and `shiplap.yaml`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Signature => "signature",
            Self::Scan => "scan",
            Self::Tests => "tests",
            Self::Backup => "backup",
        }
    }
}

/// One of them.
#[derive(Debug, Clone)]
pub struct Requirement {
    /// What is asked for.
    pub kind: RequirementKind,
    /// Which images it is about, where it is asked per image: registry and repository, such as
    /// `ghcr.io/team/api`; `*` stands for any text. All, where there are none.
    pub repositories: Vec<String>,
    /// The image that it is about, by the name in the file; only where it is asked per image.
    pub image: Option<String>,
    /// How it is asked.
    pub run: RequirementRun,
    /// How long that may take.
    pub limit: Duration,
}

impl Requirement {
    /// Whether it is about an image, by its name in the file. What is no name of an image is not
    /// excepted from anything.
    #[must_use]
    pub fn is_about(&self, reference: &str) -> bool {
        let Ok(reference) = Reference::parse(reference) else { return true };
        let place = reference.place();
        self.repositories.is_empty() || self.repositories.iter().any(|p| fits(p, &place))
    }
}

/// Whether a text fits a pattern in which `*` stands for any text.
fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// An image that is about to be run for the first time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedImage {
    /// Its name in the file.
    pub reference: String,
    /// The digest of its manifest, where a registry has it.
    pub digest: Option<String>,
    /// Its id on the engine.
    pub id: String,
}

impl CheckedImage {
    /// What names exactly this image: the repository with the digest, else the id.
    #[must_use]
    pub fn exact(&self) -> String {
        match &self.digest {
            Some(digest) => format!("{}@{digest}", repository(&self.reference)),
            None => self.id.clone(),
        }
    }
}

/// Where a check tells what it does; it is shown, and not kept.
pub type Tell = Arc<dyn Fn(String) + Send + Sync>;

/// Something that says yes or no of an image.
#[async_trait]
pub trait ImageCheck: fmt::Debug + Send + Sync {
    /// Says yes, and in one line what was found; that line is kept with the deployment.
    ///
    /// Dropping the future stops it.
    ///
    /// # Errors
    /// Why not. Whatever kept it from being found out is a no.
    async fn check(&self, image: &CheckedImage, tell: Tell) -> Result<String, String>;
}

/// How it is asked. Ending with code 0 is yes.
#[derive(Debug, Clone)]
pub enum RequirementRun {
    /// By a command on the deployer's machine.
    Command {
        /// Its words; `{image}` stands for the image, by digest where it has one, and `{id}` for its
        /// id.
        words: Vec<String>,
        /// Where it starts.
        folder: PathBuf,
    },
    /// By code of our own, on the deployer's machine.
    Check(Arc<dyn ImageCheck>),
    /// By a container that is made for it and removed afterwards.
    Container {
        /// Where its service is described.
        desired: Arc<Desired>,
        /// The container.
        replica: Box<CreateReplica>,
    },
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.image, &self.run) {
            (Some(image), _) => write!(f, "{} of {image}", self.kind.word()),
            (None, RequirementRun::Container { desired, .. }) => {
                write!(f, "{} in {}", self.kind.word(), desired.project)
            }
            (None, RequirementRun::Command { .. } | RequirementRun::Check(_)) => {
                f.write_str(self.kind.word())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Never;

    #[async_trait]
    impl ImageCheck for Never {
        async fn check(&self, _: &CheckedImage, _: Tell) -> Result<String, String> {
            Err("never".to_owned())
        }
    }

    fn about(repositories: &[&str]) -> Requirement {
        Requirement {
            kind: RequirementKind::Signature,
            repositories: repositories.iter().map(|&text| text.to_owned()).collect(),
            image: None,
            run: RequirementRun::Check(Arc::new(Never)),
            limit: Duration::ZERO,
        }
    }

    #[test]
    fn a_policy_names_repositories() {
        let team = about(&["ghcr.io/team/*", "docker.io/library/nginx"]);
        assert!(team.is_about("ghcr.io/team/api:v1"));
        assert!(team.is_about("nginx:1.27"));
        assert!(!team.is_about("ghcr.io/teams/api:v1"));
        assert!(!team.is_about("ghcr.io.evil.example/team/api"));
        assert!(about(&[]).is_about("anything"));
        assert!(about(&["*"]).is_about("redis"));
        assert!(about(&["ghcr.io/*/api"]).is_about("ghcr.io/team/api"));
        assert!(!about(&["ghcr.io/*/api"]).is_about("ghcr.io/team/api-2"));
    }

    #[test]
    fn a_name_that_cannot_be_read_is_not_excepted() {
        assert!(about(&["ghcr.io/team/*"]).is_about("UPPER CASE"));
    }

    #[test]
    fn an_image_is_named_by_its_digest() {
        let mut image = CheckedImage {
            reference: "reg:5000/api:v1".to_owned(),
            digest: Some("sha256:aa".to_owned()),
            id: "sha256:bb".to_owned(),
        };
        assert_eq!(image.exact(), "reg:5000/api@sha256:aa");
        image.digest = None;
        assert_eq!(image.exact(), "sha256:bb");
    }
}
