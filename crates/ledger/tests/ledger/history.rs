//! What is written is read back.

use std::time::Duration;

use shiplap_model::{
    Deployment, DeploymentState, Direction, Journal, JournalFact, LedgerError, Outcome, Resumption,
    Rules, StepState, StoredRelease,
};

use crate::support::{
    BINDING, Bench, START_MS, deployment, image, line, on_both, release, resumption, scope,
};

on_both!([
    a_deployment_is_read_back_as_it_was_begun,
    the_journal_keeps_its_order_and_its_details,
    an_end_tells_how_and_when_and_with_which_release,
    numbers_count_per_scope_without_gaps,
    deployments_come_newest_first_and_limited,
    nothing_is_added_to_a_deployment_that_has_ended,
    an_unknown_deployment_is_named,
    images_are_retained_of_the_newest_done_deployments_of_every_scope,
    a_release_without_services_is_no_special_case,
    a_deployment_is_resumed_and_ends_again,
    what_cannot_follow_is_refused_and_not_written
]);

async fn a_deployment_is_read_back_as_it_was_begun(bench: Bench) {
    let prod = scope("prod");
    let lease = bench.lease(&prod).await;
    let new = deployment(&lease, "a");
    assert_eq!(bench.ledger.begin(&new).await.unwrap(), 1);

    let expected = Deployment {
        scope: prod.clone(),
        number: 1,
        kind: new.kind,
        who: new.who,
        message: new.message,
        release: new.release,
        plan: new.plan,
        request: Some(new.request),
        started_ms: START_MS,
        state: DeploymentState::Unfinished,
    };
    let again = bench.open(2).await;
    assert_eq!(again.deployment(&prod, 1).await.unwrap(), Some(expected.clone()));
    assert_eq!(again.deployments(&prod, 10).await.unwrap(), [expected]);
    assert_eq!(again.binding(&prod, 1).await.unwrap().expose(), BINDING.as_bytes());
    assert_eq!(again.journal(&prod, 1).await.unwrap(), []);
}

async fn the_journal_keeps_its_order_and_its_details(bench: Bench) {
    let prod = scope("prod");
    let lease = bench.lease(&prod).await;
    let number = bench.ledger.begin(&deployment(&lease, "a")).await.unwrap();
    let lines =
        [StepState::Started, StepState::Failed, StepState::UndoStarted, StepState::UndoFailed]
            .map(line);
    for line in &lines {
        bench.ledger.record(&lease, number, line).await.unwrap();
    }
    assert_eq!(bench.open(2).await.journal(&prod, number).await.unwrap(), lines);
}

async fn an_end_tells_how_and_when_and_with_which_release(bench: Bench) {
    let prod = scope("prod");
    for (index, outcome) in
        [Outcome::Done, Outcome::Failed, Outcome::RolledBack, Outcome::Stuck, Outcome::Interrupted]
            .into_iter()
            .enumerate()
    {
        let lease = bench.lease(&prod).await;
        let number = bench.ledger.begin(&deployment(&lease, "planned")).await.unwrap();
        bench.pass(Duration::from_secs(5)).await;
        let built = release("built");
        bench.ledger.end(&lease, number, outcome, Some("because"), &built).await.unwrap();
        bench.ledger.release(&lease).await.unwrap();

        let ended = bench.ledger.deployment(&prod, number).await.unwrap().unwrap();
        assert_eq!(ended.release, built);
        assert_eq!(
            ended.state,
            DeploymentState::Ended {
                at_ms: START_MS + 5_000 * (i64::try_from(index).unwrap() + 1),
                outcome,
                reason: Some("because".into()),
            }
        );
    }
}

async fn numbers_count_per_scope_without_gaps(bench: Bench) {
    let (prod, dev) = (scope("prod"), scope("dev"));
    assert_eq!(bench.deploy(&prod, "a", Outcome::Done).await, 1);
    assert_eq!(bench.deploy(&dev, "a", Outcome::Done).await, 1);
    assert_eq!(bench.deploy(&prod, "b", Outcome::Failed).await, 2);

    let stale = bench.lease(&prod).await;
    bench.ledger.release(&stale).await.unwrap();
    let refused = bench.ledger.begin(&deployment(&stale, "c")).await.unwrap_err();
    assert!(matches!(refused, LedgerError::LeaseLost(lost) if lost == prod));

    assert_eq!(bench.deploy(&prod, "d", Outcome::Done).await, 3, "a refused one takes no number");
    assert_eq!(bench.ledger.scopes().await.unwrap(), [dev, prod]);
}

async fn deployments_come_newest_first_and_limited(bench: Bench) {
    let prod = scope("prod");
    for tag in ["a", "b", "c"] {
        bench.deploy(&prod, tag, Outcome::Done).await;
    }
    let newest = bench.ledger.deployments(&prod, 2).await.unwrap();
    assert_eq!(newest.iter().map(|deployment| deployment.number).collect::<Vec<_>>(), [3, 2]);
    assert_eq!(bench.ledger.deployments(&scope("dev"), 2).await.unwrap(), []);
}

async fn nothing_is_added_to_a_deployment_that_has_ended(bench: Bench) {
    let prod = scope("prod");
    bench.deploy(&prod, "a", Outcome::Failed).await;
    let lease = bench.lease(&prod).await;
    let has_ended = |result| match result {
        Err(LedgerError::Illegal { reason, .. }) => reason.contains("has ended (failed)"),
        _ => false,
    };
    let added = bench.ledger.record(&lease, 1, &line(StepState::Started)).await;
    assert!(has_ended(added));
    let ended = bench.ledger.end(&lease, 1, Outcome::Done, None, &release("a")).await;
    assert!(has_ended(ended));
    assert_eq!(bench.ledger.journal(&prod, 1).await.unwrap().len(), 2);
}

