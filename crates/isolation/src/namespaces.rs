//! Containers that live in another's namespace, are linked to it, or carry its name.

use std::collections::BTreeSet;

use crate::check::Report;
use crate::container::{Container, Join, NetworkMode};
use crate::finding::{Code, Finding, Tried, count};
use crate::seen::{Snapshot, both_ways, pairs};

pub(crate) fn check(all: &[Snapshot], report: &mut Report) {
    let containers: usize = all.iter().map(|snapshot| snapshot.services().count()).sum();
    let text = format!(
        "looked at {} for links, joined namespaces and names of the others",
        count(containers, "container", "containers")
    );
    let tried = Tried { what: "namespaces", count: containers, text };
    report.add(tried, both_ways(all).flat_map(|(one, two)| joined(one, two)));
    report.findings.extend(both_ways(all).flat_map(|(one, two)| names(one, two)));
    report.findings.extend(pairs(all).flat_map(|(one, two)| shared(one, two)));
}

/// Every container that one of ours names, with the words for it.
fn referred(container: &Container) -> Vec<(String, &'static str)> {
    let mut all = Vec::new();
    if let NetworkMode::Container(other) = &container.network_mode {
        all.push((other.clone(), "lives in the network namespace of"));
    }
    for (join, words) in [
        (&container.processes, "sees the processes of"),
        (&container.shared_memory, "has the shared memory of"),
    ] {
        if let Join::Container(other) = join {
            all.push((other.clone(), words));
        }
    }
    all.extend(container.volumes_from.iter().map(|other| (other.clone(), "has the volumes of")));
    let links = container.attachments.iter().flat_map(|at| &at.links).chain(&container.links);
    all.extend(links.map(|other| (other.clone(), "is linked to")));
    all
}

fn joined(one: &Snapshot, two: &Snapshot) -> Vec<Finding> {
    let mut found = Vec::new();
    for container in one.services() {
        for (name, words) in referred(container) {
            for other in two.containers.iter().filter(|other| other.is(&name)) {
                let (party, other) = (one.party(container), two.party(other));
                found.push(Finding {
                    code: Code::Joined,
                    what: format!("{party} {words} {other}"),
                    between: vec![party, other],
                    fix: "take it out of `network_mode`, `pid`, `ipc`, `volumes_from`, `links` or \
                          `external_links`"
                        .to_owned(),
                });
            }
        }
    }
    found
}

/// Names of containers are meant to be unique on the engine; services of all environments have the
/// same names on purpose.
fn names(one: &Snapshot, two: &Snapshot) -> Vec<Finding> {
    let services: BTreeSet<&str> = one.services().map(|c| c.service.as_str()).collect();
    let mut found = Vec::new();
    for container in one.services() {
        let aliases =
            container.attachments.iter().flat_map(|at| at.aliases.iter().map(String::as_str));
        let names: BTreeSet<&str> = aliases.chain(container.chosen_hostname()).collect();
        for other in two.containers.iter() {
            let name = other.name.as_str();
            if names.contains(name) && !services.contains(name) && other.service != name {
                let (party, other) = (one.party(container), two.party(other));
                found.push(Finding {
                    code: Code::NameOfOther,
                    what: format!("{party} answers to {name}, the name of {other}'s container"),
                    between: vec![party, other],
                    fix: format!("take {name} out of its `aliases` and `hostname`"),
                });
            }
        }
    }
    found
}

fn shared(one: &Snapshot, two: &Snapshot) -> Vec<Finding> {
    let mut found = Vec::new();
    for container in one.services() {
        for other in two.services() {
            let between = || vec![one.party(container), two.party(other)];
            let (party, other_party) = (one.party(container), two.party(other));
            if container.shared_memory == Join::Host && other.shared_memory == Join::Host {
                found.push(Finding {
                    code: Code::SharedNamespace,
                    what: format!("{party} and {other_party} have the machine's shared memory"),
                    between: between(),
                    fix: "leave `ipc: host` out; `shm_size` makes a container's own larger"
                        .to_owned(),
                });
            }
            let parent = &container.cgroup_parent;
            if !parent.is_empty() && *parent == other.cgroup_parent {
                found.push(Finding {
                    code: Code::SharedBudget,
                    what: format!(
                        "{party} and {other_party} have one budget of CPU and memory: {parent}"
                    ),
                    between: between(),
                    fix: "give each environment a `cgroup_parent` of its own, or none".to_owned(),
                });
            }
        }
    }
    found
}
