//! Shapes of plans: what is deployed, and which command is disturbed.

use std::fs;

use serde_json::{Value, json};
use shiplap_faults::{Expected, Inspection};
use shiplap_scenarios::{Kind, Lab, Run, Traffic};

use crate::projects::{API, SEVERAL, STORE};

/// What is disturbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disturbed {
    /// `deploy` of another release.
    Update,
    /// `rollback` to another release.
    Rollback,
    /// `deploy` where nothing is.
    First,
    /// `scale` between one and two.
    Scale,
    /// `down`.
    Down,
    /// `deploy` over what Compose started.
    Adopt,
}

/// A shape.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// In words, for the table.
    pub name: &'static str,
    /// For the names of its objects.
    pub purpose: &'static str,
    /// The Compose file.
    pub compose: &'static str,
    /// Its services, without its job.
    pub services: &'static [&'static str],
    /// Its job.
    pub job: Option<&'static str>,
    /// What is disturbed.
    pub disturbed: Disturbed,
    /// How long replicas of the release before stay frozen.
    pub standby: &'static str,
}

/// New replicas beside the old ones, then a switch.
pub const UPDATE: Shape = Shape {
    name: "start-first update",
    purpose: "upd",
    compose: API,
    services: &["api"],
    job: None,
    disturbed: Disturbed::Update,
    standby: "10m",
};
/// Requests are held.
pub const HOLD: Shape = Shape {
    name: "stop-first update with hold",
    purpose: "hold",
    compose: STORE,
    services: &["store"],
    ..UPDATE
};
/// A job and dependencies.
pub const MANY: Shape = Shape {
    name: "several services, dependencies, a job",
    purpose: "many",
    compose: SEVERAL,
    services: &["api", "store", "web"],
    job: Some("migrate"),
    standby: "0",
    ..UPDATE
};
/// Replicas come back.
pub const ROLLBACK: Shape =
    Shape { name: "rollback", purpose: "back", disturbed: Disturbed::Rollback, ..UPDATE };
/// From nothing.
pub const FIRST: Shape = Shape {
    name: "first deployment",
    purpose: "first",
    disturbed: Disturbed::First,
    standby: "0",
    ..UPDATE
};
/// Replicas come and go.
pub const SCALE: Shape = Shape {
    name: "scale up and down",
    purpose: "scale",
    disturbed: Disturbed::Scale,
    standby: "0",
    ..UPDATE
};
/// To nothing.
pub const DOWN: Shape =
    Shape { name: "down", purpose: "down", disturbed: Disturbed::Down, standby: "0", ..UPDATE };

/// Over a container whose port the engine publishes.
pub const ADOPT: Shape = Shape {
    name: "taking over from Compose",
    purpose: "adopt",
    disturbed: Disturbed::Adopt,
    standby: "0",
    ..UPDATE
};

/// What is current.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nothing is there.
    Nothing,
    /// A container as Compose starts it.
    Foreign,
    /// A release.
    Release {
        /// The tag of its images.
        tag: &'static str,
        /// The replicas of each service.
        replicas: usize,
        /// A value in the environment of each: with a new one no container of an earlier release
        /// can come back.
        edition: u32,
    },
}

/// What every shape begins with, but for those from nothing.
const BEGINNING: Standing = Standing::Release { tag: "v1", replicas: 1, edition: 0 };

/// A project of a shape.
pub struct Stage {
    /// Its lab.
    pub lab: Lab,
    /// Its shape.
    pub shape: Shape,
    /// What is current.
    pub now: Standing,
}

impl Stage {
    /// Deploys what a shape starts from.
    pub fn set(lab: Lab, shape: Shape) -> Self {
        lab.compose(shape.compose);
        let jobs = lab.dir().join("jobs");
        fs::create_dir_all(&jobs).unwrap();
        lab.set("JOBS", &jobs.display().to_string());
        let mut stage = Self { lab, shape, now: Standing::Nothing };
        if !matches!(shape.disturbed, Disturbed::First | Disturbed::Adopt) {
            stage.deploy(Standing::Release { tag: "v2", replicas: 1, edition: 0 });
            stage.deploy(BEGINNING);
        }
        stage
    }

