//! The normalised project: what every other part of a program works with.
//!
//! The types mirror the JSON that `docker compose config --format json` prints, key for key, so
//! `serde` both reads and writes that form. Empty attributes are left out when writing.
//!
//! ```
//! use shiplap_compose::model::Project;
//! let project: Project = serde_json::from_str(
//!     r#"{"name":"shop","services":{"web":{"image":"nginx","ports":[{"mode":"ingress","target":80,"published":"8080","protocol":"tcp"}]}}}"#,
//! ).unwrap();
//! assert_eq!(project.services["web"].ports[0].target, 80);
//! assert_eq!(serde_json::from_value::<Project>(serde_json::to_value(&project).unwrap()).unwrap(), project);
//! ```

use std::fmt;

use indexmap::IndexMap;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

pub use crate::units::{ByteSize, Duration, FileMode};

/// Names to values, in the order of the file.
pub type Map<T> = IndexMap<String, T>;
/// `x-…` attributes, kept as they were written.
pub type Extensions = IndexMap<String, Value>;

/// Whether an attribute is left out when it is written.
trait Absent {
    fn is_absent(&self) -> bool;
}

impl<T> Absent for Option<T> {
    fn is_absent(&self) -> bool {
        self.is_none()
    }
}

impl<T> Absent for Vec<T> {
    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}

impl<T> Absent for IndexMap<String, T> {
    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}

impl Absent for bool {
    fn is_absent(&self) -> bool {
        !*self
    }
}

/// Declares a Compose object: every attribute is optional, absent ones are not written, and `x-…`
/// keys are kept.
macro_rules! object {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize)]
        pub struct $name {
            $(
                #[doc = concat!("The attribute `", stringify!($field), "`.")]
                $(#[$field_meta])*
                #[serde(skip_serializing_if = "Absent::is_absent")]
                pub $field: $type,
            )*
            /// `x-…` attributes.
            #[serde(flatten)]
            pub extensions: Extensions,
        }

        // By hand, for `flatten` would keep every object twice.
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Attributes;
                impl<'de> Visitor<'de> for Attributes {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("a mapping")
                    }
                    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<$name, A::Error> {
                        let mut object = $name::default();
                        while let Some(key) = map.next_key::<String>()? {
                            match key.as_str() {
                                $(stringify!($field) => object.$field = map.next_value()?,)*
                                _ => {
                                    object.extensions.insert(key, map.next_value()?);
                                }
                            }
                        }
                        Ok(object)
                    }
                }
                deserializer.deserialize_map(Attributes)
            }
        }
    };
}

/// Declares a closed set of words.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($word:literal => $variant:ident,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name {
            $(
                #[doc = concat!("`", $word, "`")]
                #[serde(rename = $word)]
                $variant,
            )*
        }

        impl $name {
            /// The word as it stands in a Compose file.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word,)* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

mod deploy;

pub use deploy::{
    Deploy, DeviceRequest, DiscreteResource, GenericResource, Placement, PlacementPreference,
    Resource, Resources, RestartPolicy, UpdateConfig, UpdateOrder,
};

/// A whole project: everything that its Compose files say, merged and normalised.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Project {
    /// The project name, already normalised.
    pub name: String,
    /// The active services, in the order of the files.
    #[serde(default)]
    pub services: Map<Service>,
    /// Networks used by a service.
    #[serde(default, skip_serializing_if = "Absent::is_absent")]
    pub networks: Map<Network>,
    /// Volumes used by a service.
    #[serde(default, skip_serializing_if = "Absent::is_absent")]
    pub volumes: Map<Volume>,
    /// Secrets used by a service.
    #[serde(default, skip_serializing_if = "Absent::is_absent")]
    pub secrets: Map<FileObject>,
    /// Configs used by a service.
    #[serde(default, skip_serializing_if = "Absent::is_absent")]
    pub configs: Map<FileObject>,
    /// Models used by a service.
    #[serde(default, skip_serializing_if = "Absent::is_absent")]
    pub models: Map<Model>,
    /// `x-…` sections.
    #[serde(flatten)]
    pub extensions: Extensions,
}

