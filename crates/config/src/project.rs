//! What an environment makes of the project that its Compose files say.

use shiplap_compose::Diagnostic;
use shiplap_compose::document::nearest_word;
use shiplap_compose::model::{
    ByteSize, Condition, Dependency, Deploy, Healthcheck, Map, Project, Resource, Resources,
    Service, UpdateConfig, UpdateOrder,
};

use crate::Settings;
use crate::file::Ports;
use crate::settings::JobSettings;

/// What was made of a project, for notes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Shaped {
    /// Services that got a part of the environment's limits: CPUs and bytes of memory for each
    /// replica.
    pub shares: Vec<(String, Option<f64>, Option<u64>)>,
}

impl Settings {
    /// Makes the project the environment's: services that it goes without, ports, limits, jobs.
    /// `inactive` are the services that no profile asks for.
    ///
    /// # Errors
    /// Services that are not there, and limits that do not suffice.
    pub fn shape(
        &self,
        project: &mut Project,
        inactive: &[String],
    ) -> Result<Shaped, Vec<Diagnostic>> {
        let mut problems = Vec::new();
        self.exclude(project, inactive, &mut problems);
        self.publish(project);
        let shares = self.limit(project, &mut problems);
        for (index, job) in self.jobs.iter().enumerate() {
            self.add_job(project, index, job, &mut problems);
        }
        if problems.is_empty() { Ok(Shaped { shares }) } else { Err(problems) }
    }

    /// Adds the container of the gate `tests` to the project of the environment that is promoted
    /// from, as a service of this name.
    ///
    /// # Errors
    /// A service that is not there.
    pub fn add_tests(
        &self,
        name: &str,
        project: &mut Project,
        environment: &str,
    ) -> Result<(), Vec<Diagnostic>> {
        let Some(tests) = &self.gates.tests else { return Ok(()) };
        let Some(base) = project.services.get(&tests.service) else {
            let at = self.at(&["gates", "tests", "service"]);
            let message = format!("environment `{environment}` has no service `{}`", tests.service);
            return Err(vec![at.error("config/unknown-service", message, "no such service")]);
        };
        let service = one_off(&project.name, &tests.service, base, &tests.command);
        project.services.insert(name.to_owned(), service);
        Ok(())
    }

    fn exclude(&self, project: &mut Project, inactive: &[String], problems: &mut Vec<Diagnostic>) {
        for (index, name) in self.exclude.iter().enumerate() {
            let at = self.at(&["exclude", &index.to_string()]);
            if inactive.contains(name) {
                continue;
            }
            if !project.services.contains_key(name) {
                let message = format!("there is no service `{name}`");
                let diagnostic = at.error("config/unknown-service", message, "no such service");
                let near = nearest_word(name, project.services.keys().map(String::as_str));
                problems.push(match near {
                    Some(near) => diagnostic.help(format!("did you mean `{near}`?")),
                    None => diagnostic,
                });
                continue;
            }
            let needs = |service: &Service| {
                service.depends_on.get(name).is_some_and(|dependency| dependency.required)
            };
            let needed = project
                .services
                .iter()
                .find(|(other, service)| !self.exclude.contains(other) && needs(service));
            if let Some((other, _)) = needed {
                let message = format!("`{other}` depends on `{name}`, which is excluded");
                problems.push(
                    at.error("config/excluded-dependency", message, "needed by another service")
                        .help(format!("exclude `{other}` too, or neither")),
                );
            }
        }
        project.services.retain(|name, _| !self.exclude.contains(name));
        for service in project.services.values_mut() {
            service.depends_on.retain(|name, _| !self.exclude.contains(name));
        }
    }

    fn publish(&self, project: &mut Project) {
        for service in project.services.values_mut() {
            match self.ports {
                Ports::Keep => {}
                Ports::Any => {
                    for port in &mut service.ports {
                        port.published = None;
                    }
                }
                Ports::None => {
                    // Inside the networks they are as before.
                    for port in std::mem::take(&mut service.ports) {
                        if port.protocol.as_deref().is_none_or(|protocol| protocol == "tcp") {
                            let exposed = port.target.to_string();
                            if !service.expose.contains(&exposed) {
                                service.expose.push(exposed);
                            }
                        }
                    }
                }
            }
        }
    }

    fn limit(
        &self,
        project: &mut Project,
        problems: &mut Vec<Diagnostic>,
    ) -> Vec<(String, Option<f64>, Option<u64>)> {
        let cpus = self.share(project, self.cpus, "cpus", cpus_of, problems);
        let memory = self.memory_bytes.map(|bytes| bytes as f64);
        let memory = self.share(project, memory, "memory", memory_of, problems);
        let mut shares = Vec::new();
        for (name, service) in &mut project.services {
            let cpus = cpus.filter(|_| cpus_of(service).is_none());
            let bytes = memory.filter(|_| memory_of(service).is_none()).map(|bytes| bytes as u64);
            if cpus.is_none() && bytes.is_none() {
                continue;
            }
            let deploy = service.deploy.get_or_insert_with(Deploy::default);
            let resources = deploy.resources.get_or_insert_with(Resources::default);
            let limits = resources.limits.get_or_insert_with(Resource::default);
            if let Some(cpus) = cpus {
                limits.cpus = Some(cpus);
            }
            if let Some(bytes) = bytes {
                limits.memory =
                    Some(ByteSize::from_bytes(i64::try_from(bytes).unwrap_or(i64::MAX)));
            }
            shares.push((name.clone(), cpus, bytes));
        }
        shares
    }

