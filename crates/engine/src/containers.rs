//! Containers: making, changing, asking, removing.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use shiplap_model::{
    AnonymousVolumes, CreateReplica, Created, DEPLOYMENT, Desired, EngineError, EngineErrorKind,
    GENERATION, ImagePin, InjectedFile, Limit, ServiceSpec,
};

use crate::client::{Call, Wait, encoded};
use crate::create::{Conversion, CreateRequest};
use crate::engine::DockerEngine;
use crate::error::{invalid, scrubbed, with_kind};
use crate::observe::found;
use crate::registry;

/// What the engine waits between the stop signal and the kill when nothing else is said.
const DEFAULT_GRACE: Duration = Duration::from_secs(10);
/// A health check's timeout when nothing else is said.
const DEFAULT_HEALTH_TIMEOUT: Duration = Duration::from_secs(30);

impl DockerEngine {
    pub(crate) async fn create_container(
        &self,
        desired: &Desired,
        replica: &CreateReplica,
    ) -> Result<Created, EngineError> {
        let doing = || format!("creating {} of {}", replica.name, replica.service);
        let spec = desired.services.get(&replica.service);
        let spec = spec.ok_or_else(|| invalid(doing(), "the project has no such service"))?;
        let made = self.create_with(desired, spec, replica, &doing).await;
        made.map_err(|error| scrubbed(error, secrets(spec)))
    }

    async fn create_with(
        &self,
        desired: &Desired,
        spec: &ServiceSpec,
        replica: &CreateReplica,
        doing: &(dyn Fn() -> String + Sync),
    ) -> Result<Created, EngineError> {
        let api = self.api().await?;
        let profiles = registry::seccomp_profiles(desired, &spec.service)
            .map_err(|message| invalid(doing(), message))?;
        let request = Conversion {
            desired,
            spec,
            labels: &replica.labels,
            base_name: &replica.base_name,
            names: replica.names,
            anonymous_volumes: &replica.anonymous_volumes,
            publish: &replica.publish,
            peer: &|service| replica.peers.get(service).cloned(),
            profiles: &profiles,
            proxies: &registry::proxies(self.endpoint()),
            api,
        }
        .run()
        .map_err(|message| invalid(doing(), message))?;
        if spec.service.read_only && !spec.files.is_empty() {
            let error = invalid(doing(), "files cannot be put into a `read_only` container");
            let help =
                "give the secret or config as `file:` instead of `environment:` or `content:`";
            return Err(EngineError { help: Some(help.into()), ..error });
        }
        self.supplied(spec).await?;
        let (image, image_id) = self.image_for(&spec.image, doing).await?;
        let body = request.body(&image);
        let post = || {
            let mut call = Call::post("/containers/create").query("name", &replica.name);
            if let Some(platform) = &spec.service.platform {
                call = call.query("platform", platform);
            }
            self.client.fetch(call.json(&body), doing)
        };
        let mut answer = post().await;
        if let Err(conflict) = &answer
            && conflict.kind == EngineErrorKind::Conflict
            && self.clears_leftover(replica, &image_id).await?
        {
            answer = post().await;
        }
        let created = match answer {
            Ok(answer) => Created::Made(answer["Id"].as_str().unwrap_or_default().to_owned()),
            Err(error) if error.kind == EngineErrorKind::Conflict => {
                let existing = self.same_container(replica, &image_id, error).await?;
                let found = Created::Found(existing.id);
                if existing.has_run {
                    return Ok(found);
                }
                found
            }
            Err(error) => return Err(error),
        };
        self.finish(created.id(), &request, &spec.files, &image_id, doing).await?;
        Ok(created)
    }

    /// Removes what has the name, if it is what is asked for, was made under another lease and has
    /// never run. Returns whether it did.
    async fn clears_leftover(
        &self,
        replica: &CreateReplica,
        image_id: &str,
    ) -> Result<bool, EngineError> {
        let Some(existing) = self.inspect_container(replica.name.clone()).await? else {
            return Ok(false);
        };
        let existing = Existing::of(&existing, replica, image_id);
        let Some(existing) = existing.filter(|found| !found.has_run && !found.is_of_this_lease)
        else {
            return Ok(false);
        };
        // By its id: whoever made it may remove it at the same time, and somebody make another one.
        self.remove_container(&existing.id, AnonymousVolumes::Remove).await?;
        Ok(true)
    }

