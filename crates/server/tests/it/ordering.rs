//! Deployments, rollbacks and promotions.

use serde_json::json;
use shiplap_model::{TokenAction, Wanted};

use crate::stage::{Course, Stage, may, only};

const DEPLOYMENTS: &str = "/api/v1/environments/shop/prod/deployments";

fn tags(pairs: &[(&str, &str)], services: &[&str]) -> Wanted {
    Wanted::Deploy {
        tags: pairs.iter().map(|(s, t)| ((*s).to_owned(), (*t).to_owned())).collect(),
        services: only(services),
    }
}

#[tokio::test]
async fn a_deployment_is_ordered_at_once_and_carried_out() {
    let stage = Stage::new().await;
    let token = stage.token(may(&[TokenAction::Deploy])).await;
    let body =
        json!({"services": {"web": "abc123", "db": null}, "message": "fix\nit", "revision": "9f1"});
    let answer = stage.post(DEPLOYMENTS).token(&token).json(&body).send().await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let id = answer.json()["id"].as_u64().unwrap();
    assert_eq!(answer.header("location"), format!("/api/v1/orders/{id}"));
    assert_eq!(answer.json()["state"], "waiting");
    let ended = stage.ended(&token, id).await;
    assert_eq!(ended["end"]["exit"], 0);
    assert_eq!(ended["end"]["deployment"], id + 100);
    let claims = stage.works.claims();
    assert_eq!(claims.len(), 1);
    let new = &claims[0].order.new;
    assert_eq!(new.wanted, tags(&[("web", "abc123")], &["db"]));
    assert_eq!((new.who.as_str(), new.message.as_deref()), ("ci", Some("fix it")));
    assert_eq!(new.revision.as_deref(), Some("9f1"));
}

#[tokio::test]
async fn an_image_means_all_services_that_have_it() {
    let stage = Stage::new().await;
    let token = stage.token(may(&[TokenAction::Deploy])).await;
    let body = json!({"images": ["ghcr.io/cheapa/web:v2"]});
    let answer = stage.post(DEPLOYMENTS).token(&token).json(&body).send().await;
    assert_eq!(answer.status, 202);
    stage.ended(&token, answer.orders()[0]).await;
    let wanted = stage.works.claims()[0].order.new.wanted.clone();
    assert_eq!(wanted, tags(&[("jobs", "v2"), ("web", "v2")], &[]));
}

#[tokio::test]
async fn services_with_the_same_variable_get_the_same_tag() {
    let stage = Stage::new().await;
    let token = stage.token(may(&[TokenAction::Deploy])).await;
    let ask = |body| stage.post(DEPLOYMENTS).token(&token).json(&body).send();
    let answer = ask(json!({"services": {"api": "a1"}})).await;
    stage.ended(&token, answer.orders()[0]).await;
    let wanted = stage.works.claims()[0].order.new.wanted.clone();
    assert_eq!(wanted, tags(&[("api", "a1"), ("worker", "a1")], &[]));
    let conflict = ask(json!({"services": {"api": "a1", "worker": "a2"}})).await;
    assert_eq!((conflict.status.as_u16(), conflict.code().as_str()), (422, "conflicting-tags"));
    // Naming it without a tag, or with the same one, is no conflict.
    assert_eq!(ask(json!({"services": {"api": "a1", "worker": "a1"}})).await.status, 202);
}

