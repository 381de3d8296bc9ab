//! All that control servers share.

use async_trait::async_trait;

use crate::{Ledger, LedgerError, Orders, Scope, StoredImage, Tokens};

/// History, the queue of orders and the tokens, kept in one place.
#[async_trait]
pub trait Store: Ledger + Orders + Tokens {
    /// Images of the newest `keep` done deployments of every scope, with the scope and the number
    /// of the deployment: what a prune must leave for rollbacks.
    async fn retained_images(
        &self,
        keep: u32,
    ) -> Result<Vec<(Scope, u64, StoredImage)>, LedgerError>;
}
