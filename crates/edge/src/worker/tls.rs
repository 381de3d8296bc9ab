//! Taking off TLS: which certificate is shown to whom, and the handshake.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::{Acceptor, ClientHello, NoServerSessionStorage, ProducesTickets};
use rustls::sign::SingleCertAndKey;
use tokio::io::AsyncWriteExt;
use tokio_rustls::LazyConfigAcceptor;

use super::Core;
use super::connection::Negotiated;
use super::refusal::Refusal;
use super::stream::SharedStream;
use crate::certificate::{Certificate, provider};
use crate::table::{self, Limits, Proof};

const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";
/// What authorities speak when they look at a host (RFC 8737).
const ACME: &[u8] = b"acme-tls/1";
/// The first byte of every handshake.
const HANDSHAKE: u8 = 0x16;
/// A fatal alert: there is no certificate for this name (RFC 6066).
const UNRECOGNIZED_NAME: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x70];

/// A client's stream, with TLS taken off.
///
/// Boxed: it is moved through several futures, each of which would have room for it.
pub(super) type TlsStream = Box<tokio_rustls::server::TlsStream<SharedStream>>;

/// A certificate, ready for use.
pub(super) struct Served {
    pub certificate: Certificate,
    config: Arc<ServerConfig>,
    proof: Arc<ServerConfig>,
}

/// Certificates by id.
pub(super) type ById = HashMap<String, Arc<Served>>;

impl Served {
    pub(super) fn new(certificate: Certificate, tickets: &Arc<dyn ProducesTickets>) -> Served {
        let with = |protocols: &[&[u8]]| {
            let resolver = Arc::new(SingleCertAndKey::from(certificate.key()));
            let mut config = ServerConfig::builder_with_provider(provider())
                .with_safe_default_protocol_versions()
                .expect("the provider has what TLS 1.2 and 1.3 need")
                .with_no_client_auth()
                .with_cert_resolver(resolver);
            config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
            // Clients keep their sessions: nothing to store, and nothing lost with a worker.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.ticketer = tickets.clone();
            Arc::new(config)
        };
        let (config, proof) = (with(&[HTTP2, HTTP1]), with(&[ACME]));
        Served { certificate, config, proof }
    }
}

/// The table's part about TLS, as pointers.
#[derive(Default)]
pub(super) struct Tls {
    pub by_id: ById,
    exact: HashMap<String, Arc<Served>>,
    /// By what comes behind the `*.`.
    wildcard: HashMap<String, Arc<Served>>,
    /// By host, for authorities.
    proofs: HashMap<String, Arc<Served>>,
    /// By token, host and answer.
    tokens: HashMap<String, (String, String)>,
}

impl Tls {
    /// `by_id` has what the table names, as far as it is to be had.
    pub(super) fn new(table: &table::Tls, by_id: ById) -> Tls {
        let mut tls = Tls::default();
        for shown in &table.certificates {
            let Some(served) = by_id.get(&shown.id) else { continue };
            for name in &shown.names {
                match name.strip_prefix("*.") {
                    Some(parent) => tls.wildcard.insert(parent.to_owned(), served.clone()),
                    None => tls.exact.insert(name.clone(), served.clone()),
                };
            }
        }
        for challenge in &table.challenges {
            let host = challenge.host.clone();
            match &challenge.proof {
                Proof::Http { token, answer } => {
                    tls.tokens.insert(token.clone(), (host, answer.clone()));
                }
                Proof::Tls { certificate } => {
                    if let Some(served) = by_id.get(certificate) {
                        tls.proofs.insert(host, served.clone());
                    }
                }
            }
        }
        Tls { by_id, ..tls }
    }

    /// What HTTP-01 asks for: the answer to this path of this host.
    pub(super) fn answer<'a>(&self, host: impl FnOnce() -> &'a str, path: &str) -> Option<&str> {
        if self.tokens.is_empty() {
            return None;
        }
        let (of, answer) = self.tokens.get(path.strip_prefix(ACME_PATH)?)?;
        (of.as_str() == host().trim_end_matches('.').to_ascii_lowercase())
            .then_some(answer.as_str())
    }

    fn find(&self, hello: &ClientHello<'_>, unnamed: Option<&str>) -> Option<Arc<ServerConfig>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        if hello.alpn().is_some_and(|mut offered| offered.any(|protocol| protocol == ACME)) {
            return Some(self.proofs.get(&name?)?.proof.clone());
        }
        let name = name.as_deref().or(unnamed)?;
        let parent = |name: &str| name.split_once('.').map(|(_, parent)| parent.to_owned());
        let wildcard = || self.wildcard.get(&parent(name)?);
        self.exact.get(name).or_else(wildcard).map(|served| served.config.clone())
    }
}

/// Below it authorities ask, before there is a certificate.
const ACME_PATH: &str = "/.well-known/acme-challenge/";

/// Whether an authority may ask for this path: that of one token, and nothing that only begins so.
pub(super) fn is_asked_by_authority(path: &str) -> bool {
    path.strip_prefix(ACME_PATH).is_some_and(table::is_token)
}

