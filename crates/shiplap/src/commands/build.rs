//! `build`: what the Compose files say of images, and where they come from.

mod provenance;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};
use shiplap_compose::Project;
use shiplap_compose::model::Service;
use shiplap_engine::DockerEngine;
use shiplap_execute::app::AppError;
use shiplap_model::{BuildRequest, Engine as _, ImageInfo, Progress, ProgressSink, Reference};

use super::{Exit, Format, refuse, told_or};
use crate::cli::{LimitArgs, ProjectArgs};
use crate::output::progress::{Steady, say};
use crate::secrets::Missing;
use crate::world::Place;
use provenance::Provenance;
pub use provenance::address;

/// `build`.
#[derive(Debug, Clone, Args)]
pub struct BuildArgs {
    /// Only these services [default: all that have `build`]
    pub services: Vec<String>,
    /// Push what was built to its registry
    #[arg(long)]
    pub push: bool,
    /// Tag instead of the one in the files; may be repeated
    #[arg(long = "tag", short = 't', value_name = "TAG")]
    pub tags: Vec<String>,
    /// Ask registries for newer base images
    #[arg(long)]
    pub pull: bool,
    /// Build every layer anew
    #[arg(long)]
    pub no_cache: bool,
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// An image of a service that is to be built.
struct Job {
    service: String,
    request: BuildRequest,
    /// Everything that it is called, the request's tag first.
    names: Vec<String>,
}

/// An image that was built, and where it was pushed.
struct Done {
    service: String,
    image: ImageInfo,
    /// Name and, where it was pushed, digest.
    names: Vec<(String, Option<String>)>,
}

pub async fn build(project: &ProjectArgs, args: &BuildArgs, format: Format) -> Exit {
    let opened = match told_or(crate::load::open(project, Missing::Make).await) {
        Ok(opened) => opened,
        Err(exit) => return exit,
    };
    let source = opened.source;
    let jobs = match jobs(&source.loaded.project, args) {
        Ok(jobs) => jobs,
        Err(problem) => {
            eprintln!("error[usage]: {problem}");
            return Exit::Usage;
        }
    };
    let limits = match crate::limits::with(&args.limits) {
        Ok(limits) => limits,
        Err(exit) => return exit,
    };
    let ran = async {
        let docker = Place::usual()?.reach(&limits).await?.docker;
        let mut done = Vec::new();
        for job in jobs {
            done.push(built(&docker, job).await?);
        }
        // Nothing is pushed before all is built.
        if args.push {
            for built in &mut done {
                pushed(&docker, built).await?;
            }
        }
        Ok::<_, AppError>(done)
    };
    match ran.await {
        Ok(done) => {
            show(&done, format);
            Exit::Done
        }
        Err(error) => refuse(&error, Some(&source)),
    }
}

/// What is to be built, as the files and the command line say.
fn jobs(project: &Project, args: &BuildArgs) -> Result<Vec<Job>, String> {
    for name in &args.services {
        match project.services.get(name) {
            None => return Err(format!("there is no service `{name}`")),
            Some(service) if service.build.is_none() => {
                return Err(format!("`{name}` has no `build`: its image comes from elsewhere"));
            }
            Some(_) => {}
        }
    }
    let is_meant =
        |name: &str| args.services.is_empty() || args.services.iter().any(|one| one == name);
    let mut jobs: Vec<Job> = Vec::new();
    for (name, service) in project.services.iter().filter(|(name, _)| is_meant(name)) {
        let Some(job) = job(project, name, service, args)? else { continue };
        // Services that share an image share its build.
        if jobs.iter().all(|known| known.request.tag != job.request.tag) {
            jobs.push(job);
        }
    }
    if jobs.is_empty() { Err("no service has a `build`".to_owned()) } else { Ok(jobs) }
}

fn job(
    project: &Project,
    name: &str,
    service: &Service,
    args: &BuildArgs,
) -> Result<Option<Job>, String> {
    let Some(build) = &service.build else { return Ok(None) };
    if args.push && service.image.is_none() {
        return Err(format!(
            "`{name}` has no `image`, and so no registry to be pushed to: `image: ghcr.io/…/{name}`"
        ));
    }
    let image = service.image.clone().unwrap_or_else(|| format!("{}-{name}", project.name));
    let reference = Reference::parse(&image).map_err(|error| error.to_string())?;
    if reference.digest.is_some() {
        return Err(format!("`{name}` runs {image}: what a digest names cannot be built"));
    }
    let repository = match image.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => &image,
    };
    let usual = reference.tag.unwrap_or_else(|| "latest".to_owned());
    let tags = if args.tags.is_empty() { std::slice::from_ref(&usual) } else { &args.tags };
    let mut names: Vec<String> = Vec::new();
    for tag in tags {
        let whole = format!("{repository}:{tag}");
        Reference::parse(&whole).map_err(|_| format!("`{tag}` is not a tag"))?;
        names.push(whole);
    }
    let mut build = build.clone();
    build.no_cache |= args.no_cache;
    build.pull |= args.pull;
    let context = build.context.as_deref().map(Path::new).filter(|path| path.is_dir());
    if let Some(provenance) = context.and_then(Provenance::of) {
        for (label, value) in provenance.labels() {
            build.labels.entry(label.to_owned()).or_insert(value);
        }
    }
    build.tags.extend(names.iter().skip(1).cloned());
    names.extend(build.tags.iter().filter(|tag| !names.contains(tag)).cloned().collect::<Vec<_>>());
    let request = BuildRequest { tag: names[0].clone(), build, platform: service.platform.clone() };
    Ok(Some(Job { service: name.to_owned(), request, names }))
}

