//! `push`: an image to an environment's engine, with no registry.

use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use serde_json::json;
use shiplap_config::Settings;
use shiplap_engine::{DockerEngine, Sent};
use shiplap_execute::app::AppError;
use shiplap_model::{
    BadReference, Engine as _, EngineError, EngineErrorKind, Limits, Progress, ProgressSink,
    Reference,
};

use super::{Exit, Format, refuse, show_diagnostics};
use crate::cli::{LimitArgs, ProjectArgs};
use crate::output::progress::Steady;
use crate::world::Place;

/// `push`.
#[derive(Debug, Clone, Args)]
pub struct PushArgs {
    /// The image, as the Compose file names it; `latest` where no tag is given
    pub image: String,
    /// The environment whose engine gets it
    #[arg(long, value_name = "ENVIRONMENT")]
    pub to: Option<String>,
    /// The engine that has it, such as unix:///run/docker.sock [default: the one that `docker` uses
    /// here]
    #[arg(long, value_name = "ADDRESS")]
    pub from: Option<String>,
    #[command(flatten)]
    pub limits: LimitArgs,
}

pub async fn push(project: &ProjectArgs, args: &PushArgs, format: Format) -> Exit {
    let name = match named(&args.image) {
        Ok(name) => name,
        Err(error) => {
            eprintln!("error[usage]: {error}");
            return Exit::Usage;
        }
    };
    let project = ProjectArgs {
        environment: args.to.clone().or(project.environment.clone()),
        ..project.clone()
    };
    let settings = match crate::load::settings(&project) {
        Ok(settings) => settings,
        Err(diagnostics) => {
            show_diagnostics(&diagnostics);
            return Exit::Failed;
        }
    };
    let limits = match crate::limits::with(&args.limits) {
        Ok(limits) => limits,
        Err(exit) => return exit,
    };
    match carry(&name, settings.as_ref(), args.from.as_deref(), &limits).await {
        Ok(sent) => {
            show(&name, &sent, format);
            Exit::Done
        }
        Err(error) => refuse(&error, None),
    }
}

/// The image's name, with a tag: one by its digest cannot be loaded under it.
fn named(image: &str) -> Result<String, String> {
    let reference = Reference::parse(image).map_err(|error: BadReference| error.to_string())?;
    if reference.digest.is_some() {
        return Err(format!("`{image}` is a digest, which only registries give; push a tag"));
    }
    let last = image.rsplit('/').next().unwrap_or(image);
    Ok(if last.contains(':') { image.to_owned() } else { format!("{image}:latest") })
}

struct Outcome {
    sent: Sent,
    same_id: bool,
    took_ms: u128,
}

async fn carry(
    name: &str,
    settings: Option<&Settings>,
    from: Option<&str>,
    limits: &Limits,
) -> Result<Outcome, AppError> {
    let began = Instant::now();
    let source = match from {
        Some(address) => Place::at(address)?,
        None => Place::usual()?,
    };
    let source = source.reach(limits).await?.docker;
    let info = source.image(name).await?.ok_or_else(|| absent(name, &source))?;
    let target = Place::of(settings)?.reach(limits).await?.docker;
    // What is there already need not even be read here.
    if let Some(there) = target.image(&info.id).await? {
        target.tag(&there.id, name).await?;
        let image = target.image(name).await?.unwrap_or(there);
        let sent = Sent { image, layers: 0, sent_layers: 0, sent_bytes: 0 };
        return Ok(Outcome { sent, same_id: true, took_ms: began.elapsed().as_millis() });
    }
    let progress = progress();
    let saved = source.save(name, &std::env::temp_dir(), &progress).await?;
    let sent = target.receive(saved, name, &progress).await?;
    let same_id = sent.image.id == info.id;
    Ok(Outcome { sent, same_id, took_ms: began.elapsed().as_millis() })
}

fn absent(name: &str, source: &DockerEngine) -> EngineError {
    EngineError {
        kind: EngineErrorKind::NotFound,
        doing: format!("pushing {name}"),
        message: format!("there is no such image at {}", source.endpoint()),
        help: Some("`docker images` shows what there is; `shiplap build` builds it".to_owned()),
    }
}

fn progress() -> ProgressSink {
    let lines = Steady::new();
    Arc::new(move |progress| match progress {
        Progress::Bytes { done_bytes, total_bytes: 0 } => {
            lines.say(|| format!("… {} MB taken out of the engine", done_bytes / 1_000_000));
        }
        Progress::Bytes { done_bytes, total_bytes } => {
            let (done, total) = (done_bytes / 1_000_000, total_bytes / 1_000_000);
            lines.say(|| format!("… {done} of {total} MB sent"));
        }
        Progress::Line(_) => {}
    })
}

fn show(name: &str, outcome: &Outcome, format: Format) {
    let sent = &outcome.sent;
    match format {
        Format::Json => println!(
            "{:#}",
            json!({
                "version": 1,
                "image": name,
                "id": sent.image.id,
                "same_id": outcome.same_id,
                "layers": sent.layers,
                "sent_layers": sent.sent_layers,
                "sent_bytes": sent.sent_bytes,
                "took_ms": outcome.took_ms,
            })
        ),
        Format::Text if sent.layers == 0 => println!("{name} is there already"),
        Format::Text => {
            println!(
                "{name} is there: {} of {} layers sent, {} bytes, in {:.1} s",
                sent.sent_layers,
                sent.layers,
                sent.sent_bytes,
                outcome.took_ms as f64 / 1000.0
            );
        }
    }
    if !outcome.same_id {
        eprintln!(
            "! its id is {} there: the engines keep images in different stores",
            sent.image.id
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_a_tag_and_no_digest() {
        assert_eq!(named("shop/api").unwrap(), "shop/api:latest");
        assert_eq!(named("reg:5000/api").unwrap(), "reg:5000/api:latest");
        assert_eq!(named("api:v1").unwrap(), "api:v1");
        let digest = format!("api@sha256:{}", "ab".repeat(32));
        assert!(named(&digest).unwrap_err().contains("push a tag"));
        assert!(named("../x").is_err());
    }
}
