//! What is there, in a few words.
//!
//! ```text
//! services: …                 the Compose file, see `shiplap_testkit::desired` for `x-images`
//! ---
//! shop-api-1 image=api:v1 d=1 routed       a container; its service is told by its name
//! edge                                     an edge runs (implied by `routed`)
//! listener 49152 api:8000                  a listener of the edge that is there besides
//! holder shop.names-1 api                  a name holder that answers for services
//! foreign-port 8000 blog-web-1             a port that another project's container publishes
//! foreign-listener 8000 blog/default       a port that another environment has at the edge
//! foreign-name shop-api-1                  a name that another project's container has
//! routes                                   the edge has the routes of the file
//! routes {"routes": …}                     it has these
//! foreign-route blog/prod shop.example     a route to that host belongs to another environment
//! absent network shop_default              what the file names and the engine does not have
//! ```
//!
//! Words of a container: `service=`, `number=`, `image=`, `d=` (the deployment that made it; Compose
//! did where it is absent), `running` (unless another), `created`, `paused`, `exited=0`,
//! `restarting`, `dead`, `changed=a,b` (fields that were otherwise), `publishes=80:8000`, `routed`,
//! `anonymous=/data:volume`, `held-names`. `hold api` holds a service's pools.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use shiplap_model::{
    ContainerState, Desired, Fields, HolderSpec, HolderStatus, Names, NetworkAddress, Observed,
    ObservedContainer, ObservedListener, ObservedNetwork, ObservedVolume, PoolKey, PoolStatus,
    Protocol, PublishedPort, RoutedReplica, RouterState,
};
use shiplap_plan::{Policy, plan, render, render_steps};
use shiplap_testkit::{PROJECT, desired, image_id, image_info};

/// Deployment 7 of what the text describes.
pub fn check(input: &str, expected: expect_test::Expect) {
    check_with(input, |_| {}, expected);
}

/// The same with another policy.
pub fn check_with(input: &str, change: impl FnOnce(&mut Policy), expected: expect_test::Expect) {
    expected.assert_eq(&planned(input, change));
}

/// The plan or the refusals as text.
pub fn planned(input: &str, change: impl FnOnce(&mut Policy)) -> String {
    let (yaml, machine) = input.split_once("---\n").unwrap_or((input, ""));
    let desired = desired(yaml);
    let observed = observed(&desired, machine);
    let mut policy = Policy::deploy(7);
    change(&mut policy);
    match plan(&desired, &observed, &policy) {
        Ok(plan) => format!("{}{}", render(&plan), render_steps(&plan)),
        Err(refusals) => refusals
            .iter()
            .map(|r| {
                let help = r.help.as_deref().unwrap_or("-");
                format!("{} at {}: {} (help: {help})\n", r.code, r.path.join("."), r.message)
            })
            .collect(),
    }
}

