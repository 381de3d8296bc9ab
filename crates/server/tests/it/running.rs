//! The worker: one order at a time and scope, taken over where a server dies, and leaving.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use shiplap_model::TokenAction;
use shiplap_server::{Notifier, OnlyFailures, Settings, StopReason, Webhook};
use shiplap_testkit::World;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::stage::{Course, Stage, may, settings};

const SOON: Duration = Duration::from_secs(20);
const PROD: &str = "/api/v1/environments/shop/prod/deployments";
const DEV: &str = "/api/v1/environments/shop/dev/deployments";
const OTHER: &str = "/api/v1/environments/other/prod/deployments";

#[tokio::test]
async fn one_environment_has_one_order_at_a_time_and_others_go_beside_it() {
    let stage = Stage::new().await;
    let token = stage.token(may(&[TokenAction::Deploy, TokenAction::Rollback])).await;
    for _ in 0..4 {
        stage.works.next(Course::Waits);
    }
    for path in [PROD, DEV, OTHER] {
        assert_eq!(stage.post(path).token(&token).send().await.status, 202);
    }
    // Not to be merged with the first one.
    let back = stage.post("/api/v1/environments/shop/prod/rollbacks").token(&token).send().await;
    stage.works.runs(3).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(stage.works.claims().len(), 3);
    stage.works.go();
    stage.works.runs(1).await;
    stage.works.go();
    assert_eq!(stage.ended(&token, back.orders()[0]).await["end"]["exit"], 0);
    assert_eq!(*stage.works.most_under_way.lock().unwrap(), 3);
}

#[tokio::test]
async fn no_more_are_carried_out_at_a_time_than_the_settings_say() {
    let stage =
        Stage::with(Settings { parallel: 1, ..settings() }, World::new(), Notifier::default())
            .await;
    let token = stage.token(may(&[TokenAction::Deploy])).await;
    let mut ids = Vec::new();
    for path in [PROD, DEV, OTHER] {
        ids.extend(stage.post(path).token(&token).send().await.orders());
    }
    for id in ids {
        assert_eq!(stage.ended(&token, id).await["end"]["exit"], 0);
    }
    assert_eq!(*stage.works.most_under_way.lock().unwrap(), 1);
}

#[tokio::test]
async fn an_order_of_a_server_that_died_is_finished_by_another() {
    let world = World::new();
    let one = Stage::with(settings(), world, Notifier::default()).await;
    let token = one.token(may(&[TokenAction::Deploy])).await;
    one.works.next(Course::WaitsDeaf);
    let id = one.post(PROD).token(&token).send().await.orders()[0];
    one.works.runs(1).await;
    let two = Stage::beside(&one, "two").await;
    let watching =
        tokio::spawn(two.get(&format!("/api/v1/orders/{id}?wait=true")).token(&token).send());
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert!(two.works.claims().is_empty(), "it is kept by the first one");
    one.die();
    // A client that waits at the other server has its answer from there.
    let answer = watching.await.unwrap();
    assert_eq!((answer.status.as_u16(), &answer.json()["end"]["exit"]), (200, &json!(0)));
    let claims = two.works.claims();
    assert_eq!((claims.len(), claims[0].resumed, claims[0].order.id), (1, true, id));
}

#[tokio::test]
async fn a_server_that_leaves_takes_no_more_and_leaves_what_it_cannot_finish() {
    let mut one = Stage::new().await;
    let token = one.token(may(&[TokenAction::Deploy])).await;
    one.works.next(Course::Waits);
    let id = one.post(PROD).token(&token).send().await.orders()[0];
    one.works.runs(1).await;
    let waiting =
        tokio::spawn(one.get(&format!("/api/v1/orders/{id}?wait=true")).token(&token).send());
    tokio::time::sleep(Duration::from_millis(50)).await;
    one.leave().await;
    assert_eq!(*one.works.stops.lock().unwrap(), [StopReason::Leaving]);
    let answer = waiting.await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (408, "still-running"));
    let two = Stage::beside(&one, "two").await;
    assert_eq!(two.ended(&token, id).await["end"]["exit"], 0);
    assert!(two.works.claims()[0].resumed);
}

#[tokio::test]
async fn a_server_that_leaves_waits_no_longer_than_it_may() {
    let mut one = Stage::new().await;
    let token = one.token(may(&[TokenAction::Deploy])).await;
    one.works.next(Course::WaitsDeaf);
    one.post(PROD).token(&token).send().await;
    one.works.runs(1).await;
    let began = std::time::Instant::now();
    one.leave().await;
    assert!(
        began.elapsed() >= Duration::from_millis(500) && began.elapsed() < Duration::from_secs(5)
    );
    assert!(one.lines.troubles.lock().unwrap().iter().any(|t| t.contains("take too long")));
}

