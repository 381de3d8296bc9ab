//! Carrying an order out: by this very program, in a process of its own.
//!
//! A deployment outlives the server: it has its own session, prints to files and reports to the
//! ledger. So a server is upgraded, or crashes, without a deployment noticing; and one that is
//! started again, or another one that shares the ledger, finds out what became of it there.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use shiplap_execute::now_ms;
use shiplap_model::{
    Claim, Deployment, DeploymentState, Ledger, LedgerError, Order, OrderEnd, Outcome, Wanted,
};
use shiplap_server::{CarriedOut, EventSink, Stop, StopReason};

use super::catalog::EnvironmentPlace;
use super::process::{Process, forget_old};
use super::{ORDER_VARIABLE, REVISION_VARIABLE, WHO_VARIABLE};

/// How often it is looked what a deployment has printed, and whether it has ended.
const LOOK: Duration = Duration::from_millis(200);
/// The same where only the ledger can tell.
const LOOK_AT_LEDGER: Duration = Duration::from_secs(2);
/// Orders whose output is kept.
const KEPT: usize = 200;
/// How far back the deployment of an order is looked for.
const LOOK_BACK: u32 = 50;
/// So many processes are started for one order, as each before was killed.
const MOST_PROCESSES: u32 = 3;
/// The largest report that is read.
const LARGEST_REPORT: u64 = 16 << 20;

/// Carries orders out.
pub struct Runner {
    program: PathBuf,
    /// One folder per order.
    folder: PathBuf,
}

impl Runner {
    /// One that keeps what deployments print below a folder.
    ///
    /// # Errors
    /// When it is not known where this program is, or the folder cannot be made.
    pub fn new(folder: PathBuf) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        Ok(Self { program: std::env::current_exe()?, folder })
    }

    /// Carries one out. One that somebody was at before is looked up in the ledger first.
    pub async fn carry_out(
        &self,
        claim: &Claim,
        place: &EnvironmentPlace,
        ledger: &dyn Ledger,
        (events, stop): (&dyn EventSink, &Stop),
    ) -> CarriedOut {
        forget_old(&self.folder, KEPT);
        let order = &claim.order;
        let mut is_known = claim.resumed;
        for _ in 0..MOST_PROCESSES {
            let words = match next(order, is_known, place, ledger, (events, stop)).await {
                Next::Begin => words(order, place),
                Next::Resume => place_words(place, ["resume", "--yes", "--json"]),
                Next::Nothing(carried_out) => return carried_out,
            };
            let followed = match self.start(order, &words) {
                Ok(process) => follow(process, events, stop).await,
                Err(error) => {
                    let summary = format!("no process could be started for it: {error}");
                    return CarriedOut::Ended(end(1, None, summary));
                }
            };
            match followed {
                Followed::To(carried_out) => return carried_out,
                Followed::Killed => events.line("its process was killed; what it did is looked up"),
            }
            is_known = true;
        }
        let summary = "its process was killed again and again; `shiplap status` shows what it left";
        CarriedOut::Ended(end(4, None, summary.to_owned()))
    }

    fn start(&self, order: &Order, words: &[String]) -> io::Result<Process> {
        let id = order.id.to_string();
        let variables = [
            (ORDER_VARIABLE, id.as_str()),
            (REVISION_VARIABLE, order.new.revision.as_deref().unwrap_or_default()),
            (WHO_VARIABLE, &order.new.who),
        ];
        Process::start(&self.program, self.folder.join(&id), words, &variables, Stdio::null())
    }
}

/// What the command line of an order is.
fn words(order: &Order, place: &EnvironmentPlace) -> Vec<String> {
    let name = &place.settings.name;
    let mut words = match &order.new.wanted {
        Wanted::Deploy { tags, services } => {
            let mut words = place_words(place, ["deploy"]);
            words.extend(tags.iter().map(|(service, tag)| format!("--set={service}={tag}")));
            // Behind `--`, so that no name is taken for an option.
            words.extend(["--yes".into(), "--json".into()]);
            words.extend(message(order));
            words.push("--".into());
            words.extend(services.iter().cloned());
            return words;
        }
        Wanted::Rollback { services, to } => {
            let mut words = place_words(place, ["rollback", "--yes", "--json"]);
            words.extend(to.map(|to| format!("--to={to}")));
            words.extend(message(order));
            words.push("--".into());
            words.extend(services.iter().cloned());
            return words;
        }
        Wanted::Promote { from, deployment } => {
            let mut words = vec![format!("--config-file={}", place.config.display())];
            words.extend(["promote".into(), "--yes".into(), "--json".into()]);
            words.extend(deployment.map(|number| format!("--deployment={number}")));
            words.extend(message(order));
            words.extend(["--".into(), from.clone()]);
            words
        }
    };
    words.push(name.clone());
    words
}

fn message(order: &Order) -> Option<String> {
    order.new.message.as_ref().map(|message| format!("--message={message}"))
}

fn place_words<const N: usize>(place: &EnvironmentPlace, more: [&str; N]) -> Vec<String> {
    let mut words = vec![
        format!("--config-file={}", place.config.display()),
        format!("--environment={}", place.settings.name),
    ];
    words.extend(more.map(str::to_owned));
    words
}

/// What is to be done for an order.
enum Next {
    Begin,
    Resume,
    Nothing(CarriedOut),
}

