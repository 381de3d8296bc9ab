//! The use cases. Every front end calls these.

mod binding;
mod claim;
mod deploy;
mod desired;
mod group;
mod hold;
mod images;
mod interrupted;
mod promote;
mod prune;
mod resume;
mod retire;
mod status;
mod together;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use shiplap_compose::Loaded;
use shiplap_model::{
    Direction, Engine, EngineError, LeaseHeld, Ledger, LedgerError, Limits, Note, Observed,
    Outcome, Plan, Refusal, Requirement, RouteTable, Router, RouterError, Scope, Secret,
    StoredGroup,
};
use shiplap_plan::{Selection, Standby};

use crate::{Cancel, KeepFailed, Meeting, Reporter, now_ms};

pub use group::{
    Ended, Member, Task, carry_out_together, plan_together, releases_before, resume_together,
};
pub use interrupted::{Unfinished, unfinished};
pub use promote::{JobEnd, Promotion, Tests};
pub use prune::{Freed, Prunable};
pub use resume::{Choice, OnInterrupted};
pub use status::{ServiceStatus, Status};
pub use together::Tie;

/// How many of the newest done deployments of each environment keep their images: a working week
/// of daily deployments can be gone back to without a registry.
pub const KEEP_DEPLOYMENTS: u32 = 5;

/// The use cases over an engine, an edge and a ledger.
#[derive(Clone)]
pub struct App {
    /// The engine.
    pub engine: Arc<dyn Engine>,
    /// The edge.
    pub router: Arc<dyn Router>,
    /// History.
    pub ledger: Arc<dyn Ledger>,
    /// Where events go.
    pub reporter: Arc<dyn Reporter>,
    /// Asks a running deployment to stop.
    pub cancel: Cancel,
    /// Who acts: user and host, or a token's name.
    pub who: String,
    /// Version of the program, for labels.
    pub version: String,
}

/// A project as loaded from its files, and the environment that it is for.
#[derive(Debug, Clone)]
pub struct Source {
    /// The project.
    pub loaded: Loaded,
    /// The environment's name.
    pub environment: String,
    /// Which requests from outside go where.
    pub routes: RouteTable,
    /// What is good to know of how it was loaded, for the plan.
    pub notes: Vec<Note>,
    /// Secrets of the environment that the project uses, by name.
    pub secrets: BTreeMap<String, UsedSecret>,
    /// Whose paths those of configs and secrets are.
    pub files: FilesAt,
}

/// Where the files are that a project names, seen from its engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FilesAt {
    /// On its machine: it mounts them.
    #[default]
    Engine,
    /// On another one: their content travels.
    Elsewhere,
}

/// A secret as a project is loaded with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsedSecret {
    /// Which version it is, for history.
    pub version: u32,
    /// What a Compose secret of this name holds.
    pub content: Secret<Vec<u8>>,
}

impl Source {
    /// The versions of the secrets that it uses.
    fn secret_versions(&self) -> BTreeMap<String, u32> {
        self.secrets.iter().map(|(name, secret)| (name.clone(), secret.version)).collect()
    }

    /// Where it is deployed.
    #[must_use]
    pub fn scope(&self) -> Scope {
        Scope { project: self.loaded.project.name.clone(), environment: self.environment.clone() }
    }
}

/// Which images are fetched or made although they are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Images {
    /// As each service's `pull_policy` says; missing ones only, where it says nothing.
    #[default]
    AsTheFileSays,
    /// Tags are asked for at the registry again.
    Pull,
    /// Services with a `build` section are built again.
    Build,
}

/// What the user asked for, besides what the files say.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Services that may be touched; all where empty.
    pub services: BTreeSet<String>,
    /// Tags that replace those in the file, by service.
    pub set: BTreeMap<String, String>,
    /// Which images are fetched or made.
    pub images: Images,
    /// Whether services that are not in the file are removed.
    pub remove_orphans: bool,
    /// Whether replicas are replaced even where nothing changed.
    pub force: bool,
    /// Whether failed replicas stay for a look.
    pub keep_failed: KeepFailed,
    /// What becomes of replicas that the edge has left.
    pub standby: Standby,
    /// How long things may take.
    pub limits: Limits,
    /// Why, for history.
    pub message: Option<String>,
    /// What becomes of a deployment that did not end, where it has to be settled first.
    pub on_interrupted: OnInterrupted,
    /// What must hold before anything is changed.
    pub requirements: Vec<Requirement>,
    /// Who said yes to the plan, where somebody had to.
    pub approved_by: Option<String>,
    /// The order of a control server that is carried out.
    pub order: Option<u64>,
    /// The commit that it comes from, as whoever asked for it named it.
    pub revision: Option<String>,
    /// Its part in several deployments that are carried out together.
    pub party: Option<Party>,
}