async fn an_unknown_deployment_is_named(bench: Bench) {
    let prod = scope("prod");
    let lease = bench.lease(&prod).await;
    for number in [0, 1, u64::MAX] {
        let unknown = |error| match error {
            LedgerError::NoSuchDeployment(scope, found) => scope == prod && found == number,
            _ => false,
        };
        let ledger = &bench.ledger;
        assert_eq!(ledger.deployment(&prod, number).await.unwrap(), None);
        assert!(unknown(ledger.journal(&prod, number).await.unwrap_err()));
        assert!(unknown(ledger.binding(&prod, number).await.unwrap_err()));
        let line = line(StepState::Started);
        assert!(unknown(ledger.record(&lease, number, &line).await.unwrap_err()));
    }
    assert_eq!(bench.ledger.verify().await.unwrap(), 0);
}

async fn images_are_retained_of_the_newest_done_deployments_of_every_scope(bench: Bench) {
    let (prod, dev) = (scope("prod"), scope("dev"));
    for tag in ["a", "b", "c"] {
        bench.deploy(&prod, tag, Outcome::Done).await;
    }
    bench.deploy(&prod, "broken", Outcome::RolledBack).await;
    bench.deploy(&dev, "a", Outcome::Done).await;
    let unfinished = bench.lease(&dev).await;
    bench.ledger.begin(&deployment(&unfinished, "unfinished")).await.unwrap();

    assert_eq!(
        bench.ledger.retained_images(2).await.unwrap(),
        [
            (dev.clone(), 1, image("a")),
            (prod.clone(), 3, image("c")),
            (prod.clone(), 2, image("b")),
        ]
    );
    assert_eq!(bench.ledger.retained_images(0).await.unwrap(), []);
}

async fn a_release_without_services_is_no_special_case(bench: Bench) {
    let prod = scope("prod");
    let lease = bench.lease(&prod).await;
    let nothing = StoredRelease { version: 1, services: Default::default() };
    let mut down = deployment(&lease, "a");
    down.kind = "down".into();
    down.message = None;
    down.release = nothing.clone();
    down.binding = shiplap_model::Secret::new(Vec::new());
    let number = bench.ledger.begin(&down).await.unwrap();
    bench.ledger.end(&lease, number, Outcome::Done, None, &nothing).await.unwrap();
    let read = bench.ledger.deployment(&prod, number).await.unwrap().unwrap();
    assert_eq!((read.release, read.message), (nothing, None));
    assert!(bench.ledger.binding(&prod, number).await.unwrap().expose().is_empty());
    assert_eq!(bench.ledger.verify().await.unwrap(), 2);
}

async fn a_deployment_is_resumed_and_ends_again(bench: Bench) {
    let prod = scope("prod");
    let lease = bench.lease(&prod).await;
    let ledger = &bench.ledger;
    let number = ledger.begin(&deployment(&lease, "a")).await.unwrap();
    ledger.record(&lease, number, &line(StepState::Started)).await.unwrap();
    ledger.end(&lease, number, Outcome::Stuck, Some("why"), &release("a")).await.unwrap();
    ledger.release(&lease).await.unwrap();

    let lease = bench.lease(&prod).await;
    ledger.resume(&lease, number, &resumption(Direction::Back)).await.unwrap();
    let again = ledger.deployment(&prod, number).await.unwrap().unwrap();
    assert_eq!(again.state, DeploymentState::Unfinished);
    // Steps are counted anew.
    ledger.record(&lease, number, &line(StepState::Started)).await.unwrap();
    ledger.end(&lease, number, Outcome::RolledBack, None, &release("a")).await.unwrap();

    let resumed = Resumption { generation: 2, ..resumption(Direction::Back) };
    let facts = vec![
        JournalFact::Step(line(StepState::Started)),
        JournalFact::Ended(Outcome::Stuck),
        JournalFact::Resumed(resumed),
        JournalFact::Step(line(StepState::Started)),
        JournalFact::Ended(Outcome::RolledBack),
    ];
    let journal = Journal { generation: 1, rules: Rules::Checked, facts };
    assert_eq!(bench.open(2).await.facts(&prod, number).await.unwrap(), journal);
    let ended = ledger.deployments(&prod, 9).await.unwrap();
    assert_eq!(ended.len(), 1, "one deployment, whatever it took");
    let rolled_back = Outcome::RolledBack;
    assert!(
        matches!(&ended[0].state, DeploymentState::Ended { outcome, .. } if *outcome == rolled_back)
    );
    assert_eq!(ledger.verify().await.unwrap(), 6);
}

async fn what_cannot_follow_is_refused_and_not_written(bench: Bench) {
    let prod = scope("prod");
    let lease = bench.lease(&prod).await;
    let ledger = &bench.ledger;
    let number = ledger.begin(&deployment(&lease, "a")).await.unwrap();
    let finished = line(StepState::Finished);
    let refused = ledger.record(&lease, number, &finished).await.unwrap_err();
    let text = "deployment 1 of shop/prod: step 1 (pull b on vm1) finished before it began";
    assert_eq!(refused.to_string(), text);
    let back = resumption(Direction::Back);
    ledger.end(&lease, number, Outcome::Done, None, &release("a")).await.unwrap();
    ledger.release(&lease).await.unwrap();
    let lease = bench.lease(&prod).await;
    let refused = ledger.resume(&lease, number, &back).await.unwrap_err();
    assert!(refused.to_string().contains("has ended (done)"), "{refused}");
    assert_eq!(ledger.verify().await.unwrap(), 2);
}
