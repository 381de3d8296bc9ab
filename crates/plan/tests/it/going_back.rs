//! Taking up a deployment that did not end, going back out of it, and jobs on the way.

use std::collections::BTreeSet;

use expect_test::expect;
use shiplap_model::{Goal, Scope, StoredBefore, StoredContainer};
use shiplap_plan::{Policy, Undo, abandon, render, render_steps, withdraw};
use shiplap_testkit::desired;

use crate::support::{check_with, observed};

const WITH_JOB: &str = r#"
        services:
          migrate: { image: "api:v2", command: up }
          api:
            image: "api:v2"
            restart: always
            ports: ["8000:8000"]
            depends_on: { migrate: { condition: service_completed_successfully } }
        ---"#;

/// Deployment 6 did not end, and undid nothing.
fn resumed(policy: &mut Policy) {
    policy.deployment = 6;
    policy.unfinished = BTreeSet::from([6]);
    policy.trusted_jobs = BTreeSet::from([6]);
}

/// Back out of deployment 6, to 5.
fn back(policy: &mut Policy) {
    policy.deployment = 5;
    policy.goal = Goal::Rollback { to: 5 };
    policy.unfinished = BTreeSet::from([6]);
    policy.undo = Some(undo());
}

fn undo() -> Undo {
    Undo {
        deployments: BTreeSet::from([6]),
        networks: Some(BTreeSet::from(["shop_default".to_owned()])),
        there: BTreeSet::new(),
        rested: BTreeSet::new(),
        ports: Default::default(),
    }
}

