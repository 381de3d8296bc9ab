//! What holds for every plan.

use std::collections::BTreeSet;

use shiplap_model::{Action, Desired, Goal, MeetingPoint, Observed, Phase, Plan};
use shiplap_plan::{Policy, plan, render, render_steps, to_json};
use shiplap_testkit::desired;

use crate::support::observed;

/// Small and the same every time: a linear congruential generator.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % sides
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[usize::try_from(self.roll(from.len() as u64)).unwrap()]
    }
}

const NAMES: [&str; 4] = ["api", "db", "web", "worker"];

fn project(dice: &mut Dice) -> String {
    let mut yaml = String::from("services:\n");
    for (index, name) in NAMES.iter().enumerate() {
        if dice.roll(5) == 0 && index > 0 {
            continue;
        }
        let image = dice.pick(&["v1", "v2"]);
        let more = dice.pick(&[
            "ports: ['8000:8000'], ",
            "volumes: ['data:/data'], ports: ['9000:9000'], ",
            "volumes: ['data:/data'], ",
            "",
            "environment: { KEY: value }, ",
        ]);
        let more = more.replace("8000:", &format!("{}:", 8000 + index));
        let more = more.replace("9000:", &format!("{}:", 9000 + index));
        let restart = dice.pick(&["restart: always, ", ""]);
        let replicas = dice.pick(&["1", "1", "2"]);
        let depends = if index > 0 && dice.roll(2) == 0 { "depends_on: [api], " } else { "" };
        yaml += &format!(
            "  {name}: {{ image: '{name}:{image}', {more}{restart}{depends}deploy: {{ replicas: \
             {replicas} }} }}\n"
        );
    }
    yaml += "volumes: { data: {} }\n";
    yaml
}

fn machine(dice: &mut Dice) -> String {
    let mut lines = String::new();
    for name in ["api", "db", "web", "worker", "gone"] {
        for number in 1..=dice.roll(3) {
            let image = dice.pick(&["v1", "v2"]);
            let state = dice.pick(&["", "", "", "exited=0", "exited=1", "restarting", "created"]);
            let routed = if state.is_empty() { dice.pick(&["routed", ""]) } else { "" };
            let made = dice.pick(&["d=1", "d=2", ""]);
            let held = if made.is_empty() { "" } else { dice.pick(&["held-names", ""]) };
            let changed = dice.pick(&["", "", "changed=environment.KEY"]);
            lines += &format!(
                "shop-{name}-{number} image={name}:{image} {state} {routed} {made} {held} \
                 {changed}\n"
            );
            if dice.roll(3) == 0 {
                let state = dice.pick(&["", "exited=0", "created", "paused"]);
                lines +=
                    &format!("shop-{name}-{number}.d3 d=3 image={name}:v2 {state} held-names\n");
            }
        }
    }
    lines
}

/// Many pairs of a project and a machine, and a policy.
fn worlds(check: impl Fn(&Desired, &Observed, &Policy, &str)) {
    for seed in 0..300 {
        let dice = &mut Dice(seed);
        let (yaml, machine) = (project(dice), machine(dice));
        let desired = desired(&yaml);
        let observed = observed(&desired, &machine);
        let mut policy = Policy::deploy(7);
        policy.remove_orphans = dice.roll(4) == 0;
        if dice.roll(8) == 0 {
            policy.goal = Goal::Down;
        }
        if dice.roll(4) == 0 {
            policy.selection = shiplap_plan::Selection::Only(BTreeSet::from(["api".to_owned()]));
        }
        if dice.roll(3) == 0 {
            policy.meet = vec!["proxy".to_owned(), "scrape".to_owned()];
        }
        check(&desired, &observed, &policy, &format!("seed {seed}\n{yaml}---\n{machine}"));
    }
}

fn text(plan: &Plan) -> String {
    format!("{}{}{}", render(plan), render_steps(plan), to_json(plan))
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    worlds(|desired, observed, policy, context| {
        let one = plan(desired, observed, policy).map(|plan| text(&plan));
        // The order of lists that mean sets must not matter.
        let mut shuffled = observed.clone();
        if let Some(router) = &mut shuffled.router {
            router.listeners.reverse();
        }
        let mut reversed = desired.clone();
        reversed.compose.services.reverse();
        reversed.compose.networks.reverse();
        reversed.compose.volumes.reverse();
        let two = plan(desired, observed, policy).map(|plan| text(&plan));
        let three = plan(&reversed, &shuffled, policy).map(|plan| text(&plan));
        assert_eq!(one, two, "{context}");
        if desired.compose.networks.len() < 2 && desired.compose.volumes.len() < 2 {
            assert_eq!(one, three, "{context}");
        }
    });
}

#[test]
fn every_step_comes_after_those_that_it_waits_for() {
    worlds(|desired, observed, policy, context| {
        let Ok(plan) = plan(desired, observed, policy) else { return };
        for (index, step) in plan.steps.iter().enumerate() {
            assert_eq!(step.id.0 as usize, index + 1, "{context}");
            assert!(step.after.iter().all(|id| *id < step.id), "{} {context}", step.action);
            let phases = plan.steps.iter().filter(|s| step.after.contains(&s.id)).map(|s| s.phase);
            assert!(phases.into_iter().all(|phase| phase <= step.phase), "{context}");
        }
    });
}

