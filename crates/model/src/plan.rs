//! A plan: what will be done, in which order, and why.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::{
    CreateReplica, EngineNetwork, EngineVolume, EntrySpec, ImagePin, ListenerSpec, OpenStreams,
    PoolKey, Protocol, Requirement, RoutePolicy, RouteTable,
};

/// What a plan is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Goal {
    /// Make the desired state current.
    Deploy,
    /// Make the state of an earlier deployment current again.
    Rollback {
        /// Its number.
        to: u64,
    },
    /// Make a release current that is current in another environment.
    Promote {
        /// That environment.
        from: String,
        /// The number of its deployment there.
        number: u64,
    },
    /// Replace replicas by the same.
    Restart,
    /// Change the number of replicas.
    Scale,
    /// Remove the project.
    Down,
    /// Take back all that a deployment did before which there was none.
    Withdraw,
    /// Leave everything as an interrupted deployment left it.
    Abandon,
}

/// Why a service is touched.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// There is no replica yet.
    New,
    /// The image is another.
    Image,
    /// A field changed, such as `environment.PORT`, `command` or `volumes./data`.
    Field(String),
    /// There are fewer or more replicas than wanted.
    Replicas {
        /// How many there are.
        from: u32,
        /// How many there should be.
        to: u32,
    },
    /// It is not running: what the engine says.
    NotRunning(String),
    /// It shares a namespace with a service that is replaced.
    Shares(String),
    /// A network or volume that it uses is made anew.
    Resource(String),
    /// The user asked for it.
    Asked,
    /// It is not in the Compose file (any more).
    Orphan,
    /// The edge does not route to it as it should.
    Route,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New => f.write_str("new"),
            Self::Image => f.write_str("image changed"),
            Self::Field(name) => match name.split_once('.') {
                Some(("environment", variable)) => write!(f, "{variable} changed"),
                Some(("label", label)) => write!(f, "label {label} changed"),
                Some((kind, rest)) => write!(f, "{kind} {rest} changed"),
                None => write!(f, "{name} changed"),
            },
            Self::Replicas { from, to } => write!(f, "{from} → {to} replicas"),
            Self::NotRunning(state) => f.write_str(state),
            Self::Shares(service) => write!(f, "shares a namespace of {service}"),
            Self::Resource(name) => write!(f, "{name} changed"),
            Self::Asked => f.write_str("asked for"),
            Self::Orphan => f.write_str("not in the Compose file"),
            Self::Route => f.write_str("route changed"),
        }
    }
}

/// How replicas are replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// The new one serves before the old one leaves.
    StartFirst,
    /// The old one leaves first; requests are held meanwhile.
    StopFirst,
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StartFirst => "start-first",
            Self::StopFirst => "stop-first",
        })
    }
}

/// What happens to a service as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It stays.
    Keep,
    /// It comes up for the first time.
    Create,
    /// Its replicas are replaced.
    Replace,
    /// Replicas are added or taken away, the others stay.
    Scale,
    /// Only its routes change.
    Route,
    /// It goes.
    Remove,
    /// It is not in the file and stays, because nobody asked for its removal.
    Orphan,
}

/// One line of a plan: what happens to a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The service.
    pub service: String,
    /// What happens.
    pub kind: ChangeKind,
    /// The image before, twelve digits.
    pub from_image: Option<String>,
    /// The image after.
    pub to_image: Option<ImagePin>,
    /// Why, in order.
    pub causes: Vec<Cause>,
    /// How, where replicas are replaced, with the reason.
    pub strategy: Option<(Strategy, String)>,
    /// How many replicas afterwards.
    pub replicas: u32,
    /// What tells that a new replica works, in words.
    pub gate: Option<String>,
    /// The deployment whose replicas come back, where they do.
    pub revives: Option<u64>,
    /// What happens besides, in a few words: `pulled`, `built from ./api`.
    pub details: Vec<String>,
}

/// Something to know before acting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Stable code, such as `no-gate`.
    pub code: &'static str,
    /// What to know.
    pub text: String,
}

/// Why a planner says no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Stable code, such as `host-port-taken`.
    pub code: &'static str,
    /// The service at fault, where there is one.
    pub service: Option<String>,
    /// Path in the Compose project to point at, such as `services.api.ports`.
    pub path: Vec<String>,
    /// What stands in the way.
    pub message: String,
    /// What to type.
    pub help: Option<String>,
}

/// Number of a step in its plan, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepId(pub u32);

/// When a step happens, and what a failure of it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Nothing that runs is touched yet: a failure ends the deployment, nothing needs undoing.
    Prepare,
    /// Replicas come and go: a failure undoes what was done.
    Change,
    /// The new release has taken over and was watched: a failure is reported and left for the
    /// next deployment to tidy up.
    Tidy,
}

/// One effect on one target.
#[derive(Debug, Clone)]
pub struct Step {
    /// Its number.
    pub id: StepId,
    /// What it does.
    pub action: Action,
    /// Steps that must be finished before.
    pub after: Vec<StepId>,
    /// The service it belongs to.
    pub service: Option<String>,
    /// When.
    pub phase: Phase,
}

