//! Looking at everything that concerns a project.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, future, stream};
use serde_json::{Value, json};
use shiplap_compose::model::Project;
use shiplap_model::{
    COMPOSE_ONEOFF, COMPOSE_PROJECT, Desired, EngineError, EngineErrorKind, FIELDS, Fields, Names,
    Observed, ObservedContainer, ObservedNetwork, ObservedVolume, ServiceSpec,
};

use crate::client::{Call, encoded};
use crate::containers::Lasting;
use crate::create::Conversion;
use crate::daemon::Daemon;
use crate::engine::DockerEngine;
use crate::facts::{Peer, SERVICE_MARK, Side, with_image_defaults};
use crate::inspect::{self, Directory};
use crate::{images, registry};

/// Questions asked at once. More do not make an engine faster.
const PARALLEL: usize = 16;

impl DockerEngine {
    pub(crate) async fn observe_project(
        &self,
        project: &str,
        compose: Option<&Project>,
    ) -> Result<Observed, EngineError> {
        self.api().await?;
        let doing = || format!("looking at project {project}");
        let list = Call::get("/containers/json").query("all", "1");
        let (all, networks, volumes) = future::try_join3(
            self.client.fetch(list, doing),
            self.networks(project, compose),
            self.volumes(project, compose),
        )
        .await?;
        let mut observed = Observed { networks, volumes, ..Default::default() };
        let mut directory = Directory::default();
        let mut ids = Vec::new();
        for summary in all.as_array().into_iter().flatten() {
            let id = summary["Id"].as_str().unwrap_or_default();
            let labels = &summary["Labels"];
            let name = summary_name(summary);
            directory.add(id, name, labels);
            if labels[COMPOSE_PROJECT] != project {
                observed.foreign_names.insert(name.to_owned());
                foreign_ports(summary, name, &mut observed);
            } else if labels[COMPOSE_ONEOFF] != "True" {
                ids.push(id.to_owned());
            }
        }
        let inspected: Vec<Option<Value>> = stream::iter(ids)
            .map(|id| self.inspect_container(id))
            .buffer_unordered(PARALLEL)
            .try_collect()
            .await?;
        // A container may go away between the list and the look at it.
        let inspected: Vec<Value> = inspected.into_iter().flatten().collect();
        let image_ids: BTreeSet<String> =
            inspected.iter().filter_map(|i| i["Image"].as_str().map(str::to_owned)).collect();
        let found: Vec<(String, Option<(_, Arc<Value>)>)> = stream::iter(image_ids)
            .map(|id| async move {
                let image = self.inspect_image_with_config(&id).await?;
                Ok::<_, EngineError>((id, image))
            })
            .buffer_unordered(PARALLEL)
            .try_collect()
            .await?;
        let mut configs: HashMap<String, Arc<Value>> = HashMap::new();
        for (id, image) in found {
            if let Some((info, config)) = image {
                configs.insert(id.clone(), config);
                observed.images.insert(id, info);
            }
        }
        let daemon = &self.daemon_for(&inspected).await?;
        observed.containers = inspected
            .iter()
            .map(|inspect| {
                let image = inspect["Image"].as_str().and_then(|id| configs.get(id));
                let image = image.map_or(&Value::Null, |config| &**config);
                inspect::container(inspect, image, project, &directory, daemon)
            })
            .collect();
        observed.containers.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(observed)
    }

    /// One container, with whatever its configuration refers to.
    pub(crate) async fn observe_container(
        &self,
        container: &str,
    ) -> Result<Option<ObservedContainer>, EngineError> {
        let Some(inspected) = self.inspect_container(container.to_owned()).await? else {
            return Ok(None);
        };
        let mut directory = Directory::default();
        for peer in inspect::referenced(&inspected) {
            if let Some(peer) = self.inspect_container(peer).await? {
                let name = peer["Name"].as_str().unwrap_or_default().trim_start_matches('/');
                let id = peer["Id"].as_str().unwrap_or_default();
                directory.add(id, name, &peer["Config"]["Labels"]);
            }
        }
        let image_id = inspected["Image"].as_str().unwrap_or_default();
        let image = match self.remembered_image(image_id) {
            Some(config) => Some(config),
            None => self.inspect_image_with_config(image_id).await?.map(|(_, config)| config),
        };
        let project = inspected["Config"]["Labels"][COMPOSE_PROJECT].as_str().unwrap_or_default();
        let image = image.unwrap_or_default();
        let daemon = self.daemon_for(std::slice::from_ref(&inspected)).await?;
        Ok(Some(inspect::container(&inspected, &image, project, &directory, &daemon)))
    }

    /// Who the engine is, asked for only where it matters: to tell what it has filled in itself
    /// in containers that somebody else made. Ours carry digests of their fields.
    async fn daemon_for(&self, inspected: &[Value]) -> Result<Daemon, EngineError> {
        let is_ours = |inspect: &Value| inspect["Config"]["Labels"][FIELDS].is_string();
        if inspected.iter().all(is_ours) {
            return Ok(self.known_daemon());
        }
        self.daemon().await.cloned()
    }

    /// The engine's description of a container, by id or name.
    pub(crate) async fn inspect_container(
        &self,
        container: String,
    ) -> Result<Option<Value>, EngineError> {
        let call = Call::get(format!("/containers/{}/json", encoded(&container)));
        let inspected = found(self.client.fetch(call, || format!("looking at {container}")).await)?;
        if let Some(inspected) = &inspected
            && let Some(id) = inspected["Id"].as_str()
        {
            self.remember_container(id, Lasting::of(inspected));
        }
        Ok(inspected)
    }

