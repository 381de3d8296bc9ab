//! The table: the full desired state of one edge, as it is sent, stored and answered.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The schema this build writes, and the highest it reads.
pub const SCHEMA: u32 = 1;

/// Everything one edge should do. Unknown fields are ignored, a higher `schema` is refused.
///
/// A table is replaced as a whole, by compare and set on `generation`: read it, change what is
/// yours (see `owner`), put it back.
///
/// ```json
/// { "schema": 1, "generation": 7,
///   "pools": { "shop/default/api:8000": {
///     "owner": "shop/default", "service": "api", "protocol": "http",
///     "replicas": [ { "id": "1f3c9a…", "address": "172.18.0.5", "port": 8000 } ] } },
///   "listeners": [ { "owner": "shop/default", "address": "0.0.0.0", "port": 8000,
///                    "pool": "shop/default/api:8000" } ] }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// The version of this format, see [`SCHEMA`].
    pub schema: u32,
    /// Grows by one with every accepted table; 0 is the empty table of a new edge.
    #[serde(default)]
    pub generation: u64,
    /// What can answer, by a name such as `shop/default/api:8000` (see [`Table::pool_name`]).
    #[serde(default)]
    pub pools: BTreeMap<String, Pool>,
    /// Where to listen, and which pool answers there. Several may name one pool.
    #[serde(default)]
    pub listeners: Vec<Listener>,
    /// By owner, the highest generation of a deployer's lease under which something was changed. A
    /// table with a lower one is refused; an owner that is left out keeps its own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub leases: BTreeMap<String, u64>,
}

impl Default for Table {
    fn default() -> Self {
        Table {
            schema: SCHEMA,
            generation: 0,
            pools: BTreeMap::new(),
            listeners: Vec::new(),
            leases: BTreeMap::new(),
        }
    }
}

/// The replicas of one port of one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// `project/environment`: whose pool this is. Leave the pools of others as they are.
    pub owner: String,
    /// The Compose service.
    pub service: String,
    /// How to forward.
    pub protocol: Protocol,
    /// Hold what comes in, instead of forwarding it.
    #[serde(default)]
    pub paused: bool,
    /// The limits of holding.
    #[serde(default)]
    pub hold: Hold,
    /// Those that answer. Empty: hold.
    #[serde(default)]
    pub replicas: Vec<Replica>,
}

/// How a pool is forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1: per request, with retries, `X-Forwarded-*` and upgrades.
    Http,
    /// Bytes, both ways, per connection.
    Tcp,
}

/// How many requests (TCP: new connections) wait for a replica, and how long, before they are
/// answered by 503 (TCP: closed).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hold {
    /// At most so many at once.
    pub max_requests: u32,
    /// Each at most so long.
    pub max_wait_ms: u64,
}

impl Default for Hold {
    fn default() -> Self {
        Hold { max_requests: 5000, max_wait_ms: 30_000 }
    }
}

/// One container (or anything else with an address) that answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// The full container id (64 hexadecimal digits): the edge then follows the container to
    /// another address after a restart, and does not send to an address that it has left. Any
    /// other text is allowed and means a fixed address.
    pub id: String,
    /// Where it answers now.
    pub address: IpAddr,
    /// On which port, inside its own network.
    pub port: u16,
    /// The subnet (`172.18.0.0/16`) of the engine network to reach it by. It chooses among several
    /// addresses when the container has moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
}

/// One listening socket.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Listener {
    /// `project/environment`: whose listener this is.
    pub owner: String,
    /// The full id of the container in whose network namespace to listen; none is the edge's own,
    /// which is the host's. Opened again when that container has restarted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// `0.0.0.0` is every IPv4 address, `::` is every IPv6 address (and only those).
    pub address: IpAddr,
    /// 0: take a free one. The answered table carries the one taken, and it is kept from then on.
    pub port: u16,
    /// The name of the pool that answers here.
    pub pool: String,
}