    /// All that a fresh container needs beyond the create request. Safe to repeat.
    async fn finish(
        &self,
        id: &str,
        request: &CreateRequest,
        files: &[InjectedFile],
        image_id: &str,
        doing: &(dyn Fn() -> String + Sync),
    ) -> Result<(), EngineError> {
        let inspected = self.inspect_container(id.to_owned()).await?.unwrap_or_default();
        // A tag can move between our look at it and the engine's.
        if inspected["Image"] != image_id {
            self.remove_container(id, AnonymousVolumes::Remove).await?;
            let message = "its image was replaced meanwhile; trying again is safe";
            return Err(with_kind(EngineErrorKind::Conflict, doing(), message));
        }
        let attached = &inspected["NetworkSettings"]["Networks"];
        for (network, endpoint) in &request.connect {
            if attached.get(network).is_none() {
                let call = Call::post(format!("/networks/{}/connect", encoded(network)))
                    .json(&json!({"Container": id, "EndpointConfig": endpoint}));
                let doing = || format!("{}: connecting to network {network}", doing());
                self.client.send(call, doing).await?;
            }
        }
        if !files.is_empty() {
            let call = Call::new(http::Method::PUT, format!("/containers/{id}/archive"))
                .query("path", "/")
                .tar(archive(files));
            let doing = || format!("{}: putting files into it", doing());
            self.client.send(call, doing).await?;
        }
        Ok(())
    }

    /// The name to create from, and the id that the container must then have: the tag as long as
    /// it means the pinned image, so that `docker ps` shows it, else what pins it.
    async fn image_for(
        &self,
        pin: &ImagePin,
        doing: &(dyn Fn() -> String + Sync),
    ) -> Result<(String, String), EngineError> {
        let names = [Some(pin.reference.clone()), pin.by_digest(), pin.id.clone()];
        for name in names.into_iter().flatten() {
            if let Some(info) = self.inspect_image(&name).await?
                && pin.is(&info.id, &info.repo_digests)
            {
                return Ok((name, info.id));
            }
        }
        let message = format!("the engine does not have image {} ({})", pin.reference, pin.short());
        Err(with_kind(EngineErrorKind::NotFound, doing(), message))
    }

    /// The container that already has the name, if it is the one that was asked for.
    async fn same_container(
        &self,
        replica: &CreateReplica,
        image_id: &str,
        conflict: EngineError,
    ) -> Result<Existing, EngineError> {
        let Some(existing) = self.inspect_container(replica.name.clone()).await? else {
            return Err(conflict);
        };
        if let Some(existing) = Existing::of(&existing, replica, image_id) {
            return Ok(existing);
        }
        let message = format!("another container has the name {}", replica.name);
        let help =
            Some(format!("docker inspect {0}; if nobody needs it: docker rm {0}", replica.name));
        Err(EngineError { message, help, ..conflict })
    }

    pub(crate) async fn start_container(&self, container: &str) -> Result<(), EngineError> {
        let call = self.act(container, "start").await?;
        let doing = || format!("starting {container}");
        self.client.send_within(call, self.client.wait(Limit::Start), doing).await.map(drop)
    }

    pub(crate) async fn stop_container(
        &self,
        container: &str,
        grace: Option<Duration>,
    ) -> Result<(), EngineError> {
        let (call, wait) = self.stopping(container, "stop", grace).await?;
        self.client.send_within(call, wait, || format!("stopping {container}")).await.map(drop)
    }

    pub(crate) async fn restart_container(
        &self,
        container: &str,
        grace: Option<Duration>,
    ) -> Result<(), EngineError> {
        let (call, wait) = self.stopping(container, "restart", grace).await?;
        let wait = wait + self.client.wait(Limit::Start).time;
        let doing = || format!("restarting {container}");
        self.client.send_within(call, wait, doing).await.map(drop)
    }

    async fn stopping(
        &self,
        container: &str,
        verb: &str,
        grace: Option<Duration>,
    ) -> Result<(Call, Wait), EngineError> {
        let call = self.act(container, verb).await?;
        let wait = self.client.wait(Limit::Stop);
        let Some(grace) = grace else {
            let own = self.lasting(container).await?.and_then(|known| known.grace);
            return Ok((call, wait + own.unwrap_or(DEFAULT_GRACE)));
        };
        // The engine counts whole seconds; a part of one is rounded up, never to a kill at once.
        let seconds = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
        Ok((call.query("t", &seconds.to_string()), wait + grace))
    }

