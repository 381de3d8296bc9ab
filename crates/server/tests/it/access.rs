//! Who may do what, and what others learn of it.

use std::num::NonZeroU32;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use shiplap_model::{TokenAction, TokenScope, Tokens as _};
use shiplap_server::{Listener, Notifier, Rates};
use shiplap_testkit::World;
use tokio::net::UnixStream;

use crate::stage::{Stage, may, only, settings};

const PROD: &str = "/api/v1/environments/shop/prod";

/// A token of the repository of the web service, as a service repository holds it.
fn of_web() -> TokenScope {
    TokenScope {
        projects: only(&["shop"]),
        environments: only(&["prod"]),
        images: only(&["ghcr.io/cheapa/web"]),
        ..may(&[TokenAction::Deploy, TokenAction::Read, TokenAction::Rollback])
    }
}

#[tokio::test]
async fn every_token_that_does_not_work_gets_the_same_answer() {
    let stage = Stage::new().await;
    let good = stage.admin().await;
    let expired = stage.token_until(may(&[TokenAction::Admin]), Some(2)).await;
    let revoked = stage.admin().await;
    let id = revoked.split('_').nth(1).unwrap().to_owned();
    assert!(stage.ledger.revoke_token(&id, 5).await.unwrap());
    let (head, secret) = good.rsplit_once('_').unwrap();
    let wrong_secret = format!("{head}_{}", secret.chars().rev().collect::<String>());
    let unknown_id = format!("shiplap_{}_{secret}", "0".repeat(16));
    let twice = format!("Bearer {good}, Bearer {good}");
    let mut answers = Vec::new();
    for value in [
        format!("Bearer {expired}"),
        format!("Bearer {revoked}"),
        format!("Bearer {wrong_secret}"),
        format!("Bearer {unknown_id}"),
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        good.clone(),
        format!("Digest {good}"),
        "Basic !!!".to_owned(),
        twice,
    ] {
        answers.push(stage.get(PROD).header("authorization", &value).send().await);
    }
    answers.push(stage.get(PROD).send().await);
    answers.push(stage.get(PROD).token(&good).token(&good).send().await);
    // The same whether there is such a place or not.
    answers.push(stage.get("/api/v1/environments/no/no").send().await);
    for answer in &answers {
        assert_eq!((answer.status.as_u16(), &answer.body), (401, &answers[0].body));
    }
    assert_eq!(stage.get(PROD).token(&good).send().await.status, 200);
}

#[tokio::test]
async fn tokens_are_taken_in_all_forms_that_forges_take() {
    let stage = Stage::new().await;
    let token = stage.admin().await;
    let basic = |text: String| format!("Basic {}", STANDARD.encode(text));
    for value in [
        format!("Bearer {token}"),
        format!("bearer {token}"),
        format!("token {token}"),
        format!("Token {token}"),
        basic(format!("ci:{token}")),
        basic(format!(":{token}")),
        basic(format!("{token}:")),
        basic(format!("{token}:x-oauth-basic")),
    ] {
        let answer = stage.get(PROD).header("authorization", &value).send().await;
        assert_eq!(answer.status, 200, "{value}");
    }
}

