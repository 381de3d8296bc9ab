//! What to try from inside of containers, and what the answers mean.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use crate::check::Report;
use crate::container::{Container, Listening, NetworkMode, Role, State, Transport};
use crate::finding::{Code, Finding, Party, Tried, Untested, count, list};
use crate::ports::{claims, is_public};
use crate::seen::Snapshot;

/// How far one container's network namespace is joined to another's: two is one too many already.
const JOINS: usize = 5;

/// All that is to be tried from one network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Questions {
    /// The id of a container that runs there.
    pub container_id: String,
    /// Everybody who runs there.
    pub from: Vec<Party>,
    /// Which snapshot they are of.
    pub snapshot: usize,
    /// To connect to.
    pub connect: BTreeSet<SocketAddr>,
    /// To look up.
    pub names: BTreeSet<String>,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answers {
    /// Where a connection came about.
    pub open: BTreeSet<SocketAddr>,
    /// Names with the addresses that they stand for there.
    pub names: BTreeMap<String, BTreeSet<IpAddr>>,
}

/// A container that runs, with the one in whose network namespace it does.
fn home<'a>(all: &'a [Snapshot], container: &'a Container) -> Option<&'a Container> {
    let mut at = container;
    for _ in 0..JOINS {
        match &at.network_mode {
            NetworkMode::Own => return Some(at),
            NetworkMode::Nothing | NetworkMode::Host => return None,
            NetworkMode::Container(other) => {
                at = all.iter().flat_map(|s| s.containers.iter()).find(|c| c.is(other))?;
            }
        }
    }
    None
}

/// What is to be tried: from each network namespace of an environment, every address and port and
/// every name of the others.
#[must_use]
pub fn questions(all: &[Snapshot]) -> Vec<Questions> {
    let mut by_home: BTreeMap<(usize, &str), Questions> = BTreeMap::new();
    for (index, snapshot) in all.iter().enumerate() {
        for container in snapshot.services().filter(|c| c.state == State::Running) {
            let Some(home) = home(all, container) else { continue };
            let party = snapshot.party(container);
            if let Some(known) = by_home.get_mut(&(index, &home.id)) {
                known.from.push(party);
                continue;
            }
            let mut questions = Questions {
                container_id: home.id.clone(),
                from: vec![party],
                snapshot: index,
                connect: BTreeSet::new(),
                names: BTreeSet::new(),
            };
            for other in all.iter().enumerate().filter(|(other, _)| *other != index) {
                ask(&mut questions, all, home, other.1);
            }
            by_home.insert((index, &home.id), questions);
        }
    }
    by_home.into_values().collect()
}

fn ask(questions: &mut Questions, all: &[Snapshot], home: &Container, other: &Snapshot) {
    for target in other.containers.iter().filter(|target| target.state == State::Running) {
        for (address, port) in sockets(all, target) {
            questions.connect.insert(SocketAddr::new(address, port));
        }
    }
    questions.names.extend(other.names());
    for (claim, _) in claims(other).iter().filter(|(claim, _)| !is_public(claim)) {
        questions.connect.extend(through_machine(home, claim.address, claim.port, claim.protocol));
    }
}

/// Where a container can be called: at each of its addresses, on each port.
fn sockets(all: &[Snapshot], target: &Container) -> Vec<(IpAddr, u16)> {
    let home = home(all, target);
    let addresses =
        home.into_iter().flat_map(|home| &home.attachments).flat_map(|at| &at.addresses);
    addresses.flat_map(|address| target.ports().iter().map(|port| (*address, *port))).collect()
}

/// A port that is published on an address of the machine alone, seen from a container: at its
/// gateways, and at that address where it is not the container's own loopback.
fn through_machine(
    home: &Container,
    address: Option<IpAddr>,
    port: u16,
    protocol: Transport,
) -> Vec<SocketAddr> {
    if protocol != Transport::Tcp {
        return Vec::new();
    }
    let gateways = home.attachments.iter().flat_map(|at| at.gateways.iter().copied());
    let direct = address.filter(|address| !address.is_loopback());
    let ways: BTreeSet<IpAddr> = gateways.chain(direct).collect();
    ways.into_iter().map(|address| SocketAddr::new(address, port)).collect()
}

/// What cannot be tried, and why.
#[must_use]
pub fn untested(all: &[Snapshot]) -> Vec<Untested> {
    let mut found = Vec::new();
    for snapshot in all {
        for container in snapshot.services() {
            let why = match (container.state, &container.network_mode, &container.listening) {
                (State::Stopped, ..) => "it does not run: no connection was tried from or to it",
                (State::Frozen, ..) => "it is frozen: no connection was tried from or to it",
                (State::Running, NetworkMode::Host, _) => {
                    "it is in the machine's network, where all can be reached: nothing was tried from it"
                }
                (State::Running, NetworkMode::Nothing, _) => "it has no network: nothing to try",
                (State::Running, _, Listening::Declared(ports)) if ports.is_empty() => {
                    "on which ports it listens cannot be read here, and it declares none: no \
                     connection to it was tried (run as root on the engine's machine)"
                }
                (State::Running, _, Listening::Declared(_)) => {
                    "on which ports it listens cannot be read here: only those that it declares were \
                     tried (run as root on the engine's machine)"
                }
                (State::Running, _, Listening::On(ports)) if ports.is_empty() => {
                    "it listens on no TCP port: there is nothing to connect to"
                }
                (State::Running, _, Listening::On(_)) => continue,
            };
            found.push(Untested { party: Some(snapshot.party(container)), why: why.to_owned() });
        }
    }
    found
}

/// Who is behind an address and a port.
struct Behind<'a> {
    snapshot: usize,
    container: &'a Container,
}

