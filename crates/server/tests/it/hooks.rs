//! Notifications of registries and webhooks about pushed commits.

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use shiplap_model::{TokenAction, Wanted};

use crate::client::Answer;
use crate::stage::{PUSH_SECRET, REGISTRY_SECRET, Stage, may, only};

fn signed(body: &[u8], secret: &str) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap().chain_update(body);
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn path(project: &str, kind: &str) -> String {
    format!("/api/v1/projects/{project}/hooks/{kind}")
}

fn push() -> Value {
    json!({
        "ref": "refs/heads/main",
        "before": "1111111111111111111111111111111111111111",
        "after": "9f1c2e0000000000000000000000000000000000",
        "repository": {"full_name": "cheapa/deploy"},
        "pusher": {"name": "ada"},
        "head_commit": {"id": "9f1c2e0000000000000000000000000000000000", "message": "Raise limits\n\nMore."},
        "commits": [],
    })
}

async fn github(stage: &Stage, body: &Value, secret: &str) -> Answer {
    let bytes = body.to_string();
    let signature = format!("sha256={}", signed(bytes.as_bytes(), secret));
    stage
        .post(&path("shop", "github"))
        .header("x-hub-signature-256", &signature)
        .header("x-github-event", "push")
        .bytes(bytes.as_bytes())
        .send()
        .await
}

#[tokio::test]
async fn a_push_deploys_what_the_files_say() {
    let stage = Stage::new().await;
    let answer = github(&stage, &push(), PUSH_SECRET).await;
    assert_eq!((answer.status.as_u16(), answer.orders().len()), (202, 2), "{answer:?}");
    let admin = stage.admin().await;
    for id in answer.orders() {
        assert_eq!(stage.ended(&admin, id).await["end"]["exit"], 0);
    }
    let new = stage.works.claims()[0].order.new.clone();
    assert_eq!(new.wanted, Wanted::Deploy { tags: [].into(), services: only(&[]) });
    assert_eq!((new.who.as_str(), new.message.as_deref()), ("github (ada)", Some("Raise limits")));
    assert_eq!(new.revision.as_deref(), Some("9f1c2e0000000000000000000000000000000000"));
    assert_eq!(new.token, None);
}

#[tokio::test]
async fn a_webhook_that_is_sent_again_changes_nothing() {
    let stage = Stage::new().await;
    let first = github(&stage, &push(), PUSH_SECRET).await.orders();
    let admin = stage.admin().await;
    stage.ended(&admin, first[0]).await;
    stage.ended(&admin, first[1]).await;
    assert_eq!(github(&stage, &push(), PUSH_SECRET).await.orders(), first);
    assert_eq!(stage.works.claims().len(), 2);
    // Headers that nobody signs make no other one of it.
    let bytes = push().to_string();
    let signature = format!("sha256={}", signed(bytes.as_bytes(), PUSH_SECRET));
    let again = stage
        .post(&path("shop", "github"))
        .header("x-hub-signature-256", &signature)
        .header("x-github-delivery", "another-one")
        .bytes(bytes.as_bytes());
    assert_eq!(again.send().await.orders(), first);
}

#[tokio::test]
async fn forged_webhooks_are_all_the_same() {
    let stage = Stage::new().await;
    let bytes = push().to_string();
    let good = format!("sha256={}", signed(bytes.as_bytes(), PUSH_SECRET));
    let forged = format!("sha256={}", signed(bytes.as_bytes(), "guess"));
    let mut answers = Vec::new();
    for (project, kind, header, value) in [
        ("shop", "github", "x-hub-signature-256", forged.as_str()),
        ("shop", "github", "x-hub-signature-256", "sha256="),
        ("shop", "github", "x-hub-signature", &good),
        ("shop", "gitea", "x-hub-signature-256", &good),
        ("shop", "gitlab", "x-gitlab-token", "guess"),
        ("shop", "registry", "authorization", "Bearer guess"),
        ("shop", "nonsense", "x-hub-signature-256", &good),
        ("other", "github", "x-hub-signature-256", &good),
        ("nope", "github", "x-hub-signature-256", &good),
    ] {
        let asking = stage.post(&path(project, kind)).header(header, value);
        answers.push(asking.bytes(bytes.as_bytes()).send().await);
    }
    // One byte more than what was signed.
    let asking = stage.post(&path("shop", "github")).header("x-hub-signature-256", &good);
    answers.push(asking.bytes(format!("{bytes} ").as_bytes()).send().await);
    for answer in &answers {
        assert_eq!((answer.status.as_u16(), &answer.body), (401, &answers[0].body));
    }
    assert!(stage.works.claims().is_empty());
}

#[tokio::test]
async fn every_provider_signs_in_its_own_way() {
    let stage = Stage::new().await;
    for (kind, header) in [("gitea", "x-gitea-signature"), ("forgejo", "x-forgejo-signature")] {
        let mut body = push();
        body["pusher"] = json!({"login": "ada"});
        let bytes = body.to_string();
        let signature = signed(bytes.as_bytes(), PUSH_SECRET);
        let asking = stage.post(&path("shop", kind)).header(header, &signature);
        let answer = asking.bytes(bytes.as_bytes()).send().await;
        assert_eq!((answer.status.as_u16(), answer.orders().len()), (202, 2), "{kind}");
    }
    let body = json!({
        "object_kind": "push",
        "ref": "refs/heads/main",
        "after": "9f1c2e0000000000000000000000000000000000",
        "user_username": "ada",
        "project": {"path_with_namespace": "cheapa/deploy"},
        "commits": [{"id": "9f1c2e0000000000000000000000000000000000", "message": "Raise limits"}],
    });
    let asking = stage.post(&path("shop", "gitlab")).header("x-gitlab-token", PUSH_SECRET);
    let answer = asking.json(&body).send().await;
    assert_eq!((answer.status.as_u16(), answer.orders().len()), (202, 2));
    let admin = stage.admin().await;
    let order = stage.ended(&admin, answer.orders()[0]).await;
    assert_eq!(
        (&order["who"], &order["message"]),
        (&json!("gitlab (ada)"), &json!("Raise limits"))
    );
}

