//! From what a caller asks for to an order, checked against what there is and what they may.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use http::StatusCode;
use shiplap_model::{NewOrder, Placed, Scope, Wanted};

use crate::audit::Noted;
use crate::caller::Caller;
use crate::catalog::EnvironmentEntry;
use crate::core::Core;
use crate::names;
use crate::problem::Problem;

/// Texts of callers that are quoted in answers are cut here.
const MAX_QUOTED: usize = 80;
/// The longest message.
const MAX_MESSAGE: usize = 2000;
/// The longest name of a commit.
const MAX_REVISION: usize = 200;

/// What a caller may set, in one environment.
pub(crate) struct Setting<'a> {
    /// None is a trigger with a secret of its own: what it may set stands in the file.
    pub caller: Option<&'a Caller>,
    pub scope: &'a Scope,
    pub entry: &'a EnvironmentEntry,
}

impl Setting<'_> {
    /// A deployment of these services: with another tag, or as the files say where there is none.
    /// Services that share the variable of their tag get it too, so that file, ledger and engine
    /// agree.
    pub(crate) fn deploy(
        &self,
        asked: &BTreeMap<String, Option<String>>,
    ) -> Result<Wanted, Problem> {
        self.check_usable()?;
        let mut tags = BTreeMap::new();
        let mut services = BTreeSet::new();
        for (service, tag) in asked {
            self.check_covered(service)?;
            match tag {
                Some(tag) => self.set(service, tag, asked, &mut tags)?,
                None => {
                    services.insert(service.clone());
                }
            }
        }
        Ok(Wanted::Deploy { tags, services })
    }

    /// Sets one tag, and that of all services that have it from the same variable.
    fn set(
        &self,
        service: &str,
        tag: &str,
        asked: &BTreeMap<String, Option<String>>,
        tags: &mut BTreeMap<String, String>,
    ) -> Result<(), Problem> {
        if !names::is_tag(tag) {
            let message = format!("`{}` is not a tag", quoted(tag));
            return Err(Problem::invalid("bad-tag", message));
        }
        let entry = &self.entry.services[service];
        if let Some(why) = &entry.fixed {
            let message = format!("the tag of `{service}` cannot be set: {why}");
            return Err(Problem::invalid("fixed-tag", message));
        }
        tags.insert(service.to_owned(), tag.to_owned());
        let Some(variable) = &entry.variable else { return Ok(()) };
        let siblings = self.entry.services.iter().filter(|(name, sibling)| {
            name.as_str() != service && sibling.variable.as_ref() == Some(variable)
        });
        for (sibling, _) in siblings {
            // Not named: a token that is not for it does not learn of it.
            self.check_covered(sibling).map_err(|_| self.hidden(service))?;
            if let Some(Some(other)) =
                asked.get(sibling).filter(|other| **other != Some(tag.to_owned()))
            {
                let message = format!(
                    "`{service}` and `{sibling}` have the same variable, so they cannot be set to \
                     `{tag}` and `{}`",
                    quoted(other)
                );
                return Err(Problem::invalid("conflicting-tags", message));
            }
            tags.insert(sibling.clone(), tag.to_owned());
        }
        Ok(())
    }

    /// The services whose images are of this repository and that the caller may set, with this tag.
    pub(crate) fn of_image(
        &self,
        reference: &str,
    ) -> Result<BTreeMap<String, Option<String>>, Problem> {
        let Some((repository, tag)) = names::image(reference) else {
            let message = format!("`{}` is not an image with a tag", quoted(reference));
            return Err(Problem::invalid("bad-image", message));
        };
        let found: BTreeMap<String, Option<String>> = self
            .entry
            .services
            .iter()
            .filter(|(name, entry)| {
                entry.repository == repository
                    && self.caller.is_none_or(|caller| caller.covers(name, entry))
            })
            .map(|(name, _)| (name.clone(), Some(tag.to_owned())))
            .collect();
        if found.is_empty() {
            let what = format!("service with the image `{}` in {}", quoted(repository), self.scope);
            return Err(Problem::hidden(what));
        }
        Ok(found)
    }

    /// Refuses what cannot be deployed right now.
    pub(crate) fn check_usable(&self) -> Result<(), Problem> {
        match &self.entry.problem {
            None => Ok(()),
            Some(why) => {
                let message = format!("`{}` cannot be deployed right now: {why}", self.scope);
                Err(Problem::new(StatusCode::CONFLICT, "not-deployable", message))
            }
        }
    }

    /// Refuses a service that is not there or that the caller is not good for.
    pub(crate) fn check_covered(&self, service: &str) -> Result<(), Problem> {
        let covered = match self.caller {
            Some(caller) => caller.covers_named(service, self.entry),
            None => self.entry.services.contains_key(service),
        };
        if covered { Ok(()) } else { Err(self.hidden(service)) }
    }

    /// Refuses those who are not good for all services.
    pub(crate) fn check_all_covered(&self) -> Result<(), Problem> {
        if self.caller.is_none_or(Caller::covers_all_services) {
            return Ok(());
        }
        let what = format!("right to all services of {}; name those that it is for", self.scope);
        Err(Problem::hidden(what))
    }

    fn hidden(&self, service: &str) -> Problem {
        Problem::hidden(format_args!("service `{}` in {}", quoted(service), self.scope))
    }
}

