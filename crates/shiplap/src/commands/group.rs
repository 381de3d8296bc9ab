//! Commands for a group: what `-e` names is several environments of `shiplap.yaml`.

mod share;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::sync::Arc;

use futures_util::future::join_all;
use serde_json::{Map, Value};
use shiplap_config::{Approval, Settings};
use shiplap_execute::app::{
    App, AppError, Choice, Ended, Intent, Member, Request, Source, Task, Tie, carry_out_together,
    plan_together, releases_before, resume_together,
};
use shiplap_execute::{Reporter, Silent};
use shiplap_model::{Limits, Plan, Scope};

use super::carry::{self, Wish};
use super::{
    Chosen, Exit, Format, Found, chosen, found, look, promote, refuse, request, requirements,
    unsupported,
};
use crate::cli::{
    Command, DeployArgs, DownArgs, HistoryArgs, LimitArgs, PlanArgs, ProjectArgs, ResumeArgs,
    RollbackArgs, Selected, ServicesArgs,
};
use crate::load::with_environment;
use crate::output::progress::{Printer, say};
use crate::output::{errors, group as output};
use crate::secrets::Missing;
use crate::versions::{self, Absent};
use crate::world::Place;
use share::{Known, Shares, share};

/// A group of the configuration.
struct Group {
    name: String,
    /// The command line for each of its environments, in the order of the file.
    members: Vec<(String, ProjectArgs)>,
}

/// Carries a command out for a group; nothing where no group is named, or the command is for one
/// environment.
pub async fn run(project: &ProjectArgs, command: &Command, format: Format) -> Option<Exit> {
    let group = find(project)?;
    Some(match command {
        Command::Plan(args) => plan(&group, args, format).await,
        Command::Deploy(args) => deploy(&group, args, format).await,
        Command::Rollback(args) => rollback(&group, args, format).await,
        Command::Resume(args) => resume(&group, args, format).await,
        Command::Restart(args) => restart(&group, args, format).await,
        Command::Down(args) => down(&group, args, format).await,
        Command::Status => status(&group, format).await,
        Command::History(args) if !args.verify => history(&group, args, format).await,
        // They say by themselves that a group is no environment, or need none.
        Command::History(_)
        | Command::Promote(_)
        | Command::Pause(_)
        | Command::Maintenance(_)
        | Command::Top(_)
        | Command::Retire { .. }
        | Command::Show { .. }
        | Command::Logs(_)
        | Command::Exec(_)
        | Command::Scale(_)
        | Command::Prune(_)
        | Command::Config(_)
        | Command::Check(_)
        | Command::Init(_)
        | Command::Schema
        | Command::Secrets(_)
        | Command::Data(_)
        | Command::Env(_)
        | Command::Build(_)
        | Command::Push(_)
        | Command::Serve(_)
        | Command::Token(_)
        | Command::Ci(_)
        | Command::Link { .. }
        | Command::Edge(_)
        | Command::Htpasswd { .. } => return None,
    })
}

/// The group that the command line names, if it names one. What is wrong with the configuration,
/// the command itself says.
fn find(project: &ProjectArgs) -> Option<Group> {
    let config = crate::load::config(project).ok()??;
    let name = crate::load::wanted(project)?;
    let members = config.group(&name)?.iter();
    let members = members.map(|member| (member.clone(), with_environment(project, member)));
    Some(Group { name, members: members.collect() })
}

/// One environment as it was loaded.
struct Loaded {
    name: String,
    chosen: Chosen,
    place: Place,
    request: Request,
}

impl Loaded {
    fn source(&self) -> &Source {
        &self.chosen.opened.source
    }

    fn settings(&self) -> Option<&Settings> {
        self.chosen.opened.settings.as_ref()
    }
}