#[tokio::test]
async fn a_push_that_is_about_something_else_is_taken_and_does_nothing() {
    let stage = Stage::new().await;
    let with = |key: &str, value: Value| {
        let mut body = push();
        body[key] = value;
        body
    };
    for body in [
        with("ref", json!("refs/heads/feature")),
        with("ref", json!("refs/tags/main")),
        with("deleted", json!(true)),
        with("after", json!("0".repeat(40))),
        with("repository", json!({"full_name": "cheapa/other"})),
        with("repository", json!({})),
        json!({"zen": "Design for failure.", "hook_id": 1}),
    ] {
        let answer = github(&stage, &body, PUSH_SECRET).await;
        assert_eq!(
            (answer.status.as_u16(), answer.json()["orders"].clone()),
            (200, json!([])),
            "{body}"
        );
    }
    for body in [json!([]), json!("x"), json!({"ref": 1})] {
        assert_eq!(github(&stage, &body, PUSH_SECRET).await.status, 422, "{body}");
    }
}

fn pushed_image(repository: &str, tag: &str) -> Value {
    json!({
        "id": "320678d8-ca14-430f-8bb6-4ca139cd83f7",
        "timestamp": "2026-03-09T14:44:26.402973972-08:00",
        "action": "push",
        "target": {
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "size": 708,
            "digest": "sha256:fea8895f450959fa676bcc1df0611ea93823a735a01205fd8622846041d0c7cf",
            "length": 708,
            "repository": repository,
            "url": "http://192.168.100.227:5000/v2/hello-world/manifests/sha256:fea8",
            "tag": tag,
        },
        "request": {"id": "6df24a34-0959-4923-81ca-14f09767db19", "addr": "192.168.64.11:42961",
            "host": "192.168.100.227:5000", "method": "PUT", "useragent": "curl/7.38.0"},
        "actor": {"name": "ci"},
        "source": {"addr": "xtal.local:5000", "instanceID": "a53db899-3b4b-4a62-a067-8dd013beaca4"},
    })
}

async fn registry(stage: &Stage, events: Vec<Value>) -> Answer {
    let authorization = format!("Bearer {REGISTRY_SECRET}");
    let asking = stage.post(&path("shop", "registry")).header("authorization", &authorization);
    asking.json(&json!({"events": events})).send().await
}

#[tokio::test]
async fn an_image_that_was_pushed_is_deployed_where_the_trigger_says() {
    let stage = Stage::new().await;
    let events = vec![pushed_image("cheapa/web", "v1"), pushed_image("cheapa/web", "v2")];
    let answer = registry(&stage, events.clone()).await;
    assert_eq!((answer.status.as_u16(), answer.orders().len()), (202, 1));
    let admin = stage.admin().await;
    let order = stage.ended(&admin, answer.orders()[0]).await;
    assert_eq!(
        (&order["environment"], &order["wanted"]["tags"]),
        (&json!("dev"), &json!({"web": "v2"}))
    );
    assert_eq!(
        (&order["who"], &order["message"]),
        (&json!("registry (ci)"), &json!("cheapa/web:v2 was pushed"))
    );
    assert_eq!(registry(&stage, events).await.orders(), answer.orders());
}

#[tokio::test]
async fn other_events_of_a_registry_do_nothing() {
    let stage = Stage::new().await;
    let mut pull = pushed_image("cheapa/web", "v1");
    pull["action"] = json!("pull");
    for events in [
        vec![],
        vec![pull],
        vec![pushed_image("cheapa/web", "latest")],
        vec![pushed_image("cheapa/web", "")],
        vec![pushed_image("cheapa/api", "v1")],
        vec![json!({"action": "push", "target": {"digest": "sha256:00"}})],
        vec![json!({})],
    ] {
        let answer = registry(&stage, events.clone()).await;
        assert_eq!((answer.status.as_u16(), answer.orders().len()), (200, 0), "{events:?}");
    }
    // What can never be ordered is said, and not an error that the registry would try again for.
    let bad = registry(&stage, vec![pushed_image("cheapa/web", "v/1")]).await;
    assert_eq!((bad.status.as_u16(), bad.json()["ignored"].as_array().unwrap().len()), (200, 1));
    let many = registry(&stage, vec![json!({}); 1001]).await;
    assert_eq!(many.status, 422);
}

#[tokio::test]
async fn a_token_is_no_secret_of_a_webhook() {
    let stage = Stage::new().await;
    let token = stage.token(may(&[TokenAction::Admin])).await;
    let asking = stage.post(&path("shop", "registry")).token(&token);
    assert_eq!(asking.json(&json!({"events": []})).send().await.status, 401);
}
