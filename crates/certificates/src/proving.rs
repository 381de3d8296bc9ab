//! What is ours in the edge's table: certificates, and proofs for authorities.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::SystemTime;

use shiplap_edge::api::{BindError, Unbindable};
use shiplap_edge::table::{Challenge, ListenerTls, Shown};
use shiplap_edge::{Certificate, Client, ClientError, Listener, Table};

/// Whose entries ours are.
pub(crate) const OWNER: &str = "shiplap/certificates";

/// Who owns the ports of the entries, which are the machine's.
pub const ENTRIES: &str = "shiplap/entries";

/// A certificate to be shown, with the names that it is wanted for.
pub(crate) struct Live {
    pub names: Vec<String>,
    pub certificate: Certificate,
    pub pem: Vec<u8>,
}

/// Makes these the proofs that the edge gives to authorities for us.
pub(crate) async fn prove(edge: &Client, challenges: &[Challenge]) -> Result<(), ClientError> {
    let change = |table: &mut Table| {
        table.tls.challenges.retain(|challenge| challenge.owner != OWNER);
        table.tls.challenges.extend_from_slice(challenges);
    };
    edge.update_table(change).await.map(|_| ())
}

/// Makes these the ports at which the edge has its routes, by the entries `http` and `https`.
pub(crate) async fn listen(
    edge: &Client,
    http: Option<u16>,
    https: Option<u16>,
) -> Result<(), ClientError> {
    let wanted = [("http", http, None), ("https", https, Some(ListenerTls::default()))];
    let mut listeners = Vec::new();
    for (entry, port, tls) in wanted {
        let Some(port) = port else { continue };
        for address in [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)] {
            listeners.push(Listener {
                pool: None,
                entry: Some(entry.to_owned()),
                tls: tls.clone(),
                ..Listener::new(ENTRIES, address, port, "")
            });
        }
    }
    match open(edge, &listeners).await {
        // A machine without IPv6 is one.
        Err(ClientError::Unbindable(unbindable)) if unbindable.iter().all(is_without_ipv6) => {
            listeners.retain(|listener| listener.address.is_ipv4());
            open(edge, &listeners).await
        }
        opened => opened,
    }
}

fn is_without_ipv6(unbindable: &Unbindable) -> bool {
    unbindable.listener.address.is_ipv6()
        && matches!(unbindable.reason, BindError::AddressNotAvailable | BindError::Failed)
}

async fn open(edge: &Client, listeners: &[Listener]) -> Result<(), ClientError> {
    let change = |table: &mut Table| {
        table.listeners.retain(|listener| listener.owner != ENTRIES);
        table.listeners.extend_from_slice(listeners);
    };
    edge.update_table(change).await.map(|_| ())
}

/// Makes these the certificates that the edge shows for us. An expired one is left out, unless it
/// is there already: then it is better than none, since people can look at what it says.
pub(crate) async fn show(edge: &Client, live: &[Live]) -> Result<(), ClientError> {
    let now = SystemTime::now();
    let wanted = |table: &Table| -> Vec<Shown> {
        let shown = live.iter().map(|live| {
            let (names, id) = (live.names.clone(), live.certificate.id().to_owned());
            (Shown { owner: OWNER.to_owned(), id, names }, live)
        });
        let fine = shown.filter(|(shown, live)| {
            !shown.names.is_empty() && {
                live.certificate.check(&live.names, now).is_ok()
                    || table.tls.certificates.contains(shown)
            }
        });
        fine.map(|(shown, _)| shown).collect()
    };
    let table = edge.table().await?;
    let ours: Vec<&Shown> =
        table.tls.certificates.iter().filter(|shown| shown.owner == OWNER).collect();
    let status = edge.status().await?;
    let usable = status.certificates.iter().filter(|one| one.not_after_s.is_some());
    let known: HashSet<&str> = usable.map(|one| one.shown.id.as_str()).collect();
    let missing: Vec<&Live> =
        live.iter().filter(|live| !known.contains(live.certificate.id())).collect();
    if missing.is_empty() && ours.into_iter().eq(wanted(&table).iter()) {
        return Ok(());
    }
    for live in missing {
        edge.put_certificate(live.pem.clone().into()).await?;
    }
    let change = |table: &mut Table| {
        let wanted = wanted(table);
        table.tls.certificates.retain(|shown| shown.owner != OWNER);
        table.tls.certificates.extend(wanted);
    };
    edge.update_table(change).await.map(|_| ())
}
