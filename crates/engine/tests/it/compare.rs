//! Facts of containers that Docker Compose made, against facts of the same file.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use shiplap_engine::DockerEngine;
use shiplap_model::{COMPOSE_PROJECT, Engine, EngineNetwork, EngineVolume, Fields};

use crate::support::{Lab, compose_peer, engine};

/// One of everything that Compose turns into a container's configuration on API 1.41.
const EVERYTHING: &str = r#"
services:
  plain:
    image: busybox:latest
    command: sleep 600
    volumes: ["data:/plain"]
  full:
    image: busybox:latest
    command: ["sh", "-c", "sleep 600 # $$HOME"]
    entrypoint: ["env"]
    environment: { PORT: "8000", EMPTY: "", PASSED: , SECRET: "a=b $$c" }
    user: "1000:1000"
    working_dir: /tmp
    hostname: full-host
    domainname: example.test
    labels: { team: core, com.example.tier: "1" }
    annotations: { note: ignored-on-old-engines }
    healthcheck:
      test: ["CMD-SHELL", "true | true"]
      interval: 1m30s
      timeout: 5s
      retries: 4
      start_period: 10s
    stop_signal: SIGINT
    stop_grace_period: 1m5s
    init: true
    tty: true
    stdin_open: true
    ports: ["127.0.0.1::8000", "9000"]
    expose: ["7000", "7001-7003"]
    volumes:
      - data:/data
      - data:/ro-data:ro
      - /anonymous
      - ./bind:/bind
      - ./bind:/bind-ro:ro
      - { type: bind, source: ./bind, target: /slave, bind: { propagation: rslave } }
      - { type: bind, source: ./bind, target: /exists, bind: { create_host_path: false } }
      - { type: volume, source: data, target: /nocopy, volume: { nocopy: true } }
      - { type: tmpfs, target: /cache, tmpfs: { size: 10485760, mode: 0o1770 } }
    tmpfs: ["/run:size=1m,mode=700", /scratch]
    read_only: true
    shm_size: 128m
    networks:
      default: { aliases: [full-alias, other-alias] }
      back: { ipv4_address: 10.213.77.5, priority: 100, aliases: [in-back] }
    links: ["plain", "plain:friend"]
    extra_hosts: ["somehost=10.1.2.3", "gateway=host-gateway"]
    dns: [10.0.0.53, 1.1.1.1]
    dns_search: [example.test]
    dns_opt: ["ndots:2"]
    cap_add: [NET_ADMIN, SYS_TIME]
    cap_drop: [MKNOD]
    devices: ["/dev/null:/dev/mynull:rw", "/dev/zero"]
    device_cgroup_rules: ["c 1:3 mr"]
    sysctls: { net.core.somaxconn: "1024" }
    ulimits: { nproc: 65535, nofile: { soft: 1000, hard: 2000 } }
    security_opt: [no-new-privileges:true, seccomp=./seccomp.json]
    group_add: ["1001", "audio"]
    cgroup_parent: /custom
    logging: { driver: json-file, options: { max-size: 5m, max-file: "3" } }
    restart: on-failure:3
    mem_limit: 256m
    mem_reservation: 64m
    memswap_limit: 300m
    cpus: 0.5
    cpu_shares: 512
    cpuset: "0"
    pids_limit: 100
    oom_score_adj: 100
    cgroup: host
    secrets: [token, { source: token, target: renamed }]
    configs: [settings, { source: settings, target: /etc/settings }]
  deployed:
    image: busybox:latest
    command: sleep 600
    entrypoint: []
    healthcheck: { disable: true }
    deploy:
      resources:
        limits: { cpus: "0.25", memory: 64M, pids: 50 }
        reservations: { memory: 32M }
      restart_policy: { condition: any }
    privileged: true
    ipc: shareable
    logging: { driver: none }
    uts: host
    security_opt: [systempaths=unconfined]
  unconfined:
    image: busybox:latest
    command: sleep 600
    security_opt: ["systempaths=unconfined", "seccomp:unconfined"]
    network_mode: bridge
    restart: unless-stopped
  on-host:
    image: busybox:latest
    command: sleep 600
    network_mode: host
    ipc: host
    pid: host
    userns_mode: host
  sidecar:
    image: busybox:latest
    command: sleep 600
    network_mode: service:plain
    ipc: service:deployed
    pid: service:plain
    volumes_from: ["plain:ro"]
  lonely:
    image: busybox:latest
    command: sleep 600
    network_mode: none
    restart: always
networks:
  back: { ipam: { config: [{ subnet: 10.213.77.0/24 }] } }
volumes:
  data: {}
secrets:
  token: { file: ./token }
