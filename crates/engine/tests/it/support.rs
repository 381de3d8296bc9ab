//! An engine, a project of one's own, and its removal.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use shiplap_compose::Project;
use shiplap_engine::{Address, DockerEngine, LinkOptions};
use shiplap_model::{
    COMPOSE_NUMBER, COMPOSE_ONEOFF, COMPOSE_PROJECT, COMPOSE_SERVICE, CreateReplica, DEPLOYMENT,
    Desired, Engine, Fields, ImageOrigin, ImagePin, ServiceSpec,
};

/// The image that tests run. It has to be there: nothing is pulled.
pub const IMAGE: &str = "busybox:latest";

/// An engine that answers and has the image, or nothing and a reason on standard error.
pub async fn engine() -> Option<DockerEngine> {
    let address = Address::from_environment().unwrap();
    let endpoint = match address.open(LinkOptions::default()).await {
        Ok(endpoint) => endpoint,
        Err(error) => return skip(&format!("no engine: {error}")),
    };
    let engine = match DockerEngine::connect(&endpoint) {
        Ok(engine) => engine,
        Err(error) => return skip(&format!("no engine: {error}")),
    };
    match engine.image(IMAGE).await {
        Ok(Some(_)) => Some(engine),
        Ok(None) => skip(&format!("the engine does not have {IMAGE}")),
        Err(error) => skip(&format!("no engine: {error}")),
    }
}

/// A Docker Compose v2: what `SHIPLAP_COMPOSE_PEER` names, or the one on the path.
pub fn compose_peer() -> Option<PathBuf> {
    let named = std::env::var_os("SHIPLAP_COMPOSE_PEER").map(PathBuf::from);
    let program = named.unwrap_or_else(|| "docker-compose".into());
    let answer = Command::new(&program).args(["version", "--short"]).output();
    match answer {
        Ok(output) if output.status.success() && !output.stdout.starts_with(b"1.") => Some(program),
        _ => skip("no Docker Compose v2: set SHIPLAP_COMPOSE_PEER"),
    }
}

pub fn skip<T>(reason: &str) -> Option<T> {
    eprintln!("skipped: {reason}");
    None
}

/// A project that nobody else has. Dropping it removes everything of it.
pub struct Lab {
    pub name: String,
    pub folder: tempfile::TempDir,
    number: u32,
}

impl Lab {
    pub fn new(purpose: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("slt-{purpose}-{}-{number}", std::process::id());
        Self { name, folder: tempfile::tempdir().unwrap(), number }
    }

    /// Three parts of an address range that another run of the tests hardly has.
    pub fn net(&self) -> String {
        format!("10.{}.{}", 100 + std::process::id() % 150, self.number % 250)
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn write(&self, name: &str, content: &str) {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// Runs the peer in the project's folder.
    pub fn compose(&self, program: &Path, arguments: &[&str]) -> String {
        self.try_compose(program, arguments).unwrap_or_else(|e| panic!("{arguments:?}: {e}"))
    }

    /// The same, where it may fail: what it printed as the error.
    pub fn try_compose(&self, program: &Path, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new(program)
            .args(["--project-name", &self.name])
            .args(arguments)
            .current_dir(self.path())
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            return Err(errors.into_owned());
        }
        Ok(String::from_utf8(output.stdout).unwrap())
    }

    /// The project of the folder's file, as the peer reads it.
    pub fn canonical(&self, program: &Path) -> Value {
        let text = self.compose(program, &["config", "--format", "json"]);
        // It prints `$` in the form in which a file has to write it.
        serde_json::from_str(&text.replace("$$", "$")).unwrap()
    }

    /// A desired state from canonical JSON, with all images pinned to what the engine has.
    pub async fn desired(&self, engine: &DockerEngine, project: &Value) -> Desired {
        let compose: Project = serde_json::from_value(project.clone()).unwrap();
        let mut services = BTreeMap::new();
        for (name, service) in &compose.services {
            let reference = service.image.clone().unwrap_or_else(|| IMAGE.into());
            let info = engine.image(&reference).await.unwrap().expect("the image is there");
            let image = ImagePin {
                reference,
                id: Some(info.id.clone()),
                digest: None,
                origin: ImageOrigin::Local,
                info: Some(info),
            };
            let spec = ServiceSpec {
                name: name.clone(),
                service: service.clone(),
                replicas: 1,
                routed: Default::default(),
                image,
                files: Vec::new(),
                fields: Fields::new(),
                facts: Fields::new(),
            };
            services.insert(name.clone(), spec);
        }
        Desired {
            project: self.name.clone(),
            environment: "default".into(),
            working_dir: self.path().to_string_lossy().into_owned(),
            config_files: vec![],
            compose,
            services,
            routes: Default::default(),
        }
    }

    /// A project of services without networks.
    pub fn project(&self, services: &Value) -> Value {
        json!({"name": self.name, "services": services})
    }

    pub fn replica(&self, service: &str) -> CreateReplica {
        let labels = [
            (COMPOSE_PROJECT, self.name.as_str()),
            (COMPOSE_SERVICE, service),
            (COMPOSE_NUMBER, "1"),
            (COMPOSE_ONEOFF, "False"),
            (DEPLOYMENT, "7"),
        ];
        CreateReplica {
            service: service.into(),
            name: format!("{}-{service}-1.d7", self.name),
            base_name: format!("{}-{service}-1", self.name),
            names: shiplap_model::Names::Own,
            number: 1,
            anonymous_volumes: BTreeMap::new(),
            labels: labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            publish: vec![],
            peers: BTreeMap::new(),
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let name = self.name.clone();
        // A runtime of its own: the test's may be about to end, in panic too.
        let cleaner = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(remove_project(&name));
        });
        if cleaner.join().is_err() {
            eprintln!("could not remove all of {}", self.name);
        }
    }
}

async fn remove_project(project: &str) {
    let address = Address::from_environment().unwrap();
    let endpoint = address.open(LinkOptions::default()).await.unwrap();
    let engine = DockerEngine::connect(&endpoint).unwrap();
    let observed = engine.observe(project, None).await.unwrap();
    for container in &observed.containers {
        engine.remove(&container.id, shiplap_model::AnonymousVolumes::Remove).await.unwrap();
    }
    // Compose carries these over by name, so that they do not go with their container.
    for volume in observed.containers.iter().flat_map(|c| c.anonymous_volumes.values()) {
        engine.remove_volume(volume).await.unwrap();
    }
    for network in observed.networks.keys() {
        engine.remove_network(network).await.unwrap();
    }
    for volume in observed.volumes.keys() {
        engine.remove_volume(volume).await.unwrap();
    }
}
