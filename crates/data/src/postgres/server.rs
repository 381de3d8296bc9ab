//! A database that we may connect to. Its password is never shown.

use std::fmt;
use std::process::Command;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_postgres::config::Host;
use tokio_postgres::{Client, Config, Connection, NoTls};

use super::error::{Doing, Error};
use super::tls::Tls;
use super::url::Taken;

/// How long a server may take to answer a new connection.
const CONNECT: Duration = Duration::from_secs(10);

/// A database without an encoding holds bytes that need not be text in any: they must come and go
/// as they are.
const BYTES_AS_THEY_ARE: &str = "SELECT set_config('client_encoding', 'SQL_ASCII', false)
    WHERE current_setting('server_encoding') = 'SQL_ASCII'";

/// Where a database is, and as whom we come.
#[derive(Clone)]
pub struct Server {
    config: Config,
    /// None of it through a socket of this machine.
    tls: Option<Tls>,
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
    /// Reads `postgresql://user:password@host:port/database` or `host=… dbname=…`, with `sslmode`
    /// and `sslrootcert` as PostgreSQL's own programs know them.
    ///
    /// # Errors
    /// If it is neither, or asks for something of TLS that cannot be had.
    pub fn parse(url: &str) -> Result<Self, Error> {
        let doing = "reading the database's URL";
        // The library's message could repeat a part of the URL.
        let malformed = || Error::said(doing, "not of the form postgresql://user@host/database");
        let taken = Taken::from(url.trim()).ok_or_else(malformed)?;
        let mut config: Config = taken.rest.parse().map_err(|_| malformed())?;
        if config.get_dbname().is_none() {
            return Err(Error::said(doing, "it names no database"));
        }
        let tls = match config.get_hosts().first() {
            None => return Err(Error::said(doing, "it names no host")),
            // PostgreSQL's programs use no TLS there either, whatever is asked for.
            Some(Host::Unix(_)) => None,
            Some(Host::Tcp(_)) => {
                Some(Tls::new(taken.sslmode.as_deref(), taken.sslrootcert.as_deref())?)
            }
        };
        if let Some(tls) = &tls {
            config.ssl_mode(tls.ssl_mode());
        }
        config.application_name("shiplap data").connect_timeout(CONNECT);
        Ok(Self { config, tls })
    }

    /// The database's name.
    pub fn database(&self) -> &str {
        self.config.get_dbname().expect("checked when it was read")
    }

    /// Another database on the same server, as the same role.
    pub fn with_database(&self, name: &str) -> Self {
        let mut config = self.config.clone();
        config.dbname(name);
        Self { config, tls: self.tls.clone() }
    }

    fn host(&self) -> String {
        match &self.config.get_hosts()[0] {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.to_string_lossy().into_owned(),
        }
    }

    /// Connects.
    pub async fn connect(&self) -> Result<Client, Error> {
        let doing = || format!("connecting to {self}");
        let client = match &self.tls {
            None => drive(self.config.connect(NoTls).await.doing(doing)?),
            Some(tls) => drive(self.config.connect(tls.connector()?).await.doing(doing)?),
        };
        client.batch_execute(BYTES_AS_THEY_ARE).await.doing(doing)?;
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
        if let Some(tls) = &self.tls {
            tls.tell(command);
        }
        command.env("PGAPPNAME", "shiplap data").env("PGCONNECT_TIMEOUT", "10");
    }
}

/// Lets a connection work as long as its client is there.
fn drive<S, T>((client, connection): (Client, Connection<S, T>)) -> Client
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    tokio::spawn(async move {
        // What breaks a connection is told to whoever uses it.
        let _ = connection.await;
    });
    client
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_postgres::config::SslMode;

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
        let mode = |word: &str| {
            let server = Server::parse(&format!("postgresql://me@db.example/shop?sslmode={word}"));
            server.map(|server| server.config.get_ssl_mode())
        };
        assert_eq!(mode("disable").unwrap(), SslMode::Disable);
        assert_eq!(mode("prefer").unwrap(), SslMode::Prefer);
        assert_eq!(mode("require").unwrap(), SslMode::Require);
        let full = mode("verify-full&sslrootcert=/etc/ca.pem").unwrap();
        assert_eq!(full, SslMode::Require);
        assert!(mode("verify").unwrap_err().to_string().contains("verify-ca"));
    }
}
