//! The folder of the project that is shown, as a user would have it.

use std::cell::Cell;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

const COMPOSE: &str = include_str!("../../compose.yaml");
const DOCKERFILE: &str = include_str!("../../Dockerfile");
/// Places to look for three free ports side by side, ten apart.
const PORT_TRIES: u16 = 20;

/// A temporary folder with a Compose file, a Dockerfile and the application.
pub struct Folder {
    /// Where it is.
    pub path: PathBuf,
    /// Its last part, which is also the name of the Compose project.
    pub project: String,
    /// The published ports of web, api and store.
    pub ports: [u16; 3],
    runs: Cell<u32>,
}

impl Folder {
    /// Makes the folder. The ports are the first three free ones from `port` on.
    pub fn create(app: &Path, port: u16) -> Result<Folder, String> {
        let ports = free_ports(port)?;
        let project = format!("shiplap-demo-{}", std::process::id());
        let path = std::env::temp_dir().join(&project);
        let failed = |what: &Path, error| format!("writing {} failed: {error}", what.display());
        std::fs::create_dir(&path).map_err(|error| failed(&path, error))?;
        let folder = Folder { path, project, ports, runs: Cell::new(0) };
        let environment: String =
            folder.variables().iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        for (name, content) in
            [("compose.yaml", COMPOSE), ("Dockerfile", DOCKERFILE), (".env", &environment)]
        {
            let file = folder.path.join(name);
            std::fs::write(&file, content).map_err(|error| failed(&file, error))?;
        }
        std::fs::copy(app, folder.path.join("app")).map_err(|error| failed(app, error))?;
        Ok(folder)
    }

    /// The variables of the Compose file, but for the tag.
    pub fn variables(&self) -> [(&'static str, String); 3] {
        let [web, api, store] = self.ports.map(|port| port.to_string());
        [("DEMO_PORT", web), ("DEMO_API_PORT", api), ("DEMO_STORE_PORT", store)]
    }

    /// Numbers the runs, to keep what each printed.
    pub fn next_number(&self) -> u32 {
        self.runs.set(self.runs.get() + 1);
        self.runs.get()
    }

    /// What the image is built from: the Dockerfile and the application.
    pub fn context(&self) -> Result<Vec<u8>, String> {
        let app = self.path.join("app");
        let content = std::fs::read(&app);
        let content = content.map_err(|e| format!("reading {} failed: {e}", app.display()))?;
        Ok(crate::tarball::tarball(&[
            crate::tarball::Entry {
                name: "Dockerfile",
                mode: 0o644,
                content: DOCKERFILE.as_bytes(),
            },
            crate::tarball::Entry { name: "app", mode: 0o755, content: &content },
        ]))
    }

    /// Removes the folder.
    pub fn remove(&self) -> Result<(), String> {
        let failed = |error| format!("removing {} failed: {error}", self.path.display());
        std::fs::remove_dir_all(&self.path).map_err(failed)
    }
}

fn free_ports(from: u16) -> Result<[u16; 3], String> {
    let is_free = |port: &u16| TcpListener::bind(("0.0.0.0", *port)).is_ok();
    let starts = (0..PORT_TRIES).filter_map(|index| from.checked_add(index * 10));
    starts
        .filter_map(|port| Some([port, port.checked_add(1)?, port.checked_add(2)?]))
        .find(|ports| ports.iter().all(is_free))
        .ok_or_else(|| format!("no three free ports from {from} on; choose others with --port"))
}
