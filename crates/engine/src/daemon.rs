//! What is fixed about an engine: its version, and what it fills in where a request is silent.

use std::collections::BTreeMap;

use serde_json::Value;
use shiplap_model::{EngineError, EngineErrorKind, EngineInfo, Limit};

use crate::address::read_json;
use crate::client::{Call, Client};
use crate::endpoint::Endpoint;
use crate::{error, ping};

/// The oldest API that we speak: Docker 20.10.
pub(crate) const OLDEST: ApiVersion = ApiVersion(41);
/// The newest API that this program was written for.
pub(crate) const NEWEST: ApiVersion = ApiVersion(51);

/// Where the engine reads its own settings; `/info` does not tell all of them.
const DAEMON_FILE: &str = "/etc/docker/daemon.json";

/// A version of the engine's API, `1.NN`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ApiVersion(pub(crate) u32);

impl ApiVersion {
    fn parse(text: &str) -> Option<Self> {
        text.strip_prefix("1.")?.parse().ok().map(Self)
    }
}

impl std::fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "1.{}", self.0)
    }
}

/// An engine's version and defaults.
#[derive(Debug, Clone)]
pub(crate) struct Daemon {
    pub(crate) info: EngineInfo,
    pub(crate) log_driver: String,
    pub(crate) log_options: BTreeMap<String, String>,
    pub(crate) runtime: String,
    pub(crate) cgroupns: &'static str,
    pub(crate) shm_size: i64,
    /// Attributes that this host cannot honour; the engine drops or changes them with a warning.
    pub(crate) ignored: Vec<&'static str>,
}

impl Default for Daemon {
    /// What an engine does when nobody has configured it.
    fn default() -> Self {
        Self {
            info: EngineInfo {
                version: String::new(),
                api_version: OLDEST.to_string(),
                host_name: String::new(),
                id: String::new(),
                data_root: "/var/lib/docker".into(),
            },
            log_driver: "json-file".into(),
            log_options: BTreeMap::new(),
            runtime: "runc".into(),
            cgroupns: "private",
            shm_size: 64 << 20,
            ignored: Vec::new(),
        }
    }
}

/// Settles the version of the API that the client speaks from now on.
///
/// A ping tells: unlike `/version` and `/info`, for which an engine runs other programs and
/// takes 10 to 40 ms, it is answered at once.
pub(crate) async fn settle(
    client: &Client,
    endpoint: &Endpoint,
) -> Result<ApiVersion, EngineError> {
    let doing = || format!("asking the engine at {endpoint} who it is");
    let too_old = |message| EngineError {
        kind: EngineErrorKind::TooOld,
        doing: doing(),
        message,
        help: Some("upgrade Docker to 20.10 or newer".into()),
    };
    let pinged = ping::ping(endpoint, client.wait(Limit::EngineCall), doing).await?;
    let pinged = pinged.api_version.as_deref().and_then(ApiVersion::parse);
    let api = match pinged.filter(|newest| (OLDEST..=NEWEST).contains(newest)) {
        Some(api) => api,
        // What it has in common with us takes a closer look.
        None => common(&client.fetch(Call::get("/version"), doing).await?).map_err(too_old)?,
    };
    client.settle(api.0);
    Ok(api)
}

impl Daemon {
    /// Asks the engine.
    pub(crate) async fn meet(
        client: &Client,
        endpoint: &Endpoint,
        api: ApiVersion,
    ) -> Result<Self, EngineError> {
        let doing = || format!("asking the engine at {endpoint} who it is");
        let info = client.fetch(Call::get("/info"), doing).await?;
        let file = match endpoint {
            Endpoint::Unix(_) => read_json(DAEMON_FILE.as_ref()).unwrap_or_default(),
            // Another machine's file would not be about this engine.
            Endpoint::Tcp(_) | Endpoint::Ssh(_) => Value::Null,
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        if text(&info["ServerVersion"]).is_empty() {
            let message = "the answer names no version";
            return Err(error::with_kind(EngineErrorKind::Internal, doing(), message));
        }
        let engine = EngineInfo {
            version: text(&info["ServerVersion"]),
            api_version: api.to_string(),
            host_name: text(&info["Name"]),
            id: text(&info["ID"]),
            data_root: text(&info["DockerRootDir"]),
        };
        Ok(Self { info: engine, ..Self::defaults(&info, &file) })
    }

    fn defaults(info: &Value, file: &Value) -> Self {
        let cgroup_2 = info["CgroupVersion"] == "2";
        let cgroupns = match file["default-cgroupns-mode"].as_str() {
            Some("host") => "host",
            Some("private") => "private",
            _ if cgroup_2 => "private",
            _ => "host",
        };
        let or = |value: &Value, default: &str| {
            value.as_str().filter(|v| !v.is_empty()).unwrap_or(default).to_owned()
        };
        let options = file["log-opts"].as_object().into_iter().flatten();
        let mut ignored = Vec::new();
        for (flag, fields) in [
            ("SwapLimit", &["memswap_limit"][..]),
            ("MemoryLimit", &["mem_limit", "mem_reservation"]),
            ("OomKillDisable", &["oom_kill_disable"]),
            ("CPUShares", &["cpu_shares"]),
            ("CPUSet", &["cpuset"]),
            ("CpuCfsQuota", &["cpus", "cpu_quota"]),
            ("CpuCfsPeriod", &["cpus", "cpu_period"]),
            ("PidsLimit", &["pids_limit"]),
        ] {
            if info[flag] == Value::Bool(false) {
                ignored.extend(fields);
            }
        }
        if cgroup_2 {
            ignored.extend(["mem_swappiness", "oom_kill_disable"]);
        }
        Self {
            log_driver: or(&info["LoggingDriver"], "json-file"),
            log_options: options
                .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
                .collect(),
            runtime: or(&info["DefaultRuntime"], "runc"),
            cgroupns,
            shm_size: file["default-shm-size"]
                .as_str()
                .and_then(|text| text.parse::<shiplap_compose::model::ByteSize>().ok())
                .map_or(64 << 20, |size| size.bytes()),
            ignored,
            ..Self::default()
        }
    }
}

/// The newest version that both sides speak.
fn common(version: &Value) -> Result<ApiVersion, String> {
    let theirs = version["ApiVersion"].as_str().unwrap_or("unknown");
    let engine = version["Version"].as_str().unwrap_or("unknown");
    let newest = ApiVersion::parse(theirs)
        .ok_or_else(|| format!("engine {engine} speaks an unknown API version: {theirs}"))?;
    if newest < OLDEST {
        return Err(format!("engine {engine} speaks API {newest}, at least {OLDEST} is needed"));
    }
    let oldest = version["MinAPIVersion"].as_str().and_then(ApiVersion::parse);
    match oldest {
        Some(oldest) if oldest > NEWEST => Err(format!(
            "engine {engine} speaks API {oldest} and newer, this program speaks up to {NEWEST}"
        )),
        _ => Ok(newest.min(NEWEST)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_newest_common_version_is_spoken() {
        let of = |version: &str, api: &str| common(&json!({"Version": version, "ApiVersion": api}));
        assert_eq!(of("20.10.24", "1.41"), Ok(ApiVersion(41)));
        assert_eq!(of("40.0", "1.99"), Ok(NEWEST));
        let message = of("18.09.1", "1.39").unwrap_err();
        assert!(
            message.contains("18.09.1") && message.contains("1.39") && message.contains("1.41")
        );
    }
}
