//! Routes at the shared entries.

use expect_test::expect;
use shiplap_model::Goal;
use shiplap_plan::Selection;

use crate::support::{check, check_with};

/// A service that nothing publishes, with a route and protection.
const SHOP: &str = r#"
services:
  web: { image: "web:v2", restart: always, expose: ["3000"] }
  db: { image: "db:v1", restart: always, volumes: ["data:/data"] }
volumes: { data: {} }
x-routes:
  entries: [{ name: http, port: 80 }]
  routes:
    - { host: shop.example, path: /, entries: [http], service: { service: web, port: 3000 },
        policy: { noindex: true } }
---
"#;

const AS_BEFORE: &str = r#"
shop-db-1 d=1
shop-web-1 d=1 image=web:v1 routed held-names
holder shop.names-1 web
"#;

fn shop(machine: &str) -> String {
    format!("{SHOP}{machine}")
}

#[test]
fn a_first_deployment_opens_the_entry_before_anything_runs_and_routes_at_the_switch() {
    check(
        &shop(""),
        expect![[r#"
        + db   db:v1   new  (gate: listening, or running for 1 s)
        + web  web:v2  new  (gate: port 3000)
        + http://shop.example → web:3000  (noindex)
        ! db has no health check and no published port: it only has to listen on a port, or run for 1 s
        13 steps
        1                make sure the edge runs
        2                create network shop_default
        3   <-1,2        hold the names of web in shop.names-1
        4                create volume shop_data
        5   <-1,3        open port 80, answer to web
        6   <-1,2,3,4,5  create shop-db-1
        7   <-1,2,3,4,5  create shop-web-1
        8   <-6          start shop-db-1
        9   <-8          gate shop-db-1
        10  <-7          start shop-web-1
        11  <-10         gate shop-web-1
        12  <-11         answer to web
        13  <-9,11,12    switch web
    "#]],
    );
}

#[test]
fn an_update_leaves_routes_that_stay_as_they_are_alone() {
    check(
        &shop(&format!("{AS_BEFORE}routes\n")),
        expect![[r#"
        ~ web  web:v1 → web:v2  image changed  start-first  (nothing ties it to one replica; gate: port 3000)
        = db  unchanged
        10 steps; undone by itself until step 7 (drain shop-web-1)
        1                make sure the edge runs
        2   <-1          create shop-web-1.d7
        3   <-2          start shop-web-1.d7
        4   <-3          gate shop-web-1.d7
        5   <-4          switch web
        6   <-5          watch shop-web-1.d7 for 5 s
        7   <-6          drain shop-web-1
        8   <-7          stop shop-web-1
        9   <-8          rename shop-web-1 to shop-web-1.d1
        10  <-9          rename shop-web-1.d7 to shop-web-1
    "#]],
    );
}

#[test]
fn a_route_that_changes_is_changed_without_touching_any_container() {
    let same = AS_BEFORE.replace("web:v1", "web:v2");
    let before = r#"routes {"routes": [{"host": "old.example", "path": "/", "entries": ["http"], "service": {"service": "web", "port": 3000}}]}"#;
    check(
        &shop(&format!("{same}{before}\n")),
        expect![[r#"
        = db web  unchanged
        + http://shop.example → web:3000  (noindex)
        - http://old.example → web:3000
        2 steps
        1                make sure the edge runs
        2   <-1          switch routes
    "#]],
    );
}

#[test]
fn routes_that_are_in_place_are_nothing_to_do() {
    let same = AS_BEFORE.replace("web:v1", "web:v2");
    check(
        &shop(&format!("{same}routes\n")),
        expect![[r#"
        = db web  unchanged
        nothing to do
    "#]],
    );
}

#[test]
fn routes_of_services_that_are_not_selected_stay() {
    let before = r#"routes {"routes": [{"host": "old.example", "path": "/", "entries": ["http"], "service": {"service": "web", "port": 3000}}]}"#;
    let only_db = |policy: &mut shiplap_plan::Policy| {
        policy.selection = Selection::Only(["db".to_owned()].into());
    };
    check_with(
        &shop(&format!("{AS_BEFORE}{before}\n")),
        only_db,
        expect![[r#"
        = db web  unchanged
        nothing to do
    "#]],
    );
}

#[test]
fn somebody_elses_route_and_a_taken_port_are_refused() {
    check(
        &shop("foreign-route blog/prod shop.example\nforeign-port 80 nginx\n"),
        expect![[r#"
            route-taken at : the route http://shop.example belongs to blog/prod (help: give one of them another host or path)
            entry-taken at : routes need port 80 on 0.0.0.0 for `http`, which container nginx has (help: stop that one, or let it send requests to the edge: `edge: { http: 127.0.0.1:7080 }` in shiplap.yaml)
        "#]],
    );
}

#[test]
fn a_service_without_an_address_cannot_be_routed_to() {
    let host = SHOP.replace("expose: [\"3000\"]", "network_mode: host");
    check(
        &host,
        expect![[r#"
        route-unreachable at services.web.network_mode: the route http://shop.example leads to `web`, which has no address of its own (help: give it a network of the project)
    "#]],
    );
}

#[test]
fn going_down_takes_the_routes_away() {
    let down = |policy: &mut shiplap_plan::Policy| policy.goal = Goal::Down;
    check_with(
        &shop(&format!("{AS_BEFORE}routes\n")),
        down,
        expect![[r#"
        - db   asked for
        - web  asked for
        - http://shop.example → web:3000  (noindex)
        ! volume shop_data stays; `down --volumes` removes it
        5 steps
        1                close ports
        2   <-1          remove shop-db-1
        3   <-1          remove shop-web-1
        4   <-1          remove shop.names-1
        5   <-2,3,4      remove network shop_default
    "#]],
    );
}

#[test]
fn protection_of_published_ports_is_there_when_they_open() {
    check(
        r#"
        services:
          web: { image: "web:v1", restart: always, ports: ["8080:3000"] }
        x-routes: { guard: { basic_auth: { realm: dev, users: { ann: hash } } } }
        "#,
        expect![[r#"
            + web  web:v1  new  (gate: port 3000)
            ~ published ports  (basic auth)
            9 steps
            1                make sure the edge runs
            2                create network shop_default
            3   <-1,2        hold the names of web in shop.names-1
            4   <-1,3        open port 8080, answer to web
            5   <-1,2,3,4    create shop-web-1
            6   <-5          start shop-web-1
            7   <-6          gate shop-web-1
            8   <-7          answer to web
            9   <-7,8        switch web
        "#]],
    );
}