object! {
    /// One service.
    Service {
        profiles: Vec<String>,
        annotations: Map<String>,
        attach: Option<bool>,
        blkio_config: Option<BlkioConfig>,
        build: Option<Build>,
        cap_add: Vec<String>,
        cap_drop: Vec<String>,
        cgroup: Option<String>,
        cgroup_parent: Option<String>,
        /// `None` keeps the image's own; an empty list clears it.
        command: Option<Vec<String>>,
        configs: Vec<FileReference>,
        container_name: Option<String>,
        cpu_count: Option<i64>,
        cpu_percent: Option<f64>,
        cpu_period: Option<i64>,
        cpu_quota: Option<i64>,
        cpu_rt_period: Option<i64>,
        cpu_rt_runtime: Option<i64>,
        cpu_shares: Option<i64>,
        cpus: Option<f64>,
        cpuset: Option<String>,
        credential_spec: Option<CredentialSpec>,
        depends_on: Map<Dependency>,
        deploy: Option<Deploy>,
        develop: Option<Develop>,
        device_cgroup_rules: Vec<String>,
        devices: Vec<Device>,
        dns: Vec<String>,
        dns_opt: Vec<String>,
        dns_search: Vec<String>,
        dockerfile: Option<String>,
        domainname: Option<String>,
        /// `None` keeps the image's own; an empty list clears it.
        entrypoint: Option<Vec<String>>,
        /// Variables with `env_file` already read in; `None` is taken from the process that deploys
        /// and, without one, is unset.
        environment: Map<Option<String>>,
        /// Empty after loading: the files' variables are part of `environment`.
        env_file: Vec<EnvFile>,
        expose: Vec<String>,
        extends: Option<Extends>,
        external_links: Vec<String>,
        /// `host=address`.
        extra_hosts: Vec<String>,
        gpus: Vec<DeviceRequest>,
        group_add: Vec<String>,
        healthcheck: Option<Healthcheck>,
        hostname: Option<String>,
        image: Option<String>,
        init: Option<bool>,
        ipc: Option<String>,
        isolation: Option<String>,
        /// Empty after loading: the files' labels are part of `labels`.
        label_file: Vec<String>,
        labels: Map<String>,
        /// `service` or `service:alias`.
        links: Vec<String>,
        logging: Option<Logging>,
        mac_address: Option<String>,
        mem_limit: Option<ByteSize>,
        mem_reservation: Option<ByteSize>,
        mem_swappiness: Option<ByteSize>,
        memswap_limit: Option<ByteSize>,
        models: Map<Option<ModelReference>>,
        network_mode: Option<String>,
        networks: Map<Option<Attachment>>,
        oom_kill_disable: bool,
        oom_score_adj: Option<i64>,
        pid: Option<String>,
        pids_limit: Option<i64>,
        platform: Option<String>,
        ports: Vec<Port>,
        post_start: Vec<Hook>,
        pre_stop: Vec<Hook>,
        privileged: bool,
        provider: Option<Provider>,
        /// `always`, `never`, `missing`, `build`, `daily`, `weekly`, `every_12h` …
        pull_policy: Option<String>,
        read_only: bool,
        /// `no`, `always`, `unless-stopped`, `on-failure` or `on-failure:5`.
        restart: Option<String>,
        runtime: Option<String>,
        scale: Option<u32>,
        secrets: Vec<FileReference>,
        security_opt: Vec<String>,
        shm_size: Option<ByteSize>,
        stdin_open: bool,
        stop_grace_period: Option<Duration>,
        stop_signal: Option<String>,
        storage_opt: Map<String>,
        sysctls: Map<String>,
        tmpfs: Vec<String>,
        tty: bool,
        ulimits: Map<Ulimit>,
        use_api_socket: bool,
        user: Option<String>,
        userns_mode: Option<String>,
        uts: Option<String>,
        volumes: Vec<Mount>,
        volumes_from: Vec<String>,
        working_dir: Option<String>,
    }
}

