//! Watching an order: events, in order, from any point.

use std::time::Duration;

use serde_json::{Value, json};
use shiplap_model::TokenAction;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::time::timeout;

use crate::stage::{Course, Stage, may};

const DEPLOYMENTS: &str = "/api/v1/environments/shop/prod/deployments";
const SOON: Duration = Duration::from_secs(20);

#[derive(Debug, Default, Clone, PartialEq)]
struct Seen {
    event: String,
    id: String,
    data: String,
}

impl Seen {
    fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap()
    }
}

/// A stream of events that is read line by line.
struct Watching {
    lines: Lines<BufReader<OwnedReadHalf>>,
    _writing: tokio::net::tcp::OwnedWriteHalf,
}

impl Watching {
    async fn new(stage: &Stage, token: &str, order: u64, last: Option<&str>) -> Self {
        let (reading, mut writing) = TcpStream::connect(stage.address).await.unwrap().into_split();
        let last = last.map_or_else(String::new, |last| format!("Last-Event-ID: {last}\r\n"));
        let head = format!(
            "GET /api/v1/orders/{order}/events HTTP/1.1\r\nHost: x\r\nAuthorization: token {token}\r\n{last}\r\n"
        );
        writing.write_all(head.as_bytes()).await.unwrap();
        Self { lines: BufReader::new(reading).lines(), _writing: writing }
    }

    /// The next event; nothing at the end.
    async fn next(&mut self) -> Option<Seen> {
        let mut seen = Seen::default();
        loop {
            let line = timeout(SOON, self.lines.next_line()).await.expect("a line").unwrap()?;
            match line.split_once(": ") {
                Some(("event", value)) => seen.event = value.to_owned(),
                Some(("id", value)) => seen.id = value.to_owned(),
                Some(("data", value)) => seen.data = value.to_owned(),
                // The last piece of a body in chunks has no bytes.
                _ if line == "0" => return None,
                _ if line.is_empty() && seen != Seen::default() => return Some(seen),
                _ => {}
            }
        }
    }

    async fn all(mut self) -> Vec<Seen> {
        let mut all = Vec::new();
        while let Some(seen) = self.next().await {
            all.push(seen);
        }
        all
    }
}

fn words(seen: &[Seen]) -> Vec<String> {
    let word = |seen: &Seen| match seen.event.as_str() {
        "line" | "deployment" => format!("{} {}", seen.event, seen.data),
        "state" => format!("state {}", seen.json()["state"].as_str().unwrap()),
        "end" => format!("end {}", seen.json()["end"]["exit"]),
        other => other.to_owned(),
    };
    seen.iter().map(word).collect()
}

#[tokio::test]
async fn events_are_replayed_then_followed_and_end_with_the_outcome() {
    let stage = Stage::new().await;
    let token = stage.token(may(&[TokenAction::Deploy])).await;
    stage.works.next(Course::Waits);
    let id = stage.post(DEPLOYMENTS).token(&token).send().await.orders()[0];
    stage.works.runs(1).await;
    let mut watching = Watching::new(&stage, &token, id, None).await;
    let mut seen = Vec::new();
    while seen.len() < 3 {
        seen.push(watching.next().await.unwrap());
    }
    stage.works.go();
    seen.extend(watching.all().await);
    let deployment = format!("deployment {}", id + 100);
    assert_eq!(words(&seen), ["state running", &deployment, "line pulling", "line over", "end 0"]);

    // Whoever comes back sees what they have not seen.
    let pulling = &seen[2];
    let again = Watching::new(&stage, &token, id, Some(&pulling.id)).await.all().await;
    assert_eq!(words(&again), ["line over", "end 0"]);
    let stranger = Watching::new(&stage, &token, id, Some("other-1-7")).await.all().await;
    assert_eq!(words(&stranger), [&deployment, "line pulling", "line over", "end 0"]);
}

#[tokio::test]
async fn whoever_watches_a_merged_order_sees_the_one_that_does_it() {
    let stage = Stage::new().await;
    let token = stage.token(may(&[TokenAction::Deploy])).await;
    let body = |tag: &str| json!({"services": {"web": tag}, "settle": "400ms"});
    let first = stage.post(DEPLOYMENTS).token(&token).json(&body("1")).send().await.orders()[0];
    let watching = tokio::spawn(Watching::new(&stage, &token, first, None).await.all());
    let second = stage.post(DEPLOYMENTS).token(&token).json(&body("2")).send().await.orders()[0];
    let seen = watching.await.unwrap();
    let words = words(&seen);
    assert_eq!(words.first().map(String::as_str), Some("state waiting"));
    assert!(words.contains(&format!("deployment {}", second + 100)), "{words:?}");
    assert_eq!(words.last().map(String::as_str), Some("end 0"));
    assert_eq!(seen.last().unwrap().json()["merged_into"], second);
}

#[tokio::test]
async fn a_watcher_who_leaves_leaves_nothing_behind() {
    let stage = Stage::new().await;
    let token = stage.token(may(&[TokenAction::Deploy])).await;
    stage.works.next(Course::Waits);
    let id = stage.post(DEPLOYMENTS).token(&token).send().await.orders()[0];
    stage.works.runs(1).await;
    // More than fit at the same time (128 of one address), one after the other.
    for _ in 0..180 {
        let mut watching = Watching::new(&stage, &token, id, None).await;
        assert!(watching.next().await.is_some());
    }
    stage.works.go();
    assert_eq!(stage.ended(&token, id).await["end"]["exit"], 0);
}

#[tokio::test]
async fn a_client_that_waits_and_leaves_frees_its_place() {
    let settings = shiplap_server::Settings {
        limits: shiplap_server::Limits { connections_per_address: 4, ..Default::default() },
        ..crate::stage::settings()
    };
    let stage = Stage::with(settings, shiplap_testkit::World::new(), Default::default()).await;
    let token = stage.token(may(&[TokenAction::Deploy])).await;
    stage.works.next(Course::Waits);
    let id = stage.post(DEPLOYMENTS).token(&token).send().await.orders()[0];
    stage.works.runs(1).await;
    for _ in 0..20 {
        let mut stream = TcpStream::connect(stage.address).await.unwrap();
        let head = format!(
            "GET /api/v1/orders/{id}?wait=true HTTP/1.1\r\nHost: x\r\nAuthorization: token {token}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        drop(stream);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stage.works.go();
    assert_eq!(stage.ended(&token, id).await["end"]["exit"], 0);
}
