//! What containers share, told from the engine's descriptions of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use expect_test::{Expect, expect};
use serde_json::{Value, json};
use shiplap_isolation::reach::{Answers, judge, questions, untested};
use shiplap_isolation::{
    Container, HostPort, Instance, Listening, Report, Snapshot, Transport, check, files_to_read,
};

/// A container of a project: what differs from an ordinary one is merged into its description.
fn container(project: &str, service: &str, address: u8, differs: &Value) -> Container {
    let network = format!("{project}_default");
    let subnet = if project == "prod" { 20 } else { 21 };
    let mut inspect = json!({
        "Id": format!("{project}{service}{}", "0".repeat(64)),
        "Name": format!("/{project}-{service}-1"),
        "State": {"Running": true, "Paused": false, "Pid": 1},
        "Config": {
            "Hostname": "web",
            "Env": ["PATH=/bin", "GPG_KEY=of-the-image"],
            "Labels": {"com.docker.compose.project": project, "com.docker.compose.service": service},
            "ExposedPorts": {"5432/tcp": {}},
        },
        "HostConfig": {"NetworkMode": network},
        "NetworkSettings": {"Networks": {&network: {
            "NetworkID": network, "IPAddress": format!("172.{subnet}.0.{address}"),
            "Gateway": format!("172.{subnet}.0.1"), "Aliases": [service],
        }}},
    });
    merge(&mut inspect, differs);
    Container::read(&inspect, &json!({"Env": ["GPG_KEY=of-the-image"]}))
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (Value::Array(into), Value::Array(from)) => into.extend(from.iter().cloned()),
        (into, from) => *into = from.clone(),
    }
}

fn snapshot(project: &str, containers: Vec<Container>) -> Snapshot {
    let instance = Instance { environment: project.to_owned(), project: project.to_owned() };
    Snapshot { instance, containers, edge_ports: Vec::new() }
}

/// A `db` in each, which differ from ordinary ones as given.
fn two(prod: &Value, dev: &Value) -> [Snapshot; 2] {
    [
        snapshot("prod", vec![container("prod", "db", 2, prod)]),
        snapshot("dev", vec![container("dev", "db", 2, dev)]),
    ]
}

fn shown(report: &Report) -> String {
    report.findings.iter().map(|found| format!("{}: {}\n", found.code, found.what)).collect()
}

fn found(prod: Value, dev: Value, expected: Expect) {
    expected.assert_eq(&shown(&check(&two(&prod, &dev), &[])));
}

fn env(pairs: &[&str]) -> Value {
    json!({"Config": {"Env": pairs}})
}

fn host(what: Value) -> Value {
    json!({"HostConfig": what})
}

fn bind(source: &str, writable: bool) -> Value {
    json!({"Mounts": [{"Type": "bind", "Source": source, "Destination": "/x", "RW": writable}]})
}

#[test]
fn what_is_separate_has_no_findings() {
    found(json!({}), json!({}), expect![""]);
    let named = env(&["DB_HOST=db", "DB_PASSWORD=one-value", "URL=postgres://u:one-value@db/x"]);
    found(named, env(&["DB_HOST=db", "DB_PASSWORD=another"]), expect![""]);
}

