//! The part of a create request that is about the host.

use std::collections::HashMap;

use bollard::models::{
    DeviceMapping, DeviceRequest, HostConfig, HostConfigCgroupnsModeEnum as Cgroupns,
    HostConfigIsolationEnum as Isolation, HostConfigLogConfig, ResourcesBlkioWeightDevice,
    ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum as Restart, ThrottleDevice,
};
use shiplap_compose::model::{self, ByteSize, Map, Service, Ulimit};

use super::network::filled;
use super::{Conversion, Unfit};
use crate::daemon::ApiVersion;

/// A list, or nothing where the engine shall do as it likes.
type Words = Option<Vec<String>>;

impl Conversion<'_> {
    pub(super) fn host_config(&self) -> Result<HostConfig, Unfit> {
        let service = self.service();
        let endpoints = self.endpoints()?;
        let mounts = self.mounts()?;
        let (security_opt, paths) = self.security()?;
        let on_bridge = matches!(service.network_mode.as_deref(), Some("bridge" | "default"));
        let mode = |name: &str, mode: &Option<String>| {
            mode.as_deref().map(|mode| self.mode(name, mode)).transpose()
        };
        let host = HostConfig {
            annotations: table(&service.annotations).filter(|_| self.api >= ApiVersion(43)),
            binds: filled(&mounts.binds),
            mounts: (!mounts.mounts.is_empty()).then_some(mounts.mounts),
            tmpfs: tmpfs(&service.tmpfs),
            volumes_from: self.volumes_from()?,
            network_mode: Some(self.network_mode(&endpoints)?),
            links: filled(&self.links()).filter(|_| on_bridge),
            port_bindings: self.port_bindings(),
            cap_add: filled(&service.cap_add),
            cap_drop: filled(&service.cap_drop),
            cgroupns_mode: cgroupns(service)?,
            dns: filled(&service.dns),
            dns_options: filled(&service.dns_opt),
            dns_search: filled(&service.dns_search),
            extra_hosts: (!service.extra_hosts.is_empty())
                .then(|| service.extra_hosts.iter().map(|host| extra_host(host)).collect()),
            group_add: filled(&service.group_add),
            init: service.init,
            ipc_mode: mode("ipc", &service.ipc)?,
            pid_mode: mode("pid", &service.pid)?,
            uts_mode: service.uts.clone(),
            userns_mode: service.userns_mode.clone(),
            isolation: isolation(service)?,
            log_config: service.logging.as_ref().map(|logging| HostConfigLogConfig {
                typ: logging.driver.clone(),
                config: table(&logging.options),
            }),
            oom_score_adj: service.oom_score_adj,
            privileged: service.privileged.then_some(true),
            readonly_rootfs: service.read_only.then_some(true),
            restart_policy: restart(service)?,
            runtime: service.runtime.clone(),
            security_opt,
            masked_paths: paths.clone(),
            readonly_paths: paths,
            shm_size: service.shm_size.map(ByteSize::bytes),
            storage_opt: table(&service.storage_opt),
            sysctls: table(&service.sysctls),
            ulimits: ulimits(&service.ulimits),
            ..Default::default()
        };
        Ok(with_resources(host, service))
    }

    fn volumes_from(&self) -> Result<Option<Vec<String>>, Unfit> {
        let mut out = Vec::new();
        for from in &self.service().volumes_from {
            if let Some(container) = from.strip_prefix("container:") {
                out.push(container.to_owned());
                continue;
            }
            let (name, mode) =
                from.split_once(':').map_or((from.as_str(), None), |(n, m)| (n, Some(m)));
            let peer = self.required_peer("volumes_from", name)?;
            out.push(mode.map_or_else(|| peer.clone(), |mode| format!("{peer}:{mode}")));
        }
        Ok(filled(&out))
    }

    /// Security options, and the paths to mask where the option that unmasks all is given.
    fn security(&self) -> Result<(Words, Words), Unfit> {
        let mut options = Vec::new();
        let mut paths = None;
        for option in &self.service().security_opt {
            if option == "systempaths=unconfined" {
                paths = Some(Vec::new());
                continue;
            }
            match seccomp_profile(option) {
                Some(path) => {
                    let profile = self.profiles.get(path);
                    let profile = profile.ok_or_else(|| format!("no seccomp profile: {path}"))?;
                    options.push(format!("seccomp={profile}"));
                }
                None => options.push(option.clone()),
            }
        }
        Ok((filled(&options), paths))
    }
}

