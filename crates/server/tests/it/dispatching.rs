//! The dispatch of a workflow, as forges take it.

use std::time::Duration;

use serde_json::{Value, json};
use shiplap_model::{TokenAction, TokenScope, Wanted};
use shiplap_server::{Notifier, Rates, Settings};
use shiplap_testkit::World;

use crate::client::{Answer, Asking};
use crate::stage::{Course, Stage, may, only, settings};

const FORGEJO: &str = "/api/v1/repos/cheapa/deploy/actions/workflows/deploy.yml/dispatches";
const GITHUB: &str = "/repos/cheapa/deploy/actions/workflows/deploy.yml/dispatches";

fn inputs(inputs: Value) -> Value {
    json!({"ref": "main", "inputs": inputs})
}

async fn ask(stage: &Stage, token: &str, path: &str, body: &Value) -> Answer {
    asking(stage, token, path, body).send().await
}

fn asking(stage: &Stage, token: &str, path: &str, body: &Value) -> Asking {
    stage.post(path).token(token).header("content-type", "application/json").json(body)
}

#[tokio::test]
async fn the_curl_of_a_service_repository_works_at_both_addresses() {
    let stage = Stage::new().await;
    let token = stage.token(may(&[TokenAction::Deploy])).await;
    for (number, path) in [FORGEJO, GITHUB].into_iter().enumerate() {
        let body = inputs(json!({"web_image_tag": format!("abc{number}"), "api_image_tag": ""}));
        let answer = ask(&stage, &token, path, &body).await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (204, 0));
        let ids = answer.orders();
        assert_eq!(answer.header("location"), format!("/api/v1/orders/{}", ids[0]));
        stage.ended(&token, ids[0]).await;
        let new = stage.works.claims()[number].order.new.clone();
        assert_eq!(new.scope.to_string(), "shop/prod");
        let tags = [("web".to_owned(), format!("abc{number}"))].into();
        assert_eq!(new.wanted, Wanted::Deploy { tags, services: only(&[]) });
        assert_eq!(new.message.as_deref(), Some("cheapa/deploy deploy.yml at main"));
    }
}

#[tokio::test]
async fn empty_inputs_change_nothing() {
    let stage = Stage::new().await;
    let token = stage.token(may(&[TokenAction::Deploy])).await;
    for body in [
        inputs(json!({"web_image_tag": "", "api_image_tag": "  "})),
        inputs(json!({"web_image_tag": null})),
        inputs(json!({})),
        json!({"ref": "main", "inputs": null}),
        json!({"ref": "main"}),
        json!({"ref": "refs/heads/main", "return_run_info": true}),
    ] {
        let answer = ask(&stage, &token, &format!("{FORGEJO}?wait=true"), &body).await;
        assert_eq!((answer.status.as_u16(), answer.orders().len()), (204, 0), "{body}");
    }
    assert!(stage.works.claims().is_empty());
}

#[tokio::test]
async fn one_dispatch_may_deploy_in_several_environments() {
    let stage = Stage::new().await;
    let token = stage.token(may(&[TokenAction::Deploy])).await;
    let body = inputs(json!({"api_image_tag": "a1", "web_image_tag": "w1"}));
    let answer = ask(&stage, &token, &format!("{FORGEJO}?wait=true"), &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let orders = answer.json()["orders"].clone();
    let places: Vec<&str> =
        orders.as_array().unwrap().iter().map(|o| o["environment"].as_str().unwrap()).collect();
    assert_eq!(places, ["dev", "prod"]);
    assert_eq!(orders[0]["wanted"]["tags"], json!({"api": "a1", "worker": "a1"}));
    assert_eq!(orders[1]["wanted"]["tags"], json!({"api": "a1", "web": "w1", "worker": "a1"}));
    stage.works.next(Course::Ends(1));
    let failed = ask(&stage, &token, &format!("{FORGEJO}?wait=true"), &body).await;
    assert_eq!((failed.status.as_u16(), failed.orders().len()), (424, 2));
}

#[tokio::test]
async fn answers_have_the_forms_of_the_forges() {
    let stage = Stage::new().await;
    let token = stage.token(may(&[TokenAction::Deploy])).await;
    let mut body = inputs(json!({"web_image_tag": "w1"}));
    body["return_run_info"] = json!(true);
    let forgejo = ask(&stage, &token, FORGEJO, &body).await;
    let id = forgejo.orders()[0];
    assert_eq!(forgejo.status, 201);
    assert_eq!(forgejo.json(), json!({"id": id, "run_number": id, "jobs": ["shop/prod"]}));
    let mut body = inputs(json!({"web_image_tag": "w2"}));
    let gitea = ask(&stage, &token, &format!("{FORGEJO}?return_run_details=true"), &body).await;
    body["return_run_details"] = json!(true);
    let github = ask(&stage, &token, GITHUB, &body).await;
    for answer in [gitea, github] {
        let id = answer.orders()[0];
        let url = format!("http://shiplap.test/api/v1/orders/{id}");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json(), json!({"workflow_run_id": id, "run_url": url, "html_url": url}));
    }
    // Errors have what clients of Gitea and Forgejo read.
    let error = ask(&stage, &token, FORGEJO, &json!({})).await;
    assert_eq!(error.status, 422);
    assert!(error.json()["message"].is_string() && error.json()["url"].is_string());
}

