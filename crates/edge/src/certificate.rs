//! A certificate with its key, as PEM files hold them: read, and checked in itself.

use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// No certificate with its chain and key is larger.
pub const MAX_PEM_BYTES: usize = 256 << 10;
/// What was issued a moment ago by a clock that is ahead of ours is fine.
const CLOCKS_DIFFER: Duration = Duration::from_secs(300);
/// Hexadecimal digits of an id.
const ID_DIGITS: usize = 32;

static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));

/// The cryptography of the whole edge.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    PROVIDER.clone()
}

/// A chain and the key of its first certificate.
pub struct Certificate {
    id: String,
    names: Vec<String>,
    not_before: SystemTime,
    not_after: SystemTime,
    key: Arc<CertifiedKey>,
}

/// Keys are not for logs.
impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("id", &self.id).field("names", &self.names).finish()
    }
}

/// What is wrong with a certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// The file is larger than any that makes sense.
    #[error("more than {MAX_PEM_BYTES} bytes")]
    TooLarge,
    /// Not PEM, or none of the parts that there must be.
    #[error("no {0} in PEM form")]
    Missing(&'static str),
    /// Several keys: which one counts?
    #[error("more than one private key")]
    SeveralKeys,
    /// PEM, but what is in it cannot be read.
    #[error("the {what} cannot be read: {why}")]
    Malformed {
        /// `certificate` or `private key`.
        what: &'static str,
        /// The reader's words, without any content.
        why: String,
    },
    /// The key is another certificate's.
    #[error("the private key is not that of the first certificate")]
    NotAPair,
    /// A certificate in the chain was not issued by the next one.
    #[error("certificate {0} of the chain was not issued by the one after it")]
    ChainOrder(usize),
    /// Clients read host names from one place only (subjectAltName), and there are none.
    #[error("the certificate is for no host name")]
    NoNames,
    /// Its time has not come, or is over.
    #[error("the certificate is valid from {from} to {to} only (seconds since 1970)")]
    NotValid {
        /// In seconds since 1970.
        from: u64,
        /// In seconds since 1970.
        to: u64,
    },
    /// It is for other names.
    #[error("the certificate is not for `{name}`, but for {}", .names.join(", "))]
    OtherNames {
        /// The one that is wanted.
        name: String,
        /// Those it has.
        names: Vec<String>,
    },
}

impl Certificate {
    /// Reads a chain, its own certificate first, and the key: in one file, in any order of the two.
    ///
    /// # Errors
    /// When anything is missing or does not fit together. The time it is valid for and its names
    /// are for [`Certificate::check`].
    pub fn from_pem(text: &[u8]) -> Result<Certificate, CertificateError> {
        if text.len() > MAX_PEM_BYTES {
            return Err(CertificateError::TooLarge);
        }
        let chain: Vec<CertificateDer<'static>> = parts(text, "certificate")?;
        let mut keys: Vec<PrivateKeyDer<'static>> = parts(text, "private key")?;
        let key = keys.pop().ok_or(CertificateError::Missing("private key"))?;
        if !keys.is_empty() {
            return Err(CertificateError::SeveralKeys);
        }
        let mut read = Vec::new();
        for certificate in &chain {
            let malformed = |error: x509_cert::der::Error| CertificateError::Malformed {
                what: "certificate",
                why: error.to_string(),
            };
            read.push(x509_cert::Certificate::from_der(certificate).map_err(malformed)?);
        }
        let own = read.first().ok_or(CertificateError::Missing("certificate"))?;
        for (index, two) in read.windows(2).enumerate() {
            if two[0].tbs_certificate().issuer() != two[1].tbs_certificate().subject() {
                return Err(CertificateError::ChainOrder(index + 1));
            }
        }
        let names = names(own)?;
        let validity = own.tbs_certificate().validity();
        let (not_before, not_after) = (validity.not_before, validity.not_after);
        let key = provider().key_provider.load_private_key(key).map_err(|error| {
            CertificateError::Malformed { what: "private key", why: error.to_string() }
        })?;
        // rustls has a check of its own, which does not know what stands in proofs for authorities.
        let public = own.tbs_certificate().subject_public_key_info().to_der();
        if key.public_key().map(|key| key.to_vec()) != public.ok() {
            return Err(CertificateError::NotAPair);
        }
        let key = CertifiedKey::new(chain, key);
        Ok(Certificate {
            id: id_of(text),
            names,
            not_before: UNIX_EPOCH + not_before.to_unix_duration(),
            not_after: UNIX_EPOCH + not_after.to_unix_duration(),
            key: Arc::new(key),
        })
    }

    /// Names its content: 32 hexadecimal digits.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The host names that it is for, in lower case; `*.` stands for one label.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// From when on it is valid.
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// Until when it is valid.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Whether it can be shown for these names at this moment.
    pub fn check(&self, names: &[String], now: SystemTime) -> Result<(), CertificateError> {
        if now + CLOCKS_DIFFER < self.not_before || now > self.not_after {
            let (from, to) = (seconds(self.not_before), seconds(self.not_after));
            return Err(CertificateError::NotValid { from, to });
        }
        match names.iter().find(|name| !self.is_for(name)) {
            None => Ok(()),
            Some(name) => {
                let (name, names) = (name.clone(), self.names.clone());
                Err(CertificateError::OtherNames { name, names })
            }
        }
    }

