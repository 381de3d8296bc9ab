//! Commands that only look.

use std::sync::Arc;

use serde_json::Value;
use shiplap_execute::Silent;
use shiplap_execute::app::{Intent, Request, Source, unfinished};
use shiplap_model::Store;

use super::{Exit, Format, Opened, app, chosen, found, opened, refuse, request, unsupported};
use crate::cli::{HistoryArgs, PlanArgs, ProjectArgs};
use crate::output::limited::Limited;
use crate::output::{history, interrupted, status};
use crate::secrets::Missing;
use crate::world::Place;

pub async fn plan(project: &ProjectArgs, args: &PlanArgs, format: Format) -> Exit {
    let chosen = match chosen(project, &args.selected, Missing::Pretend).await {
        Ok(chosen) => chosen,
        Err(exit) => return exit,
    };
    let place = match chosen.opened.place() {
        Ok(place) => place,
        Err(error) => return refuse(&error, None),
    };
    let Opened { source, settings, .. } = chosen.opened;
    let request = match request(&chosen.selected, &args.limits, settings.as_ref()) {
        Ok(request) => request,
        Err(exit) => return exit,
    };
    unsupported::warn(&source);
    let request = match super::requirements(settings.as_ref()) {
        Ok(requirements) => Request { requirements, ..request },
        Err(exit) => return exit,
    };
    let intent = Intent::Deploy(&source);
    match show_plan(&place, &intent, &request, Some(&source), format, args.steps).await {
        Exit::Pending if !args.exit_code => Exit::Done,
        exit => exit,
    }
}

/// Shows a plan; `Pending` when there is something to do.
pub async fn show_plan(
    place: &Place,
    intent: &Intent<'_>,
    request: &Request,
    source: Option<&Source>,
    format: Format,
    steps: bool,
) -> Exit {
    let app = match place.app(Arc::new(Silent), &request.limits).await {
        Ok(app) => app,
        Err(error) => return refuse(&error, source),
    };
    let request = &Request { standby: shiplap_plan::Standby::Frozen, ..request.clone() };
    let scope = intent.scope();
    let unfinished = match app.unfinished(&scope).await {
        Ok(unfinished) => unfinished,
        Err(error) => return refuse(&error, source),
    };
    if let Some(unfinished) = &unfinished {
        let holder = app.ledger.holder(&scope).await.ok().flatten();
        eprint!("{}", interrupted::text(unfinished, holder.as_ref()));
    }
    let (plan, resumes) = match app.plan(intent, request).await {
        Ok(planned) => (planned.plan, planned.resumes),
        Err(error) => return refuse(&error, source),
    };
    match format {
        Format::Json => {
            let mut document = shiplap_plan::to_json(&plan);
            document["unfinished"] = unfinished.as_ref().map(interrupted::json).into();
            document["resumes"] = resumes.into();
            println!("{document:#}");
        }
        Format::Text => {
            if steps {
                print!("{}", shiplap_plan::render_steps(&plan));
            }
            print!("{}", shiplap_plan::render(&plan));
        }
    }
    if plan.is_empty() { Exit::Done } else { Exit::Pending }
}

pub async fn status(project: &ProjectArgs, format: Format) -> Exit {
    if let Some(exit) = super::env::overview(project, format).await {
        return exit;
    }
    told(status_of(project, format).await)
}

/// Prints the document that there is, if there is one.
fn told(looked: Result<Option<Value>, Exit>) -> Exit {
    match looked {
        Ok(document) => {
            if let Some(document) = document {
                println!("{document:#}");
            }
            Exit::Done
        }
        Err(exit) => exit,
    }
}

/// What runs in one environment: printed for a person, returned for a program.
pub async fn status_of(project: &ProjectArgs, format: Format) -> Result<Option<Value>, Exit> {
    let opened = opened(project, Missing::Pretend).await?;
    let place = opened.place().map_err(|error| refuse(&error, None))?;
    let Opened { source, settings, .. } = opened;
    let (app, _) = app(&place, Some(&source)).await?;
    let found = app.status(&source).await.map_err(|error| refuse(&error, Some(&source)))?;
    let limits = settings.map(|settings| Limited::of(&settings, &source.loaded.project));
    match format {
        Format::Json => {
            let mut document = status::json(&source.scope(), &found);
            document["limits"] = limits.as_ref().map(Limited::json).into();
            Ok(Some(document))
        }
        Format::Text => {
            print!("{}", status::text(&source.scope(), &found));
            print!("{}", limits.map(|limits| limits.text()).unwrap_or_default());
            Ok(None)
        }
    }
}

pub async fn history(project: &ProjectArgs, args: &HistoryArgs, format: Format) -> Exit {
    if args.verify {
        let ledger = match ledger().await {
            Ok(ledger) => ledger,
            Err(exit) => return exit,
        };
        return match ledger.verify().await {
            Ok(entries) => {
                println!("{entries} entries, each as it was written");
                Exit::Done
            }
            Err(error) => refuse(&error.into(), None),
        };
    }
    told(history_of(project, args.limit, format).await)
}

async fn ledger() -> Result<Arc<dyn Store>, Exit> {
    crate::ledger::open().await.map_err(|error| refuse(&error.into(), None))
}

/// What was deployed in one environment: printed for a person, returned for a program.
pub async fn history_of(
    project: &ProjectArgs,
    limit: u32,
    format: Format,
) -> Result<Option<Value>, Exit> {
    let scope = found(project).await?.scope;
    let ledger = ledger().await?;
    let deployments = ledger.deployments(&scope, limit).await;
    let deployments = deployments.map_err(|error| refuse(&error.into(), None))?;
    let document = match format {
        Format::Json => Some(history::json(&deployments)),
        Format::Text => {
            print!("{}", history::text(&scope, &deployments));
            None
        }
    };
    if let Ok(Some(unfinished)) = unfinished(ledger.as_ref(), &scope).await {
        let holder = ledger.holder(&scope).await.ok().flatten();
        eprint!("{}", interrupted::text(&unfinished, holder.as_ref()));
    }
    Ok(document)
}

pub async fn show(project: &ProjectArgs, number: Option<u64>, format: Format) -> Exit {
    let scope = match found(project).await {
        Ok(found) => found.scope,
        Err(exit) => return exit,
    };
    let ledger = match ledger().await {
        Ok(ledger) => ledger,
        Err(exit) => return exit,
    };
    let found = match number {
        Some(number) => ledger.deployment(&scope, number).await,
        None => ledger.deployments(&scope, 1).await.map(|mut newest| newest.pop()),
    };
    let deployment = match found {
        Ok(Some(deployment)) => deployment,
        Ok(None) => {
            let what =
                number.map_or_else(|| "no deployment".to_owned(), |n| format!("no deployment {n}"));
            eprintln!("error[history]: {scope} has {what}");
            eprintln!("  = help: `shiplap history` lists them");
            return Exit::Failed;
        }
        Err(error) => return refuse(&error.into(), None),
    };
    match ledger.facts(&scope, deployment.number).await {
        Ok(journal) => {
            match format {
                Format::Json => println!("{:#}", history::one_json(&deployment, &journal)),
                Format::Text => print!("{}", history::one_text(&deployment, &journal)),
            }
            Exit::Done
        }
        Err(error) => refuse(&error.into(), None),
    }
}