/// Loads those that are asked for anything; says everything that is wrong with any of them.
async fn load(
    group: &Group,
    selected: &Selected,
    limits: &LimitArgs,
    missing: Missing,
) -> Result<Vec<Loaded>, Exit> {
    // Nothing is generated before all of them are known to be right.
    let mut known = Known::new();
    let mut failed = None;
    for (name, args) in &group.members {
        let opened = super::opened(args, Missing::Pretend).await.and_then(|opened| {
            requirements(opened.settings.as_ref())?;
            Ok(opened)
        });
        match opened {
            Ok(opened) => {
                let services = opened.source.loaded.project.services.keys().cloned();
                known.insert(name.clone(), services.collect());
            }
            Err(exit) => failed = Some(exit),
        }
    }
    if let Some(exit) = failed {
        return Err(exit);
    }
    let shares = shares(selected, &known)?;
    let mut all = Vec::new();
    for (name, args) in &group.members {
        let Some(selected) = shares.get(name) else { continue };
        let chosen = chosen(args, selected, missing).await?;
        let place = chosen.opened.place().map_err(|error| refuse(&error, None))?;
        let mut request = request(&chosen.selected, limits, chosen.opened.settings.as_ref())?;
        request.requirements = requirements(chosen.opened.settings.as_ref())?;
        unsupported::warn(&chosen.opened.source);
        all.push(Loaded { name: name.clone(), chosen, place, request });
    }
    Ok(all)
}

fn shares(selected: &Selected, known: &Known) -> Result<Shares, Exit> {
    share(selected, known).map_err(|wrong| {
        for why in wrong {
            eprintln!("error[usage]: {why}");
        }
        eprintln!("  = help: ENVIRONMENT/SERVICE names one");
        Exit::Usage
    })
}

