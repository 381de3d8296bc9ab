//! What a [`Ledger`](shiplap_model::Ledger) promises.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use shiplap_model::{
    DeploymentState, JournalEntry, LeaseKey, LedgerError, NewDeployment, Outcome, Scope, Secret,
    StepState, Store, StoredImage, StoredRelease, StoredService,
};

/// An empty ledger.
pub struct Ground {
    /// The ledger.
    pub ledger: Arc<dyn Store>,
    /// Another one.
    pub other: Arc<dyn Store>,
    /// Whatever removes all this in the end.
    pub keep: Box<dyn Any + Send + Sync>,
}

/// Makes a test of each promise of a ledger.
#[macro_export]
macro_rules! ledger_contract {
    ($ground:path) => {
        $crate::contract!(
            ledger,
            $ground,
            [
                a_lease_that_is_held_is_answered_with_its_holder,
                a_lease_that_was_given_back_is_free,
                each_holder_gets_a_higher_generation,
                scopes_have_leases_of_their_own,
                renewing_keeps_the_key,
                whoever_lost_the_lease_cannot_renew_it,
                giving_back_what_is_lost_takes_it_from_nobody,
                raising_never_lowers,
                whoever_was_raised_has_one_key_only,
                nothing_is_written_without_the_lease,
                deployments_are_numbered_from_one,
                numbers_are_above_what_the_target_knows,
                deployments_come_newest_first_and_limited,
                a_deployment_is_unfinished_until_it_ends,
                what_ends_has_the_release_that_came_of_it,
                a_journal_keeps_its_order,
                what_has_ended_takes_nothing_more,
                what_was_never_begun_is_not_there,
                a_binding_comes_back_as_it_was,
                scopes_are_those_with_deployments,
                verifying_counts_every_entry,
                a_ledger_has_an_id_of_its_own,
                images_of_the_newest_done_deployments_are_retained,
            ]
        );
    };
}

const TTL: Duration = Duration::from_secs(60);

fn scope(project: &str) -> Scope {
    Scope { project: project.to_owned(), environment: "default".to_owned() }
}

async fn take(ground: &Ground, project: &str) -> LeaseKey {
    ground.ledger.acquire(&scope(project), "ada", TTL).await.unwrap().unwrap().key
}

/// A lease that is not its holder's any more.
async fn lost(ground: &Ground) -> LeaseKey {
    let key = take(ground, "shop").await;
    ground.ledger.release(&key).await.unwrap();
    take(ground, "shop").await;
    key
}

fn release(tag: &str) -> StoredRelease {
    let image =
        StoredImage { reference: format!("api:{tag}"), id: Some(tag.to_owned()), digest: None };
    let service = StoredService { image, replicas: 2 };
    StoredRelease { version: 1, services: BTreeMap::from([("api".to_owned(), service)]) }
}

fn new(lease: &LeaseKey) -> NewDeployment {
    NewDeployment {
        scope: lease.scope.clone(),
        kind: "deploy".to_owned(),
        who: "ada".to_owned(),
        message: Some("why".to_owned()),
        release: release("v1"),
        binding: Secret::new(b"PASSWORD=hunter2".to_vec()),
        plan: serde_json::json!({"steps": []}),
        lease: lease.clone(),
        after: 0,
        request: Default::default(),
    }
}

fn line(step: u32, state: StepState) -> JournalEntry {
    JournalEntry { step, what: format!("step {step}"), state, at_ms: 1, detail: None, made: None }
}

async fn lines_of(ground: &Ground, number: u64) -> Vec<JournalEntry> {
    ground.ledger.journal(&scope("shop"), number).await.unwrap()
}

#[track_caller]
fn is_lost<T: std::fmt::Debug>(result: Result<T, LedgerError>) {
    assert!(matches!(result, Err(LedgerError::LeaseLost(_))), "{result:?}");
}

/// `acquire`, `holder`: who it is.
pub async fn a_lease_that_is_held_is_answered_with_its_holder(ground: &Ground) {
    assert_eq!(ground.ledger.holder(&scope("shop")).await.unwrap(), None);
    take(ground, "shop").await;
    let held = ground.ledger.acquire(&scope("shop"), "bob", TTL).await.unwrap().unwrap_err();
    assert_eq!((held.holder.as_str(), &held.scope), ("ada", &scope("shop")));
    assert_eq!(ground.ledger.holder(&scope("shop")).await.unwrap().unwrap().holder, "ada");
}

/// `release`: it is free at once.
pub async fn a_lease_that_was_given_back_is_free(ground: &Ground) {
    let key = take(ground, "shop").await;
    ground.ledger.release(&key).await.unwrap();
    assert_eq!(ground.ledger.holder(&scope("shop")).await.unwrap(), None);
    take(ground, "shop").await;
}

/// `acquire`: a generation is never given out twice.
pub async fn each_holder_gets_a_higher_generation(ground: &Ground) {
    let first = take(ground, "shop").await;
    ground.ledger.release(&first).await.unwrap();
    assert!(take(ground, "shop").await.generation > first.generation);
}

