//! A container's configuration in one canonical form, whoever made it.
//!
//! One normaliser runs over both sides: over the request that we would send, and over what the
//! engine says of a container that exists. What the image brings, what the engine fills in and
//! what the notation allows to differ falls out, so that a container which Compose made from the
//! same file has equal facts, and a difference carries the Compose attribute's name.
//!
//! Left out: the image itself, published ports (the edge carries them), exposed ports (they do
//! nothing), the addresses that the engine gives out, and labels of Compose and of ours.

mod mounts;
mod relations;

pub(crate) use mounts::is_anonymous;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use shiplap_model::Fields;

use crate::daemon::Daemon;

/// Marks a peer that stands for a service of the project, in requests that are built only to be
/// compared. No container's name can contain it.
pub(crate) const SERVICE_MARK: char = '\u{0}';

/// Labels that say who made a container rather than what it is.
const TOOL_LABELS: [&str; 3] = ["com.docker.compose.", "shiplap.", "desktop.docker.io/"];

/// One side of a comparison, in the engine's JSON.
pub(crate) struct Side<'a> {
    /// `Config`, with the image's defaults merged in.
    pub(crate) config: &'a Value,
    /// `HostConfig`.
    pub(crate) host: &'a Value,
    /// Endpoints by the engine's name of the network.
    pub(crate) networks: &'a Value,
    /// The image's `Config`.
    pub(crate) image: &'a Value,
    /// Id of the container; empty before it exists.
    pub(crate) id: &'a str,
    /// Name of the container; empty before it exists.
    pub(crate) name: &'a str,
    pub(crate) project: &'a str,
    pub(crate) service: &'a str,
    pub(crate) daemon: &'a Daemon,
    /// The project's service that a container, by id or name, stands for; else its name.
    pub(crate) peer: &'a dyn Fn(&str) -> Peer,
}

/// Whom a reference to a container means.
pub(crate) enum Peer {
    /// A service of the same project.
    Service(String),
    /// Any other container, by name.
    Stranger(String),
}

/// Plain attributes: `HostConfig`'s name, ours. Zero, false, empty and absent are one.
const PLAIN: [(&str, &str); 22] = [
    ("CpuShares", "cpu_shares"),
    ("CpuPeriod", "cpu_period"),
    ("CpuQuota", "cpu_quota"),
    ("CpuRealtimePeriod", "cpu_rt_period"),
    ("CpuRealtimeRuntime", "cpu_rt_runtime"),
    ("CpusetCpus", "cpuset"),
    ("NanoCpus", "cpus"),
    ("CpuCount", "cpu_count"),
    ("CpuPercent", "cpu_percent"),
    ("Memory", "mem_limit"),
    ("MemoryReservation", "mem_reservation"),
    ("OomKillDisable", "oom_kill_disable"),
    ("OomScoreAdj", "oom_score_adj"),
    ("Privileged", "privileged"),
    ("ReadonlyRootfs", "read_only"),
    ("Init", "init"),
    ("CgroupParent", "cgroup_parent"),
    ("UTSMode", "uts"),
    ("UsernsMode", "userns_mode"),
    ("Dns", "dns"),
    ("DnsOptions", "dns_opt"),
    ("DnsSearch", "dns_search"),
];

/// Lists whose order means nothing.
const SETS: [(&str, &str); 3] = [
    ("GroupAdd", "group_add"),
    ("DeviceCgroupRules", "device_cgroup_rules"),
    ("Devices", "devices"),
];

/// Objects whose members are compared one by one.
const TABLES: [(&str, &str); 3] =
    [("Annotations", "annotations"), ("Sysctls", "sysctls"), ("StorageOpt", "storage_opt")];

/// Parts of `blkio_config`.
const BLKIO: [(&str, &str); 6] = [
    ("BlkioWeight", "weight"),
    ("BlkioWeightDevice", "weight_device"),
    ("BlkioDeviceReadBps", "device_read_bps"),
    ("BlkioDeviceReadIOps", "device_read_iops"),
    ("BlkioDeviceWriteBps", "device_write_bps"),
    ("BlkioDeviceWriteIOps", "device_write_iops"),
];