/// A port on which a new replica must answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortProbe {
    /// The port in the container.
    pub port: u16,
    /// How it speaks, where the file says so.
    pub protocol: Option<Protocol>,
    /// The path to ask for, where HTTP is spoken.
    pub path: String,
}

/// What a gate asks of a container's own health check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthGate {
    /// There is none.
    None,
    /// Whether there is one shows when the image is here; then it must pass.
    IfAny,
    /// It must pass.
    Pass,
    /// It passed before the container was frozen; that its ports answer again is enough.
    Passed,
}

/// What must hold before a new replica counts as working.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    /// What is asked of the container's own health check.
    pub healthcheck: HealthGate,
    /// Ports that must answer from outside.
    pub ports: Vec<PortProbe>,
    /// How long it must have been running without a restart.
    pub steady: Duration,
    /// How long to wait for all this.
    pub limit: Duration,
    /// Whether it is a job: it must end with code 0 rather than run.
    pub completes: bool,
}

/// A pool and the replicas that should answer for it, by container name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteTarget {
    /// The pool.
    pub key: PoolKey,
    /// How it speaks, where it is known without asking.
    pub protocol: Option<Protocol>,
    /// Names of the containers.
    pub replicas: Vec<String>,
    /// Whether requests are held.
    pub held: bool,
    /// Engine names of the service's networks, best first.
    pub networks: Vec<String>,
}

/// A service that is answered for inside a name holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameTarget {
    /// Name of the holder's container.
    pub holder: String,
    /// The service.
    pub service: String,
}

/// A change of routes, in terms of container names. What it does not name stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RouteIntent {
    /// Pools to make or replace.
    pub pools: Vec<RouteTarget>,
    /// Listeners to open.
    pub listeners: Vec<ListenerSpec>,
    /// Services to answer for inside name holders: on the ports of their pools above, and on
    /// those that their replicas are found listening on.
    pub names: Vec<NameTarget>,
    /// Pools to remove.
    pub drop_pools: Vec<PoolKey>,
    /// Listeners to close.
    pub drop_listeners: Vec<ListenerSpec>,
    /// Entries to open, where nobody has opened them yet.
    pub entries: Vec<EntrySpec>,
    /// What holds at listeners on the host that this opens.
    pub guard: Box<RoutePolicy>,
    /// The environment's routes, instead of what it had. Nothing: they stay.
    pub table: Option<Box<RouteTable>>,
}

/// Whether a container may be started if it has run already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Starts {
    /// It may: it is a service.
    Again,
    /// It may not: it is a job, whose work must not be done twice. Its gate tells how it ended.
    Once,
}

/// Where deployments that are carried out together wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MeetingPoint {
    /// All that can fail beside the running release has not: each is ready to replace it.
    Ready,
    /// Each has switched, and was watched. Nobody goes back from here on.
    Watched,
}

impl MeetingPoint {
    /// In a word, as plans and journals have it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Watched => "watched",
        }
    }
}

/// What a step does. Each can be done twice.
#[derive(Debug, Clone)]
pub enum Action {
    /// Pulls an image by digest and gives it its tag.
    Pull {
        /// The image.
        image: ImagePin,
        /// Its platform, where the file names one.
        platform: Option<String>,
    },
    /// Builds a service's image.
    Build {
        /// What to build.
        request: Box<crate::BuildRequest>,
    },
    /// Asks for what must hold before anything is changed.
    Require(Box<Requirement>),
    /// Makes sure that the edge runs.
    EnsureEdge,
    /// Makes a name holder.
    EnsureHolder(Box<crate::HolderSpec>),
    /// Removes a name holder.
    RemoveHolder {
        /// Its name.
        name: String,
    },
    /// Makes a network.
    CreateNetwork(Box<EngineNetwork>),
    /// Makes a volume.
    CreateVolume(Box<EngineVolume>),
    /// Makes a container.
    Create(Box<CreateReplica>),
    /// Starts a container.
    Start {
        /// Its name.
        container: String,
        /// For a container of an earlier deployment, which lost it when it was retired: when the
        /// engine starts it again by itself.
        restart: Option<String>,
        /// Whether it may be started if it has run already.
        starts: Starts,
    },
    /// Thaws a container of an earlier release.
    Thaw {
        /// Its name.
        container: String,
        /// When the engine starts it again by itself, from now on.
        restart: String,
    },
    /// Waits until a replica works.
    Gate {
        /// Its name.
        container: String,
        /// What must hold.
        gate: Gate,
    },
    /// Changes part of the environment's routes at the edge, in one swap.
    Route {
        /// What it is for: `hold db`, `switch api web`.
        what: String,
        /// What to change.
        to: RouteIntent,
        /// What to change back in undoing.
        back: RouteIntent,
    },
    /// Waits until replicas have nothing in flight.
    Drain {
        /// The pools that they answered for.
        pools: Vec<PoolKey>,
        /// Names of the containers.
        containers: Vec<String>,
        /// What becomes of their event streams and WebSockets.
        streams: OpenStreams,
        /// How long to wait.
        limit: Duration,
    },
    /// Stops a container, which is kept. The engine does not start it again by itself, not even
    /// after a reboot: two replicas might write to one volume.
    Stop {
        /// Its name.
        container: String,
        /// How long between the stop signal and the kill.
        grace: Option<Duration>,
        /// What must hold when it is started again in undoing.
        gate: Gate,
        /// When the engine starts it again by itself, after undoing.
        restart: String,
    },
    /// Freezes a container, which stays ready for a rollback.
    Freeze {
        /// Its name.
        container: String,
    },
    /// Watches new replicas after the switch.
    Watch {
        /// Names of the containers.
        containers: Vec<String>,
        /// How long.
        window: Duration,
    },
    /// Waits until the other deployments that are carried out together have come as far.
    Meet {
        /// How far.
        point: MeetingPoint,
        /// Names of the other environments.
        others: Vec<String>,
    },
    /// Renames a container.
    Rename {
        /// From.
        from: String,
        /// To.
        to: String,
    },
    /// Removes a container.
    Remove {
        /// Its name.
        container: String,
        /// How long between the stop signal and the kill, if it runs.
        grace: Option<Duration>,
        /// What becomes of its anonymous volumes.
        anonymous_volumes: crate::AnonymousVolumes,
    },
    /// Removes a network.
    RemoveNetwork {
        /// Its engine name.
        name: String,
    },
    /// Removes a volume, because the user asked for it.
    RemoveVolume {
        /// Its engine name.
        name: String,
    },
}