/// `acquire`: one scope's lease is nobody else's.
pub async fn scopes_have_leases_of_their_own(ground: &Ground) {
    take(ground, "shop").await;
    take(ground, "mail").await;
}

/// `renew`: nothing else changes.
pub async fn renewing_keeps_the_key(ground: &Ground) {
    let key = take(ground, "shop").await;
    assert_eq!(ground.ledger.renew(&key, TTL).await.unwrap().key, key);
}

/// `renew`: refused when somebody else has it by now.
pub async fn whoever_lost_the_lease_cannot_renew_it(ground: &Ground) {
    let key = lost(ground).await;
    is_lost(ground.ledger.renew(&key, TTL).await);
    is_lost(ground.ledger.raise(&key, 99).await);
}

/// `release`: one that is not held any more is no error.
pub async fn giving_back_what_is_lost_takes_it_from_nobody(ground: &Ground) {
    let key = lost(ground).await;
    ground.ledger.release(&key).await.unwrap();
    assert!(ground.ledger.holder(&scope("shop")).await.unwrap().is_some());
}

/// `raise`: at least this.
pub async fn raising_never_lowers(ground: &Ground) {
    let key = take(ground, "shop").await;
    let raised = ground.ledger.raise(&key, 40).await.unwrap().key;
    assert_eq!(raised.generation, 40);
    assert_eq!(ground.ledger.raise(&raised, 5).await.unwrap().key.generation, 40);
    ground.ledger.release(&raised).await.unwrap();
    assert_eq!(take(ground, "shop").await.generation, 41);
}

/// `raise`: goes on under it.
pub async fn whoever_was_raised_has_one_key_only(ground: &Ground) {
    let key = take(ground, "shop").await;
    let raised = ground.ledger.raise(&key, 40).await.unwrap().key;
    is_lost(ground.ledger.renew(&key, TTL).await);
    assert_eq!(ground.ledger.begin(&new(&raised)).await.unwrap(), 1);
}

/// `begin`, `record`, `end`: refused without the lease.
pub async fn nothing_is_written_without_the_lease(ground: &Ground) {
    let key = take(ground, "shop").await;
    let number = ground.ledger.begin(&new(&key)).await.unwrap();
    ground.ledger.release(&key).await.unwrap();
    take(ground, "shop").await;
    is_lost(ground.ledger.begin(&new(&key)).await);
    is_lost(ground.ledger.record(&key, number, &line(1, StepState::Started)).await);
    is_lost(ground.ledger.end(&key, number, Outcome::Done, None, &release("v1")).await);
    assert_eq!(lines_of(ground, number).await, []);
}

/// `begin`: counted per scope.
pub async fn deployments_are_numbered_from_one(ground: &Ground) {
    let (shop, mail) = (take(ground, "shop").await, take(ground, "mail").await);
    assert_eq!(ground.ledger.begin(&new(&shop)).await.unwrap(), 1);
    assert_eq!(ground.ledger.begin(&new(&mail)).await.unwrap(), 1);
    assert_eq!(ground.ledger.begin(&new(&shop)).await.unwrap(), 2);
}

/// `begin`: what another ledger gave out is not given out again.
pub async fn numbers_are_above_what_the_target_knows(ground: &Ground) {
    let key = take(ground, "shop").await;
    let begin = async |after| {
        let new = NewDeployment { after, ..new(&key) };
        ground.ledger.begin(&new).await.unwrap()
    };
    assert_eq!([begin(6).await, begin(6).await, begin(0).await], [7, 8, 9]);
}

/// `deployments`: newest first, at most `limit`.
pub async fn deployments_come_newest_first_and_limited(ground: &Ground) {
    let key = take(ground, "shop").await;
    for _ in 0..3 {
        ground.ledger.begin(&new(&key)).await.unwrap();
    }
    let newest = ground.ledger.deployments(&scope("shop"), 2).await.unwrap();
    assert_eq!(newest.iter().map(|d| d.number).collect::<Vec<_>>(), [3, 2]);
    assert_eq!(ground.ledger.deployments(&scope("mail"), 2).await.unwrap(), []);
}

/// `begin`, `end`: the state is derived.
pub async fn a_deployment_is_unfinished_until_it_ends(ground: &Ground) {
    let key = take(ground, "shop").await;
    let number = ground.ledger.begin(&new(&key)).await.unwrap();
    let found = async || ground.ledger.deployment(&scope("shop"), number).await.unwrap().unwrap();
    assert_eq!(found().await.state, DeploymentState::Unfinished);
    let reason = Some("it broke");
    ground.ledger.end(&key, number, Outcome::RolledBack, reason, &release("v1")).await.unwrap();
    match found().await.state {
        DeploymentState::Ended { outcome, reason, .. } => {
            assert_eq!((outcome, reason.as_deref()), (Outcome::RolledBack, Some("it broke")));
        }
        DeploymentState::Unfinished => panic!("it has ended"),
    }
}

