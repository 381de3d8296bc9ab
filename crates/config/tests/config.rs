//! `shiplap.yaml`, from text to settings, and what is said of one that is wrong.

use std::collections::BTreeMap;
use std::path::Path;

use expect_test::{Expect, expect};
use shiplap_compose::model::Project;
use shiplap_compose::{Diagnostic, MemoryFiles, Request};
use shiplap_config::{Config, Settings};

const COMPOSE: &str = "
services:
  web: { image: web, ports: [\"8080:3000\"], depends_on: [api] }
  api:
    image: api
    expose: [\"8000\"]
    depends_on: { db: { condition: service_started } }
    networks: { default: { aliases: [backend] } }
  worker: { image: api }
  db: { image: postgres, volumes: [\"data:/data\"] }
volumes: { data: {} }
";

fn said(problems: Vec<Diagnostic>) -> String {
    problems.iter().map(|problem| format!("{problem}\n")).collect()
}

fn config(text: &str) -> Result<Config, Vec<Diagnostic>> {
    Config::parse(Path::new("/shop/shiplap.yaml"), text)
}

fn settings(text: &str, name: &str) -> Settings {
    let config = config(text).unwrap_or_else(|problems| panic!("{}", said(problems)));
    config.environment(name, "shop").unwrap_or_else(|problems| panic!("{}", said(problems)))
}

fn files() -> MemoryFiles {
    let hash = "$2y$10$abcdefghijklmnopqrstuuJ1Q5cW8m7n6b5v4c3x2z1a0s9d8f7g6";
    MemoryFiles::from([
        ("/shop/compose.yaml", COMPOSE.to_owned()),
        ("/shop/good.htpasswd", format!("# people\nann:{hash}\n")),
        ("/shop/md5.htpasswd", "bob:$apr1$x$y\n".to_owned()),
    ])
}

fn project() -> Project {
    let request =
        Request { working_dir: "/shop".into(), environment: BTreeMap::new(), ..Request::default() };
    shiplap_compose::load(&request, &files()).unwrap_or_else(|p| panic!("{}", said(p))).project
}

fn refused(text: &str, expected: Expect) {
    expected.assert_eq(&said(config(text).expect_err("it is wrong")));
}

/// What becomes of the project, or what is said instead.
fn shaped(text: &str) -> Result<Project, String> {
    let mut project = project();
    match settings(text, "dev").shape(&mut project, &[]) {
        Ok(_) => Ok(project),
        Err(problems) => Err(said(problems)),
    }
}

fn routes(text: &str) -> String {
    match settings(text, "dev").routes(&project(), &[], &files()) {
        Ok(table) => {
            let mut lines = vec![format!("guard: {}", table.guard.words().join(", "))];
            for route in &table.routes {
                let words = route.policy.words().join(", ");
                let entries = route.entries.join("+");
                lines.push(format!("{route} at {entries} -> {}: {words}", route.to));
            }
            lines.join("\n")
        }
        Err(problems) => said(problems),
    }
}

#[test]
fn every_problem_is_reported_with_its_line() {
    refused(
        "
project: Shop
environment: {}
environments:
  prod:
    target: core
    watch: soon
    routes:
      - host: http://shop.example
        port: 70000
        service: web
      - { path: api, redirect: a, service: b }
    ports: some
    limits: { cpus: two }
    jobs: { before_switch: { migrate: { service: api, command: 'a | b' }, Up: { command: [] } } }
",
        expect![[r#"
            error[config/wrong-value]: `project` cannot be `Shop`
             ┌ /shop/shiplap.yaml:2:10
            2 │ project: Shop
              │          ^^^^ not of the form that it must have
              = help: lower-case letters, digits, `-` and `_`, the first a letter or a digit
            error[config/unknown-key]: this file knows no `environment`
             ┌ /shop/shiplap.yaml:3:1
            3 │ environment: {}
              │ ^^^^^^^^^^^ no such setting
              = help: did you mean `environments`?
            error[config/wrong-value]: `environments.prod.routes[0].port` must be from 1 to 65535, not 70000
              ┌ /shop/shiplap.yaml:10:15
            10 │         port: 70000
               │               ^^^^^ out of range
            error[config/wrong-value]: `environments.prod.routes[1].path` cannot be `api`
              ┌ /shop/shiplap.yaml:12:17
            12 │       - { path: api, redirect: a, service: b }
               │                 ^^^ not of the form that it must have
               = help: it starts with `/`
            error[config/wrong-value]: `environments.prod.ports` cannot be `some`
              ┌ /shop/shiplap.yaml:13:12
            13 │     ports: some
               │            ^^^^ no such word
               = help: it is one of keep, any, none
            error[config/wrong-type]: `environments.prod.limits.cpus` must be a number, not a text
              ┌ /shop/shiplap.yaml:14:21
            14 │     limits: { cpus: two }
               │                     ^^^ a number is wanted here
            error[config/missing]: `environments.prod.jobs.before_switch.Up` does not say `service`
              ┌ /shop/shiplap.yaml:15:75
            15 │     jobs: { before_switch: { migrate: { service: api, command: 'a | b' }, Up: { command: [] } } }
               │                                                                           ^^ `service:` is missing
        "#]],
    );
    refused(
        "
targets: { core: vm1 }
edge: { http: here }
environments:
  prod:
    target: cores
    watch: soon
    routes:
      - { host: http://shop.example, service: web }
      - { redirect: a, service: b, status: 200 }
      - { path: /x }
    protect: { allow: [10.0.0.0/33] }
    limits: { memory: much }
    jobs: { before_switch: { migrate: { service: api, command: 'a | b' }, Up: { service: api, command: [] } } }
    tls: { certificate: a.pem }
  dev: { project_name: same }
  test: { project_name: same }
",
        expect![[r#"
            error[config/unknown-target]: there is no target `cores`
             ┌ /shop/shiplap.yaml:6:13
            6 │     target: cores
              │             ^^^^^ no such target
              = help: there are core
            error[config/wrong-value]: a job cannot be called `Up`
              ┌ /shop/shiplap.yaml:14:75
            14 │     jobs: { before_switch: { migrate: { service: api, command: 'a | b' }, Up: { service: api, command: [] } } }
               │                                                                           ^^ not a name
               = help: lower-case letters, digits, `-` and `_`, the first a letter or a digit
            error[config/wrong-value]: `environments.prod.tls` is not complete: a `certificate` needs its `key`
              ┌ /shop/shiplap.yaml:15:5
            15 │     tls: { certificate: a.pem }
               │     ^^^ here
            error[config/wrong-value]: `environments.prod.watch` is no length of time: `soon`
             ┌ /shop/shiplap.yaml:7:12
            7 │     watch: soon
              │            ^^^^ no length of time
              = help: such as 30s, 5m or 12h
            error[config/wrong-value]: `environments.prod.jobs.before_switch.migrate.command` is no command: it needs a shell: write `[sh, -c, "…"]`
              ┌ /shop/shiplap.yaml:14:64
            14 │     jobs: { before_switch: { migrate: { service: api, command: 'a | b' }, Up: { service: api, command: [] } } }
               │                                                                ^^^^^^^ no command
            error[config/wrong-value]: `environments.prod.jobs.before_switch.Up.command` is no command: it is empty
              ┌ /shop/shiplap.yaml:14:95
            14 │     jobs: { before_switch: { migrate: { service: api, command: 'a | b' }, Up: { service: api, command: [] } } }
               │                                                                                               ^^^^^^^ no command
            error[config/wrong-value]: `environments.prod.limits.memory` is no amount of memory: `much`
              ┌ /shop/shiplap.yaml:13:23
            13 │     limits: { memory: much }
               │                       ^^^^ no amount
               = help: such as 512MiB or 2GiB
            error[config/wrong-value]: `10.0.0.0/33` is no block of addresses
              ┌ /shop/shiplap.yaml:12:24
            12 │     protect: { allow: [10.0.0.0/33] }
               │                        ^^^^^^^^^^^ no block of addresses
               = help: such as 192.0.2.0/24 or 2001:db8::/32
            error[config/wrong-value]: `http://shop.example` is no host name
             ┌ /shop/shiplap.yaml:9:17
            9 │       - { host: http://shop.example, service: web }
              │                 ^^^^^^^^^^^^^^^^^^^ this one
              = help: such as shop.example, or *.shop.example; without scheme, port and path
            error[config/wrong-value]: a route leads to a service or is a redirect, not both
              ┌ /shop/shiplap.yaml:10:21
            10 │       - { redirect: a, service: b, status: 200 }
               │                     ^ this one
               = help: leave one of them out
            error[config/wrong-value]: 200 is no redirect
              ┌ /shop/shiplap.yaml:10:44
            10 │       - { redirect: a, service: b, status: 200 }
               │                                            ^^^ this one
               = help: 301, 302, 303, 307 or 308
            error[config/wrong-value]: a route leads nowhere
              ┌ /shop/shiplap.yaml:11:9
            11 │       - { path: /x }
               │         ^^^^^^^^^^^^ this one
               = help: `service: NAME`
            error[config/same-project]: environments `dev` and `test` are both the Compose project `same`
              ┌ /shop/shiplap.yaml:17:25
            17 │   test: { project_name: same }
               │                         ^^^^ the other one has this name
               = help: leave `project_name` out, or write another one
            error[config/wrong-value]: `vm1` is no address of an engine
             ┌ /shop/shiplap.yaml:2:18
            2 │ targets: { core: vm1 }
              │                  ^^^ not an address
              = help: `local`, `unix:///path`, `tcp://host:port` or `ssh://user@host`
            error[config/wrong-value]: `here` is no address and port
             ┌ /shop/shiplap.yaml:3:15
            3 │ edge: { http: here }
              │               ^^^^ not an address
              = help: such as 127.0.0.1:7080
        "#]],
    );
}

#[test]
fn an_unknown_environment_is_answered_with_those_there_are() {
    let config = config("environments:\n  prod: {}\n  dev: {}\n").expect("fine");
    let problems = config.environment("prd", "shop").expect_err("unknown");
    expect![[r#"
        error[config/unknown-environment]: there is no environment `prd`
         ┌ /shop/shiplap.yaml:1:1
        1 │ environments:
          │ ^^^^^^^^^^^^ not among these
          = help: did you mean `prod`?
    "#]]
    .assert_eq(&said(problems));
}

#[test]
fn names_paths_and_variables_are_whole() {
    let text = "
project: shop
compose: [compose.yaml]
environments:
  dev:
    compose: [compose.dev.yaml]
    env_files: [.env.dev]
    versions: .env.versions
    variables: { DEBUG: true, SIZE: 3, NAME: x }
    domain: '{environment}.shop.example'
    x-note: ignored
";
    let problems = config(text).expect_err("x- is for the top only");
    assert_eq!(problems[0].code, "config/unknown-key");
    let settings = settings(&text.replace("    x-note: ignored\n", ""), "dev");
    assert_eq!(settings.project_name, "shop-dev");
    assert_eq!(
        settings.files,
        [Path::new("/shop/compose.yaml"), Path::new("/shop/compose.dev.yaml")]
    );
    assert_eq!(settings.versions.as_deref(), Some(Path::new("/shop/.env.versions")));
    assert_eq!(settings.variables["DEBUG"], "true");
    assert_eq!(settings.domain.as_deref(), Some("dev.shop.example"));
}

/// Acting on this machine's engine instead would be the worst of all answers.
#[test]
fn a_target_that_cannot_be_reached_yet_is_refused_where_it_is_used() {
    let targets = "targets: { core: 'tcp://vm1:2376', vm2: 'ssh://deploy@vm2', here: local }\n";
    let used = format!("{targets}environments: {{ prod: {{ target: core }} }}\n");
    assert_eq!(config(&used).expect_err("not there yet")[0].code, "config/not-yet");
    for reached in ["here", "vm2"] {
        let unused = format!("{targets}environments: {{ prod: {{ target: {reached} }} }}\n");
        assert!(config(&unused).is_ok());
    }
}

#[test]
fn the_environment_default_is_what_was_there_before() {
    let text = "project: shop\nenvironments: { default: {}, dev: {} }\n";
    assert_eq!(settings(text, "default").project_name, "shop");
    assert_eq!(settings(text, "dev").project_name, "shop-dev");
}

#[test]
fn routes_lead_to_declared_ports_and_carry_the_environments_protection() {
    let text = "
environments:
  dev:
    protect: { basic_auth: good.htpasswd, noindex: true }
    tls: { acme: { email: a@shop.example }, hsts: 365d }
    routes:
      - { host: 'WWW.{environment}.example', service: web }
      - { host: dev.example, path: /api, service: api, strip_path: true, body: 64MiB, plain: allow }
      - { host: dev.example, service: db, port: 5432, protect: { allow: [192.0.2.7] } }
      - { host: old.example, redirect: 'https://{environment}.example' }
";
    expect![[r#"
        guard: basic auth, noindex
        www.dev.example at http+https -> web:3000: basic auth, noindex, to https, hsts
        dev.example/api at http+https -> api:8000: basic auth, noindex, hsts, body limit, path taken off
        dev.example at http+https -> db:5432: allow list, to https, hsts
        old.example at http+https -> https://dev.example (308): noindex, to https, hsts"#]].assert_eq(&routes(text));
}

#[test]
fn wrong_routes_are_explained() {
    let text = "
environments:
  dev:
    protect: { basic_auth: md5.htpasswd }
    routes:
      - { service: wep }
      - { service: worker }
      - { path: /a, service: web, protect: { basic_auth: none.htpasswd } }
      - { path: /a, service: api }
";
    expect![[r#"
        error[config/htpasswd]: the password of `bob` in `/shop/md5.htpasswd` is not hashed by bcrypt
         ┌ /shop/shiplap.yaml:4:28
        4 │     protect: { basic_auth: md5.htpasswd }
          │                            ^^^^^^^^^^^^ named here
          = help: `shiplap htpasswd bob` prints a line that is
        error[config/unknown-service]: environment `dev` has no service `wep`
         ┌ /shop/shiplap.yaml:6:20
        6 │       - { service: wep }
          │                    ^^^ no such service
          = help: did you mean `web`?
        error[config/no-port]: which port of `worker` answers, no file says
         ┌ /shop/shiplap.yaml:7:20
        7 │       - { service: worker }
          │                    ^^^^^^ no port is known
          = help: `port: 8000`
        error[config/unreadable]: cannot read `/shop/none.htpasswd`: entity not found
         ┌ /shop/shiplap.yaml:8:58
        8 │       - { path: /a, service: web, protect: { basic_auth: none.htpasswd } }
          │                                                          ^^^^^^^^^^^^^ named here
          = help: `shiplap htpasswd NAME >> /shop/none.htpasswd` makes it
        error[config/same-route]: two routes are about http://*/a
         ┌ /shop/shiplap.yaml:9:9
        9 │       - { path: /a, service: api }
          │         ^^^^^^^^^^^^^^^^^^^^^^^^^^ the second one
    "#]].assert_eq(&routes(text));
}

#[test]
fn a_job_waits_for_what_it_needs_and_the_rest_wait_for_it() {
    let text = "environments: { dev: { jobs: { before_switch: {
        migrate: { service: api, command: alembic upgrade head },
        seed: { service: api, command: [seed] } } } } }";
    let project = shaped(text).expect("fine");
    let waits = |name: &str| project.services[name].depends_on.keys().cloned().collect::<Vec<_>>();
    assert_eq!(waits("migrate"), ["db"]);
    assert_eq!(waits("seed"), ["db", "migrate"]);
    assert_eq!(waits("db"), Vec::<String>::new());
    assert_eq!(waits("worker"), ["migrate", "seed"]);
    let job = &project.services["migrate"];
    assert_eq!(
        job.command.as_deref(),
        Some(["alembic", "upgrade", "head"].map(str::to_owned).as_slice())
    );
    assert!(job.expose.is_empty() && job.image.as_deref() == Some("api"));
    let attachment = job.networks["default"].as_ref().expect("one");
    assert!(attachment.aliases.is_empty(), "callers of `backend` must not reach a job");
    let text = "environments: { dev: { jobs: { before_switch: {
        web: { service: api, command: a }, x: { service: apo, command: b } } } } }";
    expect![[r#"
        error[config/name-taken]: `web` is a service already
         ┌ /shop/shiplap.yaml:2:9
        2 │         web: { service: api, command: a }, x: { service: apo, command: b } } } } }
          │         ^^^ give the job another name
        error[config/unknown-service]: environment `dev` has no service `apo`
         ┌ /shop/shiplap.yaml:2:58
        2 │         web: { service: api, command: a }, x: { service: apo, command: b } } } } }
          │                                                          ^^^ no such service
    "#]]
    .assert_eq(&shaped(text).expect_err("wrong"));
}

#[test]
fn limits_are_split_over_those_that_say_nothing() {
    let text = "environments: { dev: { limits: { cpus: 2, memory: 1GiB } } }";
    let project = shaped(text).expect("fine");
    let limits = |name: &str| {
        let deploy = project.services[name].deploy.as_ref().expect("a limit");
        deploy.resources.as_ref().and_then(|r| r.limits.clone()).expect("a limit")
    };
    assert_eq!(limits("api").cpus, Some(0.5));
    assert_eq!(limits("db").memory.map(|m| m.bytes()), Some(256 << 20));

    let mut project = self::project();
    project.services["db"].cpus = Some(3.0);
    let problems = settings(text, "dev").shape(&mut project, &[]).expect_err("too little");
    expect![[r#"
        error[config/limit-exceeded]: the services of `dev` ask for 3 of cpus by themselves, and the environment has 2
         ┌ /shop/shiplap.yaml:1:40
        1 │ environments: { dev: { limits: { cpus: 2, memory: 1GiB } } }
          │                                        ^ too little
          = help: raise the limit, or lower `deploy.resources.limits` of a service
    "#]].assert_eq(&said(problems));
}

#[test]
fn ports_and_services_can_be_left_out() {
    let project =
        shaped("environments: { dev: { ports: none, exclude: [worker] } }").expect("fine");
    assert!(project.services["web"].ports.is_empty());
    assert_eq!(project.services["web"].expose, ["3000"]);
    assert!(!project.services.contains_key("worker"));
    let project = shaped("environments: { dev: { ports: any } }").expect("fine");
    assert_eq!(project.services["web"].ports[0].published, None);
    let text = "environments: { dev: { exclude: [db, wep] } }";
    expect![[r#"
        error[config/excluded-dependency]: `api` depends on `db`, which is excluded
         ┌ /shop/shiplap.yaml:1:34
        1 │ environments: { dev: { exclude: [db, wep] } }
          │                                  ^^ needed by another service
          = help: exclude `api` too, or neither
        error[config/unknown-service]: there is no service `wep`
         ┌ /shop/shiplap.yaml:1:38
        1 │ environments: { dev: { exclude: [db, wep] } }
          │                                      ^^^ no such service
          = help: did you mean `web`?
    "#]]
    .assert_eq(&shaped(text).expect_err("needed"));
}

#[test]
fn the_schema_knows_every_setting_and_describes_it() {
    let schema = shiplap_config::schema();
    let settings = schema["$defs"]["Environment"]["properties"].as_object().expect("properties");
    assert!(settings.contains_key("before_switch") || settings.contains_key("jobs"));
    for (definition, body) in schema["$defs"].as_object().expect("definitions") {
        for (name, setting) in body["properties"].as_object().into_iter().flatten() {
            assert!(setting.get("description").is_some(), "{definition}.{name} is not described");
        }
    }
}
