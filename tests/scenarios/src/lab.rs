//! A project of one's own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::engine::label;
use crate::{Engine, Host, Images, Port, Program, Run, Running, binary};

/// Names of all projects of tests begin so.
const PREFIX: &str = "shiplap-scn-";
/// Names of their folders begin so: short, since the path of a socket has at most 107 bytes.
const FOLDER: &str = "slscn-";

/// A project with a folder, three free ports, a history and an edge that nobody else has. Dropping
/// it removes everything of it, in a panic too.
#[derive(Debug)]
pub struct Lab {
    /// The engine.
    pub engine: Engine,
    /// The project's name.
    pub project: String,
    /// The images that its services run.
    pub images: Images,
    /// For `${API_PORT}`.
    pub api: u16,
    /// For `${STORE_PORT}`.
    pub store: u16,
    /// For `${WEB_PORT}`.
    pub web: u16,
    variables: Mutex<BTreeMap<String, String>>,
    _ports: Vec<Port>,
    folder: tempfile::TempDir,
}

impl Lab {
    /// A project, unless no engine answers.
    ///
    /// # Panics
    /// If the folder or the images cannot be made.
    #[must_use]
    pub fn new(purpose: &str) -> Option<Self> {
        Engine::connect().map(|engine| Self::on(engine, purpose))
    }

    /// A project on an engine of the caller's choice.
    ///
    /// # Panics
    /// If the folder or the images cannot be made.
    #[must_use]
    pub fn on(engine: Engine, purpose: &str) -> Self {
        let ports: Vec<Port> = (0..3).map(|_| Port::free()).collect();
        let numbers = [0, 1, 2].map(|index: usize| ports[index].number());
        Self::with_ports(engine, purpose, numbers, ports)
    }

    /// A project on another machine, which commands reach by ssh.
    ///
    /// # Panics
    /// If the folder or the images cannot be made.
    #[must_use]
    pub fn at(host: &Host, purpose: &str) -> Self {
        let ports = host.ports();
        let numbers = [ports[0], ports[1], ports[2]];
        let lab = Self::with_ports(host.engine(), purpose, numbers, Vec::new());
        lab.set("PATH", &host.path());
        lab.set("DOCKER_HOST", "ssh://root@vm");
        lab
    }

    fn with_ports(
        engine: Engine,
        purpose: &str,
        [api, store, web]: [u16; 3],
        kept: Vec<Port>,
    ) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        sweep(&engine);
        let images = Images::ensure(&engine);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let project = format!("{PREFIX}{purpose}-{}-{number}", std::process::id());
        let prefix = format!("{FOLDER}{}-", std::process::id());
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir();
        let folder = folder.expect("a temporary folder can be made");
        std::fs::create_dir(folder.path().join("project")).expect("a folder can be made");
        let lab = Self {
            engine,
            project,
            images,
            api,
            store,
            web,
            variables: Mutex::default(),
            _ports: kept,
            folder,
        };
        lab.set("APP", &lab.images.name);
        lab.set("TAG", "v1");
        lab.set("API_PORT", &api.to_string());
        lab.set("STORE_PORT", &store.to_string());
        lab.set("WEB_PORT", &web.to_string());
        lab.set("DOCKER_HOST", &format!("unix://{}", lab.engine.socket().display()));
        lab
    }

    /// The folder of the Compose file.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.folder.path().join("project")
    }

    /// The folder of history.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// The folder of the edge.
    #[must_use]
    pub fn edge_dir(&self) -> PathBuf {
        self.folder.path().join("edge")
    }

    /// Writes a file of the project.
    ///
    /// # Panics
    /// If that fails.
    pub fn write(&self, name: &str, content: &str) {
        let path = self.dir().join(name);
        let parent = path.parent().expect("a file is in a folder");
        std::fs::create_dir_all(parent).expect("a folder can be made");
        std::fs::write(path, content).expect("a file can be written");
    }

    /// Writes `compose.yaml`.
    pub fn compose(&self, content: &str) {
        self.write("compose.yaml", content);
    }

    /// Sets a variable of the environment in which programs run.
    ///
    /// # Panics
    /// If another thread panicked in setting one.
    pub fn set(&self, name: &str, value: &str) {
        let mut variables = self.variables.lock().expect("no holder panics");
        variables.insert(name.to_owned(), value.to_owned());
    }

    /// A program in the project's folder, with its variables and no others but the usual ones.
    ///
    /// # Panics
    /// If another thread panicked in setting a variable.
    #[must_use]
    pub fn program(&self, program: &Path, words: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(words).current_dir(self.dir()).env_clear();
        let usual = ["PATH", "HOME", "USER", "TMPDIR"];
        command.envs(usual.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.env("COMPOSE_PROJECT_NAME", &self.project).env("NO_COLOR", "1");
        command.env("SHIPLAP_STATE_DIR", self.state());
        command.env("SHIPLAP_EDGE_DIR", self.edge_dir());
        command.envs(self.variables.lock().expect("no holder panics").iter());
        command
    }

    /// Starts `shiplap`.
    #[must_use]
    pub fn start(&self, words: &[&str]) -> Running {
        Program::new(self.program(&binary("shiplap"), words)).start()
    }

    /// Starts `shiplap` with variables that no other run gets.
    #[must_use]
    pub fn start_with(&self, words: &[&str], variables: &[(&str, &str)]) -> Running {
        let mut command = self.program(&binary("shiplap"), words);
        command.envs(variables.iter().copied());
        Program::new(command).start()
    }

    /// Runs `shiplap`.
    #[must_use]
    pub fn run(&self, words: &[&str]) -> Run {
        self.start(words).finish()
    }

    /// Deploys what the files say, with `TAG` set to a tag.
    #[must_use]
    pub fn deploy(&self, tag: &str) -> Run {
        self.set("TAG", tag);
        self.run(&["deploy", "--yes"])
    }

    /// The newest deployment with its journal; nothing before the first.
    #[must_use]
    pub fn newest(&self) -> Option<Value> {
        let shown = self.run(&["show", "--json"]);
        (shown.code == Some(0)).then(|| shown.json())
    }

    /// Ends what deployments of this project left running in the background, which would wait for
    /// ten minutes to stop replicas that are gone by then.
    ///
    /// # Panics
    /// If the processes of this machine cannot be listed.
    pub fn end_background(&self) {
        let own = format!("\0-p\0{}\0-e\0", self.project);
        for entry in std::fs::read_dir("/proc").expect("there are processes").flatten() {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let id = entry.file_name().to_string_lossy().parse().ok().and_then(Pid::from_raw);
            if let Some(id) = id
                && String::from_utf8_lossy(&line).contains(&own)
                && String::from_utf8_lossy(&line).contains("\0retire\0")
            {
                // It may have ended just now.
                let _ = kill_process(id, Signal::KILL);
            }
        }
    }

    /// Identifiers of the running containers, by service.
    #[must_use]
    pub fn running(&self) -> BTreeMap<String, Vec<String>> {
        self.engine.running(&self.project)
    }

    /// The identifier of the only running container of a service.
    ///
    /// # Panics
    /// If there are none or several.
    #[must_use]
    #[track_caller]
    pub fn only(&self, service: &str) -> String {
        let running = self.running();
        let ids = running.get(service).map(Vec::as_slice).unwrap_or_default();
        assert_eq!(ids.len(), 1, "running containers of {service}: {ids:?}");
        ids[0].clone()
    }

    /// All about the only running container of a service.
    #[must_use]
    #[track_caller]
    pub fn inspect(&self, service: &str) -> Value {
        self.engine.inspect(&self.only(service))
    }

    /// Which version answers on a published port.
    ///
    /// # Panics
    /// If none does.
    #[must_use]
    #[track_caller]
    pub fn version(&self, port: u16) -> String {
        let answer = crate::get(port, "/version");
        let answer = answer.unwrap_or_else(|error| panic!("port {port} did not answer: {error}"));
        assert_eq!(answer.status, 200);
        answer.tag.expect("every answer names its version")
    }

    /// The name of the container of this project's edge.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    #[track_caller]
    pub fn edge(&self) -> String {
        edge_of(&self.engine, self.folder.path()).expect("the project has an edge")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.end_background();
        let mut left = self.engine.remove_project(&self.project);
        if let Some(edge) = edge_of(&self.engine, self.folder.path()) {
            left.extend(self.engine.delete(&format!("/containers/{edge}?force=1")).err());
        }
        for reason in left {
            eprintln!("not removed: {reason}");
        }
    }
}

