//! `env verify`: tests that environments on one engine are separate.

use std::fmt::Write as _;

use clap::Args;
use serde_json::{Value, json};
use shiplap_config::Settings;
use shiplap_isolation::{Finding, Instance, Party, Severity, Untested};

use super::{Exit, Format};
use crate::cli::ProjectArgs;
use crate::isolation::{self, Verified, VerifyError};
use crate::output::errors;
use crate::world::Place;

/// `env verify`.
#[derive(Debug, Clone, Args)]
pub struct VerifyArgs {
    /// Environments of shiplap.yaml [default: all that are deployed here]
    environments: Vec<String>,
    /// A Compose project that must be separate too
    #[arg(long = "compose-project", value_name = "NAME")]
    projects: Vec<String>,
}

pub async fn verify(project: &ProjectArgs, args: &VerifyArgs, format: Format) -> Exit {
    let instance = |name: &String| Instance { environment: name.clone(), project: name.clone() };
    let mut instances: Vec<Instance> = args.projects.iter().map(instance).collect();
    let mut found = match crate::load::all_settings(project, &args.environments) {
        Ok(found) => found,
        Err(diagnostics) => {
            super::show_diagnostics(&diagnostics);
            return Exit::Failed;
        }
    };
    if args.environments.is_empty() {
        let scopes = crate::load::deployed().await;
        found.retain(|known| scopes.iter().any(|scope| scope.project == known.project_name));
    }
    let place = match only_place(&found) {
        Ok(place) => place,
        Err(exit) => return exit,
    };
    instances.extend(
        found.into_iter().map(|settings| Instance {
            environment: settings.name,
            project: settings.project_name,
        }),
    );
    run(&place, &instances, format).await
}

/// The machine that they are all on.
fn only_place(all: &[Settings]) -> Result<Place, Exit> {
    let Some(first) = all.first() else {
        return Place::usual().map_err(|error| super::refuse(&error, None));
    };
    if let Some(other) = all.iter().find(|other| other.target != first.target) {
        let (first, other) = (&first.name, &other.name);
        eprintln!("error[usage]: `{first}` and `{other}` are on different machines");
        eprintln!("  = help: name environments that are on one: `shiplap env list` groups them");
        return Err(Exit::Usage);
    }
    Place::of(Some(first)).map_err(|error| super::refuse(&error, None))
}

/// Verifies these environments, and says what came of it.
pub async fn run(place: &Place, instances: &[Instance], format: Format) -> Exit {
    let mut projects: Vec<&str> = instances.iter().map(|i| i.project.as_str()).collect();
    projects.sort_unstable();
    projects.dedup();
    if projects.len() < 2 || projects.len() < instances.len() {
        eprintln!(
            "error[usage]: two environments or more, each a project of its own, can be compared"
        );
        return Exit::Usage;
    }
    let limits = match crate::limits::from_environment() {
        Ok(limits) => limits,
        Err(exit) => return exit,
    };
    let world = match place.reach(&limits).await {
        Ok(world) => world,
        Err(error) => return super::refuse(&error, None),
    };
    match isolation::verify(&world, instances).await {
        Ok(verified) => tell(&verified, format),
        Err(error) => failed(error),
    }
}

/// Does what a probe does; its container runs this.
pub async fn probe(words: &[String]) -> Exit {
    match shiplap_isolation::probe::run(words).await {
        Ok(document) => {
            println!("{document}");
            Exit::Done
        }
        Err(wrong) => {
            eprintln!("error[usage]: {wrong}");
            Exit::Usage
        }
    }
}

fn failed(error: VerifyError) -> Exit {
    match error {
        VerifyError::World(error) => errors::show(&error, None),
        VerifyError::Nothing(instance) => {
            eprintln!(
                "error[nothing-to-verify]: `{}` has no containers, so nothing can be said of it",
                instance.project
            );
            eprintln!(
                "  = help: deploy it first; `docker compose ls --all` shows the projects there are"
            );
        }
        VerifyError::Stopped => eprintln!("stopped; nothing is left of what was tried"),
    }
    Exit::Failed
}

fn tell(verified: &Verified, format: Format) -> Exit {
    match format {
        Format::Text => print!("{}", text(verified)),
        Format::Json => println!("{:#}", document(verified)),
    }
    if verified.leaks() == 0 { Exit::Done } else { Exit::Failed }
}

fn text(verified: &Verified) -> String {
    let mut text = String::new();
    let names = verified.instances.iter().map(|(instance, containers)| {
        let containers = match containers {
            1 => "1 container".to_owned(),
            many => format!("{many} containers"),
        };
        format!("{} ({containers})", instance.environment)
    });
    let _ = writeln!(text, "{}", names.collect::<Vec<_>>().join(", "));
    for tried in &verified.tried {
        let _ = writeln!(text, "  {}", tried.text);
    }
    if !verified.untested.is_empty() {
        let _ = writeln!(text, "not tested:");
    }
    for untested in &verified.untested {
        let _ = match &untested.party {
            Some(party) => writeln!(text, "  ? {party}: {}", untested.why),
            None => writeln!(text, "  ? {}", untested.why),
        };
    }
    for finding in &verified.findings {
        let sign = match finding.code.severity() {
            Severity::Leak => "!",
            Severity::Information => "i",
        };
        let _ = writeln!(text, "{sign} {}: {}", finding.code, finding.what);
        if finding.code.severity() == Severity::Leak {
            let _ = writeln!(text, "    = help: {}", finding.fix);
        }
    }
    let _ = match verified.leaks() {
        0 if verified.untested.is_empty() => writeln!(text, "separate: no leak was found"),
        0 => writeln!(text, "no leak was found in what could be tested"),
        1 => writeln!(text, "not separate: 1 leak"),
        leaks => writeln!(text, "not separate: {leaks} leaks"),
    };
    text
}

fn document(verified: &Verified) -> Value {
    let party = |party: &Party| {
        json!({
            "environment": (!party.environment.is_empty()).then_some(&party.environment),
            "project": party.project,
            "service": party.service,
            "container": party.container,
        })
    };
    let finding = |finding: &Finding| {
        let severity = match finding.code.severity() {
            Severity::Leak => "leak",
            Severity::Information => "information",
        };
        json!({
            "code": finding.code.as_str(),
            "severity": severity,
            "what": finding.what,
            "between": finding.between.iter().map(party).collect::<Vec<_>>(),
            "fix": finding.fix,
        })
    };
    let untested = |untested: &Untested| {
        let who = untested.party.as_ref().map(party);
        json!({"who": who, "why": untested.why})
    };
    let instance = |(instance, containers): &(Instance, usize)| {
        json!({
            "environment": instance.environment,
            "project": instance.project,
            "containers": containers,
        })
    };
    let tried = verified.tried.iter();
    json!({
        "version": 1,
        "separate": verified.leaks() == 0,
        "environments": verified.instances.iter().map(instance).collect::<Vec<_>>(),
        "tried": tried
            .map(|tried| json!({"what": tried.what, "count": tried.count, "text": tried.text}))
            .collect::<Vec<_>>(),
        "findings": verified.findings.iter().map(finding).collect::<Vec<_>>(),
        "untested": verified.untested.iter().map(untested).collect::<Vec<_>>(),
    })
}
