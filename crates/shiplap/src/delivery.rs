//! Files of the project's folder that containers on another machine mount.
//!
//! Such a mount's source is no path there, so it becomes one:
//!
//! ```text
//! /var/lib/shiplap-files/PROJECT/same/HASH/NAME   a file, or a folder that is mounted read-only
//! /var/lib/shiplap-files/PROJECT/kept/PATH        a folder that containers write to
//! ```
//!
//! What is below `same` is never changed: other content has another hash, so that it is a change of
//! the service, and going back finds what was there. What is below `kept` is filled once, when it is
//! made. All of it travels through the engine's API.

mod archive;
mod supply;

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use shiplap_compose::model::{Mount, MountKind};
use shiplap_compose::{Diagnostic, Loaded};
use shiplap_model::Note;

pub use supply::Files;

/// Where it is all kept, on the other machine.
const ROOT: &str = "/var/lib/shiplap-files";
/// In a project's folder: what is never changed.
const SAME: &str = "same";
/// In a project's folder: what containers write to.
const KEPT: &str = "kept";

/// What is to be on the other machine, by its path there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deliveries {
    all: BTreeMap<String, Delivery>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Delivery {
    /// Its path here. Nothing may be there: then it is an empty folder.
    source: PathBuf,
    /// Of its content, where that is to be the same for ever.
    hash: Option<String>,
}

