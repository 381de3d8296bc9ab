//! Going on while the engine or the edge is away, and not at all once the lease is lost.
//!
//! [`Steady`] wraps the engine and the edge for the length of a deployment, forward and back:
//!
//! - **away** (nothing listens): a call is repeated, at growing distances, for as long as
//!   `engine-away` or `edge-away` says. An edge that is away is started as well;
//! - **at fault** (the engine says 500, or the connection broke): a call is repeated at most
//!   [`MOST_FAULTS`] times, then it has failed like any other;
//! - everything else is an answer.
//!
//! Right before a call that changes something, and before each repetition of it, the lease is
//! checked ([`Holding::check`]). Containers are called by their ids from then on, since a name may
//! belong to another one by the time at which a call that was delayed arrives.
//!
//! A call that broke may have done what it was asked. What that means, call by call:
//!
//! | call | when it is made twice |
//! |---|---|
//! | looking: `info`, `observe`, `image…`, `container`, `healthcheck`, `tail`, `marks`, `state`, `probe`, `listening_ports` | nothing |
//! | `pull`, `tag`, `set_restart`, `stop`, `pause`, `unpause`, `rename`, `remove…` | the second finds it done |
//! | `create`, `create_network`, `create_volume`, `mark`, `ensure`, `ensure_holder` | the second finds what the first made |
//! | `apply` | the table is read again, and what is there already stays |
//! | `drain` | it waits for up to its limit again |
//! | **`start`** | **a container that ran and has ended would run again, and a job with it.** So it is looked at before it is started, unless this deployer has just made it, and again before it is started once more: one that was started meanwhile is not |
//! | **`exec`** | **a command runs again.** So it is not repeated; gates run health checks by it, which run again and again in any case |
//! | **`restart`** | **a second restart.** So it is not repeated; deployments do not use it |
//! | **`build`** | **everything is built again**, for minutes. So it is repeated only where the engine was away, which cancels a build |

mod engine;
mod patience;
mod router;

use std::sync::Arc;

use shiplap_model::{Engine, Limits, Router};

use crate::holding::Holding;
use crate::{Cancel, Reporter};
use patience::Patience;

pub use patience::MOST_FAULTS;

/// What wraps an engine and an edge for the length of a deployment.
#[derive(Clone)]
pub struct Steady {
    patience: Arc<Patience>,
}

impl Steady {
    /// With these limits. Who is waited for goes to `reporter`. `cancel` ends waits that began
    /// before it was asked for; going back has the limits once more.
    #[must_use]
    pub fn new(limits: &Limits, reporter: Arc<dyn Reporter>, cancel: Cancel) -> Self {
        Self { patience: Arc::new(Patience::new(limits, reporter, cancel)) }
    }

    /// The same under a lease: without it, nothing is changed.
    #[must_use]
    pub fn under(self, holding: Holding) -> Self {
        Self { patience: Arc::new(Patience::clone(&self.patience).under(holding)) }
    }

    /// An engine that is waited for.
    #[must_use]
    pub fn engine(&self, engine: Arc<dyn Engine>) -> Arc<dyn Engine> {
        Arc::new(engine::SteadyEngine::new(engine, self.patience.clone()))
    }

    /// An edge that is waited for, and started.
    #[must_use]
    pub fn router(&self, router: Arc<dyn Router>) -> Arc<dyn Router> {
        Arc::new(router::SteadyRouter::new(router, self.patience.clone()))
    }
}
