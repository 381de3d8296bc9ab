//! One TCP connection, passed through.

use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::TcpStream;

use super::Core;
use super::hold::Patience;
use super::replica::Kind;
use super::rules::Address;
use super::tunnel::Tunnel;
use super::upstream;

/// Serves one connection to its end.
pub(super) async fn serve(core: Arc<Core>, listener: u64, client: TcpStream) {
    let address = Address::of_listener(listener);
    let mut patience = Patience::default();
    let (claim, replica) = loop {
        let claim = match core.claim(&address, &mut patience, || has_left(&client), || ()).await {
            Ok(claim) => claim,
            Err(_) => return reset(&client),
        };
        // The replica is called at once, so that one that speaks first can.
        match upstream::connect(claim.replica()).await {
            Ok(stream) => break (claim, stream),
            Err(error) => core.suspect(claim.replica(), &error),
        }
    };
    let _claim = claim.into_kind(Kind::Tunnel);
    let mut tunnel = Tunnel::new(client, replica);
    if tunnel.run().await.is_err() {
        // A cut connection must not look like one that was ended.
        reset(&tunnel.client);
        reset(&tunnel.replica);
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
