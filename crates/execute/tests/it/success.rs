//! Plans that meet no trouble.

use shiplap_model::{Ledger, Outcome};

use crate::shapes;
use crate::support::{Deployer, assert_legal, assert_settled, next_plan, paused, scope};

#[test]
fn every_change_converges_and_nobody_goes_unanswered() {
    for shape in shapes::all() {
        paused(async {
            let world = shape.before().await;
            let new = shape.wanted();
            let plan = next_plan(&world, &new, shape.change).await;
            let execution = Deployer::new(&world).execute(&new, &plan).await;
            assert_eq!(execution.reason, None, "{}", shape.name);
            assert_eq!(execution.outcome, Outcome::Done, "{}", shape.name);
            assert_eq!(execution.left, Vec::<String>::new(), "{}", shape.name);

            assert_settled(&world, &new).await;
            let ledger = world.ledger();
            let newest = ledger.deployments(&scope(), 1).await.unwrap();
            let journal = ledger.journal(&scope(), newest[0].number).await.unwrap();
            assert_legal(&journal, &plan);
        });
    }
}
