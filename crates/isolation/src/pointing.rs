//! Variables and commands that name the other environment's services.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::check::Report;
use crate::container::{Container, Transport};
use crate::finding::{Code, Finding, Party, Tried, count};
use crate::ports::claims;
use crate::seen::{Snapshot, both_ways, pairs};
use crate::url::{Target, hosts, targets};

/// Words at the end of a variable's name that make a bare name in it a host.
const HOST_WORDS: &[&str] = &[
    "HOST",
    "HOSTS",
    "HOSTNAME",
    "HOSTNAMES",
    "ADDR",
    "ADDRS",
    "ADDRESS",
    "ADDRESSES",
    "SERVER",
    "SERVERS",
    "BROKER",
    "BROKERS",
    "ENDPOINT",
    "ENDPOINTS",
    "URL",
    "URLS",
    "URI",
    "DSN",
    "NODES",
    "PEERS",
    "UPSTREAM",
    "UPSTREAMS",
];
/// Names of the machine inside of containers.
const MACHINE: &[&str] =
    &["host.docker.internal", "gateway.docker.internal", "host.containers.internal"];
/// What `extra_hosts` calls the machine.
const HOST_GATEWAY: &str = "host-gateway";
/// Schemes of services that keep something, with one word for those that mean the same.
const BROKERS: &[(&str, &str)] = &[
    ("postgres", "postgres"),
    ("postgresql", "postgres"),
    ("mysql", "mysql"),
    ("mariadb", "mysql"),
    ("redis", "redis"),
    ("rediss", "redis"),
    ("valkey", "redis"),
    ("amqp", "amqp"),
    ("amqps", "amqp"),
    ("mqtt", "mqtt"),
    ("mqtts", "mqtt"),
    ("ws+mqtt", "mqtt"),
    ("mongodb", "mongodb"),
    ("nats", "nats"),
    ("kafka", "kafka"),
    ("clickhouse", "clickhouse"),
    ("sqlserver", "sqlserver"),
    ("memcached", "memcached"),
    ("stomp", "stomp"),
];

/// Something that a container was told, and where it stands.
struct Told<'a> {
    container: &'a Container,
    /// `variable REDIS_URL`, `the command`.
    place: String,
    targets: Vec<Target>,
    /// Hosts of the targets, and what else is a host by the variable's name.
    hosts: Vec<(String, Option<u16>)>,
    /// Words of any other text.
    words: BTreeSet<String>,
}

pub(crate) fn check(all: &[Snapshot], report: &mut Report) {
    let told: Vec<Vec<Told<'_>>> = all.iter().map(told).collect();
    let total: usize = told.iter().map(Vec::len).sum();
    let text = format!(
        "read {} for names and addresses of the others",
        count(total, "variable and command", "variables and commands")
    );
    let sides: Vec<(&Snapshot, &Vec<Told<'_>>)> = all.iter().zip(&told).collect();
    let mut findings = Vec::new();
    for ((one, told), (two, _)) in both_ways(&sides) {
        findings.extend(pointing(one, told, two));
        findings.extend(mapped(one, two));
    }
    for ((one, ours), (two, theirs)) in pairs(&sides) {
        findings.extend(shared(&brokers(one, ours), &brokers(two, theirs)));
    }
    report.add(Tried { what: "settings", count: total, text }, findings);
}

fn told(snapshot: &Snapshot) -> Vec<Told<'_>> {
    let of = |container| {
        let container: &Container = container;
        let variables = container.variables.iter().map(|variable| {
            (format!("variable {}", variable.name), Some(&variable.name), variable.value.expose())
        });
        let words =
            container.words.iter().map(|word| ("the command".to_owned(), None, word.expose()));
        variables.chain(words).map(|(place, name, value)| {
            let targets = targets(value);
            let mut hosts: Vec<_> = targets.iter().flat_map(|t| t.hosts.clone()).collect();
            if targets.is_empty() && name.is_some_and(|name| is_host_name(name)) {
                hosts = self::hosts(value.split('/').next().unwrap_or(value));
            }
            let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            let words = value.split(|c| !is_word(c)).filter(|word| !word.is_empty());
            let words = words.map(str::to_ascii_lowercase).collect();
            Told { container, place, targets, hosts, words }
        })
    };
    snapshot.services().flat_map(of).collect()
}

fn is_host_name(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    let mut words = upper.split(|c: char| !c.is_ascii_alphanumeric());
    words.next_back().is_some_and(|last| HOST_WORDS.contains(&last))
}

