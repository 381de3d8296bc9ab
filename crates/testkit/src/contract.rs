//! What the traits at the edges promise, promise by promise.
//!
//! Each suite runs on the fake and on the real thing, so that what is true of the executor on
//! fakes is true of it on an engine. A crate makes tests of a suite by one line, such as
//! `shiplap_testkit::engine_contract!(ground);`, where `ground` is an async function that takes the
//! check's name and returns an `Option` of the suite's `Ground`: nothing where there is none to
//! test on.

pub mod engine;
pub mod ledger;
pub mod orders;
pub mod tokens;

/// Makes a test of each check of a suite.
#[macro_export]
macro_rules! contract {
    ($suite:ident, $ground:path, [$($check:ident),* $(,)?]) => {
        $(
            #[tokio::test]
            async fn $check() {
                let Some(ground) = $ground(stringify!($check)).await else { return };
                $crate::contract::$suite::$check(&ground).await;
            }
        )*
    };
}
