//! The table at which deployments that are carried out together meet.
//!
//! Each has a seat. They agree once, on all plans at a time, and meet twice: when each is ready to
//! replace what runs, and when each has been watched after its switch. Whoever fails before the
//! last meeting makes the others fail, and all go back by themselves.
//!
//! ```text
//! core     plan ─┐      gates ─┐       switch, watch ─┐       leave the old release
//! scrape   plan ─┼─ yes? ──────┼─ ready ──────────────┼─ watched ── no way back for anybody
//! proxy    plan ─┘      gates ─┘       switch, watch ─┘
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use shiplap_model::{MeetingPoint, Plan};
use tokio::sync::watch;

use crate::meeting::Meeting;

/// What members have in common besides the question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tie {
    /// They replace what runs together, or not at all.
    Gated,
    /// Nothing: each goes its way once all may begin.
    Loose,
}

/// How far a member has come.
#[derive(Debug, Clone)]
enum Stage {
    /// It is being planned.
    Planning,
    /// This is what it would do.
    Planned(Box<Plan>),
    /// It waits there, or has gone on from there.
    Arrived(MeetingPoint),
    /// It has ended, well or not: nobody waits for it.
    Gone,
}

#[derive(Debug)]
struct State {
    members: BTreeMap<String, Stage>,
    /// What was said to the plans.
    answer: Option<bool>,
    /// Those whose plans were shown then.
    shown: BTreeSet<String>,
    /// The last meeting that has taken place.
    met: Option<MeetingPoint>,
    /// Who failed first before the last meeting, and why.
    failed: Option<(String, String)>,
}

impl State {
    /// Lets a meeting take place if it can.
    fn settle(&mut self) {
        for point in [MeetingPoint::Ready, MeetingPoint::Watched] {
            let mut at_table = self.members.values().filter(|stage| match stage {
                Stage::Planning | Stage::Planned(_) | Stage::Arrived(_) => true,
                Stage::Gone => false,
            });
            let all = at_table.all(|stage| match stage {
                Stage::Arrived(at) => *at >= point,
                Stage::Planning | Stage::Planned(_) | Stage::Gone => false,
            });
            if all && self.failed.is_none() && self.met < Some(point) {
                self.met = Some(point);
            }
        }
    }

    fn fail(&mut self, name: &str, reason: &str) {
        if self.met < Some(MeetingPoint::Watched) && self.failed.is_none() {
            self.failed = Some((name.to_owned(), reason.to_owned()));
        }
    }

    fn go(&mut self, name: &str) {
        self.members.insert(name.to_owned(), Stage::Gone);
        self.settle();
    }

    fn has_met(&self, point: MeetingPoint) -> bool {
        self.met >= Some(point)
    }

    /// Why one that waits has waited in vain.
    fn in_vain(&self) -> Option<String> {
        let (name, reason) = self.failed.as_ref()?;
        let first = reason.lines().next().unwrap_or_default();
        Some(format!("{name} failed: {first}"))
    }

    fn planned(&self) -> impl Iterator<Item = (&String, &Plan)> {
        self.members.iter().filter_map(|(name, stage)| match stage {
            Stage::Planned(plan) => Some((name, plan.as_ref())),
            Stage::Planning | Stage::Arrived(_) | Stage::Gone => None,
        })
    }

    fn all_planned(&self) -> bool {
        self.members.values().all(|stage| match stage {
            Stage::Planning => false,
            Stage::Planned(_) | Stage::Arrived(_) | Stage::Gone => true,
        })
    }
}

/// The table. Clones are the same one.
#[derive(Debug, Clone)]
pub(super) struct Table(Arc<watch::Sender<State>>);

impl Table {
    /// A table with a seat for each of these.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        let members = names.into_iter().map(|name| (name, Stage::Planning)).collect();
        let shown = BTreeSet::new();
        let state = State { members, answer: None, shown, met: None, failed: None };
        Self(Arc::new(watch::channel(state).0))
    }

    /// The seat of one of them.
    pub fn seat(&self, name: &str) -> Seat {
        assert!(self.0.borrow().members.contains_key(name), "the table was laid for {name}");
        Seat { place: Arc::new(Place { table: self.clone(), name: name.to_owned() }) }
    }

    /// What each would do that would do anything, once all know; nothing where one cannot.
    pub async fn plans(&self) -> Option<Vec<(String, Plan)>> {
        let state = self.until(State::all_planned).await;
        if state.failed.is_some() {
            return None;
        }
        Some(state.planned().map(|(name, plan)| (name.clone(), plan.clone())).collect())
    }

    /// Says yes or no to all plans.
    pub fn answer(&self, yes: bool) {
        self.0.send_modify(|state| {
            state.shown = state.planned().map(|(name, _)| name.clone()).collect();
            state.answer = Some(yes);
        });
    }

    /// Says no, since one of them cannot begin.
    pub fn call_off(&self) {
        self.0.send_modify(|state| state.answer = Some(false));
    }

    /// Whether it was, before anybody was asked.
    pub fn is_called_off(&self) -> bool {
        let state = self.0.borrow();
        state.answer == Some(false) && state.shown.is_empty()
    }

    /// Waits until one has failed after all had begun. May never be.
    pub async fn broken(&self) -> String {
        let broken = |state: &State| state.answer == Some(true) && state.failed.is_some();
        let state = self.until(broken).await;
        state.in_vain().expect("one has failed")
    }

    /// Waits for what stays so once it is.
    async fn until(&self, reached: impl Fn(&State) -> bool) -> watch::Ref<'_, State> {
        let mut receiver = self.0.subscribe();
        let is_open = receiver.wait_for(|state| reached(state)).await.is_ok();
        assert!(is_open, "the sender lives in `self`");
        self.0.borrow()
    }
}