/// The file of a seccomp option, if it names one.
pub(crate) fn seccomp_profile(option: &str) -> Option<&str> {
    let value = option.strip_prefix("seccomp=").or_else(|| option.strip_prefix("seccomp:"))?;
    (!matches!(value, "unconfined" | "builtin")).then_some(value)
}

fn with_resources(host: HostConfig, service: &Service) -> HostConfig {
    let bytes = |size: Option<ByteSize>| size.map(ByteSize::bytes).filter(|bytes| *bytes != 0);
    let resources = service.deploy.as_ref().and_then(|deploy| deploy.resources.as_ref());
    let limits = resources.and_then(|resources| resources.limits.as_ref());
    let reserved = resources.and_then(|resources| resources.reservations.as_ref());
    let cpus = limits.and_then(|limits| limits.cpus).or(service.cpus);
    let memory = limits.and_then(|limits| limits.memory).or(service.mem_limit);
    let reservation = reserved.and_then(|reserved| reserved.memory).or(service.mem_reservation);
    let pids = limits.and_then(|limits| limits.pids).or(service.pids_limit);
    let blkio = service.blkio_config.as_ref();
    HostConfig {
        cgroup_parent: service.cgroup_parent.clone(),
        memory: bytes(memory),
        memory_swap: bytes(service.memswap_limit),
        memory_swappiness: bytes(service.mem_swappiness),
        memory_reservation: bytes(reservation),
        // The number of nanoseconds of CPU time in a second: 0.5 is 500,000,000.
        nano_cpus: cpus.map(|cpus| (cpus * 1e9) as i64),
        cpu_count: service.cpu_count,
        cpu_percent: service.cpu_percent.map(|percent| (percent * 100.0) as i64),
        cpu_period: service.cpu_period,
        cpu_quota: service.cpu_quota,
        cpu_realtime_period: service.cpu_rt_period,
        cpu_realtime_runtime: service.cpu_rt_runtime,
        cpu_shares: service.cpu_shares,
        cpuset_cpus: service.cpuset.clone(),
        oom_kill_disable: service.oom_kill_disable.then_some(true),
        pids_limit: pids.filter(|pids| *pids != 0),
        device_cgroup_rules: filled(&service.device_cgroup_rules),
        devices: devices(service),
        device_requests: device_requests(service),
        blkio_weight: blkio.and_then(|blkio| blkio.weight),
        blkio_weight_device: blkio.and_then(|blkio| weights(&blkio.weight_device)),
        blkio_device_read_bps: blkio.and_then(|blkio| throttles(&blkio.device_read_bps)),
        blkio_device_read_iops: blkio.and_then(|blkio| throttles(&blkio.device_read_iops)),
        blkio_device_write_bps: blkio.and_then(|blkio| throttles(&blkio.device_write_bps)),
        blkio_device_write_iops: blkio.and_then(|blkio| throttles(&blkio.device_write_iops)),
        ..host
    }
}

fn table(map: &Map<String>) -> Option<HashMap<String, String>> {
    (!map.is_empty()).then(|| map.clone().into_iter().collect())
}

fn tmpfs(entries: &[String]) -> Option<HashMap<String, String>> {
    let split = |entry: &String| {
        let (path, options) = entry.split_once(':').unwrap_or((entry, ""));
        (path.to_owned(), options.to_owned())
    };
    (!entries.is_empty()).then(|| entries.iter().map(split).collect())
}

/// `host=address`, or an older `host:address`, to `host:address`.
fn extra_host(entry: &str) -> String {
    entry.split_once('=').map_or_else(|| entry.to_owned(), |(host, ip)| format!("{host}:{ip}"))
}

fn cgroupns(service: &Service) -> Result<Option<Cgroupns>, Unfit> {
    match service.cgroup.as_deref() {
        None | Some("") => Ok(None),
        Some("host") => Ok(Some(Cgroupns::HOST)),
        Some("private") => Ok(Some(Cgroupns::PRIVATE)),
        Some(other) => Err(format!("unknown `cgroup`: {other}")),
    }
}

fn isolation(service: &Service) -> Result<Option<Isolation>, Unfit> {
    match service.isolation.as_deref() {
        None | Some("") => Ok(None),
        Some("default") => Ok(Some(Isolation::DEFAULT)),
        Some("process") => Ok(Some(Isolation::PROCESS)),
        Some("hyperv") => Ok(Some(Isolation::HYPERV)),
        Some(other) => Err(format!("unknown `isolation`: {other}")),
    }
}

