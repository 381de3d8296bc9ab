//! All containers of all projects at a glance, in one call.

use serde_json::Value;
use shiplap_model::{
    COMPOSE_NUMBER, COMPOSE_ONEOFF, COMPOSE_PROJECT, COMPOSE_SERVICE, ContainerState, DEPLOYMENT,
    EngineError, Health,
};

use crate::client::Call;
use crate::engine::DockerEngine;

/// A container, as far as the engine's list tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The engine's id.
    pub id: String,
    /// Its name, without the leading slash.
    pub name: String,
    /// The Compose project.
    pub project: String,
    /// The Compose service.
    pub service: String,
    /// The replica's number, from 1.
    pub number: u32,
    /// The deployment that made it; nothing when somebody else did.
    pub deployment: Option<u64>,
    /// The image as whoever made it named it; its id, where that name means another one by now.
    pub image: String,
    /// The image's id, `sha256:…`.
    pub image_id: String,
    /// What it is doing.
    pub state: ContainerState,
    /// What its health check says; nothing when it has none, or does not run.
    pub health: Option<Health>,
}

impl DockerEngine {
    /// The containers of all projects, one-off ones excluded, in order of name. One call however
    /// many there are.
    ///
    /// # Errors
    /// As for every call.
    pub async fn summaries(&self) -> Result<Vec<Summary>, EngineError> {
        self.api().await?;
        let filters = serde_json::json!({"label": [COMPOSE_PROJECT]}).to_string();
        let call = Call::get("/containers/json").query("all", "1").query("filters", &filters);
        let list = self.client.fetch(call, || "listing containers".into()).await?;
        let mut all: Vec<Summary> =
            list.as_array().into_iter().flatten().filter_map(summary).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }
}

fn summary(listed: &Value) -> Option<Summary> {
    let label = |name: &str| listed["Labels"][name].as_str();
    if label(COMPOSE_ONEOFF).is_some_and(|text| text.eq_ignore_ascii_case("true")) {
        return None;
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let status = listed["Status"].as_str().unwrap_or_default();
    Some(Summary {
        id: text(&listed["Id"]),
        name: text(&listed["Names"][0]).trim_start_matches('/').to_owned(),
        project: label(COMPOSE_PROJECT)?.to_owned(),
        service: label(COMPOSE_SERVICE).unwrap_or_default().to_owned(),
        number: label(COMPOSE_NUMBER).and_then(|number| number.parse().ok()).unwrap_or(1),
        deployment: label(DEPLOYMENT).and_then(|number| number.parse().ok()),
        image: text(&listed["Image"]),
        image_id: text(&listed["ImageID"]),
        state: match listed["State"].as_str().unwrap_or_default() {
            "created" => ContainerState::Created,
            "running" => ContainerState::Running,
            "paused" => ContainerState::Paused,
            "restarting" => ContainerState::Restarting,
            "dead" | "removing" => ContainerState::Dead,
            _ => ContainerState::Exited(exit_code(status)),
        },
        health: health(status),
    })
}

/// `Exited (137) 3 minutes ago` is 137. The list has the code nowhere else.
fn exit_code(status: &str) -> i64 {
    let code = status.strip_prefix("Exited (").and_then(|rest| rest.split(')').next());
    code.and_then(|code| code.parse().ok()).unwrap_or(-1)
}

/// `Up 2 minutes (healthy)`, `Up 3 seconds (health: starting)`.
fn health(status: &str) -> Option<Health> {
    match status.strip_prefix("Up ")?.rsplit_once(" (")?.1.trim_end_matches(')') {
        "healthy" => Some(Health::Healthy),
        "unhealthy" => Some(Health::Unhealthy),
        "health: starting" => Some(Health::Starting),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(state: &str, status: &str) -> Value {
        serde_json::json!({
            "Id": "1f3c", "Names": ["/shop-api-2"], "State": state, "Status": status,
            "Labels": {
                "com.docker.compose.project": "shop",
                "com.docker.compose.service": "api",
                "com.docker.compose.container-number": "2",
                "shiplap.deployment": "7",
            },
        })
    }

    #[test]
    fn states_are_read_from_what_the_list_has() {
        let read = |state, status| {
            let found = summary(&listed(state, status)).expect("it is a project's");
            (found.state, found.health)
        };
        assert_eq!(read("running", "Up 2 hours"), (ContainerState::Running, None));
        assert_eq!(
            read("running", "Up About a minute (unhealthy)"),
            (ContainerState::Running, Some(Health::Unhealthy))
        );
        assert_eq!(read("running", "Up 3 seconds (health: starting)").1, Some(Health::Starting));
        assert_eq!(read("paused", "Up 2 hours (Paused)"), (ContainerState::Paused, None));
        assert_eq!(read("exited", "Exited (137) 3 minutes ago").0, ContainerState::Exited(137));
        assert_eq!(read("exited", "Exited (0) 1 second ago").0, ContainerState::Exited(0));
    }

    #[test]
    fn what_is_no_replica_is_left_out() {
        let mut one = listed("running", "Up 1 second");
        let replica = summary(&one).expect("it is a replica");
        assert_eq!((replica.name.as_str(), replica.number), ("shop-api-2", 2));
        assert_eq!(replica.deployment, Some(7));
        one["Labels"]["com.docker.compose.oneoff"] = "True".into();
        assert_eq!(summary(&one), None);
    }
}
