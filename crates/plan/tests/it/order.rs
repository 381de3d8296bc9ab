//! Start-first, stop-first, and in which order.

use expect_test::expect;

use crate::support::check;

#[test]
fn a_service_that_nothing_ties_down_starts_first() {
    check(
        r#"
        services:
          api: { image: "api:v2", restart: always, ports: ["8000:8000"] }
        ---
        shop-api-1 d=1 image=api:v1 routed held-names
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
fn a_named_volume_means_stop_first() {
    check(
        r#"
        services:
          s: { image: "s:v2", restart: always, volumes: ["data:/data"] }
        volumes: { data: {} }
        ---
        shop-s-1 d=1 image=s:v1
    "#,
        expect![[r#"
            ~ s  s:v1 → s:v2  image changed  stop-first  (writes to volume data; gate: listening, or running for 1 s)
            ! s has no health check and no published port: it only has to listen on a port, or run for 1 s
            ! s is down while it restarts (writes to volume data)
            7 steps; undone by itself until step 6 (rename shop-s-1 to shop-s-1.d1)
            1                create shop-s-1.d7
            2   <-1          stop shop-s-1
            3   <-1,2        start shop-s-1.d7
            4   <-3          gate shop-s-1.d7
            5   <-4          watch shop-s-1.d7 for 5 s
            6   <-5          rename shop-s-1 to shop-s-1.d1
            7   <-6          rename shop-s-1.d7 to shop-s-1
        "#]],
    );
}

#[test]
fn a_writable_bind_means_stop_first() {
    check(
        r#"
        services:
          s: { image: "s:v2", restart: always, volumes: ["./data:/data"] }
        ---
        shop-s-1 d=1 image=s:v1
    "#,
        expect![[r#"
            ~ s  s:v1 → s:v2  image changed  stop-first  (writes to /srv/shop/data; gate: listening, or running for 1 s)
            ! s has no health check and no published port: it only has to listen on a port, or run for 1 s
            ! s is down while it restarts (writes to /srv/shop/data)
            7 steps; undone by itself until step 6 (rename shop-s-1 to shop-s-1.d1)
            1                create shop-s-1.d7
            2   <-1          stop shop-s-1
            3   <-1,2        start shop-s-1.d7
            4   <-3          gate shop-s-1.d7
            5   <-4          watch shop-s-1.d7 for 5 s
            6   <-5          rename shop-s-1 to shop-s-1.d1
            7   <-6          rename shop-s-1.d7 to shop-s-1
        "#]],
    );
}

#[test]
fn a_udp_port_means_stop_first() {
    check(
        r#"
        services:
          s: { image: "s:v2", restart: always, ports: ["53:53/udp"] }
        ---
        shop-s-1 d=1 image=s:v1
    "#,
        expect![[r#"
            ~ s  s:v1 → s:v2  image changed  stop-first  (host port 53/udp is fixed and stays with the engine; gate: listening, or running for 1 s)
            ! s has no health check and no published port: it only has to listen on a port, or run for 1 s
            ! s is down while it restarts (host port 53/udp is fixed and stays with the engine)
            7 steps; undone by itself until step 6 (rename shop-s-1 to shop-s-1.d1)
            1                create shop-s-1.d7
            2   <-1          stop shop-s-1
            3   <-1,2        start shop-s-1.d7
            4   <-3          gate shop-s-1.d7
            5   <-4          watch shop-s-1.d7 for 5 s
            6   <-5          rename shop-s-1 to shop-s-1.d1
            7   <-6          rename shop-s-1.d7 to shop-s-1
        "#]],
    );
}

#[test]
fn the_hosts_network_means_stop_first() {
    check(
        r#"
        services:
          s: { image: "s:v2", restart: always, network_mode: host }
        ---
        shop-s-1 d=1 image=s:v1
    "#,
        expect![[r#"
            ~ s  s:v1 → s:v2  image changed  stop-first  (uses the host's network; gate: listening, or running for 1 s)
            ! s has no health check and no published port: it only has to listen on a port, or run for 1 s
            ! s is down while it restarts (uses the host's network)
            7 steps; undone by itself until step 6 (rename shop-s-1 to shop-s-1.d1)
            1                create shop-s-1.d7
            2   <-1          stop shop-s-1
            3   <-1,2        start shop-s-1.d7
            4   <-3          gate shop-s-1.d7
            5   <-4          watch shop-s-1.d7 for 5 s
            6   <-5          rename shop-s-1 to shop-s-1.d1
            7   <-6          rename shop-s-1.d7 to shop-s-1
        "#]],
    );
}

#[test]
fn a_fixed_address_means_stop_first() {
    check(
        r#"
        services:
          s: { image: "s:v2", restart: always, networks: { default: { ipv4_address: 172.18.0.9 } } }
        ---
        shop-s-1 d=1 image=s:v1
    "#,
        expect![[r#"
            ~ s  s:v1 → s:v2  image changed  stop-first  (has the fixed address 172.18.0.9; gate: listening, or running for 1 s)
            ! s has no health check and no published port: it only has to listen on a port, or run for 1 s
            ! s is down while it restarts (has the fixed address 172.18.0.9)
            7 steps; undone by itself until step 6 (rename shop-s-1 to shop-s-1.d1)
            1                create shop-s-1.d7
            2   <-1          stop shop-s-1
            3   <-1,2        start shop-s-1.d7
            4   <-3          gate shop-s-1.d7
            5   <-4          watch shop-s-1.d7 for 5 s
            6   <-5          rename shop-s-1 to shop-s-1.d1
            7   <-6          rename shop-s-1.d7 to shop-s-1
        "#]],
    );
}

#[test]
fn a_device_means_stop_first() {
    check(
        r#"
        services:
          s: { image: "s:v2", restart: always, devices: ["/dev/ttyUSB0:/dev/ttyUSB0"] }
        ---
        shop-s-1 d=1 image=s:v1
    "#,
        expect![[r#"
            ~ s  s:v1 → s:v2  image changed  stop-first  (uses a device of the host; gate: listening, or running for 1 s)
            ! s has no health check and no published port: it only has to listen on a port, or run for 1 s
            ! s is down while it restarts (uses a device of the host)
            7 steps; undone by itself until step 6 (rename shop-s-1 to shop-s-1.d1)
            1                create shop-s-1.d7
            2   <-1          stop shop-s-1
            3   <-1,2        start shop-s-1.d7
            4   <-3          gate shop-s-1.d7
            5   <-4          watch shop-s-1.d7 for 5 s
            6   <-5          rename shop-s-1 to shop-s-1.d1
            7   <-6          rename shop-s-1.d7 to shop-s-1
        "#]],
    );
}

#[test]
fn an_anonymous_volume_means_stop_first() {
    check(
        r#"
        services:
          s: { image: "s:v2", restart: always }
        ---
        shop-s-1 d=1 image=s:v1 anonymous=/data:abc
    "#,
        expect![[r#"
            ~ s  s:v1 → s:v2  image changed  stop-first  (keeps an anonymous volume; gate: listening, or running for 1 s)
            ! s has no health check and no published port: it only has to listen on a port, or run for 1 s
            ! s is down while it restarts (keeps an anonymous volume)
            7 steps; undone by itself until step 6 (rename shop-s-1 to shop-s-1.d1)
            1                create shop-s-1.d7
            2   <-1          stop shop-s-1
            3   <-1,2        start shop-s-1.d7
            4   <-3          gate shop-s-1.d7
            5   <-4          watch shop-s-1.d7 for 5 s
            6   <-5          rename shop-s-1 to shop-s-1.d1
            7   <-6          rename shop-s-1.d7 to shop-s-1
        "#]],
    );
}

#[test]
fn a_read_only_bind_and_the_engines_socket_do_not_mean_stop_first() {
    check(
        r#"
        services:
          s:
            image: "s:v2"
            restart: always
            volumes: ["./conf:/conf:ro", "/var/run/docker.sock:/var/run/docker.sock"]
        ---
        shop-s-1 d=1 image=s:v1
    "#,
        expect![[r#"
            ~ s  s:v1 → s:v2  image changed  start-first  (nothing ties it to one replica; gate: listening, or running for 1 s)
            ! s has no health check and no published port: it only has to listen on a port, or run for 1 s
            7 steps; undone by itself until step 5 (stop shop-s-1)
            1                create shop-s-1.d7
            2   <-1          start shop-s-1.d7
            3   <-2          gate shop-s-1.d7
            4   <-3          watch shop-s-1.d7 for 5 s
            5   <-4          stop shop-s-1
            6   <-5          rename shop-s-1 to shop-s-1.d1
            7   <-6          rename shop-s-1.d7 to shop-s-1
        "#]],
    );
}

#[test]
fn an_explicit_order_is_kept() {
    check(
        r#"
        services:
          a: { image: "a:v2", restart: always, deploy: { update_config: { order: stop-first } } }
          b:
            image: "b:v2"
            restart: always
            volumes: ["data:/data"]
            deploy: { update_config: { order: start-first } }
        volumes: { data: {} }
        ---
        shop-a-1 d=1 image=a:v1
        shop-b-1 d=1 image=b:v1
    "#,
        expect![[r#"
            ~ a  a:v1 → a:v2  image changed  stop-first   (update_config.order; gate: listening, or running for 1 s)
            ~ b  b:v1 → b:v2  image changed  start-first  (update_config.order; gate: listening, or running for 1 s)
            ! a has no health check and no published port: it only has to listen on a port, or run for 1 s
            ! b has no health check and no published port: it only has to listen on a port, or run for 1 s
            ! a is down while it restarts (update_config.order)
            13 steps; undone by itself until step 9 (rename shop-a-1 to shop-a-1.d1)
            1                create shop-a-1.d7
            2                create shop-b-1.d7
            3   <-2          start shop-b-1.d7
            4   <-3          gate shop-b-1.d7
            5   <-1,2,4      stop shop-a-1
            6   <-1,5        start shop-a-1.d7
            7   <-6          gate shop-a-1.d7
            8   <-4,7        watch shop-a-1.d7 shop-b-1.d7 for 5 s
            9   <-8          rename shop-a-1 to shop-a-1.d1
            10  <-9          rename shop-a-1.d7 to shop-a-1
            11  <-8          stop shop-b-1
            12  <-11         rename shop-b-1 to shop-b-1.d1
            13  <-12         rename shop-b-1.d7 to shop-b-1
        "#]],
    );
}

#[test]
fn stop_first_holds_its_own_requests_and_those_of_its_callers() {
    check(
        r#"
        services:
          store: { image: "store:v2", restart: always, ports: ["9000:9000"], volumes: ["data:/data"] }
          api: { image: "api:v1", restart: always, ports: ["8000:8000"], depends_on: [store] }
          other: { image: "other:v1", restart: always, ports: ["7000:7000"] }
        volumes: { data: {} }
        ---
        shop-store-1 d=1 image=store:v1 routed
        shop-api-1 d=1 routed held-names
        shop-other-1 d=1 routed held-names
        holder shop.names-1 api other
    "#,
        expect![[r#"
            ~ store  store:v1 → store:v2  image changed  stop-first  (writes to volume data; gate: port 9000)
            = api other  unchanged
            ! store is down while it restarts (writes to volume data); requests to api, store are held meanwhile
            13 steps; undone by itself until step 12 (rename shop-store-1 to shop-store-1.d1)
            1                make sure the edge runs
            2   <-1          create shop-store-1.d7
            3   <-1,2        hold api
            4   <-3          settle shop-api-1
            5   <-4          hold store
            6   <-5          drain shop-store-1
            7   <-6          stop shop-store-1
            8   <-2,7        start shop-store-1.d7
            9   <-8          gate shop-store-1.d7
            10  <-9          switch api store
            11  <-10         watch shop-store-1.d7 for 5 s
            12  <-11         rename shop-store-1 to shop-store-1.d1
            13  <-12         rename shop-store-1.d7 to shop-store-1
        "#]],
    );
}

#[test]
fn all_that_can_fail_beside_the_old_release_comes_before_anything_is_held() {
    check(
        r#"
        services:
          store: { image: "store:v2", restart: always, ports: ["9000:9000"], volumes: ["data:/data"] }
          web: { image: "web:v2", restart: always, ports: ["80:80"] }
          api: { image: "api:v2", restart: always, ports: ["8000:8000"], depends_on: [store] }
        volumes: { data: {} }
        ---
        shop-store-1 d=1 image=store:v1 routed
        shop-api-1 d=1 image=api:v1 routed held-names
        shop-web-1 d=1 image=web:v1 routed held-names
        holder shop.names-1 api web
    "#,
        expect![[r#"
            ~ api    api:v1 → api:v2      image changed  start-first  (nothing ties it to one replica; gate: port 8000)
            ~ store  store:v1 → store:v2  image changed  stop-first   (writes to volume data; gate: port 9000)
            ~ web    web:v1 → web:v2      image changed  start-first  (nothing ties it to one replica; gate: port 80)
            ! store is down while it restarts (writes to volume data); requests to api, store are held meanwhile
            28 steps; undone by itself until step 19 (rename shop-store-1 to shop-store-1.d1)
            1                make sure the edge runs
            2   <-1          create shop-store-1.d7
            3   <-1          create shop-web-1.d7
            4   <-1          create shop-api-1.d7
            5   <-3          start shop-web-1.d7
            6   <-5          gate shop-web-1.d7
            7   <-1,2,3,4,6  hold api
            8   <-7          settle shop-api-1
            9   <-8          hold store
            10  <-9          drain shop-store-1
            11  <-10         stop shop-store-1
            12  <-2,11       start shop-store-1.d7
            13  <-12         gate shop-store-1.d7
            14  <-13         release api store
            15  <-4,12,14    start shop-api-1.d7
            16  <-15         gate shop-api-1.d7
            17  <-6,13,14,16 switch api store web
            18  <-17         watch shop-api-1.d7 shop-store-1.d7 shop-web-1.d7 for 5 s
            19  <-18         rename shop-store-1 to shop-store-1.d1
            20  <-19         rename shop-store-1.d7 to shop-store-1
            21  <-18         drain shop-web-1
            22  <-21         stop shop-web-1
            23  <-22         rename shop-web-1 to shop-web-1.d1
            24  <-23         rename shop-web-1.d7 to shop-web-1
            25  <-18         drain shop-api-1
            26  <-25         stop shop-api-1
            27  <-26         rename shop-api-1 to shop-api-1.d1
            28  <-27         rename shop-api-1.d7 to shop-api-1
        "#]],
    );
}

#[test]
fn several_stop_first_services_stop_callers_first_and_start_callers_last() {
    check(
        r#"
        services:
          db: { image: "db:v2", restart: always, volumes: ["data:/data"] }
          queue: { image: "queue:v2", restart: always, volumes: ["jobs:/jobs"], depends_on: [db] }
          store: { image: "store:v2", restart: always, ports: ["9000:9000"], volumes: ["files:/files"], depends_on: [queue] }
        volumes: { data: {}, jobs: {}, files: {} }
        ---
        shop-db-1 d=1 image=db:v1
        shop-queue-1 d=1 image=queue:v1
        shop-store-1 d=1 image=store:v1 routed
    "#,
        expect![[r#"
            ~ db     db:v1 → db:v2        image changed  stop-first  (writes to volume data; gate: listening, or running for 1 s)
            ~ queue  queue:v1 → queue:v2  image changed  stop-first  (writes to volume jobs; gate: listening, or running for 1 s)
            ~ store  store:v1 → store:v2  image changed  stop-first  (writes to volume files; gate: port 9000)
            ! db has no health check and no published port: it only has to listen on a port, or run for 1 s
            ! queue has no health check and no published port: it only has to listen on a port, or run for 1 s
            ! db is down while it restarts (writes to volume data); requests to store are held meanwhile
            ! queue is down while it restarts (writes to volume jobs); requests to store are held meanwhile
            ! store is down while it restarts (writes to volume files); requests to store are held meanwhile
            23 steps; undone by itself until step 18 (rename shop-db-1 to shop-db-1.d1)
            1                make sure the edge runs
            2   <-1          create shop-db-1.d7
            3   <-1          create shop-queue-1.d7
            4   <-1          create shop-store-1.d7
            5   <-1,2,3,4    hold store
            6   <-5          drain shop-store-1
            7   <-6          stop shop-store-1
            8   <-6,7        stop shop-queue-1
            9   <-6,7,8      stop shop-db-1
            10  <-2,9        start shop-db-1.d7
            11  <-10         gate shop-db-1.d7
            12  <-3,8,10     start shop-queue-1.d7
            13  <-12         gate shop-queue-1.d7
            14  <-4,7,12     start shop-store-1.d7
            15  <-14         gate shop-store-1.d7
            16  <-11,13,15   switch store
            17  <-16         watch shop-db-1.d7 shop-queue-1.d7 shop-store-1.d7 for 5 s
            18  <-17         rename shop-db-1 to shop-db-1.d1
            19  <-18         rename shop-db-1.d7 to shop-db-1
            20  <-17         rename shop-queue-1 to shop-queue-1.d1
            21  <-20         rename shop-queue-1.d7 to shop-queue-1
            22  <-17         rename shop-store-1 to shop-store-1.d1
            23  <-22         rename shop-store-1.d7 to shop-store-1
        "#]],
    );
}

#[test]
fn one_switch_moves_all_routes() {
    check(
        r#"
        services:
          api: { image: "api:v2", restart: always, ports: ["8000:8000"] }
          web: { image: "web:v2", restart: always, ports: ["80:3000", "81:3001"], depends_on: [api] }
        ---
        shop-api-1 d=1 image=api:v1 routed held-names
        shop-web-1 d=1 image=web:v1 routed held-names
        holder shop.names-1 api web
    "#,
        expect![[r#"
            ~ api  api:v1 → api:v2  image changed  start-first  (nothing ties it to one replica; gate: port 8000)
            ~ web  web:v1 → web:v2  image changed  start-first  (nothing ties it to one replica; gate: port 3000, 3001)
            17 steps; undone by itself until step 10 (drain shop-api-1)
            1                make sure the edge runs
            2   <-1          create shop-api-1.d7
            3   <-1          create shop-web-1.d7
            4   <-2          start shop-api-1.d7
            5   <-4          gate shop-api-1.d7
            6   <-3,4        start shop-web-1.d7
            7   <-6          gate shop-web-1.d7
            8   <-5,7        switch api web
            9   <-8          watch shop-api-1.d7 shop-web-1.d7 for 5 s
            10  <-9          drain shop-api-1
            11  <-10         stop shop-api-1
            12  <-11         rename shop-api-1 to shop-api-1.d1
            13  <-12         rename shop-api-1.d7 to shop-api-1
            14  <-9          drain shop-web-1
            15  <-14         stop shop-web-1
            16  <-15         rename shop-web-1 to shop-web-1.d1
            17  <-16         rename shop-web-1.d7 to shop-web-1
        "#]],
    );
}

#[test]
fn a_new_service_inside_a_stop_first_group_starts_after_it() {
    check(
        r#"
        services:
          db: { image: "db:v2", restart: always, volumes: ["data:/data"] }
          api: { image: "api:v1", restart: always, depends_on: [db] }
        volumes: { data: {} }
        ---
        shop-db-1 d=1 image=db:v1
    "#,
        expect![[r#"
            + api  api:v1         new                        (gate: listening, or running for 1 s)
            ~ db   db:v1 → db:v2  image changed  stop-first  (writes to volume data; gate: listening, or running for 1 s)
            ! db has no health check and no published port: it only has to listen on a port, or run for 1 s
            ! api has no health check and no published port: it only has to listen on a port, or run for 1 s
            ! db is down while it restarts (writes to volume data)
            10 steps; undone by itself until step 9 (rename shop-db-1 to shop-db-1.d1)
            1                create shop-db-1.d7
            2                create shop-api-1
            3   <-1,2        stop shop-db-1
            4   <-1,3        start shop-db-1.d7
            5   <-4          gate shop-db-1.d7
            6   <-2,4,5      start shop-api-1
            7   <-6          gate shop-api-1
            8   <-5,7        watch shop-db-1.d7 for 5 s
            9   <-8          rename shop-db-1 to shop-db-1.d1
            10  <-9          rename shop-db-1.d7 to shop-db-1
        "#]],
    );
}

#[test]
fn an_anonymous_volume_goes_over_to_the_new_replica() {
    check(
        r#"
        services:
          db: { image: "db:v2", restart: always, deploy: { replicas: 2 } }
        ---
        shop-db-1 d=1 image=db:v1 anonymous=/data:abc
        shop-db-2 d=1 image=db:v1 anonymous=/data:def
    "#,
        expect![[r#"
            ~ db  db:v1 → db:v2  image changed  stop-first  (keeps an anonymous volume; 2 replicas; gate: listening, or running for 1 s)
            ! db has no health check and no published port: it only has to listen on a port, or run for 1 s
            ! db is down while it restarts (keeps an anonymous volume)
            13 steps; undone by itself until step 10 (rename shop-db-1 to shop-db-1.d1)
            1                create shop-db-1.d7
            2                create shop-db-2.d7
            3   <-1,2        stop shop-db-1
            4   <-1,2        stop shop-db-2
            5   <-1,2,3,4    start shop-db-1.d7
            6   <-5          gate shop-db-1.d7
            7   <-1,2,3,4    start shop-db-2.d7
            8   <-7          gate shop-db-2.d7
            9   <-6,8        watch shop-db-1.d7 shop-db-2.d7 for 5 s
            10  <-9          rename shop-db-1 to shop-db-1.d1
            11  <-9          rename shop-db-2 to shop-db-2.d1
            12  <-10,11      rename shop-db-1.d7 to shop-db-1
            13  <-10,11      rename shop-db-2.d7 to shop-db-2
        "#]],
    );
}

#[test]
fn a_monitor_of_nothing_means_no_watch() {
    check(
        r#"
        services:
          api: { image: "api:v2", restart: always, deploy: { update_config: { monitor: 0s } } }
        ---
        shop-api-1 d=1 image=api:v1
    "#,
        expect![[r#"
            ~ api  api:v1 → api:v2  image changed  start-first  (nothing ties it to one replica; gate: listening, or running for 1 s)
            ! api has no health check and no published port: it only has to listen on a port, or run for 1 s
            6 steps; undone by itself until step 4 (stop shop-api-1)
            1                create shop-api-1.d7
            2   <-1          start shop-api-1.d7
            3   <-2          gate shop-api-1.d7
            4   <-3          stop shop-api-1
            5   <-4          rename shop-api-1 to shop-api-1.d1
            6   <-5          rename shop-api-1.d7 to shop-api-1
        "#]],
    );
}

#[test]
fn the_longest_monitor_counts_for_all() {
    check(
        r#"
        services:
          a: { image: "a:v2", restart: always, deploy: { update_config: { monitor: 20s } } }
          b: { image: "b:v2", restart: always }
        ---
        shop-a-1 d=1 image=a:v1
        shop-b-1 d=1 image=b:v1
    "#,
        expect![[r#"
            ~ a  a:v1 → a:v2  image changed  start-first  (nothing ties it to one replica; gate: listening, or running for 1 s)
            ~ b  b:v1 → b:v2  image changed  start-first  (nothing ties it to one replica; gate: listening, or running for 1 s)
            ! a has no health check and no published port: it only has to listen on a port, or run for 1 s
            ! b has no health check and no published port: it only has to listen on a port, or run for 1 s
            13 steps; undone by itself until step 8 (stop shop-a-1)
            1                create shop-a-1.d7
            2                create shop-b-1.d7
            3   <-1          start shop-a-1.d7
            4   <-3          gate shop-a-1.d7
            5   <-2          start shop-b-1.d7
            6   <-5          gate shop-b-1.d7
            7   <-4,6        watch shop-a-1.d7 shop-b-1.d7 for 20 s
            8   <-7          stop shop-a-1
            9   <-8          rename shop-a-1 to shop-a-1.d1
            10  <-9          rename shop-a-1.d7 to shop-a-1
            11  <-7          stop shop-b-1
            12  <-11         rename shop-b-1 to shop-b-1.d1
            13  <-12         rename shop-b-1.d7 to shop-b-1
        "#]],
    );
}

/// A store of uploads that an API fills and a worker reads: a second API is nothing new to it.
#[test]
fn a_folder_that_several_services_write_to_ties_none_of_them() {
    check(
        r#"
        services:
          api: { image: "api:v2", restart: always, volumes: ["/srv/vault:/vault"] }
          worker: { image: "worker:v1", restart: always, volumes: ["/srv/vault:/vault"] }
        ---
        shop-api-1 d=1 image=api:v1
        shop-worker-1 d=1
    "#,
        expect![[r#"
            ~ api  api:v1 → api:v2  image changed  start-first  (others write to /srv/vault beside it already; gate: listening, or running for 1 s)
            = worker  unchanged
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

/// Whoever looks after a database writes to its folder too.
#[test]
fn a_folder_of_a_database_has_one_writer_whoever_else_writes_there() {
    check(
        r#"
        services:
          db: { image: "postgres:2", restart: always, volumes: ["/srv/pg:/var/lib/postgresql/data"] }
          keeper: { image: "keeper:2", restart: always, volumes: ["/srv/pg:/pg"] }
        ---
        shop-db-1 d=1 image=postgres:1
        shop-keeper-1 d=1 image=keeper:1
    "#,
        expect![[r#"
            ~ db      postgres:1 → postgres:2  image changed  stop-first  (writes to /srv/pg; gate: listening, or running for 1 s)
            ~ keeper  keeper:1 → keeper:2      image changed  stop-first  (writes to /srv/pg; gate: listening, or running for 1 s)
            ! db has no health check and no published port: it only has to listen on a port, or run for 1 s
            ! keeper has no health check and no published port: it only has to listen on a port, or run for 1 s
            ! db is down while it restarts (writes to /srv/pg)
            ! keeper is down while it restarts (writes to /srv/pg)
            13 steps; undone by itself until step 10 (rename shop-db-1 to shop-db-1.d1)
            1                create shop-db-1.d7
            2                create shop-keeper-1.d7
            3   <-1,2        stop shop-keeper-1
            4   <-1,2        stop shop-db-1
            5   <-1,4        start shop-db-1.d7
            6   <-5          gate shop-db-1.d7
            7   <-2,3        start shop-keeper-1.d7
            8   <-7          gate shop-keeper-1.d7
            9   <-6,8        watch shop-db-1.d7 shop-keeper-1.d7 for 5 s
            10  <-9          rename shop-db-1 to shop-db-1.d1
            11  <-10         rename shop-db-1.d7 to shop-db-1
            12  <-9          rename shop-keeper-1 to shop-keeper-1.d1
            13  <-12         rename shop-keeper-1.d7 to shop-keeper-1
        "#]],
    );
}
