//! What the user asked for besides the desired state.

use std::collections::BTreeSet;

use shiplap_model::{Goal, Limits};

/// Which services a plan may touch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// All of them.
    All,
    /// These, and what they need that does not exist yet.
    Only(BTreeSet<String>),
}

impl Selection {
    /// Whether a service may be touched.
    #[must_use]
    pub fn contains(&self, service: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(service),
        }
    }
}

/// What becomes of the replicas of a release that is not current any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Standby {
    /// They are frozen where they can be: a rollback thaws them and needs no boot.
    Frozen,
    /// They are stopped.
    #[default]
    Stopped,
}

/// What the user asked for besides the desired state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// What the plan is for.
    pub goal: Goal,
    /// Number that the deployment will have.
    pub deployment: u64,
    /// Which services may be touched.
    pub selection: Selection,
    /// Services whose replicas are replaced even if nothing changed.
    pub force: BTreeSet<String>,
    /// Whether services that are not in the file are removed.
    pub remove_orphans: bool,
    /// Whether `down` removes the project's volumes too.
    pub remove_volumes: bool,
    /// What becomes of replicas that the edge has left.
    pub standby: Standby,
    /// How long things may take.
    pub limits: Limits,
    /// Version of the program, for labels.
    pub version: String,
}

impl Policy {
    /// A plain deployment with this number.
    #[must_use]
    pub fn deploy(deployment: u64) -> Self {
        Self {
            goal: Goal::Deploy,
            deployment,
            selection: Selection::All,
            force: BTreeSet::new(),
            remove_orphans: false,
            remove_volumes: false,
            standby: Standby::Stopped,
            limits: Limits::default(),
            version: String::new(),
        }
    }
}
