//! An environment's limits, and what each of its services has of them.

use std::fmt::Write as _;

use serde_json::{Value, json};
use shiplap_compose::model::{Project, Service};
use shiplap_config::Settings;

use super::table::columns;

/// The limits of an environment.
#[derive(Debug, Clone, PartialEq)]
pub struct Limited {
    /// CPUs for all services together.
    pub cpus: Option<f64>,
    /// Bytes of memory for all services together.
    pub memory_bytes: Option<u64>,
    /// By service, in the order of the files.
    pub services: Vec<Share>,
}

/// What each replica of a service may use.
#[derive(Debug, Clone, PartialEq)]
pub struct Share {
    /// The service.
    pub service: String,
    /// How many replicas.
    pub replicas: u32,
    /// CPUs.
    pub cpus: Option<f64>,
    /// Bytes of memory.
    pub memory_bytes: Option<u64>,
}

impl Limited {
    /// Reads them from a project that the environment's limits have been split over.
    pub fn of(settings: &Settings, project: &Project) -> Self {
        let share = |(name, service): (&String, &Service)| Share {
            service: name.clone(),
            replicas: service.replicas(),
            cpus: cpus(service),
            memory_bytes: memory(service),
        };
        let services = project.services.iter().map(share);
        Self {
            cpus: settings.cpus,
            memory_bytes: settings.memory_bytes,
            services: services.collect(),
        }
    }

    /// What all services have together, in words; nothing where there is no limit.
    pub fn budget(&self) -> Option<String> {
        let is_there = self.cpus.is_some() || self.memory_bytes.is_some();
        is_there.then(|| words(self.cpus, self.memory_bytes))
    }

    /// For a person; nothing where the environment has no limits.
    pub fn text(&self) -> String {
        let Some(budget) = self.budget() else { return String::new() };
        let mut text = format!("limits: {budget} for all\n");
        let rows = self.services.iter().map(|share| {
            let replicas = match share.replicas {
                1 => String::new(),
                many => format!("each of {many}"),
            };
            let words = words(share.cpus, share.memory_bytes);
            vec![format!("  {}", share.service), words, replicas]
        });
        let _ = write!(text, "{}", columns(&rows.collect::<Vec<_>>()));
        text
    }

    /// For a program.
    pub fn json(&self) -> Value {
        json!({
            "cpus": self.cpus,
            "memory_bytes": self.memory_bytes,
            "services": self.services.iter().map(|share| json!({
                "service": share.service,
                "replicas": share.replicas,
                "cpus": share.cpus,
                "memory_bytes": share.memory_bytes,
            })).collect::<Vec<_>>(),
        })
    }
}

fn words(cpus: Option<f64>, bytes: Option<u64>) -> String {
    let cpus = cpus.map(|cpus| match cpus {
        1.0 => "1 CPU".to_owned(),
        cpus => format!("{cpus} CPUs"),
    });
    let memory = bytes.map(size);
    let words: Vec<String> = cpus.into_iter().chain(memory).collect();
    if words.is_empty() { "no limit".to_owned() } else { words.join(", ") }
}

/// `512 MiB`, `1.5 GiB`.
fn size(bytes: u64) -> String {
    const MIB: f64 = 1_048_576.0;
    let mib = bytes as f64 / MIB;
    if mib < 1024.0 {
        return format!("{} MiB", mib.round());
    }
    format!("{} GiB", (mib / 102.4).round() / 10.0)
}

fn cpus(service: &Service) -> Option<f64> {
    let limits = service.deploy.as_ref().and_then(|d| d.resources.as_ref()?.limits.as_ref());
    limits.and_then(|limits| limits.cpus).or(service.cpus)
}

fn memory(service: &Service) -> Option<u64> {
    let limits = service.deploy.as_ref().and_then(|d| d.resources.as_ref()?.limits.as_ref());
    let bytes = limits.and_then(|limits| limits.memory).or(service.mem_limit)?;
    u64::try_from(bytes.bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_shown_where_there_is_a_limit() {
        let share = |service: &str, replicas, cpus, memory_bytes| Share {
            service: service.to_owned(),
            replicas,
            cpus,
            memory_bytes,
        };
        let limited = Limited {
            cpus: Some(2.0),
            memory_bytes: Some(1536 << 20),
            services: vec![
                share("api", 2, Some(0.66), Some(512 << 20)),
                share("db", 1, Some(1.0), None),
            ],
        };
        assert_eq!(
            limited.text(),
            "limits: 2 CPUs, 1.5 GiB for all\n  api  0.66 CPUs, 512 MiB  each of 2\n  db   1 CPU\n"
        );
        let without = Limited { cpus: None, memory_bytes: None, ..limited };
        assert_eq!(without.text(), "");
    }
}
