//! What comes, grows, shrinks and goes.

use expect_test::expect;

use crate::support::{check, check_with};

#[test]
fn a_first_deployment_makes_everything() {
    check(
        r#"
        services:
          db: { image: "db:v1", restart: always, volumes: ["data:/data"], healthcheck: { test: [CMD, "true"] } }
          api:
            image: "api:v1"
            restart: always
            ports: ["8000:8000"]
            depends_on: { db: { condition: service_healthy } }
        volumes: { data: {} }
    "#,
        expect![[r#"
            + api  api:v1  new  (gate: port 8000)
            + db   db:v1   new  (gate: health check)
            13 steps
            1                make sure the edge runs
            2                create network shop_default
            3   <-1,2        hold the names of api in shop.names-1
            4                create volume shop_data
            5   <-1,3        open port 8000, answer to api
            6   <-1,2,3,4,5  create shop-db-1
            7   <-1,2,3,4,5  create shop-api-1
            8   <-6          start shop-db-1
            9   <-8          gate shop-db-1
            10  <-7,9        start shop-api-1
            11  <-10         gate shop-api-1
            12  <-11         answer to api
            13  <-9,11,12    switch api
        "#]],
    );
}

#[test]
fn images_are_pulled_and_built_before_anything_is_made() {
    check(
        r#"
        x-images: { "api:v1": { pull: true } }
        services:
          api: { image: "api:v1", restart: always }
          web: { build: ., restart: always }
    "#,
        expect![[r#"
            + api  api:v1           new  (pulled; gate: health check, if its image has one)
            + web  shop-web:latest  new  (built from /srv/shop; gate: health check, if its image has one)
            ! web is built here: shop-web:latest is in no registry that answers
            9 steps
            1                pull api:v1
            2                build shop-web:latest
            3   <-1,2        create network shop_default
            4   <-1,2,3      create shop-api-1
            5   <-1,2,3      create shop-web-1
            6   <-4          start shop-api-1
            7   <-6          gate shop-api-1
            8   <-5          start shop-web-1
            9   <-8          gate shop-web-1
        "#]],
    );
}

#[test]
fn a_pull_of_one_image_for_two_services_happens_once() {
    check(
        r#"
        x-images: { "api:v1": { pull: true } }
        services:
          api: { image: "api:v1", restart: always }
          worker: { image: "api:v1", restart: always, command: work }
    "#,
        expect![[r#"
            + api     api:v1  new  (pulled; gate: health check, if its image has one)
            + worker  api:v1  new  (pulled; gate: health check, if its image has one)
            8 steps
            1                pull api:v1
            2   <-1          create network shop_default
            3   <-1,2        create shop-api-1
            4   <-1,2        create shop-worker-1
            5   <-3          start shop-api-1
            6   <-5          gate shop-api-1
            7   <-4          start shop-worker-1
            8   <-7          gate shop-worker-1
        "#]],
    );
}

#[test]
fn a_job_must_complete_before_what_waits_for_it_starts() {
    check(
        r#"
        services:
          migrate: { image: "api:v1", command: migrate }
          api:
            image: "api:v1"
            restart: always
            depends_on: { migrate: { condition: service_completed_successfully } }
    "#,
        expect![[r#"
            + api      api:v1  new  (gate: listening, or running for 1 s)
            + migrate  api:v1  new  (gate: must end with code 0)
            ! api has no health check and no published port: it only has to listen on a port, or run for 1 s
            7 steps
            1                create network shop_default
            2   <-1          create shop-migrate-1
            3   <-1          create shop-api-1
            4   <-2          start shop-migrate-1
            5   <-4          gate shop-migrate-1
            6   <-3,5        start shop-api-1
            7   <-6          gate shop-api-1
        "#]],
    );
}

#[test]
fn more_replicas_leave_the_others_alone() {
    check(
        r#"
        services:
          api: { image: "api:v1", restart: always, ports: ["8000:8000"], deploy: { replicas: 3 } }
        ---
        shop-api-1 d=1 routed held-names
        holder shop.names-1 api
    "#,
        expect![[r#"
            ~ api  1 → 3 replicas  (3 replicas; gate: port 8000)
            8 steps
            1                make sure the edge runs
            2   <-1          create shop-api-2
            3   <-1          create shop-api-3
            4   <-2,3        start shop-api-2
            5   <-4          gate shop-api-2
            6   <-2,3        start shop-api-3
            7   <-6          gate shop-api-3
            8   <-5,7        switch api
        "#]],
    );
}

#[test]
fn fewer_replicas_leave_after_the_switch_and_are_removed() {
    check(
        r#"
        services:
          api: { image: "api:v1", restart: always, ports: ["8000:8000"] }
        ---
        shop-api-1 d=1 routed held-names
        shop-api-2 d=1 routed held-names
        shop-api-3 d=1 routed held-names
        holder shop.names-1 api
    "#,
        expect![[r#"
            ~ api  3 → 1 replicas
            6 steps; undone by itself until step 3 (drain shop-api-2)
            1                make sure the edge runs
            2   <-1          switch api
            3   <-2          drain shop-api-2
            4   <-3          remove shop-api-2
            5   <-2          drain shop-api-3
            6   <-5          remove shop-api-3
        "#]],
    );
}

#[test]
fn no_replicas_take_the_last_one_away() {
    check(
        r#"
        services:
          worker: { image: "worker:v1", restart: always, deploy: { replicas: 0 } }
        ---
        shop-worker-1 d=1
    "#,
        expect![[r#"
            ~ worker  1 → 0 replicas  (0 replicas)
            1 step
            1                remove shop-worker-1
        "#]],
    );
}

#[test]
fn an_orphan_stays_and_is_named() {
    check(
        r#"
        services:
          api: { image: "api:v1", restart: always }
        ---
        shop-api-1 d=1
        shop-old-1 d=1 image=old:v1
    "#,
        expect![[r#"
            ? old  not in the Compose file
            = api  unchanged
            ! old is not in the Compose file and stays (shop-old-1); --remove-orphans removes it
            nothing to do
        "#]],
    );
}

#[test]
fn an_orphan_goes_when_asked_for() {
    check_with(
        r#"
        services:
          api: { image: "api:v1", restart: always }
        ---
        shop-api-1 d=1
        shop-old-1 d=1 image=old:v1
        listener 9000 old:9000
    "#,
        |policy| policy.remove_orphans = true,
        expect![[r#"
            - old  not in the Compose file
            = api  unchanged
            2 steps; undone by itself until step 2 (remove shop-old-1)
            1                switch old
            2   <-1          remove shop-old-1
        "#]],
    );
}

#[test]
fn a_port_that_is_not_published_any_more_is_closed() {
    check(
        r#"
        services:
          api: { image: "api:v1", restart: always, expose: ["8000"] }
        ---
        shop-api-1 d=1 changed=ports
        listener 8000 api:8000
    "#,
        expect![[r#"
            ~ api  ports changed  start-first  (nothing ties it to one replica; gate: listening, or running for 1 s)
            ! api has no health check and no published port: it only has to listen on a port, or run for 1 s
            12 steps; undone by itself until step 9 (drain shop-api-1)
            1                make sure the edge runs
            2   <-1          hold the names of api in shop.names-1
            3   <-1,2        answer to api
            4   <-1,2,3      create shop-api-1.d7
            5   <-4          start shop-api-1.d7
            6   <-5          gate shop-api-1.d7
            7   <-6          switch api
            8   <-7          watch shop-api-1.d7 for 5 s
            9   <-8          drain shop-api-1
            10  <-9          stop shop-api-1
            11  <-10         rename shop-api-1 to shop-api-1.d1
            12  <-11         rename shop-api-1.d7 to shop-api-1
        "#]],
    );
}

#[test]
fn another_host_port_replaces_nothing() {
    check(
        r#"
        services:
          api: { image: "api:v1", restart: always, ports: ["8001:8000"] }
        ---
        shop-api-1 d=1 routed held-names
        listener 8000 api:8000
        holder shop.names-1 api
    "#,
        expect![[r#"
            ~ api  route changed
            2 steps
            1                make sure the edge runs
            2   <-1          switch api
        "#]],
    );
}

#[test]
fn down_keeps_volumes_and_says_so() {
    check_with(
        r#"
        services:
          db: { image: "db:v1", restart: always, ports: ["5432:5432"], volumes: ["data:/data", "old:/old"] }
        volumes: { data: {}, old: { external: true, name: precious } }
        ---
        shop-db-1 d=1 routed
        shop-db-1.d0 exited=0 image=db:v0
        shop-old-1 image=old:v1
    "#,
        |policy| policy.goal = shiplap_model::Goal::Down,
        expect![[r#"
            - db   asked for
            - old  asked for
            ! volume shop_data stays; `down --volumes` removes it
            5 steps
            1                close ports
            2   <-1          remove shop-db-1
            3   <-1          remove shop-db-1.d0
            4   <-1          remove shop-old-1
            5   <-2,3,4      remove network shop_default
        "#]],
    );
}

#[test]
fn down_removes_the_projects_own_volumes_when_asked_for() {
    check_with(
        r#"
        services:
          db: { image: "db:v1", restart: always, volumes: ["data:/data", "old:/old"] }
        volumes: { data: {}, old: { external: true, name: precious } }
        ---
        shop-db-1 d=1
    "#,
        |policy| {
            policy.goal = shiplap_model::Goal::Down;
            policy.remove_volumes = true;
        },
        expect![[r#"
            - db  asked for
            ! volume shop_data is removed with all that is in it
            3 steps
            1                remove shop-db-1
            2   <-1          remove network shop_default
            3   <-1          remove volume shop_data
        "#]],
    );
}

#[test]
fn a_random_host_port_is_kept() {
    check(
        r#"
        services:
          api: { image: "api:v2", restart: always, ports: ["8000"] }
        ---
        shop-api-1 d=1 image=api:v1 routed held-names
        listener 49152 api:8000
        holder shop.names-1 api
    "#,
        expect![[r#"
            ~ api  api:v1 → api:v2  image changed  start-first  (nothing ties it to one replica; gate: port 8000)
            10 steps; undone by itself until step 7 (drain shop-api-1)
            1                make sure the edge runs
            2   <-1          create shop-api-1.d7
            3   <-2          start shop-api-1.d7
            4   <-3          gate shop-api-1.d7
            5   <-4          switch api
            6   <-5          watch shop-api-1.d7 for 5 s
            7   <-6          drain shop-api-1
            8   <-7          stop shop-api-1
            9   <-8          rename shop-api-1 to shop-api-1.d1
            10  <-9          rename shop-api-1.d7 to shop-api-1
        "#]],
    );
}

#[test]
fn of_a_range_the_first_free_port_is_taken() {
    check(
        r#"
        services:
          api: { image: "api:v1", restart: always, ports: ["8000-8002:8000"] }
        ---
        foreign-port 8000 blog-web-1
        foreign-listener 8001 blog/default
    "#,
        expect![[r#"
            + api  api:v1  new  (gate: port 8000)
            9 steps
            1                make sure the edge runs
            2                create network shop_default
            3   <-1,2        hold the names of api in shop.names-1
            4   <-1,3        open port 8002, answer to api
            5   <-1,2,3,4    create shop-api-1
            6   <-5          start shop-api-1
            7   <-6          gate shop-api-1
            8   <-7          answer to api
            9   <-7,8        switch api
        "#]],
    );
}
