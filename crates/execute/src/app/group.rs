//! Several environments at once: planned, asked about and carried out together, each with its own
//! lease, journal and history.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;

use futures_util::future::join_all;
use shiplap_model::{
    Deployment, DeploymentState, Direction, Outcome, Plan, Scope, StoredGroup, StoredRequest,
};

use super::deploy::{LOOK_BACK, Prepared, differs, is_done, is_unfinished};
use super::interrupted::is_open;
use super::together::{Seat, Table};
use super::{
    App, AppError, Choice, Intent, OnInterrupted, Party, Planned, Report, Request, Tie, unfinished,
};
use crate::{Event, now_ms};

/// What is to be done in one environment of several.
pub struct Member<'a> {
    /// The environment's name.
    pub name: String,
    /// The use cases there, with a reporter and a cancel of their own.
    pub app: App,
    /// What is to be done.
    pub task: Task<'a>,
    /// What is asked for besides.
    pub request: Request,
}

/// What is to be done in an environment.
pub enum Task<'a> {
    /// Something is to become current.
    Reach(Intent<'a>),
    /// A deployment that did not end is taken up.
    Settle(Scope, Choice),
}

/// What became of a member.
#[derive(Debug)]
pub enum Ended {
    /// It has a report; one without a number where there was nothing to do.
    Reported(Box<Report>),
    /// There was no deployment to take up.
    NothingToResume,
    /// It could not begin.
    Refused(AppError),
    /// It could, but another one could not.
    HeldBack,
}

/// All members, and what became of each.
type Results = Vec<(String, Ended)>;

