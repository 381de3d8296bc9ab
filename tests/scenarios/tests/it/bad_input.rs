//! Bad input: a code, a place where there is one, exit code 1, and nothing changed.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;

use shiplap_scenarios::{Lab, Program, binary, skip};

use crate::projects::API;

/// Plans and deploys a file that is wrong.
#[track_caller]
fn refused(purpose: &str, compose: &str, says: &[&str]) {
    let Some(lab) = Lab::new(purpose) else { return };
    lab.compose(compose);
    for words in [&["plan"][..], &["deploy", "--yes"]] {
        let mut run = lab.run(words).exits(1).says("error[");
        for text in says {
            run = run.says(text);
        }
    }
    assert!(lab.engine.objects(&lab.project).is_empty());
}

#[test]
fn broken_yaml() {
    refused("yaml", "services:\n  api:\n    image: [a\n", &["compose.yaml:"]);
}

#[test]
fn unknown_service_in_depends_on() {
    let compose = "services:\n  api:\n    image: a\n    depends_on:\n      - postgress\n";
    refused("depends", compose, &["compose.yaml:5:", "postgress"]);
}

#[test]
fn cycle() {
    let compose = "services:\n  a: {image: x, depends_on: [b]}\n  b: {image: x, depends_on: [a]}\n";
    refused("cycle", compose, &["compose.yaml:", "cycle"]);
}

#[test]
fn host_port_twice() {
    let compose = "services:\n  a: {image: x, ports: ['80:1']}\n  b: {image: x, ports: ['80:2']}\n";
    refused("ports", compose, &["compose.yaml:3:", "80"]);
}

#[test]
fn missing_env_file() {
    let compose = "services:\n  a:\n    image: x\n    env_file: [nowhere.env]\n";
    refused("envfile", compose, &["compose.yaml:4:", "nowhere.env"]);
}

#[test]
fn required_variable_unset() {
    let compose = "services:\n  a:\n    image: x:${TAG_OF_A:?say which}\n";
    refused("required", compose, &["compose.yaml:3:", "TAG_OF_A", "say which"]);
}

#[test]
fn several_problems_at_once() {
    let compose = "services:\n  a: {image: x, depends_on: [nobody]}\n  b: {imagee: x}\n";
    refused("several", compose, &["nobody", "imagee", "errors; nothing was changed"]);
}

#[test]
fn folder_without_a_file() {
    let Some(lab) = Lab::new("nofile") else { return };
    let _ = lab.run(&["deploy", "--yes"]).exits(1).says("error[").says("compose.yaml");
}

#[test]
fn engine_that_does_not_answer() {
    let Some(lab) = Lab::new("noengine") else { return };
    lab.compose(API);
    lab.set("DOCKER_HOST", "unix:///nonexistent");
    for words in [&["plan"][..], &["deploy", "--yes"], &["status"]] {
        let _ = lab.run(words).exits(1).says("error[engine-unreachable]").says("/nonexistent");
    }
}

#[test]
fn engine_that_is_too_old() {
    let Some(lab) = Lab::new("old") else { return };
    lab.compose(API);
    let path = lab.dir().join("old.sock");
    let listener = UnixListener::bind(&path).unwrap();
    // Ends with the process.
    std::thread::spawn(move || serve_as_old_engine(&listener));
    lab.set("DOCKER_HOST", &format!("unix://{}", path.display()));
    for words in [&["plan"][..], &["deploy", "--yes"]] {
        let _ = lab.run(words).exits(1).says("error[engine-too-old]").says("1.40").says("1.41");
    }
}

fn serve_as_old_engine(listener: &UnixListener) {
    let body = r#"{"Version":"19.03.15","ApiVersion":"1.40","MinAPIVersion":"1.12"}"#;
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { return };
        // One request per connection is all that a client may count on.
        let _ = stream.read(&mut [0; 4096]);
        let _ = write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nApi-Version: 1.40\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
    }
}

#[test]
fn socket_that_may_not_be_used() {
    use std::os::unix::fs::PermissionsExt as _;
    /// `nobody`, on Debian and elsewhere.
    const NOBODY: u32 = 65_534;
    let Some(lab) = Lab::new("denied") else { return };
    if !rustix::process::geteuid().is_root() {
        return skip("only root can run a program as another user").unwrap_or(());
    }
    lab.compose(API);
    let path = lab.dir().join("closed.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(lab.dir().parent().unwrap(), open).unwrap();
    lab.set("DOCKER_HOST", &format!("unix://{}", path.display()));
    // Where the build's folder is closed to others, a copy is not.
    let copy = lab.dir().join("shiplap");
    std::fs::copy(binary("shiplap"), &copy).unwrap();
    let mut command = lab.program(&copy, &["deploy", "--yes"]);
    command.uid(NOBODY).gid(NOBODY);
    let _ = Program::new(command).run().exits(1).says("error[engine-denied]").says("closed.sock");
}

#[test]
fn ledger_that_cannot_be_written() {
    let Some(lab) = Lab::new("ledger") else { return };
    lab.compose(API);
    std::fs::write(lab.state(), "a file where a folder should be").unwrap();
    let _ = lab.deploy("v1").exits(1).says("error[ledger]");
    assert!(lab.engine.objects(&lab.project).is_empty());
}