fn restart(service: &Service) -> Result<Option<RestartPolicy>, Unfit> {
    let of_deploy = service.deploy.as_ref().and_then(|deploy| deploy.restart_policy.as_ref());
    let (condition, attempts) = match (of_deploy, service.restart.as_deref()) {
        (Some(policy), _) => (
            policy.condition.as_deref().unwrap_or_default(),
            policy.max_attempts.and_then(|n| i64::try_from(n).ok()),
        ),
        (None, Some(restart)) => match restart.split_once(':') {
            Some((condition, attempts)) => (condition, attempts.parse().ok()),
            None => (restart, None),
        },
        (None, None) => return Ok(None),
    };
    let name = match condition {
        "" => Restart::EMPTY,
        "no" | "none" => Restart::NO,
        "on-failure" => Restart::ON_FAILURE,
        "unless-stopped" => Restart::UNLESS_STOPPED,
        "always" | "any" => Restart::ALWAYS,
        other => return Err(format!("unknown restart policy: {other}")),
    };
    // The engine refuses a number of attempts with any other policy.
    let attempts = attempts.filter(|_| name == Restart::ON_FAILURE);
    Ok(Some(RestartPolicy { name: Some(name), maximum_retry_count: attempts }))
}

fn ulimits(map: &Map<Ulimit>) -> Option<Vec<ResourcesUlimits>> {
    let one = |(name, ulimit): (&String, &Ulimit)| {
        let (soft, hard) = match ulimit {
            Ulimit::Single(both) => (*both, *both),
            Ulimit::Range { soft, hard } => (*soft, *hard),
        };
        ResourcesUlimits { name: Some(name.clone()), soft: Some(soft), hard: Some(hard) }
    };
    (!map.is_empty()).then(|| map.iter().map(one).collect())
}

/// `vendor/class=name`: a device that the engine finds by its Container Device Interface name.
fn is_cdi(device: &model::Device) -> bool {
    let source = device.source.as_deref().unwrap_or_default();
    device.source == device.target
        && !source.starts_with('/')
        && source.split_once('=').is_some_and(|(kind, name)| kind.contains('/') && !name.is_empty())
}

fn devices(service: &Service) -> Option<Vec<DeviceMapping>> {
    let list: Vec<DeviceMapping> = service
        .devices
        .iter()
        .filter(|device| !is_cdi(device))
        .map(|device| DeviceMapping {
            path_on_host: device.source.clone(),
            path_in_container: device.target.clone(),
            cgroup_permissions: device.permissions.clone(),
        })
        .collect();
    (!list.is_empty()).then_some(list)
}

fn device_requests(service: &Service) -> Option<Vec<DeviceRequest>> {
    let request = |wanted: &model::DeviceRequest, gpu: Option<&str>| {
        let mut capabilities = wanted.capabilities.clone();
        capabilities
            .extend(gpu.filter(|gpu| !capabilities.iter().any(|c| c == gpu)).map(str::to_owned));
        DeviceRequest {
            driver: wanted.driver.clone(),
            count: wanted.count,
            device_ids: filled(&wanted.device_ids),
            capabilities: Some(vec![capabilities]),
            options: table(&wanted.options),
        }
    };
    let reserved = service.deploy.as_ref().and_then(|d| d.resources.as_ref());
    let reserved = reserved.and_then(|r| r.reservations.as_ref()).map(|r| &r.devices[..]);
    let mut list: Vec<DeviceRequest> =
        reserved.unwrap_or_default().iter().map(|wanted| request(wanted, None)).collect();
    let cdi: Vec<String> =
        service.devices.iter().filter(|d| is_cdi(d)).filter_map(|d| d.source.clone()).collect();
    if !cdi.is_empty() {
        let driver = Some("cdi".to_owned());
        list.push(DeviceRequest { driver, device_ids: Some(cdi), ..Default::default() });
    }
    list.extend(service.gpus.iter().map(|wanted| request(wanted, Some("gpu"))));
    (!list.is_empty()).then_some(list)
}

fn weights(list: &[model::WeightDevice]) -> Option<Vec<ResourcesBlkioWeightDevice>> {
    let one = |device: &model::WeightDevice| ResourcesBlkioWeightDevice {
        path: Some(device.path.clone()),
        weight: Some(usize::from(device.weight)),
    };
    (!list.is_empty()).then(|| list.iter().map(one).collect())
}

fn throttles(list: &[model::ThrottleDevice]) -> Option<Vec<ThrottleDevice>> {
    let one = |device: &model::ThrottleDevice| ThrottleDevice {
        path: Some(device.path.clone()),
        rate: Some(device.rate.bytes()),
    };
    (!list.is_empty()).then(|| list.iter().map(one).collect())
}