/// Plans each, and changes nothing. What has something to do meets the others that have.
///
/// # Errors
/// By member, see [`AppError`].
pub async fn plan_together(
    group: &str,
    members: &[Member<'_>],
) -> Vec<(String, Result<Planned, AppError>)> {
    let planned = join_all(members.iter().map(async |member| match &member.task {
        Task::Reach(intent) => {
            if let Some(unfinished) = member.app.unfinished(&intent.scope()).await? {
                return Err(is_unfinished(&unfinished, group));
            }
            Box::pin(member.app.prepare(intent, &member.request, None)).await.map(Some)
        }
        Task::Settle(..) => Ok(None),
    }));
    let planned: Vec<Result<Option<Prepared>, AppError>> = planned.await;
    let acts = |prepared: &Result<Option<Prepared>, AppError>| {
        prepared.as_ref().is_ok_and(|p| p.as_ref().is_some_and(|p| !p.planned.plan.is_empty()))
    };
    let acting: Vec<&str> = members
        .iter()
        .zip(&planned)
        .filter(|(_, prepared)| acts(prepared))
        .map(|(member, _)| member.name.as_str())
        .collect();
    let both = members.iter().zip(planned).filter_map(|(member, prepared)| {
        let others = others(&acting, &member.name);
        let planned = match prepared.transpose()? {
            Ok(prepared) => prepared.meeting(others),
            Err(error) => Err(error),
        };
        Some((member.name.clone(), planned))
    });
    both.collect()
}

fn others(all: &[&str], name: &str) -> Vec<String> {
    all.iter().filter(|other| **other != name).map(|other| (*other).to_owned()).collect()
}

/// Carries out all that has something to do, side by side; nothing at all where one of them cannot
/// begin. `approve` is asked once, with the plans of all.
pub async fn carry_out_together<F>(
    group: &str,
    members: Vec<Member<'_>>,
    tie: Tie,
    approve: impl Fn(Vec<(String, Plan)>) -> F,
) -> Results
where
    F: Future<Output = bool>,
{
    let began = now_ms();
    let aheads = join_all(members.iter().map(async |member| match &member.task {
        Task::Reach(intent) => {
            let looking = member.app.look_ahead(intent, &member.request);
            member.app.unless_stopped(looking).await
        }
        Task::Settle(..) => Ok(None),
    }));
    let aheads: Vec<Result<Option<Prepared>, AppError>> = aheads.await;
    if aheads.iter().any(Result::is_err) {
        let ended = aheads.into_iter().map(|ahead| match ahead {
            Ok(_) => Ended::HeldBack,
            Err(error) => Ended::Refused(error),
        });
        return members.into_iter().map(|member| member.name).zip(ended).collect();
    }
    let mut results = Vec::new();
    let mut acting = Vec::new();
    for (member, ahead) in members.into_iter().zip(aheads) {
        match ahead.expect("the others have returned above") {
            Some(ahead) if ahead.planned.plan.is_empty() => {
                let report = Report::nothing(began, ahead.planned.plan);
                results.push((member.name, Ended::Reported(Box::new(report))));
            }
            ahead => acting.push((member, ahead)),
        }
    }
    results.extend(side_by_side(group, acting, tie, approve).await);
    results.sort_by(|(one, _), (other, _)| one.cmp(other));
    results
}

/// Carries out those that have something to do.
async fn side_by_side<F>(
    group: &str,
    acting: Vec<(Member<'_>, Option<Prepared>)>,
    tie: Tie,
    approve: impl Fn(Vec<(String, Plan)>) -> F,
) -> Results
where
    F: Future<Output = bool>,
{
    let names: Vec<String> = acting.iter().map(|(member, _)| member.name.clone()).collect();
    let known: Vec<&str> = names.iter().map(String::as_str).collect();
    let table = &Table::new(names.iter().cloned());
    let id = format!("{group}-{}-{}", now_ms(), std::process::id());
    let all = join_all(acting.into_iter().map(|(mut member, ahead)| {
        let seat = table.seat(&member.name);
        member.request.party = (tie == Tie::Gated).then(|| Party {
            group: group.to_owned(),
            id: id.clone(),
            others: others(&known, &member.name),
            place: seat.place(),
        });
        async move {
            let ended = Box::pin(one(&member, ahead, &seat, table, tie)).await;
            leave(seat, &ended, tie);
            (member.name, ended)
        }
    }));
    let asking = async {
        match table.plans().await {
            Some(plans) if plans.is_empty() => table.answer(true),
            Some(plans) => table.answer(approve(plans).await),
            None => table.call_off(),
        }
    };
    let mut all = std::pin::pin!(all);
    // Where all have been interrupted, nobody waits for the answer.
    tokio::select! {
        biased;
        results = &mut all => results,
        () = asking => all.await,
    }
}

/// One member from its lease to its end. Where it is tied to the others, it stops when one of them
/// has failed.
async fn one(
    member: &Member<'_>,
    ahead: Option<Prepared>,
    seat: &Seat,
    table: &Table,
    tie: Tie,
) -> Ended {
    let Member { app, task, request, .. } = member;
    let place = seat.place();
    let approve = |plan: &Plan| {
        let (place, plan) = (place.clone(), plan.clone());
        async move { place.agree(&plan).await }
    };
    let carrying = async {
        match task {
            Task::Reach(intent) => {
                let carrying = app.carry_on(intent, request, approve, ahead, now_ms());
                carrying.await.map(Some)
            }
            Task::Settle(scope, choice) => app.resume(scope, *choice, request, approve).await,
        }
    };
    let mut carrying = std::pin::pin!(carrying);
    let broken = async {
        match tie {
            Tie::Gated => table.broken().await,
            Tie::Loose => std::future::pending().await,
        }
    };
    let result = tokio::select! {
        biased;
        result = &mut carrying => result,
        reason = broken => {
            app.cancel.cancel(&reason);
            carrying.await
        }
    };
    match result {
        Ok(Some(report)) if report.declined && table.is_called_off() => Ended::HeldBack,
        Ok(Some(report)) => Ended::Reported(Box::new(report)),
        Ok(None) => Ended::NothingToResume,
        Err(error) => Ended::Refused(error),
    }
}

/// Tells the others how it ended.
fn leave(seat: Seat, ended: &Ended, tie: Tie) {
    match ended {
        Ended::NothingToResume | Ended::HeldBack => seat.leave(),
        Ended::Reported(report) => match (report.outcome, tie) {
            // Who has nothing to do in going back has gone back before the others are asked.
            (_, Tie::Loose) | (Outcome::Done, Tie::Gated) => seat.leave(),
            (_, Tie::Gated) if report.declined => seat.leave(),
            (
                Outcome::Failed | Outcome::RolledBack | Outcome::Stuck | Outcome::Interrupted,
                Tie::Gated,
            ) => seat.fail(report.reason.as_deref().unwrap_or("it did not end")),
        },
        Ended::Refused(error) => seat.fail(&error.to_string()),
    }
}

/// Takes up what members have left unfinished. What was begun together ends alike: on, if each can
/// go on by itself, else all back, those included that were done already.
///
/// # Errors
/// Where history cannot be read.
pub async fn resume_together<F>(
    group: &str,
    members: &[(String, App, Scope)],
    choice: Choice,
    request: &Request,
    approve: impl Fn(Vec<(String, Plan)>) -> F,
) -> Result<Results, AppError>
where
    F: Future<Output = bool>,
{
    let newest = newest(members).await?;
    // By the deployment that they were part of; those that were on their own are on their own.
    let mut parts: BTreeMap<Option<String>, Vec<&Standing<'_>>> = BTreeMap::new();
    for standing in newest.iter().filter(|standing| standing.is_open()) {
        let id = standing.group().map(|group| group.id.clone());
        parts.entry(id).or_default().push(standing);
    }
    let mut results: Results = Vec::new();
    for (id, open) in parts {
        let (choice, tie) = match (choice, id) {
            (Choice::Settle(OnInterrupted::Auto), Some(id)) => {
                match why_back(&id, &open, &newest, request).await {
                    Ok(None) => (Choice::Settle(OnInterrupted::Forward), Tie::Gated),
                    Ok(Some(why)) => {
                        for standing in &open {
                            let text = format!("all of {group} go back, since {why}");
                            standing.app.reporter.event(Event::Notice(text));
                        }
                        (Choice::Settle(OnInterrupted::Back), Tie::Loose)
                    }
                    Err((name, error)) => {
                        let held = open.iter().filter(|s| s.name != name);
                        results.extend(held.map(|s| (s.name.to_owned(), Ended::HeldBack)));
                        results.push((name, Ended::Refused(error)));
                        continue;
                    }
                }
            }
            (Choice::Settle(OnInterrupted::Forward), Some(_)) => (choice, Tie::Gated),
            (choice, _) => (choice, Tie::Loose),
        };
        let tasks = open.iter().map(|standing| Member {
            name: standing.name.to_owned(),
            app: standing.app.clone(),
            task: Task::Settle(standing.scope.clone(), choice),
            request: request.clone(),
        });
        results.extend(carry_out_together(group, tasks.collect(), tie, &approve).await);
    }
    if choice != Choice::Abandon && results.iter().all(|(_, ended)| is_settled(ended)) {
        let astray = take_back_astray(group, members, request, &approve).await?;
        // Of one that was on and had to go back after all, the way back is what counts.
        results.retain(|(name, _)| astray.iter().all(|(other, _)| other != name));
        results.extend(astray);
    }
    let rest = members.iter().filter(|(name, ..)| results.iter().all(|(known, _)| known != name));
    let rest: Vec<(String, Ended)> =
        rest.map(|(name, ..)| (name.clone(), Ended::NothingToResume)).collect();
    results.extend(rest);
    results.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(results)
}

/// Whether it has ended one way or the other.
fn is_settled(ended: &Ended) -> bool {
    match ended {
        Ended::Reported(report) => !report.declined && report.outcome != Outcome::Stuck,
        Ended::NothingToResume => true,
        Ended::Refused(_) | Ended::HeldBack => false,
    }
}

/// What a member's newest deployment is.
struct Standing<'a> {
    name: &'a str,
    app: &'a App,
    scope: &'a Scope,
    newest: Option<Deployment>,
}

impl Standing<'_> {
    fn is_open(&self) -> bool {
        self.newest.as_ref().is_some_and(is_open)
    }

    fn group(&self) -> Option<&StoredGroup> {
        group_of(self.newest.as_ref()?)
    }

    /// How its part of a group's deployment ended, if that is its newest.
    fn ended(&self, id: &str) -> Option<Outcome> {
        self.group().filter(|group| group.id == id)?;
        match self.newest.as_ref()?.state {
            DeploymentState::Unfinished => None,
            DeploymentState::Ended { outcome, .. } => Some(outcome),
        }
    }
}