/// Finds that out, and waits until nobody else is deploying there.
async fn next(
    order: &Order,
    is_known: bool,
    place: &EnvironmentPlace,
    ledger: &dyn Ledger,
    (events, stop): (&dyn EventSink, &Stop),
) -> Next {
    let mut said = None;
    loop {
        match standing(order, is_known, place, ledger).await {
            Err(error) => events.line(&format!("the ledger does not answer: {error}")),
            Ok(Standing::NotBegun) => return Next::Begin,
            Ok(Standing::Ended(end)) => return Next::Nothing(CarriedOut::Ended(end)),
            Ok(Standing::Left { number }) => {
                events.deployment(number);
                events.line(&format!("deployment {number} was left unfinished: it is resumed"));
                return Next::Resume;
            }
            Ok(Standing::Busy { holder }) => {
                if said.as_ref() != Some(&holder) {
                    events.line(&format!("waiting: {holder} is deploying there"));
                }
                said = Some(holder);
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_AT_LEDGER) => {}
            reason = stop.asked() => {
                let withdrawn = || end(1, None, "it was taken back before it began".to_owned());
                return Next::Nothing(match reason {
                    StopReason::Withdrawn => CarriedOut::Ended(withdrawn()),
                    StopReason::Leaving | StopReason::Lost => CarriedOut::Left,
                });
            }
        }
    }
}

/// How following a process ended.
enum Followed {
    To(CarriedOut),
    /// By a signal: what it did is in the ledger.
    Killed,
}

/// Follows a deployment until its end, or until somebody else is to.
async fn follow(mut process: Process, events: &dyn EventSink, stop: &Stop) -> Followed {
    let mut first_error = None;
    let mut seen = None;
    loop {
        let ended = match process.ended() {
            Ok(ended) => ended,
            Err(error) => {
                let summary = format!("it is not known how it ended: {error}");
                return Followed::To(CarriedOut::Ended(end(4, None, summary)));
            }
        };
        for line in process.errors().lines().filter(|line| !line.trim().is_empty()) {
            if first_error.is_none() && line.starts_with("error") {
                first_error = Some(line.to_owned());
            }
            events.line(line);
        }
        match ended {
            None => {}
            Some(None) => return Followed::Killed,
            Some(Some(exit)) => {
                let report = process.whole_output(LARGEST_REPORT).unwrap_or_default();
                let end = reported(&report, exit, first_error);
                if let Some(number) = end.deployment {
                    events.deployment(number);
                }
                return Followed::To(CarriedOut::Ended(end));
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            reason = stop.other_than(seen) => {
                seen = Some(reason);
                match reason {
                    // It goes on by itself, and its lease keeps others away until its end.
                    StopReason::Leaving | StopReason::Lost => {
                        return Followed::To(CarriedOut::Left);
                    }
                    StopReason::Withdrawn => process.interrupt(),
                }
            }
        }
    }
}

/// What is said at the end, from the report that was printed or, where there is none, the first
/// error.
fn reported(report: &str, exit: u8, first_error: Option<String>) -> OrderEnd {
    let report: Value = serde_json::from_str(report).unwrap_or(Value::Null);
    let number = report["deployment"].as_u64();
    let outcome = report["outcome"].as_str().map(|outcome| outcome.replace('-', " "));
    let reason = report["reason"].as_str();
    let summary = match (outcome.as_deref(), number, reason) {
        (Some("nothing to do"), _, _) => "nothing was to be done".to_owned(),
        (Some(outcome), Some(number), None) => format!("deployment {number}: {outcome}"),
        (Some(outcome), Some(number), Some(reason)) => {
            format!("deployment {number}: {outcome}: {reason}")
        }
        _ => first_error.unwrap_or_else(|| format!("it ended with {exit} and said nothing")),
    };
    end(exit, number, summary)
}

fn end(exit: u8, deployment: Option<u64>, summary: String) -> OrderEnd {
    OrderEnd { at_ms: now_ms(), exit, deployment, summary }
}

/// What the ledger knows of an order.
enum Standing {
    /// No deployment carries it out, and nobody is deploying there.
    NotBegun,
    /// Somebody is deploying there, this order or something else.
    Busy { holder: String },
    /// It is over.
    Ended(OrderEnd),
    /// Its deployment has not ended, and nobody is at it any more.
    Left { number: u64 },
}

async fn standing(
    order: &Order,
    is_known: bool,
    place: &EnvironmentPlace,
    ledger: &dyn Ledger,
) -> Result<Standing, LedgerError> {
    // In this order: a deployment that ends between the two looks is seen as ended.
    if let Some(held) = ledger.holder(&place.scope).await? {
        return Ok(Standing::Busy { holder: held.holder });
    }
    if !is_known {
        return Ok(Standing::NotBegun);
    }
    let deployments = ledger.deployments(&place.scope, LOOK_BACK).await?;
    let ours = |d: &&Deployment| d.request.as_ref().and_then(|r| r.order) == Some(order.id);
    let Some(deployment) = deployments.iter().find(ours) else { return Ok(Standing::NotBegun) };
    let number = deployment.number;
    let DeploymentState::Ended { outcome, reason, at_ms } = &deployment.state else {
        return Ok(Standing::Left { number });
    };
    let exit = match outcome {
        Outcome::Done => 0,
        Outcome::Failed => 1,
        Outcome::RolledBack => 3,
        Outcome::Stuck | Outcome::Interrupted => 4,
    };
    let reason = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let summary = format!("deployment {number}: {outcome}{reason}");
    Ok(Standing::Ended(OrderEnd { at_ms: *at_ms, exit, deployment: Some(number), summary }))
}
