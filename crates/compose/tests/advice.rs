//! Advice about projects that load.

use expect_test::expect;
use shiplap_compose::{MemoryFiles, Request, Severity, advise, load};

fn advice(text: &str) -> String {
    let files = MemoryFiles::from([
        ("/app/compose.yaml", text),
        ("/app/.env", "DB_PASSWORD=hunter2\n"),
        ("/app/db.env", "FILE_TOKEN=hunter3\n"),
    ]);
    let request = Request { working_dir: "/app".into(), ..Request::default() };
    let found = advise(&load(&request, &files).expect("loads"));
    assert!(found.iter().all(|advice| advice.severity == Severity::Advice));
    found.iter().map(|advice| format!("{advice}\n")).collect()
}

#[test]
fn everything_is_advised_at_its_place() {
    expect![[r#"
        advice[compose/no-healthcheck]: `web` takes requests, but nothing tells when it is ready
         ┌ compose.yaml:2:3
        2 │   web:
          │   ^^^ no health check
          = help: add a `healthcheck`, unless the image has one
          = help: see docs/advice/no-healthcheck.md
        advice[compose/no-restart]: `web` stays down after a crash or a reboot
         ┌ compose.yaml:2:3
        2 │   web:
          │   ^^^ no `restart`
          = help: add `restart: unless-stopped`, or `restart: "no"` if that is meant
          = help: see docs/advice/no-restart.md
        advice[compose/unbounded-logs]: what `web` and 1 more print fills the disk, slowly
         ┌ compose.yaml:2:3
        2 │   web:
          │   ^^^ no bound for its log
          = help: add `logging: {driver: local}`, or set it for the whole engine
          = help: see docs/advice/unbounded-logs.md
        advice[compose/floating-tag]: `web` runs whatever `latest` is on the day it is pulled
         ┌ compose.yaml:3:12
        3 │     image: example/web:latest
          │            ^^^^^^^^^^^^^^^^^^ no fixed version
          = help: name a version: `image: name:1.2.3`
          = help: see docs/advice/floating-tag.md
        advice[compose/fixed-name]: `web` has a `container_name`: two of it cannot run side by side
         ┌ compose.yaml:4:21
        4 │     container_name: web
          │                     ^^^ no start before the stop
          = help: leave it out; the service's name is its name on the network
          = help: see docs/advice/fixed-name.md
        advice[compose/privileged]: `web` is privileged: a hole in it is a hole in the host
         ┌ compose.yaml:5:17
        5 │     privileged: true
          │                 ^^^^ the same as root
          = help: name what it needs with `cap_add` and `devices`
          = help: see docs/advice/privileged.md
        advice[compose/started-not-healthy]: `web` starts before `db` is ready
         ┌ compose.yaml:7:18
        7 │     depends_on: [db]
          │                  ^^ waits for the start only
          = help: write `condition: service_healthy`: it has a health check
          = help: see docs/advice/started-not-healthy.md
        advice[compose/mounted-code]: `web` runs code of the host instead of the image's
         ┌ compose.yaml:8:15
        8 │     volumes: ['./src:/app', '/var/run/docker.sock:/var/run/docker.sock']
          │               ^^^^^^^^^^^^ hides the image's own
          = help: leave the mount to development: `develop.watch` or an override file
          = help: see docs/advice/mounted-code.md
        advice[compose/engine-socket]: `web` can do everything on this host: it has the engine's socket
         ┌ compose.yaml:8:29
        8 │     volumes: ['./src:/app', '/var/run/docker.sock:/var/run/docker.sock']
          │                             ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ the same as root
          = help: put a socket proxy that allows only what is needed in between
          = help: see docs/advice/engine-socket.md
        advice[compose/plain-secret]: the secret `API_TOKEN` of `web` stands in the file
          ┌ compose.yaml:10:9
        10 │       - API_TOKEN…
           │         ^^^^^^^^^ readable by all who see this file
           = help: take it from a variable, or use `secrets` and a `…_FILE` variable
           = help: see docs/advice/plain-secret.md
        advice[compose/lost-data]: what `db` keeps goes with its container
          ┌ compose.yaml:13:3
        13 │   db:
           │   ^^ no volume
           = help: mount a named volume where the image keeps its data
           = help: see docs/advice/lost-data.md
        advice[compose/open-database]: `db` keeps data and is open to every network of the host
          ┌ compose.yaml:17:13
        17 │     ports: ['5432:5432', '127.0.0.1:5433:5432']
           │             ^^^^^^^^^^^ published on all addresses
           = help: leave `ports` out, services reach it anyway; or write `127.0.0.1:…`
           = help: see docs/advice/open-database.md
        advice[compose/slow-healthcheck]: `db` is asked how it is every 30 s only
          ┌ compose.yaml:18:5
        18 │     healthcheck: {test: pg_isready}
           │     ^^^^^^^^^^^ ready late, and broken for long
           = help: write `interval: 5s`, or `start_period` and `start_interval`
           = help: see docs/advice/slow-healthcheck.md
        advice[compose/plain-secret]: the secret `POSTGRES_PASSWORD` of `db` stands in the file
          ┌ compose.yaml:19:19
        19 │     environment: {POSTGRES_PASSWORD…
           │                   ^^^^^^^^^^^^^^^^^ readable by all who see this file
           = help: take it from a variable, or use `secrets` and a `…_FILE` variable
           = help: see docs/advice/plain-secret.md
    "#]].assert_eq(&advice(
        "services:
  web:
    image: example/web:latest
    container_name: web
    privileged: true
    ports: ['80:80']
    depends_on: [db]
    volumes: ['./src:/app', '/var/run/docker.sock:/var/run/docker.sock']
    environment:
      - API_TOKEN=abc
      - DB_PASSWORD=${DB_PASSWORD}
      - DB_PASSWORD_FILE=/run/secrets/x
  db:
    image: postgres:16
    restart: always
    env_file: db.env
    ports: ['5432:5432', '127.0.0.1:5433:5432']
    healthcheck: {test: pg_isready}
    environment: {POSTGRES_PASSWORD: hunter4, EMPTY_SECRET: ''}
",
    ));
}

#[test]
fn a_careful_file_gets_none() {
    expect![[""]].assert_eq(&advice(
        "services:
  web:
    image: example/web:1.2
    restart: unless-stopped
    ports: ['80:80']
    healthcheck: {test: [CMD, ok], interval: 5s}
    logging: &logs {driver: local}
    depends_on: {db: {condition: service_healthy}}
    volumes: ['./conf:/etc/conf:ro', 'data:/data']
  db:
    image: postgres@sha256:0000000000000000000000000000000000000000000000000000000000000000
    restart: always
    healthcheck: {test: pg_isready}
    logging: *logs
    volumes: ['kept:/var/lib/postgresql/data']
    environment: {POSTGRES_PASSWORD: '${DB_PASSWORD}'}
volumes: {data: , kept: }
",
    ));
}

/// One project that gives every piece of advice.
const ALL: &str = "services:
  web:
    image: example/web
    container_name: web
    privileged: true
    ports: ['80:80', '9000-9010:90']
    depends_on:
      db: {condition: service_started}
      migrate: {condition: service_completed_successfully}
    volumes: ['./src:/app', '/var/run/docker.sock:/var/run/docker.sock', 'data:/data']
    environment:
      API_TOKEN: abc
      DATABASE_URL: postgres://app@localhost:5432/app
  slow:
    image: example/slow:1
    ports: ['81:80']
    healthcheck: {test: [CMD, ok]}
  migrate:
    image: example/web:1
    restart: always
  mail-worker:
    image: example/web:1
    network_mode: host
    volumes: ['data:/data']
  db:
    image: postgres:16
    ports: ['5432:5432']
    healthcheck: {test: pg_isready}
    volumes: ['/var/lib/postgresql/data']
    deploy: {replicas: 2}
  old:
    image: mysql:8
volumes: {data: }
";

#[test]
fn each_piece_has_a_page_that_the_index_names() {
    let files = MemoryFiles::from([("/app/compose.yaml", ALL)]);
    let request = Request { working_dir: "/app".into(), ..Request::default() };
    let found = advise(&load(&request, &files).expect("loads"));
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let read = |path: &str| std::fs::read_to_string(root.join(path)).expect("the page is there");
    let index = read("docs/advice/README.md");
    let mut pages = std::collections::BTreeSet::new();
    for advice in &found {
        let page = advice.help.last().and_then(|help| help.strip_prefix("see ")).expect("a page");
        assert!(read(page).contains(&format!("`{}`", advice.code)), "{page} names its code");
        let name = page.rsplit('/').next().expect("a path").to_string();
        assert!(index.contains(&format!("({name})")), "the index names {name}");
        pages.insert(name);
    }
    let written: std::collections::BTreeSet<String> = std::fs::read_dir(root.join("docs/advice"))
        .expect("the folder is there")
        .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
        .filter(|name| name != "README.md")
        .collect();
    assert_eq!(pages, written, "a page for each piece of advice, and no other");
}

#[test]
fn a_job_is_not_asked_to_restart() {
    expect![[""]].assert_eq(&advice(
        "services:
  app:
    image: a:1
    restart: always
    logging: &logs {driver: local}
    depends_on: {migrate: {condition: service_completed_successfully}}
  migrate:
    image: a:1
    logging: *logs
",
    ));
}

#[test]
fn addresses_for_browsers_and_other_hosts_pass() {
    expect![[""]].assert_eq(&advice(
        "services:
  app:
    image: a:1
    restart: always
    logging: {driver: json-file, options: {max-size: 10m}}
    environment:
      APP_URL: http://localhost:3000
      DATABASE_URL: postgres://app@db.localhost.example/app
      DB_HOST: db
      VIRTUAL_HOST: localhost
",
    ));
}