fn group_of(deployment: &Deployment) -> Option<&StoredGroup> {
    let request: &StoredRequest = deployment.request.as_ref()?;
    request.group.as_ref()
}

async fn newest<'a>(members: &'a [(String, App, Scope)]) -> Result<Vec<Standing<'a>>, AppError> {
    let mut all = Vec::new();
    for (name, app, scope) in members {
        let newest = app.ledger.deployments(scope, 1).await?.pop();
        all.push(Standing { name, app, scope, newest });
    }
    Ok(all)
}

/// Why what was begun together cannot go on together; nothing where it can.
///
/// # Errors
/// With the member that cannot be asked.
async fn why_back(
    id: &str,
    open: &[&Standing<'_>],
    newest: &[Standing<'_>],
    request: &Request,
) -> Result<Option<String>, (String, AppError)> {
    let meant: BTreeSet<&str> = open
        .iter()
        .filter_map(|standing| standing.group())
        .flat_map(|group| group.members.iter().map(String::as_str))
        .collect();
    for name in &meant {
        let standing = newest.iter().find(|standing| standing.name == *name);
        let is_part = standing.and_then(Standing::group).is_some_and(|group| group.id == id);
        if !is_part {
            return Ok(Some(format!("{name} had not begun, or has gone on by itself")));
        }
        match standing.and_then(|standing| standing.ended(id)) {
            None | Some(Outcome::Done | Outcome::Stuck) => {}
            Some(Outcome::Failed | Outcome::RolledBack) => {
                return Ok(Some(format!("{name} has gone back already")));
            }
            Some(Outcome::Interrupted) => {
                return Ok(Some(format!("{name} was left as it is")));
            }
        }
    }
    for standing in open {
        let way = standing.app.way(standing.scope, request).await;
        match way.map_err(|error| (standing.name.to_owned(), error))? {
            Some((Direction::Back, why)) => return Ok(Some(format!("{}: {why}", standing.name))),
            Some((Direction::Forward | Direction::Abandon, _)) | None => {}
        }
    }
    Ok(None)
}

/// Takes those back that are done while another one, begun together with them, has gone back.
async fn take_back_astray<F>(
    group: &str,
    members: &[(String, App, Scope)],
    request: &Request,
    approve: &impl Fn(Vec<(String, Plan)>) -> F,
) -> Result<Results, AppError>
where
    F: Future<Output = bool>,
{
    let newest = newest(members).await?;
    let undone: BTreeMap<&str, &str> = newest
        .iter()
        .filter_map(|standing| {
            let id = standing.group()?.id.as_str();
            let outcome = standing.ended(id)?;
            matches!(outcome, Outcome::Failed | Outcome::RolledBack).then_some((id, standing.name))
        })
        .collect();
    let mut tasks = Vec::new();
    for standing in &newest {
        let Some(id) = standing.group().map(|group| group.id.as_str()) else { continue };
        let Some(other) = undone.get(id) else { continue };
        if standing.ended(id) != Some(Outcome::Done) {
            continue;
        }
        let current = standing.newest.as_ref().expect("it has ended");
        let history = standing.app.ledger.deployments(standing.scope, LOOK_BACK).await?;
        let text = match before(&history, current) {
            Some(target) => {
                let to = Some(target.number);
                let intent = Intent::Rollback { scope: standing.scope.clone(), to };
                tasks.push(Member {
                    name: standing.name.to_owned(),
                    app: standing.app.clone(),
                    task: Task::Reach(intent),
                    request: request.clone(),
                });
                format!(
                    "deployment {} is done, but {other} has gone back: going back to {} as well",
                    current.number, target.number
                )
            }
            None => format!(
                "deployment {} stays, though {other} has gone back: there is none before it",
                current.number
            ),
        };
        standing.app.reporter.event(Event::Notice(text));
    }
    Ok(carry_out_together(group, tasks, Tie::Loose, approve).await)
}

/// The deployment to go back to from one that is done.
fn before<'a>(history: &'a [Deployment], from: &Deployment) -> Option<&'a Deployment> {
    let done = history.iter().filter(|d| d.number < from.number);
    done.filter(|d| is_done(d) && d.kind != "down").find(|d| differs(d, from))
}

