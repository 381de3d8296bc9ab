//! `promote`: the very same images in another environment, behind its gates.

use shiplap_config::{Approval, Settings};
use shiplap_execute::app::{Intent, Promotion, Source, Tests};

use super::carry::{Order, carry};
use super::{Exit, Format, opened, show_diagnostics, unsupported};
use crate::cli::{ProjectArgs, PromoteArgs};
use crate::secrets::Missing;
use crate::versions::{self, Absent};
use crate::world::Place;

/// The service that stands for the container of tests.
const TESTS: &str = "gate-tests";

pub async fn promote(project: &ProjectArgs, args: &PromoteArgs, format: Format) -> Exit {
    let from = open(project, &args.from, Missing::Pretend).await;
    let to = open(project, &args.to, Missing::Make).await;
    let ((mut from, from_settings, _), (to, settings, place)) = match (from, to) {
        (Ok(from), Ok(to)) => (from, to),
        (Err(exit), _) | (_, Err(exit)) => return exit,
    };
    if args.from == args.to {
        eprintln!("error[usage]: `{}` cannot be promoted to itself", args.from);
        return Exit::Usage;
    }
    if settings.target != from_settings.target && settings.gates.tests.is_some() {
        let (from, to) = (&args.from, &args.to);
        eprintln!("error[promote/tests-elsewhere]: `{from}` is on another machine than `{to}`");
        eprintln!(
            "  = help: the gate `tests` of `{to}` runs beside `{from}`; run the tests there, and \
             take the gate away"
        );
        return Exit::Failed;
    }
    let mut request = match super::request(&Default::default(), &args.carry.limits, Some(&settings))
    {
        Ok(request) => request,
        Err(exit) => return exit,
    };
    let tests = match &settings.gates.tests {
        None => None,
        Some(job) => {
            if let Err(diagnostics) =
                settings.add_tests(TESTS, &mut from.loaded.project, &args.from)
            {
                show_diagnostics(&diagnostics);
                return Exit::Failed;
            }
            let limit = job.timeout.unwrap_or(request.limits.job);
            Some(Tests { service: TESTS.to_owned(), limit })
        }
    };
    request.requirements = match super::requirements(Some(&settings)) {
        Ok(requirements) => requirements,
        Err(exit) => return exit,
    };
    request.approved_by.clone_from(&args.approve);
    unsupported::warn(&to);
    let promotion = Promotion { from: &from, number: args.deployment, to: &to, tests };
    let intent = Intent::Promote(&promotion);
    if args.plan {
        return match super::look::show_plan(
            &place,
            &intent,
            &request,
            Some(&to),
            format,
            args.steps,
        )
        .await
        {
            Exit::Pending => Exit::Done,
            exit => exit,
        };
    }
    let order = Order::Reach(&intent);
    let approval = approval(&settings);
    let exit = carry(&place, &order, request, &args.carry, approval, Some(&to), format).await;
    if exit == Exit::Done {
        // Versions are variables that files name images by: with those of the environment that was
        // promoted from, the next `deploy` from the files is no step back.
        let versions = &from.loaded.environment;
        versions::keep(&settings, versions, Absent::Leave, &crate::world::who());
        super::certificates::provide(&place, &settings, &to.routes).await;
    }
    exit
}

/// Whether `--yes` alone lets a plan through.
pub fn approval(settings: &Settings) -> Approval {
    settings.gates.approval
}

async fn open(
    project: &ProjectArgs,
    name: &str,
    missing: Missing,
) -> Result<(Source, Settings, Place), Exit> {
    let project = ProjectArgs { environment: Some(name.to_owned()), ..project.clone() };
    let opened = opened(&project, missing).await?;
    let place = opened.place().map_err(|error| super::refuse(&error, None))?;
    match opened.settings {
        Some(settings) => Ok((opened.source, settings, place)),
        None => {
            eprintln!("error[usage]: there is no shiplap.yaml that has environments");
            eprintln!("  = help: `shiplap init` writes one for what is in this folder");
            Err(Exit::Usage)
        }
    }
}
