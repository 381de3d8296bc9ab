//! Networks that both are on.

use std::collections::{BTreeMap, BTreeSet};

use crate::check::Report;
use crate::container::{Attachment, Container, NetworkMode};
use crate::finding::{Code, Finding, Party, Tried, count, list};
use crate::seen::{Instance, Snapshot, pairs};

/// Where containers are put that name no network. They do not reach each other by name there, but
/// by address.
const DEFAULT_BRIDGE: &str = "bridge";

pub(crate) fn check(all: &[Snapshot], strangers: &[(String, Container)], report: &mut Report) {
    let names: BTreeSet<&str> =
        all.iter().flat_map(attachments).map(|(_, at)| at.network.as_str()).collect();
    let containers = all.iter().map(|snapshot| snapshot.containers.len()).sum();
    let text = format!(
        "compared {} of {}",
        count(names.len(), "network", "networks"),
        count(containers, "container", "containers")
    );
    let tried = Tried { what: "networks", count: names.len(), text };
    let shared = pairs(all).flat_map(|(one, two)| shared(one, two));
    report.add(tried, shared.chain(neighbours(all, strangers)));
}

fn attachments(snapshot: &Snapshot) -> impl Iterator<Item = (&Container, &Attachment)> {
    snapshot.containers.iter().flat_map(|c| c.attachments.iter().map(move |at| (c, at)))
}

fn shared(one: &Snapshot, two: &Snapshot) -> Vec<Finding> {
    let mut on: BTreeMap<&str, (BTreeSet<Party>, BTreeSet<Party>)> = BTreeMap::new();
    for (container, at) in attachments(one) {
        for (other, _) in attachments(two).filter(|(_, other_at)| at.is_with(other_at)) {
            let (ours, theirs) = on.entry(&at.network).or_default();
            ours.insert(one.party(container));
            theirs.insert(two.party(other));
        }
    }
    let finding = |(network, (ours, theirs)): (&str, (BTreeSet<Party>, BTreeSet<Party>))| {
        // By Compose's names of networks; else whoever has fewer on it.
        let is_of = |snapshot: &Snapshot| {
            network
                .strip_prefix(&*snapshot.instance.project)
                .is_some_and(|rest| rest.starts_with('_'))
        };
        let guests = match (is_of(one), is_of(two)) {
            (true, false) => &theirs,
            (false, true) => &ours,
            (true, true) | (false, false) if ours.len() < theirs.len() => &ours,
            (true, true) | (false, false) => &theirs,
        };
        let fix = if network == DEFAULT_BRIDGE {
            "leave `network_mode: bridge` out: then each project gets a network of its own"
                .to_owned()
        } else {
            let leave = guests.iter().filter_map(|party| party.container.as_deref());
            let leave = leave.map(|name| format!("`docker network disconnect {network} {name}`"));
            format!("{}, and give each environment a network of its own in its file", list(leave))
        };
        Finding {
            code: Code::SharedNetwork,
            what: format!(
                "{} and {} are on network {network}",
                list(ours.iter()),
                list(theirs.iter())
            ),
            between: ours.iter().chain(&theirs).cloned().collect(),
            fix,
        }
    };
    on.into_iter().map(finding).collect()
}

/// Others on a network of ours: what is broken into there reaches ours.
fn neighbours(all: &[Snapshot], strangers: &[(String, Container)]) -> Vec<Finding> {
    let mut found = Vec::new();
    for (project, stranger) in strangers {
        if stranger.network_mode == NetworkMode::Host {
            continue;
        }
        let mut touched: BTreeMap<&str, BTreeSet<&Instance>> = BTreeMap::new();
        for snapshot in all {
            for (_, at) in attachments(snapshot) {
                if stranger.attachments.iter().any(|other| at.is_with(other)) {
                    touched.entry(&at.network).or_default().insert(&snapshot.instance);
                }
            }
        }
        if touched.is_empty() {
            continue;
        }
        let reached: BTreeSet<&str> =
            touched.values().flatten().map(|instance| instance.environment.as_str()).collect();
        let bridges = if reached.len() > 1 { ": it reaches them all" } else { "" };
        let party = Party {
            environment: String::new(),
            project: project.clone(),
            service: stranger.service.clone(),
            container: Some(stranger.name.clone()),
        };
        found.push(Finding {
            code: Code::Neighbour,
            what: format!(
                "{}, which is of none of these environments, is on {} of {}{bridges}",
                stranger.name,
                list(touched.keys()),
                list(&reached)
            ),
            between: vec![party],
            fix: format!(
                "if it has no business there: {}",
                list(touched.keys().map(|network| {
                    format!("`docker network disconnect {network} {}`", stranger.name)
                }))
            ),
        });
    }
    found
}