/// For each member of the newest deployment of a group that is done in all of them: the number of the
/// deployment before it, to go back to.
///
/// # Errors
/// [`AppError::History`] where there is no such deployment, or none before it in a member.
pub async fn releases_before(
    group: &str,
    members: &[(String, App, Scope)],
) -> Result<BTreeMap<String, u64>, AppError> {
    let mut histories = Vec::new();
    for (name, app, scope) in members {
        if let Some(unfinished) = unfinished(app.ledger.as_ref(), scope).await? {
            return Err(AppError::History {
                message: format!("deployment {} of {scope} did not end", unfinished.number()),
                help: format!("`shiplap -e {group} resume --back` goes back from it"),
            });
        }
        histories.push((name, scope, app.ledger.deployments(scope, LOOK_BACK).await?));
    }
    let parts = histories.iter().flat_map(|(.., history)| history);
    let parts = parts.filter_map(|d| Some((group_of(d).filter(|g| g.name == group)?, d)));
    // When each began, and whether all of it is done.
    let mut known: BTreeMap<&str, (i64, bool)> = BTreeMap::new();
    for (part, deployment) in parts {
        let entry = known.entry(&part.id).or_insert((deployment.started_ms, true));
        entry.0 = entry.0.max(deployment.started_ms);
        entry.1 &= is_done(deployment);
    }
    let done = known.iter().filter(|(_, (_, done))| *done);
    let Some((id, _)) = done.max_by_key(|(_, (started_ms, _))| *started_ms) else {
        return Err(AppError::History {
            message: format!("{group} has no deployment to go back from"),
            help: format!("`shiplap -e {group} history` lists the deployments of each"),
        });
    };
    let mut targets = BTreeMap::new();
    for (name, scope, history) in &histories {
        let is_part = |d: &&Deployment| group_of(d).is_some_and(|group| group.id == **id);
        let Some(from) = history.iter().find(is_part) else { continue };
        let target = before(history, from).ok_or_else(|| AppError::History {
            message: format!("{scope} has no release before deployment {}", from.number),
            help: format!("go back in the others by themselves: `shiplap -e {name} history`"),
        })?;
        targets.insert((*name).clone(), target.number);
    }
    Ok(targets)
}