#[tokio::test]
async fn what_cannot_be_is_refused_before_anything_is_ordered() {
    let stage = Stage::new().await;
    let token = stage.token(may(&[TokenAction::Deploy, TokenAction::Rollback])).await;
    let digest = format!("a1@sha256:{}", "0".repeat(64));
    let bad = [
        (json!({"services": {"nope": "1"}}), 404, "not-found"),
        (json!({"services": {"../api": "1"}}), 404, "not-found"),
        (json!({"services": {"api": ""}}), 422, "bad-tag"),
        (json!({"services": {"api": "a b"}}), 422, "bad-tag"),
        (json!({"services": {"api": "${PATH}"}}), 422, "bad-tag"),
        (json!({"services": {"api": digest.to_uppercase()}}), 422, "bad-tag"),
        (json!({"services": {"db": "17"}}), 422, "fixed-tag"),
        (json!({"services": ["api"]}), 422, "bad-body"),
        (json!({"service": {"api": "1"}}), 422, "bad-body"),
        (json!({"images": ["ghcr.io/cheapa/api"]}), 422, "bad-image"),
        (json!({"images": ["ghcr.io/cheapa/nope:1"]}), 404, "not-found"),
        (
            json!({"images": ["ghcr.io/cheapa/web:1"], "services": {"web": "2"}}),
            422,
            "conflicting-tags",
        ),
        (json!({"settle": "1d"}), 422, "bad-time"),
        (json!({"settle": "99h"}), 422, "bad-time"),
        (json!({"message": "x".repeat(5000)}), 422, "too-long"),
        (json!({"revision": "x".repeat(500)}), 422, "too-long"),
        (json!([]), 422, "bad-body"),
    ];
    for (body, status, code) in bad {
        let answer = stage.post(DEPLOYMENTS).token(&token).json(&body).send().await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code), "{body}");
    }
    for (body, status) in [("{", 400), ("nonsense", 400), ("\u{0}", 400), ("null", 422)] {
        let answer = stage.post(DEPLOYMENTS).token(&token).bytes(body.as_bytes()).send().await;
        assert_eq!(answer.status.as_u16(), status, "{body:?}");
    }
    let deep = "[".repeat(100_000);
    let answer = stage.post(DEPLOYMENTS).token(&token).bytes(deep.as_bytes()).send().await;
    assert_eq!(answer.status, 400);
    for path in [
        "/api/v1/environments/shop/nope/deployments",
        "/api/v1/environments/%2e%2e/prod/deployments",
    ] {
        assert_eq!(stage.post(path).token(&token).send().await.status, 404, "{path}");
    }
    let none = stage.get("/api/v1/orders").token(&stage.admin().await).send().await;
    assert_eq!(none.json(), json!([]));
    // And a good one works.
    let body = json!({"services": {"api": digest}});
    assert_eq!(stage.post(DEPLOYMENTS).token(&token).json(&body).send().await.status, 202);
}

#[tokio::test]
async fn an_environment_whose_files_are_broken_is_not_deployed_but_can_go_back() {
    let stage = Stage::new().await;
    let token = stage.token(may(&[TokenAction::Deploy, TokenAction::Rollback])).await;
    stage.works.change(|catalog| {
        let shop = catalog.projects.get_mut("shop").unwrap();
        shop.environments.get_mut("prod").unwrap().problem =
            Some("compose.yaml:3: no such key".into());
    });
    let answer = stage.post(DEPLOYMENTS).token(&token).send().await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (409, "not-deployable"));
    assert!(answer.json()["message"].as_str().unwrap().ends_with("compose.yaml:3: no such key"));
    let back = stage.post("/api/v1/environments/shop/prod/rollbacks").token(&token).send().await;
    assert_eq!(back.status, 202);
}

#[tokio::test]
async fn waiting_ends_with_the_order_and_its_status_is_for_scripts() {
    let stage = Stage::new().await;
    let token = stage.token(may(&[TokenAction::Deploy])).await;
    let ask = |path: String| stage.post(&path).token(&token).send();
    let done = ask(format!("{DEPLOYMENTS}?wait=true")).await;
    assert_eq!((done.status.as_u16(), &done.json()["end"]["summary"]), (200, &json!("done")));

    stage.works.next(Course::Ends(3));
    let failed = ask(format!("{DEPLOYMENTS}?wait=20s")).await;
    assert_eq!((failed.status.as_u16(), failed.code().as_str()), (424, "failed"));
    let message = failed.json()["message"].as_str().unwrap().to_owned();
    assert!(message.ends_with("failed: the new api does not answer"), "{message}");
    assert_eq!(failed.json()["orders"][0]["end"]["exit"], 3);

    stage.works.next(Course::Waits);
    let open = ask(format!("{DEPLOYMENTS}?wait=200ms")).await;
    assert_eq!((open.status.as_u16(), open.code().as_str()), (408, "still-running"));
    assert_eq!(open.json()["orders"][0]["state"], "running");
    let id = open.orders()[0];
    let waiting =
        tokio::spawn(stage.get(&format!("/api/v1/orders/{id}?wait=true")).token(&token).send());
    stage.works.go();
    assert_eq!(waiting.await.unwrap().status, 200);

    for bad in ["soon", "-1s", "1d"] {
        assert_eq!(ask(format!("{DEPLOYMENTS}?wait={bad}")).await.status, 400, "{bad}");
    }
}

