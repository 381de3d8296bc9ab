//! Deployments that wait for each other.

use std::fmt;

use async_trait::async_trait;
use shiplap_model::MeetingPoint;

/// A place at a table at which deployments that are carried out together meet.
///
/// Whether a meeting has taken place is decided in one place and for all at once: whoever has
/// arrived learns the same, also if it is interrupted a moment later.
#[async_trait]
pub trait Meeting: fmt::Debug + Send + Sync {
    /// Says that this one has come so far, and waits for the others. An error is why one of them
    /// never will.
    async fn arrive(&self, point: MeetingPoint) -> Result<(), String>;
    /// Does not wait any longer. Fine where all have met by now; else this one has failed, and the
    /// error is why.
    fn give_up(&self, point: MeetingPoint, reason: &str) -> Result<(), String>;
    /// Says that this one goes no further. Where all have met for the last time, that concerns
    /// nobody else.
    fn fail(&self, reason: &str);
}
