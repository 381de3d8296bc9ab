//! Plain calls to the Docker Engine, so that what Shiplap says is compared with what is. A machine
//! that runs an engine need not have the `docker` command.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

const DEFAULT_SOCKET: &str = "/var/run/docker.sock";
/// Longer than any stop_grace_period of a test.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);

/// A local engine.
#[derive(Clone, Debug)]
pub struct Engine {
    socket: PathBuf,
}

impl Engine {
    /// The engine that `DOCKER_HOST` names, or else the usual one, if it answers.
    #[must_use]
    pub fn connect() -> Option<Self> {
        let socket = match std::env::var("DOCKER_HOST") {
            Ok(host) if !host.is_empty() => match host.strip_prefix("unix://") {
                Some(path) => PathBuf::from(path),
                None => return crate::skip(&format!("DOCKER_HOST is not local: {host}")),
            },
            Ok(_) | Err(_) => PathBuf::from(DEFAULT_SOCKET),
        };
        let engine = Self::at(socket);
        match engine.ping() {
            Ok(()) => Some(engine),
            Err(error) => crate::skip(&format!("no engine: {error}")),
        }
    }

    /// The engine that listens on a socket, whether or not it answers now.
    #[must_use]
    pub fn at(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Whether it answers.
    ///
    /// # Errors
    /// What kept it from answering.
    pub fn ping(&self) -> Result<(), String> {
        self.call("GET", "/_ping", "text/plain", &[]).map(drop)
    }

    /// What a path holds.
    ///
    /// # Panics
    /// If the engine refuses.
    #[must_use]
    pub fn get(&self, path: &str) -> Value {
        self.try_get(path).unwrap_or_else(|error| panic!("{error}"))
    }

    /// What a path holds.
    ///
    /// # Errors
    /// What the engine says.
    pub fn try_get(&self, path: &str) -> Result<Value, String> {
        let body = self.call("GET", path, "application/json", &[])?;
        serde_json::from_slice(&body).map_err(|error| format!("GET {path}: {error}"))
    }

    /// What a path holds, whatever its form.
    ///
    /// # Panics
    /// If the engine refuses.
    #[must_use]
    pub fn get_text(&self, path: &str) -> String {
        let body = self.call("GET", path, "application/json", &[]);
        String::from_utf8_lossy(&body.unwrap_or_else(|error| panic!("{error}"))).into_owned()
    }

    /// Sends JSON.
    ///
    /// # Panics
    /// If the engine refuses.
    pub fn post(&self, path: &str, body: &Value) -> Value {
        self.try_post(path, body).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Sends JSON.
    ///
    /// # Errors
    /// What the engine says.
    pub fn try_post(&self, path: &str, body: &Value) -> Result<Value, String> {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let answer = self.call("POST", path, "application/json", &body)?;
        Ok(serde_json::from_slice(&answer).unwrap_or(Value::Null))
    }

    /// Sends JSON, and returns the answer whatever its form.
    ///
    /// # Panics
    /// If the engine refuses.
    #[must_use]
    pub fn post_text(&self, path: &str, body: &Value) -> String {
        let body = body.to_string().into_bytes();
        let answer = self.call("POST", path, "application/json", &body);
        String::from_utf8_lossy(&answer.unwrap_or_else(|error| panic!("{error}"))).into_owned()
    }

    /// Makes an image of a file system.
    ///
    /// # Panics
    /// If that fails.
    pub fn import(&self, repository: &str, tag: &str, archive: &[u8]) {
        let path = format!("/images/create?fromSrc=-&repo={repository}&tag={tag}");
        let answer = self.call("POST", &path, "application/x-tar", archive);
        answer.unwrap_or_else(|error| panic!("{error}"));
    }

    /// Removes something.
    ///
    /// # Errors
    /// What the engine says.
    pub fn delete(&self, path: &str) -> Result<(), String> {
        self.call("DELETE", path, "application/json", &[]).map(drop)
    }

    /// Builds an image.
    ///
    /// # Panics
    /// If that fails.
    pub fn build(&self, tag: &str, context: &[u8]) {
        let path = format!("/build?t={tag}&forcerm=1");
        let output = self.call("POST", &path, "application/x-tar", context);
        let output = output.unwrap_or_else(|error| panic!("{error}"));
        // A failure comes inside a stream that began with status 200.
        let output = String::from_utf8_lossy(&output);
        assert!(!output.contains("\"error\""), "building {tag} failed: {output}");
    }

    /// The containers of a project, also those that do not run.
    #[must_use]
    pub fn containers(&self, project: &str) -> Vec<Value> {
        let path = format!("/containers/json?all=1&filters={}", of_project(project));
        self.get(&path).as_array().cloned().unwrap_or_default()
    }

    /// Identifiers of the running containers of a project, by service.
    #[must_use]
    pub fn running(&self, project: &str) -> BTreeMap<String, Vec<String>> {
        let mut running: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for container in self.containers(project) {
            let service = container["Labels"]["com.docker.compose.service"].as_str();
            if let (Some(service), Some("running")) = (service, container["State"].as_str()) {
                let id = container["Id"].as_str().expect("a container has an id").to_owned();
                running.entry(service.to_owned()).or_default().push(id);
            }
        }
        for ids in running.values_mut() {
            ids.sort();
        }
        running
    }

    /// Everything of a container.
    #[must_use]
    pub fn inspect(&self, container: &str) -> Value {
        self.get(&format!("/containers/{container}/json"))
    }

    /// The containers in which the names of a project's services are held.
    #[must_use]
    pub fn holders(&self, project: &str) -> Vec<Value> {
        let owned = self.get(&format!("/containers/json?all=1&filters={}", label("shiplap.owner")));
        owned_by(&owned, project)
    }

    /// The marks of all environments of a project.
    fn marks(&self, project: &str) -> Value {
        let owned = self.get(&format!("/volumes?filters={}", label("shiplap.owner")));
        Value::from(owned_by(&owned["Volumes"], project))
    }

    /// What is a project's, as paths of the API, in an order in which it can be removed.
    #[must_use]
    pub fn objects(&self, project: &str) -> Vec<String> {
        let filters = of_project(project);
        let holders = Value::from(self.holders(project));
        let networks = self.get(&format!("/networks?filters={filters}"));
        let volumes = self.get(&format!("/volumes?filters={filters}"));
        let marks = self.marks(project);
        let containers = Value::from(self.containers(project));
        let name = |list: &Value, key: &str, before: &str, after: &str| -> Vec<String> {
            let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
            let names = items.iter().filter_map(|item| item[key].as_str());
            names.map(|name| format!("{before}{name}{after}")).collect()
        };
        let mut objects = name(&containers, "Id", "/containers/", "?force=1&v=1");
        objects.extend(name(&holders, "Id", "/containers/", "?force=1"));
        objects.extend(name(&networks, "Id", "/networks/", ""));
        objects.extend(name(&volumes["Volumes"], "Name", "/volumes/", "?force=1"));
        objects.extend(name(&marks, "Name", "/volumes/", "?force=1"));
        objects
    }

    /// Removes all that is a project's; says what could not be removed.
    pub fn remove_project(&self, project: &str) -> Vec<String> {
        self.objects(project).iter().filter_map(|path| self.delete(path).err()).collect()
    }

    fn call(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> Result<Vec<u8>, String> {
        let answer = self.exchange(method, path, kind, body);
        let bytes = answer.map_err(|error| format!("{}: {error}", self.socket.display()))?;
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let end = end.ok_or_else(|| format!("{method} {path}: not an HTTP answer"))?;
        let head = String::from_utf8_lossy(&bytes[..end]);
        let status: u16 = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
        let body = bytes[end + 4..].to_vec();
        // 304: it was so already.
        if (200..300).contains(&status) || status == 304 {
            return Ok(body);
        }
        let message = String::from_utf8_lossy(&body).trim().to_owned();
        Err(format!("the engine answered {status} to {method} {path}: {message}"))
    }

    /// HTTP/1.0: the engine ends its answer by closing, without chunks.
    fn exchange(
        &self,
        method: &str,
        path: &str,
        kind: &str,
        body: &[u8],
    ) -> std::io::Result<Vec<u8>> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(CALL_TIMEOUT))?;
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: docker\r\nContent-Type: {kind}\r\n\
             Content-Length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    }
}

/// What is owned by an environment of a project.
fn owned_by(list: &Value, project: &str) -> Vec<Value> {
    let of = format!("{project}/");
    let items = list.as_array().cloned().unwrap_or_default();
    let is_own = |item: &Value| {
        item["Labels"]["shiplap.owner"].as_str().is_some_and(|owner| owner.starts_with(&of))
    };
    items.into_iter().filter(is_own).collect()
}

fn of_project(project: &str) -> String {
    label(&format!("com.docker.compose.project={project}"))
}

/// A filter for what has a label, as the value in a query.
pub(crate) fn label(label: &str) -> String {
    encode(&json!({ "label": [label] }).to_string())
}

/// Percent-encodes everything that has a meaning in a query.
fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~/:".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).into() } else { format!("%{byte:02X}") })
        .collect()
}
