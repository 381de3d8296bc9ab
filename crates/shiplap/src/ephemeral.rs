//! Environments that are in no file: made for a while from one that is, such as a preview of a
//! pull request. Each is a small file in the state folder, `environments/PROJECT/NAME.json`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use shiplap_compose::Diagnostic;
use shiplap_config::is_name;

/// The folder of them in the state folder.
const FOLDER: &str = "environments";
/// Version of the stored form.
const VERSION: u64 = 1;
/// The most bytes that a file of one may have.
const LARGEST: u64 = 64 << 10;

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ephemeral {
    /// The project that it is an environment of.
    pub project: String,
    /// Its name.
    pub name: String,
    /// The environment of the file that it was made from.
    pub from: String,
    /// Its Compose project.
    pub project_name: String,
    /// The `shiplap.yaml` that it was made with.
    pub config: PathBuf,
    /// Who made it.
    pub by: String,
    /// When, milliseconds since 1970.
    pub created_ms: i64,
    /// When its time is over, milliseconds since 1970; nothing for one that stays until removed.
    pub expires_ms: Option<i64>,
}

impl Ephemeral {
    /// Whether its time is over.
    pub fn is_over(&self, now_ms: i64) -> bool {
        self.expires_ms.is_some_and(|expires| expires <= now_ms)
    }

    fn json(&self) -> Value {
        json!({
            "version": VERSION,
            "project": self.project,
            "name": self.name,
            "from": self.from,
            "project_name": self.project_name,
            "config": self.config.to_string_lossy(),
            "by": self.by,
            "created_ms": self.created_ms,
            "expires_ms": self.expires_ms,
        })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let json: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        match json["version"].as_u64() {
            Some(VERSION) => {}
            Some(newer) => return Err(format!("a newer shiplap wrote it (version {newer})")),
            None => return Err("it says no version".to_owned()),
        }
        let text = |key: &str| {
            let text = json[key].as_str().map(str::to_owned);
            text.ok_or_else(|| format!("it says no `{key}`"))
        };
        let found = Self {
            project: text("project")?,
            name: text("name")?,
            from: text("from")?,
            project_name: text("project_name")?,
            config: text("config")?.into(),
            by: text("by")?,
            created_ms: json["created_ms"].as_i64().ok_or("it says no `created_ms`")?,
            expires_ms: json["expires_ms"].as_i64(),
        };
        // These become parts of paths and of names on the engine.
        let names = [&found.project, &found.name, &found.from, &found.project_name];
        match names.iter().find(|name| !is_name(name)) {
            Some(wrong) => Err(format!("`{wrong}` is no name")),
            None => Ok(found),
        }
    }
}