    pub(crate) async fn pause_container(&self, container: &str) -> Result<(), EngineError> {
        let call = self.act(container, "pause").await?;
        let sent = self.client.send(call, || format!("freezing {container}")).await;
        self.unless(sent, container, |state| state["Paused"] == true).await
    }

    pub(crate) async fn unpause_container(&self, container: &str) -> Result<(), EngineError> {
        let call = self.act(container, "unpause").await?;
        let sent = self.client.send(call, || format!("thawing {container}")).await;
        let runs = |state: &Value| state["Running"] == true && state["Paused"] == false;
        self.unless(sent, container, runs).await
    }

    /// Success also where the engine refused because things already are as wanted.
    async fn unless(
        &self,
        sent: Result<Bytes, EngineError>,
        container: &str,
        is_done: impl Fn(&Value) -> bool,
    ) -> Result<(), EngineError> {
        let Err(error) = sent else { return Ok(()) };
        match self.inspect_container(container.to_owned()).await {
            Ok(Some(inspected)) if is_done(&inspected["State"]) => Ok(()),
            // An engine calls it its own fault when what it should thaw does not run.
            Ok(Some(inspected)) if inspected["State"]["Running"] == false => {
                Err(EngineError { kind: EngineErrorKind::Conflict, ..error })
            }
            _ => Err(error),
        }
    }

    pub(crate) async fn rename_container(
        &self,
        container: &str,
        name: &str,
    ) -> Result<(), EngineError> {
        let call = self.act(container, "rename").await?.query("name", name);
        let doing = || format!("renaming {container} to {name}");
        let Err(error) = self.client.send(call, doing).await else { return Ok(()) };
        let named = self.inspect_container(name.to_owned()).await?;
        let id = |i: &Value| i["Id"].as_str().unwrap_or_default().to_owned();
        let Some(named) = named.filter(|i| i["Name"].as_str() == Some(&format!("/{name}"))) else {
            return Err(error);
        };
        match self.inspect_container(container.to_owned()).await? {
            // Renamed already, and nothing is left under the old name.
            None => Ok(()),
            Some(asked) if id(&asked) == id(&named) => Ok(()),
            Some(_) => {
                let message = format!("another container has the name {name}");
                Err(EngineError { kind: EngineErrorKind::Conflict, message, ..error })
            }
        }
    }

    /// Sets the restart policy of a container; one that is gone needs none.
    pub(crate) async fn set_restart_policy(
        &self,
        container: &str,
        policy: &str,
    ) -> Result<(), EngineError> {
        let (name, attempts) = policy.split_once(':').unwrap_or((policy, "0"));
        let attempts: i64 = attempts.parse().unwrap_or(0);
        let policy = json!({"Name": name, "MaximumRetryCount": attempts});
        let call = self.act(container, "update").await?.json(&json!({"RestartPolicy": policy}));
        let doing = || format!("setting the restart policy of {container}");
        found(self.client.send(call, doing).await).map(drop)
    }

    pub(crate) async fn remove_container(
        &self,
        container: &str,
        anonymous_volumes: AnonymousVolumes,
    ) -> Result<(), EngineError> {
        self.api().await?;
        let volumes = match anonymous_volumes {
            AnonymousVolumes::Keep => "0",
            AnonymousVolumes::Remove => "1",
        };
        let call = Call::delete(format!("/containers/{}", encoded(container)))
            .query("force", "1")
            .query("v", volumes);
        let doing = || format!("removing {container}");
        let removed =
            found(self.client.send_within(call, self.client.wait(Limit::Start), doing).await);
        match removed {
            // Somebody else is at it, which comes to the same.
            Err(error) if error.message.contains("is already in progress") => Ok(()),
            other => other.map(drop),
        }
    }

    pub(crate) async fn container_healthcheck(
        &self,
        container: &str,
    ) -> Result<Option<(Vec<String>, Duration)>, EngineError> {
        self.api().await?;
        let Some(known) = self.lasting(container).await? else {
            let doing = format!("asking for the health check of {container}");
            return Err(with_kind(EngineErrorKind::NotFound, doing, "no such container"));
        };
        Ok(known.health)
    }

    /// What stays as it is while a container exists; asked for if its id is not known yet.
    async fn lasting(&self, container: &str) -> Result<Option<Lasting>, EngineError> {
        if let Some(known) = self.remembered_container(container) {
            return Ok(Some(known));
        }
        let inspected = self.inspect_container(container.to_owned()).await?;
        Ok(inspected.map(|inspected| Lasting::of(&inspected)))
    }