/// Fills in what the engine takes from the image where a request is silent.
pub(crate) fn with_image_defaults(config: &Value, image: &Value) -> Value {
    let mut merged = config.clone();
    for key in ["User", "WorkingDir", "StopSignal"] {
        if is_blank(&merged[key]) {
            merged[key] = image[key].clone();
        }
    }
    // An entrypoint that was given, even an empty one, replaces the image's, and a filled one
    // its command too.
    if is_blank(&merged["Entrypoint"]) {
        if is_blank(&merged["Cmd"]) {
            merged["Cmd"] = image["Cmd"].clone();
        }
        if merged["Entrypoint"].is_null() {
            merged["Entrypoint"] = image["Entrypoint"].clone();
        }
    }
    if image["Healthcheck"].is_object() {
        let own = merged["Healthcheck"].as_object().cloned().unwrap_or_default();
        let mut check = image["Healthcheck"].as_object().cloned().unwrap_or_default();
        check.extend(own.into_iter().filter(|(_, value)| !is_blank(value)));
        merged["Healthcheck"] = Value::Object(check);
    }
    merged
}

impl Side<'_> {
    /// The facts of this side.
    pub(crate) fn facts(&self) -> Fields {
        let mut fields = Fields::new();
        self.process(&mut fields);
        self.environment(&mut fields);
        self.labels(&mut fields);
        self.healthcheck(&mut fields);
        self.plain(&mut fields);
        self.limits(&mut fields);
        self.modes(&mut fields);
        self.security(&mut fields);
        self.logging(&mut fields);
        self.attachments(&mut fields);
        self.mounts(&mut fields);
        for ignored in &self.daemon.ignored {
            fields.unset(ignored);
        }
        fields
    }

    fn process(&self, fields: &mut Fields) {
        let (config, image) = (self.config, self.image);
        for (key, name) in [("User", "user"), ("WorkingDir", "working_dir")] {
            if without_blank(&config[key]) != without_blank(&image[key]) {
                put(fields, name, &config[key]);
            }
        }
        let entrypoint_is_own = words(&config["Entrypoint"]) != words(&image["Entrypoint"]);
        if entrypoint_is_own {
            fields.set("entrypoint", words(&config["Entrypoint"]));
        }
        let command = words(&config["Cmd"]);
        let inherits = if entrypoint_is_own && !is_blank(&config["Entrypoint"]) {
            command.is_empty()
        } else {
            command == words(&image["Cmd"])
        };
        if !inherits {
            fields.set("command", command);
        }
        for (key, name) in [("Tty", "tty"), ("OpenStdin", "stdin_open")] {
            put(fields, name, &config[key]);
        }
        let default_signal = image["StopSignal"].as_str().filter(|s| !s.is_empty());
        let signal = config["StopSignal"].as_str().filter(|s| !s.is_empty());
        if signal.unwrap_or("SIGTERM") != default_signal.unwrap_or("SIGTERM") {
            put(fields, "stop_signal", &config["StopSignal"]);
        }
        put(fields, "stop_grace_period", &config["StopTimeout"]);
        put(fields, "domainname", &config["Domainname"]);
        let hostname = config["Hostname"].as_str().unwrap_or_default();
        let shares_name = self.host["NetworkMode"].as_str().is_some_and(|mode| {
            mode.starts_with(relations::CONTAINER_MODE)
                || mode == "host" && hostname == self.daemon.info.host_name
        }) || self.host["UTSMode"] == "host";
        let given_by_engine = self.id.len() > 12 && self.id.starts_with(hostname);
        if !shares_name && !given_by_engine {
            put(fields, "hostname", &config["Hostname"]);
        }
        // From API 1.44 on it is asked for with the main network. What an engine says there may
        // be an address of its own choice; what was asked for, it still says with the container.
        let main = self.host["NetworkMode"].as_str().and_then(|name| self.networks.get(name));
        match main.map(|endpoint| &endpoint["MacAddress"]) {
            Some(asked) if self.id.is_empty() && !is_blank(asked) => {
                put(fields, "mac_address", asked);
            }
            _ => put(fields, "mac_address", &config["MacAddress"]),
        }
    }

    fn environment(&self, fields: &mut Fields) {
        let inherited: BTreeSet<&str> = strings(&self.image["Env"]).collect();
        for variable in strings(&self.config["Env"]).filter(|line| !inherited.contains(line)) {
            match variable.split_once('=') {
                Some((name, value)) => fields.set(format!("environment.{name}"), value),
                // A bare name unsets what the image sets, and else does nothing.
                None if inherited.iter().any(|line| line.split('=').next() == Some(variable)) => {
                    fields.set(format!("environment.{variable}"), Value::Null);
                }
                None => {}
            }
        }
    }

    fn labels(&self, fields: &mut Fields) {
        for (name, value) in entries(&self.config["Labels"]) {
            let is_tools = TOOL_LABELS.iter().any(|prefix| name.starts_with(prefix));
            if !is_tools && self.image["Labels"].get(name) != Some(value) {
                fields.set(format!("label.{name}"), value.clone());
            }
        }
    }

    fn healthcheck(&self, fields: &mut Fields) {
        let clean = |check: &Value| -> Map<String, Value> {
            let parts = entries(check).filter(|(_, value)| !is_blank(value));
            parts.map(|(name, value)| (name.clone(), value.clone())).collect()
        };
        let own = clean(&self.config["Healthcheck"]);
        if own != clean(&self.image["Healthcheck"]) {
            fields.set("healthcheck", sorted(own));
        }
    }

    fn plain(&self, fields: &mut Fields) {
        for (key, name) in PLAIN {
            put(fields, name, &self.host[key]);
        }
        for (key, name) in SETS {
            put(fields, name, &set(list(&self.host[key]).cloned()));
        }
        for (key, name) in TABLES {
            for (member, value) in entries(&self.host[key]) {
                fields.set(format!("{name}.{member}"), value.clone());
            }
        }
        let blkio: Map<String, Value> = BLKIO
            .iter()
            .filter(|(key, _)| !is_blank(&self.host[*key]))
            .map(|(key, name)| ((*name).to_owned(), self.host[*key].clone()))
            .collect();
        put(fields, "blkio_config", &Value::Object(blkio));
        let requests = list(&self.host["DeviceRequests"]).map(|request| {
            let parts = entries(request).filter(|(_, value)| !is_blank(value));
            sorted(parts.map(|(name, value)| (name.clone(), value.clone())).collect())
        });
        put(fields, "gpus", &set(requests));
        let hosts = strings(&self.host["ExtraHosts"]).map(|host| {
            let (name, address) = host.split_once([':', '=']).unwrap_or((host, ""));
            json!(format!("{name}={}", address.trim_matches(['[', ']'])))
        });
        put(fields, "extra_hosts", &set(hosts));
        for (key, name) in [("CapAdd", "cap_add"), ("CapDrop", "cap_drop")] {
            let capabilities = strings(&self.host[key]).map(|capability| {
                let upper = capability.to_ascii_uppercase();
                json!(upper.strip_prefix("CAP_").unwrap_or(&upper))
            });
            put(fields, name, &set(capabilities));
        }
        for ulimit in list(&self.host["Ulimits"]) {
            let name = ulimit["Name"].as_str().unwrap_or_default();
            let value = json!({"soft": ulimit["Soft"], "hard": ulimit["Hard"]});
            fields.set(format!("ulimits.{name}"), value);
        }
    }

    fn limits(&self, fields: &mut Fields) {
        let host = self.host;
        let memory = host["Memory"].as_i64().unwrap_or(0);
        let swap = host["MemorySwap"].as_i64().unwrap_or(0);
        // The engine's default: as much swap as memory, so that both are twice the memory.
        if swap != 0 && (memory == 0 || swap != memory * 2) {
            fields.set("memswap_limit", swap);
        }
        if let Some(swappiness) = host["MemorySwappiness"].as_i64().filter(|n| *n > 0) {
            fields.set("mem_swappiness", swappiness);
        }
        if let Some(pids) = host["PidsLimit"].as_i64().filter(|n| *n > 0) {
            fields.set("pids_limit", pids);
        }
        let shm = host["ShmSize"].as_i64().unwrap_or(0);
        if shm != 0 && shm != self.daemon.shm_size {
            fields.set("shm_size", shm);
        }
        let policy = host["RestartPolicy"]["Name"].as_str().unwrap_or_default();
        let attempts = host["RestartPolicy"]["MaximumRetryCount"].as_i64().unwrap_or(0);
        match (policy, attempts) {
            ("" | "no", _) => {}
            (policy, 0) => fields.set("restart", policy),
            (policy, attempts) => fields.set("restart", format!("{policy}:{attempts}")),
        }
        let runtime = host["Runtime"].as_str().unwrap_or_default();
        if !runtime.is_empty() && runtime != self.daemon.runtime {
            fields.set("runtime", runtime);
        }
    }

    fn security(&self, fields: &mut Fields) {
        let host = self.host;
        let privileged = host["Privileged"] == true;
        let shares = [&host["IpcMode"], &host["PidMode"]].iter().any(|mode| **mode == "host");
        // The engine adds this to containers that could not work with labels.
        let options = strings(&host["SecurityOpt"])
            .filter(|option| !((privileged || shares) && *option == "label=disable"))
            .map(|option| json!(option));
        put(fields, "security_opt", &set(options));
        let unmasked = |key: &str| host[key].as_array().is_some_and(Vec::is_empty);
        if !privileged && unmasked("MaskedPaths") && unmasked("ReadonlyPaths") {
            fields.set("security_opt.systempaths", "unconfined");
        }
    }

    fn logging(&self, fields: &mut Fields) {
        let config = &self.host["LogConfig"];
        let driver = config["Type"].as_str().filter(|driver| !driver.is_empty());
        let driver = driver.unwrap_or(&self.daemon.log_driver);
        let is_default = driver == self.daemon.log_driver;
        let mut options: Map<String, Value> = Map::new();
        for (name, value) in entries(&config["Config"]) {
            let given = self.daemon.log_options.get(name).map(String::as_str);
            if !(is_default && given == value.as_str()) {
                options.insert(name.clone(), value.clone());
            }
        }
        if !is_default || !options.is_empty() {
            fields.set("logging", json!({"driver": driver, "options": sorted(options)}));
        }
    }
}

