//! A few connections, made when they are needed and kept for the next time.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_postgres::Client;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::failure::Failure;
use super::server::Server;

/// Connections at once. Writers wait for each other anyway; the others are for those who read.
const MOST: usize = 4;

/// What each connection begins with. Names are looked for where only the ledger's owner can put
/// them. Nothing waits for ever: a transaction takes milliseconds. What is confirmed is on disk,
/// also where the server's configuration says it need not be.
const BEGIN: &str = "\
    SET search_path = shiplap, pg_temp; \
    SET statement_timeout = '15s'; \
    SET lock_timeout = '10s'; \
    SET idle_in_transaction_session_timeout = '30s'; \
    SET standard_conforming_strings = on; \
    SELECT set_config('synchronous_commit', 'on', false) \
        WHERE current_setting('synchronous_commit') IN ('off', 'local');";

/// Connections to one database.
pub(crate) struct Pool {
    server: Server,
    connector: MakeRustlsConnect,
    idle: Arc<Mutex<Vec<Client>>>,
    free: Arc<Semaphore>,
}

/// A connection in use. One that is dropped is closed: nobody knows what is on its way there.
pub(crate) struct Pooled {
    client: Client,
    idle: Arc<Mutex<Vec<Client>>>,
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    pub(crate) fn new(server: Server, connector: MakeRustlsConnect) -> Self {
        let free = Arc::new(Semaphore::new(MOST));
        Self { server, connector, idle: Arc::default(), free }
    }

    /// A connection: one that is there, or a new one.
    pub(crate) async fn take(&self) -> Result<Pooled, Failure> {
        let permit = Arc::clone(&self.free).acquire_owned().await.expect("it is never closed");
        let client = match self.idle_one() {
            Some(client) => client,
            None => self.connect().await?,
        };
        Ok(Pooled { client, idle: Arc::clone(&self.idle), _permit: permit })
    }

    fn idle_one(&self) -> Option<Client> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that broke while nobody used them.
        idle.retain(|client| !client.is_closed());
        idle.pop()
    }

    async fn connect(&self) -> Result<Client, Failure> {
        let (client, connection) = self.server.config().connect(self.connector.clone()).await?;
        tokio::spawn(async move {
            // What breaks a connection is told to whoever uses it.
            let _ = connection.await;
        });
        client.batch_execute(BEGIN).await?;
        Ok(client)
    }
}

impl Pooled {
    /// Keeps it for the next time.
    pub(crate) fn give_back(self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(self.client);
    }
}

impl Deref for Pooled {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Pooled {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}