/// A member's seat. Who leaves it without a word has failed.
#[derive(Debug)]
pub(super) struct Seat {
    place: Arc<Place>,
}

impl Seat {
    /// What the member's deployment knows of it.
    pub fn place(&self) -> Arc<Place> {
        self.place.clone()
    }

    /// The member has done all that it had to do, or had nothing to do.
    pub fn leave(self) {
        let Place { table, name } = self.place.as_ref();
        table.0.send_modify(|state| state.go(name));
    }

    /// The member has failed.
    pub fn fail(self, reason: &str) {
        self.place.fail(reason);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Place { table, name } = self.place.as_ref();
        table.0.send_modify(|state| {
            if !matches!(state.members[name], Stage::Gone) {
                state.fail(name, "it ended without a word");
                state.go(name);
            }
        });
    }
}

/// What a member's deployment knows of the table.
#[derive(Debug)]
pub(super) struct Place {
    table: Table,
    name: String,
}

impl Place {
    /// Shows what the member would do, and waits for the answer to all plans.
    pub async fn agree(&self, plan: &Plan) -> bool {
        self.table.0.send_modify(|state| {
            state.members.insert(self.name.clone(), Stage::Planned(Box::new(plan.clone())));
        });
        self.table.until(|state| state.answer.is_some()).await.answer == Some(true)
    }

    /// Names of all whose plans were shown together.
    pub fn shown(&self) -> BTreeSet<String> {
        self.table.0.borrow().shown.clone()
    }
}

#[async_trait]
impl Meeting for Place {
    async fn arrive(&self, point: MeetingPoint) -> Result<(), String> {
        self.table.0.send_modify(|state| {
            state.members.insert(self.name.clone(), Stage::Arrived(point));
            state.settle();
        });
        let mut receiver = self.table.0.subscribe();
        let state = receiver.wait_for(|state| state.has_met(point) || state.failed.is_some());
        let state = state.await.expect("the sender lives in the table");
        // Who has met has met, whatever happened since.
        if state.has_met(point) { Ok(()) } else { Err(state.in_vain().expect("one has failed")) }
    }

    fn give_up(&self, point: MeetingPoint, reason: &str) -> Result<(), String> {
        let mut met = false;
        self.table.0.send_modify(|state| {
            met = state.has_met(point);
            if !met {
                state.fail(&self.name, reason);
            }
        });
        if met { Ok(()) } else { Err(reason.to_owned()) }
    }

