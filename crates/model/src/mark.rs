//! Who deploys an environment, as its engine knows it.
//!
//! A ledger keeps two deployers of one machine and one user apart. Those that have different
//! ledgers (root and another user, two laptops) meet only at the engine. So a deployer leaves a
//! mark there: a named thing of which there can be only one. Marks of an environment are numbered;
//! whoever makes the next number first has it, and the newest one counts.

use crate::Scope;

/// One mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Where.
    pub scope: Scope,
    /// Its number: one more than that of the mark before it.
    pub sequence: u64,
    /// The generation of the lease under which it was made.
    pub generation: u64,
    /// Whether whoever made it is at it.
    pub standing: MarkStanding,
    /// Who made it: user, host and process.
    pub holder: String,
    /// Tells one holding of a lease from every other, whatever they call themselves.
    pub nonce: String,
    /// The ledger that the holder writes to.
    pub ledger: String,
    /// Since when it is held, by the holder's clock, milliseconds since 1970.
    pub since_ms: i64,
    /// How long it may stay the newest before it says nothing any more, in milliseconds.
    pub ttl_ms: u64,
}

/// What a mark says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarkStanding {
    /// Somebody deploys, unless the mark stays the newest for longer than it may.
    Held,
    /// Nobody deploys. It stays so that its generation is remembered.
    Released,
}