impl Service {
    /// How many containers are wanted: `deploy.replicas`, else `scale`, else one.
    pub fn replicas(&self) -> u32 {
        self.deploy.as_ref().and_then(|deploy| deploy.replicas).or(self.scale).unwrap_or(1)
    }
}

object! {
    /// How to build an image.
    Build {
        context: Option<String>,
        dockerfile: Option<String>,
        dockerfile_inline: Option<String>,
        entitlements: Vec<String>,
        args: Map<Option<String>>,
        provenance: Option<String>,
        sbom: Option<String>,
        ssh: Vec<String>,
        labels: Map<String>,
        cache_from: Vec<String>,
        cache_to: Vec<String>,
        no_cache: bool,
        no_cache_filter: Vec<String>,
        additional_contexts: Map<String>,
        pull: bool,
        /// `host=address`.
        extra_hosts: Vec<String>,
        isolation: Option<String>,
        network: Option<String>,
        target: Option<String>,
        secrets: Vec<FileReference>,
        shm_size: Option<ByteSize>,
        tags: Vec<String>,
        ulimits: Map<Ulimit>,
        platforms: Vec<String>,
        privileged: bool,
    }
}

/// A service that must come first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dependency {
    /// What to wait for.
    pub condition: Condition,
    /// Whether the dependent service restarts with this one.
    #[serde(default, skip_serializing_if = "Absent::is_absent")]
    pub restart: bool,
    /// Whether its absence is an error.
    #[serde(default = "yes")]
    pub required: bool,
    /// `x-…` attributes.
    #[serde(flatten)]
    pub extensions: Extensions,
}

fn yes() -> bool {
    true
}

words! {
    /// What a dependent service waits for.
    Condition {
        "service_started" => Started,
        "service_healthy" => Healthy,
        "service_completed_successfully" => CompletedSuccessfully,
    }
}

object! {
    /// The container health check.
    Healthcheck {
        /// `["CMD", …]`, `["CMD-SHELL", line]` or `["NONE"]`.
        test: Vec<String>,
        timeout: Option<Duration>,
        interval: Option<Duration>,
        retries: Option<u64>,
        start_period: Option<Duration>,
        start_interval: Option<Duration>,
        disable: bool,
    }
}

/// One published or exposed port.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Port {
    /// A name for people.
    #[serde(default, skip_serializing_if = "Absent::is_absent")]
    pub name: Option<String>,
    /// `ingress` or `host`.
    #[serde(default, skip_serializing_if = "Absent::is_absent")]
    pub mode: Option<String>,
    /// The address on the host; all if absent.
    #[serde(default, skip_serializing_if = "Absent::is_absent")]
    pub host_ip: Option<String>,
    /// The port in the container.
    pub target: u16,
    /// The port or range on the host; any free one if absent.
    #[serde(default, skip_serializing_if = "Absent::is_absent")]
    pub published: Option<String>,
    /// `tcp`, `udp` or `sctp`.
    #[serde(default, skip_serializing_if = "Absent::is_absent")]
    pub protocol: Option<String>,
    /// What is spoken on it: `http`, `grpc` …
    #[serde(default, skip_serializing_if = "Absent::is_absent")]
    pub app_protocol: Option<String>,
    /// `x-…` attributes.
    #[serde(flatten)]
    pub extensions: Extensions,
}

impl Port {
    /// The published ports as an inclusive range, if any is fixed.
    pub fn published_range(&self) -> Option<(u16, u16)> {
        let text = self.published.as_deref()?;
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Some((first.parse().ok()?, last.parse().ok()?))
    }
}

