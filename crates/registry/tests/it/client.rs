//! What the client does with what registries answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use shiplap_model::Secret;
use shiplap_registry::{Client, Keyring, Login, RegistryErrorKind};

use crate::server::{Answer, Server, digest};

fn keyring() -> Arc<Keyring> {
    Arc::new(Keyring::in_folder(std::path::Path::new("/nonexistent")))
}

pub fn client(keyring: Arc<Keyring>) -> Client {
    Client::new(keyring, []).unwrap()
}

fn login(user: &str, password: &str) -> Login {
    Login::Password { user: user.to_owned(), password: Secret::new(password.to_owned()) }
}

#[tokio::test]
async fn a_manifest_is_checked_against_its_digest() {
    let server = Server::new().await;
    let digest = server.manifest("v1", &json!({"layers": []}));
    let client = client(keyring());
    assert_eq!(client.manifest(&server.image("team/api:v1")).await.unwrap().digest, digest);
    let other = format!("sha256:{}", "0".repeat(64));
    let body = server.content.lock().unwrap()["/v2/team/api/manifests/v1"].clone();
    server.content.lock().unwrap().insert(format!("/v2/team/api/manifests/{other}"), body);
    let error = client.manifest(&server.image(&format!("team/api@{other}"))).await.unwrap_err();
    assert_eq!(error.kind, RegistryErrorKind::Garbled);
}

#[tokio::test]
async fn each_kind_of_no_is_told_apart_and_not_asked_twice() {
    for (answer, kind) in [
        (Answer::error(404, "MANIFEST_UNKNOWN"), RegistryErrorKind::NoSuchTag),
        (Answer::error(404, "NAME_UNKNOWN"), RegistryErrorKind::NoSuchRepository),
        (Answer::error(403, "DENIED"), RegistryErrorKind::Denied),
        (Answer::error(401, "UNAUTHORIZED"), RegistryErrorKind::Denied),
        (Answer::of(200, "<html>"), RegistryErrorKind::Garbled),
    ] {
        let server = Server::with(move |_, _| answer.clone()).await;
        let error = client(keyring()).manifest(&server.image("team/api:v1")).await.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert_eq!(server.count(), 1);
    }
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let image = shiplap_model::Reference::parse("127.0.0.1:9/team/api:v1").unwrap();
    let error = client(keyring()).manifest(&image).await.unwrap_err();
    assert_eq!(error.kind, RegistryErrorKind::Unreachable);
    assert!(error.to_string().contains("127.0.0.1:9/team/api:v1"), "{error}");
}

#[tokio::test]
async fn a_rate_limit_is_waited_for_as_long_as_it_says() {
    let server = Server::with(|_, before| match before {
        0 => Answer::error(429, "TOOMANYREQUESTS").with("retry-after", "1"),
        _ => Answer::of(200, "{}"),
    })
    .await;
    let began = Instant::now();
    client(keyring()).manifest(&server.image("team/api:v1")).await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert_eq!(server.count(), 2);
}

#[tokio::test]
async fn a_rate_limit_of_an_hour_is_an_error_at_once() {
    let answer = || Answer::error(429, "TOOMANYREQUESTS").with("retry-after", "3600");
    let server = Server::with(move |_, _| answer()).await;
    let error = client(keyring()).manifest(&server.image("team/api:v1")).await.unwrap_err();
    let hour = Some(Duration::from_secs(3600));
    assert_eq!(error.kind, RegistryErrorKind::RateLimited(hour));
    assert_eq!(server.count(), 1);
}

#[tokio::test]
async fn a_registry_that_fails_is_asked_a_few_times() {
    let server = Server::with(|_, before| match before {
        0 => Answer::of(503, ""),
        _ => Answer::of(200, "{}"),
    })
    .await;
    client(keyring()).manifest(&server.image("team/api:v1")).await.unwrap();
    assert_eq!(server.count(), 2);
}