configs:
  settings: { file: ./settings }
"#;

fn everything() -> Lab {
    let lab = Lab::new("all");
    lab.write("compose.yaml", &EVERYTHING.replace("10.213.77", &lab.net()));
    lab.write("token", "hunter2");
    lab.write("settings", "a=b");
    lab.write("bind/file", "x");
    lab.write("seccomp.json", "{\n  \"defaultAction\": \"SCMP_ACT_ALLOW\"\n}\n");
    lab
}

async fn facts_of(engine: &DockerEngine, lab: &Lab, project: &Value, service: &str) -> Fields {
    let desired = lab.desired(engine, project).await;
    engine.facts(&desired, &desired.services[service])
}

fn explain(desired: &Fields, observed: &Fields) -> String {
    let differing = desired.differing(observed);
    let line = |name: &String| {
        format!("  {name}: {:?} wanted, {:?} there", desired.get(name), observed.get(name))
    };
    differing.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn a_container_that_compose_made_has_the_facts_of_its_file() {
    let (Some(engine), Some(peer)) = (engine().await, compose_peer()) else { return };
    let lab = everything();
    // Not every machine may start all of it (capabilities, cgroups); what runs has addresses and
    // names that the engine gave it.
    lab.compose(&peer, &["create"]);
    if std::env::var_os("SHIPLAP_TEST_CREATE_ONLY").is_none() {
        lab.compose(&peer, &["start", "plain", "unconfined", "lonely", "on-host"]);
    }
    let project = lab.canonical(&peer);
    let desired = lab.desired(&engine, &project).await;
    let observed = engine.observe(&lab.name, Some(&desired.compose)).await.unwrap();
    assert_eq!(observed.containers.len(), desired.services.len());
    let mut wrong = String::new();
    for container in &observed.containers {
        let facts = engine.facts(&desired, &desired.services[&container.service]);
        if facts != container.facts {
            let differences = explain(&facts, &container.facts);
            wrong.push_str(&format!("{}:\n{differences}\n", container.service));
        }
        let alone = engine.container(&container.name).await.unwrap().unwrap();
        assert_eq!(alone.facts, container.facts, "{}", container.name);
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[tokio::test]
async fn a_container_of_ours_has_the_facts_of_its_file() {
    let (Some(engine), Some(peer)) = (engine().await, compose_peer()) else { return };
    let lab = everything();
    let desired = lab.desired(&engine, &lab.canonical(&peer)).await;
    let labels = [(COMPOSE_PROJECT.to_owned(), lab.name.clone())];
    for (key, spec) in &desired.compose.networks {
        let (name, labels) = (spec.name.clone().unwrap(), BTreeMap::from(labels.clone()));
        let network = EngineNetwork { name, key: key.clone(), spec: spec.clone(), labels };
        engine.create_network(&network).await.unwrap();
    }
    for (key, spec) in &desired.compose.volumes {
        let (name, labels) = (spec.name.clone().unwrap(), BTreeMap::from(labels.clone()));
        let volume = EngineVolume { name, key: key.clone(), spec: spec.clone(), labels };
        engine.create_volume(&volume).await.unwrap();
    }
    let mut services: Vec<&String> = desired.services.keys().collect();
    services.sort_by_key(|service| *service == "sidecar");
    for service in services {
        let mut replica = lab.replica(service);
        let names = desired.services.keys().map(|s| (s.clone(), lab.replica(s).name));
        replica.peers = names.collect();
        engine.create(&desired, &replica).await.unwrap();
    }
    let observed = engine.observe(&lab.name, Some(&desired.compose)).await.unwrap();
    let mut wrong = String::new();
    for container in &observed.containers {
        let facts = engine.facts(&desired, &desired.services[&container.service]);
        if facts != container.facts {
            let differences = explain(&facts, &container.facts);
            wrong.push_str(&format!("{}:\n{differences}\n", container.service));
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// Where in `full` to change what, and the field that should tell.
fn changes() -> Vec<(&'static str, Value, &'static str)> {
    vec![
        ("/command", json!(["sleep", "1"]), "command"),
        ("/entrypoint", json!(["nice"]), "entrypoint"),
        ("/environment/PORT", json!("8001"), "environment.PORT"),
        ("/environment/NEW", json!("1"), "environment.NEW"),
        ("/user", json!("1001"), "user"),
        ("/working_dir", json!("/"), "working_dir"),
        ("/hostname", json!("other"), "hostname"),
        ("/domainname", json!("other.test"), "domainname"),
        ("/labels/team", json!("other"), "label.team"),
        ("/healthcheck/retries", json!(5), "healthcheck"),
        ("/stop_signal", json!("SIGQUIT"), "stop_signal"),
        ("/stop_grace_period", json!("2s"), "stop_grace_period"),
        ("/init", json!(false), "init"),
        ("/tty", json!(false), "tty"),
        ("/stdin_open", json!(false), "stdin_open"),
        ("/volumes/0/read_only", json!(true), "volumes./data"),
        ("/volumes/3/source", json!("/elsewhere"), "volumes./bind"),
        ("/volumes/5/bind/propagation", json!("rshared"), "volumes./slave"),
        ("/volumes/7/volume/nocopy", json!(false), "volumes./nocopy"),
        ("/volumes/8/tmpfs/size", json!("1"), "volumes./cache"),
        ("/tmpfs/1", json!("/scratch:size=2m"), "tmpfs./scratch"),
        ("/read_only", json!(false), "read_only"),
        ("/shm_size", json!("1048576"), "shm_size"),
        ("/networks/default/aliases/0", json!("new-alias"), "networks.PROJECT_default"),
        ("/networks/back/ipv4_address", json!("10.213.77.6"), "networks.PROJECT_back"),
        ("/mac_address", json!("02:42:ac:11:00:98"), "mac_address"),
        ("/links/1", json!("plain:foe"), "links"),
        ("/extra_hosts/0", json!("somehost=10.1.2.4"), "extra_hosts"),
        ("/dns/0", json!("10.0.0.54"), "dns"),
        ("/dns_search/0", json!("other.test"), "dns_search"),
        ("/dns_opt/0", json!("ndots:3"), "dns_opt"),
        ("/cap_add/0", json!("NET_RAW"), "cap_add"),
        ("/cap_drop/0", json!("CHOWN"), "cap_drop"),
        ("/devices/0/permissions", json!("r"), "devices"),
        ("/device_cgroup_rules/0", json!("c 1:5 r"), "device_cgroup_rules"),
        ("/sysctls/net.core.somaxconn", json!("512"), "sysctls.net.core.somaxconn"),
        ("/ulimits/nproc", json!(1), "ulimits.nproc"),
        ("/ulimits/nofile/soft", json!(999), "ulimits.nofile"),
        ("/security_opt/0", json!("label=disable"), "security_opt"),
        ("/group_add/0", json!("1002"), "group_add"),
        ("/cgroup_parent", json!("/other"), "cgroup_parent"),
        ("/logging/options/max-size", json!("6m"), "logging"),
        ("/restart", json!("always"), "restart"),
        ("/mem_limit", json!("268435457"), "mem_limit"),
        ("/mem_reservation", json!("1048576"), "mem_reservation"),
        ("/memswap_limit", json!("-1"), "memswap_limit"),
        ("/cpus", json!(0.75), "cpus"),
        ("/cpu_shares", json!(256), "cpu_shares"),
        ("/cpuset", json!("0,1"), "cpuset"),
        ("/pids_limit", json!(99), "pids_limit"),
        ("/oom_score_adj", json!(99), "oom_score_adj"),
        ("/cgroup", json!("private"), "cgroup"),
        ("/ipc", json!("host"), "ipc"),
        ("/pid", json!("host"), "pid"),
        ("/privileged", json!(true), "privileged"),
        ("/runtime", json!("other"), "runtime"),
        ("/oom_kill_disable", json!(true), "oom_kill_disable"),
        ("/secrets/0/target", json!("/elsewhere"), "volumes./elsewhere"),
    ]
}

#[tokio::test]
async fn each_changed_attribute_is_named() {
    let (Some(engine), Some(peer)) = (engine().await, compose_peer()) else { return };
    engine.info().await.unwrap();
    let lab = everything();
    let project = lab.canonical(&peer);
    let before = facts_of(&engine, &lab, &project, "full").await;
    let again = facts_of(&engine, &lab, &project, "full").await;
    assert_eq!(before, again);
    let mut wrong = Vec::new();
    for (path, value, field) in changes() {
        let mut changed = project.clone();
        let (parent, member) = path.rsplit_once('/').unwrap();
        let parent = format!("/services/full{parent}");
        let parent = changed.pointer_mut(&parent).unwrap_or_else(|| panic!("no {path}"));
        match parent {
            Value::Array(list) => list[member.parse::<usize>().unwrap()] = value,
            other => other[member] = value,
        }
        let after = facts_of(&engine, &lab, &changed, "full").await;
        let differing = before.differing(&after);
        let field = field.replace("PROJECT", &lab.name);
        let is_moved = path.ends_with("/target");
        if !(differing == [field.clone()] || is_moved && differing.contains(&field)) {
            wrong.push(format!("{path}: {differing:?} instead of {field}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
