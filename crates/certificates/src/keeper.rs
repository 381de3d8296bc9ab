//! The use cases: want, want no more, look, renew.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use shiplap_edge::{Certificate, Client, ClientError};

use crate::acme;
use crate::authority::Authority;
use crate::due::{Advice, renew_at, try_again_at};
use crate::files;
use crate::proving::{self, Live};
use crate::store::{Entry, Standing, Store, StoreError};
use crate::wanted::{Source, Wanted, WantedError};

/// Keeps certificates in a folder, and the edge supplied with them.
#[derive(Debug, Clone)]
pub struct Keeper {
    folder: PathBuf,
    edge: Client,
}

/// Why nothing could be done at all.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The folder cannot be used.
    #[error("the folder of certificates")]
    Store(#[from] StoreError),
    /// It cannot be wanted.
    #[error(transparent)]
    Wanted(#[from] WantedError),
    /// Another one has the name already.
    #[error("`{name}` is in the certificate of {of} already")]
    NameTaken {
        /// The name.
        name: String,
        /// The first name of the other one.
        of: String,
    },
    /// There is none of this name.
    #[error("no certificate is kept for `{0}`")]
    Unknown(String),
    /// The edge cannot be reached, or says no.
    #[error("the edge")]
    Edge(#[from] ClientError),
    /// Our own authority cannot be made.
    #[error("our own authority: {0}")]
    Authority(String),
}

/// One certificate that is kept.
#[derive(Debug, Clone)]
pub struct Kept {
    /// What is wanted.
    pub wanted: Wanted,
    /// Until when the one that we have is valid; none if there is none.
    pub not_after: Option<SystemTime>,
    /// When it is renewed. Files: whenever they change.
    pub renew_at: Option<SystemTime>,
    /// Failures in a row.
    pub failures: u32,
    /// After a failure: not before.
    pub try_again_at: Option<SystemTime>,
    /// What went wrong last.
    pub last_error: Option<String>,
}

/// Which certificates are renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// Those whose time has come.
    Due,
    /// All that we get ourselves, also if a failure says to wait.
    Now,
}

/// What became of the certificates.
#[derive(Debug)]
pub struct Outcome {
    /// By first name, in the order in which they are kept.
    pub became: Vec<(String, Became)>,
    /// Whether the edge shows them.
    pub shown: Result<(), String>,
}

impl Outcome {
    /// Nothing went wrong.
    pub fn is_good(&self) -> bool {
        let good = |(_, became): &(String, Became)| !matches!(became, Became::Failed { .. });
        self.shown.is_ok() && self.became.iter().all(good)
    }
}

/// What became of one certificate.
#[derive(Debug)]
pub enum Became {
    /// It is not time yet.
    Kept,
    /// There is a new one.
    Renewed,
    /// It failed before, and is tried again later.
    Waiting {
        /// Not before.
        until: SystemTime,
    },
    /// There is no new one. The last good one, if there is one, goes on.
    Failed {
        /// Why.
        error: String,
        /// Not before.
        try_again_at: SystemTime,
    },
}

impl Keeper {
    /// Keeps them in this folder, for this edge.
    pub fn new(folder: impl Into<PathBuf>, edge: Client) -> Keeper {
        Keeper { folder: folder.into(), edge }
    }

    /// How each one stands. Changes nothing.
    pub fn list(&self) -> Result<Vec<Kept>, KeeperError> {
        let store = Store::look(&self.folder);
        let mut all = Vec::new();
        for entry in store.book()?.entries {
            let live = live(&store, &entry)?;
            let certificate = live.as_ref().map(|live| &live.certificate);
            all.push(Kept {
                not_after: certificate.map(Certificate::not_after),
                renew_at: certificate.map(time_to_renew),
                failures: entry.standing.failures,
                try_again_at: entry.standing.try_again_s.map(at),
                last_error: entry.standing.last_error,
                wanted: entry.wanted,
            });
        }
        Ok(all)
    }

    /// Wants one from now on, in the place of one with the same first name; and gets it.
    pub async fn add(&self, wanted: Wanted) -> Result<Outcome, KeeperError> {
        wanted.check()?;
        let store = Store::open(&self.folder)?;
        let mut book = store.book()?;
        for other in book.entries.iter().filter(|other| other.wanted.name() != wanted.name()) {
            let both = wanted.names.iter().find(|name| other.wanted.names.contains(name));
            if let Some(name) = both {
                let (name, of) = (name.clone(), other.wanted.name().to_owned());
                return Err(KeeperError::NameTaken { name, of });
            }
        }
        let entry = Entry { wanted, standing: Standing::default() };
        let name = entry.wanted.name().to_owned();
        match book.entries.iter_mut().find(|other| other.wanted.name() == name) {
            Some(known) => {
                // Another source: what is there was not got from it.
                if known.wanted.source != entry.wanted.source {
                    known.standing = Standing { source_changed: true, ..Standing::default() };
                }
                known.wanted = entry.wanted;
            }
            None => book.entries.push(entry),
        }
        store.write_book(&book)?;
        self.work(&store, |entry| match entry.wanted.name() == name {
            true => Some(Renewal::Due),
            false => None,
        })
        .await
    }

    /// Wants one no more. The edge does not show it any more, and its key is deleted here.
    pub async fn remove(&self, name: &str) -> Result<Outcome, KeeperError> {
        let store = Store::open(&self.folder)?;
        let mut book = store.book()?;
        let before = book.entries.len();
        book.entries.retain(|entry| entry.wanted.name() != name);
        if book.entries.len() == before {
            return Err(KeeperError::Unknown(name.to_owned()));
        }
        store.write_book(&book)?;
        store.remove_live(name)?;
        self.work(&store, |_| None).await
    }

    /// Renews, and sees to it that the edge shows what there is.
    pub async fn renew(&self, renewal: Renewal) -> Result<Outcome, KeeperError> {
        let store = Store::open(&self.folder)?;
        self.work(&store, |_| Some(renewal)).await
    }

    /// The certificate of our own authority, for those who are to believe it; made if need be.
    pub fn authority(&self) -> Result<PathBuf, KeeperError> {
        let path = Authority::path(&Store::look(&self.folder));
        if path.exists() {
            return Ok(path);
        }
        let store = Store::open(&self.folder)?;
        Authority::open(&store).map_err(|error| KeeperError::Authority(error.to_string()))?;
        Ok(path)
    }

    /// Opens these ports of the edge, on all addresses, for its routes; closes others of ours.
    pub async fn listen(&self, http: Option<u16>, https: Option<u16>) -> Result<(), KeeperError> {
        proving::listen(&self.edge, http, https).await.map_err(KeeperError::Edge)
    }

    async fn work(
        &self,
        store: &Store,
        which: impl Fn(&Entry) -> Option<Renewal>,
    ) -> Result<Outcome, KeeperError> {
        let mut book = store.book()?;
        let mut became = Vec::new();
        for index in 0..book.entries.len() {
            let entry = &mut book.entries[index];
            let Some(renewal) = which(entry) else { continue };
            let one = self.renew_one(store, entry, renewal).await?;
            became.push((entry.wanted.name().to_owned(), one));
            store.write_book(&book)?;
        }
        let mut all = Vec::new();
        for entry in &book.entries {
            all.extend(live(store, entry)?);
        }
        let shown = proving::show(&self.edge, &all).await.map_err(|error| error.to_string());
        Ok(Outcome { became, shown })
    }

    async fn renew_one(
        &self,
        store: &Store,
        entry: &mut Entry,
        renewal: Renewal,
    ) -> Result<Became, KeeperError> {
        let now = SystemTime::now();
        let live = live(store, entry)?;
        if !is_due(entry, live.as_ref(), renewal, now) {
            return Ok(Became::Kept);
        }
        let wait = entry.standing.try_again_s.map(at).filter(|until| *until > now);
        let is_ours = !matches!(entry.wanted.source, Source::Files { .. });
        if let Some(until) = wait
            && renewal == Renewal::Due
            && is_ours
        {
            return Ok(Became::Waiting { until });
        }
        let got = self.get(store, &entry.wanted).await.and_then(|pem| {
            let wrong = |error: shiplap_edge::CertificateError| (error.to_string(), Advice::None);
            let certificate = Certificate::from_pem(&pem).map_err(wrong)?;
            certificate.check(&entry.wanted.names, SystemTime::now()).map_err(wrong)?;
            Ok((certificate, pem))
        });
        match got {
            Ok((certificate, pem)) => {
                let known = live.as_ref().map(|live| live.certificate.id());
                entry.standing = Standing::default();
                if known == Some(certificate.id()) {
                    return Ok(Became::Kept);
                }
                store.write_live(entry.wanted.name(), &pem)?;
                Ok(Became::Renewed)
            }
            Err((error, advice)) => {
                let failures = entry.standing.failures.saturating_add(1);
                let try_again_at = try_again_at(failures, advice, SystemTime::now());
                entry.standing.failures = failures;
                entry.standing.try_again_s = Some(seconds(try_again_at));
                entry.standing.last_error = Some(error.clone());
                Ok(Became::Failed { error, try_again_at })
            }
        }
    }

    /// Gets a certificate from where it is to come from: chain and key, as PEM.
    async fn get(&self, store: &Store, wanted: &Wanted) -> Result<Vec<u8>, (String, Advice)> {
        let plain = |text: String| (text, Advice::None);
        match &wanted.source {
            Source::Files { chain, key } => files::read(chain, key).map_err(plain),
            Source::Internal => {
                let issued = Authority::open(store).and_then(|own| own.issue(&wanted.names));
                issued.map(String::into_bytes).map_err(|error| plain(error.to_string()))
            }
            Source::Acme(acme) => {
                let issued = acme::issue(store, &self.edge, acme, &wanted.names).await;
                issued.map(String::into_bytes).map_err(|error| (error.text, error.advice))
            }
        }
    }
}

/// Whether to try to get another one. Files are looked at each time.
fn is_due(entry: &Entry, live: Option<&Live>, renewal: Renewal, now: SystemTime) -> bool {
    let Some(live) = live else { return true };
    match (&entry.wanted.source, renewal) {
        (Source::Files { .. }, _) | (_, Renewal::Now) => true,
        (Source::Internal | Source::Acme(_), Renewal::Due) => {
            entry.standing.source_changed
                || now >= time_to_renew(&live.certificate)
                || live.certificate.check(&entry.wanted.names, now).is_err()
        }
    }
}

fn time_to_renew(certificate: &Certificate) -> SystemTime {
    renew_at(certificate.not_before(), certificate.not_after(), certificate.id())
}

/// The last good one, if there is one. A file that somebody has broken is none.
fn live(store: &Store, entry: &Entry) -> Result<Option<Live>, StoreError> {
    let Some(pem) = store.live(entry.wanted.name())? else { return Ok(None) };
    let certificate = Certificate::from_pem(&pem).ok();
    // Names that were added are shown once there is a certificate for them.
    Ok(certificate.map(|certificate| {
        let has = |name: &&String| certificate.is_for(name);
        let names = entry.wanted.names.iter().filter(has).cloned().collect();
        Live { names, certificate, pem }
    }))
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

/// The folder of certificates below the one of everything.
pub fn folder(state: &Path) -> PathBuf {
    state.join("certificates")
}
