//! Any project after any other, with trouble at any call, one after the other.

use shiplap_model::Outcome;
use shiplap_testkit::{Script, Trouble, World, desired};

use crate::shapes;
use crate::support::{Cases, Deployer, assert_serves, assert_settled, next_plan, paused};

/// Small and the same every time: a linear congruential generator.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }
}

/// Most calls that a change makes.
const CALLS: usize = 150;

async fn walk(seed: u64) {
    let dice = &mut Dice(seed);
    let world = World::new();
    world.state().has_ipv6 = dice.roll(2) == 0;
    world.script("migrate", Script { exits: Some((2, 0)), ..Script::default() });
    let projects = shapes::projects();
    for step in 0..6 {
        let new = desired(projects[dice.roll(projects.len())]);
        world.has_images_of(&new);
        if step == 0 && dice.roll(3) == 0 {
            world.compose_up(&new);
            continue;
        }
        let plan = next_plan(&world, &new, |policy| policy.remove_orphans = true).await;
        let deployer = Deployer::new(&world);
        let (number, lease) = deployer.begin().await;
        let run = deployer.run(&new, number, lease);
        world.reset();
        let trouble = [Trouble::Before, Trouble::After, Trouble::Hang, Trouble::HangAfter];
        world.trouble_at(dice.roll(CALLS), trouble[dice.roll(4)].clone());
        let execution = tokio::select! {
            execution = shiplap_execute::execute(&run, &plan) => Some(execution),
            () = world.hung() => None,
        };
        world.reset();
        world.time_passes();
        if let Some(execution) = execution {
            assert_ne!(execution.outcome, Outcome::Stuck, "{:?}", execution.left);
            if execution.outcome == Outcome::Done {
                assert_serves(&world, &new);
            }
        }
        assert_eq!(world.violations(), Vec::<String>::new());
    }
    let new = desired(projects[dice.roll(projects.len())]);
    world.has_images_of(&new);
    let end = Deployer::new(&world).deploy(&new, |policy| policy.remove_orphans = true).await;
    assert_eq!((end.reason, end.left), (None, vec![]));
    assert_settled(&world, &new).await;
}

#[test]
fn whatever_happened_before_the_next_deployment_converges() {
    let mut cases = Cases::default();
    for seed in 0..200 {
        cases.run(&format!("seed {seed}"), || paused(walk(seed)));
    }
    cases.end();
}