words! {
    /// What is mounted.
    MountKind {
        "bind" => Bind,
        "volume" => Volume,
        "tmpfs" => Tmpfs,
        "cluster" => Cluster,
        "npipe" => Npipe,
        "image" => Image,
    }
}

/// One entry of a service's `volumes`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mount {
    /// The attribute `type`.
    #[serde(rename = "type")]
    pub kind: MountKind,
    /// A host path, a volume's name or an image.
    #[serde(default, skip_serializing_if = "Absent::is_absent")]
    pub source: Option<String>,
    /// The path in the container.
    #[serde(default, skip_serializing_if = "Absent::is_absent")]
    pub target: Option<String>,
    /// Whether writing is forbidden.
    #[serde(default, skip_serializing_if = "Absent::is_absent")]
    pub read_only: bool,
    /// `consistent`, `cached` or `delegated`.
    #[serde(default, skip_serializing_if = "Absent::is_absent")]
    pub consistency: Option<String>,
    /// Options of a bind mount.
    #[serde(default, skip_serializing_if = "Absent::is_absent")]
    pub bind: Option<BindOptions>,
    /// Options of a volume.
    #[serde(default, skip_serializing_if = "Absent::is_absent")]
    pub volume: Option<VolumeOptions>,
    /// Options of a file system in memory.
    #[serde(default, skip_serializing_if = "Absent::is_absent")]
    pub tmpfs: Option<TmpfsOptions>,
    /// Options of a mounted image.
    #[serde(default, skip_serializing_if = "Absent::is_absent")]
    pub image: Option<ImageOptions>,
    /// `x-…` attributes.
    #[serde(flatten)]
    pub extensions: Extensions,
}

object! {
    /// Options of a bind mount.
    BindOptions {
        selinux: Option<String>,
        propagation: Option<String>,
        create_host_path: Option<bool>,
        recursive: Option<String>,
    }
}

object! {
    /// Options of a mounted volume.
    VolumeOptions {
        labels: Map<String>,
        nocopy: bool,
        subpath: Option<String>,
    }
}

object! {
    /// Options of a file system in memory.
    TmpfsOptions {
        size: Option<ByteSize>,
        mode: Option<u32>,
    }
}

object! {
    /// Options of a mounted image.
    ImageOptions {
        subpath: Option<String>,
    }
}

object! {
    /// How a service is attached to a network.
    Attachment {
        aliases: Vec<String>,
        interface_name: Option<String>,
        ipv4_address: Option<String>,
        ipv6_address: Option<String>,
        link_local_ips: Vec<String>,
        mac_address: Option<String>,
        driver_opts: Map<String>,
        priority: Option<i64>,
        gw_priority: Option<i64>,
    }
}

/// The highest a process may go: one number, or a soft and a hard one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Ulimit {
    /// Soft and hard alike.
    Single(i64),
    /// Soft and hard apart.
    Range {
        /// May be raised by the process up to `hard`.
        #[serde(default)]
        soft: i64,
        /// The ceiling.
        #[serde(default)]
        hard: i64,
    },
}

object! {
    /// Where the container's output goes.
    Logging {
        driver: Option<String>,
        options: Map<String>,
    }
}

object! {
    /// A device of the host.
    Device {
        source: Option<String>,
        target: Option<String>,
        permissions: Option<String>,
    }
}

/// A file of variables.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EnvFile {
    /// Where it is.
    pub path: String,
    /// Whether its absence is an error.
    #[serde(default = "yes")]
    pub required: bool,
    /// `raw`: no quotes, no interpolation.
    #[serde(default, skip_serializing_if = "Absent::is_absent")]
    pub format: Option<String>,
}

object! {
    /// Where a service takes its base from; resolved while loading.
    Extends {
        file: Option<String>,
        service: Option<String>,
    }
}

object! {
    /// A command run inside the container after start or before stop.
    Hook {
        command: Option<Vec<String>>,
        user: Option<String>,
        privileged: bool,
        working_dir: Option<String>,
        environment: Map<Option<String>>,
    }
}