/// How handshakes have ended.
#[derive(Default)]
pub(super) struct Handshakes {
    counts: [AtomicU64; Handshake::ALL.len()],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handshake {
    Full,
    Resumed,
    Proof,
    UnknownName,
    NotTls,
    Failed,
    TooSlow,
}

impl Handshake {
    const ALL: [Handshake; 7] = [
        Handshake::Full,
        Handshake::Resumed,
        Handshake::Proof,
        Handshake::UnknownName,
        Handshake::NotTls,
        Handshake::Failed,
        Handshake::TooSlow,
    ];

    fn name(self) -> &'static str {
        match self {
            Handshake::Full => "full",
            Handshake::Resumed => "resumed",
            Handshake::Proof => "proof",
            Handshake::UnknownName => "unknown_name",
            Handshake::NotTls => "not_tls",
            Handshake::Failed => "failed",
            Handshake::TooSlow => "too_slow",
        }
    }
}

impl Handshakes {
    fn count(&self, handshake: Handshake) {
        self.counts[handshake as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// By name, as far as there were any.
    pub(super) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let all = Handshake::ALL.into_iter().zip(&self.counts);
        let all = all.map(|(handshake, count)| (handshake.name(), count.load(Ordering::Relaxed)));
        all.filter(|(_, count)| *count > 0)
    }
}

/// Takes TLS off a stream; none if the connection has come to its end.
pub(super) async fn take_off(
    core: &Core,
    stream: SharedStream,
    limits: &Limits,
    unnamed: Option<String>,
) -> Option<(TlsStream, Negotiated)> {
    let limit = Duration::from_millis(limits.handshake_timeout_ms);
    let shaken = tokio::time::timeout(limit, shake(core, stream, unnamed.as_deref())).await;
    let (how, stream) = match shaken {
        Ok(Ok((how, stream))) => (how, Some(stream)),
        Ok(Err(how)) => (how, None),
        Err(_) => (Handshake::TooSlow, None),
    };
    core.handshakes.count(how);
    let stream = stream?;
    let negotiated = match stream.get_ref().1.alpn_protocol() {
        Some(HTTP2) => Negotiated::Http2,
        Some(_) | None => Negotiated::Http1,
    };
    Some((stream, negotiated))
}

async fn shake(
    core: &Core,
    mut stream: SharedStream,
    unnamed: Option<&str>,
) -> Result<(Handshake, TlsStream), Handshake> {
    let failed = |_: io::Error| Handshake::Failed;
    let first = stream.peek().await.map_err(failed)?;
    if first != HANDSHAKE {
        // Somebody who types `http://` for `https://` is told so.
        if first.is_ascii_uppercase() {
            let _ = stream.write_all(&Refusal::NotTls.as_http1()).await;
        }
        return Err(Handshake::NotTls);
    }
    let mut start = LazyConfigAcceptor::new(Acceptor::default(), stream).await.map_err(failed)?;
    let config = core.routing.load().tls.find(&start.client_hello(), unnamed);
    let Some(config) = config else {
        let _ = start.io.write_all(&UNRECOGNIZED_NAME).await;
        let _ = start.io.shutdown().await;
        return Err(Handshake::UnknownName);
    };
    let mut stream = Box::new(start.into_stream(config).await.map_err(failed)?);
    let session = stream.get_ref().1;
    if session.alpn_protocol() == Some(ACME) {
        // The certificate was all there was to see.
        let _ = stream.shutdown().await;
        return Err(Handshake::Proof);
    }
    let how = match session.handshake_kind() {
        Some(rustls::HandshakeKind::Resumed) => Handshake::Resumed,
        Some(_) | None => Handshake::Full,
    };
    Ok((how, stream))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_counter_of_its_own() {
        for (index, handshake) in Handshake::ALL.into_iter().enumerate() {
            assert_eq!(handshake as usize, index);
        }
    }

    #[test]
    fn a_token_is_answered_for_its_host_only() {
        let proof = Proof::Http { token: "abc".to_owned(), answer: "abc.def".to_owned() };
        let host = "shop.example".to_owned();
        let challenge = table::Challenge { owner: "o".to_owned(), host, proof };
        let table = table::Tls { certificates: Vec::new(), challenges: vec![challenge] };
        let tls = Tls::new(&table, ById::new());
        let path = "/.well-known/acme-challenge/abc";
        assert_eq!(tls.answer(|| "Shop.example.", path), Some("abc.def"));
        assert_eq!(tls.answer(|| "other.example", path), None);
        assert_eq!(tls.answer(|| "shop.example", "/.well-known/acme-challenge/abcd"), None);
        assert_eq!(tls.answer(|| "shop.example", "/abc"), None);
        assert!(is_asked_by_authority(path));
        for other in ["", "a/b", "..", "../../secret", "a%2fb", "a;b"] {
            assert!(!is_asked_by_authority(&format!("{ACME_PATH}{other}")), "{other}");
        }
    }
}