/// The edge that works in a folder below `folder`.
fn edge_of(engine: &Engine, folder: &Path) -> Option<String> {
    let folder = folder.join("edge");
    edges(engine).into_iter().find(|(_, place)| *place == folder).map(|(id, _)| id)
}

/// All edges and their folders.
fn edges(engine: &Engine) -> Vec<(String, PathBuf)> {
    let edges =
        engine.get(&format!("/containers/json?all=1&filters={}", label("shiplap.role=edge")));
    let edges = edges.as_array().map(Vec::as_slice).unwrap_or_default();
    let place = |edge: &Value| {
        let folder = edge["Mounts"][0]["Source"].as_str()?;
        Some((edge["Id"].as_str()?.to_owned(), PathBuf::from(folder)))
    };
    edges.iter().filter_map(place).collect()
}

/// Removes what tests left that were killed: their process is gone.
fn sweep(engine: &Engine) {
    let mut projects: Vec<String> = Vec::new();
    for path in ["/containers/json?all=1", "/networks"] {
        let all = engine.get(path);
        for object in all.as_array().map(Vec::as_slice).unwrap_or_default() {
            let labels = &object["Labels"];
            let owner = labels["shiplap.owner"].as_str().and_then(|owner| owner.split('/').next());
            projects
                .extend(labels["com.docker.compose.project"].as_str().or(owner).map(Into::into));
        }
    }
    projects.sort_unstable();
    projects.dedup();
    for project in projects.iter().filter(|project| is_left_over(project, PREFIX)) {
        // Another test may be at it as well.
        let _ = engine.remove_project(project);
    }
    for (id, folder) in edges(engine) {
        let lab = folder.parent().and_then(Path::file_name).unwrap_or_default();
        if is_left_over(&lab.to_string_lossy(), FOLDER) {
            let _ = engine.delete(&format!("/containers/{id}?force=1"));
        }
    }
    let folders = std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
    for folder in folders {
        if is_left_over(&folder.file_name().to_string_lossy(), FOLDER) {
            let _ = std::fs::remove_dir_all(folder.path());
        }
    }
}

/// `shiplap-scn-update-4711-0` is left over if there is no process 4711.
fn is_left_over(name: &str, prefix: &str) -> bool {
    let process = name.strip_prefix(prefix).and_then(|rest| rest.rsplit('-').nth(1));
    process.is_some_and(|process| !Path::new("/proc").join(process).exists())
}