/// Why a table is not acceptable, whatever the state of the edge.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// Not JSON, or not of this shape.
    #[error("the table cannot be read: {0}")]
    Malformed(String),
    /// Written by a later version.
    #[error("the table has schema {found}, this edge knows up to {SCHEMA}")]
    Schema {
        /// What it says.
        found: u64,
    },
    /// A listener names a pool that is not there.
    #[error("listener {listener} names pool `{pool}`, which the table does not have")]
    UnknownPool {
        /// `address:port`.
        listener: String,
        /// The name.
        pool: String,
    },
    /// Two listeners on one address and port of one namespace.
    #[error("two listeners on {listener}")]
    DuplicateListener {
        /// `address:port`.
        listener: String,
    },
    /// Two replicas of one pool with one id.
    #[error("pool `{pool}` has two replicas with the id `{id}`")]
    DuplicateReplica {
        /// The pool's name.
        pool: String,
        /// The id of both.
        id: String,
    },
    /// Not a subnet.
    #[error("replica `{id}`: `{network}` is not a subnet such as 172.18.0.0/16")]
    Network {
        /// The replica.
        id: String,
        /// What it says.
        network: String,
    },
}

impl Table {
    /// Reads a table and [checks](Table::check) it.
    pub fn from_json(text: &[u8]) -> Result<Table, TableError> {
        // The schema first: a later one may differ in anything else.
        #[derive(Deserialize)]
        struct Version {
            schema: u64,
        }
        let malformed = |error: serde_json::Error| TableError::Malformed(error.to_string());
        let version: Version = serde_json::from_slice(text).map_err(malformed)?;
        if version.schema > u64::from(SCHEMA) {
            return Err(TableError::Schema { found: version.schema });
        }
        let table: Table = serde_json::from_slice(text).map_err(malformed)?;
        table.check()?;
        Ok(table)
    }

    /// The table as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a table has only text keys")
    }

    /// Whether the table makes sense in itself.
    pub fn check(&self) -> Result<(), TableError> {
        if self.schema > SCHEMA {
            return Err(TableError::Schema { found: self.schema.into() });
        }
        for (name, pool) in &self.pools {
            let mut ids = BTreeSet::new();
            for replica in &pool.replicas {
                if !ids.insert(&replica.id) {
                    return Err(TableError::DuplicateReplica {
                        pool: name.clone(),
                        id: replica.id.clone(),
                    });
                }
                if let Some(network) = &replica.network
                    && Subnet::parse(network).is_none()
                {
                    return Err(TableError::Network {
                        id: replica.id.clone(),
                        network: network.clone(),
                    });
                }
            }
        }
        let mut places = BTreeSet::new();
        for listener in &self.listeners {
            if !self.pools.contains_key(&listener.pool) {
                return Err(TableError::UnknownPool {
                    listener: listener.place(),
                    pool: listener.pool.clone(),
                });
            }
            let place = (&listener.namespace, listener.address, listener.port);
            if listener.port != 0 && !places.insert(place) {
                return Err(TableError::DuplicateListener { listener: listener.place() });
            }
        }
        Ok(())
    }

    /// Takes over what a table before this one knows of leases.
    ///
    /// # Errors
    /// The owner and its generation, where this table comes from a deployer whose lease is older.
    pub(crate) fn inherit_leases(&mut self, before: &Table) -> Result<(), (String, u64)> {
        for (owner, generation) in &before.leases {
            let own = self.leases.entry(owner.clone()).or_insert(*generation);
            if *own < *generation {
                return Err((owner.clone(), *generation));
            }
        }
        Ok(())
    }

    /// The usual name of a pool: `shop/default/api:8000`.
    pub fn pool_name(owner: &str, service: &str, port: u16) -> String {
        format!("{owner}/{service}:{port}")
    }
}

impl Listener {
    /// `address:port`, for messages; with the start of the namespace's id if there is one.
    pub fn place(&self) -> String {
        let place = std::net::SocketAddr::new(self.address, self.port);
        match &self.namespace {
            None => place.to_string(),
            Some(id) => format!("{place} in {}", id.get(..12).unwrap_or(id)),
        }
    }
}