/// `end`: images that were built have their ids by now.
pub async fn what_ends_has_the_release_that_came_of_it(ground: &Ground) {
    let key = take(ground, "shop").await;
    let number = ground.ledger.begin(&new(&key)).await.unwrap();
    ground.ledger.end(&key, number, Outcome::Done, None, &release("v2")).await.unwrap();
    let found = ground.ledger.deployment(&scope("shop"), number).await.unwrap().unwrap();
    assert_eq!(found.release, release("v2"));
    assert_eq!((found.kind.as_str(), found.message.as_deref()), ("deploy", Some("why")));
}

/// `journal`: oldest line first.
pub async fn a_journal_keeps_its_order(ground: &Ground) {
    let key = take(ground, "shop").await;
    let number = ground.ledger.begin(&new(&key)).await.unwrap();
    let lines =
        [line(1, StepState::Started), line(2, StepState::Started), line(1, StepState::Finished)];
    for line in &lines {
        ground.ledger.record(&key, number, line).await.unwrap();
    }
    assert_eq!(lines_of(ground, number).await, lines);
}

/// `record`, `end`: nothing comes after the end.
pub async fn what_has_ended_takes_nothing_more(ground: &Ground) {
    let key = take(ground, "shop").await;
    let number = ground.ledger.begin(&new(&key)).await.unwrap();
    ground.ledger.end(&key, number, Outcome::Done, None, &release("v1")).await.unwrap();
    let more = ground.ledger.record(&key, number, &line(1, StepState::Started)).await;
    assert!(more.is_err());
    let again = ground.ledger.end(&key, number, Outcome::Stuck, None, &release("v1")).await;
    assert!(again.is_err());
    assert_eq!(lines_of(ground, number).await, []);
}

/// `deployment` is nothing; the others say what is missing.
pub async fn what_was_never_begun_is_not_there(ground: &Ground) {
    let key = take(ground, "shop").await;
    let shop = scope("shop");
    assert_eq!(ground.ledger.deployment(&shop, 7).await.unwrap(), None);
    let missing = |error| matches!(error, LedgerError::NoSuchDeployment(_, 7));
    assert!(missing(ground.ledger.journal(&shop, 7).await.unwrap_err()));
    assert!(missing(ground.ledger.binding(&shop, 7).await.unwrap_err()));
    let written = ground.ledger.record(&key, 7, &line(1, StepState::Started)).await;
    assert!(missing(written.unwrap_err()));
}

/// `binding`: decrypted.
pub async fn a_binding_comes_back_as_it_was(ground: &Ground) {
    let key = take(ground, "shop").await;
    let number = ground.ledger.begin(&new(&key)).await.unwrap();
    let binding = ground.ledger.binding(&scope("shop"), number).await.unwrap();
    assert_eq!(binding.expose(), b"PASSWORD=hunter2");
}

/// `scopes`: a lease alone is no history.
pub async fn scopes_are_those_with_deployments(ground: &Ground) {
    take(ground, "idle").await;
    let key = take(ground, "shop").await;
    for _ in 0..2 {
        ground.ledger.begin(&new(&key)).await.unwrap();
    }
    assert_eq!(ground.ledger.scopes().await.unwrap(), [scope("shop")]);
}

/// `verify`: how many entries there are.
pub async fn verifying_counts_every_entry(ground: &Ground) {
    assert_eq!(ground.ledger.verify().await.unwrap(), 0);
    let key = take(ground, "shop").await;
    let number = ground.ledger.begin(&new(&key)).await.unwrap();
    ground.ledger.record(&key, number, &line(1, StepState::Started)).await.unwrap();
    ground.ledger.end(&key, number, Outcome::Done, None, &release("v1")).await.unwrap();
    assert_eq!(ground.ledger.verify().await.unwrap(), 3);
}

/// `id`: always the same, and no other's.
pub async fn a_ledger_has_an_id_of_its_own(ground: &Ground) {
    assert_eq!(ground.ledger.id(), ground.ledger.id());
    assert_ne!(ground.ledger.id(), ground.other.id());
}

/// `retained_images`: of every scope, the newest first, those that are done alone.
pub async fn images_of_the_newest_done_deployments_are_retained(ground: &Ground) {
    let (shop, mail) = (take(ground, "shop").await, take(ground, "mail").await);
    let deploy = async |key: &LeaseKey, tag: &str, outcome| {
        let number = ground.ledger.begin(&new(key)).await.unwrap();
        ground.ledger.end(key, number, outcome, None, &release(tag)).await.unwrap();
    };
    for tag in ["v1", "v2", "v3"] {
        deploy(&shop, tag, Outcome::Done).await;
    }
    deploy(&shop, "broken", Outcome::RolledBack).await;
    deploy(&mail, "v1", Outcome::Done).await;
    ground.ledger.begin(&new(&mail)).await.unwrap();
    let retained = ground.ledger.retained_images(2).await.unwrap();
    let found: Vec<_> = retained
        .iter()
        .map(|(scope, number, image)| (scope.project.as_str(), *number, image.reference.as_str()))
        .collect();
    assert_eq!(found, [("mail", 1, "api:v1"), ("shop", 3, "api:v3"), ("shop", 2, "api:v2")]);
    assert_eq!(ground.ledger.retained_images(0).await.unwrap(), []);
}