/// What the answers mean. Each goes with the questions at its place; those that could not be asked
/// have the reason.
pub fn judge(
    all: &[Snapshot],
    asked: &[(Questions, Result<Answers, String>)],
    report: &mut Report,
) -> Vec<Untested> {
    let mut untested = Vec::new();
    let (mut connections, mut names, mut namespaces, mut open) = (0, 0, 0, 0);
    let behind = behind(all);
    let mut findings = Vec::new();
    for (questions, answers) in asked {
        let answers = match answers {
            Ok(answers) => answers,
            Err(why) => {
                untested.extend(questions.from.iter().map(|party| Untested {
                    party: Some(party.clone()),
                    why: format!("no connection could be tried from it: {why}"),
                }));
                continue;
            }
        };
        namespaces += 1;
        connections += questions.connect.len();
        names += questions.names.len();
        open += answers.open.len();
        findings.extend(reached(all, questions, answers, &behind));
        findings.extend(through(all, questions, answers, &behind));
    }
    let from = count(namespaces, "network namespace", "network namespaces");
    let were = match open {
        0 => "none was possible".to_owned(),
        1 => "1 was possible".to_owned(),
        open => format!("{open} were possible"),
    };
    let text =
        format!("tried {} from {from}: {were}", count(connections, "connection", "connections"));
    report.add(Tried { what: "connections", count: connections, text }, findings);
    let text = format!("looked up {} there", count(names, "name", "names"));
    report.add(Tried { what: "names", count: names, text }, []);
    report.settle();
    untested
}

fn behind(all: &[Snapshot]) -> BTreeMap<IpAddr, Vec<Behind<'_>>> {
    let mut found: BTreeMap<IpAddr, Vec<Behind<'_>>> = BTreeMap::new();
    for (snapshot, seen) in all.iter().enumerate() {
        for container in seen.containers.iter().filter(|c| c.state == State::Running) {
            let home = home(all, container).into_iter().flat_map(|home| &home.attachments);
            for address in home.flat_map(|at| &at.addresses) {
                found.entry(*address).or_default().push(Behind { snapshot, container });
            }
        }
    }
    found
}

/// Connections to the other's containers, and names of them that are known here.
fn reached(
    all: &[Snapshot],
    questions: &Questions,
    answers: &Answers,
    behind: &BTreeMap<IpAddr, Vec<Behind<'_>>>,
) -> Vec<Finding> {
    let others = |address: &IpAddr| {
        let there = behind.get(address).into_iter().flatten();
        there.filter(|there| there.snapshot != questions.snapshot)
    };
    let mut open: BTreeMap<Party, (BTreeSet<SocketAddr>, BTreeSet<&str>)> = BTreeMap::new();
    for socket in &answers.open {
        for there in others(&socket.ip()).filter(|t| t.container.ports().contains(&socket.port())) {
            let party = all[there.snapshot].party(there.container);
            open.entry(party).or_default().0.insert(*socket);
        }
    }
    for (name, addresses) in &answers.names {
        for there in addresses.iter().flat_map(others) {
            let party = all[there.snapshot].party(there.container);
            open.entry(party).or_default().1.insert(name);
        }
    }
    let from = list(&questions.from);
    let finding = |(party, (sockets, names)): (Party, (BTreeSet<SocketAddr>, BTreeSet<&str>))| {
        let names = list(names);
        let what = match (sockets.is_empty(), names.is_empty()) {
            (false, true) => format!("{from} reaches {party} at {}", list(sockets.iter())),
            (false, false) => {
                format!(
                    "{from} reaches {party} at {}, and knows it as {names}",
                    list(sockets.iter())
                )
            }
            (true, _) => format!("{from} knows {party} as {names}"),
        };
        let mut between = questions.from.clone();
        between.push(party);
        Finding {
            code: if sockets.is_empty() { Code::NameResolves } else { Code::Reachable },
            what,
            between,
            fix: "take one of them off the network that both are on, or off the host's network; \
                  where there is none, look at the machine's firewall and at routes between the \
                  engine's bridges"
                .to_owned(),
        }
    };
    open.into_iter().map(finding).collect()
}

/// Connections by way of the machine to ports that it publishes for itself alone.
fn through(
    all: &[Snapshot],
    questions: &Questions,
    answers: &Answers,
    behind: &BTreeMap<IpAddr, Vec<Behind<'_>>>,
) -> Vec<Finding> {
    let home = all.iter().flat_map(|s| s.containers.iter());
    let Some(home) = home.into_iter().find(|c| c.id == questions.container_id) else {
        return vec![];
    };
    let mut found = Vec::new();
    for (_, other) in all.iter().enumerate().filter(|(index, _)| *index != questions.snapshot) {
        for (claim, party) in claims(other).into_iter().filter(|(claim, _)| !is_public(claim)) {
            let ways = through_machine(home, claim.address, claim.port, claim.protocol);
            let ways: Vec<SocketAddr> = ways
                .into_iter()
                .filter(|way| answers.open.contains(way) && !behind.contains_key(&way.ip()))
                .collect();
            if ways.is_empty() {
                continue;
            }
            let from = list(&questions.from);
            let mut between = questions.from.clone();
            between.push(party.clone());
            found.push(Finding {
                code: Code::LocalPort,
                what: format!(
                    "{from} reaches {party} at {}: it is published on {claim} of the machine, which is \
                     meant for the machine alone",
                    list(&ways)
                ),
                between,
                fix: "leave it out of `ports`, or publish it on 127.0.0.1".to_owned(),
            });
        }
    }
    found
}

/// Whether an environment has anything that can be looked at.
#[must_use]
pub fn has_containers(snapshot: &Snapshot) -> bool {
    snapshot.containers.iter().any(|container| container.role == Role::Service)
}
