//! One TCP connection, passed through.

use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::TcpStream;

use super::Core;
use super::hold::Patience;
use super::http::Counted;
use super::upstream;

/// For each way of each connection.
const BUFFER_BYTES: usize = 16 << 10;

/// Serves one connection to its end.
pub(super) async fn serve(core: Arc<Core>, listener: u64, mut client: TcpStream) {
    let _counted = Counted::new(&core);
    let mut patience = Patience::default();
    let (claim, mut replica) = loop {
        let claim = match core.claim(listener, &mut patience, || has_left(&client)).await {
            Ok(claim) => claim,
            Err(_) => return reset(&client),
        };
        // The replica is called at once, so that one that speaks first can.
        match upstream::connect(claim.replica()).await {
            Ok(stream) => break (claim, stream),
            Err(error) => core.suspect(claim.replica(), &error),
        }
    };
    let _claim = claim.into_stream();
    let size = BUFFER_BYTES;
    let copied =
        tokio::io::copy_bidirectional_with_sizes(&mut client, &mut replica, size, size).await;
    if copied.is_err() {
        // A cut connection must not look like one that was ended.
        reset(&client);
        reset(&replica);
    }
}

/// Closing it will send a reset.
fn reset(stream: &TcpStream) {
    let _ = sockopt::set_socket_linger(stream, Some(Duration::ZERO));
}

/// The client has closed its end and sent nothing.
fn has_left(client: &TcpStream) -> bool {
    let mut byte = [0_u8; 1];
    let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
    match rustix::net::recv(client, &mut byte, flags) {
        Ok((0, _)) => true,
        Ok(_) => false,
        Err(error) => error != rustix::io::Errno::AGAIN && error != rustix::io::Errno::INTR,
    }
}
