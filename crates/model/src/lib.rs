//! The nouns of Shiplap and the traits at its edges.
//!
//! Nothing here does anything: the planner decides over these values, the executor acts through
//! the traits, and the adapters (engine, edge, ledger) implement them.

mod desired;
mod engine;
mod image;
mod journal;
mod labels;
mod ledger;
mod limits;
mod mark;
mod observed;
mod order;
mod plan;
mod reference;
mod replica;
mod requirement;
mod router;
mod routes;
mod secret;
mod store;
mod token;

pub use desired::{Desired, FieldDigests, Fields, InjectedFile, ServiceSpec};
pub use engine::{
    AnonymousVolumes, BuildRequest, CreateReplica, Created, Engine, EngineError, EngineErrorKind,
    EngineInfo, EngineNetwork, EngineVolume, ExecResult, Names, Progress, ProgressSink,
    RegistryAnswer,
};
pub use image::{ImageInfo, ImageOrigin, ImagePin};
pub use journal::{
    Attempt, Direction, IllegalFact, Journal, JournalFact, JournalState, Resumption, Rules,
    StepStanding,
};
pub use labels::*;
pub use ledger::{
    Deployment, DeploymentState, JournalEntry, Lease, LeaseHeld, LeaseKey, Ledger, LedgerError,
    NewDeployment, Outcome, Scope, StepState, StoredBefore, StoredContainer, StoredGroup,
    StoredImage, StoredRelease, StoredRequest, StoredService,
};
pub use limits::{Limit, Limits, Span, UnknownLimit};
pub use mark::{Mark, MarkStanding};
pub use observed::{
    ContainerState, Health, NetworkAddress, Observed, ObservedContainer, ObservedListener,
    ObservedNetwork, ObservedVolume, PublishedPort,
};
pub use order::{
    Claim, KEY_LASTS, MAX_WAITING, NewOrder, ORDERS_KEPT, Order, OrderEnd, OrderError, OrderState,
    Orders, Placed, Wanted,
};
pub use plan::{
    Action, Cause, Change, ChangeKind, Gate, Goal, HealthGate, MeetingPoint, NameTarget, Note,
    Phase, Plan, PortProbe, Refusal, RouteIntent, RouteLine, RouteTarget, Starts, Step, StepId,
    Strategy,
};
pub use reference::{BadReference, Reference};
pub use replica::{BASE_NAME_LIMIT, ReplicaName, Standing};
pub use requirement::{
    CheckedImage, ImageCheck, Requirement, RequirementKind, RequirementRun, Tell,
};
pub use router::{
    HolderSpec, HolderStatus, ListenerSpec, NameListener, OpenStreams, PoolKey, PoolSpec,
    PoolStatus, ProbeKind, ProbeOutcome, ProbeRequest, Protocol, RouteChange, RoutedReplica,
    Router, RouterError, RouterState,
};
pub use routes::{
    BasicAuth, ENTRY_HTTP, ENTRY_HTTPS, EntrySpec, HeaderRules, Maintenance, MaintenanceChange,
    RateBy, RateLimit, RoutePolicy, RouteSpec, RouteTable, RouteTo,
};
pub use secret::Secret;
pub use store::Store;
pub use token::{Token, TokenAction, TokenScope, Tokens, minute_of};
