//! Services that are not in the file.

use shiplap_model::ObservedContainer;

use crate::policy::Policy;
use crate::service::is_undone;

/// Whether a container of a service that is not wanted goes: if the user asked for it, or if the
/// deployment has made it that is gone back from.
pub(crate) fn goes(container: &ObservedContainer, policy: &Policy) -> bool {
    policy.remove_orphans || is_undone(container, policy)
}