    async fn act(&self, container: &str, verb: &str) -> Result<Call, EngineError> {
        self.api().await?;
        Ok(Call::post(format!("/containers/{}/{verb}", encoded(container))))
    }
}

/// A container that has a name already and is the one that was asked for.
struct Existing {
    id: String,
    /// Whether it was started at any time.
    has_run: bool,
    /// Whether it was made under the lease under which it is asked for.
    is_of_this_lease: bool,
}

impl Existing {
    /// From the engine's description; `None` if it is another one.
    fn of(inspected: &Value, replica: &CreateReplica, image_id: &str) -> Option<Self> {
        let labels = &inspected["Config"]["Labels"];
        let is = |name: &str| replica.labels.get(name).map(String::as_str) == labels[name].as_str();
        let mut of_compose =
            replica.labels.keys().filter(|name| name.starts_with("com.docker.compose."));
        let made_by_us = replica.labels.contains_key(DEPLOYMENT) && is(DEPLOYMENT);
        let same = made_by_us && of_compose.all(|name| is(name)) && inspected["Image"] == image_id;
        same.then(|| Self {
            id: inspected["Id"].as_str().unwrap_or_default().to_owned(),
            has_run: inspected["State"]["Status"] != "created",
            is_of_this_lease: is(GENERATION),
        })
    }
}

/// What stays as it is while a container exists.
#[derive(Debug, Clone)]
pub(crate) struct Lasting {
    /// What it is given between the stop signal and the kill, if it says so.
    grace: Option<Duration>,
    /// The command of its health check with its timeout.
    health: Option<(Vec<String>, Duration)>,
}

impl Lasting {
    /// From the engine's description.
    pub(crate) fn of(inspected: &Value) -> Self {
        let config = &inspected["Config"];
        Self {
            grace: config["StopTimeout"].as_u64().map(Duration::from_secs),
            // The engine has merged the image's own into it.
            health: health_command(&config["Healthcheck"]),
        }
    }
}

/// Values that no error may repeat.
fn secrets(spec: &ServiceSpec) -> impl Iterator<Item = &str> {
    let variables = spec.service.environment.values().filter_map(|value| value.as_deref());
    let files = spec.files.iter().filter_map(|f| std::str::from_utf8(f.content.expose()).ok());
    variables.chain(files)
}

/// The command of a health check in exec form, with its timeout.
fn health_command(check: &Value) -> Option<(Vec<String>, Duration)> {
    let test = check["Test"].as_array()?;
    let words = test.iter().filter_map(Value::as_str).map(str::to_owned);
    let command: Vec<String> = match test.first()?.as_str()? {
        "CMD" => words.skip(1).collect(),
        "CMD-SHELL" => {
            ["/bin/sh", "-c"].map(str::to_owned).into_iter().chain(words.skip(1)).collect()
        }
        _ => return None,
    };
    let timeout = check["Timeout"].as_u64().filter(|n| *n > 0).map(Duration::from_nanos);
    (!command.is_empty()).then_some((command, timeout.unwrap_or(DEFAULT_HEALTH_TIMEOUT)))
}

/// Files as a tar for the root folder.
fn archive(files: &[InjectedFile]) -> Bytes {
    let mut tar = tar::Builder::new(Vec::new());
    let by_target: BTreeMap<&str, &InjectedFile> =
        files.iter().map(|file| (file.target.trim_start_matches('/'), file)).collect();
    for (target, file) in by_target {
        let content = file.content.expose();
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(file.mode);
        header.set_uid(u64::from(file.uid));
        header.set_gid(u64::from(file.gid));
        header.set_mtime(0);
        tar.append_data(&mut header, target, content.as_slice()).expect("memory takes all");
    }
    tar.into_inner().expect("memory takes all").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_commands_come_in_exec_form() {
        let of = |test: Value| health_command(&json!({"Test": test, "Timeout": 2_000_000_000u64}));
        let (command, timeout) = of(json!(["CMD-SHELL", "a | b"])).unwrap();
        assert_eq!(command, ["/bin/sh", "-c", "a | b"]);
        assert_eq!(timeout, Duration::from_secs(2));
        assert_eq!(of(json!(["CMD", "a", "b"])).unwrap().0, ["a", "b"]);
        assert_eq!(of(json!(["NONE"])), None);
        assert_eq!(health_command(&Value::Null), None);
    }
}
