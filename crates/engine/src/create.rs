//! From a Compose service to the body of a create request. Pure: what has to be read or asked is
//! handed in.

mod host;
mod mounts;
mod network;

pub(crate) use host::seccomp_profile;

use std::collections::BTreeMap;

use bollard::models::{ContainerCreateBody, EndpointSettings, HealthConfig, NetworkingConfig};
use serde_json::Value;
use shiplap_compose::model::{Healthcheck, Service};
use shiplap_model::{Desired, Names, PublishedPort, ServiceSpec};

use crate::daemon::ApiVersion;

/// What a conversion works from.
pub(crate) struct Conversion<'a> {
    pub(crate) desired: &'a Desired,
    pub(crate) spec: &'a ServiceSpec,
    pub(crate) labels: &'a BTreeMap<String, String>,
    /// A further alias on all networks; empty for none.
    pub(crate) base_name: &'a str,
    /// Who carries the service's names.
    pub(crate) names: Names,
    /// Anonymous volumes to take over, by mount point.
    pub(crate) anonymous_volumes: &'a BTreeMap<String, String>,
    pub(crate) publish: &'a [PublishedPort],
    /// The container that stands for another service.
    pub(crate) peer: &'a dyn Fn(&str) -> Option<String>,
    /// Contents of seccomp profiles by path, compact.
    pub(crate) profiles: &'a BTreeMap<String, String>,
    /// Proxy variables of the user's Docker configuration; the service's own come first.
    pub(crate) proxies: &'a BTreeMap<String, String>,
    pub(crate) api: ApiVersion,
}

/// Requests that make a container.
#[derive(Debug)]
pub(crate) struct CreateRequest {
    body: ContainerCreateBody,
    /// Lost in bollard's type, needed by engines before API 1.44.
    mac_address: Option<String>,
    /// Networks to connect afterwards, which older engines do not take at creation.
    pub(crate) connect: Vec<(String, EndpointSettings)>,
}

impl CreateRequest {
    /// The body of the create request for an image.
    pub(crate) fn body(&self, image: &str) -> Value {
        let mut body = serde_json::to_value(&self.body).expect("plain data serialises");
        body["Image"] = image.into();
        if let Some(address) = &self.mac_address {
            body["MacAddress"] = address.as_str().into();
        }
        body
    }
}

/// Why a service cannot become a container on this engine.
pub(crate) type Unfit = String;

impl Conversion<'_> {
    fn service(&self) -> &Service {
        &self.spec.service
    }

    /// Builds the requests.
    pub(crate) fn run(&self) -> Result<CreateRequest, Unfit> {
        let service = self.service();
        let mut endpoints = self.endpoints()?;
        let mac_address = self.mac_address(&mut endpoints)?;
        // Before API 1.44 an engine takes one network at creation and drops the others silently.
        let at_creation = if self.api >= ApiVersion(44) { endpoints.len() } else { 1 };
        let connect = endpoints.split_off(at_creation.min(endpoints.len()));
        let networking_config = (!endpoints.is_empty())
            .then(|| NetworkingConfig { endpoints_config: Some(endpoints.into_iter().collect()) });
        let mut labels: BTreeMap<&str, &str> =
            service.labels.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        labels.extend(self.labels.iter().map(|(n, v)| (n.as_str(), v.as_str())));
        let body = ContainerCreateBody {
            hostname: service.hostname.clone(),
            domainname: service.domainname.clone(),
            user: service.user.clone(),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            tty: service.tty.then_some(true),
            open_stdin: service.stdin_open.then_some(true),
            exposed_ports: Some(self.exposed_ports()),
            env: Some(self.environment()),
            cmd: service.command.clone(),
            entrypoint: service.entrypoint.clone(),
            healthcheck: service.healthcheck.as_ref().map(|check| healthcheck(check, self.api)),
            working_dir: service.working_dir.clone(),
            labels: Some(labels.into_iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect()),
            stop_signal: service.stop_signal.clone(),
            stop_timeout: service.stop_grace_period.map(|d| d.as_nanoseconds() / 1_000_000_000),
            host_config: Some(self.host_config()?),
            networking_config,
            ..Default::default()
        };
        Ok(CreateRequest { body, mac_address, connect })
    }

    fn environment(&self) -> Vec<String> {
        let mut variables: BTreeMap<&str, Option<&str>> =
            self.proxies.iter().map(|(n, v)| (n.as_str(), Some(v.as_str()))).collect();
        if self.service().use_api_socket {
            variables.insert("DOCKER_CONFIG", Some("/run/secrets/docker"));
        }
        let own = self.service().environment.iter();
        variables.extend(own.map(|(name, value)| (name.as_str(), value.as_deref())));
        variables
            .into_iter()
            // A bare name unsets what the image sets.
            .map(|(name, value)| value.map_or_else(|| name.into(), |v| format!("{name}={v}")))
            .collect()
    }

    fn exposed_ports(&self) -> Vec<String> {
        let service = self.service();
        let mut ports: Vec<String> = service
            .ports
            .iter()
            .map(|port| format!("{}/{}", port.target, port.protocol.as_deref().unwrap_or("tcp")))
            .collect();
        for exposed in &service.expose {
            let (range, protocol) = exposed.split_once('/').unwrap_or((exposed, "tcp"));
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            if let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) {
                ports.extend((first..=last).map(|port| format!("{port}/{protocol}")));
            }
        }
        ports.sort_unstable();
        ports.dedup();
        ports
    }
}

fn healthcheck(check: &Healthcheck, api: ApiVersion) -> HealthConfig {
    let nanoseconds = |d: Option<shiplap_compose::model::Duration>| d.map(|d| d.as_nanoseconds());
    if check.disable {
        return HealthConfig { test: Some(vec!["NONE".into()]), ..Default::default() };
    }
    HealthConfig {
        test: (!check.test.is_empty()).then(|| check.test.clone()),
        interval: nanoseconds(check.interval),
        timeout: nanoseconds(check.timeout),
        retries: check.retries.and_then(|n| i64::try_from(n).ok()),
        start_period: nanoseconds(check.start_period),
        // An older engine does not know it and would refuse nothing, but keep nothing either.
        start_interval: nanoseconds(check.start_interval).filter(|_| api >= ApiVersion(44)),
    }
}
