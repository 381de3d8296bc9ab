//! The deployer dies, at every call there is, and another one starts from what it left.

use shiplap_testkit::Trouble;

use crate::shapes;
use crate::support::{Attempt, Cases, Deployer, Shape, assert_settled, paused};

/// Dies at a call. Returns whether it got so far.
async fn die(attempt: &Attempt, call: usize) -> bool {
    attempt.world.trouble_at(call, Trouble::Hang);
    let died = tokio::select! {
        _ = attempt.finish() => false,
        () = attempt.world.hung() => true,
    };
    attempt.world.reset();
    died
}

fn after_each_crash(check: impl AsyncFn(&Shape, &Attempt)) {
    let mut cases = Cases::default();
    for shape in shapes::all() {
        for (index, call) in paused(Attempt::points(&shape)) {
            cases.run(&format!("{}: at {index} {call}", shape.name), || {
                paused(async {
                    let attempt = Attempt::at(&shape).await;
                    assert!(die(&attempt, index).await);
                    check(&shape, &attempt).await;
                });
            });
        }
    }
    cases.end();
}

#[test]
fn the_next_deployment_finishes_what_was_begun() {
    after_each_crash(async |shape, attempt| {
        let again = Deployer::new(&attempt.world).deploy(&attempt.new, shape.change).await;
        assert_eq!(again.reason, None);
        assert_eq!(again.left, Vec::<String>::new());
        assert_settled(&attempt.world, &attempt.new).await;
    });
}

#[test]
fn the_next_deployment_can_go_back_instead() {
    after_each_crash(async |shape, attempt| {
        let Some(old) = shape.old() else { return };
        let again = Deployer::new(&attempt.world).deploy(&old, |_| {}).await;
        assert_eq!(again.reason, None);
        assert_eq!(again.left, Vec::<String>::new());
        assert_settled(&attempt.world, &old).await;
    });
}
