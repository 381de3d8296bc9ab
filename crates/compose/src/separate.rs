//! The names of one environment of a project among those of others on the same engine.
//!
//! Compose puts the project's name in front of what it makes, so environments with project names
//! of their own do not meet: unless the file says `container_name`, or `name` of a volume or a
//! network.

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;

use crate::model::{Attachment, Network, Project, Service, Volume};

/// An environment that has its names already.
#[derive(Clone, Copy, Debug)]
pub struct Other<'a> {
    /// Its name.
    pub environment: &'a str,
    /// Its project, itself separated from those before it.
    pub project: &'a Project,
}

/// Keys of networks and volumes that this environment is to have for itself, although the file says
/// that somebody else makes them (`external`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// Keys of networks.
    pub networks: BTreeSet<String>,
    /// Keys of volumes.
    pub volumes: BTreeSet<String>,
}

/// What has a name on an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Named {
    /// A container, by `container_name`.
    Container,
    /// A network.
    Network,
    /// A volume.
    Volume,
}

/// A name that became another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// What has it.
    pub kind: Named,
    /// The service's, network's or volume's key in the file.
    pub key: String,
    /// The name in the file.
    pub from: String,
    /// The name on the engine.
    pub to: String,
    /// The environment that has the name in the file.
    pub because: String,
}

/// Something that stays as it is, and is good to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared {
    /// `shared-network`, `shared-volume` or `names-other`.
    pub code: &'static str,
    /// Where in the project, such as `networks.front`.
    pub path: Vec<String>,
    /// What, with no value of a variable but the name in question.
    pub text: String,
    /// The environment it is shared with.
    pub with: String,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Separation {
    /// Names that became others.
    pub rewrites: Vec<Rewrite>,
    /// What is shared all the same.
    pub shared: Vec<Shared>,
}

/// A name that can neither be kept nor rewritten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Where in the project.
    pub path: Vec<String>,
    /// Why.
    pub message: String,
    /// What to type.
    pub help: String,
}

/// Gives an environment names of its own where `others`, which were declared before it, have
/// those of the file: `-ENVIRONMENT` is appended. What refers to a name within the project goes
/// along, and a container keeps its name of the file as an alias on networks that it has for itself, since
/// its neighbours may call it so.
///
/// # Errors
/// All names that can neither be kept nor rewritten; the project is as it was then.
pub fn separate(
    project: &mut Project,
    environment: &str,
    others: &[Other<'_>],
    own: &Own,
) -> Result<Separation, Vec<Refused>> {
    let mut work = Work {
        project: project.clone(),
        environment,
        others,
        done: Separation::default(),
        refused: vec![],
    };
    work.networks(own);
    work.volumes(own);
    work.containers();
    work.references();
    work.variables();
    if !work.refused.is_empty() {
        return Err(work.refused);
    }
    *project = work.project;
    Ok(work.done)
}

struct Work<'a> {
    project: Project,
    environment: &'a str,
    others: &'a [Other<'a>],
    done: Separation,
    refused: Vec<Refused>,
}

/// What networks and volumes have in common.
trait Resource {
    fn name(&mut self) -> &mut Option<String>;
    fn external(&mut self) -> &mut bool;
}

impl Resource for Network {
    fn name(&mut self) -> &mut Option<String> {
        &mut self.name
    }

    fn external(&mut self) -> &mut bool {
        &mut self.external
    }
}

impl Resource for Volume {
    fn name(&mut self) -> &mut Option<String> {
        &mut self.name
    }

    fn external(&mut self) -> &mut bool {
        &mut self.external
    }
}

/// Whose names are taken.
type Taken = BTreeMap<String, String>;

