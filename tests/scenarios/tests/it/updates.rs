//! Replacing services under load: nobody notices.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use shiplap_scenarios::{Kind, Lab, Traffic, get, post, until};

use crate::projects::{API, CALLERS, STORE};

#[test]
fn start_first_update_drops_nothing() {
    let Some(lab) = Lab::new("update") else { return };
    lab.compose(API);
    lab.deploy("v1").ok();
    let traffic = Traffic::to_api(lab.api);
    for tag in ["v2", "v3"] {
        lab.deploy(tag).ok().says("start-first");
        traffic.answered_by(tag);
    }
    for (kind, report) in traffic.end_without_a_drop() {
        assert!(report.tags.contains_key("v1") && report.tags.contains_key("v3"), "{kind}");
    }
}

#[test]
fn stop_first_update_drops_nothing_and_keeps_the_data() {
    let Some(lab) = Lab::new("hold") else { return };
    lab.compose(STORE);
    lab.deploy("v1").ok();
    for _ in 0..3 {
        assert!(post(lab.store, "/append", "a line").unwrap().contains("201"));
    }
    let traffic = Traffic::to_store(lab.store);
    lab.deploy("v2").ok().says("stop-first").says("writes to volume data");
    traffic.answered_by("v2");
    let reports = traffic.end_without_a_drop();
    let posted: u64 =
        reports.iter().filter(|(kind, _)| kind.starts_with("Post")).map(|(_, r)| r.ok).sum();
    let count = get(lab.store, "/count").unwrap();
    let count = String::from_utf8(count.body).unwrap();
    // Every acknowledged line is there, and no line twice.
    assert_eq!(count.trim(), format!("{{\"count\":{}}}", posted + 3));
}

#[test]
fn scaling_drops_nothing() {
    let Some(lab) = Lab::new("scale") else { return };
    lab.compose(API);
    lab.deploy("v1").ok();
    let first = lab.only("api");
    let traffic = Traffic::to_api(lab.api);
    lab.run(&["scale", "api=3", "--yes"]).ok();
    let three = lab.running()["api"].clone();
    assert!(three.len() == 3 && three.contains(&first), "{three:?}");
    lab.run(&["scale", "api=1", "--yes"]).ok();
    assert_eq!(lab.running()["api"].len(), 1);
    traffic.end_without_a_drop();
}

#[test]
fn replicas_are_replaced_without_a_drop() {
    let Some(lab) = Lab::new("replicas") else { return };
    lab.compose(API);
    lab.set("REPLICAS", "2");
    lab.deploy("v1").ok();
    assert_eq!(lab.running()["api"].len(), 2);
    let traffic = Traffic::to_api(lab.api);
    lab.deploy("v2").ok();
    traffic.answered_by("v2");
    assert_eq!(lab.running()["api"].len(), 2);
    traffic.end_without_a_drop();
}

#[test]
fn restart_drops_nothing() {
    let Some(lab) = Lab::new("restart") else { return };
    lab.compose(API);
    lab.deploy("v1").ok();
    let before = lab.only("api");
    let traffic = Traffic::to_api(lab.api);
    lab.run(&["restart", "api", "--yes"]).ok();
    traffic.end_without_a_drop();
    assert_ne!(lab.only("api"), before);
    assert_eq!(lab.version(lab.api), "v1");
}

#[test]
fn one_connection_survives_an_update() {
    let Some(lab) = Lab::new("keepalive") else { return };
    lab.compose(API);
    lab.deploy("v1").ok();
    let mut client = Client::connect(lab.api);
    assert_eq!(client.version(), "v1");
    lab.deploy("v2").ok();
    assert_eq!(client.version(), "v2");
}

#[test]
fn slow_answer_is_finished_across_a_switch() {
    let Some(lab) = Lab::new("slow") else { return };
    lab.compose(API);
    lab.deploy("v1").ok();
    let port = lab.api;
    let slow = std::thread::spawn(move || get(port, "/slow?ms=3000"));
    // It is on its way to the old replica before the deployment begins.
    until("the slow request is in flight", Duration::from_secs(10), || {
        let status = lab.run(&["edge", "status", "--json"]).ok().json();
        status["status"]["pools"].to_string().contains("\"in_flight\":1").then_some(())
    });
    lab.deploy("v2").ok();
    let answer = slow.join().unwrap().unwrap();
    assert_eq!((answer.status, answer.tag.as_deref()), (200, Some("v1")));
    assert_eq!(lab.version(lab.api), "v2");
}

#[test]
fn several_services_move_together() {
    let Some(lab) = Lab::new("demo") else { return };
    let demo = std::fs::read_to_string(demo()).unwrap().replace("shiplap-demo/app", "${APP}");
    // A machine that is busy building may take longer to answer than a demo should show.
    lab.compose(&demo.replace("timeout: 2s", "timeout: 10s"));
    lab.set("DEMO_PORT", &lab.web.to_string());
    lab.set("DEMO_API_PORT", &lab.api.to_string());
    lab.set("DEMO_STORE_PORT", &lab.store.to_string());
    lab.deploy("v1").ok();
    let traffic = Traffic::start(&[
        (lab.web, Kind::KeepAlive, "/"),
        (lab.api, Kind::NewConnections, "/version"),
        (lab.store, Kind::Post, "/append"),
    ]);
    lab.deploy("v2").ok();
    traffic.answered_by("v2");
    traffic.end_without_a_drop();
}

#[test]
fn a_caller_ends_what_it_has_begun_before_its_service_is_held() {
    let Some(lab) = Lab::new("callers") else { return };
    lab.compose(CALLERS);
    lab.deploy("v1").ok();
    let traffic = Traffic::at_rates(&[(lab.web, Kind::KeepAlive, "/twice?ms=700", 20.0)]);
    let run = lab.deploy("v2").ok().says("hold web").says("settle").says("hold api");
    assert!(!run.all().contains("still in flight"), "{}", run.all());
    traffic.end_without_a_drop();
}

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo/compose.yaml")
}

/// A client with one connection.
struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self(BufReader::new(stream))
    }

    fn version(&mut self) -> String {
        self.0.get_mut().write_all(b"GET /version HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        let (mut version, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "the connection was closed");
            match line.trim().to_ascii_lowercase().split_once(": ") {
                Some(("x-version", value)) => version = value.to_owned(),
                Some(("content-length", value)) => length = value.parse().unwrap(),
                Some(_) => {}
                None if line.trim().is_empty() => break,
                None => assert!(line.contains("200"), "{line}"),
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        version
    }
}
