//! The few calls that the demo makes to the Docker Engine itself, over its socket: a machine that
//! runs an engine need not have the `docker` command.

use serde_json::Value;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

const DEFAULT_SOCKET: &str = "/var/run/docker.sock";
/// A build copies one small file; anything else is faster.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);
/// The label by which Compose, and everyone who understands it, knows a project.
const PROJECT_LABEL: &str = "com.docker.compose.project";
const SERVICE_LABEL: &str = "com.docker.compose.service";

/// A local engine.
pub struct Engine {
    socket: PathBuf,
}

impl Engine {
    /// The engine that `DOCKER_HOST` names, or else the usual one, if it answers.
    pub async fn connect() -> Result<Engine, String> {
        let socket = match std::env::var("DOCKER_HOST") {
            Ok(host) if !host.is_empty() => match host.strip_prefix("unix://") {
                Some(path) => PathBuf::from(path),
                None => {
                    return Err(format!("the demo needs a local engine, DOCKER_HOST is `{host}`"));
                }
            },
            Ok(_) | Err(_) => PathBuf::from(DEFAULT_SOCKET),
        };
        let engine = Engine { socket };
        engine.call("GET", "/_ping", None).await?;
        Ok(engine)
    }

    /// Builds an image from a context.
    pub async fn build(
        &self,
        image: &str,
        arguments: &Value,
        context: &[u8],
    ) -> Result<(), String> {
        let arguments = encode(&arguments.to_string());
        let path = format!("/build?t={}&forcerm=1&buildargs={arguments}", encode(image));
        let output = self.call("POST", &path, Some(context)).await?;
        // A failure comes inside a stream that began with status 200.
        let error = String::from_utf8_lossy(&output).lines().find_map(|line| {
            let message: Value = serde_json::from_str(line).ok()?;
            Some(message.get("error")?.as_str()?.to_owned())
        });
        error.map_or(Ok(()), |error| Err(format!("building `{image}` failed: {error}")))
    }

    /// Removes a tag, and the image unless something else needs it.
    pub async fn remove_image(&self, image: &str) -> Result<(), String> {
        self.call("DELETE", &format!("/images/{image}"), None).await.map(drop)
    }

    /// The identifiers of the running containers of a project's services.
    pub async fn running(&self, project: &str) -> Result<BTreeSet<String>, String> {
        let filters = serde_json::json!({
            "label": [format!("{PROJECT_LABEL}={project}"), SERVICE_LABEL],
            "status": ["running"],
        });
        let path = format!("/containers/json?filters={}", encode(&filters.to_string()));
        Ok(texts(&self.json("GET", &path).await?, "Id").collect())
    }

    /// What carries the project's label: containers, networks and volumes, as paths of the API.
    pub async fn objects(&self, project: &str) -> Result<Vec<String>, String> {
        let filters = serde_json::json!({ "label": [format!("{PROJECT_LABEL}={project}")] });
        let filters = encode(&filters.to_string());
        let containers =
            self.json("GET", &format!("/containers/json?all=1&filters={filters}")).await?;
        let networks = self.json("GET", &format!("/networks?filters={filters}")).await?;
        let volumes = self.json("GET", &format!("/volumes?filters={filters}")).await?;
        let containers = texts(&containers, "Id").map(|id| format!("/containers/{id}?force=1"));
        let networks = texts(&networks, "Id").map(|id| format!("/networks/{id}"));
        let volumes = texts(&volumes["Volumes"], "Name").map(|name| format!("/volumes/{name}"));
        // In this order: a network or volume in use cannot be removed.
        Ok(containers.chain(networks).chain(volumes).collect())
    }

    /// Removes what [`Engine::objects`] named.
    pub async fn remove(&self, object: &str) -> Result<(), String> {
        self.call("DELETE", object, None).await.map(drop)
    }

    async fn json(&self, method: &str, path: &str) -> Result<Value, String> {
        let body = self.call(method, path, None).await?;
        serde_json::from_slice(&body).map_err(|error| format!("{method} {path}: {error}"))
    }

    async fn call(&self, method: &str, path: &str, tar: Option<&[u8]>) -> Result<Vec<u8>, String> {
        let result = tokio::time::timeout(CALL_TIMEOUT, self.exchange(method, path, tar)).await;
        let socket = self.socket.display();
        let bytes = match result {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(error)) => {
                return Err(format!("the engine at {socket} does not answer: {error}"));
            }
            Err(_) => {
                return Err(format!("the engine took over {CALL_TIMEOUT:?}: {method} {path}"));
            }
        };
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let end = end.ok_or_else(|| format!("what answers at {socket} is no engine"))?;
        let head = String::from_utf8_lossy(&bytes[..end]);
        let status: u16 = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
        let body = bytes[end + 4..].to_vec();
        if (200..300).contains(&status) {
            return Ok(body);
        }
        let message = String::from_utf8_lossy(&body).trim().to_owned();
        Err(format!("the engine answered {status} to {method} {path}: {message}"))
    }

    /// HTTP/1.0: the engine ends its answer by closing, without chunks.
    async fn exchange(
        &self,
        method: &str,
        path: &str,
        tar: Option<&[u8]>,
    ) -> std::io::Result<Vec<u8>> {
        let mut stream = UnixStream::connect(&self.socket).await?;
        let body = tar.unwrap_or_default();
        // Without a version in the path, any engine answers in its own newest one.
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: docker\r\nContent-Type: application/x-tar\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok(answer)
    }
}

fn texts<'a>(list: &'a Value, key: &'a str) -> impl Iterator<Item = String> + 'a {
    let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(move |item| Some(item.get(key)?.as_str()?.to_owned()))
}

/// Percent-encodes everything that has a meaning in a query.
fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~/:".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).into() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_encoded() {
        assert_eq!(encode(r#"{"a":"b c"}"#), "%7B%22a%22:%22b%20c%22%7D");
        assert_eq!(encode("shiplap-demo/app:v1"), "shiplap-demo/app:v1");
    }
}
