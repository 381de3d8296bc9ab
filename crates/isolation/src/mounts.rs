//! Volumes, paths of the machine and devices that both have.

use std::collections::BTreeSet;

use crate::check::Report;
use crate::container::{Backing, Container, Mount, MountKind};
use crate::control::is_control;
use crate::finding::{Code, Finding, Party, Tried, count};
use crate::place::Place;
use crate::seen::{Snapshot, pairs};

/// Devices that hold nothing of anybody, or are made to be shared.
const HARMLESS_DEVICES: &[&str] = &[
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/net/tun",
    "/dev/fuse",
    "/dev/kvm",
    "/dev/dri",
];

pub(crate) fn check(all: &[Snapshot], strangers: &[(String, Container)], report: &mut Report) {
    let mounts = || all.iter().flat_map(mounted);
    let volumes: BTreeSet<&str> = mounts().filter_map(|(_, mount)| volume(mount)).collect();
    let binds = mounts().filter(|(_, mount)| mount.kind == MountKind::Bind).count();
    let text = format!(
        "compared {} and {} by what they are on the machine",
        count(volumes.len(), "volume", "volumes"),
        count(binds, "bind mount", "bind mounts"),
    );
    let tried = Tried { what: "mounts", count: volumes.len() + binds, text };
    let shared = pairs(all).flat_map(|(one, two)| shared(one, two));
    report.add(tried, shared.chain(neighbours(all, strangers)));
    report.findings.extend(pairs(all).flat_map(|(one, two)| devices(one, two)));
}

fn mounted(snapshot: &Snapshot) -> impl Iterator<Item = (&Container, &Mount)> {
    snapshot.containers.iter().flat_map(|c| c.mounts.iter().map(move |mount| (c, mount)))
}

fn volume(mount: &Mount) -> Option<&str> {
    match &mount.kind {
        MountKind::Volume(name) => Some(name),
        MountKind::Bind => None,
    }
}

/// What two mounts have in common.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Common {
    Volume(String),
    Path(String),
    Remote(String),
}

fn common(one: &Mount, two: &Mount) -> Option<Common> {
    if let (Some(name), Some(other)) = (volume(one), volume(two))
        && name == other
    {
        return Some(Common::Volume(name.to_owned()));
    }
    if let (Some(Backing::Remote(name)), Some(Backing::Remote(other))) =
        (&one.backing, &two.backing)
        && name == other
    {
        return Some(Common::Remote(name.clone()));
    }
    let overlapping = places(one)
        .flat_map(|place| places(two).map(move |other| (place, other)))
        .find(|(place, other)| place.overlaps(other));
    overlapping.map(|(place, other)| {
        let (place, other) = (place.path.display(), other.path.display());
        let text = place.to_string();
        Common::Path(if text == other.to_string() { text } else { format!("{place} and {other}") })
    })
}

fn places(mount: &Mount) -> impl Iterator<Item = &Place> {
    let backing = match &mount.backing {
        Some(Backing::Place(place)) => Some(place),
        Some(Backing::Remote(_)) | None => None,
    };
    // The engine's socket is a finding of its own.
    mount.place.iter().chain(backing).filter(|place| !is_control(place))
}

fn shared(one: &Snapshot, two: &Snapshot) -> Vec<Finding> {
    let mut found: Vec<(Common, Party, Party, bool)> = Vec::new();
    for (container, mount) in mounted(one) {
        for (other, other_mount) in mounted(two) {
            if let Some(common) = common(mount, other_mount) {
                let writable = mount.writable || other_mount.writable;
                found.push((common, one.party(container), two.party(other), writable));
            }
        }
    }
    found.sort();
    found.dedup();
    found
        .into_iter()
        .map(|(common, one, two, writable)| tell(&common, one, two, writable))
        .collect()
}

fn tell(common: &Common, one: Party, two: Party, writable: bool) -> Finding {
    let (code, thing, own) = match common {
        Common::Volume(name) => (
            Code::SharedVolume,
            format!("volume {name}"),
            "leave `name:` and `external:` out of the volume, so that each environment gets its own",
        ),
        Common::Path(paths) => (
            Code::SharedPath,
            paths.clone(),
            "give each environment a folder of its own, with none inside of another's",
        ),
        Common::Remote(name) => (
            Code::SharedVolume,
            format!("the storage {name}"),
            "give each environment an export of its own in `driver_opts`",
        ),
    };
    let between = vec![one.clone(), two.clone()];
    if !writable {
        return Finding {
            code: Code::SharedReadOnly,
            what: format!("{one} and {two} both read {thing}, and neither can write there"),
            between,
            fix: "nothing, if it is meant for both".to_owned(),
        };
    }
    Finding {
        code,
        what: format!("{one} and {two} share {thing}, and at least one of them can write there"),
        between,
        fix: format!("{own}; or mount it `read_only: true` in both"),
    }
}

fn neighbours(all: &[Snapshot], strangers: &[(String, Container)]) -> Vec<Finding> {
    let mut found = Vec::new();
    for snapshot in all {
        for (container, name, writable) in mounted(snapshot)
            .filter_map(|(container, mount)| Some((container, volume(mount)?, mount.writable)))
        {
            for (project, stranger) in strangers {
                let there = stranger.mounts.iter().find(|mount| volume(mount) == Some(name));
                let Some(there) = there.filter(|there| writable || there.writable) else {
                    continue;
                };
                let party = Party {
                    environment: String::new(),
                    project: project.clone(),
                    service: stranger.service.clone(),
                    container: Some(stranger.name.clone()),
                };
                let doing = if there.writable { "writes to" } else { "reads" };
                found.push(Finding {
                    code: Code::Neighbour,
                    what: format!(
                        "{}, which is of none of these environments, {doing} volume {name} of {}",
                        stranger.name,
                        snapshot.party(container)
                    ),
                    between: vec![snapshot.party(container), party],
                    fix: "if it has no business there, give it another volume".to_owned(),
                });
            }
        }
    }
    found
}

fn devices(one: &Snapshot, two: &Snapshot) -> Vec<Finding> {
    let all = |snapshot: &'_ Snapshot| -> Vec<(Party, String, bool)> {
        let of = |c: &Container| {
            let party = snapshot.party(c);
            let devices =
                c.devices.iter().map(|(path, writable)| (party.clone(), path.clone(), *writable));
            devices.collect::<Vec<_>>()
        };
        snapshot.containers.iter().flat_map(of).collect()
    };
    let harmless = |path: &str| {
        HARMLESS_DEVICES.iter().any(|known| std::path::Path::new(path).starts_with(known))
    };
    let theirs = all(two);
    let mut found = Vec::new();
    for (party, path, writable) in all(one) {
        for (other, _, other_writable) in theirs.iter().filter(|(_, other, _)| *other == path) {
            if (writable || *other_writable) && !harmless(&path) {
                found.push(Finding {
                    code: Code::SharedDevice,
                    what: format!(
                        "{party} and {other} share the device {path}, and can write to it"
                    ),
                    between: vec![party.clone(), other.clone()],
                    fix: "leave it out of `devices` in one of them".to_owned(),
                });
            }
        }
    }
    found
}
