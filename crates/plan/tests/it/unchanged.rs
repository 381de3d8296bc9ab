//! What stays, and why what does not does not.

use expect_test::expect;

use crate::support::{check, check_with};

#[test]
fn no_change_is_an_empty_plan() {
    check(
        r#"
        services:
          api: { image: "api:v1", restart: always, ports: ["8000:8000"] }
        ---
        shop-api-1 d=1 routed held-names
        holder shop.names-1 api
    "#,
        expect![[r#"
            = api  unchanged
            nothing to do
        "#]],
    );
}

#[test]
fn a_changed_variable_is_named_and_its_value_is_not() {
    check(
        r#"
        services:
          api: { image: "api:v1", restart: always, environment: { PASSWORD: hunter2 } }
        ---
        shop-api-1 d=1 changed=environment.PASSWORD,command
    "#,
        expect![[r#"
            ~ api  command changed, PASSWORD changed  start-first  (nothing ties it to one replica; gate: listening, or running for 1 s)
            ! api has no health check and no published port: it only has to listen on a port, or run for 1 s
            7 steps; undone by itself until step 5 (stop shop-api-1)
            1                create shop-api-1.d7
            2   <-1          start shop-api-1.d7
            3   <-2          gate shop-api-1.d7
            4   <-3          watch shop-api-1.d7 for 5 s
            5   <-4          stop shop-api-1
            6   <-5          rename shop-api-1 to shop-api-1.d1
            7   <-6          rename shop-api-1.d7 to shop-api-1
        "#]],
    );
}

#[test]
fn a_removed_variable_is_named() {
    check(
        r#"
        services:
          api: { image: "api:v1", restart: always }
        ---
        shop-api-1 d=1 changed=environment.OLD
    "#,
        expect![[r#"
            ~ api  OLD changed  start-first  (nothing ties it to one replica; gate: listening, or running for 1 s)
            ! api has no health check and no published port: it only has to listen on a port, or run for 1 s
            7 steps; undone by itself until step 5 (stop shop-api-1)
            1                create shop-api-1.d7
            2   <-1          start shop-api-1.d7
            3   <-2          gate shop-api-1.d7
            4   <-3          watch shop-api-1.d7 for 5 s
            5   <-4          stop shop-api-1
            6   <-5          rename shop-api-1 to shop-api-1.d1
            7   <-6          rename shop-api-1.d7 to shop-api-1
        "#]],
    );
}

#[test]
fn an_adopted_container_that_is_the_same_stays_with_its_port() {
    check(
        r#"
        services:
          api: { image: "api:v1", restart: always, ports: ["8000:8000"] }
        ---
        shop-api-1 publishes=8000:8000
    "#,
        expect![[r#"
            = api  unchanged
            nothing to do
        "#]],
    );
}

#[test]
fn an_adopted_container_that_is_replaced_hands_its_port_to_the_edge() {
    check(
        r#"
        services:
          api: { image: "api:v2", restart: always, ports: ["8000:8000"] }
        ---
        shop-api-1 image=api:v1 publishes=8000:8000
    "#,
        expect![[r#"
            ~ api  api:v1 → api:v2  image changed  start-first  (its port moves from the engine to the edge; gate: port 8000)
            ! port 8000 moves from the engine to the edge: api misses requests while its old container stops, this once
            11 steps; undone by itself until step 10 (rename shop-api-1 to shop-api-1.d0)
            1                make sure the edge runs
            2   <-1          hold the names of api in shop.names-1
            3   <-1,2        create shop-api-1.d7
            4   <-3          start shop-api-1.d7
            5   <-4          gate shop-api-1.d7
            6   <-5          answer to api
            7   <-5,6        stop shop-api-1
            8   <-5,6,7      switch api
            9   <-8          watch shop-api-1.d7 for 5 s
            10  <-9          rename shop-api-1 to shop-api-1.d0
            11  <-10         rename shop-api-1.d7 to shop-api-1
        "#]],
    );
}

#[test]
fn an_adopted_database_that_is_replaced_stops_first() {
    check(
        r#"
        services:
          db: { image: "db:v2", restart: always, ports: ["5432:5432"], volumes: ["data:/data"] }
        volumes: { data: {} }
        ---
        shop-db-1 image=db:v1 publishes=5432:5432
    "#,
        expect![[r#"
            ~ db  db:v1 → db:v2  image changed  stop-first  (writes to volume data; gate: port 5432)
            ! port 5432 moves from the engine to the edge: db misses requests while its old container stops, this once
            10 steps; undone by itself until step 9 (rename shop-db-1 to shop-db-1.d0)
            1                make sure the edge runs
            2   <-1          create shop-db-1.d7
            3   <-1,2        stop shop-db-1
            4   <-3          take over the port of db
            5   <-2,3        start shop-db-1.d7
            6   <-5          gate shop-db-1.d7
            7   <-4,6        switch db
            8   <-7          watch shop-db-1.d7 for 5 s
            9   <-8          rename shop-db-1 to shop-db-1.d0
            10  <-9          rename shop-db-1.d7 to shop-db-1
        "#]],
    );
}

#[test]
fn unselected_services_are_untouched() {
    check_with(
        r#"
        services:
          api: { image: "api:v2", restart: always }
          web: { image: "web:v2", restart: always, ports: ["80:80"] }
        ---
        shop-api-1 d=1 image=api:v1
        shop-web-1 d=1 image=web:v1 routed
    "#,
        |policy| policy.selection = shiplap_plan::Selection::Only(["api".to_owned()].into()),
        expect![[r#"
            ~ api  api:v1 → api:v2  image changed  start-first  (nothing ties it to one replica; gate: listening, or running for 1 s)
            = web  unchanged
            ! api has no health check and no published port: it only has to listen on a port, or run for 1 s
            7 steps; undone by itself until step 5 (stop shop-api-1)
            1                create shop-api-1.d7
            2   <-1          start shop-api-1.d7
            3   <-2          gate shop-api-1.d7
            4   <-3          watch shop-api-1.d7 for 5 s
            5   <-4          stop shop-api-1
            6   <-5          rename shop-api-1 to shop-api-1.d1
            7   <-6          rename shop-api-1.d7 to shop-api-1
        "#]],
    );
}

#[test]
fn a_selected_service_brings_what_it_needs_and_does_not_exist() {
    check_with(
        r#"
        services:
          db: { image: "db:v1", restart: always }
          cache: { image: "cache:v2", restart: always }
          api: { image: "api:v1", restart: always, depends_on: [db, cache] }
          web: { image: "web:v1", restart: always }
        ---
        shop-cache-1 d=1 image=cache:v1
    "#,
        |policy| policy.selection = shiplap_plan::Selection::Only(["api".to_owned()].into()),
        expect![[r#"
            + api  api:v1  new  (gate: listening, or running for 1 s)
            + db   db:v1   new  (gate: listening, or running for 1 s)
            = cache web  unchanged
            ! db has no health check and no published port: it only has to listen on a port, or run for 1 s
            ! api has no health check and no published port: it only has to listen on a port, or run for 1 s
            6 steps
            1                create shop-db-1
            2                create shop-api-1
            3   <-1          start shop-db-1
            4   <-3          gate shop-db-1
            5   <-2,3        start shop-api-1
            6   <-5          gate shop-api-1
        "#]],
    );
}

#[test]
fn force_replaces_what_has_not_changed() {
    check_with(
        r#"
        services:
          api: { image: "api:v1", restart: always }
        ---
        shop-api-1 d=1
    "#,
        |policy| {
            policy.force.insert("api".to_owned());
        },
        expect![[r#"
            ~ api  asked for  start-first  (nothing ties it to one replica; gate: listening, or running for 1 s)
            ! api has no health check and no published port: it only has to listen on a port, or run for 1 s
            7 steps; undone by itself until step 5 (stop shop-api-1)
            1                create shop-api-1.d7
            2   <-1          start shop-api-1.d7
            3   <-2          gate shop-api-1.d7
            4   <-3          watch shop-api-1.d7 for 5 s
            5   <-4          stop shop-api-1
            6   <-5          rename shop-api-1 to shop-api-1.d1
            7   <-6          rename shop-api-1.d7 to shop-api-1
        "#]],
    );
}

#[test]
fn who_shares_the_network_of_a_replaced_service_is_made_again() {
    check(
        r#"
        services:
          vpn: { image: "vpn:v2", restart: always }
          app: { image: "app:v1", restart: always, network_mode: "service:vpn" }
        ---
        shop-vpn-1 d=1 image=vpn:v1
        shop-app-1 d=1
    "#,
        expect![[r#"
            ~ app                   shares a namespace of vpn  stop-first   (lives in the network of service:vpn; gate: listening, or running for 1 s)
            ~ vpn  vpn:v1 → vpn:v2  image changed              start-first  (nothing ties it to one replica; gate: listening, or running for 1 s)
            ! calls from app to vpn inside the network go to the engine's own names and may meet the old replica as it stops
            ! vpn has no health check and no published port: it only has to listen on a port, or run for 1 s
            ! app has no health check and no published port: it only has to listen on a port, or run for 1 s
            ! app is down while it restarts (lives in the network of service:vpn)
            13 steps; undone by itself until step 9 (stop shop-vpn-1)
            1                create shop-vpn-1.d7
            2   <-1          create shop-app-1.d7
            3   <-1          start shop-vpn-1.d7
            4   <-3          gate shop-vpn-1.d7
            5   <-1,2,4      stop shop-app-1
            6   <-2,3,5      start shop-app-1.d7
            7   <-6          gate shop-app-1.d7
            8   <-4,7        watch shop-app-1.d7 shop-vpn-1.d7 for 5 s
            9   <-8          stop shop-vpn-1
            10  <-9          rename shop-vpn-1 to shop-vpn-1.d1
            11  <-10         rename shop-vpn-1.d7 to shop-vpn-1
            12  <-8          rename shop-app-1 to shop-app-1.d1
            13  <-12         rename shop-app-1.d7 to shop-app-1
        "#]],
    );
}

#[test]
fn a_job_that_ended_well_is_not_run_again() {
    check(
        r#"
        services:
          migrate: { image: "api:v1", command: migrate }
          api:
            image: "api:v1"
            restart: always
            depends_on: { migrate: { condition: service_completed_successfully } }
        ---
        shop-migrate-1 d=1 exited=0
        shop-api-1 d=1
    "#,
        expect![[r#"
            = api migrate  unchanged
            nothing to do
        "#]],
    );
}

#[test]
fn a_job_of_another_release_is_run_before_the_service() {
    check(
        r#"
        services:
          migrate: { image: "api:v2", command: migrate }
          api:
            image: "api:v2"
            restart: always
            depends_on: { migrate: { condition: service_completed_successfully } }
        ---
        shop-migrate-1 d=1 image=api:v1 exited=0
        shop-api-1 d=1 image=api:v1
    "#,
        expect![[r#"
            ~ api      api:v1 → api:v2  image changed  start-first  (nothing ties it to one replica; gate: listening, or running for 1 s)
            ~ migrate  api:v1 → api:v2  image changed  start-first  (nothing ties it to one replica; gate: must end with code 0)
            ! api has no health check and no published port: it only has to listen on a port, or run for 1 s
            12 steps; undone by itself until step 8 (rename shop-migrate-1 to shop-migrate-1.d1)
            1                create shop-migrate-1.d7
            2                create shop-api-1.d7
            3   <-1          start shop-migrate-1.d7
            4   <-3          gate shop-migrate-1.d7
            5   <-2,4        start shop-api-1.d7
            6   <-5          gate shop-api-1.d7
            7   <-4,6        watch shop-api-1.d7 for 5 s
            8   <-7          rename shop-migrate-1 to shop-migrate-1.d1
            9   <-8          rename shop-migrate-1.d7 to shop-migrate-1
            10  <-7          stop shop-api-1
            11  <-10         rename shop-api-1 to shop-api-1.d1
            12  <-11         rename shop-api-1.d7 to shop-api-1
        "#]],
    );
}

#[test]
fn a_server_that_ended_with_0_is_not_a_job() {
    check(
        r#"
        services:
          api: { image: "api:v1", ports: ["8000:8000"] }
        ---
        shop-api-1 d=1 exited=0
    "#,
        expect![[r#"
            ~ api  api:v1  exited with 0  start-first  (nothing ties it to one replica; the container of deployment 1 comes back; gate: port 8000)
            6 steps
            1                make sure the edge runs
            2   <-1          open port 8000
            3                start shop-api-1
            4   <-3          gate shop-api-1
            5   <-4          switch api
            6   <-5          watch shop-api-1 for 5 s
        "#]],
    );
}

#[test]
fn a_service_that_crashed_is_started_again() {
    check(
        r#"
        services:
          worker: { image: "worker:v1", restart: always }
        ---
        shop-worker-1 d=1 exited=1
    "#,
        expect![[r#"
            ~ worker  worker:v1  exited with 1  start-first  (nothing ties it to one replica; the container of deployment 1 comes back; gate: listening, or running for 1 s)
            ! worker has no health check and no published port: it only has to listen on a port, or run for 1 s
            3 steps
            1                start shop-worker-1
            2   <-1          gate shop-worker-1
            3   <-2          watch shop-worker-1 for 5 s
        "#]],
    );
}

#[test]
fn a_rollback_revives_the_stopped_replica() {
    check(
        r#"
        services:
          api: { image: "api:v1", restart: always, ports: ["8000:8000"] }
        ---
        shop-api-1.d1 d=1 image=api:v1 exited=0 held-names
        shop-api-1 d=2 image=api:v2 routed held-names
        holder shop.names-1 api
    "#,
        expect![[r#"
            ~ api  api:v2 → api:v1  image changed  start-first  (nothing ties it to one replica; the container of deployment 1 comes back; gate: port 8000)
            9 steps; undone by itself until step 6 (drain shop-api-1)
            1                make sure the edge runs
            2                start shop-api-1.d1
            3   <-2          gate shop-api-1.d1
            4   <-3          switch api
            5   <-4          watch shop-api-1.d1 for 5 s
            6   <-5          drain shop-api-1
            7   <-6          stop shop-api-1
            8   <-7          rename shop-api-1 to shop-api-1.d2
            9   <-8          rename shop-api-1.d1 to shop-api-1
        "#]],
    );
}

#[test]
fn a_rollback_thaws_the_frozen_replica() {
    check(
        r#"
        services:
          api: { image: "api:v1", restart: always, ports: ["8000:8000"] }
        ---
        shop-api-1.d1 d=1 image=api:v1 paused held-names
        shop-api-1 d=2 image=api:v2 routed held-names
        holder shop.names-1 api
    "#,
        expect![[r#"
            ~ api  api:v2 → api:v1  image changed  start-first  (nothing ties it to one replica; the container of deployment 1 comes back; gate: port 8000)
            9 steps; undone by itself until step 6 (drain shop-api-1)
            1                make sure the edge runs
            2                thaw shop-api-1.d1
            3   <-2          gate shop-api-1.d1
            4   <-3          switch api
            5   <-4          watch shop-api-1.d1 for 5 s
            6   <-5          drain shop-api-1
            7   <-6          stop shop-api-1
            8   <-7          rename shop-api-1 to shop-api-1.d2
            9   <-8          rename shop-api-1.d1 to shop-api-1
        "#]],
    );
}

#[test]
fn a_replica_that_failed_is_not_revived() {
    check(
        r#"
        services:
          api: { image: "api:v1", restart: always }
        ---
        shop-api-1.d1.failed d=1 image=api:v1 exited=0
        shop-api-1 d=2 image=api:v2
    "#,
        expect![[r#"
            ~ api  api:v2 → api:v1  image changed  start-first  (nothing ties it to one replica; gate: listening, or running for 1 s)
            ! api has no health check and no published port: it only has to listen on a port, or run for 1 s
            8 steps; undone by itself until step 5 (remove shop-api-1.d1.failed)
            1                create shop-api-1.d7
            2   <-1          start shop-api-1.d7
            3   <-2          gate shop-api-1.d7
            4   <-3          watch shop-api-1.d7 for 5 s
            5   <-4          remove shop-api-1.d1.failed
            6   <-4          stop shop-api-1
            7   <-6          rename shop-api-1 to shop-api-1.d2
            8   <-7          rename shop-api-1.d7 to shop-api-1
        "#]],
    );
}

#[test]
fn a_crash_looping_replica_is_stopped_before_it_is_put_aside() {
    check(
        r#"
        services:
          worker: { image: "worker:v2", restart: always }
        ---
        shop-worker-1 d=1 image=worker:v1 restarting
    "#,
        expect![[r#"
            ~ worker  worker:v1 → worker:v2  image changed  start-first  (nothing ties it to one replica; gate: listening, or running for 1 s)
            ! worker has no health check and no published port: it only has to listen on a port, or run for 1 s
            7 steps; undone by itself until step 5 (stop shop-worker-1)
            1                create shop-worker-1.d7
            2   <-1          start shop-worker-1.d7
            3   <-2          gate shop-worker-1.d7
            4   <-3          watch shop-worker-1.d7 for 5 s
            5   <-4          stop shop-worker-1
            6   <-5          rename shop-worker-1 to shop-worker-1.d1
            7   <-6          rename shop-worker-1.d7 to shop-worker-1
        "#]],
    );
}

#[test]
fn an_adopted_replica_is_put_aside_once_an_older_one_gave_up_the_name() {
    check(
        r#"
        services:
          worker: { image: "worker:v2", restart: always }
        ---
        shop-worker-1.d0 image=worker:v0 exited=0
        shop-worker-1 image=worker:v1
    "#,
        expect![[r#"
            ~ worker  worker:v1 → worker:v2  image changed  start-first  (nothing ties it to one replica; gate: listening, or running for 1 s)
            ! worker has no health check and no published port: it only has to listen on a port, or run for 1 s
            8 steps; undone by itself until step 5 (remove shop-worker-1.d0)
            1                create shop-worker-1.d7
            2   <-1          start shop-worker-1.d7
            3   <-2          gate shop-worker-1.d7
            4   <-3          watch shop-worker-1.d7 for 5 s
            5   <-4          remove shop-worker-1.d0
            6   <-4          stop shop-worker-1
            7   <-5,6        rename shop-worker-1 to shop-worker-1.d0
            8   <-7          rename shop-worker-1.d7 to shop-worker-1
        "#]],
    );
}

#[test]
fn an_image_that_goes_by_latest_is_said_to_be_pinned() {
    let yaml = |tag: &str| {
        format!(
            r#"
            services:
              api: {{ image: "api:{tag}", restart: always, ports: ["8000:8000"] }}
            x-images: {{ "api:{tag}": {{ pull: true }} }}
            ---
            "#
        )
    };
    let note = "! api runs api:latest as it is now (digest-of-ap)";
    assert!(crate::support::planned(&yaml("latest"), |_| ()).contains(note));
    assert!(!crate::support::planned(&yaml("v1"), |_| ()).contains("as it is now"));
}