#[tokio::test]
async fn an_order_that_runs_can_be_taken_back() {
    let stage = Stage::new().await;
    let token = stage.token(may(&[TokenAction::Deploy])).await;
    stage.works.next(Course::Waits);
    let id = stage.post(PROD).token(&token).send().await.orders()[0];
    stage.works.runs(1).await;
    let path = format!("/api/v1/orders/{id}");
    let reader = stage.token(may(&[TokenAction::Read])).await;
    assert_eq!(stage.delete(&path).token(&reader).send().await.status, 404);
    assert_eq!(stage.delete(&path).token(&token).send().await.status, 202);
    assert_eq!(stage.ended(&token, id).await["end"]["exit"], 3);
    assert_eq!(*stage.works.stops.lock().unwrap(), [StopReason::Withdrawn]);
    assert_eq!(stage.delete(&path).token(&token).send().await.status, 409);
}

#[tokio::test]
async fn a_panic_behind_the_api_is_the_end_of_that_order_only() {
    let stage = Stage::new().await;
    let token = stage.token(may(&[TokenAction::Deploy])).await;
    stage.works.next(Course::Panics);
    let bad = stage.post(&format!("{PROD}?wait=true")).token(&token).send().await;
    assert_eq!((bad.status.as_u16(), &bad.json()["orders"][0]["end"]["exit"]), (424, &json!(70)));
    assert!(stage.lines.troubles.lock().unwrap().iter().any(|t| t.contains("this is a bug")));
    let good = stage.post(&format!("{PROD}?wait=true")).token(&token).send().await;
    assert_eq!(good.status, 200);
}

#[tokio::test]
async fn a_ledger_that_is_away_is_said_and_waited_for() {
    let stage = Stage::new().await;
    let token = stage.token(may(&[TokenAction::Deploy])).await;
    assert_eq!(stage.get("/healthz").send().await.status, 200);
    stage.store.is_away.store(true, Ordering::Relaxed);
    let mut health = stage.get("/healthz").send().await;
    for _ in 0..100 {
        if health.status == 503 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        health = stage.get("/healthz").send().await;
    }
    assert_eq!(health.status, 503);
    assert!(health.json()["why"].as_str().unwrap().starts_with("the ledger does not answer since"));
    let answer = stage.post(PROD).token(&token).send().await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after").as_str()), (503, "5"));
    assert!(!String::from_utf8_lossy(&answer.body).contains("db.internal"));
    stage.store.is_away.store(false, Ordering::Relaxed);
    let done = stage.post(&format!("{PROD}?wait=true")).token(&token).send().await;
    assert_eq!(done.status, 200);
    assert_eq!(stage.get("/healthz").send().await.status, 200);
    let troubles = stage.lines.troubles.lock().unwrap().clone();
    assert_eq!(troubles.len(), 2, "told once, and once that it is over: {troubles:?}");
}

#[tokio::test]
async fn the_end_is_written_down_when_the_ledger_is_back() {
    let stage = Stage::new().await;
    let token = stage.token(may(&[TokenAction::Deploy])).await;
    stage.works.next(Course::Waits);
    let id = stage.post(PROD).token(&token).send().await.orders()[0];
    stage.works.runs(1).await;
    stage.store.is_away.store(true, Ordering::Relaxed);
    stage.works.go();
    tokio::time::sleep(Duration::from_millis(300)).await;
    stage.store.is_away.store(false, Ordering::Relaxed);
    assert_eq!(stage.ended(&token, id).await["end"]["exit"], 0);
    assert_eq!(stage.works.claims().len(), 1, "it was not begun again");
    assert!(stage.works.stops.lock().unwrap().is_empty(), "nothing was stopped for it");
}

#[tokio::test]
async fn people_are_told_how_it_ended() {
    let chat = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook/s3cret", chat.local_addr().unwrap());
    let told = tokio::spawn(async move {
        let (mut stream, _) = chat.accept().await.unwrap();
        let mut text = Vec::new();
        while !text.ends_with(b"}") {
            let mut piece = [0; 1024];
            let read = stream.read(&mut piece).await.unwrap();
            assert!(read > 0);
            text.extend_from_slice(&piece[..read]);
        }
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        String::from_utf8(text).unwrap()
    });
    let webhook = Webhook::new(
        "chat",
        shiplap_model::Secret::new(url),
        vec![],
        json!({"text": "{project}/{environment} {outcome}: {summary}"}),
        OnlyFailures::Yes,
        rustls::RootCertStore::empty(),
    );
    let stage = Stage::with(settings(), World::new(), Notifier::new(vec![Arc::new(webhook)])).await;
    let token = stage.token(may(&[TokenAction::Deploy])).await;
    stage.post(&format!("{PROD}?wait=true")).token(&token).send().await;
    stage.works.next(Course::Ends(3));
    stage.post(&format!("{PROD}?wait=true")).token(&token).send().await;
    let told = timeout(SOON, told).await.unwrap().unwrap();
    assert!(told.starts_with("POST /hook/s3cret HTTP/1.1\r\n"), "{told}");
    assert!(
        told.ends_with(r#"{"text":"shop/prod rolled back: the new api does not answer"}"#),
        "{told}"
    );
    assert!(stage.lines.troubles.lock().unwrap().is_empty());
}