/// The machine that lines describe.
pub fn observed(desired: &Desired, machine: &str) -> Observed {
    let mut observed = Observed::default();
    let lines = || machine.lines().map(str::trim).filter(|line| !line.is_empty());
    if lines().any(|line| line.starts_with("shop-")) {
        everything_exists(desired, &mut observed);
    }
    let mut router = RouterState::default();
    let mut edge = false;
    for (index, line) in lines().enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["edge"] => edge = true,
            ["listener", port, pool] => {
                edge = true;
                router.listeners.push(listener(port.parse().unwrap(), key(pool)));
                router.pools.entry(key(pool)).or_insert_with(empty);
            }
            ["hold", service] => {
                for (key, pool) in &mut router.pools {
                    if key.service == *service {
                        pool.held = true;
                        pool.replicas.clear();
                    }
                }
            }
            ["holder", name, services @ ..] => {
                edge = true;
                router.holders.push(holder(desired, name, services));
            }
            ["foreign-port", port, name] => {
                let port = (None, port.parse().unwrap(), "tcp");
                observed.foreign_ports.insert(port, (*name).to_owned());
            }
            ["foreign-listener", port, owner] => {
                edge = true;
                let foreign = (IpAddr::from([0; 4]), port.parse().unwrap(), (*owner).to_owned());
                router.foreign_listeners.push(foreign);
            }
            ["foreign-name", name] => {
                observed.foreign_names.insert((*name).to_owned());
            }
            ["network", name] => {
                let project = Some(desired.project.clone());
                let made = ObservedNetwork { project, ..Default::default() };
                observed.networks.insert((*name).to_owned(), made);
            }
            ["routes", json @ ..] => {
                edge = true;
                router.table = match json {
                    [] => desired.routes.clone(),
                    json => serde_json::from_str(&json.join(" ")).unwrap(),
                };
                let named = router.table.routes.iter().flat_map(|route| route.entries.clone());
                router.entries.extend(named);
            }
            ["foreign-route", owner, host] => {
                edge = true;
                let mut route = desired.routes.routes[0].clone();
                route.host = Some((*host).to_owned());
                router.foreign_routes.push((route, (*owner).to_owned()));
            }
            ["absent", "network", name] => {
                observed.networks.remove(*name);
            }
            ["absent", "volume", name] => {
                observed.volumes.remove(*name);
            }
            [name, words @ ..] => {
                let container = container(desired, index, name, words);
                let image = image_info(&container.image_reference);
                observed.images.insert(image.id.clone(), image);
                if words.contains(&"routed") {
                    edge = true;
                    route(desired, &container, &mut router);
                }
                observed.containers.push(container);
            }
            [] => {}
        }
    }
    observed.containers.sort_by(|a, b| a.name.cmp(&b.name));
    observed.router = edge.then_some(router);
    observed
}

fn everything_exists(desired: &Desired, observed: &mut Observed) {
    let project = Some(PROJECT.to_owned());
    for network in desired.compose.networks.values() {
        let project = project.clone().filter(|_| !network.external);
        let made = ObservedNetwork { project, ..ObservedNetwork::default() };
        observed.networks.insert(network.name.clone().unwrap(), made);
    }
    for volume in desired.compose.volumes.values() {
        let project = project.clone().filter(|_| !volume.external);
        let made = ObservedVolume { project, ..ObservedVolume::default() };
        observed.volumes.insert(volume.name.clone().unwrap(), made);
    }
}

