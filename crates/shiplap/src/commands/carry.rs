//! Commands that change something.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use shiplap_execute::app::{Choice, Intent, OnInterrupted, Report, Request, Source};
use shiplap_execute::{Cancel, KeepFailed};
use shiplap_model::{Outcome, Plan, Scope};

use shiplap_config::Approval;
use shiplap_plan::Standby;

use super::{
    Exit, Format, Found, Opened, chosen, found, pairs, promote, refuse, request, source_to_deploy,
    unsupported,
};
use crate::cli::{
    Carry, DeployArgs, DownArgs, ProjectArgs, ResumeArgs, RollbackArgs, ScaleArgs, ServicesArgs,
    Way,
};
use crate::output::progress::{Printer, say};
use crate::output::report;
use crate::secrets::Missing;
use crate::serve::{ORDER_VARIABLE, REVISION_VARIABLE};
use crate::versions::{self, Absent};
use crate::world::Place;

pub async fn deploy(project: &ProjectArgs, args: &DeployArgs, format: Format) -> Exit {
    let chosen = match chosen(project, &args.selected, Missing::Make).await {
        Ok(chosen) => chosen,
        Err(exit) => return exit,
    };
    let place = match chosen.opened.place() {
        Ok(place) => place,
        Err(error) => return refuse(&error, None),
    };
    let Opened { source, settings, .. } = chosen.opened;
    let mut request = match request(&chosen.selected, &args.carry.limits, settings.as_ref()) {
        Ok(request) => request,
        Err(exit) => return exit,
    };
    unsupported::warn(&source);
    request.approved_by.clone_from(&args.approve);
    request.requirements = match super::requirements(settings.as_ref()) {
        Ok(requirements) => requirements,
        Err(exit) => return exit,
    };
    let approval = settings.as_ref().map(promote::approval).unwrap_or_default();
    let order = Order::Reach(&Intent::Deploy(&source));
    let exit = carry(&place, &order, request, &args.carry, approval, Some(&source), format).await;
    if let (Exit::Done, Some(settings)) = (exit, &settings) {
        versions::keep(settings, &chosen.versions, Absent::Add, &crate::world::who());
        super::certificates::provide(&place, settings, &source.routes).await;
    }
    super::env::prune::in_background();
    exit
}

pub async fn rollback(project: &ProjectArgs, args: &RollbackArgs, format: Format) -> Exit {
    let Found { scope, place, .. } = match found(project).await {
        Ok(found) => found,
        Err(exit) => return exit,
    };
    let mut request = match plain(&args.services, &args.carry) {
        Ok(request) => request,
        Err(exit) => return exit,
    };
    if let Some(watch) = args.watch {
        request.limits.watch = watch;
    }
    let intent = Intent::Rollback { scope, to: args.to };
    if args.plan {
        return match super::look::show_plan(&place, &intent, &request, None, format, false).await {
            Exit::Pending => Exit::Done,
            exit => exit,
        };
    }
    let services = request.services.clone();
    let order = Order::Reach(&intent);
    let exit = carry(&place, &order, request, &args.carry, Approval::None, None, format).await;
    if exit == Exit::Done {
        keep_versions(project, &order.scope(), &services).await;
    }
    exit
}

/// Writes the tags that a scope has gone back to where its environment keeps them. Where the files
/// cannot be read, they are wrong anyway, and going back went without them.
pub async fn keep_versions(project: &ProjectArgs, scope: &Scope, services: &BTreeSet<String>) {
    let Ok(Some(settings)) = crate::load::settings(project) else { return };
    if settings.versions.is_none() {
        return;
    }
    let Ok(tags) = crate::load::tags(project, &settings) else { return };
    let Some(release) = crate::load::current_release(scope).await else { return };
    let kept = release.services.iter();
    let kept = kept.filter(|(name, _)| services.is_empty() || services.contains(*name));
    let values = kept.filter_map(|(name, service)| tags.value(name, &service.image.reference));
    versions::keep(&settings, &values.collect(), Absent::Add, &crate::world::who());
}

pub async fn restart(project: &ProjectArgs, args: &ServicesArgs, format: Format) -> Exit {
    let ((source, place), request) =
        match (source_to_deploy(project).await, plain(&args.services, &args.carry)) {
            (Ok(found), Ok(request)) => (found, request),
            (Err(exit), _) | (_, Err(exit)) => return exit,
        };
    let intent = Intent::Restart(&source);
    carry(
        &place,
        &Order::Reach(&intent),
        request,
        &args.carry,
        Approval::None,
        Some(&source),
        format,
    )
    .await
}

