//! Name holders: idle containers that carry services' names on their networks.

use std::collections::{BTreeMap, HashMap};

use bollard::errors::Error as DockerError;
use bollard::models::{
    ContainerCreateBody, EndpointSettings, HostConfig, NetworkConnectRequest, NetworkingConfig,
    RestartPolicy, RestartPolicyNameEnum,
};
use bollard::query_parameters::{CreateContainerOptionsBuilder, ListContainersOptionsBuilder};
use shiplap_engine::DockerEngine;
use shiplap_model::{
    Engine as _, HELD_SERVICES, HolderSpec, HolderStatus, OWNER, ROLE, RouterError,
};

use super::container::{engine, load};

/// Label with the names on each network, as JSON.
const HELD_NAMES: &str = "shiplap.held";
/// The role of a holder.
const NAMES_ROLE: &str = "names";

/// All holders of an owner, with their containers' ids, in order of name.
pub async fn list(
    docker: &DockerEngine,
    owner: Option<&str>,
) -> Result<Vec<(String, HolderStatus)>, RouterError> {
    let mut labels = vec![format!("{ROLE}={NAMES_ROLE}")];
    labels.extend(owner.map(|owner| format!("{OWNER}={owner}")));
    let filters = HashMap::from([("label".to_owned(), labels)]);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    let found = docker
        .raw()
        .list_containers(Some(options))
        .await
        .map_err(|error| engine("listing name holders", &error))?;
    let mut holders: Vec<(String, HolderStatus)> = found
        .into_iter()
        .filter_map(|container| {
            let labels = container.labels?;
            let name = container.names?.into_iter().next()?;
            let spec = HolderSpec {
                name: name.trim_start_matches('/').to_owned(),
                owner: labels.get(OWNER)?.clone(),
                services: labels.get(HELD_SERVICES)?.split(',').map(str::to_owned).collect(),
                networks: serde_json::from_str(labels.get(HELD_NAMES)?).ok()?,
            };
            let running = container.state.is_some_and(|state| state.to_string() == "running");
            Some((container.id?, HolderStatus { spec, running, pools: Vec::new() }))
        })
        .collect();
    holders.sort_by(|a, b| a.1.spec.name.cmp(&b.1.spec.name));
    Ok(holders)
}

/// Makes and starts a holder; one that is there is started.
pub async fn ensure(docker: &DockerEngine, spec: &HolderSpec) -> Result<(), RouterError> {
    let image = load(docker).await?;
    let raw = docker.raw();
    let mut networks = spec.networks.iter();
    let first = networks.next();
    let options = CreateContainerOptionsBuilder::default().name(&spec.name).build();
    let created = raw.create_container(Some(options), body(spec, &image.tag, first)).await;
    let attached = match created {
        Ok(_) => BTreeMap::new(),
        // Whoever made it may have been stopped before it was on all of its networks.
        Err(DockerError::DockerResponseServerError { status_code: 409, .. }) => {
            docker.container(&spec.name).await?.map(|found| found.networks).unwrap_or_default()
        }
        Err(error) => return Err(engine(&format!("creating {}", spec.name), &error).into()),
    };
    for (network, names) in networks.filter(|(network, _)| !attached.contains_key(*network)) {
        let request = NetworkConnectRequest {
            container: spec.name.clone(),
            endpoint_config: Some(endpoint(names)),
        };
        raw.connect_network(network, request)
            .await
            .map_err(|error| engine(&format!("connecting {}", spec.name), &error))?;
    }
    Ok(docker.start(&spec.name).await?)
}

fn body(
    spec: &HolderSpec,
    image: &str,
    first: Option<(&String, &Vec<String>)>,
) -> ContainerCreateBody {
    let names = serde_json::to_string(&spec.networks).expect("maps of strings are JSON");
    let labels = [
        (ROLE, NAMES_ROLE.to_owned()),
        (OWNER, spec.owner.clone()),
        (HELD_SERVICES, spec.services.join(",")),
        (HELD_NAMES, names),
    ];
    let endpoints = first.map(|(network, names)| (network.clone(), endpoint(names)));
    ContainerCreateBody {
        image: Some(image.to_owned()),
        cmd: Some(vec!["edge".to_owned(), "hold-names".to_owned()]),
        user: Some("65534:65534".to_owned()),
        labels: Some(labels.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()),
        // Nothing to finish, and the first process of a container does not hear SIGTERM unasked.
        stop_signal: Some("SIGKILL".to_owned()),
        networking_config: Some(NetworkingConfig {
            endpoints_config: Some(endpoints.into_iter().collect()),
        }),
        host_config: Some(HostConfig {
            network_mode: first.map(|(network, _)| network.clone()),
            readonly_rootfs: Some(true),
            cap_drop: Some(vec!["ALL".to_owned()]),
            security_opt: Some(vec!["no-new-privileges".to_owned()]),
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::ALWAYS),
                maximum_retry_count: None,
            }),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

fn endpoint(names: &[String]) -> EndpointSettings {
    EndpointSettings { aliases: Some(names.to_vec()), ..EndpointSettings::default() }
}
