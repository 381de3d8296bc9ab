//! The control server: an HTTP API over the queue of orders, the triggers that others know how to
//! send, tokens, and the worker that takes orders from the queue.
//!
//! It knows no engine and no Compose file: what it needs of those stands behind [`Works`].

mod audit;
mod beat;
mod caller;
mod catalog;
mod commands;
mod core;
mod credential;
mod health;
mod listen;
mod names;
mod notify;
mod placing;
mod problem;
mod progress;
mod rates;
mod routes;
mod server;
mod settings;
mod signature;
mod stop;
mod tls;
pub mod view;
mod waiting;
mod worker;
mod works;

pub use self::core::Parts;
pub use audit::{AuditLine, Log};
pub use catalog::{
    Catalog, DispatchTrigger, EnvironmentEntry, ImageTrigger, Place, ProjectEntry, PushProvider,
    PushTrigger, RegistryTrigger, ServiceEntry, Trigger,
};
pub use commands::{
    CommandCaller, CommandEvent, CommandRefusal, CommandRequest, Commands, RunningCommand,
};
pub use credential::NewToken;
pub use listen::Listener;
pub use notify::{Channel, Notice, Notifier, OnlyFailures, Webhook};
pub use problem::ProblemView;
pub use routes::{
    ActionView, CommandInput, DeploymentRequest, DispatchRequest, EnvironmentView, HealthView,
    HookView, NewTokenView, PromotionRequest, RollbackRequest, TokenRequest, TokenScopeView,
    TokenView, openapi,
};
pub use server::Server;
pub use settings::{Limits, Rates, Settings};
pub use stop::{Stop, StopReason};
pub use tls::TlsKeys;
pub use works::{CarriedOut, EventSink, Works, WorksError};
