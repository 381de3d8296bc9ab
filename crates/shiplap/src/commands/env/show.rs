//! `env show`: all that makes an environment what it is.

use std::fmt::Write as _;

use serde_json::{Value, json};
use shiplap_compose::model::{Project, Service};
use shiplap_config::{
    Approval, Certificates, HookSettings, JobSettings, Ports, Settings, SignedBy, Target,
};

use super::super::{opened, show_diagnostics};
use super::{Exit, Format, no_config};
use crate::cli::ProjectArgs;
use crate::load::Opened;
use crate::output::limited::Limited;
use crate::output::table::columns;
use crate::secrets::Missing;

pub async fn show(project: &ProjectArgs, name: &str, format: Format) -> Exit {
    match crate::load::config(project) {
        Ok(Some(_)) => {}
        Ok(None) => return no_config(),
        Err(diagnostics) => {
            show_diagnostics(&diagnostics);
            return Exit::Failed;
        }
    }
    let opened = match opened(&crate::load::with_environment(project, name), Missing::Pretend).await
    {
        Ok(opened) => opened,
        Err(exit) => return exit,
    };
    let Some(settings) = &opened.settings else { return no_config() };
    match format {
        Format::Text => print!("{}", text(&opened, settings)),
        Format::Json => println!("{:#}", document(&opened, settings)),
    }
    Exit::Done
}

/// Names of the variables that a service gets, in order.
fn variables(service: &Service) -> Vec<&str> {
    let mut names: Vec<&str> = service.environment.keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

fn secrets(service: &Service) -> Vec<&str> {
    service.secrets.iter().filter_map(|secret| secret.source.as_deref()).collect()
}

fn paths(opened: &Opened) -> Vec<String> {
    opened.source.loaded.files.iter().map(|file| file.display().to_string()).collect()
}

fn env_files(settings: &Settings) -> Vec<String> {
    let all = settings.env_files.iter().chain(&settings.versions);
    all.map(|path| path.display().to_string()).collect()
}

const fn ports(settings: &Settings) -> &'static str {
    match settings.ports {
        Ports::Keep => "keep",
        Ports::Any => "any",
        Ports::None => "none",
    }
}

fn target(settings: &Settings) -> &str {
    match &settings.target {
        Target::Here => "local",
        Target::At(address) => address,
    }
}

fn tls(settings: &Settings) -> Option<&'static str> {
    settings.tls.as_ref().map(|tls| match &tls.from {
        Certificates::Acme(_) => "acme",
        Certificates::Internal => "internal",
        Certificates::Files { .. } => "files",
    })
}

/// The gates in the order in which they are asked. Of a command only its program: what comes
/// behind it may hold more than everybody should see.
fn gates(settings: &Settings) -> Vec<(&'static str, String)> {
    let hook = |hook: &HookSettings| hook.command.first().cloned().unwrap_or_default();
    let given = &settings.gates;
    let mut gates = Vec::new();
    let of = |what: String, repositories: &[String]| match repositories {
        [] => what,
        some => format!("{what} for {}", some.join(", ")),
    };
    gates.extend(given.signature.iter().map(|rule| {
        let what = match &rule.by {
            SignedBy::Command(given) => hook(given),
            SignedBy::Keys { files, .. } => {
                let names = files.iter().filter_map(|file| file.file_name());
                let names: Vec<_> = names.map(|name| name.to_string_lossy()).collect();
                format!("by {}", names.join(" or "))
            }
        };
        ("signature", of(what, &rule.repositories))
    }));
    gates.extend(given.scan.as_ref().map(|scan| {
        let above = scan.report.as_ref().map(|report| {
            format!(", nothing {} or above", format!("{:?}", report.fail_on).to_lowercase())
        });
        let what = format!("{}{}", hook(&scan.hook), above.unwrap_or_default());
        ("scan", of(what, &scan.repositories))
    }));
    gates.extend(given.tests.as_ref().map(|given| ("tests", job(given))));
    if given.approval == Approval::Required {
        gates.push(("approval", "a person".to_owned()));
    }
    gates.extend(given.backup.as_ref().map(|given| ("backup", hook(given))));
    gates
}

fn job(job: &JobSettings) -> String {
    format!("{} in {}", job.command.first().map_or("", String::as_str), job.service)
}