async fn plan(group: &Group, args: &PlanArgs, format: Format) -> Exit {
    let loaded = match load(group, &args.selected, &args.limits, Missing::Pretend).await {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let places = loaded.iter().map(|one| (one.name.as_str(), &one.place, one.request.limits));
    let apps = match apps(places, |_| Arc::new(Silent)).await {
        Ok(apps) => apps,
        Err(exit) => return exit,
    };
    let mut members = Vec::new();
    for (one, app) in loaded.iter().zip(apps) {
        let standby = shiplap_plan::Standby::Frozen;
        let request = Request { standby, ..one.request.clone() };
        let task = Task::Reach(Intent::Deploy(one.source()));
        members.push(Member { name: one.name.clone(), app, task, request });
    }
    let sources = loaded.iter().map(|one| (one.name.as_str(), one.source())).collect();
    match show_plans(group, &members, &sources, format, args.steps).await {
        Exit::Pending if !args.exit_code => Exit::Done,
        exit => exit,
    }
}

/// Shows the plans of all; `Pending` where one has something to do.
async fn show_plans(
    group: &Group,
    members: &[Member<'_>],
    sources: &BTreeMap<&str, &Source>,
    format: Format,
    steps: bool,
) -> Exit {
    let mut documents = Map::new();
    let mut exit = Exit::Done;
    for (name, planned) in plan_together(&group.name, members).await {
        let plan = match planned {
            Ok(planned) => planned.plan,
            Err(error) => {
                eprintln!("{name}:");
                errors::show(&error, sources.get(name.as_str()).copied());
                exit = Exit::Failed;
                continue;
            }
        };
        if exit == Exit::Done && !plan.is_empty() {
            exit = Exit::Pending;
        }
        match format {
            Format::Json => {
                documents.insert(name, shiplap_plan::to_json(&plan));
            }
            Format::Text => {
                println!("{name}:");
                if steps {
                    print!("{}", shiplap_plan::render_steps(&plan));
                }
                print!("{}", shiplap_plan::render(&plan));
            }
        }
    }
    if format == Format::Json {
        println!("{:#}", output::of(&group.name, documents));
    }
    exit
}

async fn deploy(group: &Group, args: &DeployArgs, format: Format) -> Exit {
    let mut loaded = match load(group, &args.selected, &args.carry.limits, Missing::Make).await {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    for one in &mut loaded {
        one.request.approved_by.clone_from(&args.approve);
    }
    let approvals = loaded.iter().filter_map(Loaded::settings).map(promote::approval);
    let approval = approvals.fold(Approval::None, |all, one| match one {
        Approval::Required => Approval::Required,
        Approval::None => all,
    });
    let wish = Wish { carry: &args.carry, approval, named: args.approve.is_some() };
    let jobs = loaded.iter().map(|one| {
        let task = Task::Reach(Intent::Deploy(one.source()));
        Job { name: one.name.clone(), place: &one.place, task, request: one.request.clone() }
    });
    let sources = loaded.iter().map(|one| (one.name.as_str(), one.source())).collect();
    let results = match carry_out(group, jobs.collect(), Tie::Gated, &wish, format).await {
        Ok(results) => results,
        Err(exit) => return exit,
    };
    let exit = finish(group, &results, &sources, false, format);
    for one in &loaded {
        let is_done = |(name, ended): &(String, Ended)| {
            *name == one.name && exit_of(ended, false) == Exit::Done
        };
        if let (true, Some(settings)) = (results.iter().any(is_done), one.settings()) {
            versions::keep(settings, &one.chosen.versions, Absent::Add, &crate::world::who());
            super::certificates::provide(&one.place, settings, &one.source().routes).await;
        }
    }
    super::env::prune::in_background();
    exit
}

async fn restart(group: &Group, args: &ServicesArgs, format: Format) -> Exit {
    let selected = Selected { services: args.services.clone(), ..Selected::default() };
    let loaded = match load(group, &selected, &args.carry.limits, Missing::Make).await {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let jobs = loaded.iter().map(|one| {
        let Request { services, limits, .. } = one.request.clone();
        let request = Request { services, limits, ..Request::default() };
        let task = Task::Reach(Intent::Restart(one.source()));
        Job { name: one.name.clone(), place: &one.place, task, request }
    });
    let sources = loaded.iter().map(|one| (one.name.as_str(), one.source())).collect();
    let wish = Wish { carry: &args.carry, approval: Approval::None, named: false };
    match carry_out(group, jobs.collect(), Tie::Gated, &wish, format).await {
        Ok(results) => finish(group, &results, &sources, false, format),
        Err(exit) => exit,
    }
}

async fn down(group: &Group, args: &DownArgs, format: Format) -> Exit {
    let request = match carry::plain(&[], &args.carry) {
        Ok(request) => request,
        Err(exit) => return exit,
    };
    let members = match members(group).await {
        Ok(members) => members,
        Err(exit) => return exit,
    };
    let jobs = members.iter().map(|(name, Found { scope, source, place })| {
        let (scope, source) = (scope.clone(), source.as_ref());
        let intent = Intent::Down { scope, source, volumes: args.volumes };
        let (task, request) = (Task::Reach(intent), request.clone());
        Job { name: name.clone(), place, task, request }
    });
    let wish = Wish { carry: &args.carry, approval: Approval::None, named: false };
    // What goes down has nothing to wait for.
    match carry_out(group, jobs.collect(), Tie::Loose, &wish, format).await {
        Ok(results) => finish(group, &results, &BTreeMap::new(), false, format),
        Err(exit) => exit,
    }
}

async fn rollback(group: &Group, args: &RollbackArgs, format: Format) -> Exit {
    if args.to.is_some() {
        eprintln!("error[usage]: each environment of {} counts for itself", group.name);
        eprintln!("  = help: `shiplap -e ENVIRONMENT rollback --to NUMBER`");
        return Exit::Usage;
    }
    let mut request = match carry::plain(&[], &args.carry) {
        Ok(request) => request,
        Err(exit) => return exit,
    };
    request.limits.watch = args.watch.unwrap_or(request.limits.watch);
    let silent = |_: &str| Arc::new(Silent) as Arc<dyn Reporter>;
    let Sites { scopes, places } = match sites(group, &request.limits, silent).await {
        Ok(sites) => sites,
        Err(exit) => return exit,
    };
    let shares = match shares_of_releases(&args.services, &scopes).await {
        Ok(shares) => shares,
        Err(exit) => return exit,
    };
    let targets = match releases_before(&group.name, &scopes).await {
        Ok(targets) => targets,
        Err(error) => return refuse(&error, None),
    };
    if let Some(name) = shares.keys().find(|name| !targets.contains_key(*name))
        && !args.services.is_empty()
    {
        eprintln!("error[history]: {name} had no part in the newest deployment of {}", group.name);
        eprintln!("  = help: `shiplap -e {name} rollback`");
        return Exit::Failed;
    }
    let members = scopes.iter().filter_map(|(name, app, scope)| {
        let to = Some(*targets.get(name)?);
        let services = shares.get(name)?.services.iter().cloned().collect();
        let task = Task::Reach(Intent::Rollback { scope: scope.clone(), to });
        let request = Request { services, ..request.clone() };
        Some(Member { name: name.clone(), app: app.clone(), task, request })
    });
    let members: Vec<Member<'_>> = members.collect();
    if args.plan {
        return match show_plans(group, &members, &BTreeMap::new(), format, false).await {
            Exit::Pending => Exit::Done,
            exit => exit,
        };
    }
    let jobs = members.into_iter().map(|Member { name, task, request, .. }| {
        let place = &places[&name];
        Job { name, place, task, request }
    });
    let wish = Wish { carry: &args.carry, approval: Approval::None, named: false };
    let results = match carry_out(group, jobs.collect(), Tie::Gated, &wish, format).await {
        Ok(results) => results,
        Err(exit) => return exit,
    };
    let exit = finish(group, &results, &BTreeMap::new(), true, format);
    for (name, ended) in &results {
        let place = scopes.iter().find(|(known, ..)| known == name);
        let args = group.members.iter().find(|(known, _)| known == name);
        if let (Exit::Done, Some((.., scope)), Some((_, args)), Some(share)) =
            (exit_of(ended, true), place, args, shares.get(name))
        {
            let services: BTreeSet<String> = share.services.iter().cloned().collect();
            carry::keep_versions(args, scope, &services).await;
        }
    }
    exit
}

/// What of which environment goes back, by what each runs: its files may be wrong at that very
/// moment.
async fn shares_of_releases(
    services: &[String],
    scopes: &[(String, App, Scope)],
) -> Result<Shares, Exit> {
    let mut known = Known::new();
    for (name, _, scope) in scopes {
        let release = crate::load::current_release(scope).await;
        let services = release.map(|release| release.services.into_keys().collect());
        known.insert(name.clone(), services.unwrap_or_default());
    }
    shares(&Selected { services: services.to_vec(), ..Selected::default() }, &known)
}

async fn resume(group: &Group, args: &ResumeArgs, format: Format) -> Exit {
    let choice = carry::choice(args);
    let mut request = match carry::plain(&[], &args.carry) {
        Ok(request) => request,
        Err(exit) => return exit,
    };
    let wish = Wish { carry: &args.carry, approval: Approval::None, named: false };
    let yes = match wish.settle(&mut request) {
        Ok(yes) => yes,
        Err(exit) => return exit,
    };
    let printers = printers(group.members.iter().map(|(name, _)| name.as_str()));
    let printer = |name: &str| printers[name].clone() as Arc<dyn Reporter>;
    let Sites { scopes, places } = match sites(group, &request.limits, printer).await {
        Ok(sites) => sites,
        Err(exit) => return exit,
    };
    tokio::spawn(carry::interrupts(scopes.iter().map(|(_, app, _)| app.cancel.clone()).collect()));
    let approve = |plans: Vec<(String, Plan)>| approve(&printers, plans, yes, format);
    let resuming = resume_together(&group.name, &scopes, choice, &request, approve).await;
    let results = match resuming {
        Ok(results) => results,
        Err(error) => return refuse(&error, None),
    };
    for (name, ended) in &results {
        let place = scopes.iter().find(|(known, ..)| known == name);
        let Some((_, app, scope)) = place else { continue };
        match ended {
            Ended::NothingToResume => match app.unpause(scope, &request.limits).await {
                Ok(0) => {}
                Ok(_) => eprintln!("{name}: requests of {scope} go on"),
                Err(error) => return refuse(&error, None),
            },
            Ended::Reported(report) => carry::retire(report, &places[name], scope, &args.carry),
            Ended::Refused(_) | Ended::HeldBack => {}
        }
    }
    let wants_back = args.back;
    let abandons = choice == Choice::Abandon;
    finish(group, &results, &BTreeMap::new(), wants_back || abandons, format)
}

async fn status(group: &Group, format: Format) -> Exit {
    let mut documents = Map::new();
    let mut worst = Exit::Done;
    for (index, (name, args)) in group.members.iter().enumerate() {
        if format == Format::Text && index > 0 {
            println!();
        }
        match look::status_of(args, format).await {
            Ok(document) => {
                documents.extend(document.map(|document| (name.clone(), document)));
            }
            Err(exit) => worst = worse(worst, exit),
        }
    }
    tell(group, documents, format);
    worst
}

async fn history(group: &Group, args: &HistoryArgs, format: Format) -> Exit {
    let mut documents = Map::new();
    let mut worst = Exit::Done;
    for (index, (name, project)) in group.members.iter().enumerate() {
        if format == Format::Text {
            println!("{}{name}:", if index > 0 { "\n" } else { "" });
        }
        match look::history_of(project, args.limit, format).await {
            Ok(document) => {
                documents.extend(document.map(|document| (name.clone(), document)));
            }
            Err(exit) => worst = worse(worst, exit),
        }
    }
    tell(group, documents, format);
    worst
}

fn tell(group: &Group, documents: Map<String, Value>, format: Format) {
    if format == Format::Json {
        println!("{:#}", output::of(&group.name, documents));
    }
}

/// The use cases for each environment, on the engine where it is: all are reached, or it is said of
/// each which is not why.
async fn apps<'a>(
    places: impl Iterator<Item = (&'a str, &'a Place, Limits)>,
    reporter: impl Fn(&str) -> Arc<dyn Reporter>,
) -> Result<Vec<App>, Exit> {
    let reaching =
        places.map(async |(name, place, limits)| (name, place.app(reporter(name), &limits).await));
    let reached: Vec<(&str, Result<App, AppError>)> = join_all(reaching).await;
    let mut apps = Vec::new();
    let mut failed = None;
    for (name, app) in reached {
        match app {
            Ok(app) => apps.push(app),
            Err(error) => {
                eprintln!("{name}:");
                failed = Some(refuse(&error, None));
            }
        }
    }
    failed.map_or(Ok(apps), Err)
}

/// What to act on, for each.
async fn members(group: &Group) -> Result<Vec<(String, Found)>, Exit> {
    let mut all = Vec::new();
    for (name, args) in &group.members {
        all.push((name.clone(), found(args).await?));
    }
    Ok(all)
}

/// Where all of them are.
struct Sites {
    /// Each with the use cases there.
    scopes: Vec<(String, App, Scope)>,
    places: BTreeMap<String, Place>,
}

/// Finds and reaches all of them.
async fn sites(
    group: &Group,
    limits: &Limits,
    reporter: impl Fn(&str) -> Arc<dyn Reporter>,
) -> Result<Sites, Exit> {
    let members = members(group).await?;
    let places = members.iter().map(|(name, found)| (name.as_str(), &found.place, *limits));
    let apps = apps(places, reporter).await?;
    let both = members.iter().zip(apps);
    let scopes = both.map(|((name, found), app)| (name.clone(), app, found.scope.clone()));
    let scopes = scopes.collect();
    let places = members.into_iter().map(|(name, found)| (name, found.place)).collect();
    Ok(Sites { scopes, places })
}

/// A printer for each, with its name in every line.
fn printers<'a>(names: impl Iterator<Item = &'a str> + Clone) -> BTreeMap<String, Arc<Printer>> {
    let width = names.clone().map(str::len).max().unwrap_or(0);
    names.map(|name| (name.to_owned(), Arc::new(Printer::of(name, width)))).collect()
}

type Results = Vec<(String, Ended)>;

/// What is to be done in one environment.
struct Job<'a> {
    name: String,
    place: &'a Place,
    task: Task<'a>,
    request: Request,
}

/// Carries it all out as the command line wishes.
async fn carry_out(
    group: &Group,
    mut jobs: Vec<Job<'_>>,
    tie: Tie,
    wish: &Wish<'_>,
    format: Format,
) -> Result<Results, Exit> {
    let mut yes = true;
    for job in &mut jobs {
        yes = wish.settle(&mut job.request)?;
    }
    let printers = printers(jobs.iter().map(|job| job.name.as_str()));
    let printer = |name: &str| printers[name].clone() as Arc<dyn Reporter>;
    let places = jobs.iter().map(|job| (job.name.as_str(), job.place, job.request.limits));
    let apps = apps(places, printer).await?;
    let mut members = Vec::new();
    let mut scopes = BTreeMap::new();
    for (Job { name, place, task, mut request }, app) in jobs.into_iter().zip(apps) {
        if let Task::Reach(intent) = &task {
            scopes.insert(name.clone(), (place, intent.scope()));
        }
        wish.name(&mut request, &app.who);
        members.push(Member { name, app, task, request });
    }
    let cancels = members.iter().map(|member| member.app.cancel.clone()).collect();
    tokio::spawn(carry::interrupts(cancels));
    let approve = |plans: Vec<(String, Plan)>| approve(&printers, plans, yes, format);
    let results = carry_out_together(&group.name, members, tie, approve).await;
    for (name, ended) in &results {
        if let (Ended::Reported(report), Some((place, scope))) = (ended, scopes.get(name)) {
            carry::retire(report, place, scope, wish.carry);
        }
    }
    Ok(results)
}

/// Shows all plans, and asks one question.
async fn approve(
    printers: &BTreeMap<String, Arc<Printer>>,
    plans: Vec<(String, Plan)>,
    yes: bool,
    format: Format,
) -> bool {
    let mut text = String::new();
    for (name, plan) in &plans {
        printers[name].expect(plan);
        text.push_str(&format!("{name}:\n{}", shiplap_plan::render(plan)));
    }
    match format {
        Format::Text => print!("{text}"),
        Format::Json => eprint!("{text}"),
    }
    let _ = std::io::stdout().flush();
    yes || carry::ask().await
}

/// How it ended, in words and as an exit code: the worst of all.
fn finish(
    group: &Group,
    results: &Results,
    sources: &BTreeMap<&str, &Source>,
    wants_back: bool,
    format: Format,
) -> Exit {
    for (name, ended) in results {
        if let Ended::Refused(error) = ended {
            say(&format!("{name}:\n"));
            errors::show(error, sources.get(name.as_str()).copied());
        }
    }
    match format {
        // The terminal may be gone by now, and what was done has been done.
        Format::Json => {
            let _ = writeln!(std::io::stdout(), "{:#}", output::json(&group.name, results));
        }
        Format::Text => {
            for (name, ended) in results {
                say(&output::text(name, ended));
            }
        }
    }
    results.iter().map(|(_, ended)| exit_of(ended, wants_back)).fold(Exit::Done, worse)
}

fn exit_of(ended: &Ended, wants_back: bool) -> Exit {
    match ended {
        Ended::Reported(report) => carry::exit_of(report, wants_back),
        Ended::NothingToResume => Exit::Done,
        Ended::Refused(_) | Ended::HeldBack => Exit::Failed,
    }
}

/// The worse of two ends.
fn worse(one: Exit, other: Exit) -> Exit {
    let badness = |exit: Exit| match exit {
        Exit::Done => 0,
        Exit::Pending => 1,
        Exit::Of(_) => 2,
        Exit::Failed => 3,
        Exit::Usage => 4,
        Exit::RolledBack => 5,
        Exit::Stuck => 6,
        Exit::OurBug => 7,
    };
    if badness(other) > badness(one) { other } else { one }
}
