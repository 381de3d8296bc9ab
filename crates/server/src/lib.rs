//! The control server: an HTTP API over the queue of orders, the triggers that others know how to
//! send, tokens, and the worker that takes orders from the queue.
//!
//! It knows no engine and no Compose file: what it needs of those stands behind [`Works`].

mod catalog;
mod stop;
pub mod view;
mod works;

pub use catalog::{
    Catalog, DispatchTrigger, EnvironmentEntry, ImageTrigger, Place, ProjectEntry, PushProvider,
    PushTrigger, RegistryTrigger, ServiceEntry, Trigger,
};
pub use stop::{Stop, StopReason};
pub use works::{CarriedOut, EventSink, Works, WorksError};