fn text(opened: &Opened, settings: &Settings) -> String {
    let mut text = String::new();
    let from = match settings.is_derived() {
        true => format!(", made from {}", settings.base),
        false => String::new(),
    };
    let _ = writeln!(
        text,
        "{}: Compose project {} on {}{from}",
        settings.name,
        settings.project_name,
        target(settings)
    );
    let mut facts: Vec<(&str, String)> = vec![("files", paths(opened).join(", "))];
    let mut list = |what, names: Vec<String>| {
        if !names.is_empty() {
            facts.push((what, names.join(", ")));
        }
    };
    list("variables from", env_files(settings));
    list("variables", settings.variables.keys().cloned().collect());
    list("secrets", settings.secrets.clone());
    list("profiles", settings.profiles.clone());
    list("goes without", settings.exclude.clone());
    list("domain", settings.domain.clone().into_iter().collect());
    list("host ports", vec![ports(settings).to_owned()]);
    list("certificates", tls(settings).map(str::to_owned).into_iter().collect());
    list("protection", opened.source.routes.guard.words());
    let facts: Vec<Vec<String>> =
        facts.into_iter().map(|(what, value)| vec![format!("  {what}"), value]).collect();
    text.push_str(&columns(&facts));
    section(&mut text, "services", services(&opened.source.loaded.project));
    let routes = opened.source.routes.routes.iter().map(|route| {
        vec![format!("  {route}"), format!("→ {}", route.to), route.policy.words().join(", ")]
    });
    section(&mut text, "routes", routes.collect());
    text.push_str(&Limited::of(settings, &opened.source.loaded.project).text());
    let jobs = settings.jobs.iter().map(|one| vec![format!("  {}", one.name), job(one)]);
    section(&mut text, "jobs before the switch", jobs.collect());
    let gates = gates(settings).into_iter().map(|(name, what)| vec![format!("  {name}"), what]);
    section(&mut text, "gates", gates.collect());
    for note in &opened.source.notes {
        let _ = writeln!(text, "! {}", note.text);
    }
    text
}

fn section(text: &mut String, title: &str, rows: Vec<Vec<String>>) {
    if !rows.is_empty() {
        let _ = write!(text, "{title}\n{}", columns(&rows));
    }
}

fn services(project: &Project) -> Vec<Vec<String>> {
    let row = |(name, service): (&String, &Service)| {
        let image = service.image.clone().unwrap_or_else(|| "built here".to_owned());
        let mut names = variables(service).into_iter().map(str::to_owned).collect::<Vec<_>>();
        names.extend(secrets(service).into_iter().map(|name| format!("{name} (secret)")));
        let replicas = match service.replicas() {
            1 => String::new(),
            many => format!("{many} replicas"),
        };
        vec![format!("  {name}"), image, replicas, names.join(" ")]
    };
    project.services.iter().map(row).collect()
}

fn document(opened: &Opened, settings: &Settings) -> Value {
    let source = &opened.source;
    let service = |(name, service): (&String, &Service)| {
        json!({
            "service": name,
            "image": service.image,
            "replicas": service.replicas(),
            "variables": variables(service),
            "secrets": secrets(service),
        })
    };
    json!({
        "version": 1,
        "environment": settings.name,
        "from": settings.is_derived().then_some(&settings.base),
        "project": settings.project_name,
        "target": target(settings),
        "files": paths(opened),
        "env_files": env_files(settings),
        "variables": settings.variables.keys().collect::<Vec<_>>(),
        "secrets": settings.secrets,
        "profiles": settings.profiles,
        "exclude": settings.exclude,
        "domain": settings.domain,
        "ports": ports(settings),
        "tls": tls(settings),
        "protection": source.routes.guard.words(),
        "services": source.loaded.project.services.iter().map(service).collect::<Vec<_>>(),
        "routes": source.routes.routes.iter().map(|route| json!({
            "host": route.host,
            "path": route.path,
            "entries": route.entries,
            "to": route.to.to_string(),
            "policy": route.policy.words(),
        })).collect::<Vec<_>>(),
        "limits": Limited::of(settings, &source.loaded.project).json(),
        "jobs": settings.jobs.iter().map(|job| json!({
            "name": job.name,
            "service": job.service,
            "program": job.command.first(),
        })).collect::<Vec<_>>(),
        "gates": gates(settings).into_iter()
            .map(|(name, what)| json!({"name": name, "what": what}))
            .collect::<Vec<_>>(),
        "notes": source.notes.iter()
            .map(|note| json!({"code": note.code, "text": note.text}))
            .collect::<Vec<_>>(),
    })
}
