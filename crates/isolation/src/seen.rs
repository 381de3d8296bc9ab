//! What was seen of an environment.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::container::{Container, HostPort, Role};
use crate::finding::Party;

/// An environment on an engine: a Compose project.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instance {
    /// Its name for people, such as `dev`.
    pub environment: String,
    /// The Compose project's name, such as `makapix-dev`.
    pub project: String,
}

/// All that was seen of an environment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Which one.
    pub instance: Instance,
    /// Its containers, in whatever state, and its name holders; in order of name.
    pub containers: Vec<Container>,
    /// Ports of the host on which the edge listens for it, and the service that answers.
    pub edge_ports: Vec<(HostPort, String)>,
}

impl Snapshot {
    /// A container of it, as one side of a finding.
    pub(crate) fn party(&self, container: &Container) -> Party {
        Party {
            environment: self.instance.environment.clone(),
            project: self.instance.project.clone(),
            service: container.service.clone(),
            container: Some(container.name.clone()),
        }
    }

    /// A service of it that no single container stands for.
    pub(crate) fn service(&self, service: &str) -> Party {
        Party {
            environment: self.instance.environment.clone(),
            project: self.instance.project.clone(),
            service: service.to_owned(),
            container: None,
        }
    }

    /// The containers that run what is in the Compose files.
    pub(crate) fn services(&self) -> impl Iterator<Item = &Container> {
        self.containers.iter().filter(|container| container.role == Role::Service)
    }

    /// Every name by which a container of it is found on its networks.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        let names = self.containers.iter().flat_map(|container| {
            let aliases = container.attachments.iter().flat_map(|at| at.aliases.iter());
            // A holder stands for the services whose names are its aliases.
            let service = (container.role == Role::Service).then_some(&container.service);
            aliases.chain(service).chain([&container.name]).cloned()
        });
        names.filter(|name| !name.is_empty()).map(|name| name.to_ascii_lowercase()).collect()
    }

    /// Every address of its containers.
    pub(crate) fn addresses(&self) -> BTreeSet<IpAddr> {
        let all = self.containers.iter().flat_map(|c| c.attachments.iter());
        all.flat_map(|at| at.addresses.iter().copied()).collect()
    }
}

/// Each two of several, once.
pub(crate) fn pairs<T>(all: &[T]) -> impl Iterator<Item = (&T, &T)> {
    all.iter()
        .enumerate()
        .flat_map(|(index, one)| all[index + 1..].iter().map(move |two| (one, two)))
}

/// Each two of several, in both orders.
pub(crate) fn both_ways<T>(all: &[T]) -> impl Iterator<Item = (&T, &T)> {
    pairs(all).flat_map(|(one, two)| [(one, two), (two, one)])
}
