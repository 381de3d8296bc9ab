//! Which services of a group's environments a command line names: `core/api`, or `api` where only one
//! of them has such a service.

use std::collections::{BTreeMap, BTreeSet};

use crate::cli::Selected;

/// The services of each environment, by its name.
pub type Known = BTreeMap<String, BTreeSet<String>>;

/// What is asked of each environment; nothing of those that are not in it.
pub type Shares = BTreeMap<String, Selected>;

/// Splits what is asked for all. Where no service is named, everything is asked of each.
///
/// # Errors
/// Names that mean nothing, or more than one service, each with what to type.
pub fn share(selected: &Selected, known: &Known) -> Result<Shares, Vec<String>> {
    let plain = Selected { services: Vec::new(), set: Vec::new(), ..selected.clone() };
    if selected.services.is_empty() && selected.set.is_empty() {
        return Ok(known.keys().map(|name| (name.clone(), plain.clone())).collect());
    }
    let mut shares = Shares::new();
    let mut wrong = Vec::new();
    for word in &selected.services {
        match place(word, known) {
            Ok((member, service)) => {
                let share = shares.entry(member).or_insert_with(|| plain.clone());
                share.services.push(service);
            }
            Err(why) => wrong.push(why),
        }
    }
    for pair in &selected.set {
        let (word, tag) = pair.split_once('=').unwrap_or((pair, ""));
        match place(word, known) {
            Ok((member, service)) => {
                let share = shares.entry(member).or_insert_with(|| plain.clone());
                share.set.push(format!("{service}={tag}"));
            }
            Err(why) => wrong.push(why),
        }
    }
    if wrong.is_empty() { Ok(shares) } else { Err(wrong) }
}

/// The environment and the service that a word means.
fn place(word: &str, known: &Known) -> Result<(String, String), String> {
    if let Some((member, service)) = word.split_once('/') {
        let names: Vec<&str> = known.keys().map(String::as_str).collect();
        return match known.get(member) {
            // Whether it has such a service, its plan says.
            Some(_) => Ok((member.to_owned(), service.to_owned())),
            None => Err(format!("`{word}`: there is no `{member}` among {}", names.join(", "))),
        };
    }
    let having: Vec<&String> =
        known.iter().filter(|(_, services)| services.contains(word)).map(|(n, _)| n).collect();
    match having.as_slice() {
        [one] => Ok(((*one).clone(), word.to_owned())),
        [] => Err(format!("no environment of the group has a service `{word}`")),
        several => {
            let choices: Vec<String> =
                several.iter().map(|name| format!("{name}/{word}")).collect();
            Err(format!("several have a service `{word}`: {}", choices.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Known {
        let services = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        [
            ("core".to_owned(), services(&["api", "db"])),
            ("proxy".to_owned(), services(&["web"])),
            ("scrape".to_owned(), services(&["api", "worker"])),
        ]
        .into()
    }

    fn shared(services: &[&str], set: &[&str]) -> Result<Vec<String>, Vec<String>> {
        let own = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let selected = Selected { services: own(services), set: own(set), ..Selected::default() };
        let shares = share(&selected, &known())?;
        let line = |(name, share): (String, Selected)| {
            format!("{name}: {} {}", share.services.join(" "), share.set.join(" "))
        };
        Ok(shares.into_iter().map(line).collect())
    }

    #[test]
    fn without_names_everything_is_asked_of_each() {
        assert_eq!(
            shared(&[], &[]),
            Ok(["core:  ", "proxy:  ", "scrape:  "].map(Into::into).into())
        );
    }

    #[test]
    fn only_those_that_are_named_are_touched() {
        assert_eq!(shared(&["web"], &[]), Ok(vec!["proxy: web ".to_owned()]));
        assert_eq!(
            shared(&["core/api"], &["worker=v2", "scrape/api=ghcr.io/x/api:v3"]),
            Ok(["core: api ", "scrape:  worker=v2 api=ghcr.io/x/api:v3"].map(Into::into).into())
        );
    }

    #[test]
    fn names_that_mean_nothing_or_several_are_all_refused() {
        let wrong = shared(&["api", "vm9/api"], &["api=v2", "nobody=v1"]).unwrap_err();
        assert_eq!(
            wrong,
            [
                "several have a service `api`: core/api, scrape/api",
                "`vm9/api`: there is no `vm9` among core, proxy, scrape",
                "several have a service `api`: core/api, scrape/api",
                "no environment of the group has a service `nobody`",
            ]
        );
    }
}
