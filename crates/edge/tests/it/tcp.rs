use std::net::SocketAddr;

use shiplap_edge::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::*;

/// Sends back what comes, then closes.
pub async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    });
    address
}

/// Sends all, half-closes, reads all.
pub async fn exchange(address: SocketAddr, bytes: &'static [u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_go_both_ways_and_half_closes_are_kept() {
    let edge = Edge::start().await;
    let address = edge.serve("db", pool(Protocol::Tcp, vec![replica("a", echo().await)])).await;
    let bytes: &'static [u8] = vec![7; 1 << 20].leak();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let (mut read, mut write) = stream.split();
    let mut answer = Vec::new();
    let send = async {
        write.write_all(bytes).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let (_, received) = tokio::join!(send, read.read_to_end(&mut answer));
    assert_eq!((received.unwrap(), answer == bytes), (1 << 20, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_speaks_first_is_heard() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address_of_app = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"220 ready\r\n").await.unwrap();
        let mut byte = [0];
        let _ = stream.read(&mut byte).await;
    });
    let edge = Edge::start().await;
    let address = edge.serve("mail", pool(Protocol::Tcp, vec![replica("a", address_of_app)])).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut greeting = [0; 11];
    stream.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"220 ready\r\n");
    let status = edge.wait(|status| status.pools["mail"].replicas[0].streams == 1).await;
    assert_eq!(status.pools["mail"].replicas[0].in_flight, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn open_connections_survive_a_switch_and_new_ones_go_to_the_new_replica() {
    let edge = Edge::start().await;
    let (old, new) = (echo().await, echo().await);
    let address = edge.serve("db", pool(Protocol::Tcp, vec![replica("old", old)])).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"1").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'1');
    edge.switch("db", vec![replica("new", new)]).await;
    assert_eq!(exchange(address, b"abc").await, b"abc");
    stream.write_all(b"2").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'2');
    let drain = edge.client.drain("db", &["old".to_owned()], LONG).await.unwrap();
    assert_eq!((drain.drained, drain.streams), (true, 1));
    let status = edge.client.status().await.unwrap();
    assert_eq!(status.pools["db"].replicas[0].total, 1);
}
