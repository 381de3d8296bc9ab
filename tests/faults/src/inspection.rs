//! What a project came to, object by object.

use std::collections::BTreeMap;

use serde_json::Value;
use shiplap_scenarios::Lab;

/// Most containers of a service that are kept aside: those of the release before.
const MOST_ASIDE: usize = 2;

/// What there should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The tag of every image; `None` if nothing is there.
    pub tag: Option<String>,
    /// The replicas of each service.
    pub replicas: BTreeMap<String, usize>,
    /// Services that end.
    pub jobs: Vec<String>,
    /// Whether a plan has nothing to do then.
    pub settled: bool,
}

/// What there is that should not be, or is not that should be.
#[derive(Debug, Default)]
pub struct Inspection {
    /// What is wrong, in words.
    pub wrong: Vec<String>,
    /// How much should not have been left.
    pub leaks: u64,
}

impl Expected {
    /// Services of one tag.
    #[must_use]
    pub fn of(tag: &str, replicas: &[(&str, usize)]) -> Self {
        let replicas = replicas.iter().map(|(name, number)| ((*name).to_owned(), *number));
        Self {
            tag: Some(tag.to_owned()),
            replicas: replicas.collect(),
            jobs: Vec::new(),
            settled: true,
        }
    }

    /// The same, not deployed by us.
    #[must_use]
    pub fn foreign(self) -> Self {
        Self { settled: false, ..self }
    }

    /// Nothing.
    #[must_use]
    pub fn nothing() -> Self {
        Self { tag: None, replicas: BTreeMap::new(), jobs: Vec::new(), settled: true }
    }

    /// With a job.
    #[must_use]
    pub fn and_job(mut self, name: &str) -> Self {
        self.jobs.push(name.to_owned());
        self
    }

    /// Whether exactly that runs.
    #[must_use]
    pub fn runs(&self, lab: &Lab) -> bool {
        let mut inspection = Inspection::default();
        inspection.containers(lab, self);
        inspection.wrong.is_empty()
    }
}

impl Inspection {
    /// Looks at everything.
    #[must_use]
    pub fn of(lab: &Lab, expected: &Expected) -> Self {
        let mut inspection = Self::default();
        inspection.containers(lab, expected);
        inspection.resources(lab, expected);
        inspection.status(lab);
        inspection.history(lab, expected);
        inspection
    }

    fn leaked(&mut self, what: String) {
        self.leaks += 1;
        self.wrong.push(format!("left behind: {what}"));
    }

    fn containers(&mut self, lab: &Lab, expected: &Expected) {
        let image = expected.tag.as_ref().map(|tag| {
            let path = format!("/images/{}:{tag}/json", lab.images.name);
            lab.engine.get(&path)["Id"].as_str().unwrap_or_default().to_owned()
        });
        let mut live: BTreeMap<String, usize> = BTreeMap::new();
        let mut aside: BTreeMap<String, usize> = BTreeMap::new();
        for container in lab.engine.containers(&lab.project) {
            let seen = Seen::of(&container);
            let job = expected.jobs.contains(&seen.service);
            if seen.name.contains(".d") {
                *aside.entry(seen.service.clone()).or_default() += 1;
                let kept = matches!(seen.state.as_str(), "exited" | "paused");
                if !kept || seen.name.ends_with(".failed") {
                    self.leaked(seen.to_string());
                }
                continue;
            }
            if Some(&seen.image) != image.as_ref() {
                self.wrong.push(format!("of another release: {seen}"));
            }
            let fits =
                if job { seen.status.starts_with("Exited (0)") } else { seen.state == "running" };
            if !fits {
                self.wrong.push(format!("not as it should be: {seen}"));
            }
            if !job {
                *live.entry(seen.service.clone()).or_default() += 1;
            }
        }
        if live != expected.replicas {
            self.wrong.push(format!("live: {live:?} instead of {:?}", expected.replicas));
        }
        for (service, number) in aside {
            if expected.tag.is_none() || number > MOST_ASIDE {
                self.leaked(format!("{number} containers of {service} aside"));
            }
        }
    }

    fn resources(&mut self, lab: &Lab, expected: &Expected) {
        let nothing = expected.tag.is_none();
        let most = usize::from(!nothing);
        let networks = lab.engine.get("/networks");
        let own: Vec<&str> =
            names(&networks).filter(|name| name.starts_with(&lab.project)).collect();
        if own.len() > most || own.iter().any(|name| *name != format!("{}_default", lab.project)) {
            self.leaked(format!("networks: {}", own.join(" ")));
        }
        let holders = lab.engine.holders(&lab.project);
        if holders.len() > most {
            self.leaked(format!("{} name holders", holders.len()));
        }
        let volumes = lab.engine.get("/volumes");
        let markers = format!("shiplap.lease.{}.", lab.project);
        let markers = names(&volumes["Volumes"]).filter(|name| name.starts_with(&markers)).count();
        if markers > most {
            self.leaked(format!("{markers} lease marks"));
        }
    }

    fn status(&mut self, lab: &Lab) {
        let run = lab.run(&["status", "--json"]);
        if run.code != Some(0) {
            self.wrong.push(run.all());
            return;
        }
        let status = run.json();
        if !status["deploying"].is_null() {
            self.leaked(format!("the lease: {}", status["deploying"]));
        }
        if !status["newest"].is_null() && status["newest"]["outcome"].is_null() {
            self.leaked("an unfinished deployment".to_owned());
        }
        for pool in status["edge"]["pools"].as_array().map(Vec::as_slice).unwrap_or_default() {
            if pool["held"] != false {
                self.leaked(format!("a held pool: {pool}"));
            }
        }
    }

    fn history(&mut self, lab: &Lab, expected: &Expected) {
        let verified = lab.run(&["history", "--verify"]);
        if verified.code != Some(0) {
            self.wrong.push(verified.all());
        }
        if let Some(tag) = expected.tag.as_ref().filter(|_| expected.settled) {
            lab.set("TAG", tag);
            let plan = lab.run(&["plan", "--exit-code"]);
            if plan.code != Some(0) {
                self.wrong.push(format!("there is something left to do: {}", plan.all()));
            }
        }
    }
}

/// A container, as far as it matters.
struct Seen {
    name: String,
    service: String,
    state: String,
    status: String,
    image: String,
}

impl Seen {
    fn of(container: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Self {
            name: text(&container["Names"][0]).trim_start_matches('/').to_owned(),
            service: text(&container["Labels"]["com.docker.compose.service"]),
            state: text(&container["State"]),
            status: text(&container["Status"]),
            image: text(&container["ImageID"]),
        }
    }
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({}, {})", self.name, self.state, self.status)
    }
}

fn names(list: &Value) -> impl Iterator<Item = &str> {
    let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(|item| item["Name"].as_str())
}
