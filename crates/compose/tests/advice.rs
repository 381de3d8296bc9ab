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
        advice[compose/no-restart]: `web` stays down after a crash or a reboot
         ┌ compose.yaml:2:3
        2 │   web:
          │   ^^^ no `restart`
          = help: add `restart: unless-stopped`, or `restart: "no"` if that is meant
        advice[compose/floating-tag]: `web` runs whatever `latest` is on the day it is pulled
         ┌ compose.yaml:3:12
        3 │     image: example/web:latest
          │            ^^^^^^^^^^^^^^^^^^ no fixed version
          = help: name a version: `image: name:1.2.3`
        advice[compose/fixed-name]: `web` has a `container_name`: two of it cannot run side by side
         ┌ compose.yaml:4:21
        4 │     container_name: web
          │                     ^^^ no start before the stop
          = help: leave it out; the service's name is its name on the network
        advice[compose/privileged]: `web` is privileged: a hole in it is a hole in the host
         ┌ compose.yaml:5:17
        5 │     privileged: true
          │                 ^^^^ the same as root
          = help: name what it needs with `cap_add` and `devices`
        advice[compose/started-not-healthy]: `web` starts before `db` is ready
         ┌ compose.yaml:7:18
        7 │     depends_on: [db]
          │                  ^^ waits for the start only
          = help: write `condition: service_healthy`: it has a health check
        advice[compose/mounted-code]: `web` runs code of the host instead of the image's
         ┌ compose.yaml:8:15
        8 │     volumes: ['./src:/app', '/var/run/docker.sock:/var/run/docker.sock']
          │               ^^^^^^^^^^^^ hides the image's own
          = help: leave the mount to development: `develop.watch` or an override file
        advice[compose/engine-socket]: `web` can do everything on this host: it has the engine's socket
         ┌ compose.yaml:8:29
        8 │     volumes: ['./src:/app', '/var/run/docker.sock:/var/run/docker.sock']
          │                             ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ the same as root
          = help: put a socket proxy that allows only what is needed in between
        advice[compose/plain-secret]: the secret `API_TOKEN` of `web` stands in the file
          ┌ compose.yaml:10:9
        10 │       - API_TOKEN…
           │         ^^^^^^^^^ readable by all who see this file
           = help: take it from a variable, or use `secrets` and a `…_FILE` variable
        advice[compose/open-database]: `db` keeps data and is open to every network of the host
          ┌ compose.yaml:17:13
        17 │     ports: ['5432:5432', '127.0.0.1:5433:5432']
           │             ^^^^^^^^^^^ published on all addresses
           = help: leave `ports` out, services reach it anyway; or write `127.0.0.1:…`
        advice[compose/plain-secret]: the secret `POSTGRES_PASSWORD` of `db` stands in the file
          ┌ compose.yaml:19:19
        19 │     environment: {POSTGRES_PASSWORD…
           │                   ^^^^^^^^^^^^^^^^^ readable by all who see this file
           = help: take it from a variable, or use `secrets` and a `…_FILE` variable
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
    healthcheck: {test: [CMD, ok]}
    depends_on: {db: {condition: service_healthy}}
    volumes: ['./conf:/etc/conf:ro', 'data:/data']
  db:
    image: postgres@sha256:0000000000000000000000000000000000000000000000000000000000000000
    restart: always
    healthcheck: {test: pg_isready}
    environment: {POSTGRES_PASSWORD: '${DB_PASSWORD}'}
volumes: {data: }
",
    ));
}
