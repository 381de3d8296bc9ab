//! What a deployment that did not end has left.

use expect_test::expect;

use crate::support::check;

#[test]
fn created_and_not_started() {
    check(
        r#"
        services:
          api: { image: "api:v2", restart: always, ports: ["8000:8000"] }
        ---
        shop-api-1 d=5 image=api:v1 routed held-names
        shop-api-1.d6 d=6 image=api:v2 created held-names
        holder shop.names-1 api
    "#,
        expect![[r#"
            ~ api  api:v1 → api:v2  image changed  start-first  (nothing ties it to one replica; the container of deployment 6 comes back; gate: port 8000)
            9 steps; undone by itself until step 6 (drain shop-api-1)
            1                make sure the edge runs
            2                start shop-api-1.d6
            3   <-2          gate shop-api-1.d6
            4   <-3          switch api
            5   <-4          watch shop-api-1.d6 for 5 s
            6   <-5          drain shop-api-1
            7   <-6          stop shop-api-1
            8   <-7          rename shop-api-1 to shop-api-1.d5
            9   <-8          rename shop-api-1.d6 to shop-api-1
        "#]],
    );
}

#[test]
fn created_for_something_else() {
    check(
        r#"
        services:
          api: { image: "api:v2", restart: always, ports: ["8000:8000"] }
        ---
        shop-api-1 d=5 image=api:v1 routed held-names
        shop-api-1.d6 d=6 image=api:v3 created held-names
        holder shop.names-1 api
    "#,
        expect![[r#"
            ~ api  api:v1 → api:v2  image changed  start-first  (nothing ties it to one replica; gate: port 8000)
            11 steps; undone by itself until step 7 (remove shop-api-1.d6)
            1                make sure the edge runs
            2   <-1          create shop-api-1.d7
            3   <-2          start shop-api-1.d7
            4   <-3          gate shop-api-1.d7
            5   <-4          switch api
            6   <-5          watch shop-api-1.d7 for 5 s
            7   <-6          remove shop-api-1.d6
            8   <-6          drain shop-api-1
            9   <-8          stop shop-api-1
            10  <-9          rename shop-api-1 to shop-api-1.d5
            11  <-10         rename shop-api-1.d7 to shop-api-1
        "#]],
    );
}

#[test]
fn started_beside_the_old_one() {
    check(
        r#"
        services:
          api: { image: "api:v2", restart: always, ports: ["8000:8000"] }
        ---
        shop-api-1 d=5 image=api:v1 routed held-names
        shop-api-1.d6 d=6 image=api:v2 held-names
        holder shop.names-1 api
    "#,
        expect![[r#"
            ~ api  api:v1 → api:v2  image changed  start-first  (nothing ties it to one replica; the container of deployment 6 comes back; gate: port 8000)
            8 steps; undone by itself until step 5 (drain shop-api-1)
            1                make sure the edge runs
            2                gate shop-api-1.d6
            3   <-2          switch api
            4   <-3          watch shop-api-1.d6 for 5 s
            5   <-4          drain shop-api-1
            6   <-5          stop shop-api-1
            7   <-6          rename shop-api-1 to shop-api-1.d5
            8   <-7          rename shop-api-1.d6 to shop-api-1
        "#]],
    );
}

#[test]
fn started_beside_and_not_wanted_any_more() {
    check(
        r#"
        services:
          api: { image: "api:v1", restart: always, ports: ["8000:8000"] }
        ---
        shop-api-1 d=5 image=api:v1 routed held-names
        shop-api-1.d6 d=6 image=api:v2 held-names
        holder shop.names-1 api
    "#,
        expect![[r#"
            = api  unchanged
            2 steps
            1                drain shop-api-1.d6
            2   <-1          remove shop-api-1.d6
        "#]],
    );
}

#[test]
fn switched_and_not_renamed() {
    check(
        r#"
        services:
          api: { image: "api:v2", restart: always, ports: ["8000:8000"] }
        ---
        shop-api-1 d=5 image=api:v1 held-names
        shop-api-1.d6 d=6 image=api:v2 routed held-names
        holder shop.names-1 api
    "#,
        expect![[r#"
            = api  unchanged
            6 steps; undone by itself until step 3 (drain shop-api-1)
            1                make sure the edge runs
            2   <-1          switch api
            3   <-2          drain shop-api-1
            4   <-3          stop shop-api-1
            5   <-4          rename shop-api-1 to shop-api-1.d5
            6   <-5          rename shop-api-1.d6 to shop-api-1
        "#]],
    );
}

#[test]
fn switched_and_the_old_one_renamed_already() {
    check(
        r#"
        services:
          api: { image: "api:v2", restart: always, ports: ["8000:8000"] }
        ---
        shop-api-1.d5 d=5 image=api:v1 exited=0 held-names
        shop-api-1.d6 d=6 image=api:v2 routed held-names
        holder shop.names-1 api
    "#,
        expect![[r#"
            = api  unchanged
            1 step
            1                rename shop-api-1.d6 to shop-api-1
        "#]],
    );
}

#[test]
fn held_and_not_stopped() {
    check(
        r#"
        services:
          store: { image: "store:v2", restart: always, ports: ["9000:9000"], volumes: ["data:/data"] }
        volumes: { data: {} }
        ---
        shop-store-1 d=5 image=store:v1 routed
        shop-store-1.d6 d=6 image=store:v2 created
        hold store
    "#,
        expect![[r#"
            ~ store  store:v1 → store:v2  image changed  stop-first  (writes to volume data; the container of deployment 6 comes back; gate: port 9000)
            ! store is down while it restarts (writes to volume data); requests to store are held meanwhile
            9 steps; undone by itself until step 8 (rename shop-store-1 to shop-store-1.d5)
            1                make sure the edge runs
            2   <-1          drain shop-store-1
            3   <-2          stop shop-store-1
            4   <-3          start shop-store-1.d6
            5   <-4          gate shop-store-1.d6
            6   <-5          switch store
            7   <-6          watch shop-store-1.d6 for 5 s
            8   <-7          rename shop-store-1 to shop-store-1.d5
            9   <-8          rename shop-store-1.d6 to shop-store-1
        "#]],
    );
}

#[test]
fn held_and_stopped() {
    check(
        r#"
        services:
          store: { image: "store:v2", restart: always, ports: ["9000:9000"], volumes: ["data:/data"] }
        volumes: { data: {} }
        ---
        shop-store-1 d=5 image=store:v1 routed exited=0
        shop-store-1.d6 d=6 image=store:v2 created
        hold store
    "#,
        expect![[r#"
            ~ store  store:v1 → store:v2  image changed  stop-first  (writes to volume data; the container of deployment 6 comes back; gate: port 9000)
            ! store is down while it restarts (writes to volume data); requests to store are held meanwhile
            8 steps; undone by itself until step 7 (rename shop-store-1 to shop-store-1.d5)
            1                make sure the edge runs
            2   <-1          stop shop-store-1
            3   <-2          start shop-store-1.d6
            4   <-3          gate shop-store-1.d6
            5   <-4          switch store
            6   <-5          watch shop-store-1.d6 for 5 s
            7   <-6          rename shop-store-1 to shop-store-1.d5
            8   <-7          rename shop-store-1.d6 to shop-store-1
        "#]],
    );
}

#[test]
fn held_stopped_and_the_new_one_runs_and_is_not_wanted() {
    check(
        r#"
        services:
          store: { image: "store:v1", restart: always, ports: ["9000:9000"], volumes: ["data:/data"] }
        volumes: { data: {} }
        ---
        shop-store-1 d=5 image=store:v1 routed exited=0
        shop-store-1.d6 d=6 image=store:v2
        hold store
    "#,
        expect![[r#"
            ~ store  store:v2 → store:v1  exited with 0  stop-first  (writes to volume data; the container of deployment 5 comes back; gate: port 9000)
            ! store is down while it restarts (writes to volume data); requests to store are held meanwhile
            7 steps
            1                make sure the edge runs
            2   <-1          drain shop-store-1.d6
            3   <-2          stop shop-store-1.d6
            4   <-3          start shop-store-1
            5   <-4          gate shop-store-1
            6   <-5          switch store
            7   <-6          watch shop-store-1 for 5 s
        "#]],
    );
}

#[test]
fn a_first_deployment_that_did_not_end() {
    check(
        r#"
        services:
          api: { image: "api:v2", restart: always, ports: ["8000:8000"] }
        ---
        shop-api-1 d=1 image=api:v2 created held-names
        listener 8000 api:8000
        holder shop.names-1 api
    "#,
        expect![[r#"
            ~ api  api:v2  never started  start-first  (nothing ties it to one replica; the container of deployment 1 comes back; gate: port 8000)
            5 steps
            1                make sure the edge runs
            2                start shop-api-1
            3   <-2          gate shop-api-1
            4   <-3          switch api
            5   <-4          watch shop-api-1 for 5 s
        "#]],
    );
}

#[test]
fn only_held() {
    check(
        r#"
        services:
          api: { image: "api:v1", restart: always, ports: ["8000:8000"] }
        ---
        shop-api-1 d=5 routed held-names
        holder shop.names-1 api
        hold api
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
fn a_port_that_was_opened_and_is_not_wanted() {
    check(
        r#"
services:
  api: { image: "api:v1", restart: always, ports: ["8000:8000"] }
---
shop-api-1 d=5 routed held-names
listener 8001 api:8000
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
