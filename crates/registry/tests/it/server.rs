//! A registry in memory that answers as it is told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use sha2::Digest as _;
use shiplap_model::Reference;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn of(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    pub fn error(status: u16, code: &str) -> Self {
        Self::of(status, json!({"errors": [{"code": code, "message": "said so"}]}).to_string())
    }

    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

/// A request: its path with the query, and its `Authorization`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub path: String,
    pub authorization: Option<String>,
}

type Answers = dyn Fn(&Asked, usize) -> Answer + Send + Sync;

pub struct Server {
    pub host: String,
    pub asked: Arc<Mutex<Vec<Asked>>>,
    /// What is at a path.
    pub content: Arc<Mutex<BTreeMap<String, Answer>>>,
}

impl Server {
    /// One that gives what was put there.
    pub async fn new() -> Self {
        let content: Arc<Mutex<BTreeMap<String, Answer>>> = Arc::default();
        let held = Arc::clone(&content);
        Self::answering(content, move |asked, _| {
            let found = held.lock().unwrap().get(&asked.path).cloned();
            found.unwrap_or_else(|| Answer::error(404, "MANIFEST_UNKNOWN"))
        })
        .await
    }

    /// One that answers by a function of the request and of how many there were before.
    pub async fn with(answers: impl Fn(&Asked, usize) -> Answer + Send + Sync + 'static) -> Self {
        Self::answering(Arc::default(), answers).await
    }

    async fn answering(
        content: Arc<Mutex<BTreeMap<String, Answer>>>,
        answers: impl Fn(&Asked, usize) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (log, answers): (_, Arc<Answers>) = (Arc::clone(&asked), Arc::new(answers));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&log), Arc::clone(&answers)));
            }
        });
        Self { host, asked, content }
    }

    pub fn image(&self, name: &str) -> Reference {
        Reference::parse(&format!("{}/{name}", self.host)).unwrap()
    }

    pub fn count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    /// Puts a manifest of the repository `team/api` under a name; returns its digest.
    pub fn manifest(&self, name: &str, manifest: &Value) -> String {
        let body = manifest.to_string().into_bytes();
        let digest = digest(&body);
        let mut content = self.content.lock().unwrap();
        for name in [name, &digest] {
            content.insert(format!("/v2/team/api/manifests/{name}"), Answer::of(200, body.clone()));
        }
        digest
    }

    /// Puts a blob there; returns its digest.
    pub fn blob(&self, body: &[u8]) -> String {
        let digest = digest(body);
        let path = format!("/v2/team/api/blobs/{digest}");
        self.content.lock().unwrap().insert(path, Answer::of(200, body));
        digest
    }
}

pub fn digest(bytes: &[u8]) -> String {
    let hash = sha2::Sha256::digest(bytes);
    format!("sha256:{}", hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

async fn serve(stream: TcpStream, log: Arc<Mutex<Vec<Asked>>>, answers: Arc<Answers>) {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    if stream.read_line(&mut line).await.is_err() {
        return;
    }
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut authorization = None;
    loop {
        let mut line = String::new();
        match stream.read_line(&mut line).await {
            Ok(length) if length > 2 => {}
            _ => break,
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("authorization")
        {
            authorization = Some(value.trim().to_owned());
        }
    }
    let asked = Asked { path, authorization };
    let before = {
        let mut log = log.lock().unwrap();
        log.push(asked.clone());
        log.len() - 1
    };
    let answer = answers(&asked, before);
    let mut head = format!(
        "HTTP/1.1 {} x\r\ncontent-length: {}\r\nconnection: close\r\n",
        answer.status,
        answer.body.len()
    );
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.write_all(&answer.body).await;
}