#[test]
fn shared_networks_are_found_with_what_to_type() {
    let guest =
        json!({"NetworkSettings": {"Networks": {"prod_default": {"NetworkID": "prod_default"}}}});
    let report = check(&two(&json!({}), &guest), &[]);
    expect![[r#"
        shared-network: prod/db and dev/db are on network prod_default
    "#]]
    .assert_eq(&shown(&report));
    assert!(report.findings[0].fix.contains("docker network disconnect prod_default dev-db-1"));
    // One name, and two networks.
    let twin = json!({"NetworkSettings": {"Networks": {"prod_default": {"NetworkID": "other"}}}});
    found(json!({}), twin, expect![""]);
}

#[test]
fn strangers_matter_only_where_they_touch() {
    let reaches = json!({"NetworkSettings": {"Networks": {
        "prod_default": {"NetworkID": "prod_default"}, "dev_default": {"NetworkID": "dev_default"},
    }}});
    let strangers = [
        ("proxy".to_owned(), container("proxy", "traefik", 9, &reaches)),
        ("blog".to_owned(), container("blog", "web", 9, &json!({}))),
    ];
    expect![[r#"
        neighbour: proxy-traefik-1, which is of none of these environments, is on dev_default and prod_default of dev and prod: it reaches them all
    "#]]
    .assert_eq(&shown(&check(&two(&json!({}), &json!({})), &strangers)));
}

#[test]
fn shared_storage_is_found_by_name_and_by_place() {
    let volume = |name: &str, writable: bool| {
        let source = format!("/var/lib/docker/volumes/{name}/_data");
        json!({"Mounts": [{"Type": "volume", "Name": name, "Source": source, "Destination": "/x", "RW": writable}]})
    };
    found(
        volume("data", true),
        volume("data", false),
        expect![[r#"
        shared-volume: prod/db and dev/db share volume data, and at least one of them can write there
    "#]],
    );
    found(
        volume("data", true),
        bind("/var/lib/docker", false),
        expect![[r#"
        shared-path: prod/db and dev/db share /var/lib/docker/volumes/data/_data and /var/lib/docker, and at least one of them can write there
    "#]],
    );
    found(
        bind("/srv/app/data", true),
        bind("/srv/app/../app", false),
        expect![[r#"
        shared-path: prod/db and dev/db share /srv/app/data and /srv/app, and at least one of them can write there
    "#]],
    );
    found(bind("/srv/app", true), bind("/srv/app-dev", true), expect![""]);
    found(
        bind("/etc/localtime", false),
        bind("/etc/localtime", false),
        expect![[r#"
        shared-read-only: prod/db and dev/db both read /etc/localtime, and neither can write there
    "#]],
    );
    let disk = host(json!({"Devices": [{"PathOnHost": "/dev/sdb", "CgroupPermissions": "rwm"}]}));
    found(
        disk.clone(),
        disk,
        expect![[r#"
        shared-device: prod/db and dev/db share the device /dev/sdb, and can write to it
    "#]],
    );
}

#[test]
fn what_stands_above_all_is_found() {
    found(
        json!({}),
        bind("/var/run/docker.sock", false),
        expect![[r#"
        control-socket: dev/db has /var/run/docker.sock: with the engine's socket it reaches every environment
    "#]],
    );
    let all = json!({"NetworkMode": "host", "PidMode": "host", "Privileged": true, "CapAdd": ["CAP_SYS_ADMIN"]});
    found(
        json!({}),
        host(all),
        expect![[r#"
        host-network: dev/db is in the machine's network: it reaches every container, and ports on 127.0.0.1
        privileged: dev/db has the right SYS_ADMIN, by which it gets out of its container
        privileged: dev/db is privileged: it can mount the machine's disks, and so reach everything
        host-processes: dev/db sees all processes of the machine, and as root their variables too
    "#]],
    );
}

#[test]
fn equal_secrets_are_found_by_value_and_told_by_name() {
    let report = check(
        &two(
            &env(&["POSTGRES_PASSWORD=correct-horse", "PORT=5432"]),
            &env(&["DATABASE_URL=postgres://shop:correct-horse@db/shop", "API_KEY=correct-horse"]),
        ),
        &[],
    );
    expect![[r#"
        shared-secret: the same value: variable POSTGRES_PASSWORD of prod/db; and variable API_KEY of dev/db and variable DATABASE_URL of dev/db
    "#]]
    .assert_eq(&shown(&report));
    assert!(!format!("{report:?}").contains("correct-horse"));
    // The image's own value says nothing about the environments.
    found(env(&["GPG_KEY=of-the-image"]), env(&["GPG_KEY=of-the-image"]), expect![""]);
    found(env(&["API_KEY=true"]), env(&["API_KEY=true"]), expect![""]);
}

#[test]
fn snapshots_do_not_show_values() {
    let [prod, _] = two(&env(&["API_KEY=correct-horse"]), &json!({}));
    assert!(!format!("{prod:?}").contains("correct-horse"));
}

#[test]
fn settings_that_point_at_the_other_are_found() {
    let points = |variable: &str| check(&two(&json!({}), &env(&[variable])), &[]).findings.len();
    for variable in [
        "REDIS_URL=redis://prod-db-1:6379",
        "DB_HOST=172.20.0.2",
        "KAFKA_BROKERS=x:1,prod-db-1:9092",
        "OPTIONS=--upstream prod-db-1 --quiet",
        "DATABASE_URL=postgres://u@db.prod_default/x",
        "BACKUP=172.20.0.2",
    ] {
        assert_eq!(points(variable), 1, "{variable}");
    }
    for variable in ["REDIS_URL=redis://db:6379", "DB_HOST=172.21.0.2", "NOTE=the db of prod"] {
        assert_eq!(points(variable), 0, "{variable}");
    }
    let published =
        host(json!({"PortBindings": {"5432/tcp": [{"HostIp": "127.0.0.1", "HostPort": "5433"}]}}));
    found(
        published,
        env(&["DATABASE_URL=postgres://u@host.docker.internal:5433/x"]),
        expect![[r#"
        points-at-other: variable DATABASE_URL of dev/db names host.docker.internal:5433, which is prod's
    "#]],
    );
    found(
        json!({}),
        host(json!({"ExtraHosts": ["database:172.20.0.2"]})),
        expect![[r#"
        points-at-other: `extra_hosts` of dev/db calls 172.20.0.2 database, which is prod's
    "#]],
    );
    let same = env(&["DATABASE_URL=postgresql://a@db.example.com/shop"]);
    found(
        same,
        env(&["PG=postgres://b@db.example.com/shop"]),
        expect![[r#"
        shared-broker: the same postgres at db.example.com/shop: variable DATABASE_URL of prod/db; and variable PG of dev/db
    "#]],
    );
    let other = env(&["PG=postgres://b@db.example.com/shop_dev"]);
    found(env(&["PG=postgres://b@db.example.com/shop"]), other, expect![""]);
}

#[test]
fn a_service_that_only_the_other_has_is_its_own() {
    let cache = container("prod", "cache", 3, &json!({}));
    let prod = snapshot("prod", vec![cache]);
    let told = env(&["CACHE_URL=redis://cache:6379", "ROLE=cache"]);
    let dev = snapshot("dev", vec![container("dev", "db", 2, &told)]);
    expect![[r#"
        points-at-other: variable CACHE_URL of dev/db names cache, which is prod's
    "#]]
    .assert_eq(&shown(&check(&[prod, dev], &[])));
}

#[test]
fn ports_collide_where_their_addresses_do() {
    let on = |address: &str| {
        host(json!({"PortBindings": {"80/tcp": [{"HostIp": address, "HostPort": "8080"}]}}))
    };
    let port = |prod: &str, dev: &str| {
        let report = check(&two(&on(prod), &on(dev)), &[]);
        report.findings.iter().filter(|found| found.code.as_str() == "host-port").count()
    };
    assert_eq!((port("", "127.0.0.1"), port("10.0.0.1", "10.0.0.1"), port("", "")), (1, 1, 1));
    assert_eq!(port("10.0.0.1", "10.0.0.2"), 0);
    let [mut prod, dev] = two(&json!({}), &on(""));
    let of_edge = HostPort { address: None, port: 8080, protocol: Transport::Tcp };
    prod.edge_ports.push((of_edge, "web".to_owned()));
    assert!(
        shown(&check(&[prod, dev], &[]))
            .starts_with("host-port: prod/web and dev/db want port 8080")
    );
}

#[test]
fn joined_namespaces_and_names_are_found() {
    let links = json!({"NetworkMode": "container:prod-db-1", "PidMode": "container:prod-db-1", "IpcMode": "host", "Links": ["/prod-db-1:/dev-db-1/prod"]});
    let alias = json!({"Config": {"Hostname": "prod-db-1"}, "HostConfig": links});
    found(
        host(json!({"IpcMode": "host"})),
        alias,
        expect![[r#"
        joined: dev/db is linked to prod/db
        joined: dev/db lives in the network namespace of prod/db
        joined: dev/db sees the processes of prod/db
        shared-namespace: prod/db and dev/db have the machine's shared memory
        name-of-other: dev/db answers to prod-db-1, the name of prod/db's container
    "#]],
    );
}

#[test]
fn every_address_and_name_of_the_other_is_tried_from_each_namespace() {
    let [mut prod, dev] = two(&json!({}), &json!({}));
    let local =
        host(json!({"PortBindings": {"5432/tcp": [{"HostIp": "127.0.0.1", "HostPort": "5433"}]}}));
    prod.containers.push(container("prod", "local", 3, &local));
    // In the namespace of the first: one more that asks, and not one more to ask from.
    prod.containers.push(container(
        "prod",
        "side",
        4,
        &host(json!({"NetworkMode": "container:prod-db-1"})),
    ));
    prod.containers[0].listening = Listening::On(BTreeSet::from([5432, 9187]));
    let all = [prod, dev];
    let asked = questions(&all);
    let text: Vec<String> = asked
        .iter()
        .map(|one| {
            let from: Vec<String> = one.from.iter().map(ToString::to_string).collect();
            let connect: Vec<String> = one.connect.iter().map(ToString::to_string).collect();
            format!(
                "{}\n  {}\n  {}\n",
                from.join(" "),
                connect.join(" "),
                one.names.iter().cloned().collect::<Vec<_>>().join(" ")
            )
        })
        .collect();
    expect![[r#"
        prod/db prod/side
          172.21.0.2:5432
          db dev-db-1
        prod/local
          172.21.0.2:5432
          db dev-db-1
        dev/db
          172.20.0.2:5432 172.20.0.2:9187 172.20.0.3:5432 172.21.0.1:5433
          db local prod-db-1 prod-local-1 prod-side-1 side
    "#]]
    .assert_eq(&text.concat());

    let open = |sockets: &[&str]| -> BTreeSet<SocketAddr> {
        sockets.iter().map(|socket| socket.parse().unwrap()).collect()
    };
    let name =
        |name: &str, address: &str| (name.to_owned(), BTreeSet::from([address.parse().unwrap()]));
    let mut asked: Vec<_> = asked.into_iter().map(|one| (one, Ok(Answers::default()))).collect();
    let mut report = Report::default();
    assert!(judge(&all, &asked, &mut report).is_empty());
    assert_eq!(shown(&report), "");
    assert_eq!(
        report.tried[0].text,
        "tried 6 connections from 3 network namespaces: none was possible"
    );

    // Its own `db` is no leak; the other's is.
    let names = BTreeMap::from([name("db", "172.21.0.2"), name("local", "172.20.0.3")]);
    asked[2].1 = Ok(Answers { open: open(&["172.20.0.2:9187", "172.21.0.1:5433"]), names });
    asked[1].1 = Err("it stopped meanwhile".to_owned());
    let mut report = Report::default();
    let missed = judge(&all, &asked, &mut report);
    assert_eq!(missed[0].why, "no connection could be tried from it: it stopped meanwhile");
    expect![[r#"
        reachable: dev/db reaches prod/db at 172.20.0.2:9187
        name-resolves: dev/db knows prod/local as local
        local-port: dev/db reaches prod/local at 172.21.0.1:5433: it is published on 127.0.0.1:5433 of the machine, which is meant for the machine alone
    "#]]
    .assert_eq(&shown(&report));
    assert_eq!(
        report.tried[0].text,
        "tried 5 connections from 2 network namespaces: 2 were possible"
    );
}

#[test]
fn what_cannot_be_tried_is_told() {
    let frozen = json!({"State": {"Paused": true}});
    let stopped = json!({"State": {"Running": false}});
    let all = two(&frozen, &stopped);
    assert!(questions(&all).is_empty());
    let told: Vec<String> = untested(&all).iter().map(|one| one.why.clone()).collect();
    assert!(told[0].contains("frozen") && told[1].contains("does not run"), "{told:?}");
    let declared = untested(&two(&json!({}), &host(json!({"NetworkMode": "none"}))));
    assert!(declared[0].why.contains("cannot be read") && declared[1].why.contains("no network"));
}

#[test]
fn files_that_may_hold_secrets_are_read() {
    let mounts: Vec<Value> = [
        ("/srv/app/secrets/db.txt", "/run/secrets/db"),
        ("/srv/app/.htpasswd", "/etc/nginx/auth"),
        ("/srv/app/nginx.conf", "/etc/nginx/nginx.conf"),
        ("/srv/app/tls/site.key", "/etc/nginx/site"),
    ]
    .into_iter()
    .map(|(source, target)| json!({"Type": "bind", "Source": source, "Destination": target, "RW": false}))
    .collect();
    let read = files_to_read(&container("prod", "web", 2, &json!({"Mounts": mounts})));
    assert_eq!(read, ["/etc/nginx/auth", "/etc/nginx/site", "/run/secrets", "/run/secrets/db"]);
}
