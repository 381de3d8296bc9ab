//! `maintenance` and `pause`: requests are kept away by hand.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Subcommand;
use serde_json::json;
use shiplap_config::address_block;
use shiplap_execute::Silent;
use shiplap_model::{Maintenance, MaintenanceChange, Scope, Span};

use super::{Exit, Format, Found, found, refuse};
use crate::cli::{LimitArgs, ProjectArgs, duration};

/// What is said where no page is given.
const PAGE: &str = "<!doctype html>\n<meta charset=\"utf-8\">\n<title>Back soon</title>\n\
    <p>We are working on this. Please come back in a few minutes.</p>\n";
/// As much as the edge takes.
const LARGEST_PAGE: usize = 64 << 10;

/// `maintenance`.
#[derive(Debug, Clone, Subcommand)]
pub enum MaintenanceCommand {
    /// Everybody gets 503 and a page, until it is off; deployments leave it on
    On {
        /// The page, of at most 64 KiB; sent by its extension as HTML, JSON or plain text [default: one
        /// that says to come back]
        #[arg(long, value_name = "FILE")]
        page: Option<PathBuf>,
        /// When clients should come back
        #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "2m")]
        retry_after: Duration,
        /// An address or a block of addresses that is served all the same; may be repeated
        #[arg(long, value_name = "CIDR", value_parser = block)]
        allow: Vec<String>,
    },
    /// Requests are answered again
    Off,
}

fn block(text: &str) -> Result<String, String> {
    address_block(text).ok_or_else(|| {
        format!("`{text}` is no block of addresses such as 192.0.2.0/24 or 2001:db8::/32")
    })
}

pub async fn maintenance(
    project: &ProjectArgs,
    command: &MaintenanceCommand,
    format: Format,
) -> Exit {
    let (change, said) = match command {
        MaintenanceCommand::Off => (MaintenanceChange::Off, "is answered again"),
        MaintenanceCommand::On { page, retry_after, allow } => {
            let (body, content_type) = match page.as_deref().map(read).transpose() {
                Ok(page) => page.unwrap_or((PAGE.to_owned(), HTML)),
                Err(exit) => return exit,
            };
            let maintenance = Maintenance {
                body,
                content_type: content_type.to_owned(),
                retry_after_s: u32::try_from(retry_after.as_secs()).unwrap_or(u32::MAX),
                allow: allow.clone(),
            };
            let said = "is in maintenance: `shiplap maintenance off` ends it";
            (MaintenanceChange::On(maintenance), said)
        }
    };
    let on = change != MaintenanceChange::Off;
    let Found { scope, place, .. } = match found(project).await {
        Ok(found) => found,
        Err(exit) => return exit,
    };
    let limits = match crate::limits::from_environment() {
        Ok(limits) => limits,
        Err(exit) => return exit,
    };
    let app = match place.reach(&limits).await {
        Ok(world) => world.app(Arc::new(Silent), &limits).await,
        Err(error) => Err(error),
    };
    let app = match app {
        Ok(app) => app,
        Err(error) => return refuse(&error, None),
    };
    if let Err(error) = app.maintain(&scope, change, &limits).await {
        return refuse(&error, None);
    }
    match format {
        Format::Text => println!("{scope} {said}"),
        Format::Json => println!("{:#}", document(&scope, "maintenance", on)),
    }
    Exit::Done
}

fn document(scope: &Scope, what: &str, on: bool) -> serde_json::Value {
    json!({
        "version": 1,
        "project": scope.project,
        "environment": scope.environment,
        what: on,
    })
}

const HTML: &str = "text/html; charset=utf-8";

/// A page, and what it is.
fn read(path: &Path) -> Result<(String, &'static str), Exit> {
    let content_type = match path.extension().and_then(|extension| extension.to_str()) {
        Some("html" | "htm") => HTML,
        Some("json") => "application/json",
        _ => "text/plain; charset=utf-8",
    };
    let shown = path.display();
    let body = std::fs::read_to_string(path).map_err(|error| {
        eprintln!("error[usage]: cannot read `{shown}`: {error}");
        Exit::Usage
    })?;
    if body.len() > LARGEST_PAGE {
        eprintln!("error[usage]: `{shown}` has more than 64 KiB");
        return Err(Exit::Usage);
    }
    Ok((body, content_type))
}

/// `pause`.
pub async fn pause(project: &ProjectArgs, args: &LimitArgs, format: Format) -> Exit {
    let Found { scope, place, .. } = match found(project).await {
        Ok(found) => found,
        Err(exit) => return exit,
    };
    let limits = match crate::limits::with(args) {
        Ok(limits) => limits,
        Err(exit) => return exit,
    };
    let app = match place.reach(&limits).await {
        Ok(world) => world.app(Arc::new(Silent), &limits).await,
        Err(error) => Err(error),
    };
    let app = match app {
        Ok(app) => app,
        Err(error) => return refuse(&error, None),
    };
    if let Err(error) = app.pause(&scope, &limits).await {
        return refuse(&error, None);
    }
    match format {
        Format::Text => println!(
            "requests of {scope} wait, each for {} at most (the limit `hold`) and then gets 503: \
             `shiplap resume` lets them go on",
            Span(limits.hold)
        ),
        Format::Json => println!("{:#}", document(&scope, "held", true)),
    }
    Exit::Done
}
