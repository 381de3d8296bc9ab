//! What the planner says no to.

use expect_test::expect;

use crate::support::{check, check_with};

#[test]
fn start_first_for_two_databases_on_one_volume() {
    check(
        r#"
        services:
          db:
            image: "postgres:16"
            volumes: ["data:/var/lib/postgresql/data"]
            deploy: { update_config: { order: start-first } }
        volumes: { data: {} }
    "#,
        expect![[r#"
            two-writers at services.db.deploy.update_config.order: `db` asks for start-first, but it writes to volume data: two postgres processes on one volume destroy the data (help: write `order: stop-first`; requests are held while it restarts)
        "#]],
    );
}

#[test]
fn a_host_port_of_another_environment() {
    check(
        r#"
        services:
          api: { image: "api:v2", restart: always, ports: ["8000:8000"] }
        ---
        foreign-listener 8000 blog/default
    "#,
        expect![[r#"
            host-port-taken at services.api.ports: host port 8000 of `api` is held by environment blog/default (help: stop that one, or publish another host port)
        "#]],
    );
}

#[test]
fn a_host_port_of_another_projects_container() {
    check(
        r#"
        services:
          api: { image: "api:v2", restart: always, ports: ["8000:8000"] }
        ---
        foreign-port 8000 blog-web-1
    "#,
        expect![[r#"
            host-port-taken at services.api.ports: host port 8000 of `api` is held by container blog-web-1 (help: stop that one, or publish another host port)
        "#]],
    );
}

#[test]
fn a_taken_port_of_a_service_that_is_not_touched_is_no_reason() {
    check_with(
        r#"
        services:
          api: { image: "api:v1", restart: always, ports: ["8000:8000"] }
          web: { image: "web:v2", restart: always }
        ---
        shop-api-1 d=1 publishes=8000:8000
        shop-web-1 d=1 image=web:v1
        foreign-port 8000 blog-web-1
    "#,
        |policy| policy.selection = shiplap_plan::Selection::Only(["web".to_owned()].into()),
        expect![[r#"
            ~ web  web:v1 → web:v2  image changed  start-first  (nothing ties it to one replica; gate: listening, or running for 1 s)
            = api  unchanged
            ! web has no health check and no published port: it only has to listen on a port, or run for 1 s
            7 steps; undone by itself until step 5 (stop shop-web-1)
            1                create shop-web-1.d7
            2   <-1          start shop-web-1.d7
            3   <-2          gate shop-web-1.d7
            4   <-3          watch shop-web-1.d7 for 5 s
            5   <-4          stop shop-web-1
            6   <-5          rename shop-web-1 to shop-web-1.d1
            7   <-6          rename shop-web-1.d7 to shop-web-1
        "#]],
    );
}

#[test]
fn one_host_port_for_two_services() {
    check(
        r#"
        services:
          api: { image: "api:v1", ports: ["8000:8000"] }
          web: { image: "web:v1", ports: ["8000:3000"] }
    "#,
        expect![[r#"
            host-port-twice at services.web.ports: `web` and `api` both publish host port 8000 (help: give one of them another host port)
        "#]],
    );
}

#[test]
fn one_host_port_on_two_addresses_is_fine() {
    check(
        r#"
        services:
          api: { image: "api:v1", restart: always, ports: ["127.0.0.1:8000:8000"] }
          web: { image: "web:v1", restart: always, ports: ["127.0.0.2:8000:3000"] }
    "#,
        expect![[r#"
            + api  api:v1  new  (gate: port 8000)
            + web  web:v1  new  (gate: port 3000)
            13 steps
            1                make sure the edge runs
            2                create network shop_default
            3   <-1,2        hold the names of api web in shop.names-1
            4   <-1,3        open port 8000, answer to api web
            5   <-1,2,3,4    create shop-api-1
            6   <-1,2,3,4    create shop-web-1
            7   <-5          start shop-api-1
            8   <-7          gate shop-api-1
            9   <-8          answer to api
            10  <-6          start shop-web-1
            11  <-10         gate shop-web-1
            12  <-11         answer to web
            13  <-8,9,11,12  switch api web
        "#]],
    );
}

#[test]
fn a_container_name_that_somebody_else_has() {
    check(
        r#"
        services:
          api: { image: "api:v1", container_name: the-api }
        ---
        foreign-name the-api
    "#,
        expect![[r#"
            name-taken at services.api.container_name: a container of another project is called `the-api` (help: `docker rm the-api` if it is not needed, or choose another name)
        "#]],
    );
}

#[test]
fn an_external_network_that_is_not_there() {
    check(
        r#"
        services:
          api: { image: "api:v1", networks: [proxy] }
        networks: { proxy: { external: true, name: traefik } }
    "#,
        expect![[r#"
            external-missing at networks.proxy: the external network `traefik` does not exist on this engine (help: `docker network create traefik`)
        "#]],
    );
}

#[test]
fn an_external_volume_that_is_not_there() {
    check(
        r#"
        services:
          api: { image: "api:v1", volumes: ["data:/data"] }
        volumes: { data: { external: true, name: precious } }
    "#,
        expect![[r#"
            external-missing at volumes.data: the external volume `precious` does not exist on this engine (help: `docker volume create precious`)
        "#]],
    );
}

#[test]
fn a_service_that_is_not_in_the_file() {
    check_with(
        r#"
        services:
          api: { image: "api:v1" }
    "#,
        |policy| policy.selection = shiplap_plan::Selection::Only(["apo".to_owned()].into()),
        expect![[r#"
            unknown-service at services: there is no service `apo` in this project (help: its services are api)
        "#]],
    );
}

#[test]
fn every_refusal_at_once() {
    check(
        r#"
        services:
          api: { image: "api:v1", ports: ["8000:8000"], networks: [proxy] }
          web: { image: "web:v1", ports: ["8000:3000"] }
        networks: { proxy: { external: true, name: traefik } }
    "#,
        expect![[r#"
            host-port-twice at services.web.ports: `web` and `api` both publish host port 8000 (help: give one of them another host port)
            external-missing at networks.proxy: the external network `traefik` does not exist on this engine (help: `docker network create traefik`)
        "#]],
    );
}

/// The loader refuses cycles of `depends_on` already, so this one is made by hand.
#[test]
fn services_that_wait_for_each_other() {
    let mut desired = shiplap_testkit::desired(
        "services: { a: { image: a, depends_on: [b] }, b: { image: b }, c: { image: c } }",
    );
    let on_a = desired.services["a"].service.depends_on["b"].clone();
    let b = desired.services.get_mut("b").unwrap();
    b.service.depends_on.insert("a".to_owned(), on_a);
    let policy = shiplap_plan::Policy::deploy(1);
    let refusals = shiplap_plan::plan(&desired, &Default::default(), &policy).unwrap_err();
    assert_eq!(refusals[0].code, "dependency-cycle");
    assert_eq!(refusals[0].message, "these services wait for each other: a, b");
}
