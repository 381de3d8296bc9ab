//! Marks: who deploys an environment, as volumes with labels.
//!
//! A volume is what an engine offers that has a unique name, carries labels, costs nothing and is
//! made by compare and set: making one whose name exists answers with the one that is there.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use shiplap_model::{EngineError, GENERATION, Mark, MarkStanding, OWNER, ROLE, Scope};

use crate::client::{Call, encoded};
use crate::engine::DockerEngine;
use crate::error::invalid;
use crate::observe::found;

/// What a marking volume is, by its role.
const LEASE_ROLE: &str = "lease";
/// Labels of a marking volume, besides role, owner and generation.
const HOLDER: &str = "shiplap.lease.holder";
const NONCE: &str = "shiplap.lease.nonce";
const LEDGER: &str = "shiplap.lease.ledger";
const SINCE: &str = "shiplap.lease.since-ms";
const TTL: &str = "shiplap.lease.ttl-ms";
const STANDING: &str = "shiplap.lease.standing";

/// `shiplap.lease.PROJECT.ENVIRONMENT.7`.
fn volume_name(scope: &Scope, sequence: u64) -> String {
    format!("shiplap.lease.{}.{}.{sequence}", scope.project, scope.environment)
}

fn labels(mark: &Mark) -> BTreeMap<&'static str, String> {
    let standing = match mark.standing {
        MarkStanding::Held => "held",
        MarkStanding::Released => "released",
    };
    BTreeMap::from([
        (ROLE, LEASE_ROLE.to_owned()),
        (OWNER, mark.scope.to_string()),
        (GENERATION, mark.generation.to_string()),
        (HOLDER, mark.holder.clone()),
        (NONCE, mark.nonce.clone()),
        (LEDGER, mark.ledger.clone()),
        (SINCE, mark.since_ms.to_string()),
        (TTL, mark.ttl_ms.to_string()),
        (STANDING, standing.to_owned()),
    ])
}

/// Reads a volume; nothing where it is none of ours.
fn mark(scope: &Scope, volume: &Value) -> Option<Mark> {
    let prefix = format!("shiplap.lease.{}.{}.", scope.project, scope.environment);
    let sequence = volume["Name"].as_str()?.strip_prefix(&prefix)?.parse().ok()?;
    let label = |name: &str| volume["Labels"][name].as_str();
    if label(OWNER)? != scope.to_string() {
        return None;
    }
    Some(Mark {
        scope: scope.clone(),
        sequence,
        generation: label(GENERATION)?.parse().ok()?,
        standing: match label(STANDING)? {
            "released" => MarkStanding::Released,
            _ => MarkStanding::Held,
        },
        holder: label(HOLDER)?.to_owned(),
        nonce: label(NONCE)?.to_owned(),
        ledger: label(LEDGER)?.to_owned(),
        since_ms: label(SINCE)?.parse().ok()?,
        ttl_ms: label(TTL)?.parse().ok()?,
    })
}

impl DockerEngine {
    pub(crate) async fn list_marks(&self, scope: &Scope) -> Result<Vec<Mark>, EngineError> {
        self.daemon().await?;
        let labels = [format!("{ROLE}={LEASE_ROLE}"), format!("{OWNER}={scope}")];
        let call = Call::get("/volumes").query("filters", &json!({"label": labels}).to_string());
        let doing = || format!("looking who deploys {scope}");
        let all = self.client.fetch(call, doing).await?;
        let volumes = all["Volumes"].as_array().into_iter().flatten();
        let mut marks: Vec<Mark> = volumes.filter_map(|volume| mark(scope, volume)).collect();
        marks.sort_by_key(|mark| mark.sequence);
        Ok(marks)
    }

    pub(crate) async fn make_mark(&self, wanted: &Mark) -> Result<Mark, EngineError> {
        self.daemon().await?;
        let name = volume_name(&wanted.scope, wanted.sequence);
        let body = json!({"Name": name, "Labels": labels(wanted)});
        let doing = || format!("marking that {} is deployed", wanted.scope);
        let call = Call::post("/volumes/create").json(&body);
        let there = self.client.fetch(call, doing).await?;
        mark(&wanted.scope, &there).ok_or_else(|| {
            let message = format!("the volume {name} is somebody else's");
            let help = Some(format!("docker volume inspect {name}"));
            EngineError { help, ..invalid(doing(), message) }
        })
    }

    pub(crate) async fn drop_mark(&self, scope: &Scope, sequence: u64) -> Result<(), EngineError> {
        self.daemon().await?;
        let call = Call::delete(format!("/volumes/{}", encoded(&volume_name(scope, sequence))));
        let doing = || format!("unmarking that {scope} is deployed");
        found(self.client.send(call, doing).await).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_from_the_volume_that_it_is_written_to() {
        let scope = Scope { project: "shop".into(), environment: "default".into() };
        let made = Mark {
            scope: scope.clone(),
            sequence: 7,
            generation: 3,
            standing: MarkStanding::Released,
            holder: "ada@vm1 (process 9)".into(),
            nonce: "00ff".into(),
            ledger: "12ab".into(),
            since_ms: 1_700_000_000_000,
            ttl_ms: 30_000,
        };
        let name = volume_name(&scope, 7);
        assert_eq!(name, "shiplap.lease.shop.default.7");
        let volume = json!({"Name": name, "Labels": labels(&made)});
        assert_eq!(mark(&scope, &volume), Some(made));
        let other = Scope { project: "shop".into(), environment: "def".into() };
        assert_eq!(mark(&other, &volume), None);
    }
}
