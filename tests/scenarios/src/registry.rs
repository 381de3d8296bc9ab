//! A registry of one's own, with a password.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;

use crate::{Engine, Port, until};

/// The image that it runs; without it nothing here is done.
const IMAGE: &str = "registry:2";
/// The user and the password that it wants, and the line that lets it know.
pub const USER: &str = "robot";
/// The user's password.
pub const PASSWORD: &str = "hunter2hunter2";
const LINE: &str = "robot:$2b$05$beCB4TNranK/.cB6OoCH7..67P2GckLcGLhxfHSuqKVi284qgVxT2\n";
/// `robot:hunter2hunter2`
const BASIC: &str = "cm9ib3Q6aHVudGVyMmh1bnRlcjI=";
/// How long it may take to begin.
const BEGINS: Duration = Duration::from_secs(30);

/// A registry at a port of this machine. Dropping it removes it with all that it holds.
#[derive(Debug)]
pub struct Registry {
    engine: Engine,
    container: String,
    port: Port,
    _folder: tempfile::TempDir,
}

impl Registry {
    /// Starts one, unless the engine has no image for it.
    ///
    /// # Panics
    /// If it does not begin.
    #[must_use]
    pub fn start(engine: &Engine) -> Option<Self> {
        if let Err(error) = engine.try_get(&format!("/images/{IMAGE}/json")) {
            return crate::skip(&format!("no image of a registry: {error}"));
        }
        let folder = tempfile::Builder::new().prefix("slscn-reg-").tempdir();
        let folder = folder.expect("a temporary folder can be made");
        std::fs::write(folder.path().join("users"), LINE).expect("a file can be written");
        let port = Port::free();
        let number = port.number().to_string();
        let made = engine.post(
            "/containers/create",
            &json!({
                "Image": IMAGE,
                "Labels": {"shiplap.scenario": "registry"},
                "Env": [
                    "REGISTRY_AUTH=htpasswd", "REGISTRY_AUTH_HTPASSWD_REALM=test",
                    "REGISTRY_AUTH_HTPASSWD_PATH=/auth/users",
                    format!("REGISTRY_HTTP_ADDR=127.0.0.1:{number}"),
                ],
                "HostConfig": {
                    "NetworkMode": "host",
                    "Binds": [format!("{}:/auth:ro", folder.path().display())],
                },
            }),
        );
        let container = made["Id"].as_str().expect("a container has an id").to_owned();
        let registry = Self { engine: engine.clone(), container, port, _folder: folder };
        registry.engine.post(&format!("/containers/{}/start", registry.container), &json!(null));
        until("the registry answers", BEGINS, || {
            (registry.call("GET", "/v2/", "", b"").ok()?.0 == 200).then_some(())
        });
        Some(registry)
    }

    /// `127.0.0.1:PORT`
    #[must_use]
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port.number())
    }

    /// Puts a blob into a repository.
    ///
    /// # Panics
    /// If it is not taken.
    pub fn blob(&self, repository: &str, digest: &str, content: &[u8]) {
        let begun = self.call("POST", &format!("/v2/{repository}/blobs/uploads/"), "", b"");
        let (_, head, _) = begun.expect("the registry answers");
        let place = head
            .lines()
            .find_map(|line| line.strip_prefix("Location: "))
            .expect("an upload has a place");
        let path = place.trim().splitn(4, '/').nth(3).expect("an address has a path");
        let path = format!("/{path}&digest={digest}");
        let put = self.call("PUT", &path, "application/octet-stream", content);
        assert_eq!(put.expect("the registry answers").0, 201);
    }

    /// Puts a manifest under a tag.
    ///
    /// # Panics
    /// If it is not taken.
    pub fn manifest(&self, repository: &str, tag: &str, kind: &str, content: &str) {
        let path = format!("/v2/{repository}/manifests/{tag}");
        let put = self.call("PUT", &path, kind, content.as_bytes()).expect("the registry answers");
        assert_eq!(put.0, 201, "{}", String::from_utf8_lossy(&put.2));
    }

    /// Status, head and body of an answer.
    fn call(
        &self,
        method: &str,
        path: &str,
        kind: &str,
        body: &[u8],
    ) -> std::io::Result<(u16, String, Vec<u8>)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port.number()))?;
        stream.set_read_timeout(Some(BEGINS))?;
        let kind =
            if kind.is_empty() { String::new() } else { format!("Content-Type: {kind}\r\n") };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Basic {BASIC}\r\n{kind}\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            self.host(),
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let text = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        Ok((status, head.to_owned(), body.as_bytes().to_vec()))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let path = format!("/containers/{}?force=1&v=1", self.container);
        if let Err(error) = self.engine.delete(&path) {
            eprintln!("not removed: {error}");
        }
    }
}
