//! Facts about networks, and about other containers.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use shiplap_model::Fields;

use super::{Peer, Side, entries, is_blank, put, set, sorted, strings};

/// Where a container's name begins in a mode.
pub(super) const CONTAINER_MODE: &str = "container:";

impl Side<'_> {
    pub(super) fn modes(&self, fields: &mut Fields) {
        let host = self.host;
        let ipc = host["IpcMode"].as_str().unwrap_or_default();
        if !matches!(ipc, "" | "private") {
            fields.set("ipc", self.named(ipc));
        }
        let pid = host["PidMode"].as_str().unwrap_or_default();
        if !pid.is_empty() {
            fields.set("pid", self.named(pid));
        }
        let cgroup = host["CgroupnsMode"].as_str().unwrap_or_default();
        // Without a word, a privileged container on cgroup v2 gets the default too.
        if !cgroup.is_empty() && cgroup != self.daemon.cgroupns {
            fields.set("cgroup", cgroup);
        }
        let isolation = host["Isolation"].as_str().unwrap_or_default();
        if !matches!(isolation, "" | "default") {
            fields.set("isolation", isolation);
        }
        let network = host["NetworkMode"].as_str().unwrap_or_default();
        match network {
            "default" | "bridge" => fields.set("network_mode", "bridge"),
            "host" | "none" => fields.set("network_mode", network),
            other if other.starts_with(CONTAINER_MODE) => {
                fields.set("network_mode", self.named(other));
            }
            _ => {}
        }
        let from = strings(&host["VolumesFrom"]).map(|from| {
            let (container, mode) = from.split_once(':').unwrap_or((from, "rw"));
            match (self.peer)(container) {
                // Compose loses the mode of a service's volumes on the way.
                Peer::Service(service) => json!(format!("service:{service}")),
                Peer::Stranger(name) if mode == "rw" => json!(format!("{CONTAINER_MODE}{name}")),
                Peer::Stranger(name) => json!(format!("{CONTAINER_MODE}{name}:{mode}")),
            }
        });
        put(fields, "volumes_from", &set(from));
    }

    /// `container:ID` to `service:NAME` or `container:NAME`; other modes as they are.
    fn named(&self, mode: &str) -> String {
        mode.strip_prefix(CONTAINER_MODE)
            .map_or_else(|| mode.to_owned(), |container| self.peer_name(container))
    }

    fn peer_name(&self, container: &str) -> String {
        match (self.peer)(container) {
            Peer::Service(service) => format!("service:{service}"),
            Peer::Stranger(name) => format!("{CONTAINER_MODE}{name}"),
        }
    }

    pub(super) fn attachments(&self, fields: &mut Fields) {
        let mut links = BTreeSet::new();
        let all = strings(&self.host["Links"])
            .chain(entries(self.networks).flat_map(|(_, endpoint)| strings(&endpoint["Links"])));
        for link in all {
            // The engine writes those of the default bridge as `/db:/web/alias`.
            let (container, alias) = link.split_once(':').unwrap_or((link, link));
            let alias = alias.rsplit('/').next().unwrap_or(alias);
            match (self.peer)(container.trim_start_matches('/')) {
                Peer::Service(service) if self.is_numbered(&service, alias) => {}
                Peer::Service(service) => _ = links.insert(format!("{service}:{alias}")),
                Peer::Stranger(name) => _ = links.insert(format!("{name}:{alias}")),
            }
        }
        put(fields, "links", &json!(links));
        for (network, endpoint) in entries(self.networks) {
            if matches!(network.as_str(), "bridge" | "host" | "none") {
                continue;
            }
            let aliases: BTreeSet<&str> = strings(&endpoint["Aliases"])
                .filter(|alias| {
                    let short_id = self.id.len() > 12 && self.id[..12] == **alias;
                    // Engines before API 1.44 add the host name to networks connected later.
                    let own = [self.service, self.name].contains(alias)
                        || self.config["Hostname"] == **alias;
                    !short_id && !own && !self.is_numbered(self.service, alias)
                })
                .collect();
            let ipam = &endpoint["IPAMConfig"];
            let parts = [
                ("aliases", json!(aliases)),
                ("ipv4_address", ipam["IPv4Address"].clone()),
                ("ipv6_address", ipam["IPv6Address"].clone()),
                ("link_local_ips", ipam["LinkLocalIPs"].clone()),
                ("driver_opts", endpoint["DriverOpts"].clone()),
                ("gw_priority", endpoint["GwPriority"].clone()),
            ];
            let parts = parts.into_iter().filter(|(_, value)| !is_blank(value));
            let value: Map<String, Value> =
                parts.map(|(name, value)| (name.to_owned(), value)).collect();
            fields.set(format!("networks.{network}"), sorted(value));
        }
    }

    /// Whether a name is one that Compose gives by itself: `db-1`, `shop-db-1`.
    fn is_numbered(&self, service: &str, name: &str) -> bool {
        let rest = name.strip_prefix(self.project).and_then(|rest| rest.strip_prefix('-'));
        [Some(name), rest].into_iter().flatten().any(|name| {
            let number = name.strip_prefix(service).and_then(|rest| rest.strip_prefix('-'));
            number.is_some_and(|n| !n.is_empty() && n.bytes().all(|byte| byte.is_ascii_digit()))
        })
    }
}