/// Where they are kept.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// The one in a state folder. Nothing is made before something is written.
    pub fn new(state: &Path) -> Self {
        Self { folder: state.join(FOLDER) }
    }

    /// The one of this user.
    pub fn open() -> Self {
        Self::new(&crate::world::state_dir())
    }

    fn path(&self, project: &str, name: &str) -> PathBuf {
        self.folder.join(project).join(format!("{name}.json"))
    }

    /// Those of all projects, in order of project and name.
    ///
    /// # Errors
    /// Those that cannot be read, each with its file.
    pub fn all(&self) -> Result<Vec<Ephemeral>, Vec<Diagnostic>> {
        let (mut found, mut problems) = (Vec::new(), Vec::new());
        for project in listed(&self.folder).map_err(|e| vec![unreadable(&self.folder, &e)])? {
            match self.of(&project) {
                Ok(of_project) => found.extend(of_project),
                Err(more) => problems.extend(more),
            }
        }
        if problems.is_empty() { Ok(found) } else { Err(problems) }
    }

    /// Those of one project, in order of name.
    ///
    /// # Errors
    /// Those that cannot be read, each with its file.
    pub fn of(&self, project: &str) -> Result<Vec<Ephemeral>, Vec<Diagnostic>> {
        if !is_name(project) {
            return Ok(Vec::new());
        }
        let folder = self.folder.join(project);
        let (mut found, mut problems) = (Vec::new(), Vec::new());
        for file in listed(&folder).map_err(|error| vec![unreadable(&folder, &error)])? {
            let Some(name) = file.strip_suffix(".json").filter(|name| is_name(name)) else {
                continue;
            };
            match self.find(project, name) {
                Ok(one) => found.extend(one),
                Err(problem) => problems.push(*problem),
            }
        }
        if problems.is_empty() { Ok(found) } else { Err(problems) }
    }

    /// One of them; nothing where there is none.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub fn find(&self, project: &str, name: &str) -> Result<Option<Ephemeral>, Box<Diagnostic>> {
        use shiplap_compose::FileSource as _;
        if !is_name(project) || !is_name(name) {
            return Ok(None);
        }
        let path = self.path(project, name);
        let bytes = match shiplap_compose::OsFiles.read(&path, LARGEST) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Box::new(unreadable(&path, &error))),
        };
        match Ephemeral::parse(&String::from_utf8_lossy(&bytes)) {
            Ok(found) if found.project == project && found.name == name => Ok(Some(found)),
            Ok(_) => Err(Box::new(unreadable(&path, &"it is of another environment"))),
            Err(why) => Err(Box::new(unreadable(&path, &why))),
        }
    }

    /// Writes one down, instead of what is there of it; it is on disk when this returns.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn write(&self, environment: &Ephemeral) -> io::Result<()> {
        let path = self.path(&environment.project, &environment.name);
        let folder = path.parent().expect("it is in a folder of its project");
        fs::create_dir_all(folder)?;
        let temporary = folder.join(format!(".{}.{}", environment.name, std::process::id()));
        let written = write_synced(&temporary, &format!("{:#}\n", environment.json()))
            .and_then(|()| fs::rename(&temporary, &path))
            .and_then(|()| File::open(folder)?.sync_all());
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    /// Forgets one. One that is gone is no error.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn forget(&self, environment: &Ephemeral) -> io::Result<()> {
        match fs::remove_file(self.path(&environment.project, &environment.name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

fn write_synced(path: &Path, text: &str) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Names in a folder, in order; none where there is no folder.
fn listed(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

fn unreadable(path: &Path, why: &dyn std::fmt::Display) -> Diagnostic {
    let message = format!("cannot read `{}`: {why}", path.display());
    Diagnostic::error("config/unreadable", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preview() -> Ephemeral {
        Ephemeral {
            project: "shop".to_owned(),
            name: "pr-42".to_owned(),
            from: "dev".to_owned(),
            project_name: "shop-pr-42".to_owned(),
            config: "/srv/shop/shiplap.yaml".into(),
            by: "ada@vm1".to_owned(),
            created_ms: 1_000,
            expires_ms: Some(5_000),
        }
    }

    #[test]
    fn what_is_written_is_found_and_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        assert_eq!(store.all().unwrap(), []);
        let kept = Ephemeral { name: "a".to_owned(), expires_ms: None, ..preview() };
        store.write(&preview()).unwrap();
        store.write(&kept).unwrap();
        let other = Ephemeral { project: "other".to_owned(), ..preview() };
        store.write(&other).unwrap();
        assert_eq!(store.of("shop").unwrap(), [kept.clone(), preview()]);
        assert_eq!(store.all().unwrap(), [other, kept.clone(), preview()]);
        let longer = Ephemeral { expires_ms: Some(9_000), ..preview() };
        store.write(&longer).unwrap();
        assert_eq!(store.find("shop", "pr-42").unwrap(), Some(longer.clone()));
        store.forget(&longer).unwrap();
        store.forget(&longer).unwrap();
        assert_eq!(store.of("shop").unwrap(), [kept]);
    }

    #[test]
    fn the_time_of_one_is_over_or_it_has_none() {
        assert!(!preview().is_over(4_999));
        assert!(preview().is_over(5_000));
        assert!(!Ephemeral { expires_ms: None, ..preview() }.is_over(i64::MAX));
    }

    #[test]
    fn version_1_is_read_and_a_newer_one_is_not() {
        let stored = r#"{"version":1,"project":"shop","name":"pr-42","from":"dev",
            "project_name":"shop-pr-42","config":"/srv/shop/shiplap.yaml","by":"ada@vm1",
            "created_ms":1000,"expires_ms":5000,"more":true}"#;
        assert_eq!(Ephemeral::parse(stored), Ok(preview()));
        let newer = stored.replace("\"version\":1", "\"version\":2");
        assert!(Ephemeral::parse(&newer).unwrap_err().contains("newer"));
    }

    #[test]
    fn a_name_cannot_lead_out_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        assert_eq!(store.find("..", "x").unwrap(), None);
        assert_eq!(store.find("shop", "../x").unwrap(), None);
        let stored = format!("{}", preview().json()).replace("shop-pr-42", "../x");
        assert!(Ephemeral::parse(&stored).unwrap_err().contains("no name"));
    }

    #[test]
    fn a_torn_file_is_said_and_not_skipped() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        store.write(&preview()).unwrap();
        fs::write(store.path("shop", "pr-43"), "{").unwrap();
        let problems = store.of("shop").unwrap_err();
        assert!(problems[0].message.contains("pr-43.json"), "{}", problems[0].message);
    }
}
