//! Containers that stand above all others: they reach every environment.

use crate::check::Report;
use crate::container::{Container, Join, MountKind, NetworkMode};
use crate::finding::{Code, Finding, Party, Tried, count};
use crate::place::Place;
use crate::seen::Snapshot;

/// Sockets by which engines are told what to do. Links such as /var/run have been followed where
/// they could be; both spellings are here for where they could not.
const SOCKETS: &[&str] = &[
    "/run/docker.sock",
    "/var/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/var/run/containerd/containerd.sock",
    "/run/podman/podman.sock",
    "/run/crio/crio.sock",
];
/// Names of such sockets, wherever they are: a rootless engine keeps its own in a user's folder.
const SOCKET_NAMES: &[&str] = &["docker.sock", "containerd.sock", "podman.sock", "crio.sock"];
/// Rights with which a container gets out of it.
const CAPABILITIES: &[&str] = &["ALL", "SYS_ADMIN", "SYS_MODULE", "SYS_RAWIO", "DAC_READ_SEARCH"];

/// Whether a place is a socket that controls an engine.
pub(crate) fn is_control(place: &Place) -> bool {
    let name = place.path.file_name().unwrap_or_default().to_string_lossy();
    SOCKET_NAMES.contains(&name.as_ref())
}

/// Whether such a socket is inside of it: /run, or the whole machine.
fn holds_control(place: &Place) -> bool {
    SOCKETS.iter().any(|socket| place.holds(&Place::at(socket)))
}

pub(crate) fn check(all: &[Snapshot], report: &mut Report) {
    let containers: usize = all.iter().map(|snapshot| snapshot.services().count()).sum();
    let text = format!(
        "looked at {} for the engine's socket, every right, and the machine's own namespaces",
        count(containers, "container", "containers")
    );
    let findings = all.iter().flat_map(|snapshot| {
        snapshot.services().flat_map(|container| of(&snapshot.party(container), container))
    });
    report.add(Tried { what: "control", count: containers, text }, findings.collect::<Vec<_>>());
}

fn of(party: &Party, container: &Container) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut add = |code: Code, what: String, fix: &str| {
        found.push(Finding { code, what, between: vec![party.clone()], fix: fix.to_owned() });
    };
    let binds = container.mounts.iter().filter(|mount| mount.kind == MountKind::Bind);
    for place in binds.filter_map(|mount| mount.place.as_ref()) {
        let path = place.path.display();
        if is_control(place) || holds_control(place) {
            add(
                Code::ControlSocket,
                format!(
                    "{party} has {path}: with the engine's socket it reaches every environment"
                ),
                "take it out of `volumes` (also read-only it gives all); what needs containers' \
                 names can have them from a proxy of the socket that allows nothing else",
            );
        }
        if place.holds(&Place::at("/proc")) {
            add(
                Code::HostProcesses,
                format!(
                    "{party} has {path}: it sees the variables of every process of the machine"
                ),
                "take it out of `volumes`",
            );
        }
    }
    if container.privileged {
        add(
            Code::Privileged,
            format!(
                "{party} is privileged: it can mount the machine's disks, and so reach everything"
            ),
            "leave `privileged: true` out, and name what it needs with `cap_add` and `devices`",
        );
    }
    for name in container.capabilities.iter().filter(|name| CAPABILITIES.contains(&name.as_str())) {
        add(
            Code::Privileged,
            format!("{party} has the right {name}, by which it gets out of its container"),
            "leave it out of `cap_add`",
        );
    }
    if container.network_mode == NetworkMode::Host {
        add(
            Code::HostNetwork,
            format!(
                "{party} is in the machine's network: it reaches every container, and ports on \
                 127.0.0.1"
            ),
            "leave `network_mode: host` out, and publish its ports with `ports`",
        );
    }
    if container.processes == Join::Host {
        add(
            Code::HostProcesses,
            format!("{party} sees all processes of the machine, and as root their variables too"),
            "leave `pid: host` out",
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_found_by_its_name_and_in_a_folder_above() {
        let known = |path| is_control(&Place::at(path)) || holds_control(&Place::at(path));
        for path in ["/var/run/docker.sock", "/run", "/var", "/", "/home/u/.docker/run/docker.sock"]
        {
            assert!(known(path), "{path}");
        }
        for path in ["/srv", "/run/postgresql", "/var/lib", "/etc"] {
            assert!(!known(path), "{path}");
        }
    }
}
