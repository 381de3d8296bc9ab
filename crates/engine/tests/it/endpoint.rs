//! Engines that do not answer as they should. None of these needs a real one.

use shiplap_engine::{DockerEngine, Endpoint};
use shiplap_model::{Engine, EngineErrorKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn kind_and_text(endpoint: &Endpoint) -> (EngineErrorKind, String) {
    let error = match DockerEngine::connect(endpoint) {
        Ok(engine) => engine.info().await.unwrap_err(),
        Err(error) => error,
    };
    (error.kind, format!("{error} {}", error.help.as_deref().unwrap_or_default()))
}

#[tokio::test]
async fn an_engine_that_is_not_there_is_unreachable() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("d.sock");
    let endpoint = Endpoint::Unix(socket.clone());
    let (kind, text) = kind_and_text(&endpoint).await;
    assert_eq!(kind, EngineErrorKind::Unreachable);
    assert!(text.contains("systemctl start docker"), "{text}");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let (kind, text) = kind_and_text(&endpoint).await;
    assert_eq!(kind, EngineErrorKind::Unreachable);
    assert!(text.contains("refused"), "{text}");
    let (kind, _) = kind_and_text(&Endpoint::Tcp("127.0.0.1:9".into())).await;
    assert_eq!(kind, EngineErrorKind::Unreachable);
}

#[tokio::test]
async fn an_engine_that_is_too_old_is_refused_with_both_versions() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("d.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let length = stream.read(&mut request).await.unwrap();
            let answer = if request[..length].starts_with(b"HEAD /_ping ") {
                "HTTP/1.1 200 OK\r\napi-version: 1.39\r\ncontent-length: 0\r\n\r\n".to_owned()
            } else {
                let body = r#"{"Version":"18.09.1","ApiVersion":"1.39","MinAPIVersion":"1.12"}"#;
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
            };
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let (kind, text) = kind_and_text(&Endpoint::Unix(socket)).await;
    assert_eq!(kind, EngineErrorKind::TooOld);
    assert!(text.contains("1.39") && text.contains("1.41"), "{text}");
}
