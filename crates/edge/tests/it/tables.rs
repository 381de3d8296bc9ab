use std::net::TcpListener;
use std::time::Duration;

use shiplap_edge::api::{BindError, ProbeError, ProbeKind, ProbeRequest};
use shiplap_edge::{ClientError, Protocol, Table};

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_table_read_before_another_change_is_refused() {
    let a = Upstream::named("a").await;
    let edge = Edge::start().await;
    let stale = edge.client.table().await.unwrap();
    assert_eq!(stale, Table::default());
    edge.serve("api", http(vec![a.replica("a")])).await;
    match edge.client.put_table(&stale).await {
        Err(ClientError::Conflict { current: 1 }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(edge.client.table().await.unwrap().pools.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_cannot_be_bound_leaves_everything_as_it_was() {
    let a = Upstream::named("a").await;
    let edge = Edge::start().await;
    let address = edge.serve("api", http(vec![a.replica("a")])).await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let free = free_address();
    let mut table = edge.client.table().await.unwrap();
    table.pools.get_mut("api").unwrap().replicas.clear();
    table.listeners.push(listener("api", free.port()));
    table.listeners.push(listener("api", taken.local_addr().unwrap().port()));
    match edge.client.put_table(&table).await {
        Err(ClientError::Unbindable(unbindable)) => {
            assert_eq!(unbindable.len(), 1);
            assert_eq!(unbindable[0].listener, table.listeners[2]);
            assert_eq!(unbindable[0].reason, BindError::AddressInUse);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(edge.client.table().await.unwrap().generation, 1);
    assert_eq!(get(address, "/").await.1, "a 0");
    drop(TcpListener::bind(free).expect("the one that could be bound is closed again"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_listener_frees_its_port_and_a_kept_one_is_not_touched() {
    let a = Upstream::named("a").await;
    let edge = Edge::start().await;
    let kept = edge.serve("kept", http(vec![a.replica("a")])).await;
    let gone = edge.serve("gone", http(vec![a.replica("a")])).await;
    let mut client = Http::connect(kept).await.unwrap();
    assert_eq!(client.get("/").await.unwrap().1, "a 0");
    edge.client
        .update_table(|table| {
            table.pools.remove("gone");
            table.listeners.retain(|listener| listener.pool.as_deref() == Some("kept"));
        })
        .await
        .unwrap();
    drop(TcpListener::bind(gone).unwrap());
    assert_eq!(client.get("/").await.unwrap().1, "a 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_listens_on_a_port_is_found_out() {
    let web = Upstream::named("web").await;
    let silent = crate::tcp::echo().await;
    let edge = Edge::start().await;
    let probe = async |address: std::net::SocketAddr, kind| {
        let request = ProbeRequest {
            address: address.ip(),
            port: address.port(),
            kind,
            path: "/".to_owned(),
            timeout_ms: 5000,
        };
        edge.client.probe(&request).await.unwrap()
    };
    let seen = probe(web.address, ProbeKind::Auto).await;
    assert_eq!((seen.connected, seen.is_http, seen.http_status), (true, true, Some(200)));
    let seen = probe(web.address, ProbeKind::Http).await;
    assert_eq!((seen.http_status, seen.error), (Some(200), None));
    let seen = probe(silent, ProbeKind::Auto).await;
    assert_eq!((seen.connected, seen.is_http, seen.error), (true, false, None));
    let seen = probe(silent, ProbeKind::Http).await;
    assert_eq!(seen.error, Some(ProbeError::NotHttp));
    let seen = probe(free_address(), ProbeKind::Auto).await;
    assert_eq!((seen.connected, seen.error), (false, Some(ProbeError::Refused)));
    let seen = edge.client.probe_tcp(silent, Duration::from_secs(5)).await.unwrap();
    assert_eq!((seen.connected, seen.error), (true, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_table_is_refused_loudly_and_the_previous_one_is_used() {
    let a = Upstream::named("a").await;
    let mut edge = Edge::start().await;
    let address = edge.serve("api", http(vec![a.replica("a")])).await;
    edge.serve("db", pool(Protocol::Tcp, vec![])).await;
    for torn in [&b"{ \"schema\": 1, \"pools\": {"[..], b"{ \"schema\": 99 }"] {
        edge.supervisor.kill().unwrap();
        edge.supervisor.wait().unwrap();
        std::fs::write(edge.state("table.json"), torn).unwrap();
        edge.supervisor = spawn_supervisor(&edge.state(""), edge.client.socket());
        let pid = edge.supervisor.id();
        let status = edge.wait(|status| status.supervisor_pid == pid).await;
        assert_eq!(status.generation, 1);
        assert!(status.problems[0].contains("refused"), "{:?}", status.problems);
        edge.wait(|status| status.listeners.iter().all(|listener| listener.bound)).await;
        assert_eq!(get(address, "/").await.1, "a 0");
    }
    // The next table goes on from there, and the good one stays the previous one.
    let table = edge.change("api", |pool| pool.service = "other".to_owned()).await;
    assert_eq!(table.generation, 2);
    let previous = std::fs::read(edge.state("table.previous.json")).unwrap();
    assert_eq!(Table::from_json(&previous).unwrap().generation, 1);
    assert!(edge.state("table.refused.json").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unusable_request_is_refused_with_a_reason() {
    let edge = Edge::start().await;
    let mut table = edge.client.table().await.unwrap();
    table.listeners.push(listener("nowhere", 0));
    match edge.client.put_table(&table).await {
        Err(ClientError::Refused { status: 400, message }) => assert!(message.contains("nowhere")),
        other => panic!("{other:?}"),
    }
    let gone = shiplap_edge::Client::new(edge.folder.path().join("nobody.sock"));
    assert!(matches!(gone.status().await, Err(ClientError::Unreachable { .. })));
    match edge.client.ports("short").await {
        Err(ClientError::Refused { status: 404, message }) => {
            assert!(message.contains("container id"))
        }
        other => panic!("{other:?}"),
    }
}