pub async fn scale(project: &ProjectArgs, args: &ScaleArgs, format: Format) -> Exit {
    let ((source, place), wanted) =
        match (source_to_deploy(project).await, pairs(&args.replicas, "SERVICE=NUMBER")) {
            (Ok(found), Ok(pairs)) => (found, pairs),
            (Err(exit), _) | (_, Err(exit)) => return exit,
        };
    let mut replicas = BTreeMap::new();
    for (service, number) in wanted {
        let Ok(number) = number.parse::<u32>() else {
            eprintln!("error[usage]: `{number}` is not a number of replicas");
            return Exit::Usage;
        };
        replicas.insert(service, number);
    }
    let request = match plain(&[], &args.carry) {
        Ok(request) => request,
        Err(exit) => return exit,
    };
    let intent = Intent::Scale { source: &source, replicas };
    carry(
        &place,
        &Order::Reach(&intent),
        request,
        &args.carry,
        Approval::None,
        Some(&source),
        format,
    )
    .await
}

pub async fn down(project: &ProjectArgs, args: &DownArgs, format: Format) -> Exit {
    let (found, request) = match (found(project).await, plain(&[], &args.carry)) {
        (Ok(found), Ok(request)) => (found, request),
        (Err(exit), _) | (_, Err(exit)) => return exit,
    };
    let Found { scope, source, place } = found;
    let source = source.as_ref();
    let intent = Intent::Down { scope, source, volumes: args.volumes };
    carry(&place, &Order::Reach(&intent), request, &args.carry, Approval::None, source, format)
        .await
}

/// A request that says no more than which services, and how long things may take.
pub fn plain(services: &[String], carry: &Carry) -> Result<Request, Exit> {
    let limits = crate::limits::with(&carry.limits)?;
    let services = services.iter().cloned().collect();
    Ok(Request { services, limits, ..Request::default() })
}

pub async fn resume(project: &ProjectArgs, args: &ResumeArgs, format: Format) -> Exit {
    let Found { scope, place, .. } = match found(project).await {
        Ok(found) => found,
        Err(exit) => return exit,
    };
    let request = match plain(&[], &args.carry) {
        Ok(request) => request,
        Err(exit) => return exit,
    };
    let order = Order::Resume(scope, choice(args));
    carry(&place, &order, request, &args.carry, Approval::None, None, format).await
}

/// What the user wants done with a deployment that did not end.
pub fn choice(args: &ResumeArgs) -> Choice {
    match (args.forward, args.back, args.abandon) {
        (true, _, _) => Choice::Settle(OnInterrupted::Forward),
        (_, true, _) => Choice::Settle(OnInterrupted::Back),
        (_, _, true) => Choice::Abandon,
        (false, false, false) => Choice::Settle(policy(args.carry.on_interrupted)),
    }
}

/// What is to be carried out.
pub enum Order<'a> {
    Reach(&'a Intent<'a>),
    Resume(Scope, Choice),
}

impl Order<'_> {
    fn scope(&self) -> Scope {
        match self {
            Self::Reach(intent) => intent.scope(),
            Self::Resume(scope, _) => scope.clone(),
        }
    }

    /// Whether the user asked for the way back, so that having gone it is what was wanted.
    fn wants_back(&self) -> bool {
        match self {
            Self::Reach(intent) => matches!(intent, Intent::Rollback { .. }),
            Self::Resume(_, choice) => *choice == Choice::Settle(OnInterrupted::Back),
        }
    }
}

fn policy(way: Way) -> OnInterrupted {
    match way {
        Way::Auto => OnInterrupted::Auto,
        Way::Forward => OnInterrupted::Forward,
        Way::Back => OnInterrupted::Back,
    }
}

/// How something is to be carried out, and who says yes to it.
pub struct Wish<'a> {
    pub carry: &'a Carry,
    pub approval: Approval,
    /// Whether the command line names who says yes.
    pub named: bool,
}

impl Wish<'_> {
    /// Completes a request, and tells whether the plan is approved already.
    ///
    /// # Errors
    /// Where it is not, and nobody can be asked.
    pub fn settle(&self, request: &mut Request) -> Result<bool, Exit> {
        let carry = self.carry;
        request.on_interrupted = policy(carry.on_interrupted);
        request.message.clone_from(&carry.message);
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        request.order = variable(ORDER_VARIABLE).and_then(|order| order.parse().ok());
        request.revision = variable(REVISION_VARIABLE);
        request.standby = if carry.standby.is_zero() { Standby::Stopped } else { Standby::Frozen };
        request.keep_failed = if carry.keep_failed { KeepFailed::Yes } else { KeepFailed::No };
        let yes = match self.approval {
            Approval::None => carry.yes || self.named,
            Approval::Required => self.named,
        };
        if yes || crate::remote::can_ask() {
            return Ok(yes);
        }
        eprintln!("error[usage]: there is no terminal to ask on");
        match self.approval {
            Approval::None => {
                eprintln!("  = help: look at `shiplap plan` first, then add --yes");
            }
            Approval::Required => {
                eprintln!("  = help: this environment asks for approval: --approve NAME");
            }
        }
        Err(Exit::Usage)
    }

    /// Names whoever will be asked as the one who says yes, where somebody must.
    pub fn name(&self, request: &mut Request, who: &str) {
        if self.approval == Approval::Required && !self.named {
            request.approved_by = Some(who.to_owned());
        }
    }
}

