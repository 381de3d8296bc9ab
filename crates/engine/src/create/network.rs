//! Networks of a container.

use std::collections::HashMap;

use bollard::models::{EndpointIpamConfig, EndpointSettings, PortBinding, PortMap};
use shiplap_compose::model::Attachment;
use shiplap_model::Names;

use super::{Conversion, Unfit};
use crate::daemon::ApiVersion;

/// The driver option by which an interface gets its name.
const INTERFACE_NAME: &str = "com.docker.network.endpoint.ifname";

impl Conversion<'_> {
    /// Endpoints by the engine's name of the network, the most important first.
    pub(super) fn endpoints(&self) -> Result<Vec<(String, EndpointSettings)>, Unfit> {
        let service = self.service();
        if service.network_mode.is_some() {
            return Ok(Vec::new());
        }
        let mut attached: Vec<(&String, Option<&Attachment>)> =
            service.networks.iter().map(|(key, value)| (key, value.as_ref())).collect();
        let priority = |a: Option<&Attachment>| a.and_then(|a| a.priority).unwrap_or(0);
        attached.sort_by(|(a_key, a), (b_key, b)| {
            priority(*b).cmp(&priority(*a)).then_with(|| a_key.cmp(b_key))
        });
        let links = self.links();
        attached
            .into_iter()
            .map(|(key, attachment)| {
                let network = self.desired.compose.networks.get(key);
                let name = network.and_then(|network| network.name.clone());
                let name = name.ok_or_else(|| format!("network `{key}` is not defined"))?;
                Ok((name, self.endpoint(attachment, &links)))
            })
            .collect()
    }

    fn endpoint(&self, attachment: Option<&Attachment>, links: &[String]) -> EndpointSettings {
        let none = Attachment::default();
        let own = attachment.unwrap_or(&none);
        let mut aliases = vec![self.spec.name.clone()];
        let base_name = (!self.base_name.is_empty()).then(|| self.base_name.to_owned());
        aliases.extend(base_name);
        for alias in &own.aliases {
            if !aliases.contains(alias) {
                aliases.push(alias.clone());
            }
        }
        if self.names == Names::Held {
            aliases.clear();
        }
        let has_address = own.ipv4_address.is_some()
            || own.ipv6_address.is_some()
            || !own.link_local_ips.is_empty();
        let ipam_config = has_address.then(|| EndpointIpamConfig {
            ipv4_address: own.ipv4_address.clone(),
            ipv6_address: own.ipv6_address.clone(),
            link_local_ips: filled(&own.link_local_ips),
        });
        let mut options: HashMap<String, String> = own.driver_opts.clone().into_iter().collect();
        if let Some(name) = &own.interface_name {
            options.insert(INTERFACE_NAME.into(), name.clone());
        }
        EndpointSettings {
            aliases: Some(aliases),
            links: filled(links),
            ipam_config,
            mac_address: own.mac_address.clone(),
            driver_opts: (!options.is_empty()).then_some(options),
            gw_priority: own.gw_priority.filter(|_| self.api >= ApiVersion(48)),
            ..Default::default()
        }
    }

    /// Moves the MAC address to where the engine's version wants it.
    pub(super) fn mac_address(
        &self,
        endpoints: &mut [(String, EndpointSettings)],
    ) -> Result<Option<String>, Unfit> {
        let own = self.service().mac_address.clone();
        if self.api >= ApiVersion(44) && !endpoints.is_empty() {
            let main = &mut endpoints[0].1.mac_address;
            if main.is_none() {
                *main = own;
            }
            return Ok(None);
        }
        let of_endpoints: Vec<String> =
            endpoints.iter_mut().filter_map(|(_, endpoint)| endpoint.mac_address.take()).collect();
        if of_endpoints.len() > 1 {
            let message = "MAC addresses in several networks need Docker 25 or newer";
            return Err(message.to_owned());
        }
        Ok(of_endpoints.into_iter().next().or(own))
    }

    /// `container:alias`, for links to services of the project and to strangers.
    pub(super) fn links(&self) -> Vec<String> {
        let service = self.service();
        let mut links = Vec::new();
        for link in &service.links {
            let (name, alias) = link.split_once(':').unwrap_or((link, link));
            match (self.peer)(name) {
                Some(container) => links.push(format!("{container}:{alias}")),
                // The network's own alias says the same.
                None if alias == name => {}
                None => links.push(format!("{}:{alias}", self.usual_name(name))),
            }
        }
        for link in &service.external_links {
            let (name, alias) = link.split_once(':').unwrap_or((link, link));
            links.push(format!("{name}:{alias}"));
        }
        links
    }

    /// The name that Compose gives a service's first container.
    fn usual_name(&self, service: &str) -> String {
        let named = self.desired.compose.services.get(service);
        named
            .and_then(|service| service.container_name.clone())
            .unwrap_or_else(|| format!("{}-{service}-1", self.desired.project))
    }

    pub(super) fn network_mode(
        &self,
        endpoints: &[(String, EndpointSettings)],
    ) -> Result<String, Unfit> {
        match &self.service().network_mode {
            Some(mode) => self.mode("network_mode", mode),
            None => Ok(endpoints.first().map_or("none", |(name, _)| name).to_owned()),
        }
    }

    /// `service:NAME` to `container:…`; everything else as it is.
    pub(super) fn mode(&self, attribute: &str, mode: &str) -> Result<String, Unfit> {
        match mode.strip_prefix("service:") {
            Some(service) => Ok(format!("container:{}", self.required_peer(attribute, service)?)),
            None => Ok(mode.to_owned()),
        }
    }

    pub(super) fn required_peer(&self, attribute: &str, service: &str) -> Result<String, Unfit> {
        let missing = || format!("`{attribute}` needs a container of service `{service}`");
        (self.peer)(service).ok_or_else(missing)
    }

    pub(super) fn port_bindings(&self) -> Option<PortMap> {
        let mut bindings = PortMap::new();
        for port in self.publish {
            let key = format!("{}/{}", port.container_port, port.protocol);
            let entry = bindings.entry(key).or_default().get_or_insert_default();
            entry.push(PortBinding {
                host_ip: port.host_address.map(|address| address.to_string()),
                host_port: Some(match port.host_port {
                    0 => String::new(),
                    fixed => fixed.to_string(),
                }),
            });
        }
        (!bindings.is_empty()).then_some(bindings)
    }
}

/// A list, unless it is empty.
pub(super) fn filled(list: &[String]) -> Option<Vec<String>> {
    (!list.is_empty()).then(|| list.to_vec())
}
