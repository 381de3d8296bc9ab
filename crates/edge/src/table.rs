//! The table: the full desired state of one edge, as it is sent, stored and answered.

mod check;
mod listener;
mod pool;
mod route;
mod subnet;
mod tls;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use check::TableError;
pub(crate) use check::is_token;
pub use listener::{Limits, Listener};
pub use pool::{Canary, Eject, Group, HeaderMatch, Hold, Pool, Probe, Protocol, Replica, Streams};
pub use route::{
    BasicAuth, HeaderRules, Hsts, Maintenance, Policy, Rate, RateKey, Redirect, Route, Target,
};
pub use subnet::Subnet;
pub use tls::{Challenge, ListenerTls, Proof, Shown, Tls};

/// The schema this build writes, and the highest it reads. 2 added routes, and what holds for
/// requests and connections; 3 added TLS, which an older edge would leave out without a word.
/// Everything that an older one could say means the same.
pub const SCHEMA: u32 = 3;

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Everything one edge should do. Unknown fields are ignored, a higher `schema` is refused.
///
/// A table is replaced as a whole, by compare and set on `generation`: read it, change what is
/// yours (see `owner`), put it back.
///
/// ```json
/// { "schema": 3, "generation": 7,
///   "pools": { "shop/default/api:8000": {
///     "owner": "shop/default", "service": "api", "protocol": "http",
///     "replicas": [ { "id": "1f3c9a…", "address": "172.18.0.5", "port": 8000 } ] } },
///   "listeners": [ { "owner": "shop/default", "address": "0.0.0.0", "port": 8000,
///                    "pool": "shop/default/api:8000" },
///                  { "owner": "shiplap", "address": "0.0.0.0", "port": 80, "entry": "http" },
///                  { "owner": "shiplap", "address": "0.0.0.0", "port": 443, "entry": "https",
///                    "tls": {} } ],
///   "routes": [ { "owner": "shop/default", "host": "shop.example", "path": "/api",
///                 "pool": "shop/default/api:8000", "policy": { "noindex": true } } ],
///   "tls": { "certificates": [ { "owner": "shop/default", "names": [ "shop.example" ],
///                                "id": "9c0e6f5ad6e1f2b3a4958677c0ffee00" } ] } }
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
    /// Which requests go where, at the listeners that have an entry's name.
    #[serde(default, skip_serializing_if = "is_default")]
    pub routes: Vec<Route>,
    /// Certificates and challenges.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tls: Tls,
    /// Address blocks of proxies in front of this one: what they say of their clients
    /// (`X-Forwarded-*`, `Forwarded`) is believed and passed on. What anybody else says is replaced.
    #[serde(default = "loopback", skip_serializing_if = "is_loopback")]
    pub trusted_proxies: Vec<String>,
    /// Whether, and how, a line is written for every request.
    #[serde(default, skip_serializing_if = "is_default")]
    pub access_log: Option<AccessLog>,
}

/// A line for every request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessLog {
    /// How lines look.
    pub format: LogFormat,
    /// Where they go.
    #[serde(default, skip_serializing_if = "is_default")]
    pub to: LogTarget,
    /// Write queries too. They hold tokens more often than one thinks.
    #[serde(default, skip_serializing_if = "is_default")]
    pub query: bool,
}

/// Where lines of the access log go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogTarget {
    /// The standard output of the edge's container.
    #[default]
    Stdout,
    /// `access.log` in the folder of the table. It is appended to; to rotate it, copy and truncate.
    File,
}

/// How lines of the access log look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// An object per line.
    Json,
    /// As Apache and nginx have it.
    Combined,
}

/// A proxy on this machine, in front of the edge.
fn loopback() -> Vec<String> {
    vec!["127.0.0.0/8".to_owned(), "::1/128".to_owned()]
}

fn is_loopback(given: &[String]) -> bool {
    given == loopback()
}

impl Default for Table {
    fn default() -> Self {
        Table {
            schema: SCHEMA,
            generation: 0,
            pools: BTreeMap::new(),
            listeners: Vec::new(),
            leases: BTreeMap::new(),
            routes: Vec::new(),
            tls: Tls::default(),
            trusted_proxies: loopback(),
            access_log: None,
        }
    }
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

    /// Whether it has a certificate for what a route's host says: all names of `*.example.com`, any
    /// name where it says none.
    pub(crate) fn has_certificate_for(&self, host: Option<&str>) -> bool {
        let Some(host) = host else { return !self.tls.certificates.is_empty() };
        let above = host.split_once('.').map(|(_, above)| format!("*.{above}"));
        let mut names = self.tls.certificates.iter().flat_map(|shown| &shown.names);
        names.any(|name| name == host || (!host.starts_with("*.") && above.as_ref() == Some(name)))
    }

    /// The usual name of a pool: `shop/default/api:8000`.
    pub fn pool_name(owner: &str, service: &str, port: u16) -> String {
        format!("{owner}/{service}:{port}")
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
    fn a_certificate_is_for_its_names_and_one_level_below() {
        let mut table = Table::default();
        assert!(!table.has_certificate_for(None) && !table.has_certificate_for(Some("a.b")));
        table.tls.certificates.push(Shown {
            owner: "o".to_owned(),
            id: "0".to_owned(),
            names: vec!["*.shop.example".to_owned(), "shop.example".to_owned()],
        });
        let has = |host: &str| table.has_certificate_for(Some(host));
        assert!(has("shop.example") && has("a.shop.example") && has("*.shop.example"));
        assert!(!has("a.b.shop.example") && !has("example") && !has("*.b.shop.example"));
        assert!(table.has_certificate_for(None));
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
        let error = Table::from_json(br#"{ "schema": 4, "pools": [] }"#).unwrap_err();
        assert_eq!(error, TableError::Schema { found: 4 });
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
}