impl Work<'_> {
    fn taken<'n>(&self, names: impl Fn(&Project) -> Vec<&str> + 'n) -> Taken {
        let mut taken = Taken::new();
        for other in self.others {
            for name in names(other.project) {
                taken.entry(name.to_owned()).or_insert_with(|| other.environment.to_owned());
            }
        }
        taken
    }

    fn networks(&mut self, own: &Own) {
        let taken = self.taken(|p| p.networks.values().filter_map(|n| n.name.as_deref()).collect());
        let mut networks = std::mem::take(&mut self.project.networks);
        self.resources(&mut networks, &taken, &own.networks, (Named::Network, "networks"));
        self.project.networks = networks;
        self.subnets();
    }

    fn volumes(&mut self, own: &Own) {
        let taken = self.taken(|p| p.volumes.values().filter_map(|v| v.name.as_deref()).collect());
        let mut volumes = std::mem::take(&mut self.project.volumes);
        self.resources(&mut volumes, &taken, &own.volumes, (Named::Volume, "volumes"));
        self.project.volumes = volumes;
    }

    fn resources<R: Resource>(
        &mut self,
        all: &mut IndexMap<String, R>,
        taken: &Taken,
        own: &BTreeSet<String>,
        (kind, section): (Named, &str),
    ) {
        let mut names: BTreeSet<String> =
            all.values_mut().filter_map(|resource| resource.name().clone()).collect();
        for (key, resource) in all.iter_mut() {
            let Some(from) = resource.name().clone() else { continue };
            let Some(because) = taken.get(&from).cloned() else { continue };
            let path = vec![section.to_owned(), key.clone()];
            let to = match (*resource.external(), own.contains(key)) {
                (true, false) => {
                    let what = match kind {
                        Named::Network => "network",
                        Named::Volume | Named::Container => "volume",
                    };
                    let code = match kind {
                        Named::Network => "shared-network",
                        Named::Volume | Named::Container => "shared-volume",
                    };
                    let text = format!("the external {what} `{from}` is {because}'s too");
                    self.done.shared.push(Shared { code, path, text, with: because });
                    continue;
                }
                (true, true) => format!("{}_{key}", self.project.name),
                (false, _) => format!("{from}-{}", self.environment),
            };
            if taken.contains_key(&to) || !names.insert(to.clone()) {
                self.refuse(path, &from, &because, &to);
                continue;
            }
            *resource.external() = false;
            *resource.name() = Some(to.clone());
            self.done.rewrites.push(Rewrite { kind, key: key.clone(), from, to, because });
        }
    }

    fn refuse(&mut self, path: Vec<String>, from: &str, because: &str, to: &str) {
        self.refused.push(Refused {
            path,
            message: format!("`{from}` is {because}'s, and so is `{to}`, which would stand for it"),
            help: "leave the name out: then it gets the project's name in front".to_owned(),
        });
    }

    /// Two networks with one range of addresses cannot be on one engine, under whatever names.
    fn subnets(&mut self) {
        fn subnets(network: &Network) -> impl Iterator<Item = &str> {
            let pools = network.ipam.iter().flat_map(|ipam| &ipam.config);
            pools.filter_map(|pool| pool.subnet.as_deref()).filter(|_| !network.external)
        }
        let taken = self.taken(|p| p.networks.values().flat_map(subnets).collect());
        for (key, network) in &self.project.networks {
            for subnet in subnets(network) {
                if let Some(because) = taken.get(subnet) {
                    self.refused.push(Refused {
                        path: vec!["networks".to_owned(), key.clone(), "ipam".to_owned()],
                        message: format!("the range {subnet} of network `{key}` is {because}'s"),
                        help: "leave `ipam` out, or take a variable for the range".to_owned(),
                    });
                }
            }
        }
    }

    fn containers(&mut self) {
        let taken = self.taken(names_of_containers);
        let mut names: BTreeSet<String> =
            names_of_containers(&self.project).into_iter().map(str::to_owned).collect();
        let shared = self.shared_networks();
        let mut services = std::mem::take(&mut self.project.services);
        for (key, service) in &mut services {
            let Some(from) = service.container_name.clone() else { continue };
            let Some(because) = taken.get(&from).cloned() else { continue };
            let to = format!("{from}-{}", self.environment);
            if taken.contains_key(&to) || !names.insert(to.clone()) {
                let path = ["services", key, "container_name"].map(str::to_owned).to_vec();
                self.refuse(path, &from, &because, &to);
                continue;
            }
            service.container_name = Some(to.clone());
            keep_as_alias(service, &from, &shared);
            let kind = Named::Container;
            self.done.rewrites.push(Rewrite { kind, key: key.clone(), from, to, because });
        }
        self.project.services = services;
    }

    /// Keys of networks on which others are, too.
    fn shared_networks(&self) -> BTreeSet<String> {
        let shared = self.done.shared.iter().filter(|shared| shared.code == "shared-network");
        shared.filter_map(|shared| shared.path.last().cloned()).collect()
    }

    /// New names of containers, by those of the file.
    fn renamed(&self) -> BTreeMap<String, String> {
        let containers = self.done.rewrites.iter().filter(|r| r.kind == Named::Container);
        containers.map(|rewrite| (rewrite.from.clone(), rewrite.to.clone())).collect()
    }

    /// What names a container rather than a service.
    fn references(&mut self) {
        let renamed = self.renamed();
        let taken = self.taken(names_of_containers);
        let own: BTreeSet<String> =
            names_of_containers(&self.project).into_iter().map(str::to_owned).collect();
        let mut refused = Vec::new();
        for (key, service) in &mut self.project.services {
            let mut follow = |attribute: &str, name: &str| -> Option<String> {
                if let Some(to) = renamed.get(name) {
                    return Some(to.clone());
                }
                if let Some(because) = taken.get(name).filter(|_| !own.contains(name)) {
                    refused.push(Refused {
                        path: ["services", key, attribute].map(str::to_owned).to_vec(),
                        message: format!(
                            "`{key}` needs the container `{name}`, which is {because}'s"
                        ),
                        help: "name a service of this project: `service:NAME`, or a network"
                            .to_owned(),
                    });
                }
                None
            };
            for (attribute, mode) in [
                ("network_mode", &mut service.network_mode),
                ("pid", &mut service.pid),
                ("ipc", &mut service.ipc),
            ] {
                let name = mode.as_deref().and_then(|mode| mode.strip_prefix("container:"));
                if let Some(to) = name.and_then(|name| follow(attribute, name)) {
                    *mode = Some(format!("container:{to}"));
                }
            }
            for from in &mut service.volumes_from {
                let Some(rest) = from.strip_prefix("container:") else { continue };
                let (name, rights) =
                    rest.split_once(':').map_or((rest, None), |(n, r)| (n, Some(r)));
                if let Some(to) = follow("volumes_from", name) {
                    let rights = rights.map(|rights| format!(":{rights}")).unwrap_or_default();
                    *from = format!("container:{to}{rights}");
                }
            }
            for link in &mut service.external_links {
                let (name, alias) = link.split_once(':').unwrap_or((link.as_str(), link.as_str()));
                if let Some(to) = follow("external_links", name) {
                    // Without an alias it was known by the name of the file.
                    *link = format!("{to}:{alias}");
                }
            }
        }
        self.refused.extend(refused);
    }

    /// Values are the program's own and stay; those that name the other's container are told.
    fn variables(&mut self) {
        let renamed = self.renamed();
        let own: BTreeSet<String> =
            names_of_containers(&self.project).into_iter().map(str::to_owned).collect();
        let taken: Taken = self
            .taken(names_of_containers)
            .into_iter()
            .filter(|(name, _)| !own.contains(name) && !renamed.contains_key(name))
            .filter(|(name, _)| !self.project.services.contains_key(name))
            .collect();
        for (key, service) in &self.project.services {
            for (variable, value) in &service.environment {
                let value = value.as_deref().unwrap_or_default();
                let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
                let words: BTreeSet<&str> = value.split(|c| !is_word(c)).collect();
                for (name, with) in taken.iter().filter(|(name, _)| words.contains(name.as_str())) {
                    self.done.shared.push(Shared {
                        code: "names-other",
                        path: ["services", key, "environment", variable]
                            .map(str::to_owned)
                            .to_vec(),
                        text: format!(
                            "{variable} of `{key}` names `{name}`, a container of {with}"
                        ),
                        with: with.clone(),
                    });
                }
            }
        }
    }
}

fn names_of_containers(project: &Project) -> Vec<&str> {
    project.services.values().filter_map(|service| service.container_name.as_deref()).collect()
}

/// The name of the file goes on to be known on networks of the environment's own. On one that
/// others are on it would catch what is meant for them.
fn keep_as_alias(service: &mut Service, name: &str, shared: &BTreeSet<String>) {
    for (network, attachment) in &mut service.networks {
        if !shared.contains(network) {
            let attachment = attachment.get_or_insert_with(Attachment::default);
            if !attachment.aliases.iter().any(|alias| alias == name) {
                attachment.aliases.push(name.to_owned());
            }
        }
    }
}