/// Sets a field, unless the value says nothing.
fn put(fields: &mut Fields, name: &str, value: &Value) {
    if !is_blank(value) {
        fields.set(name, sorted_value(value));
    }
}

/// Whether a value is what stands for nothing: null, false, 0, "", [], {}.
fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

fn without_blank(value: &Value) -> Option<&Value> {
    Some(value).filter(|value| !is_blank(value))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn strings(value: &Value) -> impl Iterator<Item = &str> {
    list(value).filter_map(Value::as_str)
}

fn words(value: &Value) -> Vec<String> {
    strings(value).map(str::to_owned).collect()
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

/// A list as a set: in order, once each.
fn set(values: impl Iterator<Item = Value>) -> Value {
    let mut values: Vec<Value> = values.map(|value| sorted_value(&value)).collect();
    values.sort_by_key(Value::to_string);
    values.dedup();
    Value::Array(values)
}

/// Objects keep the order in which they were made; digests need one order.
fn sorted(map: Map<String, Value>) -> Value {
    sorted_value(&Value::Object(map))
}

fn sorted_value(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut parts: Vec<(&String, &Value)> = map.iter().collect();
            parts.sort_unstable_by_key(|(name, _)| *name);
            let parts = parts.into_iter().map(|(name, value)| (name.clone(), sorted_value(value)));
            Value::Object(parts.collect())
        }
        Value::Array(list) => Value::Array(list.iter().map(sorted_value).collect()),
        other => other.clone(),
    }
}
