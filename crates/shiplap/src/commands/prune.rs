//! `prune`: free what no rollback needs.

use std::io::{BufRead as _, Write as _};

use serde_json::json;
use shiplap_execute::app::{KEEP_DEPLOYMENTS, Prunable};

use super::{Exit, Format, app, machine, refuse};
use crate::cli::{ProjectArgs, PruneArgs};

pub async fn prune(project: &ProjectArgs, args: &PruneArgs, format: Format) -> Exit {
    let place = match machine(project) {
        Ok(place) => place,
        Err(exit) => return exit,
    };
    let app = match app(&place, None).await {
        Ok((app, _)) => app,
        Err(exit) => return exit,
    };
    let mut images = match app.prunable().await {
        Ok(images) => images,
        Err(error) => return refuse(&error, None),
    };
    // This build's own edge may be about to start.
    let own = crate::edge::own_image();
    images.retain(|image| !image.tags.iter().any(|tag| Some(tag) == own.as_ref()));
    if format == Format::Text {
        print!("{}", describe(&images));
    }
    let goes = !images.is_empty() && (args.yes || ask());
    let freed = if goes {
        match app.prune(images.clone()).await {
            Ok(freed) => freed,
            Err(error) => return refuse(&error, None),
        }
    } else {
        Default::default()
    };
    if format == Format::Json {
        let list = |images: &[Prunable]| -> Vec<serde_json::Value> {
            images
                .iter()
                .map(|i| json!({"id": i.id, "tags": i.tags, "size_bytes": i.size_bytes}))
                .collect()
        };
        println!(
            "{:#}",
            json!({
                "version": 1,
                "prunable": list(&images),
                "freed": list(&freed.images),
            })
        );
        return Exit::Done;
    }
    if goes {
        let count = freed.images.len();
        eprintln!("{count} {} removed", if count == 1 { "image" } else { "images" });
        for (image, reason) in &freed.kept {
            eprintln!("{} stays: {reason}", name(image));
        }
    }
    Exit::Done
}

fn describe(images: &[Prunable]) -> String {
    use std::fmt::Write as _;
    if images.is_empty() {
        return format!(
            "nothing to free: every image is in use, or among the last {KEEP_DEPLOYMENTS} \
             deployments of an environment, or not ours\n"
        );
    }
    let mut text = String::new();
    for image in images {
        let megabytes = image.size_bytes / 1_000_000;
        let _ = writeln!(text, "- {}  {megabytes} MB", name(image));
    }
    let total: u64 = images.iter().map(|image| image.size_bytes).sum();
    let _ = writeln!(
        text,
        "{} {}, at most {} MB (layers that others share stay)",
        images.len(),
        if images.len() == 1 { "image" } else { "images" },
        total / 1_000_000
    );
    text
}

fn name(image: &Prunable) -> String {
    let short: String = image.id.trim_start_matches("sha256:").chars().take(12).collect();
    match image.tags.first() {
        Some(tag) => format!("{tag} ({short})"),
        None => short,
    }
}

fn ask() -> bool {
    if !crate::remote::can_ask() {
        eprintln!("--yes frees it");
        return false;
    }
    eprint!("free it? [y/N] ");
    let _ = std::io::stderr().flush();
    let mut line = String::new();
    let _ = std::io::stdin().lock().read_line(&mut line);
    matches!(line.trim(), "y" | "Y" | "yes")
}