    /// Whether it is for this name.
    pub fn is_for(&self, name: &str) -> bool {
        let wildcard = match name.split_once('.') {
            Some((label, parent)) if label != "*" => Some(format!("*.{parent}")),
            Some(_) | None => None,
        };
        self.names.iter().any(|own| own == name || wildcard.as_ref() == Some(own))
    }

    pub(crate) fn key(&self) -> Arc<CertifiedKey> {
        self.key.clone()
    }
}

/// Seconds since 1970.
pub(crate) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

/// The id of a certificate whose file has this content.
pub(crate) fn id_of(text: &[u8]) -> String {
    blake3::hash(text).to_hex()[..ID_DIGITS].to_owned()
}

/// Whether this can be an id, and so the name of a file.
pub(crate) fn is_id(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.len() == ID_DIGITS && text.bytes().all(plain)
}

fn parts<T: PemObject>(text: &[u8], what: &'static str) -> Result<Vec<T>, CertificateError> {
    let parts: Result<Vec<T>, pem::Error> = T::pem_slice_iter(text).collect();
    match parts {
        Ok(parts) if parts.is_empty() => Err(CertificateError::Missing(what)),
        Ok(parts) => Ok(parts),
        // The error's own words could quote what it met.
        Err(_) => Err(CertificateError::Malformed { what, why: "broken PEM".to_owned() }),
    }
}

fn names(own: &x509_cert::Certificate) -> Result<Vec<String>, CertificateError> {
    let found = own.tbs_certificate().get_extension::<SubjectAltName>();
    let found = found.map_err(|error| CertificateError::Malformed {
        what: "certificate",
        why: error.to_string(),
    })?;
    let names = found.map(|(_, names)| names.0).unwrap_or_default();
    let dns = names.iter().filter_map(|name| match name {
        GeneralName::DnsName(name) => Some(name.as_str().to_ascii_lowercase()),
        _ => None,
    });
    let dns: Vec<String> = dns.collect();
    if dns.is_empty() { Err(CertificateError::NoNames) } else { Ok(dns) }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Made {
        chain: String,
        key: String,
    }

    fn made(names: &[&str]) -> Made {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        Made { chain: certificate.pem(), key: key.serialize_pem() }
    }

    fn read(text: &str) -> Result<Certificate, CertificateError> {
        Certificate::from_pem(text.as_bytes())
    }

    #[test]
    fn chain_and_key_are_read_in_any_order_and_name_their_content() {
        let one = made(&["Shop.example", "*.shop.example"]);
        let certificate = read(&format!("{}{}", one.chain, one.key)).unwrap();
        assert_eq!(certificate.names(), ["shop.example", "*.shop.example"]);
        assert!(is_id(certificate.id()));
        let turned = read(&format!("{}{}", one.key, one.chain)).unwrap();
        assert_ne!(turned.id(), certificate.id());
        assert!(!format!("{certificate:?}").contains("PRIVATE"));
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let (one, other) = (made(&["a.example"]), made(&["b.example"]));
        let error = |text: &str| read(text).unwrap_err();
        assert_eq!(error(&one.chain), CertificateError::Missing("private key"));
        assert_eq!(error(&one.key), CertificateError::Missing("certificate"));
        let mixed = format!("{}{}", one.chain, other.key);
        assert_eq!(error(&mixed), CertificateError::NotAPair);
        let strangers = format!("{}{}{}", one.chain, one.chain, one.key);
        // Two that issued themselves under one name are in order; rcgen's names are all the same.
        assert!(read(&strangers).is_ok());
        let keys = format!("{}{}{}", one.chain, one.key, other.key);
        assert_eq!(error(&keys), CertificateError::SeveralKeys);
        assert_eq!(error(&format!("{}{}", made(&[]).chain, one.key)), CertificateError::NoNames);
        let torn = format!("{}{}", one.chain, one.key.replace("\n-----END", "AAAA"));
        assert!(matches!(error(&torn), CertificateError::Malformed { .. }), "{:?}", error(&torn));
        assert_eq!(error(&"x".repeat(MAX_PEM_BYTES + 1)), CertificateError::TooLarge);
    }

    #[test]
    fn names_and_time_are_checked_apart() {
        let one = made(&["shop.example", "*.api.example"]);
        let certificate = read(&format!("{}{}", one.chain, one.key)).unwrap();
        let check = |name: &str| certificate.check(&[name.to_owned()], SystemTime::now());
        assert_eq!(check("shop.example"), Ok(()));
        assert_eq!(check("v1.api.example"), Ok(()));
        assert_eq!(check("*.api.example"), Ok(()));
        for name in ["www.shop.example", "api.example", "a.v1.api.example", "*.shop.example"] {
            assert!(matches!(check(name), Err(CertificateError::OtherNames { .. })), "{name}");
        }
        let late = certificate.not_after() + Duration::from_secs(1);
        let error = certificate.check(&[], late).unwrap_err();
        assert!(matches!(error, CertificateError::NotValid { .. }));
        let early = certificate.not_before() - CLOCKS_DIFFER;
        assert_eq!(certificate.check(&[], early), Ok(()));
        assert!(certificate.check(&[], early - Duration::from_secs(1)).is_err());
    }
}