#[tokio::test]
async fn a_token_reaches_no_further_than_its_scope() {
    let stage = Stage::new().await;
    let token = stage.token(of_web()).await;
    let ask = |path: &str, body: Value| stage.post(path).token(&token).json(&body).send();
    let deployments = format!("{PROD}/deployments");
    let rollbacks = format!("{PROD}/rollbacks");
    let allowed = [
        (&deployments, json!({"services": {"web": "w1"}})),
        (&deployments, json!({"services": {"web": null, "jobs": "w2"}})),
        (&deployments, json!({"images": ["ghcr.io/cheapa/web:w3"]})),
        (&rollbacks, json!({"services": ["web"]})),
    ];
    for (path, body) in allowed {
        assert_eq!(ask(path, body.clone()).await.status, 202, "{body}");
    }
    let dev = "/api/v1/environments/shop/dev/deployments".to_owned();
    let other = "/api/v1/environments/other/prod/deployments".to_owned();
    let promotions = format!("{PROD}/promotions");
    let refused = [
        (&deployments, json!({"services": {"api": "1"}})),
        (&deployments, json!({"services": {"web": "1", "api": "1"}})),
        (&deployments, json!({"services": {"api": null}})),
        (&deployments, json!({"services": {"db": "17"}})),
        (&deployments, json!({"services": {"nope": "1"}})),
        (&deployments, json!({"images": ["ghcr.io/cheapa/api:1"]})),
        (&deployments, json!({"images": ["ghcr.io/evil/web:1"]})),
        (&deployments, json!({})),
        (&dev, json!({"services": {"web": "1"}})),
        (&other, json!({"services": {"web": "1"}})),
        (&rollbacks, json!({})),
        (&rollbacks, json!({"services": ["api"]})),
        (&promotions, json!({"from": "dev"})),
    ];
    for (path, body) in refused {
        let answer = ask(path, body.clone()).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (404, "not-found"),
            "{path} {body}"
        );
    }
    for path in ["/api/v1/tokens", "/metrics", "/api/v1/environments/shop/dev"] {
        assert_eq!(stage.get(path).token(&token).send().await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn what_a_token_is_not_for_looks_like_what_is_not_there() {
    let stage = Stage::new().await;
    let token = stage.token(of_web()).await;
    let message = |body: Value, name: &'static str| {
        let asking = stage.post(&format!("{PROD}/deployments")).token(&token).json(&body);
        async move {
            let answer = asking.send().await;
            assert_eq!(answer.status, 404);
            answer.json()["message"].as_str().unwrap().replace(name, "NAME")
        }
    };
    let hidden = message(json!({"services": {"api": "1"}}), "api").await;
    let absent = message(json!({"services": {"nope": "1"}}), "nope").await;
    assert_eq!(hidden, absent);
    let fixed = message(json!({"services": {"db": "!"}}), "db").await;
    assert_eq!(hidden, fixed);
}

#[tokio::test]
async fn a_shared_variable_does_not_widen_a_token() {
    let stage = Stage::new().await;
    let of_api = TokenScope { services: only(&["api"]), ..may(&[TokenAction::Deploy]) };
    let token = stage.token(of_api).await;
    let body = json!({"services": {"api": "a1"}});
    let answer = stage.post(&format!("{PROD}/deployments")).token(&token).json(&body).send().await;
    assert_eq!(answer.status, 404);
    assert!(!answer.json()["message"].as_str().unwrap().contains("worker"));
}

#[tokio::test]
async fn each_action_allows_itself_only() {
    let stage = Stage::new().await;
    let actions =
        [TokenAction::Read, TokenAction::Deploy, TokenAction::Rollback, TokenAction::Admin];
    for action in actions {
        let token = stage.token(may(&[action])).await;
        let is =
            |allowed: &[TokenAction]| action == TokenAction::Admin || allowed.contains(&action);
        let read = stage.get(PROD).token(&token).send().await.status == 200;
        let deploy =
            stage.post(&format!("{PROD}/deployments")).token(&token).send().await.status == 202;
        let back =
            stage.post(&format!("{PROD}/rollbacks")).token(&token).send().await.status == 202;
        let tokens = stage.get("/api/v1/tokens").token(&token).send().await.status == 200;
        let metrics = stage.get("/metrics").token(&token).send().await.status == 200;
        assert_eq!(read, is(&[TokenAction::Read]), "{action:?}");
        assert_eq!(deploy, is(&[TokenAction::Deploy]), "{action:?}");
        assert_eq!(back, is(&[TokenAction::Rollback]), "{action:?}");
        assert_eq!(tokens, is(&[]), "{action:?}");
        assert_eq!(metrics, is(&[TokenAction::Read]), "{action:?}");
    }
}

#[tokio::test]
async fn readers_see_what_they_are_good_for() {
    let stage = Stage::new().await;
    let (all, web) = (stage.admin().await, stage.token(of_web()).await);
    let get = |path: &str, token: &str| stage.get(path).token(token).send();
    let list = get("/api/v1/environments", &all).await.json();
    assert_eq!(list.as_array().unwrap().len(), 3);
    let list = get("/api/v1/environments", &web).await.json();
    assert_eq!(list.as_array().unwrap().len(), 1);
    assert_eq!(
        list[0]["services"].as_object().unwrap().keys().collect::<Vec<_>>(),
        ["jobs", "web"]
    );

    let state = get(PROD, &web).await.json();
    assert_eq!(state["drift"], json!(["jobs drifted", "web drifted"]));
    assert_eq!(get(PROD, &all).await.json()["drift"], json!(["everything drifted"]));
    let history = format!("{PROD}/deployments?limit=2&before=6");
    let seen = get(&history, &web).await.json();
    assert_eq!((&seen[0]["number"], seen.as_array().unwrap().len()), (&json!(5), 2));
    assert_eq!(seen[0]["services"].as_object().unwrap().keys().collect::<Vec<_>>(), ["web"]);
    let one = format!("{PROD}/deployments/3");
    assert_eq!(get(&one, &web).await.json()["journal"], json!([]));
    assert_eq!(get(&one, &all).await.json()["journal"].as_array().unwrap().len(), 1);
    assert_eq!(get(&format!("{PROD}/deployments/99"), &all).await.status, 404);
    assert_eq!(get(&format!("{PROD}/deployments/x"), &all).await.status, 404);
    *stage.works.away.lock().unwrap() = true;
    assert_eq!(get(PROD, &all).await.status, 503);
}

#[tokio::test]
async fn an_order_is_seen_by_whoever_placed_it_and_by_readers_of_all_of_it() {
    let stage = Stage::new().await;
    let own = stage
        .token(TokenScope { images: only(&["ghcr.io/cheapa/web"]), ..may(&[TokenAction::Deploy]) })
        .await;
    let path = format!("{PROD}/deployments?wait=true");
    let body = json!({"services": {"web": "w1"}});
    let id = stage.post(&path).token(&own).json(&body).send().await.orders()[0];
    let of_api = TokenScope { services: only(&["api"]), ..may(&[TokenAction::Read]) };
    let (web, api, deployer) = (
        stage.token(of_web()).await,
        stage.token(of_api).await,
        stage.token(may(&[TokenAction::Deploy])).await,
    );
    for (token, sees) in [(&own, true), (&web, true), (&api, false), (&deployer, false)] {
        for path in [format!("/api/v1/orders/{id}"), format!("/api/v1/orders/{id}/events")] {
            let status = stage.get(&path).token(token).send().await.status;
            assert_eq!(status == 200, sees, "{path} {status}");
        }
        let list = stage.get("/api/v1/orders").token(token).send().await.json();
        assert_eq!(!list.as_array().unwrap().is_empty(), sees);
    }
}

#[tokio::test]
async fn tokens_are_made_shown_once_used_and_revoked() {
    let stage = Stage::new().await;
    let admin = stage.admin().await;
    let body = json!({"name": "api ci", "scope": {"actions": ["read"], "projects": ["shop"]}});
    let made = stage.post("/api/v1/tokens").token(&admin).json(&body).send().await;
    assert_eq!((made.status.as_u16(), made.header("cache-control").as_str()), (201, "no-store"));
    let token = made.json()["token"].as_str().unwrap().to_owned();
    let id = made.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(stage.get(PROD).token(&token).send().await.status, 200);
    let list = stage.get("/api/v1/tokens").token(&admin).send().await;
    assert!(!String::from_utf8_lossy(&list.body).contains(token.rsplit('_').next().unwrap()));
    let kept =
        list.json().as_array().unwrap().iter().find(|t| t["id"] == id.as_str()).cloned().unwrap();
    assert_eq!((&kept["name"], &kept["made_by"]), (&json!("api ci"), &json!("ci")));
    let path = format!("/api/v1/tokens/{id}");
    assert_eq!(stage.delete(&path).token(&admin).send().await.status, 204);
    assert_eq!(stage.get(PROD).token(&token).send().await.status, 401);
    assert_eq!(stage.delete(&path).token(&admin).send().await.status, 404);
    let bad = [
        json!({"name": "", "scope": {"actions": ["read"]}}),
        json!({"name": "x", "scope": {"actions": []}}),
        json!({"name": "x", "scope": {"actions": ["fly"]}}),
        json!({"name": "x", "scope": {"actions": ["read"], "project": ["shop"]}}),
        json!({"name": "x", "scope": {"actions": ["read"], "projects": ["../x"]}}),
        json!({"name": "x", "scope": {"actions": ["read"], "images": ["a b"]}}),
        json!({"name": "x", "scope": {"actions": ["read"]}, "expires_ms": 1}),
    ];
    for body in bad {
        let answer = stage.post("/api/v1/tokens").token(&admin).json(&body).send().await;
        assert_eq!(answer.status, 422, "{body}");
    }
}

#[tokio::test]
async fn a_narrow_admin_makes_no_tokens() {
    let stage = Stage::new().await;
    let narrow = TokenScope { projects: only(&["shop"]), ..may(&[TokenAction::Admin]) };
    let token = stage.token(narrow).await;
    let body = json!({"name": "x", "scope": {"actions": ["admin"]}});
    assert_eq!(stage.post("/api/v1/tokens").token(&token).json(&body).send().await.status, 404);
    assert_eq!(stage.get("/api/v1/tokens").token(&token).send().await.status, 404);
}

#[tokio::test]
async fn the_last_use_is_written_down_once_a_minute() {
    let stage = Stage::new().await;
    let token = stage.admin().await;
    for _ in 0..5 {
        assert_eq!(stage.get(PROD).token(&token).send().await.status, 200);
    }
    let id = token.split('_').nth(1).unwrap();
    let mut used = None;
    for _ in 0..200 {
        used = stage.ledger.token(id).await.unwrap().unwrap().used_ms;
        if used.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(used.unwrap() % 60_000, 0);
    assert_eq!(stage.store.uses.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_again() {
    let of = |number| NonZeroU32::new(number).unwrap();
    let rates = Rates {
        token_per_second: of(1),
        token_burst: of(3),
        failures_per_second: of(1),
        failures_burst: of(2),
    };
    let settings = shiplap_server::Settings { rates, ..settings() };
    let stage = Stage::with(settings, World::new(), Notifier::default()).await;
    let (one, two) = (stage.admin().await, stage.admin().await);
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(stage.get("/api/v1/orders").token(&one).send().await.status.as_u16());
    }
    assert_eq!(statuses, [200, 200, 200, 429]);
    let mut refused = Vec::new();
    for _ in 0..3 {
        refused.push(stage.get("/api/v1/orders").send().await);
    }
    assert_eq!(refused.iter().map(|a| a.status.as_u16()).collect::<Vec<_>>(), [401, 401, 429]);
    assert_eq!(refused[2].header("retry-after"), "1");
    // A neighbour at the same address with a token that works is let in.
    assert_eq!(stage.get("/api/v1/orders").token(&two).send().await.status, 200);
}

#[tokio::test]
async fn the_audit_log_has_who_what_and_no_secret() {
    let stage = Stage::new().await;
    let token = stage.token(of_web()).await;
    let body = json!({"services": {"web": "w1"}});
    stage.post(&format!("{PROD}/deployments?wait=true")).token(&token).json(&body).send().await;
    stage.get(PROD).token(&token).send().await;
    stage.get(PROD).token("shiplap_wrong").send().await;
    stage.get("/api/v1/environments/shop/dev").token(&token).send().await;
    let lines = stage.lines.audit.lock().unwrap().clone();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert_eq!((lines[0].who.as_deref(), lines[0].status), (Some("ci"), 200));
    assert_eq!(lines[0].did, ["ordered 1 (shop/prod: deploy web=w1)"]);
    assert_eq!(
        (lines[0].path.as_str(), lines[0].from.as_str()),
        ("/api/v1/environments/shop/prod/deployments", "127.0.0.1")
    );
    assert_eq!(
        (lines[1].who.as_deref(), lines[1].problem.as_deref()),
        (None, Some("unauthorized"))
    );
    assert_eq!((lines[2].who.as_deref(), lines[2].status), (Some("ci"), 404));
    let text: String = lines.iter().map(shiplap_server::AuditLine::to_json).collect();
    assert!(!text.contains(token.rsplit('_').next().unwrap()) && !text.contains("shiplap_wrong"));
}

#[tokio::test]
async fn the_own_user_needs_no_token_on_the_unix_socket() {
    let folder = std::env::temp_dir().join(format!("shiplap-server-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("api.sock");
    let listener = Listener::unix(&path).unwrap();
    assert!(Listener::unix(&path).is_err(), "somebody listens there");
    let nowhere = "127.0.0.1:1".parse().unwrap();
    let mut stage =
        Stage::on(settings(), World::new(), Notifier::default(), vec![listener], nowhere).await;
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    let over = |asking: crate::client::Asking| async {
        asking.send_over(UnixStream::connect(&path).await.unwrap()).await
    };
    let answer = over(stage.post(&format!("{PROD}/deployments?wait=true"))).await;
    assert_eq!(answer.status, 200);
    let who = answer.json()["who"].as_str().unwrap().to_owned();
    assert!(who.ends_with("@vm1"), "{who}");
    assert_eq!(over(stage.get("/api/v1/tokens")).await.status, 200);
    // A token that is sent counts, whoever sends it.
    let reader = stage.token(may(&[TokenAction::Read])).await;
    assert_eq!(over(stage.get("/api/v1/tokens").token(&reader)).await.status, 404);
    assert_eq!(over(stage.get("/api/v1/tokens").token("nonsense")).await.status, 401);
    stage.leave().await;
    // Left behind by a server that is gone, it is replaced; anything else is not.
    drop(Listener::unix(&path).unwrap());
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "mine").unwrap();
    assert!(Listener::unix(&path).is_err());
    std::fs::remove_dir_all(&folder).unwrap();
}