#[test]
fn a_job_that_ended_well_is_not_run_again_and_what_waited_for_it_starts() {
    check_with(
        &format!(
            "{WITH_JOB}
        shop-migrate-1 d=5 image=api:v1 exited=0
        shop-migrate-1.d6 d=6 image=api:v2 exited=0
        shop-api-1 d=5 image=api:v1 routed held-names
        shop-api-1.d6 d=6 image=api:v2 created held-names
        holder shop.names-1 api
    "
        ),
        resumed,
        expect![[r#"
            ~ api      api:v1 → api:v2  image changed  start-first  (nothing ties it to one replica; the container of deployment 6 comes back; gate: port 8000)
            ~ migrate  api:v1 → api:v2  image changed  start-first  (nothing ties it to one replica; it has run, and is not run again)
            11 steps; undone by itself until step 6 (rename shop-migrate-1 to shop-migrate-1.d5)
            1                make sure the edge runs
            2                start shop-api-1.d6
            3   <-2          gate shop-api-1.d6
            4   <-3          switch api
            5   <-4          watch shop-api-1.d6 for 5 s
            6   <-5          rename shop-migrate-1 to shop-migrate-1.d5
            7   <-6          rename shop-migrate-1.d6 to shop-migrate-1
            8   <-5          drain shop-api-1
            9   <-8          stop shop-api-1
            10  <-9          rename shop-api-1 to shop-api-1.d5
            11  <-10         rename shop-api-1.d6 to shop-api-1
        "#]],
    );
}

#[test]
fn a_job_that_still_runs_is_waited_for() {
    check_with(
        &format!(
            "{WITH_JOB}
        shop-migrate-1 d=5 image=api:v1 exited=0
        shop-migrate-1.d6 d=6 image=api:v2
        shop-api-1 d=5 image=api:v1 routed held-names
        shop-api-1.d6 d=6 image=api:v2 created held-names
        holder shop.names-1 api
    "
        ),
        resumed,
        expect![[r#"
            ~ api      api:v1 → api:v2  image changed  start-first  (nothing ties it to one replica; the container of deployment 6 comes back; gate: port 8000)
            ~ migrate  api:v1 → api:v2  image changed  start-first  (nothing ties it to one replica; the container of deployment 6 comes back; gate: must end with code 0)
            12 steps; undone by itself until step 7 (rename shop-migrate-1 to shop-migrate-1.d5)
            1                make sure the edge runs
            2                gate shop-migrate-1.d6
            3   <-2          start shop-api-1.d6
            4   <-3          gate shop-api-1.d6
            5   <-2,4        switch api
            6   <-5          watch shop-api-1.d6 for 5 s
            7   <-6          rename shop-migrate-1 to shop-migrate-1.d5
            8   <-7          rename shop-migrate-1.d6 to shop-migrate-1
            9   <-6          drain shop-api-1
            10  <-9          stop shop-api-1
            11  <-10         rename shop-api-1 to shop-api-1.d5
            12  <-11         rename shop-api-1.d6 to shop-api-1
        "#]],
    );
}

#[test]
fn a_job_that_failed_is_not_started_again_by_its_own_deployment() {
    check_with(
        &format!(
            "{WITH_JOB}
        shop-migrate-1.d6 d=6 image=api:v2 exited=1
        shop-migrate-1 d=5 image=api:v1 exited=0
        shop-api-1 d=5 image=api:v1 routed held-names
        shop-api-1.d6 d=6 image=api:v2 created held-names
        holder shop.names-1 api
    "
        ),
        resumed,
        expect![[r#"
            ~ api      api:v1 → api:v2  image changed  start-first  (nothing ties it to one replica; the container of deployment 6 comes back; gate: port 8000)
            ~ migrate  api:v1 → api:v2  image changed  start-first  (nothing ties it to one replica; the container of deployment 6 comes back; gate: must end with code 0)
            12 steps; undone by itself until step 7 (rename shop-migrate-1 to shop-migrate-1.d5)
            1                make sure the edge runs
            2                gate shop-migrate-1.d6
            3   <-2          start shop-api-1.d6
            4   <-3          gate shop-api-1.d6
            5   <-2,4        switch api
            6   <-5          watch shop-api-1.d6 for 5 s
            7   <-6          rename shop-migrate-1 to shop-migrate-1.d5
            8   <-7          rename shop-migrate-1.d6 to shop-migrate-1
            9   <-6          drain shop-api-1
            10  <-9          stop shop-api-1
            11  <-10         rename shop-api-1 to shop-api-1.d5
            12  <-11         rename shop-api-1.d6 to shop-api-1
        "#]],
    );
}

#[test]
fn a_running_job_of_a_deployment_that_is_taken_over_ends_before_another_one_starts() {
    check_with(
        &format!(
            "{WITH_JOB}
        shop-migrate-1 d=5 image=api:v1 exited=0
        shop-migrate-1.d6 d=6 image=api:v3
        shop-api-1 d=5 image=api:v1 routed held-names
        holder shop.names-1 api
    "
        ),
        |policy| {
            policy.unfinished = BTreeSet::from([6]);
            policy.trusted_jobs = BTreeSet::from([6]);
        },
        expect![[r#"
            ~ api      api:v1 → api:v2  image changed  start-first  (nothing ties it to one replica; gate: port 8000)
            ~ migrate  api:v1 → api:v2  image changed  start-first  (nothing ties it to one replica; gate: must end with code 0)
            16 steps; undone by itself until step 11 (rename shop-migrate-1 to shop-migrate-1.d5)
            1                make sure the edge runs
            2   <-1          remove shop-migrate-1.d6
            3   <-1,2        create shop-migrate-1.d7
            4   <-1          create shop-api-1.d7
            5   <-3          start shop-migrate-1.d7
            6   <-5          gate shop-migrate-1.d7
            7   <-4,6        start shop-api-1.d7
            8   <-7          gate shop-api-1.d7
            9   <-6,8        switch api
            10  <-9          watch shop-api-1.d7 for 5 s
            11  <-10         rename shop-migrate-1 to shop-migrate-1.d5
            12  <-11         rename shop-migrate-1.d7 to shop-migrate-1
            13  <-10         drain shop-api-1
            14  <-13         stop shop-api-1
            15  <-14         rename shop-api-1 to shop-api-1.d5
            16  <-15         rename shop-api-1.d7 to shop-api-1
        "#]],
    );
}

#[test]
fn what_an_unfinished_first_deployment_started_must_show_that_it_works() {
    check_with(
        r#"
        services:
          db: { image: "db:v1", restart: always, healthcheck: { test: [CMD, "true"] } }
          api:
            image: "api:v1"
            restart: always
            depends_on: { db: { condition: service_healthy } }
        ---
        shop-db-1 d=6 image=db:v1
        shop-api-1 d=6 image=api:v1 created
    "#,
        resumed,
        expect![[r#"
            + api  api:v1  new  (the container of deployment 6 comes back; gate: listening, or running for 1 s)
            + db   db:v1   new  (the container of deployment 6 comes back; gate: health check)
            ! api has no health check and no published port: it only has to listen on a port, or run for 1 s
            3 steps
            1                gate shop-db-1
            2   <-1          start shop-api-1
            3   <-2          gate shop-api-1
        "#]],
    );
}

#[test]
fn back_before_the_switch_only_the_new_ones_go() {
    check_with(
        r#"
        services:
          api: { image: "api:v1", restart: always, ports: ["8000:8000"] }
        ---
        shop-api-1 d=5 image=api:v1 routed held-names
        shop-api-1.d6 d=6 image=api:v2 held-names
        shop-cache-1 d=6 image=cache:v1
        network shop_extra
        holder shop.names-1 api
    "#,
        back,
        expect![[r#"
            - cache  not in the Compose file
            = api  unchanged
            4 steps
            1                drain shop-api-1.d6
            2   <-1          remove shop-api-1.d6
            3                remove shop-cache-1
            4   <-1,2,3      remove network shop_extra
        "#]],
    );
}

#[test]
fn back_after_the_switch_the_old_one_comes_back_and_nothing_is_kept_aside() {
    check_with(
        r#"
        services:
          api: { image: "api:v1", restart: always, ports: ["8000:8000"] }
        ---
        shop-api-1.d5 d=5 image=api:v1 paused held-names
        shop-api-1 d=6 image=api:v2 routed held-names
        holder shop.names-1 api
    "#,
        back,
        expect![[r#"
            ~ api  api:v2 → api:v1  image changed  start-first  (nothing ties it to one replica; the container of deployment 5 comes back; gate: port 8000)
            8 steps; undone by itself until step 6 (drain shop-api-1)
            1                make sure the edge runs
            2                thaw shop-api-1.d5
            3   <-2          gate shop-api-1.d5
            4   <-3          switch api
            5   <-4          watch shop-api-1.d5 for 5 s
            6   <-5          drain shop-api-1
            7   <-6          remove shop-api-1
            8   <-7          rename shop-api-1.d5 to shop-api-1
        "#]],
    );
}

#[test]
fn a_rollback_runs_no_job_and_says_how_to() {
    check_with(
        &format!(
            "{}
        shop-migrate-1 d=6 image=api:v2 exited=0
        shop-migrate-1.d5 d=5 image=api:v1 exited=0
        shop-api-1 d=6 image=api:v2 routed held-names
        shop-api-1.d5 d=5 image=api:v1 paused held-names
        holder shop.names-1 api
    ",
            WITH_JOB.replace("v2", "v1")
        ),
        |policy| policy.goal = Goal::Rollback { to: 5 },
        expect![[r#"
            ~ api      api:v2 → api:v1  image changed  start-first  (nothing ties it to one replica; the container of deployment 5 comes back; gate: port 8000)
            ~ migrate  api:v2 → api:v1  image changed  start-first  (nothing ties it to one replica; it has run, and is not run again)
            ! migrate is a job and is not run again (its work on newer data could fail or destroy); `restart migrate` runs it
            11 steps; undone by itself until step 6 (rename shop-migrate-1 to shop-migrate-1.d6)
            1                make sure the edge runs
            2                thaw shop-api-1.d5
            3   <-2          gate shop-api-1.d5
            4   <-3          switch api
            5   <-4          watch shop-api-1.d5 for 5 s
            6   <-5          rename shop-migrate-1 to shop-migrate-1.d6
            7   <-6          rename shop-migrate-1.d5 to shop-migrate-1
            8   <-5          drain shop-api-1
            9   <-8          stop shop-api-1
            10  <-9          rename shop-api-1 to shop-api-1.d6
            11  <-10         rename shop-api-1.d5 to shop-api-1
        "#]],
    );
}

/// What Compose had started, taken over by deployment 6 until after the switch.
#[test]
fn a_first_deployment_is_withdrawn_and_what_compose_had_started_runs_again() {
    let wanted = desired(
        r#"
        services:
          api: { image: "api:v2", restart: always, ports: ["8000:8000"] }
    "#,
    );
    let there = observed(
        &wanted,
        r"
        shop-api-1 image=api:v1 exited=0
        shop-api-1.d6 d=6 image=api:v2 routed held-names
        holder shop.names-1 api
    ",
    );
    let old = there.containers.iter().find(|c| c.deployment.is_none()).unwrap();
    let was = StoredContainer {
        id: old.id.clone(),
        name: old.name.clone(),
        service: "api".to_owned(),
        running: true,
        restart: "always".to_owned(),
    };
    let networks = there.networks.keys().cloned().collect();
    let before = StoredBefore { containers: vec![was], networks };
    let policy = Policy { undo: Some(undo()), ..Policy::deploy(6) };
    let plan = withdraw(&wanted, &there, &before, &policy);
    expect![[r#"
        ~ api  asked for  (the container from before comes back)
        7 steps
        1                hold api
        2   <-1          drain shop-api-1.d6
        3   <-2          close ports
        4   <-3          remove shop-api-1.d6
        5   <-3,4        start shop-api-1
        6   <-5          gate shop-api-1
        7   <-1,2,3,4,5,6 remove shop.names-1
    "#]]
    .assert_eq(&format!("{}{}", render(&plan), render_steps(&plan)));
}

#[test]
fn abandoning_releases_what_is_held_and_names_the_rest() {
    let wanted = desired(
        r#"
        services:
          api: { image: "api:v2", restart: always, ports: ["8000:8000"] }
    "#,
    );
    let mut there = observed(
        &wanted,
        r"
        shop-api-1 d=5 image=api:v1 routed held-names
        shop-api-1.d6 d=6 image=api:v2 created held-names
        holder shop.names-1 api
    ",
    );
    for pool in there.router.as_mut().unwrap().pools.values_mut() {
        pool.held = true;
        pool.replicas.clear();
    }
    let scope = Scope { project: "shop".to_owned(), environment: "default".to_owned() };
    let plan = abandon(&scope, &there, &BTreeSet::from([6]));
    expect![[r#"
        ! shop-api-1 answers for port 8000 of api
        ! shop-api-1.d6 stays (never started)
        1 step
        1                release api
    "#]]
    .assert_eq(&format!("{}{}", render(&plan), render_steps(&plan)));
}

#[test]
fn of_two_that_are_kept_in_one_place_the_older_one_goes() {
    check_with(
        r#"
        services:
          api: { image: "api:v3", restart: always, ports: ["8000:8000"] }
        ---
        shop-api-1 d=6 image=api:v3 routed held-names
        shop-api-1.d4 d=4 image=api:v1 paused held-names
        shop-api-1.d5 d=5 image=api:v2 paused held-names
        holder shop.names-1 api
    "#,
        resumed,
        expect![[r#"
            = api  unchanged
            1 step
            1                remove shop-api-1.d4
        "#]],
    );
}
