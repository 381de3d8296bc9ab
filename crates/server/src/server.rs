//! A control server: its sockets, its worker, and how it leaves.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::commands::Commands;
use crate::core::{Core, Parts};
use crate::listen::{Doors, Listener, serve};
use crate::{beat, routes, worker};

/// Connections have so long for their last answers, once nothing is carried out any more.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// A control server.
pub struct Server {
    core: Arc<Core>,
}

impl Server {
    /// Makes one; nothing happens until it runs.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self { core: Arc::new(Core::new(parts)) }
    }

    /// Lets it run commands for others.
    #[must_use]
    pub fn with_commands(self, commands: Arc<dyn Commands>) -> Self {
        let mut core = self.core;
        let unshared = Arc::get_mut(&mut core).expect("nobody else has it before it runs");
        unshared.commands = Some(commands);
        Self { core }
    }

    /// Answers, and takes orders from the queue, until `leave` ends. Then it takes no more orders,
    /// waits for those that it carries out as long as [`crate::Settings::leave_within`] says, and
    /// ends the connections. Meanwhile it still answers.
    pub async fn run(self, listeners: Vec<Listener>, leave: impl Future<Output = ()>) {
        let core = self.core;
        let router = routes::router(core.clone());
        let limits = &core.settings.limits;
        let doors = Doors::new(limits.connections, limits.connections_per_address);
        let mut sockets = JoinSet::new();
        for listener in listeners {
            sockets.spawn(serve(core.clone(), router.clone(), listener, doors.clone()));
        }
        let mut others = JoinSet::new();
        others.spawn(beat::follow_others(core.clone()));
        worker::work(core.clone(), leave).await;
        core.leaving.send_replace(true);
        let all = async { while sockets.join_next().await.is_some() {} };
        // Those that are still there are cut: a client that does not read its answer is not waited
        // for.
        let _ = timeout(LAST_ANSWERS, all).await;
    }
}