async fn built(docker: &DockerEngine, job: Job) -> Result<Done, AppError> {
    say(&format!("building {} for {}\n", job.request.tag, job.service));
    let service = job.service.clone();
    let progress: ProgressSink = Arc::new(move |progress| match progress {
        Progress::Line(line) => say(&format!("  {service} | {}\n", line.trim_end())),
        Progress::Bytes { .. } => {}
    });
    let image = docker.build(&job.request, progress).await?;
    let names = job.names.into_iter().map(|name| (name, None)).collect();
    Ok(Done { service: job.service, image, names })
}

async fn pushed(docker: &DockerEngine, done: &mut Done) -> Result<(), AppError> {
    for (name, digest) in &mut done.names {
        let lines = Steady::new();
        let shown = name.clone();
        let progress: ProgressSink = Arc::new(move |progress| {
            if let Progress::Bytes { done_bytes, total_bytes } = progress {
                let (done, total) = (done_bytes / 1_000_000, total_bytes / 1_000_000);
                lines.say(|| format!("… {shown}: {done} of {total} MB"));
            }
        });
        say(&format!("pushing {name}\n"));
        *digest = Some(docker.push(name, &progress).await?.digest);
    }
    Ok(())
}

fn show(all: &[Done], format: Format) {
    match format {
        Format::Json => {
            let images: Vec<Value> = all.iter().map(json_of).collect();
            println!("{:#}", json!({"version": 1, "images": images}));
        }
        Format::Text => {
            for done in all {
                for (name, digest) in &done.names {
                    let what = digest.as_ref().unwrap_or(&done.image.id);
                    println!("{}  {name}  {what}", done.service);
                }
            }
        }
    }
}

fn json_of(done: &Done) -> Value {
    let names: Vec<Value> = done
        .names
        .iter()
        .map(|(name, digest)| json!({"reference": name, "digest": digest}))
        .collect();
    let labels: BTreeMap<&str, &str> = provenance::LABELS
        .iter()
        .filter_map(|label| Some((*label, done.image.labels.get(*label)?.as_str())))
        .collect();
    json!({"service": done.service, "id": done.image.id, "names": names, "labels": labels})
}
