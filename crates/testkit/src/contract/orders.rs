//! What [`Orders`](shiplap_model::Orders) promise.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use shiplap_model::{
    Claim, KEY_LASTS, MAX_WAITING, NewOrder, ORDERS_KEPT, Order, OrderEnd, OrderError, OrderState,
    Scope, Store, Wanted,
};

type Passing = Box<dyn Fn(Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// An empty queue, and its clock.
pub struct Ground {
    /// The queue.
    pub orders: Arc<dyn Store>,
    /// The same queue, as another server has it.
    pub second: Arc<dyn Store>,
    /// Makes the clock of the queue go on; while nobody does, it goes on by less than a minute.
    pub pass: Passing,
    /// Whatever removes all this in the end.
    pub keep: Box<dyn Any + Send + Sync>,
}

impl Ground {
    /// Puts one together.
    pub fn new<F>(
        orders: Arc<dyn Store>,
        second: Arc<dyn Store>,
        pass: impl Fn(Duration) -> F + Send + Sync + 'static,
        keep: impl Any + Send + Sync,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self {
            orders,
            second,
            pass: Box::new(move |time| Box::pin(pass(time))),
            keep: Box::new(keep),
        }
    }
}

/// Makes a test of each promise of orders.
#[macro_export]
macro_rules! orders_contract {
    ($ground:path) => {
        $crate::contract!(
            orders,
            $ground,
            [
                an_order_comes_back_as_it_was_placed,
                orders_are_numbered_over_all_scopes,
                orders_come_newest_first_and_limited,
                the_oldest_order_is_taken_first,
                one_order_of_a_scope_runs_at_a_time,
                an_order_waits_for_others_until_it_is_due,
                orders_do_not_overtake_each_other,
                those_that_follow_are_merged_and_the_last_one_wins,
                nothing_is_merged_across_what_cannot_be,
                orders_of_other_scopes_are_not_merged,
                what_was_merged_into_is_kept_with_all_that_was_asked_for,
                exactly_one_caller_gets_an_order,
                a_claim_that_has_run_out_is_taken_again_alone,
                a_claim_that_is_kept_does_not_run_out,
                one_that_ran_out_and_that_nobody_took_can_be_kept_and_ended,
                whoever_lost_an_order_neither_keeps_nor_ends_it,
                an_end_is_written_down_once_and_may_be_said_twice,
                the_same_key_brings_the_same_order,
                a_key_is_a_tokens_own,
                a_key_for_something_else_is_refused,
                a_key_lasts_for_a_day,
                too_many_waiting_orders_are_refused,
                a_key_is_known_also_where_too_many_wait,
                the_revision_changes_with_each_placing_taking_and_ending_alone,
                orders_that_ended_long_ago_are_forgotten,
                of_many_that_place_with_one_key_at_once_one_does,
            ]
        );
    };
}

const TTL: Duration = Duration::from_secs(30 * 60);
const LONG: Duration = Duration::from_secs(2 * 60 * 60);

fn scope(environment: &str) -> Scope {
    Scope { project: "shop".to_owned(), environment: environment.to_owned() }
}

fn tags(tags: &[(&str, &str)]) -> Wanted {
    let tags = tags.iter().map(|(service, tag)| ((*service).to_owned(), (*tag).to_owned()));
    Wanted::Deploy { tags: tags.collect::<BTreeMap<_, _>>(), services: BTreeSet::new() }
}

fn back() -> Wanted {
    Wanted::Rollback { services: ["api".to_owned()].into(), to: None }
}

/// A deployment of the service `api` in `prod`, due at once.
fn new(tag: &str) -> NewOrder {
    NewOrder {
        scope: scope("prod"),
        wanted: tags(&[("api", tag)]),
        who: "ci of api".to_owned(),
        token: Some("a1".to_owned()),
        message: Some("Grüße: \"fix\"".to_owned()),
        revision: Some("0fab".to_owned()),
        idempotency_key: None,
        settle: Duration::ZERO,
    }
}

fn keyed(tag: &str, key: &str) -> NewOrder {
    NewOrder { idempotency_key: Some(key.to_owned()), ..new(tag) }
}

fn in_scope(environment: &str, tag: &str) -> NewOrder {
    NewOrder { scope: scope(environment), ..new(tag) }
}

fn end(exit: u8) -> OrderEnd {
    OrderEnd { at_ms: 1_700_000_000_123, exit, deployment: Some(4), summary: "done".to_owned() }
}

async fn place(ground: &Ground, order: &NewOrder) -> u64 {
    let placed = ground.orders.place(order).await.unwrap();
    assert!(!placed.repeated);
    placed.id
}

async fn claim(ground: &Ground) -> Option<Claim> {
    ground.orders.claim("one", TTL).await.unwrap()
}

async fn taken(ground: &Ground) -> Claim {
    claim(ground).await.expect("one is due")
}

async fn state(ground: &Ground, id: u64) -> OrderState {
    ground.orders.order(id).await.unwrap().expect("it is there").state
}

async fn finish(ground: &Ground, claim: &Claim) {
    ground.orders.finish(claim, &end(0)).await.unwrap();
}

#[track_caller]
fn is_lost(result: &Result<(), OrderError>, id: u64) {
    assert!(matches!(result, Err(OrderError::Lost(lost)) if *lost == id), "{result:?}");
}

/// `place`, `order`: all of it, and waiting.
pub async fn an_order_comes_back_as_it_was_placed(ground: &Ground) {
    assert_eq!(ground.orders.order(1).await.unwrap(), None);
    assert_eq!(ground.orders.order(u64::MAX).await.unwrap(), None);
    let full = NewOrder { settle: Duration::from_millis(90_500), ..keyed("v1", "k") };
    let bare = NewOrder {
        wanted: Wanted::Promote { from: "dev".to_owned(), deployment: Some(7) },
        token: None,
        message: None,
        revision: None,
        ..in_scope("other", "v1")
    };
    for order in [full, bare] {
        let id = place(ground, &order).await;
        let found = ground.second.order(id).await.unwrap().unwrap();
        let settle_ms = i64::try_from(order.settle.as_millis()).unwrap();
        let state = OrderState::Waiting { due_ms: found.at_ms + settle_ms };
        assert_eq!(found, Order { id, new: order, at_ms: found.at_ms, state });
    }
}

/// `Order::id`: from 1, later ones are higher.
pub async fn orders_are_numbered_over_all_scopes(ground: &Ground) {
    assert_eq!(place(ground, &new("v1")).await, 1);
    let other = place(ground, &in_scope("dev", "v1")).await;
    assert!(other > 1);
    assert!(place(ground, &new("v1")).await > other);
}

/// `orders`: newest first, at most `limit`, of one scope where it is given.
pub async fn orders_come_newest_first_and_limited(ground: &Ground) {
    let a = place(ground, &new("v1")).await;
    let b = place(ground, &in_scope("dev", "v1")).await;
    let c = place(ground, &new("v2")).await;
    let ids = async |scope: Option<&Scope>, limit| {
        let orders = ground.orders.orders(scope, limit).await.unwrap();
        orders.iter().map(|order| order.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(None, 9).await, [c, b, a]);
    assert_eq!(ids(None, 2).await, [c, b]);
    assert_eq!(ids(Some(&scope("prod")), 9).await, [c, a]);
    assert_eq!(ids(Some(&scope("prod")), 1).await, [c]);
    assert_eq!(ids(Some(&scope("none")), 9).await, [] as [u64; 0]);
}

/// `claim`: the oldest of all scopes.
pub async fn the_oldest_order_is_taken_first(ground: &Ground) {
    assert_eq!(claim(ground).await, None);
    let mut placed = Vec::new();
    for environment in ["c", "a", "b"] {
        placed.push(place(ground, &in_scope(environment, "v1")).await);
    }
    for id in placed {
        let claim = taken(ground).await;
        assert_eq!((claim.order.id, claim.resumed), (id, false));
        match claim.order.state {
            OrderState::Running { server, .. } => assert_eq!(server, "one"),
            other => panic!("{other:?}"),
        }
        assert!(matches!(state(ground, id).await, OrderState::Running { .. }));
    }
    assert_eq!(claim(ground).await, None);
}

/// `claim`: nothing of a scope in which one is running.
pub async fn one_order_of_a_scope_runs_at_a_time(ground: &Ground) {
    place(ground, &new("v1")).await;
    let first = taken(ground).await;
    let next = place(ground, &new("v2")).await;
    let elsewhere = place(ground, &in_scope("dev", "v1")).await;
    assert_eq!(taken(ground).await.order.id, elsewhere);
    assert_eq!(claim(ground).await, None);
    finish(ground, &first).await;
    assert_eq!(taken(ground).await.order.id, next);
}

/// `NewOrder::settle`.
pub async fn an_order_waits_for_others_until_it_is_due(ground: &Ground) {
    let id = place(ground, &NewOrder { settle: LONG, ..new("v1") }).await;
    assert_eq!(claim(ground).await, None);
    (ground.pass)(LONG / 2).await;
    assert_eq!(claim(ground).await, None);
    (ground.pass)(LONG / 2).await;
    assert_eq!(taken(ground).await.order.id, id);
}

/// `NewOrder::settle`: one that waits less makes those before it wait no longer.
pub async fn orders_do_not_overtake_each_other(ground: &Ground) {
    let slow = place(ground, &NewOrder { settle: LONG, ..new("v1") }).await;
    let quick = NewOrder { wanted: back(), ..new("v1") };
    let quick = place(ground, &quick).await;
    let first = taken(ground).await;
    assert_eq!(first.order.id, slow);
    finish(ground, &first).await;
    assert_eq!(taken(ground).await.order.id, quick);
}

/// `claim`: those that follow, due or not, into the newest; the later tag wins.
pub async fn those_that_follow_are_merged_and_the_last_one_wins(ground: &Ground) {
    let both = NewOrder { wanted: tags(&[("api", "1"), ("web", "1")]), ..new("") };
    let first = place(ground, &both).await;
    let second = place(ground, &new("2")).await;
    let third = place(ground, &NewOrder { settle: LONG, who: "bob".to_owned(), ..new("3") }).await;
    let claim = taken(ground).await;
    assert_eq!(claim.order.id, third);
    assert_eq!(claim.order.new.wanted, tags(&[("api", "3"), ("web", "1")]));
    assert_eq!((claim.order.new.who.as_str(), claim.resumed), ("bob", false));
    for merged in [first, second] {
        assert_eq!(state(ground, merged).await, OrderState::Merged { into: third });
    }
    finish(ground, &claim).await;
    assert_eq!(self::claim(ground).await, None);
}

/// `claim`: up to the first that it cannot be merged with.
pub async fn nothing_is_merged_across_what_cannot_be(ground: &Ground) {
    let first = place(ground, &new("1")).await;
    let rollback = place(ground, &NewOrder { wanted: back(), ..new("") }).await;
    let last = place(ground, &new("2")).await;
    for (id, wanted) in
        [(first, tags(&[("api", "1")])), (rollback, back()), (last, tags(&[("api", "2")]))]
    {
        let claim = taken(ground).await;
        assert_eq!((claim.order.id, &claim.order.new.wanted), (id, &wanted));
        finish(ground, &claim).await;
    }
}

/// `claim`: those of its scope alone.
pub async fn orders_of_other_scopes_are_not_merged(ground: &Ground) {
    let prod = place(ground, &new("1")).await;
    let dev = place(ground, &in_scope("dev", "2")).await;
    assert_eq!(taken(ground).await.order.new.wanted, tags(&[("api", "1")]));
    assert_eq!(taken(ground).await.order.id, dev);
    assert!(matches!(state(ground, prod).await, OrderState::Running { .. }));
}

/// `Order::new`: of one that others were merged into, what is done for all.
pub async fn what_was_merged_into_is_kept_with_all_that_was_asked_for(ground: &Ground) {
    let first = place(ground, &NewOrder { wanted: tags(&[("web", "1")]), ..new("") }).await;
    let second = place(ground, &new("2")).await;
    let claim = taken(ground).await;
    let kept = ground.second.order(second).await.unwrap().unwrap();
    assert_eq!(kept, claim.order);
    assert_eq!(kept.new.wanted, tags(&[("api", "2"), ("web", "1")]));
    let merged = ground.second.order(first).await.unwrap().unwrap();
    assert_eq!(merged.new.wanted, tags(&[("web", "1")]), "it stays what it was");
}

/// Runs `work` on both handles, four times each, all at once.
async fn at_once<T, F>(ground: &Ground, work: impl Fn(Arc<dyn Store>) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let handle = tokio::runtime::Handle::current();
    let mut running = Vec::new();
    for store in [&ground.orders, &ground.second].into_iter().cycle().take(8) {
        let (handle, work) = (handle.clone(), work(store.clone()));
        running.push(tokio::task::spawn_blocking(move || handle.block_on(work)));
    }
    let mut all = Vec::new();
    for one in running {
        all.push(one.await.unwrap());
    }
    all
}

/// `claim`: exactly one, however many ask.
pub async fn exactly_one_caller_gets_an_order(ground: &Ground) {
    const ORDERS: u64 = 24;
    for number in 0..ORDERS {
        place(ground, &in_scope(&format!("env-{number}"), "v1")).await;
    }
    let taken = at_once(ground, |store| async move {
        let mut taken = Vec::new();
        while let Some(claim) = store.claim("one", TTL).await.unwrap() {
            taken.push(claim.order.id);
        }
        taken
    });
    let mut taken: Vec<u64> = taken.await.into_iter().flatten().collect();
    taken.sort_unstable();
    assert_eq!(taken, (1..=ORDERS).collect::<Vec<_>>());
}

/// `claim`: before all others of its scope, alone, with a higher generation.
pub async fn a_claim_that_has_run_out_is_taken_again_alone(ground: &Ground) {
    let id = place(ground, &new("1")).await;
    let first = taken(ground).await;
    let next = place(ground, &new("2")).await;
    (ground.pass)(TTL / 2).await;
    assert_eq!(ground.second.claim("two", TTL).await.unwrap(), None);
    (ground.pass)(TTL / 2).await;
    let again = ground.second.claim("two", TTL).await.unwrap().unwrap();
    assert_eq!((again.order.id, again.resumed), (id, true));
    assert_eq!(again.order.new.wanted, tags(&[("api", "1")]));
    assert!(again.generation > first.generation);
    match &again.order.state {
        OrderState::Running { server, .. } => assert_eq!(server, "two"),
        other => panic!("{other:?}"),
    }
    assert_eq!(claim(ground).await, None, "one at a time");
    finish(ground, &again).await;
    assert_eq!(taken(ground).await.order.id, next);
}

/// `keep`: prolongs.
pub async fn a_claim_that_is_kept_does_not_run_out(ground: &Ground) {
    place(ground, &new("1")).await;
    let claim = taken(ground).await;
    for _ in 0..3 {
        (ground.pass)(TTL * 3 / 4).await;
        assert_eq!(ground.second.claim("two", TTL).await.unwrap(), None);
        ground.orders.keep(&claim, TTL).await.unwrap();
    }
}

/// `keep`, `finish`: also one that has run out and that nobody took.
pub async fn one_that_ran_out_and_that_nobody_took_can_be_kept_and_ended(ground: &Ground) {
    let id = place(ground, &new("1")).await;
    let claim = taken(ground).await;
    (ground.pass)(TTL * 2).await;
    ground.orders.keep(&claim, TTL).await.unwrap();
    assert_eq!(ground.second.claim("two", TTL).await.unwrap(), None);
    (ground.pass)(TTL * 2).await;
    finish(ground, &claim).await;
    assert_eq!(state(ground, id).await, OrderState::Ended(end(0)));
}

/// `keep`, `finish`: `Lost` when somebody else has it by now, or it has ended.
pub async fn whoever_lost_an_order_neither_keeps_nor_ends_it(ground: &Ground) {
    let id = place(ground, &new("1")).await;
    let stale = taken(ground).await;
    (ground.pass)(TTL).await;
    let current = ground.second.claim("two", TTL).await.unwrap().unwrap();
    is_lost(&ground.orders.keep(&stale, TTL).await, id);
    is_lost(&ground.orders.finish(&stale, &end(0)).await, id);
    assert!(matches!(state(ground, id).await, OrderState::Running { .. }));
    ground.second.finish(&current, &end(3)).await.unwrap();
    is_lost(&ground.second.keep(&current, TTL).await, id);
    is_lost(&ground.orders.finish(&stale, &end(3)).await, id);
    assert_eq!(state(ground, id).await, OrderState::Ended(end(3)));
}

/// `finish`: twice the same is right, something else is not.
pub async fn an_end_is_written_down_once_and_may_be_said_twice(ground: &Ground) {
    let id = place(ground, &new("1")).await;
    let claim = taken(ground).await;
    finish(ground, &claim).await;
    finish(ground, &claim).await;
    is_lost(&ground.orders.finish(&claim, &end(3)).await, id);
    assert_eq!(state(ground, id).await, OrderState::Ended(end(0)));
    assert_eq!(self::claim(ground).await, None);
}

/// `NewOrder::idempotency_key`: whatever became of it, and whatever was merged into it.
pub async fn the_same_key_brings_the_same_order(ground: &Ground) {
    let first = place(ground, &NewOrder { wanted: tags(&[("web", "1")]), ..new("") }).await;
    let id = place(ground, &keyed("v1", "k")).await;
    let repeat = async || ground.second.place(&keyed("v1", "k")).await.unwrap();
    let expected = shiplap_model::Placed { id, repeated: true };
    assert_eq!(repeat().await, expected);
    let other_settle = NewOrder { settle: LONG, who: "else".to_owned(), ..keyed("v1", "k") };
    assert_eq!(ground.second.place(&other_settle).await.unwrap(), expected);
    let claim = taken(ground).await;
    assert_eq!((claim.order.id, repeat().await), (id, expected.clone()));
    finish(ground, &claim).await;
    assert_eq!(repeat().await, expected);
    let all = ground.orders.orders(None, 9).await.unwrap();
    assert_eq!(all.iter().map(|order| order.id).collect::<Vec<_>>(), [id, first]);
}

/// `NewOrder::idempotency_key`: of the same token; those without one share one.
pub async fn a_key_is_a_tokens_own(ground: &Ground) {
    let other = NewOrder { token: Some("a2".to_owned()), ..keyed("v1", "k") };
    let none = NewOrder { token: None, ..keyed("v1", "k") };
    let mut placed = BTreeSet::new();
    for order in [&keyed("v1", "k"), &other, &none] {
        placed.insert(place(ground, order).await);
    }
    assert_eq!(placed.len(), 3);
    assert!(ground.orders.place(&none).await.unwrap().repeated);
    let without_key = new("v1");
    place(ground, &without_key).await;
    place(ground, &without_key).await;
}

/// `OrderError::KeyReused`: with the number of the order that it stands for.
pub async fn a_key_for_something_else_is_refused(ground: &Ground) {
    let id = place(ground, &keyed("v1", "k")).await;
    for other in [
        keyed("v2", "k"),
        NewOrder { scope: scope("dev"), ..keyed("v1", "k") },
        NewOrder { message: None, ..keyed("v1", "k") },
        NewOrder { revision: Some("1fab".to_owned()), ..keyed("v1", "k") },
    ] {
        let refused = ground.orders.place(&other).await;
        assert!(matches!(refused, Err(OrderError::KeyReused(found)) if found == id), "{refused:?}");
    }
    assert_eq!(ground.orders.orders(None, 9).await.unwrap().len(), 1);
}

/// `KEY_LASTS`.
pub async fn a_key_lasts_for_a_day(ground: &Ground) {
    let id = place(ground, &keyed("v1", "k")).await;
    (ground.pass)(KEY_LASTS - Duration::from_secs(60 * 60)).await;
    assert!(ground.orders.place(&keyed("v1", "k")).await.unwrap().repeated);
    (ground.pass)(Duration::from_secs(60 * 60)).await;
    let second = place(ground, &keyed("v2", "k")).await;
    assert!(second > id);
    let again = ground.orders.place(&keyed("v2", "k")).await.unwrap();
    assert_eq!((again.id, again.repeated), (second, true));
}

/// `MAX_WAITING`: of one scope; nothing is written.
pub async fn too_many_waiting_orders_are_refused(ground: &Ground) {
    place(ground, &new("running")).await;
    let running = taken(ground).await;
    for _ in 0..MAX_WAITING {
        place(ground, &NewOrder { settle: LONG, ..new("v1") }).await;
    }
    let refused = ground.orders.place(&new("v2")).await;
    assert!(matches!(refused, Err(OrderError::Full(MAX_WAITING))), "{refused:?}");
    let all = ground.orders.orders(None, 2 * MAX_WAITING).await.unwrap();
    assert_eq!(all.len(), MAX_WAITING as usize + 1);
    finish(ground, &running).await;
    assert_eq!(claim(ground).await, None, "what was refused makes nobody wait less");
    place(ground, &in_scope("dev", "v1")).await;
    (ground.pass)(LONG).await;
    taken(ground).await;
    place(ground, &new("v2")).await;
}

/// `place`: one that is there already is not written again.
pub async fn a_key_is_known_also_where_too_many_wait(ground: &Ground) {
    let id = place(ground, &keyed("v1", "k")).await;
    for _ in 1..MAX_WAITING {
        place(ground, &new("v1")).await;
    }
    let placed = ground.orders.place(&keyed("v1", "k")).await.unwrap();
    assert_eq!((placed.id, placed.repeated), (id, true));
}

/// `orders_revision`.
pub async fn the_revision_changes_with_each_placing_taking_and_ending_alone(ground: &Ground) {
    let revision = async || ground.second.orders_revision().await.unwrap();
    let mut seen = BTreeSet::from([revision().await]);
    place(ground, &keyed("v1", "k")).await;
    assert!(seen.insert(revision().await), "placed");
    let placed = revision().await;
    ground.orders.place(&keyed("v1", "k")).await.unwrap();
    ground.orders.place(&keyed("v2", "k")).await.unwrap_err();
    ground.orders.orders(None, 9).await.unwrap();
    assert_eq!(revision().await, placed, "nothing was placed");
    let claim = taken(ground).await;
    assert!(seen.insert(revision().await), "taken");
    let taken = revision().await;
    assert_eq!(self::claim(ground).await, None);
    ground.orders.keep(&claim, TTL).await.unwrap();
    assert_eq!(revision().await, taken, "nothing was taken");
    (ground.pass)(TTL).await;
    let claim = ground.second.claim("two", TTL).await.unwrap().unwrap();
    assert!(seen.insert(revision().await), "taken again");
    ground.second.finish(&claim, &end(0)).await.unwrap();
    assert!(seen.insert(revision().await), "ended");
    let ended = revision().await;
    ground.second.finish(&claim, &end(0)).await.unwrap();
    assert_eq!(revision().await, ended, "it had ended");
}

/// `place`: forgets what ended longer ago than `ORDERS_KEPT`; numbers are not given again.
pub async fn orders_that_ended_long_ago_are_forgotten(ground: &Ground) {
    let merged = place(ground, &new("1")).await;
    let ended = place(ground, &new("2")).await;
    finish(ground, &taken(ground).await).await;
    let running = place(ground, &new("3")).await;
    taken(ground).await;
    let waiting = place(ground, &new("4")).await;
    let ids = async || {
        let orders = ground.orders.orders(None, 9).await.unwrap();
        orders.iter().map(|order| order.id).collect::<Vec<_>>()
    };
    (ground.pass)(ORDERS_KEPT - Duration::from_secs(60 * 60)).await;
    let early = place(ground, &in_scope("dev", "1")).await;
    assert_eq!(ids().await, [early, waiting, running, ended, merged]);
    (ground.pass)(Duration::from_secs(2 * 60 * 60)).await;
    let late = place(ground, &in_scope("dev", "2")).await;
    assert_eq!(ids().await, [late, early, waiting, running]);
    assert!(late > early);
}

/// `place`: a key stands for one order, also where it is used by several at the same time.
pub async fn of_many_that_place_with_one_key_at_once_one_does(ground: &Ground) {
    let placed =
        at_once(ground, |store| async move { store.place(&keyed("v1", "k")).await.unwrap() });
    let placed = placed.await;
    assert_eq!(placed.iter().filter(|placed| !placed.repeated).count(), 1);
    assert!(placed.iter().all(|one| one.id == placed[0].id));
}