/// Leads mounts from the folders of a project to where their content will be on another machine.
/// Returns what has to be there, and what is good to know of it.
///
/// Sources outside of the folders are that machine's own, and stay.
///
/// # Errors
/// Everything that cannot be read, or is too large.
pub fn prepare(
    loaded: &mut Loaded,
    folders: &[PathBuf],
) -> Result<(Deliveries, Vec<Note>), Vec<Diagnostic>> {
    let mut deliveries = Deliveries::default();
    let (mut notes, mut problems, mut paths) = (Vec::new(), Vec::new(), Vec::new());
    let base = format!("{ROOT}/{}", loaded.project.name);
    for (name, service) in &loaded.project.services {
        for (index, mount) in service.volumes.iter().enumerate() {
            let Some((source, relative)) = own(mount, folders) else { continue };
            let is_same = source.is_file() || (mount.read_only && source.exists());
            let delivered = if is_same {
                archive::hash(&source).map(|hash| {
                    // A name that says what it is to whoever looks there.
                    let own = source.file_name().unwrap_or_default().to_string_lossy();
                    (format!("{base}/{SAME}/{hash}/{own}"), Some(hash))
                })
            } else {
                archive::hash(&source).map(|_| (format!("{base}/{KEPT}/{relative}"), None))
            };
            match delivered {
                Ok((there, hash)) => {
                    if hash.is_none() && !deliveries.all.contains_key(&there) {
                        notes.push(kept(name, &relative, &there));
                    }
                    deliveries.all.insert(there.clone(), Delivery { source, hash });
                    paths.push((name.clone(), index, there));
                }
                Err(error) => problems.push(
                    Diagnostic::error(
                        "files/not-delivered",
                        format!("`{name}` mounts `{relative}`, which cannot be delivered: {error}"),
                    )
                    .at(loaded.span(&["services", name, "volumes"]), "")
                    .help("put it on that machine yourself, and mount its absolute path there"),
                ),
            }
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    for (service, index, there) in paths {
        let service = loaded.project.services.get_mut(&service).expect("it was just looked at");
        service.volumes[index].source = Some(there);
    }
    Ok((deliveries, notes))
}

fn kept(service: &str, relative: &str, there: &str) -> Note {
    let text = format!(
        "{service} writes to ./{relative}, which is {there} on that machine: it is filled with what \
         is here when it is made, and never again"
    );
    Note { code: "files-kept", text }
}

/// The source of a mount that lies in a folder of the project, and its path from there.
fn own(mount: &Mount, folders: &[PathBuf]) -> Option<(PathBuf, String)> {
    if mount.kind != MountKind::Bind {
        return None;
    }
    let source = Path::new(mount.source.as_deref()?);
    // `.` and `..` were followed when the file was loaded; what has any left is not ours to judge.
    if source.components().any(|part| part == Component::ParentDir) {
        return None;
    }
    let relative = folders.iter().find_map(|folder| source.strip_prefix(folder).ok())?;
    let relative = relative.to_str()?;
    let relative = if relative.is_empty() { "." } else { relative };
    Some((source.to_path_buf(), relative.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use shiplap_compose::{OsFiles, Request};

    /// A project in a folder with a file, a folder, and what a service writes.
    fn loaded(folder: &Path, volumes: &str) -> Loaded {
        std::fs::write(folder.join("nginx.conf"), "listen 80;").unwrap();
        std::fs::create_dir_all(folder.join("site")).unwrap();
        std::fs::write(folder.join("site/index.html"), "hello").unwrap();
        let text = format!(
            "name: shop\nservices: {{ web: {{ image: a, volumes: {volumes} }} }}\n\
             volumes: {{ data: {{}} }}\n"
        );
        std::fs::write(folder.join("compose.yaml"), text).unwrap();
        let request = Request { working_dir: folder.to_path_buf(), ..Request::default() };
        shiplap_compose::load(&request, &OsFiles).unwrap()
    }

    fn sources(loaded: &Loaded) -> Vec<String> {
        let volumes = &loaded.project.services["web"].volumes;
        volumes.iter().map(|mount| mount.source.clone().unwrap()).collect()
    }

    fn prepared(folder: &Path, volumes: &str) -> (Vec<String>, Vec<Note>) {
        let mut loaded = loaded(folder, volumes);
        let (deliveries, notes) = prepare(&mut loaded, &[folder.to_path_buf()]).unwrap();
        let sources = sources(&loaded);
        let ours = sources.iter().filter(|source| source.starts_with(ROOT));
        assert!(ours.clone().all(|source| deliveries.all.contains_key(source)));
        assert_eq!(ours.count(), deliveries.all.len());
        (sources, notes)
    }

    #[test]
    fn what_is_only_read_is_known_by_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let volumes = "['./nginx.conf:/etc/nginx.conf', './site:/site:ro']";
        let (before, notes) = prepared(folder.path(), volumes);
        assert!(before[0].starts_with("/var/lib/shiplap-files/shop/same/"), "{before:?}");
        assert!(before[0].ends_with("/nginx.conf") && before[1].ends_with("/site"), "{before:?}");
        assert_eq!(notes, []);
        assert_eq!(prepared(folder.path(), volumes).0, before);
        let mut changed = loaded(folder.path(), volumes);
        std::fs::write(folder.path().join("nginx.conf"), "listen 81;").unwrap();
        prepare(&mut changed, &[folder.path().to_path_buf()]).unwrap();
        assert_ne!(sources(&changed)[0], before[0]);
        assert_eq!(sources(&changed)[1], before[1]);
    }

    #[test]
    fn what_is_written_stays_where_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let (sources, notes) = prepared(folder.path(), "['./site:/site', './new:/new']");
        assert_eq!(
            sources,
            ["/var/lib/shiplap-files/shop/kept/site", "/var/lib/shiplap-files/shop/kept/new",]
        );
        assert_eq!(notes.len(), 2);
        assert!(notes[0].text.contains("web writes to ./site"), "{}", notes[0].text);
    }

    #[test]
    fn what_is_not_the_projects_is_the_other_machines_own() {
        let folder = tempfile::tempdir().unwrap();
        let volumes = "['/etc/localtime:/etc/localtime:ro', 'data:/data']";
        let mut loaded = loaded(folder.path(), volumes);
        let before = sources(&loaded);
        let folders = [folder.path().join("project")];
        assert_eq!(prepare(&mut loaded, &folders).unwrap().0, Deliveries::default());
        assert_eq!(sources(&loaded), before);
    }

    #[test]
    fn what_is_too_large_is_refused_before_anything_is_done() {
        let folder = tempfile::tempdir().unwrap();
        let mut loaded = loaded(folder.path(), "['./large:/large:ro']");
        let large = std::fs::File::create(folder.path().join("large")).unwrap();
        large.set_len(65 << 20).unwrap();
        let problems = prepare(&mut loaded, &[folder.path().to_path_buf()]).unwrap_err();
        assert_eq!(problems[0].code, "files/not-delivered");
        assert!(problems[0].message.contains("64 MiB"), "{}", problems[0].message);
    }
}
