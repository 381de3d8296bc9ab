//! Networks and volumes.

use serde_json::{Map, Value, json};
use shiplap_compose::model::Network;
use shiplap_model::{EngineError, EngineErrorKind, EngineNetwork, EngineVolume};

use crate::client::{Call, encoded};
use crate::daemon::ApiVersion;
use crate::engine::DockerEngine;
use crate::observe::found;

impl DockerEngine {
    pub(crate) async fn make_network(&self, network: &EngineNetwork) -> Result<(), EngineError> {
        let api = self.api().await?;
        let doing = || format!("creating network {}", network.name);
        if !self.network_ids(&network.name).await?.is_empty() {
            return Ok(());
        }
        let call = Call::post("/networks/create").json(&network_body(network, api));
        match self.client.fetch(call, doing).await {
            Ok(_) => self.keep_one_network(&network.name).await,
            // Somebody made it between our look and our request.
            Err(error) if error.kind == EngineErrorKind::Conflict => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Two requests at the same time make two networks of one name, even where the engine checks
    /// for duplicates. Whoever sees both removes one of them: the one with the higher id, so that
    /// all agree, unless something is attached to it already.
    async fn keep_one_network(&self, name: &str) -> Result<(), EngineError> {
        let ids = self.network_ids(name).await?;
        for surplus in ids.iter().skip(1) {
            match self.drop_network_id(surplus, name).await {
                Err(error) if error.kind == EngineErrorKind::Conflict => {
                    self.drop_network_id(&ids[0], name).await?;
                }
                other => other?,
            }
        }
        Ok(())
    }

    async fn drop_network_id(&self, id: &str, name: &str) -> Result<(), EngineError> {
        let call = Call::delete(format!("/networks/{id}"));
        let doing = || format!("removing network {name}");
        found(self.client.send(call, doing).await).map(drop)
    }

    /// Ids of all networks of exactly this name, in order.
    async fn network_ids(&self, name: &str) -> Result<Vec<String>, EngineError> {
        // The filter matches parts of names, too.
        let filter = json!({"name": [name]}).to_string();
        let call = Call::get("/networks").query("filters", &filter);
        let all = self.client.fetch(call, || format!("looking for network {name}")).await?;
        let mut ids: Vec<String> = all
            .as_array()
            .into_iter()
            .flatten()
            .filter(|network| network["Name"] == name)
            .filter_map(|network| network["Id"].as_str().map(str::to_owned))
            .collect();
        ids.sort_unstable();
        Ok(ids)
    }

    pub(crate) async fn drop_network(&self, name: &str) -> Result<(), EngineError> {
        self.api().await?;
        for id in self.network_ids(name).await? {
            self.drop_network_id(&id, name).await?;
        }
        Ok(())
    }

    pub(crate) async fn make_volume(&self, volume: &EngineVolume) -> Result<(), EngineError> {
        self.api().await?;
        let mut labels = table(&volume.spec.labels);
        labels.extend(volume.labels.iter().map(|(n, v)| (n.clone(), json!(v))));
        let mut body = json!({
            "Name": volume.name,
            "DriverOpts": table(&volume.spec.driver_opts),
            "Labels": labels,
        });
        if let Some(driver) = &volume.spec.driver {
            body["Driver"] = driver.as_str().into();
        }
        // The engine treats an existing volume of the name as success by itself.
        let call = Call::post("/volumes/create").json(&body);
        let doing = || format!("creating volume {}", volume.name);
        self.client.send(call, doing).await.map(drop)
    }

    pub(crate) async fn drop_volume(&self, name: &str) -> Result<(), EngineError> {
        self.api().await?;
        let call = Call::delete(format!("/volumes/{}", encoded(name)));
        let doing = || format!("removing volume {name}");
        found(self.client.send(call, doing).await).map(drop)
    }
}

fn table(map: &shiplap_compose::model::Map<String>) -> Map<String, Value> {
    map.iter().map(|(name, value)| (name.clone(), json!(value))).collect()
}

fn network_body(network: &EngineNetwork, api: ApiVersion) -> Value {
    let spec: &Network = &network.spec;
    let mut labels = table(&spec.labels);
    labels.extend(network.labels.iter().map(|(n, v)| (n.clone(), json!(v))));
    let mut body = json!({
        "Name": network.name,
        // Engines before API 1.44 only refuse a second network of the name when asked to.
        "CheckDuplicate": true,
        "Internal": spec.internal,
        "Attachable": spec.attachable,
        "Options": table(&spec.driver_opts),
        "Labels": labels,
        "EnableIPv6": spec.enable_ipv6.unwrap_or(false),
    });
    if let Some(driver) = &spec.driver {
        body["Driver"] = driver.as_str().into();
    }
    if let Some(ipv4) = spec.enable_ipv4.filter(|_| api >= ApiVersion(48)) {
        body["EnableIPv4"] = ipv4.into();
    }
    if let Some(ipam) = &spec.ipam {
        let pools: Vec<Value> = ipam
            .config
            .iter()
            .map(|pool| {
                let parts = [
                    ("Subnet", &pool.subnet),
                    ("IPRange", &pool.ip_range),
                    ("Gateway", &pool.gateway),
                ];
                let mut out: Map<String, Value> = parts
                    .into_iter()
                    .filter_map(|(key, value)| Some((key.to_owned(), json!(value.as_ref()?))))
                    .collect();
                if !pool.aux_addresses.is_empty() {
                    out.insert("AuxiliaryAddresses".into(), table(&pool.aux_addresses).into());
                }
                Value::Object(out)
            })
            .collect();
        if ipam.driver.is_some() || !pools.is_empty() || !ipam.options.is_empty() {
            body["IPAM"] = json!({
                "Driver": ipam.driver.as_deref().unwrap_or("default"),
                "Config": pools,
                "Options": table(&ipam.options),
            });
        }
    }
    body
}