#[tokio::test]
async fn what_a_dispatch_cannot_mean_is_refused_whole() {
    let stage = Stage::new().await;
    let token = stage.token(may(&[TokenAction::Deploy])).await;
    let web = json!({"web_image_tag": "w1"});
    let path = |owner: &str, repo: &str, file: &str| {
        format!("/api/v1/repos/{owner}/{repo}/actions/workflows/{file}/dispatches")
    };
    for other in [
        path("cheapa", "other", "deploy.yml"),
        path("evil", "deploy", "deploy.yml"),
        path("cheapa", "deploy", "other.yml"),
        path("cheapa", "deploy", "%2e%2e%2fdeploy.yml"),
        path("..", "deploy", "deploy.yml"),
    ] {
        assert_eq!(ask(&stage, &token, &other, &inputs(web.clone())).await.status, 404, "{other}");
    }
    let bad = [
        (json!({"inputs": web}), 422, "no-ref"),
        (json!({"ref": "", "inputs": web}), 422, "no-ref"),
        (json!({"ref": "feature", "inputs": web}), 422, "bad-ref"),
        (json!({"ref": "x".repeat(300), "inputs": web}), 422, "bad-ref"),
        (json!({"ref": 1, "inputs": web}), 422, "bad-body"),
        (inputs(json!({"web_image_tag": 17})), 422, "bad-body"),
        (inputs(json!({"nope": "1"})), 422, "unknown-input"),
        (inputs(json!({"web_image_tag": "w1", "nope": "1"})), 422, "unknown-input"),
        (inputs(json!({"web_image_tag": "a b"})), 422, "bad-tag"),
        (inputs(json!({"web_image_tag": "w1", "api_image_tag": "a/b"})), 422, "bad-tag"),
    ];
    for (body, status, code) in bad {
        let answer = ask(&stage, &token, FORGEJO, &body).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code), "{body}");
    }
    assert!(stage.works.claims().is_empty());
}

#[tokio::test]
async fn a_token_of_one_service_dispatches_that_service_only() {
    let stage = Stage::new().await;
    let of_web =
        TokenScope { images: only(&["ghcr.io/cheapa/web"]), ..may(&[TokenAction::Deploy]) };
    let token = stage.token(of_web).await;
    let ok = ask(&stage, &token, FORGEJO, &inputs(json!({"web_image_tag": "w1"}))).await;
    assert_eq!(ok.status, 204);
    let message = |input: &'static str| {
        let asking = asking(&stage, &token, FORGEJO, &inputs(json!({input: "1"})));
        async move {
            let answer = asking.send().await;
            assert_eq!(answer.status, 422);
            answer.json()["message"].as_str().unwrap().replace(input, "INPUT")
        }
    };
    assert_eq!(message("api_image_tag").await, message("nope").await);
    // To a token that can set nothing there, there is no such workflow.
    for scope in [
        TokenScope { images: only(&["ghcr.io/cheapa/else"]), ..may(&[TokenAction::Deploy]) },
        TokenScope { projects: only(&["other"]), ..may(&[TokenAction::Deploy]) },
        may(&[TokenAction::Read]),
    ] {
        let token = stage.token(scope).await;
        let answer = ask(&stage, &token, FORGEJO, &inputs(json!({"web_image_tag": "w1"}))).await;
        assert_eq!(answer.status, 404);
    }
}

#[tokio::test]
async fn a_dispatch_that_is_sent_again_orders_nothing_new() {
    let stage = Stage::new().await;
    let token = stage.token(may(&[TokenAction::Deploy])).await;
    let body = inputs(json!({"api_image_tag": "a1"}));
    let send = || asking(&stage, &token, FORGEJO, &body).header("idempotency-key", "run-1").send();
    let first = send().await.orders();
    assert_eq!(first.len(), 2);
    stage.ended(&token, first[0]).await;
    assert_eq!(send().await.orders(), first);
}

#[tokio::test]
async fn a_thousand_triggers_in_a_row_are_a_few_deployments_and_the_last_tag_wins() {
    let most = std::num::NonZeroU32::MAX;
    let rates = Rates { token_per_second: most, token_burst: most, ..Rates::default() };
    let settings = Settings { rates, settle: Duration::from_millis(200), ..settings() };
    let stage = Stage::with(settings, World::new(), Notifier::default()).await;
    let token = stage.token(may(&[TokenAction::Deploy])).await;
    let mut last = (0, String::new());
    for number in 0..1000 {
        let tag = format!("w{number}");
        let body = inputs(json!({"web_image_tag": tag}));
        let answer = ask(&stage, &token, FORGEJO, &body).await;
        match answer.status.as_u16() {
            204 => last = (answer.orders()[0], tag),
            // Too many wait; nothing was written for it.
            429 => assert_eq!(answer.header("retry-after"), "10"),
            other => panic!("{other}"),
        }
    }
    assert_eq!(stage.ended(&token, last.0).await["end"]["exit"], 0);
    let claims = stage.works.claims();
    assert!(claims.len() < 100, "{}", claims.len());
    let tags = [("web".to_owned(), last.1)].into();
    let newest = claims.last().unwrap().order.new.wanted.clone();
    assert_eq!(newest, Wanted::Deploy { tags, services: only(&[]) });
}