/// An address block such as `172.18.0.0/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    address: IpAddr,
    prefix: u32,
}

impl Subnet {
    /// Reads `address/prefix`.
    pub fn parse(text: &str) -> Option<Subnet> {
        let (address, prefix) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let prefix: u32 = prefix.parse().ok()?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        (prefix <= longest).then_some(Subnet { address, prefix })
    }

    /// Whether the address lies inside.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differing = own.to_bits() ^ other.to_bits();
                differing.checked_shr(32 - self.prefix).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differing = own.to_bits() ^ other.to_bits();
                differing.checked_shr(128 - self.prefix).unwrap_or(0) == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_schema_1_is_read_and_unknown_fields_are_ignored() {
        let text = r#"{ "schema": 1, "generation": 7, "colour": "blue",
            "pools": { "shop/default/api:8000": {
                "owner": "shop/default", "service": "api", "protocol": "http", "new": 1,
                "replicas": [ { "id": "a", "address": "172.18.0.5", "port": 8000 } ] } },
            "listeners": [ { "owner": "shop/default", "address": "0.0.0.0", "port": 80,
                             "pool": "shop/default/api:8000" } ] }"#;
        let table = Table::from_json(text.as_bytes()).unwrap();
        let pool = &table.pools[&Table::pool_name("shop/default", "api", 8000)];
        assert_eq!((pool.paused, pool.hold), (false, Hold::default()));
        assert_eq!(Table::from_json(&table.to_json()).unwrap(), table);
    }

    #[test]
    fn a_table_from_before_leases_is_read_and_takes_over_those_that_are_known() {
        let mut table = Table::from_json(br#"{ "schema": 1, "generation": 7 }"#).unwrap();
        assert!(table.leases.is_empty());
        let known = Table { leases: [("shop/default".to_owned(), 4)].into(), ..Table::default() };
        assert_eq!(table.inherit_leases(&known), Ok(()));
        assert_eq!(table.leases, known.leases);
    }

    #[test]
    fn only_a_lower_lease_is_refused_and_only_that_owners() {
        let with = |leases: [(&str, u64); 1]| Table {
            leases: leases.map(|(owner, generation)| (owner.to_owned(), generation)).into(),
            ..Table::default()
        };
        let known = with([("shop/default", 4)]);
        assert_eq!(with([("shop/default", 4)]).inherit_leases(&known), Ok(()));
        assert_eq!(with([("shop/default", 5)]).inherit_leases(&known), Ok(()));
        assert_eq!(with([("other/default", 1)]).inherit_leases(&known), Ok(()));
        let refused = with([("shop/default", 3)]).inherit_leases(&known);
        assert_eq!(refused, Err(("shop/default".to_owned(), 4)));
    }

    #[test]
    fn a_higher_schema_is_refused_even_if_its_shape_differs() {
        let error = Table::from_json(br#"{ "schema": 2, "pools": [] }"#).unwrap_err();
        assert_eq!(error, TableError::Schema { found: 2 });
    }

    #[test]
    fn a_listener_without_its_pool_is_refused() {
        let text = br#"{ "schema": 1, "listeners":
            [ { "owner": "o", "address": "::", "port": 80, "pool": "x" } ] }"#;
        let error = Table::from_json(text).unwrap_err();
        assert_eq!(
            error.to_string(),
            "listener [::]:80 names pool `x`, which the table does not have"
        );
    }

    #[test]
    fn subnets_contain_their_addresses() {
        let check = |subnet: &str, address: &str| {
            Subnet::parse(subnet).unwrap().contains(address.parse().unwrap())
        };
        assert!(check("172.18.0.0/16", "172.18.255.1"));
        assert!(!check("172.18.0.0/16", "172.19.0.1"));
        assert!(check("0.0.0.0/0", "1.2.3.4"));
        assert!(check("10.0.0.1/32", "10.0.0.1"));
        assert!(check("fd00::/64", "fd00::1"));
        assert!(!check("fd00::/64", "10.0.0.1"));
        assert_eq!(Subnet::parse("10.0.0.0/33"), None);
    }
}