#[tokio::test]
async fn a_login_is_sent_only_after_it_was_asked_for() {
    let server = Server::with(|asked, _| match asked.authorization.as_deref() {
        Some("Basic cm9ib3Q6aHVudGVyMg==") => Answer::of(200, "{}"),
        _ => Answer::error(401, "UNAUTHORIZED").with("www-authenticate", "Basic realm=\"x\""),
    })
    .await;
    let keyring = keyring();
    keyring.give(&server.host, login("robot", "hunter2"));
    let client = client(keyring);
    client.manifest(&server.image("team/api:v1")).await.unwrap();
    assert_eq!(server.asked.lock().unwrap()[0].authorization, None);
    client.manifest(&server.image("team/api:v2")).await.unwrap();
    assert_eq!(server.count(), 3);
}

#[tokio::test]
async fn a_wrong_password_is_denied_and_not_quoted() {
    let no = || Answer::error(401, "UNAUTHORIZED").with("www-authenticate", "Basic realm=\"x\"");
    let server = Server::with(move |_, _| no()).await;
    let keyring = keyring();
    keyring.give(&server.host, login("robot", "hunter2"));
    let error = client(keyring).manifest(&server.image("team/api:v1")).await.unwrap_err();
    assert_eq!(error.kind, RegistryErrorKind::Denied);
    assert!(!format!("{error:?}").contains("hunter2"));
}

#[tokio::test]
async fn a_token_is_fetched_for_the_repository() {
    let token = Server::with(|asked, _| {
        assert_eq!(asked.path, "/token?service=reg&scope=repository%3Ateam%2Fapi%3Apull");
        match asked.authorization.as_deref() {
            Some("Basic cm9ib3Q6aHVudGVyMg==") => Answer::of(200, "{\"token\": \"opens\"}"),
            _ => Answer::of(401, ""),
        }
    })
    .await;
    let realm = format!("http://{}/token", token.host);
    let server = Server::with(move |asked, _| match asked.authorization.as_deref() {
        Some("Bearer opens") => Answer::of(200, "{}"),
        _ => Answer::error(401, "UNAUTHORIZED").with(
            "www-authenticate",
            format!("Bearer realm=\"{realm}\",service=\"reg\",scope=\"repository:team/api:pull\""),
        ),
    })
    .await;
    let keyring = keyring();
    keyring.give(&server.host, login("robot", "hunter2"));
    let client = client(keyring);
    client.manifest(&server.image("team/api:v1")).await.unwrap();
    client.manifest(&server.image("team/api:v2")).await.unwrap();
    assert_eq!((server.count(), token.count()), (3, 1));
}

#[tokio::test]
async fn a_blob_that_is_another_or_too_long_is_refused() {
    let server = Server::new().await;
    let good = server.blob(b"four");
    let client = client(keyring());
    let image = server.image("team/api:v1");
    assert_eq!(client.blob(&image, &good, 4).await.unwrap(), b"four");
    assert_eq!(client.blob(&image, &good, 3).await.unwrap_err().kind, RegistryErrorKind::Garbled);
    let lie = digest(b"five");
    let path = format!("/v2/team/api/blobs/{lie}");
    server.content.lock().unwrap().insert(path, Answer::of(200, "four"));
    assert_eq!(client.blob(&image, &lie, 9).await.unwrap_err().kind, RegistryErrorKind::Garbled);
}

#[tokio::test]
async fn referrers_are_read_page_by_page_or_by_the_tag_of_older_registries() {
    let server = Server::new().await;
    let (about, image) = (digest(b"image"), server.image("team/api:v1"));
    let one = json!({"mediaType": "m", "digest": digest(b"one"), "size": 1});
    let two = json!({"mediaType": "m", "digest": digest(b"two"), "size": 1});
    let client = client(keyring());
    server.manifest(&about.replace(':', "-"), &json!({"manifests": [one]}));
    assert_eq!(client.referrers(&image, &about).await.unwrap().len(), 1);
    let path = format!("/v2/team/api/referrers/{about}");
    let page = |list: &serde_json::Value| Answer::of(200, json!({"manifests": [list]}).to_string());
    let next = format!("<{path}?last=1>; rel=\"next\"");
    let put = |path: String, answer| server.content.lock().unwrap().insert(path, answer);
    put(path.clone(), page(&one).with("link", next));
    put(format!("{path}?last=1"), page(&two));
    assert_eq!(client.referrers(&image, &about).await.unwrap().len(), 2);
}