    /// What the disturbed command leads to from here.
    pub fn target(&self) -> Standing {
        let Standing::Release { tag, replicas, edition } = self.now else { return BEGINNING };
        let other = if tag == "v1" { "v2" } else { "v1" };
        match self.shape.disturbed {
            Disturbed::Update => Standing::Release { tag: other, replicas, edition: edition + 1 },
            Disturbed::Rollback => Standing::Release { tag: other, replicas, edition },
            Disturbed::Scale => Standing::Release { tag, replicas: 3 - replicas, edition },
            Disturbed::Down | Disturbed::First | Disturbed::Adopt => Standing::Nothing,
        }
    }

    /// The disturbed command that leads there, with what it needs in the environment.
    pub fn words(&self, target: Standing) -> Vec<String> {
        self.announce(target);
        let mut words: Vec<String> = match (self.shape.disturbed, target) {
            (Disturbed::Rollback, Standing::Release { tag, .. }) => {
                ["rollback", "--yes", "--to", &self.done(tag)].map(str::to_owned).to_vec()
            }
            (Disturbed::Scale, Standing::Release { replicas, .. }) => {
                vec!["scale".to_owned(), "--yes".to_owned(), format!("api={replicas}")]
            }
            (Disturbed::Down, Standing::Nothing) => ["down", "--yes"].map(str::to_owned).to_vec(),
            _ => ["deploy", "--yes"].map(str::to_owned).to_vec(),
        };
        words.extend(["--standby", self.shape.standby].map(str::to_owned));
        words
    }

    /// The newest deployment that made a release current.
    fn done(&self, tag: &str) -> String {
        let history = self.lab.run(&["history", "--json", "-n", "90"]).json();
        let image = format!("{}:{tag}", self.lab.images.name);
        let done = history["deployments"].as_array().unwrap().iter().find(|deployment| {
            let reference = &deployment["release"]["services"]["api"]["image"]["reference"];
            deployment["outcome"] == "done" && *reference == *image
        });
        done.expect("it was current before")["number"].to_string()
    }

    /// Lets the files say what is to be.
    pub fn announce(&self, target: Standing) {
        if let Standing::Release { tag, replicas, edition } = target {
            self.lab.set("TAG", tag);
            self.lab.set("REPLICAS", &replicas.to_string());
            self.lab.set("EDITION", &edition.to_string());
        }
    }

    /// What there must be.
    pub fn expected(&self, standing: Standing) -> Expected {
        let (tag, replicas) = match standing {
            Standing::Nothing => return Expected::nothing(),
            Standing::Foreign => return Expected::of("v2", &[("api", 1)]).foreign(),
            Standing::Release { tag, replicas, .. } => (tag, replicas),
        };
        let services: Vec<_> = self.shape.services.iter().map(|name| (*name, replicas)).collect();
        let expected = Expected::of(tag, &services);
        match self.shape.job {
            Some(job) => expected.and_job(job),
            None => expected,
        }
    }

    /// Looks whether it came to that, at everything.
    pub fn inspect(&self, standing: Standing) -> Inspection {
        self.announce(standing);
        Inspection::of(&self.lab, &self.expected(standing))
    }

    /// Deploys a release, undisturbed.
    pub fn deploy(&mut self, target: Standing) {
        self.announce(target);
        self.lab.run(&["deploy", "--yes", "--standby", self.shape.standby]).ok();
        self.now = target;
    }