/// A program that provides the service instead of a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Provider {
    /// The attribute `type`: the program.
    #[serde(rename = "type")]
    pub kind: String,
    /// What is passed to it.
    #[serde(default, skip_serializing_if = "Absent::is_absent")]
    pub options: Map<Vec<String>>,
    /// `x-…` attributes.
    #[serde(flatten)]
    pub extensions: Extensions,
}

object! {
    /// A Windows credential specification.
    CredentialSpec {
        config: Option<String>,
        file: Option<String>,
        registry: Option<String>,
    }
}

object! {
    /// Limits of block devices.
    BlkioConfig {
        weight: Option<u16>,
        weight_device: Vec<WeightDevice>,
        device_read_bps: Vec<ThrottleDevice>,
        device_read_iops: Vec<ThrottleDevice>,
        device_write_bps: Vec<ThrottleDevice>,
        device_write_iops: Vec<ThrottleDevice>,
    }
}

/// A block device's share.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WeightDevice {
    /// The attribute `path`.
    #[serde(rename = "Path", default)]
    pub path: String,
    /// The attribute `weight`.
    #[serde(rename = "Weight", default)]
    pub weight: u16,
}

/// A block device's limit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ThrottleDevice {
    /// The attribute `path`.
    #[serde(rename = "Path", default)]
    pub path: String,
    /// The attribute `rate`: bytes or operations per second.
    #[serde(rename = "Rate", default)]
    pub rate: ByteSize,
}

object! {
    /// A service's use of a secret or config.
    FileReference {
        /// Its name in the project.
        source: Option<String>,
        /// The path in the container.
        target: Option<String>,
        uid: Option<String>,
        gid: Option<String>,
        mode: Option<FileMode>,
    }
}

object! {
    /// Rules for developing: which files are watched.
    Develop {
        watch: Vec<Watch>,
    }
}

object! {
    /// One watched path.
    Watch {
        path: Option<String>,
        /// `rebuild`, `sync`, `restart`, `sync+restart` or `sync+exec`.
        action: Option<String>,
        target: Option<String>,
        exec: Option<Hook>,
        include: Vec<String>,
        ignore: Vec<String>,
        initial_sync: bool,
    }
}

object! {
    /// How a service learns of a model.
    ModelReference {
        endpoint_var: Option<String>,
        model_var: Option<String>,
    }
}

object! {
    /// A language model.
    Model {
        name: Option<String>,
        model: Option<String>,
        context_size: Option<i64>,
        runtime_flags: Vec<String>,
    }
}

object! {
    /// A network of the project.
    Network {
        /// Its name on the engine.
        name: Option<String>,
        driver: Option<String>,
        driver_opts: Map<String>,
        ipam: Option<Ipam>,
        external: bool,
        internal: bool,
        attachable: bool,
        labels: Map<String>,
        enable_ipv4: Option<bool>,
        enable_ipv6: Option<bool>,
    }
}

object! {
    /// How a network gives out addresses.
    Ipam {
        driver: Option<String>,
        config: Vec<IpamPool>,
        options: Map<String>,
    }
}

object! {
    /// One range of addresses.
    IpamPool {
        subnet: Option<String>,
        gateway: Option<String>,
        ip_range: Option<String>,
        aux_addresses: Map<String>,
    }
}

object! {
    /// A volume of the project.
    Volume {
        /// Its name on the engine.
        name: Option<String>,
        driver: Option<String>,
        driver_opts: Map<String>,
        external: bool,
        labels: Map<String>,
    }
}

object! {
    /// A secret or config of the project.
    FileObject {
        /// Its name on the engine.
        name: Option<String>,
        file: Option<String>,
        /// The variable that holds it.
        environment: Option<String>,
        /// Configs only: the text itself.
        content: Option<String>,
        external: bool,
        labels: Map<String>,
        driver: Option<String>,
        driver_opts: Map<String>,
        template_driver: Option<String>,
    }
}
