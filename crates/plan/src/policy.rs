//! What the user asked for besides the desired state.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shiplap_model::{Goal, Limits, Requirement};

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
#[derive(Debug, Clone)]
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
    /// Deployments that began and did not end well, and were the last ones: what they left has
    /// not been shown to work.
    pub unfinished: BTreeSet<u64>,
    /// Those among them that undid nothing: a job of theirs that ended well has done its work.
    /// What was undone may have been stopped, and a job that is stopped can end with 0.
    pub trusted_jobs: BTreeSet<u64>,
    /// For a way back: what goes.
    pub undo: Option<Undo>,
    /// What must hold before anything is changed, in order.
    pub requirements: Vec<Requirement>,
    /// Other environments that are deployed together with this one, by name: they are waited for
    /// before the running release is touched, and before it is left.
    pub meet: Vec<String>,
}

/// What a way back out of a deployment removes besides what the release before has no place for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undo {
    /// The deployment that is gone back from, and those that it took over. All containers that
    /// they made go.
    pub deployments: BTreeSet<u64>,
    /// The project's networks that were there before them, by engine name; nothing where nobody
    /// wrote it down. Others go.
    pub networks: Option<BTreeSet<String>>,
    /// Ids of containers that were there before them. They stay, whatever number they carry: a
    /// ledger that was lost has given the same numbers before.
    pub there: BTreeSet<String>,
    /// Ids of containers that did not run before them: those of jobs had ended by themselves.
    pub rested: BTreeSet<String>,
    /// TCP ports on which their services were called: of one that goes nothing else tells, once
    /// its routes are gone, where requests may still be in flight.
    pub ports: BTreeMap<String, BTreeSet<u16>>,
}

impl Policy {
    /// How long a drain may take for which requests are held, where there are so many after each
    /// other: all together two thirds of what a held request waits, so that the rest is there for
    /// the new replica, and one slow answer does not fail all those that wait.
    pub(crate) fn drain_while_held(&self, drains: usize) -> Duration {
        let drains = u32::try_from(drains).unwrap_or(u32::MAX).max(1);
        self.limits.drain.min(self.limits.hold * 2 / 3 / drains)
    }

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
            unfinished: BTreeSet::new(),
            trusted_jobs: BTreeSet::new(),
            undo: None,
            requirements: Vec::new(),
            meet: Vec::new(),
        }
    }
}