    /// Puts everything in order, whatever it came to.
    pub fn heal(&mut self) {
        self.announce(BEGINNING);
        let again = |words: &[&str]| -> Run { self.lab.run(words) };
        let _ = again(&["deploy", "--yes", "--standby", "0"]);
        if !self.expected(BEGINNING).runs(&self.lab) {
            let _ = again(&["down", "--yes"]);
            let _ = self.lab.engine.remove_project(&self.lab.project);
            again(&["deploy", "--yes", "--standby", "0"]).ok();
        }
        self.now = BEGINNING;
        if self.shape.disturbed == Disturbed::First {
            self.clear();
        }
    }

    /// Takes everything down.
    pub fn clear(&mut self) {
        self.lab.run(&["down", "--yes"]).ok();
        self.now = Standing::Nothing;
    }

    /// Makes a network and a container as Compose does.
    fn compose_up(&mut self) {
        let (lab, project) = (&self.lab, &self.lab.project);
        let network = format!("{project}_default");
        lab.engine.post(
            "/networks/create",
            &json!({"Name": network, "Labels": {
                "com.docker.compose.project": project,
                "com.docker.compose.network": "default",
                "com.docker.compose.version": "2.30.0",
            }}),
        );
        let labels = json!({
            "com.docker.compose.project": project,
            "com.docker.compose.service": "api",
            "com.docker.compose.container-number": "1",
            "com.docker.compose.oneoff": "False",
            "com.docker.compose.config-hash": "0",
            "com.docker.compose.version": "2.30.0",
        });
        lab.engine.post(
            &format!("/containers/create?name={project}-api-1"),
            &json!({
                "Image": format!("{}:v2", lab.images.name),
                "Cmd": ["api"],
                "Labels": labels,
                "ExposedPorts": {"9000/tcp": {}},
                "HostConfig": {
                    "NetworkMode": network,
                    "PortBindings": {"9000/tcp": [{"HostPort": lab.api.to_string()}]},
                },
                "NetworkingConfig": {"EndpointsConfig": {network.clone(): {"Aliases": ["api"]}}},
            }),
        );
        lab.engine.post(&format!("/containers/{project}-api-1/start"), &Value::Null);
        self.now = Standing::Foreign;
    }

    /// Back to where a disturbed command can begin.
    pub fn reset(&mut self) {
        match (self.shape.disturbed, self.now) {
            (Disturbed::First, Standing::Release { .. }) => self.clear(),
            (Disturbed::Adopt, Standing::Release { .. } | Standing::Nothing) => {
                self.clear();
                self.compose_up();
            }
            (Disturbed::Down, Standing::Nothing) => self.deploy(BEGINNING),
            _ => {}
        }
    }

    /// Requests to what is deployed, 130 or 180 a second; none where it comes from nothing or goes to nothing.
    pub fn traffic(&self) -> Option<Traffic> {
        let lab = &self.lab;
        // The engine's own port is closed for the moment in which the edge takes it over.
        if matches!(self.shape.disturbed, Disturbed::First | Disturbed::Down | Disturbed::Adopt) {
            return None;
        }
        let rate = 60.0;
        // Each makes the store wait for the disk, which others keep busy too.
        let syncs = 10.0;
        let streams = match self.shape.services {
            ["store"] => [
                (lab.store, Kind::KeepAlive, "/count", rate),
                (lab.store, Kind::NewConnections, "/count", rate),
                (lab.store, Kind::Post, "/append", syncs),
            ],
            ["api"] => [
                (lab.api, Kind::KeepAlive, "/version", rate),
                (lab.api, Kind::NewConnections, "/version", rate),
                (lab.api, Kind::Post, "/orders", rate),
            ],
            _ => [
                (lab.api, Kind::KeepAlive, "/version", rate),
                (lab.web, Kind::NewConnections, "/version", rate),
                (lab.store, Kind::Post, "/append", syncs),
            ],
        };
        Some(Traffic::at_rates(&streams))
    }

    /// How often its job ran.
    pub fn job_runs(&self) -> usize {
        let path = self.lab.dir().join("jobs/migrations.log");
        fs::read_to_string(path).unwrap_or_default().lines().count()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.lab.end_background();
    }
}