/// A route that changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteLine {
    /// What becomes of it: [`ChangeKind::Create`], [`ChangeKind::Replace`] or
    /// [`ChangeKind::Remove`].
    pub kind: ChangeKind,
    /// Which requests: `shop.example/api`, or `published ports`.
    pub what: String,
    /// Who answers them afterwards; nobody in particular for published ports.
    pub to: Option<String>,
    /// What holds for them, in a few words each.
    pub policy: Vec<String>,
}

/// What will be done.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The project.
    pub project: String,
    /// The environment.
    pub environment: String,
    /// What for.
    pub goal: Goal,
    /// One line per service, in order of name.
    pub changes: Vec<Change>,
    /// One line per route that changes.
    pub routes: Vec<RouteLine>,
    /// What to know before acting.
    pub notes: Vec<Note>,
    /// The steps, in an order in which each comes after those that it waits for.
    pub steps: Vec<Step>,
    /// Volumes that stay although nothing uses them any more.
    pub kept_volumes: Vec<String>,
    /// Engine name of each service's replicas afterwards.
    pub replicas: BTreeMap<String, Vec<String>>,
    /// Ids of the containers that were there when it was made, by name: what its steps mean by
    /// these names, and need not look up while requests are held.
    pub ids: BTreeMap<String, String>,
}

impl Plan {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pull { image, .. } => write!(f, "pull {}", image.reference),
            Self::Build { request } => write!(f, "build {}", request.tag),
            Self::Require(requirement) => requirement.fmt(f),
            Self::EnsureEdge => f.write_str("make sure the edge runs"),
            Self::EnsureHolder(holder) => {
                write!(f, "hold the names of {} in {}", holder.services.join(" "), holder.name)
            }
            Self::RemoveHolder { name } => write!(f, "remove {name}"),
            Self::CreateNetwork(network) => write!(f, "create network {}", network.name),
            Self::CreateVolume(volume) => write!(f, "create volume {}", volume.name),
            Self::Create(replica) => write!(f, "create {}", replica.name),
            Self::Start { container, .. } => write!(f, "start {container}"),
            Self::Thaw { container, .. } => write!(f, "thaw {container}"),
            Self::Gate { container, .. } => write!(f, "gate {container}"),
            Self::Route { what, .. } => f.write_str(what),
            Self::Drain { containers, streams, .. } => {
                let verb = if *streams == OpenStreams::End { "drain" } else { "settle" };
                write!(f, "{verb} {}", containers.join(" "))
            }
            Self::Stop { container, .. } => write!(f, "stop {container}"),
            Self::Freeze { container } => write!(f, "freeze {container}"),
            Self::Watch { containers, window } => {
                write!(f, "watch {} for {} s", containers.join(" "), window.as_secs_f32())
            }
            Self::Meet { point, others } => {
                write!(f, "meet {}: {}", others.join(" "), point.word())
            }
            Self::Rename { from, to } => write!(f, "rename {from} to {to}"),
            Self::Remove { container, .. } => write!(f, "remove {container}"),
            Self::RemoveNetwork { name } => write!(f, "remove network {name}"),
            Self::RemoveVolume { name } => write!(f, "remove volume {name}"),
        }
    }
}
