//! What must hold, or be done, before a deployment changes anything: gates that are not about a
//! replica.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::{CreateReplica, Desired};

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
    /// The image that it is about, by the name in the file; only where it is asked per image.
    pub image: Option<String>,
    /// How it is asked.
    pub run: RequirementRun,
    /// How long that may take.
    pub limit: Duration,
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
            (None, RequirementRun::Command { .. }) => f.write_str(self.kind.word()),
        }
    }
}
