//! How a service runs: `deploy` and what it holds.

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::{Absent, ByteSize, Duration, Extensions, Map};

object! {
    /// How a service runs and changes.
    Deploy {
        /// `replicated`, `global`, `replicated-job` or `global-job`.
        mode: Option<String>,
        replicas: Option<u32>,
        labels: Map<String>,
        update_config: Option<UpdateConfig>,
        rollback_config: Option<UpdateConfig>,
        resources: Option<Resources>,
        restart_policy: Option<RestartPolicy>,
        placement: Option<Placement>,
        /// `vip` or `dnsrr`.
        endpoint_mode: Option<String>,
    }
}

words! {
    /// Whether the new container starts before the old one stops.
    UpdateOrder {
        "start-first" => StartFirst,
        "stop-first" => StopFirst,
    }
}

object! {
    /// How replicas are replaced, in an update or a rollback.
    UpdateConfig {
        parallelism: Option<u64>,
        delay: Option<Duration>,
        /// `continue`, `pause` or `rollback`.
        failure_action: Option<String>,
        monitor: Option<Duration>,
        max_failure_ratio: Option<f64>,
        order: Option<UpdateOrder>,
    }
}

object! {
    /// What a service may use and what is kept for it.
    Resources {
        limits: Option<Resource>,
        reservations: Option<Resource>,
    }
}

object! {
    /// An amount of each resource.
    Resource {
        cpus: Option<f64>,
        memory: Option<ByteSize>,
        pids: Option<i64>,
        devices: Vec<DeviceRequest>,
        generic_resources: Vec<GenericResource>,
    }
}

object! {
    /// Devices wanted, such as GPUs.
    DeviceRequest {
        capabilities: Vec<String>,
        driver: Option<String>,
        /// -1 means all.
        count: Option<i64>,
        device_ids: Vec<String>,
        options: Map<String>,
    }
}

object! {
    /// A resource that the scheduler counts.
    GenericResource {
        discrete_resource_spec: Option<DiscreteResource>,
    }
}

object! {
    /// So many of a kind.
    DiscreteResource {
        kind: Option<String>,
        value: Option<i64>,
    }
}

object! {
    /// When a container is started again.
    RestartPolicy {
        /// `none`, `on-failure` or `any`.
        condition: Option<String>,
        delay: Option<Duration>,
        max_attempts: Option<u64>,
        window: Option<Duration>,
    }
}

object! {
    /// Where replicas may run.
    Placement {
        constraints: Vec<String>,
        preferences: Vec<PlacementPreference>,
        max_replicas_per_node: Option<u64>,
    }
}

object! {
    /// How replicas are spread.
    PlacementPreference {
        spread: Option<String>,
    }
}
