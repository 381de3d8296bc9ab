//! A database that we may connect to. Its password is never shown.

use std::fmt;
use std::process::Command;
use std::time::Duration;

use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config, NoTls};

use super::error::{Doing, Error};

/// How long a server may take to answer a new connection.
const CONNECT: Duration = Duration::from_secs(10);

/// Where a database is, and as whom we come.
#[derive(Clone)]
pub struct Server {
    config: Config,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({self})")
    }
}

impl fmt::Display for Server {
    /// `shop on db.example:5432`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.database(), self.host())?;
        match self.config.get_ports() {
            [port, ..] => write!(f, ":{port}"),
            [] => Ok(()),
        }
    }
}

impl Server {
    /// Reads `postgresql://user:password@host:port/database` or `host=… dbname=…`.
    ///
    /// # Errors
    /// If it is neither, or asks for encryption, which is not there yet.
    pub fn parse(url: &str) -> Result<Self, Error> {
        let doing = "reading the database's URL";
        // The library's message could repeat a part of the URL.
        let mut config: Config = url
            .trim()
            .parse()
            .map_err(|_| Error::said(doing, "not of the form postgresql://user@host/database"))?;
        if config.get_ssl_mode() == SslMode::Require {
            let cause = "`sslmode=require` is not supported yet; use a tunnel or a local socket";
            return Err(Error::said(doing, cause));
        }
        if config.get_dbname().is_none() {
            return Err(Error::said(doing, "it names no database"));
        }
        if config.get_hosts().is_empty() {
            return Err(Error::said(doing, "it names no host"));
        }
        config.application_name("shiplap data").connect_timeout(CONNECT);
        Ok(Self { config })
    }

    /// The database's name.
    pub fn database(&self) -> &str {
        self.config.get_dbname().expect("checked when it was read")
    }

    /// Another database on the same server, as the same role.
    pub fn with_database(&self, name: &str) -> Self {
        let mut config = self.config.clone();
        config.dbname(name);
        Self { config }
    }

    fn host(&self) -> String {
        match &self.config.get_hosts()[0] {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.to_string_lossy().into_owned(),
        }
    }

    /// Connects.
    pub async fn connect(&self) -> Result<Client, Error> {
        let connected = self.config.connect(NoTls).await;
        let (client, connection) = connected.doing(|| format!("connecting to {self}"))?;
        tokio::spawn(async move {
            // What breaks a connection is told to whoever uses it.
            let _ = connection.await;
        });
        Ok(client)
    }

    /// Tells a PostgreSQL program by its environment where to go, which other users cannot read,
    /// as they can its arguments.
    pub(super) fn tell(&self, command: &mut Command) {
        command.env("PGHOST", self.host()).env("PGDATABASE", self.database());
        if let [port, ..] = self.config.get_ports() {
            command.env("PGPORT", port.to_string());
        }
        if let Some(user) = self.config.get_user() {
            command.env("PGUSER", user);
        }
        if let Some(password) = self.config.get_password() {
            command.env("PGPASSWORD", String::from_utf8_lossy(password).into_owned());
        }
        command.env("PGAPPNAME", "shiplap data").env("PGCONNECT_TIMEOUT", "10");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        let server = Server::parse("postgresql://me:s3cret@db.example:5433/shop").unwrap();
        assert_eq!(server.to_string(), "shop on db.example:5433");
        assert!(!format!("{server:?}").contains("s3cret"));
        let error = Server::parse("postgresql://me:s3cret@db.example:x/shop").unwrap_err();
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }

    #[test]
    fn encryption_that_is_asked_for_is_not_left_out_silently() {
        let refused = Server::parse("postgresql://me@db.example/shop?sslmode=require");
        assert!(refused.unwrap_err().to_string().contains("not supported yet"));
    }
}
