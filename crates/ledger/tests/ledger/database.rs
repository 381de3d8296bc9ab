//! A database on a server that the tests share.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use shiplap_ledger::{PostgresLedger, Server};
use shiplap_testkit::Postgres;
use tokio_postgres::{Client, NoTls};

use crate::support::Machine;

/// What the machines of tests are called.
pub const MACHINE: &str = "laptop";

/// An empty database, to begin with.
pub struct Database {
    pub server: Arc<Postgres>,
    pub name: String,
}

impl Database {
    /// Nothing, where there is no server.
    pub async fn new() -> Option<Self> {
        match Postgres::shared() {
            Ok(server) => Some(Self::on(server).await),
            Err(why) => {
                eprintln!("skipped: {why}");
                None
            }
        }
    }

    pub async fn on(server: Arc<Postgres>) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("ledger_{}_{number}", std::process::id());
        let raw = connect(&server.url("postgres", "postgres")).await;
        raw.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        Self { server, name }
    }

    pub fn url(&self) -> String {
        self.server.url("postgres", &self.name)
    }

    pub async fn raw(&self) -> Client {
        let raw = connect(&self.url()).await;
        raw.batch_execute("SET search_path = shiplap").await.unwrap();
        raw
    }

    /// Does something behind the ledger's back.
    pub async fn execute(&self, sql: &str) -> Result<(), String> {
        let done = self.raw().await.batch_execute(sql).await;
        done.map_err(|error| error.as_db_error().map_or(error.to_string(), |e| e.message().into()))
    }

    /// The ledger of a process, whose key is in `dir`.
    pub async fn open(&self, machine: &Machine, pid: u32, dir: &Path) -> PostgresLedger {
        let server = Server::parse(&self.url()).unwrap();
        let host = machine.process(pid);
        PostgresLedger::open_on(server, dir.join("key"), host, MACHINE).await.unwrap()
    }

    /// From now on its clock says what it is told.
    pub async fn fix_clock(&self, now_ms: i64) {
        let sql = format!(
            "CREATE TABLE test_clock (now_ms bigint); INSERT INTO test_clock VALUES ({now_ms}); \
             CREATE OR REPLACE FUNCTION now_ms() RETURNS bigint LANGUAGE sql VOLATILE AS \
             'SELECT now_ms FROM shiplap.test_clock'; \
             CREATE FUNCTION zeroblob(length integer) RETURNS bytea LANGUAGE sql AS \
             $$SELECT decode(repeat('00', length), 'hex')$$;"
        );
        self.execute(&sql).await.unwrap();
    }

    pub async fn set_clock(&self, now_ms: i64) {
        self.execute(&format!("UPDATE test_clock SET now_ms = {now_ms}")).await.unwrap();
    }
}

pub async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}
