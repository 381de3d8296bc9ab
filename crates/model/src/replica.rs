//! Names of replicas.
//!
//! A live replica carries the name Compose gives it (`shop-api-1`, or `container_name`), so that
//! what people type keeps working. While two releases overlap the other one carries the number of
//! the deployment that made it: `shop-api-1.d12`. Names derive from what is deployed, never from
//! chance, so a step that is repeated finds what it made the first time.

/// The longest base name: the engine takes 255 bytes, and the suffix needs room.
pub const BASE_NAME_LIMIT: usize = 200;

/// A replica of a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaName {
    /// The name of a live replica, `shop-api-1`.
    pub base: String,
    /// The deployment that made it; 0 for a container that was adopted.
    pub deployment: u64,
}

/// Where a container stands, told by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Carries the base name: the live replica.
    Live,
    /// Carries a deployment's number: not live yet, or not any more.
    Aside,
    /// Was kept after a failed deployment, for a person to look at.
    Failed,
}

impl ReplicaName {
    /// The name while the replica is not the live one.
    #[must_use]
    pub fn aside(&self) -> String {
        format!("{}.d{}", self.base, self.deployment)
    }

    /// The name under which a failed replica is kept.
    #[must_use]
    pub fn failed(&self) -> String {
        format!("{}.d{}.failed", self.base, self.deployment)
    }

    /// Splits a container's name into its base and its standing.
    #[must_use]
    pub fn parse(name: &str) -> (&str, Standing) {
        let (rest, failed) = match name.strip_suffix(".failed") {
            Some(rest) => (rest, true),
            None => (name, false),
        };
        let Some((base, number)) = rest.rsplit_once(".d") else { return (name, Standing::Live) };
        if base.is_empty() || number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
            return (name, Standing::Live);
        }
        (base, if failed { Standing::Failed } else { Standing::Aside })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_the_standing() {
        let name = ReplicaName { base: "shop-api-1".into(), deployment: 12 };
        assert_eq!(ReplicaName::parse(&name.aside()), ("shop-api-1", Standing::Aside));
        assert_eq!(ReplicaName::parse(&name.failed()), ("shop-api-1", Standing::Failed));
        assert_eq!(ReplicaName::parse("shop-api-1"), ("shop-api-1", Standing::Live));
        assert_eq!(ReplicaName::parse("my.db"), ("my.db", Standing::Live));
        assert_eq!(ReplicaName::parse("v1.d"), ("v1.d", Standing::Live));
    }
}
