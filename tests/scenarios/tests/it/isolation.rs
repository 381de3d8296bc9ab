//! Environments that are separate, and each way in which they may not be.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use shiplap_scenarios::{Engine, Lab, Run, until};

/// An environment: one service that answers, one that keeps something.
const ENVIRONMENT: &str = r#"
services:
  api:
    image: ${APP}:${TAG}
    command: [api]
    ports: ["${API_PORT}:9000"]
    environment:
      DB_PASSWORD: ${PASSWORD}
      STORE_URL: http://store:8000
    deploy: {update_config: {monitor: 100ms}}
  store:
    image: ${APP}:${TAG}
    command: [store]
    volumes: ["data:/data"]
    deploy: {update_config: {monitor: 100ms}}
volumes:
  data: {}
"#;

/// Two environments on one engine.
struct Pair {
    prod: Lab,
    dev: Lab,
}

impl Pair {
    fn deployed(purpose: &str) -> Option<Self> {
        let prod = Lab::new(&format!("{purpose}prod"))?;
        let dev = Lab::new(&format!("{purpose}dev"))?;
        for (lab, password) in [(&prod, "prods-own-value"), (&dev, "devs-own-value")] {
            lab.compose(ENVIRONMENT);
            lab.set("PASSWORD", password);
            lab.deploy("v1").ok();
        }
        // It opens its port a moment after its start.
        let pair = Self { prod, dev };
        until("all of them listen", Duration::from_secs(20), || {
            let run = pair.verify();
            (!run.stdout.contains("listens on no TCP port")).then_some(())
        });
        Some(pair)
    }

    fn verify(&self) -> Run {
        let (prod, dev) = (&self.prod.project, &self.dev.project);
        self.prod.run(&["env", "verify", "--compose-project", prod, "--compose-project", dev])
    }

    fn network(lab: &Lab) -> String {
        format!("{}_default", lab.project)
    }

    /// Starts a container of one of them that is in none of its files.
    fn plant(&self, lab: &Lab, host: &Value, environment: &[&str]) -> Planted {
        let planted = self.create(lab, host, environment);
        planted.engine.post(&format!("/containers/{}/start", planted.id), &Value::Null);
        planted
    }

    fn create(&self, lab: &Lab, host: &Value, environment: &[&str]) -> Planted {
        let mut host = host.clone();
        if host["NetworkMode"].is_null() {
            host["NetworkMode"] = Pair::network(lab).into();
        }
        let mut body = json!({
            "Image": format!("{}:v1", lab.images.name),
            // Its port is another than the ones of the environment's services.
            "Cmd": ["web"],
            "Env": environment,
            "Labels": {
                "com.docker.compose.project": lab.project,
                "com.docker.compose.service": "planted",
            },
            "HostConfig": host,
        });
        if !body["HostConfig"]["PortBindings"].is_null() {
            // What is not exposed is not published.
            body["ExposedPorts"] = json!({"8080/tcp": {}});
        }
        let made = lab.engine.post("/containers/create", &body);
        let id = made["Id"].as_str().expect("a container has an id").to_owned();
        Planted { engine: lab.engine.clone(), id }
    }

    /// Verifies that exactly such leaks are found, between the environments.
    #[track_caller]
    fn finds(&self, codes: &[&str]) -> Vec<Value> {
        let (prod, dev) = (&self.prod.project, &self.dev.project);
        let run = self.prod.run(&[
            "env",
            "verify",
            "--json",
            "--compose-project",
            prod,
            "--compose-project",
            dev,
        ]);
        let run = run.exits(1).hides("own-value").hides("hunter22");
        let findings = run.json()["findings"].as_array().cloned().unwrap_or_default();
        let leaks: Vec<Value> =
            findings.into_iter().filter(|found| found["severity"] == "leak").collect();
        let mut found: Vec<&str> = leaks.iter().filter_map(|leak| leak["code"].as_str()).collect();
        found.sort_unstable();
        found.dedup();
        assert_eq!(found, codes, "{}", run.all());
        leaks
    }
}

/// A container that goes when it is dropped.
struct Planted {
    engine: Engine,
    id: String,
}

impl Drop for Planted {
    fn drop(&mut self) {
        if let Err(reason) = self.engine.delete(&format!("/containers/{}?force=1&v=1", self.id)) {
            eprintln!("not removed: {reason}");
        }
    }
}

/// How many probes there are beside containers of these.
fn probes(pair: &Pair) -> usize {
    let all = pair.prod.engine.get("/containers/json?all=1");
    let all = all.as_array().cloned().unwrap_or_default();
    let running = [pair.prod.running(), pair.dev.running()];
    let ids: Vec<&String> = running.iter().flat_map(|all| all.values()).flatten().collect();
    let is_ours = |container: &&Value| {
        let mode = container["HostConfig"]["NetworkMode"].as_str().unwrap_or_default();
        container["Labels"]["shiplap.role"] == "probe" && ids.iter().any(|id| mode.contains(*id))
    };
    all.iter().filter(is_ours).count()
}

