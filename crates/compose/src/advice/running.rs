//! How services start, run and stop.

use super::{Advice, is_checked, is_served};
use crate::model::{Condition, Service};

/// What the engine takes where a health check says nothing.
const DEFAULT_INTERVAL_S: u64 = 30;
/// Parts of names and commands of what takes work from a queue.
const WORKERS: &[&str] = &[
    "worker",
    "workers",
    "celery",
    "sidekiq",
    "consumer",
    "queue",
    "horizon",
    "resque",
    "rq",
    "dramatiq",
    "solid_queue",
    "good_job",
    "delayed_job",
];

impl Advice<'_> {
    pub(super) fn image(&mut self, name: &str, service: &Service) {
        let Some(image) = service.image.as_deref().filter(|_| service.build.is_none()) else {
            return;
        };
        if image.contains('@') {
            return;
        }
        let tag =
            image.rsplit('/').next().and_then(|last| last.split_once(':')).map(|(_, tag)| tag);
        if matches!(tag, None | Some("latest")) {
            let text = format!("`{name}` runs whatever `latest` is on the day it is pulled");
            let help = "name a version: `image: name:1.2.3`";
            let path = ["services", name, "image"];
            self.push("compose/floating-tag", &path, (text, "no fixed version"), help);
        }
    }

    pub(super) fn health(&mut self, name: &str, service: &Service) {
        if is_served(service) && !is_checked(service) {
            let text = format!("`{name}` takes requests, but nothing tells when it is ready");
            let help = "add a `healthcheck`, unless the image has one";
            self.push(
                "compose/no-healthcheck",
                &["services", name],
                (text, "no health check"),
                help,
            );
        }
        let Some(check) = service.healthcheck.as_ref().filter(|_| is_checked(service)) else {
            return;
        };
        let interval = check
            .interval
            .as_ref()
            .map_or(DEFAULT_INTERVAL_S, |time| time.as_std().map_or(0, |time| time.as_secs()));
        let early = check.start_period.is_some() && check.start_interval.is_some();
        if is_served(service) && interval >= DEFAULT_INTERVAL_S && !early {
            let text = format!("`{name}` is asked how it is every {interval} s only");
            let help = "write `interval: 5s`, or `start_period` and `start_interval`";
            let path = ["services", name, "healthcheck"];
            self.push(
                "compose/slow-healthcheck",
                &path,
                (text, "ready late, and broken for long"),
                help,
            );
        }
    }

    pub(super) fn restart(&mut self, name: &str, service: &Service) {
        let policy = service.deploy.as_ref().and_then(|deploy| deploy.restart_policy.as_ref());
        let condition = policy.and_then(|policy| policy.condition.as_deref());
        if self.is_job(name) {
            let forever = matches!(
                service.restart.as_deref().or(condition),
                Some("always" | "unless-stopped" | "any")
            );
            if forever {
                let text =
                    format!("`{name}` starts again whenever it is done: nobody gets past it");
                let help = "write `restart: \"no\"`, or `on-failure` if it may be tried again";
                let key = if service.restart.is_some() { "restart" } else { "deploy" };
                let path = ["services", name, key];
                self.push("compose/restarting-job", &path, (text, "never completes"), help);
            }
            return;
        }
        if service.restart.is_none() && policy.is_none() {
            let text = format!("`{name}` stays down after a crash or a reboot");
            let help = "add `restart: unless-stopped`, or `restart: \"no\"` if that is meant";
            self.push("compose/no-restart", &["services", name], (text, "no `restart`"), help);
        }
    }

    /// Whether others wait until it is done.
    fn is_job(&self, name: &str) -> bool {
        self.loaded.project.services.values().any(|other| {
            other
                .depends_on
                .get(name)
                .is_some_and(|dependency| dependency.condition == Condition::CompletedSuccessfully)
        })
    }

    pub(super) fn grace(&mut self, name: &str, service: &Service) {
        let words = service.command.iter().chain(&service.entrypoint).flatten();
        let works = std::iter::once(name).chain(words.map(String::as_str)).any(is_worker);
        let quiet = service.ports.is_empty() && service.stop_grace_period.is_none();
        if works && quiet && !self.is_job(name) {
            let text = format!("`{name}` has 10 s to finish its work before it is killed");
            let help = "add `stop_grace_period: 2m`: as long as its longest piece of work";
            let path = ["services", name];
            self.push("compose/no-grace-period", &path, (text, "no `stop_grace_period`"), help);
        }
    }

    /// Said once: it is the same for all.
    pub(super) fn logs(&mut self) {
        let unbounded = |service: &Service| {
            let Some(logging) = &service.logging else { return true };
            let driver = logging.driver.as_deref().unwrap_or("json-file");
            driver == "json-file" && !logging.options.contains_key("max-size")
        };
        let mut without = self
            .loaded
            .project
            .services
            .iter()
            .filter(|(_, service)| service.provider.is_none() && unbounded(service));
        let Some((name, _)) = without.next() else { return };
        let text = match without.count() {
            0 => format!("what `{name}` prints fills the disk, slowly"),
            others => format!("what `{name}` and {others} more print fills the disk, slowly"),
        };
        let help = "add `logging: {driver: local}`, or set it for the whole engine";
        let path = ["services", name.as_str(), "logging"];
        self.push("compose/unbounded-logs", &path, (text, "no bound for its log"), help);
    }

    pub(super) fn dependencies(&mut self, name: &str, service: &Service) {
        for (wanted, dependency) in &service.depends_on {
            let Some(other) = self.loaded.project.services.get(wanted) else { continue };
            if dependency.condition == Condition::Started && is_checked(other) {
                let text = format!("`{name}` starts before `{wanted}` is ready");
                let help = "write `condition: service_healthy`: it has a health check";
                let path = ["services", name, "depends_on", wanted];
                self.push(
                    "compose/started-not-healthy",
                    &path,
                    (text, "waits for the start only"),
                    help,
                );
            }
        }
    }

    pub(super) fn container(&mut self, name: &str, service: &Service) {
        if service.container_name.is_some() {
            let text =
                format!("`{name}` has a `container_name`: two of it cannot run side by side");
            let help = "leave it out; the service's name is its name on the network";
            let path = ["services", name, "container_name"];
            self.push("compose/fixed-name", &path, (text, "no start before the stop"), help);
        }
        if service.privileged {
            let text = format!("`{name}` is privileged: a hole in it is a hole in the host");
            let help = "name what it needs with `cap_add` and `devices`";
            let path = ["services", name, "privileged"];
            self.push("compose/privileged", &path, (text, "the same as root"), help);
        }
    }
}

/// `queue:work` and `app-worker` are, `reworked` is not.
fn is_worker(word: &str) -> bool {
    word.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|part| WORKERS.contains(&part))
        || word.split(|c: char| !c.is_ascii_alphanumeric()).any(|part| WORKERS.contains(&part))
}
