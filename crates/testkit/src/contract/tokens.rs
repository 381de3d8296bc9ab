//! What [`Tokens`](shiplap_model::Tokens) promise.

use std::any::Any;
use std::sync::Arc;

use shiplap_model::{LedgerError, Store, Token, TokenAction, TokenScope};

/// A place without tokens.
pub struct Ground {
    /// Where they are kept.
    pub tokens: Arc<dyn Store>,
    /// Whatever removes all this in the end.
    pub keep: Box<dyn Any + Send + Sync>,
}

/// Makes a test of each promise of tokens.
#[macro_export]
macro_rules! tokens_contract {
    ($ground:path) => {
        $crate::contract!(
            tokens,
            $ground,
            [
                a_token_is_found_by_its_id_as_it_was_added,
                an_id_is_given_once,
                all_tokens_are_listed_in_their_order_also_those_that_do_not_work,
                a_use_is_noted_to_the_minute_and_never_earlier,
                a_revoked_token_does_not_work_from_then_on,
                what_does_not_work_is_not_revoked,
            ]
        );
    };
}

const MINUTE: i64 = 60_000;
const FULL_MINUTE: i64 = 28_333_334 * MINUTE;
/// Not at the full minute.
const NOW: i64 = FULL_MINUTE + 30_500;

fn token(id: &str) -> Token {
    Token {
        id: id.to_owned(),
        name: format!("token \"{id}\" für CI"),
        hash: [7; 32],
        scope: TokenScope {
            actions: [TokenAction::Read, TokenAction::Deploy].into(),
            projects: ["shop".to_owned()].into(),
            environments: ["prod".to_owned(), "dev".to_owned()].into(),
            services: ["api".to_owned()].into(),
            images: ["ghcr.io/shop/api".to_owned()].into(),
        },
        made_by: "ada".to_owned(),
        made_ms: NOW,
        expires_ms: Some(NOW + 10 * MINUTE),
        used_ms: None,
        revoked_ms: None,
    }
}

async fn found(ground: &Ground, id: &str) -> Token {
    ground.tokens.token(id).await.unwrap().unwrap()
}

/// `add_token`, `token`.
pub async fn a_token_is_found_by_its_id_as_it_was_added(ground: &Ground) {
    assert_eq!(ground.tokens.token("a1").await.unwrap(), None);
    let mut bytes = [0; 32];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = 255 - u8::try_from(at).unwrap();
    }
    let first = Token { hash: bytes, ..token("a1") };
    let second = Token { expires_ms: None, scope: TokenScope::default(), ..token("a2") };
    ground.tokens.add_token(&first).await.unwrap();
    ground.tokens.add_token(&second).await.unwrap();
    assert_eq!(found(ground, "a1").await, first);
    assert_eq!(found(ground, "a2").await, second);
    assert_eq!(ground.tokens.token("A1").await.unwrap(), None, "an id is no word");
}

/// `add_token`: one that is there is refused, and stays as it is.
pub async fn an_id_is_given_once(ground: &Ground) {
    ground.tokens.add_token(&token("a1")).await.unwrap();
    let other = Token { hash: [9; 32], ..token("a1") };
    let refused = ground.tokens.add_token(&other).await.unwrap_err();
    assert!(matches!(&refused, LedgerError::Storage(text) if text.contains("a1")), "{refused}");
    assert_eq!(found(ground, "a1").await, token("a1"));
    assert_eq!(ground.tokens.tokens().await.unwrap().len(), 1);
}

/// `tokens`.
pub async fn all_tokens_are_listed_in_their_order_also_those_that_do_not_work(ground: &Ground) {
    for id in ["c", "a", "b"] {
        ground.tokens.add_token(&token(id)).await.unwrap();
    }
    ground.tokens.revoke_token("a", NOW).await.unwrap();
    let listed = ground.tokens.tokens().await.unwrap();
    assert_eq!(listed.iter().map(|token| token.id.as_str()).collect::<Vec<_>>(), ["c", "a", "b"]);
    assert_eq!(listed[1].revoked_ms, Some(NOW));
}

/// `token_used`: the minute, and only where it is later; no error without a token.
pub async fn a_use_is_noted_to_the_minute_and_never_earlier(ground: &Ground) {
    ground.tokens.add_token(&token("a1")).await.unwrap();
    let used = async |at| {
        ground.tokens.token_used("a1", at).await.unwrap();
        found(ground, "a1").await.used_ms
    };
    assert_eq!(used(NOW).await, Some(FULL_MINUTE));
    assert_eq!(used(NOW + 1).await, Some(FULL_MINUTE));
    assert_eq!(used(NOW + MINUTE).await, Some(FULL_MINUTE + MINUTE));
    assert_eq!(used(NOW).await, Some(FULL_MINUTE + MINUTE));
    ground.tokens.token_used("nobody", NOW).await.unwrap();
    assert_eq!(ground.tokens.tokens().await.unwrap().len(), 1);
}

/// `revoke_token`: nothing else changes.
pub async fn a_revoked_token_does_not_work_from_then_on(ground: &Ground) {
    ground.tokens.add_token(&token("a1")).await.unwrap();
    ground.tokens.add_token(&token("a2")).await.unwrap();
    assert!(ground.tokens.revoke_token("a1", NOW + 5).await.unwrap());
    assert_eq!(found(ground, "a1").await, Token { revoked_ms: Some(NOW + 5), ..token("a1") });
    assert_eq!(found(ground, "a2").await, token("a2"));
}

/// `revoke_token`: false, and nothing is changed.
pub async fn what_does_not_work_is_not_revoked(ground: &Ground) {
    assert!(!ground.tokens.revoke_token("nobody", NOW).await.unwrap());
    ground.tokens.add_token(&token("a1")).await.unwrap();
    assert!(ground.tokens.revoke_token("a1", NOW).await.unwrap());
    assert!(!ground.tokens.revoke_token("a1", NOW + 1).await.unwrap());
    assert_eq!(found(ground, "a1").await.revoked_ms, Some(NOW));
    ground.tokens.add_token(&token("a2")).await.unwrap();
    assert!(!ground.tokens.revoke_token("a2", NOW + 10 * MINUTE).await.unwrap());
    assert_eq!(found(ground, "a2").await, token("a2"));
}