#[test]
fn nothing_is_removed_that_is_not_the_projects_own_or_was_not_asked_for() {
    worlds(|desired, observed, policy, context| {
        let Ok(plan) = plan(desired, observed, policy) else { return };
        let down = policy.goal == Goal::Down;
        for step in &plan.steps {
            let (named, touched) = match &step.action {
                Action::RemoveVolume { .. } => panic!("{} {context}", step.action),
                Action::RemoveNetwork { .. } => (None, down),
                Action::Remove { container, .. } | Action::Stop { container, .. } => {
                    (Some(container), true)
                }
                Action::Rename { from, .. } => (Some(from), true),
                _ => continue,
            };
            assert!(touched, "{} {context}", step.action);
            let Some(name) = named else { continue };
            let Some(container) = observed.containers.iter().find(|c| c.name == *name) else {
                continue;
            };
            let known = desired.services.contains_key(&container.service);
            assert!(known || policy.remove_orphans || down, "{} {context}", step.action);
            let selected = policy.selection.contains(&container.service);
            let orphan = policy.remove_orphans && !known;
            assert!(selected || orphan || down, "{} {context}", step.action);
        }
    });
}

#[test]
fn nothing_stops_while_it_is_routed_to() {
    worlds(|desired, observed, policy, context| {
        let Ok(plan) = plan(desired, observed, policy) else { return };
        for (index, step) in plan.steps.iter().enumerate() {
            let (Action::Stop { container, .. } | Action::Remove { container, .. }) = &step.action
            else {
                continue;
            };
            let Some(found) = observed.containers.iter().find(|c| c.name == *container) else {
                continue;
            };
            let routed =
                observed.router.iter().flat_map(|router| &router.pools).any(|(_, pool)| {
                    pool.replicas.iter().any(|(replica, _, _)| replica.container_id == found.id)
                });
            let moved = plan.steps[..index].iter().any(|earlier| match &earlier.action {
                Action::Route { to, .. } => {
                    let pools = to.pools.iter().filter(|p| p.key.service == found.service);
                    let dropped = to.drop_pools.iter().any(|key| key.service == found.service);
                    let mut pools = pools.peekable();
                    dropped
                        || (pools.peek().is_some()
                            && pools.all(|p| p.held || !p.replicas.contains(container)))
                }
                _ => false,
            });
            assert!(!routed || moved, "{} {context}\n{}", step.action, text(&plan));
        }
    });
}

/// All that a step waits for, directly or not.
fn before(plan: &Plan, step: &shiplap_model::Step) -> BTreeSet<shiplap_model::StepId> {
    let mut found: BTreeSet<_> = step.after.iter().copied().collect();
    for earlier in plan.steps.iter().rev() {
        if found.contains(&earlier.id) {
            found.extend(&earlier.after);
        }
    }
    found
}

#[test]
fn whoever_meets_others_touches_and_leaves_nothing_before() {
    let met = std::cell::Cell::new(0);
    worlds(|desired, observed, policy, context| {
        let Ok(alone) = plan(desired, observed, &Policy { meet: Vec::new(), ..policy.clone() })
        else {
            return;
        };
        let policy = Policy { meet: vec!["proxy".to_owned()], ..policy.clone() };
        let plan = plan(desired, observed, &policy).expect("others are no reason to refuse");
        assert_eq!(plan.is_empty(), alone.is_empty(), "{context}");
        let meets = plan.steps.iter().filter_map(|step| match step.action {
            Action::Meet { point, .. } => Some((point, step.id)),
            _ => None,
        });
        let meets: Vec<_> = meets.collect();
        if plan.is_empty() || policy.goal == Goal::Down {
            assert_eq!(meets, [], "{context}");
            return;
        }
        let [(MeetingPoint::Ready, ready), (MeetingPoint::Watched, watched)] = meets[..] else {
            panic!("{meets:?} {context}")
        };
        let others = |plan: &Plan| -> Vec<String> {
            let steps = plan.steps.iter().filter(|s| !matches!(s.action, Action::Meet { .. }));
            steps.map(|step| step.action.to_string()).collect()
        };
        assert_eq!(others(&plan), others(&alone), "nothing else changes: {context}");
        for step in &plan.steps {
            let known = before(&plan, step);
            let what = format!("{} {context}\n{}", step.action, text(&plan));
            let touches = match &step.action {
                Action::Stop { .. } => true,
                // Answering where nobody did, or opening a port, touches nothing.
                Action::Route { what, .. } => {
                    what.starts_with("hold ") || what.starts_with("switch ")
                }
                _ => false,
            };
            assert!(!touches || known.contains(&ready), "before all are ready: {what}");
            let leaves = step.phase == Phase::Tidy;
            assert!(!leaves || known.contains(&watched), "before all are watched: {what}");
            let changes = step.phase != Phase::Tidy && step.id != watched;
            assert!(
                !changes || before(&plan, &plan.steps[watched.0 as usize - 1]).contains(&step.id),
                "still under way when it has been watched: {what}"
            );
        }
        met.set(met.get() + 1);
    });
    assert!(met.get() > 100, "only {} plans had something to do", met.get());
}

#[test]
fn no_value_of_the_environment_is_in_a_plan() {
    worlds(|desired, observed, policy, context| {
        let Ok(plan) = plan(desired, observed, policy) else { return };
        assert!(!text(&plan).contains("a secret"), "{context}");
    });
}