    async fn networks(
        &self,
        project: &str,
        compose: Option<&Project>,
    ) -> Result<BTreeMap<String, ObservedNetwork>, EngineError> {
        let named: BTreeSet<&str> = compose
            .iter()
            .flat_map(|compose| compose.networks.values())
            .filter_map(|network| network.name.as_deref())
            .collect();
        let all = self.client.fetch(Call::get("/networks"), || "listing networks".into()).await?;
        let mut out = BTreeMap::new();
        for network in all.as_array().into_iter().flatten() {
            let name = network["Name"].as_str().unwrap_or_default();
            let owner = network["Labels"][COMPOSE_PROJECT].as_str();
            if owner != Some(project) && !named.contains(name) {
                continue;
            }
            let pools = network["IPAM"]["Config"].as_array().into_iter().flatten();
            let seen = ObservedNetwork {
                id: network["Id"].as_str().unwrap_or_default().to_owned(),
                subnets: pools
                    .filter_map(|pool| pool["Subnet"].as_str().map(str::to_owned))
                    .collect(),
                project: owner.map(str::to_owned),
                driver: network["Driver"].as_str().unwrap_or_default().to_owned(),
                internal: network["Internal"] == true,
            };
            out.insert(name.to_owned(), seen);
        }
        Ok(out)
    }

    async fn volumes(
        &self,
        project: &str,
        compose: Option<&Project>,
    ) -> Result<BTreeMap<String, ObservedVolume>, EngineError> {
        let filter = json!({"label": [format!("{COMPOSE_PROJECT}={project}")]});
        let call = Call::get("/volumes").query("filters", &filter.to_string());
        let own = self.client.fetch(call, || "listing volumes".into());
        let named = compose.iter().flat_map(|compose| compose.volumes.values());
        let named: BTreeSet<String> = named.filter_map(|volume| volume.name.clone()).collect();
        let named = stream::iter(named)
            .map(|name| async move {
                let call = Call::get(format!("/volumes/{}", encoded(&name)));
                found(self.client.fetch(call, || format!("looking at volume {name}")).await)
            })
            .buffer_unordered(PARALLEL)
            .try_collect::<Vec<Option<Value>>>();
        let (own, named) = future::try_join(own, named).await?;
        let own = own["Volumes"].as_array().cloned().unwrap_or_default();
        let mut out = BTreeMap::new();
        for volume in own.into_iter().chain(named.into_iter().flatten()) {
            let name = volume["Name"].as_str().unwrap_or_default().to_owned();
            let seen = ObservedVolume {
                project: volume["Labels"][COMPOSE_PROJECT].as_str().map(str::to_owned),
                driver: volume["Driver"].as_str().unwrap_or_default().to_owned(),
            };
            out.insert(name, seen);
        }
        Ok(out)
    }

    /// Facts of a container that this service would get.
    pub(crate) fn desired_facts(&self, desired: &Desired, spec: &ServiceSpec) -> Fields {
        let daemon = self.known_daemon();
        let peer = |service: &str| Some(format!("{SERVICE_MARK}{service}"));
        let profiles = registry::seccomp_profiles(desired, &spec.service).unwrap_or_default();
        let conversion = Conversion {
            desired,
            spec,
            labels: &BTreeMap::new(),
            base_name: "",
            names: Names::Own,
            anonymous_volumes: &BTreeMap::new(),
            publish: &[],
            peer: &peer,
            profiles: &profiles,
            proxies: &registry::proxies(self.endpoint()),
            api: self.known_api(),
        };
        // What cannot become a container has no facts; making it will say why.
        let Ok(request) = conversion.run() else { return Fields::new() };
        let body = request.body("");
        let image = match (&spec.image.id, &spec.image.info) {
            (Some(id), info) => self
                .remembered_image(id)
                .or_else(|| info.as_ref().map(|info| Arc::new(images::partial_config(info)))),
            (None, info) => info.as_ref().map(|info| Arc::new(images::partial_config(info))),
        };
        let image = image.unwrap_or_default();
        let mut networks = body["NetworkingConfig"]["EndpointsConfig"].clone();
        for (network, endpoint) in &request.connect {
            networks[network] = serde_json::to_value(endpoint).expect("plain data serialises");
        }
        Side {
            config: &with_image_defaults(&body, &image),
            host: &body["HostConfig"],
            networks: &networks,
            image: &image,
            id: "",
            name: "",
            project: &desired.project,
            service: &spec.name,
            daemon: &daemon,
            peer: &|container| match container.strip_prefix(SERVICE_MARK) {
                Some(service) => Peer::Service(service.to_owned()),
                None => Peer::Stranger(container.to_owned()),
            },
        }
        .facts()
    }
}

/// Nothing instead of the error that there is nothing.
pub(crate) fn found<T>(result: Result<T, EngineError>) -> Result<Option<T>, EngineError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind == EngineErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A container's own name. On the default bridge a link adds names such as `/web/db`.
fn summary_name(summary: &Value) -> &str {
    let names = summary["Names"].as_array().into_iter().flatten().filter_map(Value::as_str);
    names
        .map(|name| name.trim_start_matches('/'))
        .find(|name| !name.contains('/'))
        .unwrap_or_default()
}

fn foreign_ports(summary: &Value, name: &str, observed: &mut Observed) {
    for port in summary["Ports"].as_array().into_iter().flatten() {
        let Some(public) = port["PublicPort"].as_u64().and_then(|p| u16::try_from(p).ok()) else {
            continue;
        };
        let protocol = match port["Type"].as_str() {
            Some("udp") => "udp",
            Some("sctp") => "sctp",
            _ => "tcp",
        };
        let address = port["IP"].as_str().and_then(inspect::specific_address);
        observed.foreign_ports.insert((address, public, protocol), name.to_owned());
    }
}
