//! Keeps the certificates that the edge shows: who wants which, where they come from, when they are
//! renewed.
//!
//! Nothing here runs in the edge. A [`Keeper`] is called by a command or a timer, gets what is due,
//! and gives it to the edge: the certificate first, then the table that names it. The last good one
//! stays until there is a better one.

mod acme;
mod authority;
mod due;
mod files;
mod keeper;
mod proving;
mod store;
mod transport;
mod wanted;

pub use acme::{LETS_ENCRYPT, LETS_ENCRYPT_STAGING};
pub use keeper::{Became, Keeper, KeeperError, Kept, Outcome, Renewal, folder};
pub use proving::ENTRIES;
pub use store::StoreError;
pub use wanted::{Acme, ChallengeKind, ExternalAccount, Source, Wanted, WantedError};
