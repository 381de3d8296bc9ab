//! Networks and volumes.

use serde_json::{Map, Value, json};
use shiplap_compose::model::Network;
use shiplap_model::{EngineError, EngineErrorKind, EngineNetwork, EngineVolume};

use crate::client::{Call, SHORT_LIMIT, encoded};
use crate::daemon::ApiVersion;
use crate::engine::DockerEngine;
use crate::observe::found;

impl DockerEngine {
    pub(crate) async fn make_network(&self, network: &EngineNetwork) -> Result<(), EngineError> {
        let api = self.daemon().await?.api;
        let doing = || format!("creating network {}", network.name);
        if self.network_ids(&network.name).await?.is_some_and(|ids| !ids.is_empty()) {
            return Ok(());
        }
        let call = Call::post("/networks/create").json(&network_body(network, api));
        match self.client.fetch(call, doing).await {
            Ok(made) => self.keep_one_network(&network.name, &made["Id"]).await,
            // Somebody made it between our look and our request.
            Err(error) if error.kind == EngineErrorKind::Conflict => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Engines accept several networks of one name. If two of us made one each, the one with the
    /// lower id stays: all come to the same result, whoever looks first.
    async fn keep_one_network(&self, name: &str, own: &Value) -> Result<(), EngineError> {
        let ids = self.network_ids(name).await?.unwrap_or_default();
        let own = own.as_str().unwrap_or_default();
        if ids.first().is_some_and(|first| first != own) && ids.iter().any(|id| id == own) {
            let call = Call::delete(format!("/networks/{own}"));
            let doing = || format!("removing the second network {name}");
            found(self.client.send(call, SHORT_LIMIT, doing).await)?;
        }
        Ok(())
    }

    /// Ids of all networks of exactly this name, in order.
    async fn network_ids(&self, name: &str) -> Result<Option<Vec<String>>, EngineError> {
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
        Ok(Some(ids))
    }

    pub(crate) async fn drop_network(&self, name: &str) -> Result<(), EngineError> {
        self.daemon().await?;
        for id in self.network_ids(name).await?.unwrap_or_default() {
            let call = Call::delete(format!("/networks/{id}"));
            let doing = || format!("removing network {name}");
            found(self.client.send(call, SHORT_LIMIT, doing).await)?;
        }
        Ok(())
    }

    pub(crate) async fn make_volume(&self, volume: &EngineVolume) -> Result<(), EngineError> {
        self.daemon().await?;
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
        self.client.send(call, SHORT_LIMIT, doing).await.map(drop)
    }

    pub(crate) async fn drop_volume(&self, name: &str) -> Result<(), EngineError> {
        self.daemon().await?;
        let call = Call::delete(format!("/volumes/{}", encoded(name)));
        let doing = || format!("removing volume {name}");
        found(self.client.send(call, SHORT_LIMIT, doing).await).map(drop)
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
