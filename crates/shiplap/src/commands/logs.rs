//! `logs`: what services print, line by line.

use std::io::Write as _;

use futures_util::StreamExt as _;
use futures_util::stream::{BoxStream, select_all};
use shiplap_engine::LogOptions;
use shiplap_model::{Engine as _, ReplicaName, Standing};

use super::{Exit, Format, app, refuse, source};
use crate::cli::{LogsArgs, ProjectArgs};

pub async fn logs(project: &ProjectArgs, args: &LogsArgs, format: Format) -> Exit {
    let (source, place) = match source(project).await {
        Ok(found) => found,
        Err(exit) => return exit,
    };
    let docker = match app(&place, Some(&source)).await {
        Ok((_, world)) => world.docker,
        Err(exit) => return exit,
    };
    let observed = match docker.observe(&source.scope().project, None).await {
        Ok(observed) => observed,
        Err(error) => return refuse(&error.into(), Some(&source)),
    };
    if let Some(unknown) = args.services.iter().find(|name| {
        !observed.containers.iter().any(|c| c.service == **name)
            && !source.loaded.project.services.contains_key(*name)
    }) {
        eprintln!("error[usage]: there is no service `{unknown}` in this project");
        return Exit::Failed;
    }
    let containers: Vec<_> = observed
        .containers
        .iter()
        .filter(|c| args.services.is_empty() || args.services.contains(&c.service))
        .filter(|c| args.all || ReplicaName::parse(&c.name).1 == Standing::Live)
        .collect();
    let width = containers.iter().map(|c| c.name.len()).max().unwrap_or(0);
    let options = LogOptions {
        follow: args.follow,
        tail: args.tail,
        since_s: None,
        timestamps: args.timestamps,
    };
    let mut streams: Vec<BoxStream<'_, _>> = Vec::new();
    for container in &containers {
        match docker.logs(&container.name, &options).await {
            Ok(stream) => {
                let name = container.name.clone();
                let service = container.service.clone();
                streams.push(stream.map(move |item| (name.clone(), service.clone(), item)).boxed());
            }
            Err(error) => return refuse(&error.into(), Some(&source)),
        }
    }
    let mut out = std::io::stdout().lock();
    let mut lines = select_all(streams);
    while let Some((name, service, item)) = lines.next().await {
        let chunk = match item {
            Ok(chunk) => chunk,
            Err(error) => {
                eprintln!("error[engine]: {error}");
                return Exit::Failed;
            }
        };
        let text = String::from_utf8_lossy(&chunk.bytes);
        for line in text.lines() {
            let written = match format {
                Format::Text => writeln!(out, "{name:width$} | {line}"),
                Format::Json => {
                    let stream = if chunk.is_stderr { "stderr" } else { "stdout" };
                    let entry = serde_json::json!({
                        "container": name, "service": service, "stream": stream, "line": line,
                    });
                    writeln!(out, "{entry}")
                }
            };
            // The reader has gone: `shiplap logs | head` ends quietly.
            if written.is_err() {
                return Exit::Done;
            }
        }
    }
    Exit::Done
}