/// A deployment's part in several that are carried out together.
#[derive(Debug, Clone)]
pub struct Party {
    group: String,
    id: String,
    /// Names of the others.
    others: Vec<String>,
    place: Arc<together::Place>,
}

impl Party {
    /// What history keeps of it, once all have agreed.
    fn stored(&self) -> StoredGroup {
        StoredGroup { name: self.group.clone(), id: self.id.clone(), members: self.place.shown() }
    }
}

impl Request {
    /// Whom the deployment has to wait for.
    fn others(&self) -> Vec<String> {
        self.party.as_ref().map(|party| party.others.clone()).unwrap_or_default()
    }

    fn meeting(&self) -> Option<Arc<dyn Meeting>> {
        self.party.as_ref().map(|party| party.place.clone() as Arc<dyn Meeting>)
    }

    fn selection(&self) -> Selection {
        let mut names = self.services.clone();
        names.extend(self.set.keys().cloned());
        if names.is_empty() { Selection::All } else { Selection::Only(names) }
    }
}

/// What should become current.
#[derive(Debug, Clone)]
pub enum Intent<'a> {
    /// What the files say.
    Deploy(&'a Source),
    /// The release of another environment, with this one's values.
    Promote(&'a Promotion<'a>),
    /// What an earlier deployment had; the one before the current one where no number is given.
    Rollback {
        /// Where.
        scope: Scope,
        /// Its number.
        to: Option<u64>,
    },
    /// The same again, in new containers.
    Restart(&'a Source),
    /// Another number of replicas of what is current.
    Scale {
        /// The files, for where nothing was deployed yet.
        source: &'a Source,
        /// Replicas by service.
        replicas: BTreeMap<String, u32>,
    },
    /// Nothing: the project is taken down.
    Down {
        /// Where.
        scope: Scope,
        /// The files, for how to stop services, where there are any.
        source: Option<&'a Source>,
        /// Whether volumes go too.
        volumes: bool,
    },
}

/// How a deployment ended.
#[derive(Debug, Clone)]
pub struct Report {
    /// Its number; nothing where there was nothing to do or the user said no.
    pub number: Option<u64>,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, where it was not done.
    pub reason: Option<String>,
    /// What was left undone.
    pub left: Vec<String>,
    /// The plan.
    pub plan: Plan,
    /// How long it took from the first look to the end, in milliseconds.
    pub took_ms: i64,
    /// Whether the user said no.
    pub declined: bool,
    /// Who has taken over meanwhile, where somebody has: then nothing was undone.
    pub taken_over_by: Option<String>,
    /// Ids of containers that were frozen, to be retired after a while.
    pub frozen: Vec<String>,
    /// Where a deployment was taken up that did not end: what was wanted, and where it led.
    pub resumed: Option<(Choice, Direction)>,
    /// How a deployment was settled that did not end, before this one began.
    pub settled: Option<Box<Report>>,
    /// Jobs of the plan, and what became of each.
    pub jobs: BTreeMap<String, JobEnd>,
}

impl Report {
    /// Nothing was to be done.
    fn nothing(began_ms: i64, plan: Plan) -> Self {
        Self {
            number: None,
            outcome: Outcome::Done,
            reason: None,
            left: Vec::new(),
            plan,
            took_ms: now_ms() - began_ms,
            declined: false,
            taken_over_by: None,
            frozen: Vec::new(),
            resumed: None,
            settled: None,
            jobs: BTreeMap::new(),
        }
    }
}

/// A plan, and what it was made from.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The plan.
    pub plan: Plan,
    /// What it started from.
    pub observed: Observed,
    /// The deployment that did not end and that would be taken up, rather than a new one begun.
    pub resumes: Option<u64>,
}

/// Why a use case did not even begin.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The planner says no.
    #[error("{}", .0.first().map_or_else(String::new, ToString::to_string))]
    Refused(Vec<Refusal>),
    /// Somebody else is deploying.
    #[error(transparent)]
    LeaseHeld(#[from] LeaseHeld),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The edge.
    #[error(transparent)]
    Router(#[from] RouterError),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The user, or the loss of the lease, ended it before it had begun.
    #[error("{0}")]
    Interrupted(String),
    /// History does not hold what was asked for.
    #[error("{message}")]
    History {
        /// What is missing.
        message: String,
        /// What to type.
        help: String,
    },
}
