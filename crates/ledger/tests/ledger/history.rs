//! What is written is read back.

use std::time::Duration;

use shiplap_model::{
    Deployment, DeploymentState, Ledger, LedgerError, Outcome, StepState, StoredRelease,
};

use crate::support::{BINDING, Bench, START_MS, deployment, image, line, release, scope};

#[tokio::test]
async fn a_deployment_is_read_back_as_it_was_begun() {
    let bench = Bench::new();
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
        started_ms: START_MS,
        state: DeploymentState::Unfinished,
    };
    let again = bench.open(2);
    assert_eq!(again.deployment(&prod, 1).await.unwrap(), Some(expected.clone()));
    assert_eq!(again.deployments(&prod, 10).await.unwrap(), [expected]);
    assert_eq!(again.binding(&prod, 1).await.unwrap().expose(), BINDING.as_bytes());
    assert_eq!(again.journal(&prod, 1).await.unwrap(), []);
}

#[tokio::test]
async fn the_journal_keeps_its_order_and_its_details() {
    let bench = Bench::new();
    let prod = scope("prod");
    let lease = bench.lease(&prod).await;
    let number = bench.ledger.begin(&deployment(&lease, "a")).await.unwrap();
    let lines = [
        StepState::Started,
        StepState::Failed,
        StepState::UndoStarted,
        StepState::UndoFailed,
        StepState::Undone,
        StepState::Finished,
    ]
    .map(line);
    for line in &lines {
        bench.ledger.record(&lease, number, line).await.unwrap();
    }
    assert_eq!(bench.open(2).journal(&prod, number).await.unwrap(), lines);
}

#[tokio::test]
async fn an_end_tells_how_and_when_and_with_which_release() {
    let bench = Bench::new();
    let prod = scope("prod");
    for (index, outcome) in
        [Outcome::Done, Outcome::Failed, Outcome::RolledBack, Outcome::Stuck, Outcome::Interrupted]
            .into_iter()
            .enumerate()
    {
        let lease = bench.lease(&prod).await;
        let number = bench.ledger.begin(&deployment(&lease, "planned")).await.unwrap();
        bench.machine.pass(Duration::from_secs(5));
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

#[tokio::test]
async fn numbers_count_per_scope_without_gaps() {
    let bench = Bench::new();
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

#[tokio::test]
async fn deployments_come_newest_first_and_limited() {
    let bench = Bench::new();
    let prod = scope("prod");
    for tag in ["a", "b", "c"] {
        bench.deploy(&prod, tag, Outcome::Done).await;
    }
    let newest = bench.ledger.deployments(&prod, 2).await.unwrap();
    assert_eq!(newest.iter().map(|deployment| deployment.number).collect::<Vec<_>>(), [3, 2]);
    assert_eq!(bench.ledger.deployments(&scope("dev"), 2).await.unwrap(), []);
}

#[tokio::test]
async fn nothing_is_added_to_a_deployment_that_has_ended() {
    let bench = Bench::new();
    let prod = scope("prod");
    bench.deploy(&prod, "a", Outcome::Failed).await;
    let lease = bench.lease(&prod).await;
    let added = bench.ledger.record(&lease, 1, &line(StepState::Started)).await;
    assert!(matches!(added, Err(LedgerError::Storage(text)) if text.contains("has ended")));
    let ended = bench.ledger.end(&lease, 1, Outcome::Done, None, &release("a")).await;
    assert!(matches!(ended, Err(LedgerError::Storage(text)) if text.contains("has ended")));
    assert_eq!(bench.ledger.journal(&prod, 1).await.unwrap().len(), 2);
}

#[tokio::test]
async fn an_unknown_deployment_is_named() {
    let bench = Bench::new();
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

#[tokio::test]
async fn images_are_retained_of_the_newest_done_deployments_of_every_scope() {
    let bench = Bench::new();
    let (prod, dev) = (scope("prod"), scope("dev"));
    for tag in ["a", "b", "c"] {
        bench.deploy(&prod, tag, Outcome::Done).await;
    }
    bench.deploy(&prod, "broken", Outcome::RolledBack).await;
    bench.deploy(&dev, "a", Outcome::Done).await;
    let unfinished = bench.lease(&dev).await;
    bench.ledger.begin(&deployment(&unfinished, "unfinished")).await.unwrap();

    assert_eq!(
        bench.ledger.retained_images(2).unwrap(),
        [
            (dev.clone(), 1, image("a")),
            (prod.clone(), 3, image("c")),
            (prod.clone(), 2, image("b")),
        ]
    );
    assert_eq!(bench.ledger.retained_images(0).unwrap(), []);
}

#[tokio::test]
async fn a_release_without_services_is_no_special_case() {
    let bench = Bench::new();
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
