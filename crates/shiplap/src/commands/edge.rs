//! `edge`: looking after the proxy.

use serde_json::json;
use shiplap_edge::{Client, ClientError};
use shiplap_execute::app::AppError;
use shiplap_model::Limits;

use super::{Exit, Format, machine, machine_reached, refuse};
use crate::cli::{EdgeCommand, ProjectArgs};
use crate::output::time;
use crate::world::{Place, World};

pub async fn edge(project: &ProjectArgs, command: &EdgeCommand, format: Format) -> Exit {
    match command {
        EdgeCommand::Status => status(project, format).await,
        EdgeCommand::Upgrade => {
            let world = match machine_reached(project).await {
                Ok(world) => world,
                Err(exit) => return exit,
            };
            match crate::edge::upgrade(&world).await {
                Ok(what) => {
                    eprintln!("edge: {what}");
                    Exit::Done
                }
                Err(error) => refuse(&error.into(), None),
            }
        }
        EdgeCommand::Certificates(args) => {
            super::certificates::certificates(project, args, format).await
        }
        EdgeCommand::Remove { force } => remove(project, *force).await,
        EdgeCommand::Supervise | EdgeCommand::Work | EdgeCommand::HoldNames => {
            unreachable!("handled before")
        }
    }
}

/// The edge of the machine that is meant.
pub async fn edge_of(project: &ProjectArgs) -> Result<(Client, Option<World>), Exit> {
    edge_at(&machine(project)?).await.map_err(|error| refuse(&error, None))
}

/// The edge of a machine. On this one it needs no engine; the way to another one is there for as
/// long as the world is.
pub async fn edge_at(place: &Place) -> Result<(Client, Option<World>), AppError> {
    if place.is_here() {
        return Ok((Client::new(crate::edge::socket()), None));
    }
    let world = place.reach(&Limits::default()).await?;
    Ok((world.edge(), Some(world)))
}

async fn status(project: &ProjectArgs, format: Format) -> Exit {
    let (client, _world) = match edge_of(project).await {
        Ok(found) => found,
        Err(exit) => return exit,
    };
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

async fn remove(project: &ProjectArgs, force: bool) -> Exit {
    let world = match machine_reached(project).await {
        Ok(world) => world,
        Err(exit) => return exit,
    };
    let table = world.edge().table().await;
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
    match crate::edge::remove(&world.docker).await {
        Ok(()) => Exit::Done,
        Err(error) => refuse(&error.into(), None),
    }
}
