//! Each role as a process: what it answers, how it stops, how it fails on purpose.

use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A role that was started and is killed at the end of its test.
struct Role {
    child: Child,
    port: u16,
}

impl Role {
    fn spawn(role: &str, variables: &[(&str, &str)]) -> Role {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new(env!("CARGO_BIN_EXE_shiplap-demo-app"))
            .arg(role)
            .env_clear()
            .env("PORT", port.to_string())
            .env("VERSION", "v7")
            .env("BOOT_MS", "50")
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Role { child, port }
    }

    /// Starts a role and waits until it listens.
    fn start(role: &str, variables: &[(&str, &str)]) -> Role {
        let role = Role::spawn(role, variables);
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", role.port)).is_err() {
            assert!(start.elapsed() < Duration::from_secs(10), "it never listened");
            std::thread::sleep(Duration::from_millis(5));
        }
        role
    }

    fn send(&self, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream
    }

    /// The whole answer to one request on a connection of its own.
    fn ask(&self, method: &str, path: &str, body: &str) -> String {
        let length = body.len();
        read_all(self.send(&format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        )))
    }

    fn terminate(&self) {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
    }

    fn output(mut self) -> Output {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        self.child.stdout.take().unwrap().read_to_end(&mut stdout).unwrap();
        self.child.stderr.take().unwrap().read_to_end(&mut stderr).unwrap();
        Output { status: self.child.wait().unwrap(), stdout, stderr }
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_all(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn assert_answer(answer: &str, status: u16, part: &str) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    assert!(answer.contains("\r\nX-Version: v7\r\n"), "{answer}");
    assert!(answer.contains(part), "{answer}");
}

/// A folder for a store, removed at the end.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("demo-app-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn text(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn api_answers_with_its_version_and_counts_orders() {
    let api = Role::start("api", &[]);
    assert_answer(&api.ask("GET", "/version", ""), 200, r#"{"version":"v7"}"#);
    assert_answer(&api.ask("GET", "/health", ""), 200, "ok");
    assert_answer(&api.ask("POST", "/orders", "hello"), 201, r#"{"order":1,"bytes":5}"#);
    let chunked = "POST /orders HTTP/1.1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
                   3\r\nabc\r\n4;x\r\ndefg\r\n0\r\n\r\n";
    assert_answer(&read_all(api.send(chunked)), 201, r#"{"order":2,"bytes":7}"#);
    assert_answer(&api.ask("GET", "/orders", ""), 200, r#"{"orders":2,"bytes":12}"#);
    assert_answer(&api.ask("GET", "/slow?ms=x", ""), 400, "ms is a number");
    assert_answer(&api.ask("GET", "/nothing", ""), 404, "no GET /nothing");
    assert_answer(&read_all(api.send("nonsense\r\n\r\n")), 400, "request line");
}

#[test]
fn web_has_a_page_and_passes_requests_on() {
    let api = Role::start("api", &[("VERSION", "v8")]);
    let address = format!("localhost:{}", api.port);
    let web = Role::start("web", &[("API", &address)]);
    assert_answer(&web.ask("GET", "/", ""), 200, "This page is <strong>v7</strong>");
    for _ in 0..3 {
        assert_answer(&web.ask("GET", "/api/version", ""), 200, r#"{"version":"v8"}"#);
    }
    assert_answer(&web.ask("POST", "/api/orders", "abc"), 201, r#""bytes":3"#);
    assert_answer(&web.ask("GET", "/api/slow?ms=1", ""), 200, r#""slow_ms":1"#);
    assert_answer(&web.ask("GET", "/apix", ""), 404, "no GET /apix");
    drop(api);
    assert_answer(&web.ask("GET", "/api/version", ""), 502, "api: ");
}

#[test]
fn requests_in_flight_are_finished_after_sigterm() {
    let api = Role::start("api", &[]);
    let slow = api.send("GET /slow?ms=400 HTTP/1.1\r\nHost: x\r\n\r\n");
    let idle = api.send("");
    let mut stream = BufReader::new(api.send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n"));
    let mut line = String::new();
    while !line.contains("data: v7") {
        line.clear();
        stream.read_line(&mut line).unwrap();
    }
    let start = Instant::now();
    api.terminate();
    let answer = read_all(slow);
    assert_answer(&answer, 200, "slow_ms");
    assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
    assert_eq!(read_all(idle), "");
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.ends_with("0\r\n\r\n"), "a stream ends with its last chunk: {rest:?}");
    assert!(api.output().status.success());
    assert!(start.elapsed() < Duration::from_secs(3));
}

#[test]
fn a_store_keeps_its_lines_and_admits_no_second_one() {
    let folder = Folder::new("lock");
    let data = [("DATA", folder.text())];
    let store = Role::start("store", &data);
    assert_answer(&store.ask("POST", "/append", "one\ntwo"), 201, r#"{"count":1}"#);

    let second = Role::spawn("store", &data).output();
    assert_eq!(second.status.code(), Some(1));
    let message = String::from_utf8(second.stderr).unwrap();
    assert!(message.contains("another store has locked"), "{message}");

    store.terminate();
    assert!(store.output().status.success());
    let store = Role::start("store", &data);
    assert_answer(&store.ask("GET", "/count", ""), 200, r#"{"count":1}"#);
}

#[test]
fn a_store_takes_its_time_to_boot_and_can_be_stopped_meanwhile() {
    let folder = Folder::new("boot");
    let store = Role::spawn("store", &[("DATA", folder.text()), ("BOOT_MS", "60000")]);
    std::thread::sleep(Duration::from_millis(300));
    assert!(TcpStream::connect(("127.0.0.1", store.port)).is_err());
    store.terminate();
    let output = store.output();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn worker_sends_orders_until_stopped() {
    let api = Role::start("api", &[]);
    let address = format!("127.0.0.1:{}", api.port);
    let worker = Role::spawn("worker", &[("API", &address)]);
    let start = Instant::now();
    while !api.ask("GET", "/orders", "").contains(r#""orders":1"#) {
        assert!(start.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(20));
    }
    worker.terminate();
    let output = worker.output();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("worker: api v7 answered 201"), "{text}");
}

#[test]
fn faults_break_a_release_as_named() {
    let healthy = Role::start("api", &[]);
    assert!(check_health(healthy.port).status.success());
    let port = healthy.port;
    drop(healthy);
    assert_eq!(check_health(port).status.code(), Some(1));

    let sick = Role::start("api", &[("FAULT", "health")]);
    assert_answer(&sick.ask("GET", "/version", ""), 200, "v7");
    assert_answer(&sick.ask("GET", "/health", ""), 503, "never healthy");
    let check = check_health(sick.port);
    assert_eq!(check.status.code(), Some(1));
    assert!(String::from_utf8(check.stderr).unwrap().contains("answered 503"));

    let crash = Role::spawn("web", &[("FAULT", "crash")]).output();
    assert_eq!(crash.status.code(), Some(1));
    assert!(String::from_utf8(crash.stderr).unwrap().contains("FAULT=crash"));

    let start = Instant::now();
    let later = Role::start("api", &[("FAULT", "exit-later")]).output();
    assert_eq!(later.status.code(), Some(1));
    assert!(start.elapsed() > Duration::from_secs(2));

    let unknown = Role::spawn("api", &[("FAULT", "nonsense")]).output();
    assert!(String::from_utf8(unknown.stderr).unwrap().contains("FAULT is none of"));
}

#[test]
fn a_slow_release_does_not_listen_and_stops_at_once() {
    let slow = Role::spawn("web", &[("FAULT", "slow")]);
    std::thread::sleep(Duration::from_millis(300));
    assert!(TcpStream::connect(("127.0.0.1", slow.port)).is_err());
    let start = Instant::now();
    slow.terminate();
    assert!(slow.output().status.success());
    assert!(start.elapsed() < Duration::from_secs(2));
}

fn check_health(port: u16) -> Output {
    Command::new(env!("CARGO_BIN_EXE_shiplap-demo-app"))
        .args(["health", &port.to_string()])
        .output()
        .unwrap()
}

#[test]
fn migration_writes_down_each_time_that_it_ran() {
    let folder = Folder::new("migrate");
    for _ in 0..2 {
        let output = Role::spawn("migrate", &[("DATA", folder.text())]).output();
        assert!(output.status.success(), "{output:?}");
    }
    let lines = std::fs::read_to_string(folder.0.join("migrations.log")).unwrap();
    assert_eq!(lines, "v7\nv7\n");
}