#[test]
fn separate_environments_pass_and_it_is_said_what_was_tried() {
    let Some(pair) = Pair::deployed("vfypass") else { return };
    let run = pair.verify().ok().says("separate: no leak").says("none was possible");
    run.says("published").hides("own-value");
    let (prod, dev) = (&pair.prod.project, &pair.dev.project);
    let run = pair
        .prod
        .run(&["env", "verify", "--json", "--compose-project", prod, "--compose-project", dev])
        .ok();
    let tried = run.json()["tried"].as_array().cloned().unwrap_or_default();
    let count = |what: &str| {
        let one = tried.iter().find(|tried| tried["what"] == what);
        one.and_then(|tried| tried["count"].as_u64()).unwrap_or(0)
    };
    // Each of two containers tries both of the other side, and the holder of their names.
    assert!(count("connections") >= 8, "{}", run.all());
    assert!(count("names") >= 8 && count("secrets") == 2, "{}", run.all());

    assert_eq!(probes(&pair), 0);

    let stopped =
        pair.prod.start(&["env", "verify", "--compose-project", prod, "--compose-project", dev]);
    let some = || (probes(&pair) > 0).then_some(());
    until("a probe is there", Duration::from_secs(20), some);
    stopped.signal(Signal::INT);
    stopped.finish().exits(1).says("nothing is left").hides("separate");
    assert_eq!(probes(&pair), 0);

    // A frozen container is told about rather than passed over.
    let store = pair.dev.only("store");
    pair.dev.engine.post(&format!("/containers/{store}/pause"), &Value::Null);
    pair.verify().ok().says("store: it is frozen").says("in what could be tested");
    pair.dev.engine.post(&format!("/containers/{store}/unpause"), &Value::Null);

    pair.prod
        .run(&["env", "verify", "--compose-project", prod, "--compose-project", "vfy-nowhere"])
        .exits(1)
        .says("error[nothing-to-verify]: `vfy-nowhere` has no containers")
        .hides("separate");
    let _ = pair.prod.run(&["env", "verify", "--compose-project", prod]).exits(2);
}

#[test]
fn leaks_of_networks_are_found() {
    let Some(pair) = Pair::deployed("vfynet") else { return };
    let (prod, dev) = (&pair.prod, &pair.dev);

    let guest = pair.plant(dev, &json!({}), &[]);
    let connect = format!("/networks/{}/connect", Pair::network(prod));
    dev.engine.post(&connect, &json!({"Container": guest.id}));
    let leaks = pair.finds(&["reachable", "shared-network"]);
    let reached = leaks.iter().filter(|leak| leak["code"] == "reachable");
    let reached: Vec<&str> = reached.filter_map(|leak| leak["what"].as_str()).collect();
    assert!(
        reached.iter().any(|what| what.contains("/planted reaches") && what.contains("/store at"))
    );
    assert!(
        reached.iter().any(|what| what.contains("/api reaches") && what.contains("/planted at"))
    );
    drop(guest);

    let id = prod.only("api");
    let inside = pair.plant(dev, &json!({"NetworkMode": format!("container:{id}")}), &[]);
    let leaks = pair.finds(&["joined", "reachable"]);
    assert!(leaks[0]["what"].to_string().contains("/planted"), "{leaks:?}");
    drop(inside);

    // Two in the engine's own bridge reach each other by address.
    let bridge = json!({"NetworkMode": "bridge"});
    let both = [pair.plant(prod, &bridge, &[]), pair.plant(dev, &bridge, &[])];
    let _ = pair.finds(&["reachable", "shared-network"]);
    drop(both);

    let host = pair.create(dev, &json!({"NetworkMode": "host"}), &[]);
    let _ = pair.finds(&["host-network"]);
    drop(host);

    // For the machine alone, on an address that containers have as their gateway.
    let gateway = prod.engine.get(&format!("/networks/{}", Pair::network(dev)));
    let gateway = gateway["IPAM"]["Config"][0]["Gateway"].as_str().expect("a bridge has one");
    let binding = json!([{"HostIp": gateway, "HostPort": ""}]);
    let local = pair.plant(prod, &json!({"PortBindings": {"8080/tcp": binding}}), &[]);
    let leaks = pair.finds(&["local-port"]);
    assert!(leaks[0]["what"].as_str().is_some_and(|what| what.contains(gateway)), "{leaks:?}");
    drop(local);

    // The edge listens on it for prod.
    let port = prod.api.to_string();
    let binding = json!([{"HostIp": "", "HostPort": port}]);
    let claim = pair.create(dev, &json!({"PortBindings": {"8080/tcp": binding}}), &[]);
    let leaks = pair.finds(&["host-port"]);
    assert!(leaks[0]["what"].as_str().is_some_and(|what| what.contains(&port)), "{leaks:?}");
    drop(claim);

    pair.verify().ok();
    assert_eq!(probes(&pair), 0);
}