    fn fail(&self, reason: &str) {
        self.table.0.send_modify(|state| state.fail(&self.name, reason));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shiplap_model::Goal;

    use super::*;
    use MeetingPoint::{Ready, Watched};

    fn table(names: &[&str]) -> (Table, Vec<Seat>) {
        let table = Table::new(names.iter().map(|name| (*name).to_owned()));
        let seats = names.iter().map(|name| table.seat(name)).collect();
        (table, seats)
    }

    fn plan(of: &str) -> Plan {
        Plan {
            project: of.to_owned(),
            environment: "prod".to_owned(),
            goal: Goal::Deploy,
            changes: Vec::new(),
            routes: Vec::new(),
            notes: Vec::new(),
            steps: Vec::new(),
            kept_volumes: Vec::new(),
            replicas: BTreeMap::new(),
            ids: BTreeMap::new(),
        }
    }

    async fn after(seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    /// How long something takes, in seconds, and what comes of it.
    async fn timed<T>(work: impl Future<Output = T>) -> (u64, T) {
        let began = tokio::time::Instant::now();
        let result = work.await;
        (began.elapsed().as_secs(), result)
    }

    #[tokio::test(start_paused = true)]
    async fn all_go_on_when_the_last_one_has_arrived() {
        let (_table, seats) = table(&["core", "proxy", "scrape"]);
        let walk = |index: usize, seconds: u64| {
            let place = seats[index].place();
            timed(async move {
                after(seconds).await;
                place.arrive(Ready).await
            })
        };
        let ends = tokio::join!(walk(0, 1), walk(1, 7), walk(2, 3));
        assert_eq!(ends, ((7, Ok(())), (7, Ok(())), (7, Ok(()))));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_leaves_is_not_waited_for() {
        let (_table, mut seats) = table(&["core", "proxy"]);
        let (leaver, place) = (seats.pop().unwrap(), seats[0].place());
        let leaving = async {
            after(4).await;
            leaver.leave();
        };
        let (end, ()) = tokio::join!(timed(place.arrive(Ready)), leaving);
        assert_eq!(end, (4, Ok(())));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_fails_or_is_dropped_is_waited_for_no_longer() {
        for dropped in [false, true] {
            let (_table, mut seats) = table(&["core", "proxy"]);
            let (failing, place) = (seats.pop().unwrap(), seats[0].place());
            let failing = async {
                after(2).await;
                if dropped { drop(failing) } else { failing.fail("it crashed\nlog") }
            };
            let (end, ()) = tokio::join!(timed(place.arrive(Ready)), failing);
            let why = if dropped { "it ended without a word" } else { "it crashed" };
            assert_eq!(end, (2, Err(format!("proxy failed: {why}"))));
            assert!(place.arrive(Watched).await.is_err(), "and so it stays");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_has_met_has_met_even_if_somebody_gives_up_at_that_moment() {
        let (_table, seats) = table(&["core", "proxy"]);
        let (one, other) = (seats[0].place(), seats[1].place());
        for point in [Ready, Watched] {
            let met = tokio::join!(one.arrive(point), other.arrive(point));
            assert_eq!(met, (Ok(()), Ok(())));
            // Its waiting was interrupted before it had learned of it.
            assert_eq!(one.give_up(point, "interrupted"), Ok(()));
        }
        // Nobody goes back from here on, whatever becomes of one of them.
        one.fail("the disk is full");
        assert_eq!(other.arrive(Watched).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_gives_up_before_takes_the_others_along() {
        let (_table, seats) = table(&["core", "proxy"]);
        let (one, other) = (seats[0].place(), seats[1].place());
        let giving_up = async {
            after(3).await;
            one.give_up(Ready, "interrupted by the user")
        };
        let (end, gave_up) = tokio::join!(timed(other.arrive(Ready)), giving_up);
        assert_eq!(gave_up, Err("interrupted by the user".to_owned()));
        assert_eq!(end, (3, Err("core failed: interrupted by the user".to_owned())));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_between_the_meetings_breaks_the_second() {
        let (table, seats) = table(&["core", "proxy"]);
        let (one, other) = (seats[0].place(), seats[1].place());
        let (first, second) = (plan("core"), plan("proxy"));
        tokio::join!(one.agree(&first), other.agree(&second), async {
            assert!(table.plans().await.is_some());
            table.answer(true);
        });
        assert_eq!(tokio::join!(one.arrive(Ready), other.arrive(Ready)), (Ok(()), Ok(())));
        let failing = async {
            after(5).await;
            one.fail("core-1 exited with 1");
        };
        let (watched, broken, ()) =
            tokio::join!(timed(other.arrive(Watched)), timed(table.broken()), failing);
        let why = "core failed: core-1 exited with 1".to_owned();
        assert_eq!(watched, (5, Err(why.clone())));
        assert_eq!(broken, (5, why));
    }

    #[tokio::test(start_paused = true)]
    async fn all_plans_are_asked_about_at_once() {
        let (table, seats) = table(&["core", "proxy", "scrape"]);
        let (one, other) = (seats[0].place(), seats[2].place());
        let [_core, idle, _scrape] = <[Seat; 3]>::try_from(seats).expect("three");
        idle.leave();
        let asking = async {
            let plans = table.plans().await.expect("nobody failed");
            let names: Vec<String> = plans.into_iter().map(|(name, _)| name).collect();
            assert_eq!(names, ["core", "scrape"]);
            after(60).await;
            table.answer(true);
        };
        let (first, second) = (plan("core"), plan("scrape"));
        let agreed = tokio::join!(timed(one.agree(&first)), timed(other.agree(&second)), asking);
        assert_eq!((agreed.0, agreed.1), ((60, true), (60, true)));
        assert!(one.shown().iter().eq(["core", "scrape"]), "{:?}", one.shown());
        assert!(!table.is_called_off());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_asked_when_one_cannot_begin_and_all_problems_are_waited_for() {
        let (table, mut seats) = table(&["core", "proxy", "scrape"]);
        let (late, early, place) = (seats.pop().unwrap(), seats.pop().unwrap(), seats[0].place());
        early.fail("no such image");
        let failing = async {
            after(9).await;
            late.fail("no such image either");
        };
        let asking = async {
            let plans = timed(table.plans()).await;
            assert!(matches!(plans, (9, None)), "{plans:?}");
            table.call_off();
        };
        let own = plan("core");
        let (agreed, (), ()) = tokio::join!(place.agree(&own), asking, failing);
        assert!(!agreed);
        assert!(table.is_called_off());
    }
}