    /// What each replica of a service without a limit of its own gets.
    fn share(
        &self,
        project: &Project,
        budget: Option<f64>,
        what: &str,
        own: fn(&Service) -> Option<f64>,
        problems: &mut Vec<Diagnostic>,
    ) -> Option<f64> {
        let budget = budget?;
        let replicas = |service: &Service| f64::from(service.replicas());
        let taken: f64 =
            project.services.values().filter_map(|s| Some(own(s)? * replicas(s))).sum();
        let takers: f64 =
            project.services.values().filter(|s| own(s).is_none()).map(replicas).sum();
        let left = budget - taken;
        // Rounding must not make a sum of tenths too large.
        let enough = if takers > 0.0 { left > 0.0 } else { left >= -1e-6 };
        if !enough {
            let at = self.at(&["limits", what]);
            let show = |amount: f64| match what {
                "memory" => format!("{} MiB", (amount / 1_048_576.0).ceil()),
                _ => format!("{amount}"),
            };
            let message = format!(
                "the services of `{}` ask for {} of {what} by themselves, and the environment has {}",
                self.name,
                show(taken),
                show(budget)
            );
            let help = "raise the limit, or lower `deploy.resources.limits` of a service";
            problems.push(at.error("config/limit-exceeded", message, "too little").help(help));
            return None;
        }
        // Shares that an engine can hold: hundredths of a CPU, whole MiB.
        let share = left / takers.max(1.0);
        (takers > 0.0).then(|| match what {
            "memory" => (share / 1_048_576.0).floor().max(6.0) * 1_048_576.0,
            _ => ((share * 100.0).floor() / 100.0).max(0.01),
        })
    }

    /// A job is a service that ends, made like another one, and that all wait for which it does
    /// not itself need.
    fn add_job(
        &self,
        project: &mut Project,
        index: usize,
        job: &JobSettings,
        problems: &mut Vec<Diagnostic>,
    ) {
        let place = ["jobs", "before_switch", job.name.as_str()];
        let at = self.at(&[place[0], place[1], place[2], "service"]);
        let Some(base) = project.services.get(&job.service) else {
            let message = format!("environment `{}` has no service `{}`", self.name, job.service);
            problems.push(at.error("config/unknown-service", message, "no such service"));
            return;
        };
        if project.services.contains_key(&job.name) {
            let message = format!("`{}` is a service already", job.name);
            let at = self.at(&place).key_location();
            problems.push(
                Diagnostic::error("config/name-taken", message).at(at, "give the job another name"),
            );
            return;
        }
        let mut service = one_off(&project.name, &job.service, base, &job.command);
        for before in &self.jobs[..index] {
            service.depends_on.insert(before.name.clone(), completed());
        }
        let needed = needs(project, &service);
        for (name, other) in &mut project.services {
            let is_job = self.jobs.iter().any(|known| known.name == *name);
            if !needed.contains(name) && !is_job {
                other.depends_on.insert(job.name.clone(), completed());
            }
        }
        project.services.insert(job.name.clone(), service);
    }
}

fn cpus_of(service: &Service) -> Option<f64> {
    let limits = service.deploy.as_ref().and_then(|d| d.resources.as_ref()?.limits.as_ref());
    limits.and_then(|limits| limits.cpus).or(service.cpus)
}

fn memory_of(service: &Service) -> Option<f64> {
    let limits = service.deploy.as_ref().and_then(|d| d.resources.as_ref()?.limits.as_ref());
    let bytes = limits.and_then(|limits| limits.memory).or(service.mem_limit);
    bytes.map(|bytes| bytes.bytes() as f64)
}

fn completed() -> Dependency {
    Dependency {
        condition: Condition::CompletedSuccessfully,
        restart: false,
        required: true,
        extensions: Map::new(),
    }
}

/// Everything that a service needs, directly or through others.
fn needs(project: &Project, service: &Service) -> Vec<String> {
    let mut found: Vec<String> = service.depends_on.keys().cloned().collect();
    let mut next = 0;
    while let Some(name) = found.get(next).cloned() {
        let more = project.services.get(&name).into_iter().flat_map(|s| s.depends_on.keys());
        for name in more {
            if !found.contains(name) {
                found.push(name.clone());
            }
        }
        next += 1;
    }
    found
}

/// A service that runs one command in the surroundings of another and ends. It answers to no name
/// and no port of that one: a caller must never reach it.
pub(crate) fn one_off(project: &str, name: &str, base: &Service, command: &[String]) -> Service {
    let image = base.image.clone().unwrap_or_else(|| format!("{project}-{name}"));
    let networks = base.networks.iter().map(|(key, attachment)| {
        let attachment = attachment.as_ref().map(|given| shiplap_compose::model::Attachment {
            aliases: Vec::new(),
            ipv4_address: None,
            ipv6_address: None,
            mac_address: None,
            link_local_ips: Vec::new(),
            ..given.clone()
        });
        (key.clone(), attachment)
    });
    let limits = base.deploy.as_ref().and_then(|deploy| deploy.resources.clone());
    Service {
        image: Some(image),
        command: Some(command.to_vec()),
        networks: networks.collect(),
        ports: Vec::new(),
        expose: Vec::new(),
        labels: Map::new(),
        container_name: None,
        hostname: None,
        mac_address: None,
        links: Vec::new(),
        restart: Some("no".to_owned()),
        scale: None,
        healthcheck: Some(Healthcheck { disable: true, ..Healthcheck::default() }),
        post_start: Vec::new(),
        pre_stop: Vec::new(),
        profiles: Vec::new(),
        deploy: Some(Deploy {
            resources: limits,
            // Beside the release that serves, which it must not stop.
            update_config: Some(UpdateConfig {
                order: Some(UpdateOrder::StartFirst),
                ..UpdateConfig::default()
            }),
            ..Deploy::default()
        }),
        ..base.clone()
    }
}