fn container(desired: &Desired, index: usize, name: &str, words: &[&str]) -> ObservedContainer {
    let value = |key: &str| words.iter().find_map(|w| w.strip_prefix(key)?.strip_prefix('='));
    let base = shiplap_model::ReplicaName::parse(name).0;
    let from_name = base.strip_prefix("shop-").and_then(|rest| rest.rsplit_once('-'));
    let service = value("service").or(from_name.map(|(service, _)| service)).unwrap();
    let number = value("number").or(from_name.map(|(_, number)| number)).unwrap_or("1");
    let deployment: Option<u64> = value("d").map(|d| d.parse().unwrap());
    let spec = desired.services.get(service);
    let image = value("image").map(str::to_owned);
    let image = image.or(spec.map(|s| s.image.reference.clone())).unwrap_or("old:v1".to_owned());
    let with_changes = |fields: &Fields| {
        let mut fields = fields.clone();
        for name in value("changed").into_iter().flat_map(|names| names.split(',')) {
            fields.set(name, "what it was before, a secret");
        }
        fields
    };
    let fields = spec.map(|spec| with_changes(&spec.fields)).unwrap_or_default();
    let mut facts = spec.map(|spec| with_changes(&spec.facts)).unwrap_or_default();
    let state = words.iter().find_map(|word| {
        Some(match *word {
            "created" => ContainerState::Created,
            "paused" => ContainerState::Paused,
            "restarting" => ContainerState::Restarting,
            "dead" => ContainerState::Dead,
            word => ContainerState::Exited(word.strip_prefix("exited=")?.parse().unwrap()),
        })
    });
    let state = state.unwrap_or(ContainerState::Running);
    if !matches!(state, ContainerState::Running) && base != name {
        facts.unset("restart");
    }
    let low = u8::try_from(index + 2).unwrap();
    let address = NetworkAddress { address: IpAddr::from([172, 18, 0, low]), prefix_bits: 16 };
    let anonymous: BTreeMap<String, String> = value("anonymous")
        .and_then(|text| text.split_once(':'))
        .map(|(target, volume)| (target.to_owned(), volume.to_owned()))
        .into_iter()
        .collect();
    let published =
        value("publishes").and_then(|text| text.split_once(':')).map(|(host, inside)| {
            PublishedPort {
                host_address: None,
                host_port: host.parse().unwrap(),
                container_port: inside.parse().unwrap(),
                protocol: "tcp".to_owned(),
            }
        });
    ObservedContainer {
        id: format!("id-of-{name}"),
        name: name.to_owned(),
        service: service.to_owned(),
        number: number.parse().unwrap(),
        names: if words.contains(&"held-names") { Names::Held } else { Names::Own },
        deployment,
        state,
        health: None,
        restarts: 0,
        image_id: image_id(&image),
        image_reference: image,
        fields: deployment.map(|d| fields.digests(&format!("{d}:{base}"))),
        facts,
        networks: BTreeMap::from([("shop_default".to_owned(), Some(address))]),
        volumes: anonymous.values().cloned().collect::<BTreeSet<_>>(),
        anonymous_volumes: anonymous,
        published: published.into_iter().collect(),
        created_ms: 0,
        started_ms: (state != ContainerState::Created)
            .then(|| i64::try_from(deployment.unwrap_or(0)).unwrap()),
        pid: None,
    }
}

fn key(text: &str) -> PoolKey {
    PoolKey::parse(&format!("shop/default/{text}")).unwrap()
}

fn listener(port: u16, pool: PoolKey) -> ObservedListener {
    ObservedListener { address: IpAddr::from([0; 4]), port, pool }
}

fn empty() -> PoolStatus {
    PoolStatus { protocol: Protocol::Http, held: false, replicas: Vec::new(), waiting: 0 }
}

fn route(desired: &Desired, container: &ObservedContainer, router: &mut RouterState) {
    let Some(spec) = desired.services.get(&container.service) else { return };
    let ports = spec.service.ports.iter().filter(|port| port.protocol.as_deref() != Some("udp"));
    let published = ports.map(|port| (port.target, port.published_range()));
    for (port, range) in published.chain(spec.routed.iter().map(|port| (*port, None))) {
        let key = key(&format!("{}:{port}", container.service));
        if let Some((first, _)) = range
            && !router.listeners.iter().any(|l| l.pool == key)
        {
            router.listeners.push(listener(first, key.clone()));
        }
        let address = container.networks["shop_default"].unwrap();
        let replica = RoutedReplica {
            container_id: container.id.clone(),
            address: address.address,
            subnet: Some(address.subnet()),
        };
        router.pools.entry(key).or_insert_with(empty).replicas.push((replica, 0, 0));
    }
}

fn holder(desired: &Desired, name: &str, services: &[&str]) -> HolderStatus {
    let mut networks: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut pools = Vec::new();
    for service in services {
        networks.entry("shop_default".to_owned()).or_default().push((*service).to_owned());
        let Some(spec) = desired.services.get(*service) else { continue };
        let published = spec.service.ports.iter().map(|port| port.target);
        for port in published.chain(spec.routed.iter().copied()) {
            pools.push(key(&format!("{service}:{port}")));
        }
    }
    let spec = HolderSpec {
        name: name.to_owned(),
        owner: "shop/default".to_owned(),
        services: services.iter().map(|s| (*s).to_owned()).collect(),
        networks,
    };
    HolderStatus { spec, running: true, pools }
}