/// Has replicas that were frozen stopped after a while.
pub fn retire(report: &Report, place: &Place, scope: &Scope, carry: &Carry) {
    let settled = report.settled.iter().flat_map(|report| &report.frozen);
    let frozen: Vec<String> = report.frozen.iter().chain(settled).cloned().collect();
    if !frozen.is_empty() {
        super::retire::in_background(place, scope, &frozen, carry.standby);
    }
}

pub async fn carry(
    place: &Place,
    order: &Order<'_>,
    mut request: Request,
    carry: &Carry,
    approval: Approval,
    source: Option<&Source>,
    format: Format,
) -> Exit {
    let wish = Wish { carry, approval, named: request.approved_by.is_some() };
    let yes = match wish.settle(&mut request) {
        Ok(yes) => yes,
        Err(exit) => return exit,
    };
    let printer = Arc::new(Printer::new());
    let app = match place.app(printer.clone(), &request.limits).await {
        Ok(app) => app,
        Err(error) => return refuse(&error, source),
    };
    wish.name(&mut request, &app.who);
    tokio::spawn(interrupts(vec![app.cancel.clone()]));
    let show = |plan: &Plan| {
        printer.expect(plan);
        if format == Format::Text {
            print!("{}", shiplap_plan::render(plan));
        } else {
            eprint!("{}", shiplap_plan::render(plan));
        }
        let _ = std::io::stdout().flush();
    };
    let approve = |plan: &Plan| {
        show(plan);
        async move { yes || ask().await }
    };
    let result = match order {
        Order::Reach(intent) => app.carry_out(intent, &request, approve).await.map(Some),
        Order::Resume(scope, choice) => app.resume(scope, *choice, &request, approve).await,
    };
    match result {
        Ok(None) => {
            let scope = order.scope();
            match app.unpause(&scope, &request.limits).await {
                Ok(0) => eprintln!("nothing to resume: no deployment of {scope} is unfinished"),
                Ok(_) => eprintln!("requests of {scope} go on"),
                Err(error) => return refuse(&error, source),
            }
            if format == Format::Json {
                println!("{:#}", report::nothing_json());
            }
            Exit::Done
        }
        Ok(Some(report)) => {
            retire(&report, place, &order.scope(), carry);
            finish(&report, order.wants_back(), format, show)
        }
        Err(error) => refuse(&error, source),
    }
}

/// How it ended, in words and as an exit code.
fn finish(report: &Report, wants_back: bool, format: Format, show: impl Fn(&Plan)) -> Exit {
    if report.declined {
        eprintln!("{}", report::declined(report));
        return Exit::Failed;
    }
    if report.number.is_none() && format == Format::Text {
        show(&report.plan);
    }
    match format {
        // The terminal may be gone by now, and what was done has been done.
        Format::Json => {
            let _ = writeln!(std::io::stdout(), "{:#}", report::json(report));
        }
        Format::Text => say(&report::text(report)),
    }
    exit_of(report, wants_back)
}

/// How it ended as an exit code.
pub fn exit_of(report: &Report, wants_back: bool) -> Exit {
    if report.declined {
        return Exit::Failed;
    }
    let ended_as_wanted = match (report.outcome, report.resumed) {
        (Outcome::RolledBack, Some(_)) => wants_back,
        (Outcome::Interrupted, Some((Choice::Abandon, _))) => true,
        _ => false,
    };
    if report.number.is_none() || ended_as_wanted { Exit::Done } else { report.outcome.into() }
}

pub async fn ask() -> bool {
    eprint!("go ahead? [y/N] ");
    let _ = std::io::stderr().flush();
    let answer = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        let _ = std::io::stdin().lock().read_line(&mut line);
        line
    });
    answer.await.is_ok_and(|line| matches!(line.trim(), "y" | "Y" | "yes" | "Yes"))
}

/// Ctrl-C, SIGTERM, or a terminal that was closed: once undoes, twice stops at once.
pub async fn interrupts(cancels: Vec<Cancel>) {
    use tokio::signal::unix::{Signal, SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return;
    };
    // Under `nohup` it is ignored, and stays so: listening to it would undo that.
    let mut hangup = match is_ignored(HANGUP) {
        true => None,
        false => signal(SignalKind::hangup()).ok(),
    };
    async fn heard(hangup: Option<&mut Signal>) {
        match hangup {
            Some(hangup) => drop(hangup.recv().await),
            None => std::future::pending().await,
        }
    }
    let mut wait = async || {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = heard(hangup.as_mut()) => {}
        }
    };
    wait().await;
    say("interrupted: what was begun is undone; once more stops at once\n");
    for cancel in &cancels {
        cancel.cancel("interrupted by the user");
    }
    // A key held down counts once.
    tokio::time::sleep(Duration::from_millis(300)).await;
    wait().await;
    say("stopped at once; the next command finds what was begun\n");
    std::process::exit(4);
}

/// The number of SIGHUP.
const HANGUP: u32 = 1;

/// Whether whoever started us wants a signal to be ignored.
fn is_ignored(signal: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (signal - 1)) != 0)
}
