//! `edge`: looking after the proxy.

use serde_json::json;
use shiplap_edge::{Client, ClientError};
use shiplap_model::Limits;

use super::{Exit, Format, refuse};
use crate::cli::EdgeCommand;
use crate::output::time;

pub async fn edge(command: &EdgeCommand, format: Format) -> Exit {
    match command {
        EdgeCommand::Status => status(format).await,
        EdgeCommand::Upgrade => {
            let docker = match crate::world::engine(&Limits::default()).await {
                Ok(docker) => docker,
                Err(error) => return refuse(&error, None),
            };
            match crate::edge::upgrade(&docker).await {
                Ok(what) => {
                    eprintln!("edge: {what}");
                    Exit::Done
                }
                Err(error) => refuse(&error.into(), None),
            }
        }
        EdgeCommand::Certificates(args) => super::certificates::certificates(args, format).await,
        EdgeCommand::Remove { force } => remove(*force).await,
        EdgeCommand::Supervise | EdgeCommand::Work | EdgeCommand::HoldNames => {
            unreachable!("handled before")
        }
    }
}

async fn status(format: Format) -> Exit {
    let client = Client::new(crate::edge::socket());
    let status = match client.status().await {
        Ok(status) => status,
        Err(ClientError::Unreachable { .. }) => {
            match format {
                Format::Json => println!("{:#}", json!({"version": 1, "running": false})),
                Format::Text => println!("no edge runs here; the first deployment starts it"),
            }
            return Exit::Done;
        }
        Err(error) => {
            eprintln!("error[edge]: {error}");
            return Exit::Failed;
        }
    };
    if format == Format::Json {
        println!("{:#}", json!({"version": 1, "running": true, "status": status}));
        return Exit::Done;
    }
    println!(
        "edge {} build {}, up for {} s, table {}, worker restarted {} times",
        status.version,
        status.build,
        status.supervisor_uptime_ms / 1000,
        status.generation,
        status.worker_restarts
    );
    for problem in &status.problems {
        println!("! {problem}");
    }
    for certificate in &status.certificates {
        let names = certificate.shown.names.join(" ");
        let until = certificate.not_after_s.and_then(|end| i64::try_from(end).ok());
        match until {
            Some(end) => println!("{names}  certificate until {}", time::moment(end * 1000)),
            None => println!("{names}  no certificate; `shiplap edge certificates --renew`"),
        }
    }
    for listener in &status.listeners {
        let state = match (&listener.error, listener.bound) {
            (Some(error), _) => error.as_str(),
            (None, true) => "open",
            (None, false) => "closed",
        };
        let place = &listener.listener;
        let inside: String = match &place.namespace {
            Some(holder) => format!("  inside {}", holder.chars().take(12).collect::<String>()),
            None => String::new(),
        };
        let socket = std::net::SocketAddr::new(place.address, place.port);
        let tls = if place.tls.is_some() { "  TLS" } else { "" };
        let to = place.pool.as_deref().unwrap_or("routes");
        println!("{socket}  {to}  {state}{tls}{inside}");
    }
    for (name, pool) in &status.pools {
        let held = if pool.paused { ", held" } else { "" };
        println!("{name}  {} waiting{held}", pool.held);
        for replica in &pool.replicas {
            let id: String = replica.id.chars().take(12).collect();
            println!(
                "  {id} {}  {} in flight, {} streams, {} answered",
                std::net::SocketAddr::new(replica.address, replica.port),
                replica.in_flight,
                replica.streams,
                replica.total
            );
        }
    }
    Exit::Done
}

async fn remove(force: bool) -> Exit {
    let docker = match crate::world::engine(&Limits::default()).await {
        Ok(docker) => docker,
        Err(error) => return refuse(&error, None),
    };
    let table = Client::new(crate::edge::socket()).table().await;
    if let Ok(table) = table
        && !table.listeners.is_empty()
        && !force
    {
        let mut owners: Vec<&str> = table.listeners.iter().map(|l| l.owner.as_str()).collect();
        owners.sort_unstable();
        owners.dedup();
        eprintln!("error[edge]: it holds ports of {}", owners.join(", "));
        eprintln!("  = help: `shiplap down` those first, or add --force: their ports close then");
        return Exit::Failed;
    }
    match crate::edge::remove(&docker).await {
        Ok(()) => Exit::Done,
        Err(error) => refuse(&error.into(), None),
    }
}