fn pointing(one: &Snapshot, told: &[Told<'_>], two: &Snapshot) -> Vec<Finding> {
    let (own, theirs) = (one.names(), two.names());
    let (own_addresses, addresses) = (one.addresses(), two.addresses());
    let networks: BTreeSet<String> =
        two.containers.iter().flat_map(|c| &c.attachments).map(|at| at.network.clone()).collect();
    // A word such as `worker` may mean anything; a container's name means that container.
    let telling: BTreeSet<String> = two
        .services()
        .map(|container| container.name.to_ascii_lowercase())
        .filter(|name| name.contains(['-', '_', '.']) && !own.contains(name))
        .collect();
    let is_theirs = |host: &str| match host.parse::<IpAddr>() {
        Ok(address) => addresses.contains(&address) && !own_addresses.contains(&address),
        Err(_) => {
            let with_network = host
                .split_once('.')
                .is_some_and(|(name, network)| theirs.contains(name) && networks.contains(network));
            !own.contains(host) && (theirs.contains(host) || with_network)
        }
    };
    let mut found = Vec::new();
    for told in told {
        let mut hits: BTreeSet<String> = BTreeSet::new();
        hits.extend(told.hosts.iter().map(|(host, _)| host.clone()).filter(|host| is_theirs(host)));
        let is_address = |word: &&String| word.parse::<IpAddr>().is_ok() && is_theirs(word);
        hits.extend(
            told.words.iter().filter(|word| telling.contains(*word) || is_address(word)).cloned(),
        );
        for host in hits {
            found.push(finding(one, told, &host, two, owners(two, &host)));
        }
        for (host, port) in &told.hosts {
            if let Some(port) = port.filter(|_| is_machine(told.container, host)) {
                let owner = claims(two)
                    .into_iter()
                    .find(|(claim, _)| claim.port == port && claim.protocol == Transport::Tcp);
                if let Some((_, owner)) = owner {
                    let host = format!("{host}:{port}");
                    found.push(finding(one, told, &host, two, vec![owner]));
                }
            }
        }
    }
    found
}

/// Whose a name or an address is.
fn owners(snapshot: &Snapshot, host: &str) -> Vec<Party> {
    let name = host.split('.').next().unwrap_or(host);
    let address: Option<IpAddr> = host.parse().ok();
    let is_it = |container: &&Container| {
        let own =
            |text: &String| text.eq_ignore_ascii_case(host) || text.eq_ignore_ascii_case(name);
        own(&container.name)
            || own(&container.service)
            || container.attachments.iter().any(|at| {
                at.aliases.iter().any(own) || address.is_some_and(|a| at.addresses.contains(&a))
            })
    };
    let mut parties: Vec<Party> =
        snapshot.services().filter(is_it).map(|container| snapshot.party(container)).collect();
    if parties.is_empty() {
        let holders = snapshot.containers.iter().filter(is_it);
        parties.extend(holders.map(|container| snapshot.party(container)));
    }
    parties
}

fn finding(one: &Snapshot, told: &Told<'_>, host: &str, two: &Snapshot, of: Vec<Party>) -> Finding {
    let party = one.party(told.container);
    let environment = &two.instance.environment;
    let mut between = vec![party.clone()];
    between.extend(of);
    Finding {
        code: Code::PointsAtOther,
        what: format!("{} of {party} names {host}, which is {environment}'s", told.place),
        between,
        fix: "name a service of the environment's own, by the service's name".to_owned(),
    }
}

/// Whether a host is the machine, seen from a container.
fn is_machine(container: &Container, host: &str) -> bool {
    let is_gateway =
        |address| container.attachments.iter().any(|at| at.gateways.contains(&address));
    let is_mapped = container.extra_hosts.iter().any(|(name, to)| {
        name.eq_ignore_ascii_case(host) && (to == HOST_GATEWAY || to.parse().is_ok_and(is_gateway))
    });
    MACHINE.contains(&host) || is_mapped || host.parse().is_ok_and(is_gateway)
}

/// `extra_hosts` with an address of the other's.
fn mapped(one: &Snapshot, two: &Snapshot) -> Vec<Finding> {
    let (own, addresses) = (one.addresses(), two.addresses());
    let mut found = Vec::new();
    for container in one.services() {
        for (name, address) in &container.extra_hosts {
            let Ok(ip) = address.parse::<IpAddr>() else { continue };
            if addresses.contains(&ip) && !own.contains(&ip) {
                let party = one.party(container);
                let mut between = vec![party.clone()];
                between.extend(owners(two, address));
                found.push(Finding {
                    code: Code::PointsAtOther,
                    what: format!(
                        "`extra_hosts` of {party} calls {address} {name}, which is {}'s",
                        two.instance.environment
                    ),
                    between,
                    fix: format!("take {name} out of `extra_hosts`"),
                });
            }
        }
    }
    found
}

/// What an environment's own services do not answer, by kind, host, port and path.
type Brokers = BTreeMap<(String, String, Option<u16>, String), BTreeSet<(String, Party)>>;

fn brokers(snapshot: &Snapshot, told: &[Told<'_>]) -> Brokers {
    let own = snapshot.names();
    let mut found = Brokers::new();
    for told in told {
        for target in &told.targets {
            let scheme = target.scheme.split('+').next().unwrap_or_default();
            let Some((_, kind)) = BROKERS.iter().find(|(known, _)| *known == scheme) else {
                continue;
            };
            for (host, port) in target.hosts.iter().filter(|(host, _)| !own.contains(host)) {
                let is_own_loopback =
                    host == "localhost" || host.starts_with("127.") || host == "::1";
                // Two environments in one cluster's two databases are separate.
                let path = match (*kind, target.path.as_str()) {
                    ("redis", "") => "0".to_owned(),
                    (_, path) => path.to_owned(),
                };
                if !is_own_loopback && !host.is_empty() {
                    let key = ((*kind).to_owned(), host.clone(), *port, path);
                    let party = snapshot.service(&told.container.service);
                    found.entry(key).or_default().insert((told.place.clone(), party));
                }
            }
        }
    }
    found
}

fn shared(ours: &Brokers, theirs: &Brokers) -> Vec<Finding> {
    let mut found = Vec::new();
    for (key, one) in ours {
        let Some(two) = theirs.get(key) else { continue };
        let (kind, host, port, path) = key;
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        let path = if path.is_empty() { String::new() } else { format!("/{path}") };
        let words = |all: &BTreeSet<(String, Party)>| {
            crate::finding::list(all.iter().map(|(place, party)| format!("{place} of {party}")))
        };
        found.push(Finding {
            code: Code::SharedBroker,
            what: format!(
                "the same {kind} at {host}{port}{path}: {}; and {}",
                words(one),
                words(two)
            ),
            between: one.iter().chain(two).map(|(_, party)| party.clone()).collect(),
            fix: "give each environment a server or a database of its own".to_owned(),
        });
    }
    found
}
