//! Certificates on disk, which the supervisor keeps for us.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::SystemTime;

use super::Core;
use super::link::{Link, refusal};
use super::tls::{ById, Served};
use crate::certificate::{Certificate, MAX_PEM_BYTES, id_of};
use crate::channel::{Ask, Reply};
use crate::table::Table;

/// Puts a certificate on disk.
pub(super) async fn store(link: &Link, id: &str, text: &[u8]) -> Result<(), String> {
    let (reply, mut fds) =
        link.ask(Ask::NewCertificate).await.map_err(|error| error.to_string())?;
    let (Reply::Done, Some(file)) = (&reply, fds.pop()) else {
        return Err(refusal("opening a file for the certificate", reply));
    };
    let written = File::from(file).write_all(text);
    written.map_err(|error| format!("writing the certificate: {error}"))?;
    match link.ask(Ask::CommitCertificate(id.to_owned())).await {
        Ok((Reply::Done, _)) => Ok(()),
        Ok((reply, _)) => Err(refusal("storing the certificate", reply)),
        Err(error) => Err(format!("storing the certificate: {error}")),
    }
}

/// Those that a table names, each with what is wrong with it instead; known ones are not read again.
pub(super) async fn gather(core: &Core, table: &Table) -> (ById, Vec<(String, String)>) {
    let known = &core.routing.load_full().tls.by_id;
    let (mut all, mut wrong) = (ById::new(), Vec::new());
    let ids: HashSet<&str> = table.tls.ids().collect();
    for id in ids {
        let served = match known.get(id) {
            Some(served) => Ok(served.clone()),
            None => load(core, id).await,
        };
        match served {
            Ok(served) => _ = all.insert(id.to_owned(), served),
            Err(error) => wrong.push((id.to_owned(), error)),
        }
    }
    (all, wrong)
}

async fn load(core: &Core, id: &str) -> Result<Arc<Served>, String> {
    let asked = core.link.ask(Ask::Certificate(id.to_owned())).await;
    let (reply, mut fds) = asked.map_err(|error| error.to_string())?;
    let (Reply::Done, Some(file)) = (&reply, fds.pop()) else {
        return Err(refusal("reading it", reply));
    };
    let mut text = Vec::new();
    let read = File::from(file).take(MAX_PEM_BYTES as u64 + 1).read_to_end(&mut text);
    read.map_err(|error| format!("reading it: {error}"))?;
    if id_of(&text) != id {
        return Err("its file has been changed".to_owned());
    }
    let certificate = Certificate::from_pem(&text).map_err(|error| error.to_string())?;
    Ok(Arc::new(Served::new(certificate, &core.tickets)))
}

/// What is wrong with the certificates of a table, as far as the one before did not have it: what
/// has expired since is no reason to refuse what another deployer changes.
pub(super) fn refuse(
    table: &Table,
    before: &Table,
    all: &ById,
    wrong: &[(String, String)],
) -> Vec<String> {
    let now = SystemTime::now();
    let mut refused = Vec::new();
    let fresh = |id: &&str| before.tls.ids().all(|known| known != *id);
    for id in table.tls.ids().filter(fresh) {
        if let Some((_, error)) = wrong.iter().find(|(wrong, _)| wrong == id) {
            refused.push(format!("certificate {id}: {error}"));
        }
    }
    for shown in &table.tls.certificates {
        if before.tls.certificates.contains(shown) {
            continue;
        }
        if let Some(served) = all.get(&shown.id)
            && let Err(error) = served.certificate.check(&shown.names, now)
        {
            refused.push(format!("certificate {}: {error}", shown.id));
        }
    }
    refused
}