#[tokio::test]
async fn three_tags_for_one_service_are_one_deployment_of_the_last() {
    let stage = Stage::new().await;
    let token = stage.token(may(&[TokenAction::Deploy])).await;
    let mut ids = Vec::new();
    for tag in ["w1", "w2", "w3"] {
        let body = json!({"services": {"web": tag}, "settle": "300ms"});
        ids.extend(stage.post(DEPLOYMENTS).token(&token).json(&body).send().await.orders());
    }
    for id in &ids {
        assert_eq!(stage.ended(&token, *id).await["end"]["exit"], 0);
    }
    let claims = stage.works.claims();
    assert_eq!(claims.len(), 1);
    assert_eq!(claims[0].order.new.wanted, tags(&[("web", "w3")], &[]));
    let first = stage.get(&format!("/api/v1/orders/{}", ids[0])).token(&token).send().await.json();
    assert_eq!((&first["state"], &first["merged_into"]), (&json!("merged"), &json!(ids[2])));
    assert_eq!(first["end"]["deployment"], ids[2] + 100);
}

#[tokio::test]
async fn the_same_key_means_the_same_order() {
    let stage = Stage::new().await;
    let token = stage.token(may(&[TokenAction::Deploy])).await;
    let ask = |key: &str, tag: &str| {
        let body = json!({"services": {"web": tag}});
        stage.post(DEPLOYMENTS).token(&token).header("idempotency-key", key).json(&body).send()
    };
    let first = ask("run-17", "w1").await.orders();
    stage.ended(&token, first[0]).await;
    assert_eq!(ask("run-17", "w1").await.orders(), first);
    let reused = ask("run-17", "w2").await;
    assert_eq!((reused.status.as_u16(), reused.code().as_str()), (422, "key-reused"));
    assert_ne!(ask("run-18", "w1").await.orders(), first);
    assert_eq!(ask(&"k".repeat(256), "w1").await.status, 400);
    assert_eq!(ask("with blank", "w1").await.status, 400);
}

#[tokio::test]
async fn a_rollback_waits_for_nobody_and_names_its_services() {
    let stage = Stage::new().await;
    let token = stage.token(may(&[TokenAction::Rollback])).await;
    let path = "/api/v1/environments/shop/prod/rollbacks?wait=true";
    let body = json!({"services": ["api"], "to": 3, "message": "it is slow"});
    assert_eq!(stage.post(path).token(&token).json(&body).send().await.status, 200);
    let new = stage.works.claims()[0].order.new.clone();
    assert_eq!(new.wanted, Wanted::Rollback { services: only(&["api"]), to: Some(3) });
    assert!(new.settle.is_zero());
    for bad in [
        json!({"services": ["nope"]}),
        json!({"to": 0}),
        json!({"to": u64::MAX}),
        json!({"to": -1}),
    ] {
        let status = stage.post(path).token(&token).json(&bad).send().await.status.as_u16();
        assert!(status == 404 || status == 422, "{bad}: {status}");
    }
}

#[tokio::test]
async fn a_promotion_takes_the_release_of_another_environment() {
    let stage = Stage::new().await;
    let token = stage.token(may(&[TokenAction::Deploy])).await;
    let path = "/api/v1/environments/shop/prod/promotions?wait=true";
    let ask = |body| stage.post(path).token(&token).json(&body).send();
    assert_eq!(ask(json!({"from": "dev", "deployment": 4})).await.status, 200);
    let wanted = stage.works.claims()[0].order.new.wanted.clone();
    assert_eq!(wanted, Wanted::Promote { from: "dev".into(), deployment: Some(4) });
    assert_eq!(ask(json!({"from": "prod"})).await.status, 422);
    assert_eq!(ask(json!({"from": "nope"})).await.status, 404);
    assert_eq!(ask(json!({"from": "../other"})).await.status, 404);
    assert_eq!(ask(json!({})).await.status, 422);
}

#[tokio::test]
async fn a_queue_that_is_full_says_when_to_come_again() {
    let stage = Stage::new().await;
    let token = stage.token(may(&[TokenAction::Deploy])).await;
    let body = json!({"services": {"web": "w1"}, "settle": "60s"});
    let mut refused = 0;
    for _ in 0..110 {
        let answer = stage.post(DEPLOYMENTS).token(&token).json(&body).send().await;
        match answer.status.as_u16() {
            202 => {}
            429 => {
                assert_eq!(answer.header("retry-after"), "10");
                refused += 1;
            }
            other => panic!("{other}"),
        }
    }
    assert_eq!(refused, 10);
}