#[test]
fn leaks_of_storage_are_found() {
    let Some(pair) = Pair::deployed("vfydata") else { return };
    let (prod, dev) = (&pair.prod, &pair.dev);

    let volume = format!("{}_data:/x:ro", prod.project);
    let reader = pair.create(dev, &json!({"Binds": [volume]}), &[]);
    let _ = pair.finds(&["shared-volume"]);
    drop(reader);

    let folder = prod.dir();
    std::fs::create_dir_all(folder.join("srv/app/data")).unwrap();
    std::os::unix::fs::symlink(folder.join("srv"), folder.join("alias")).unwrap();
    let at = |path: &str| folder.join(path).display().to_string();
    let bind = |path: &str| json!({"Binds": [format!("{}:/x", at(path))]});
    let data = pair.create(prod, &bind("srv/app/data"), &[]);
    for path in ["srv/app/data", "srv", "alias/app"] {
        let other = pair.create(dev, &bind(path), &[]);
        let _ = pair.finds(&["shared-path"]);
        drop(other);
    }
    // A volume of one's own that stands on the other's folder.
    let volume = format!("{}_stands", dev.project);
    let options = json!({"type": "none", "o": "bind", "device": at("srv/app/data")});
    let labels = json!({"com.docker.compose.project": dev.project});
    let body = json!({"Name": volume, "DriverOpts": options, "Labels": labels});
    dev.engine.post("/volumes/create", &body);
    let other = pair.create(dev, &json!({"Binds": [format!("{volume}:/x")]}), &[]);
    let _ = pair.finds(&["shared-path"]);
    drop((other, data));

    // Read by both, written by none.
    let read_only = json!({"Binds": [format!("{}:/x:ro", at("srv"))]});
    let both = [pair.create(prod, &read_only, &[]), pair.create(dev, &read_only, &[])];
    pair.verify().ok().says("shared-read-only");
    drop(both);

    let socket = prod.engine.socket().display().to_string();
    for path in [format!("{socket}:/x.sock:ro"), "/run:/host/run:ro".to_owned()] {
        let watcher = pair.create(dev, &json!({"Binds": [path]}), &[]);
        let _ = pair.finds(&["control-socket"]);
        drop(watcher);
    }
    pair.verify().ok();
}

#[test]
fn leaks_of_settings_are_found() {
    let Some(pair) = Pair::deployed("vfyset") else { return };
    let (prod, dev) = (&pair.prod, &pair.dev);
    let nothing = json!({});

    for same in
        ["OTHER_NAME_PASSWORD=prods-own-value", "DATABASE_URL=postgres://u:prods-own-value@db/x"]
    {
        let planted = pair.create(dev, &nothing, &[same]);
        let leaks = pair.finds(&["shared-secret"]);
        assert!(leaks[0]["what"].as_str().is_some_and(|what| what.contains("DB_PASSWORD")));
        drop(planted);
    }

    // The same file of a secret, at two paths.
    std::fs::write(prod.dir().join("password.txt"), "hunter22\n").unwrap();
    std::fs::write(dev.dir().join("password.txt"), "hunter22").unwrap();
    let mount = |lab: &Lab, to: &str| {
        let from = lab.dir().join("password.txt");
        json!({"Binds": [format!("{}:{to}:ro", from.display())]})
    };
    let both = [
        pair.create(prod, &mount(prod, "/run/secrets/db_password"), &[]),
        pair.plant(dev, &mount(dev, "/etc/db_password"), &[]),
    ];
    let _ = pair.finds(&["shared-secret"]);
    drop(both);

    let container =
        prod.inspect("store")["Name"].as_str().unwrap().trim_start_matches('/').to_owned();
    let address =
        prod.inspect("store")["NetworkSettings"]["Networks"][Pair::network(prod)]["IPAddress"]
            .as_str()
            .unwrap()
            .to_owned();
    for told in [
        format!("REDIS_URL=redis://{container}:6379/0"),
        format!("MQTT_HOST={address}"),
        format!("UPSTREAM_SERVER=store.{}:8000", Pair::network(prod)),
    ] {
        let planted = pair.create(dev, &nothing, &[told.as_str()]);
        let leaks = pair.finds(&["points-at-other"]);
        assert!(leaks[0]["between"].to_string().contains("\"store\""), "{told}: {leaks:?}");
        drop(planted);
    }
    let broker = ["QUEUE=amqp://mq.example.org/main"];
    let both = [pair.create(prod, &nothing, &broker), pair.create(dev, &nothing, &broker)];
    let _ = pair.finds(&["shared-broker"]);
    drop(both);

    for (host, code) in [
        (json!({"Privileged": true}), "privileged"),
        (json!({"CapAdd": ["SYS_ADMIN"]}), "privileged"),
        (json!({"PidMode": "host"}), "host-processes"),
        (json!({"VolumesFrom": [format!("{container}:ro")]}), "joined"),
    ] {
        let planted = pair.create(dev, &host, &[]);
        let codes: &[&str] = if code == "joined" { &["joined", "shared-volume"] } else { &[code] };
        let _ = pair.finds(codes);
        drop(planted);
    }
    pair.verify().ok();
}