/// Writes an order down, and into the audit log.
pub(crate) async fn place(core: &Core, noted: &Noted, order: &NewOrder) -> Result<Placed, Problem> {
    let placed = core.health.seen(core.orders.place(order).await)?;
    let word = if placed.repeated { "already ordered" } else { "ordered" };
    noted.did(format!("{word} {} ({}: {})", placed.id, order.scope, wanted_line(&order.wanted)));
    core.beat.placed(order.settle);
    Ok(placed)
}

/// `deploy api=abc123 web`.
fn wanted_line(wanted: &Wanted) -> String {
    let mut words = vec![wanted.word().to_owned()];
    match wanted {
        Wanted::Deploy { tags, services } => {
            words.extend(tags.iter().map(|(service, tag)| format!("{service}={tag}")));
            words.extend(services.iter().cloned());
        }
        Wanted::Rollback { services, to } => {
            words.extend(services.iter().cloned());
            words.extend(to.map(|number| format!("to {number}")));
        }
        Wanted::Promote { from, deployment } => {
            words.push(format!("from {from}"));
            words.extend(deployment.map(|number| format!("deployment {number}")));
        }
    }
    words.join(" ")
}

/// A message for history: one that is too long is refused, control characters are blanks.
pub(crate) fn message(text: Option<String>) -> Result<Option<String>, Problem> {
    let Some(text) = text.filter(|text| !text.trim().is_empty()) else { return Ok(None) };
    if text.len() > MAX_MESSAGE {
        let message = format!("`message` is longer than {MAX_MESSAGE} bytes");
        return Err(Problem::invalid("too-long", message));
    }
    Ok(Some(printable(&text)))
}

/// A commit for history, as the caller names it.
pub(crate) fn revision(text: Option<String>) -> Result<Option<String>, Problem> {
    let Some(text) = text.filter(|text| !text.trim().is_empty()) else { return Ok(None) };
    if text.len() > MAX_REVISION {
        let message = format!("`revision` is longer than {MAX_REVISION} bytes");
        return Err(Problem::invalid("too-long", message));
    }
    Ok(Some(printable(&text)))
}

/// How long an order waits for others.
pub(crate) fn settle(core: &Core, asked: Option<&str>) -> Result<Duration, Problem> {
    let Some(asked) = asked else { return Ok(core.settings.settle) };
    match crate::waiting::time(asked) {
        Some(time) if time <= core.settings.max_settle => Ok(time),
        Some(_) | None => {
            let most = core.settings.max_settle.as_secs();
            let message = format!("`settle` is a time such as `0s` or `10s`, at most {most} s");
            Err(Problem::invalid("bad-time", message))
        }
    }
}

/// Without control characters.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned()
}

/// The beginning of a caller's text, to be quoted in an answer.
pub(crate) fn quoted(text: &str) -> String {
    let cut = text.char_indices().nth(MAX_QUOTED).map_or(text.len(), |(at, _)| at);
    let dots = if cut < text.len() { "…" } else { "" };
    format!("{}{dots}", printable(&text[..cut]))
}
