//! An authority of our own, for development: one per folder, made when it is first needed.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::store::{Store, StoreError};

const CERTIFICATE: &str = "authority/ca.pem";
const KEY: &str = "authority/ca.key";
/// Clients are told once to believe it.
const LIFE: Duration = Duration::from_secs(10 * 365 * 86400);
/// Of what it issues. Some clients refuse more than 398 days.
const LEAF_LIFE: Duration = Duration::from_secs(90 * 86400);
/// Clocks differ.
const BEFORE: Duration = Duration::from_secs(3600);

/// Our own authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

/// Why it cannot issue.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthorityError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("making a certificate: {0}")]
    Making(#[from] rcgen::Error),
}

impl Authority {
    /// Takes up the one in the folder, or makes one.
    pub(crate) fn open(store: &Store) -> Result<Authority, AuthorityError> {
        // The key first: a certificate whose key is not there would be good for nothing.
        let key = match store.read(KEY)? {
            Some(text) => KeyPair::from_pem(&String::from_utf8_lossy(&text))?,
            None => {
                let key = KeyPair::generate()?;
                store.write(KEY, key.serialize_pem().as_bytes())?;
                key
            }
        };
        let params = params(&key);
        let certificate = match store.read(CERTIFICATE)? {
            Some(text) => String::from_utf8_lossy(&text).into_owned(),
            None => {
                let pem = params.self_signed(&key)?.pem();
                store.write(CERTIFICATE, pem.as_bytes())?;
                pem
            }
        };
        Ok(Authority { issuer: Issuer::new(params, key), certificate })
    }

    /// Where its certificate is, for those who are to believe it.
    pub(crate) fn path(store: &Store) -> PathBuf {
        store.path(CERTIFICATE)
    }

    /// A chain and a key for these names, as PEM.
    pub(crate) fn issue(&self, names: &[String]) -> Result<String, AuthorityError> {
        let mut params = CertificateParams::new(names)?;
        let now = SystemTime::now();
        params.not_before = (now - BEFORE).into();
        params.not_after = (now + LEAF_LIFE).into();
        params.distinguished_name.remove(DnType::CommonName);
        params.distinguished_name.push(DnType::CommonName, names[0].as_str());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(format!("{}{}{}", certificate.pem(), self.certificate, key.serialize_pem()))
    }
}

/// The same for the same key, but for its times.
fn params(key: &KeyPair) -> CertificateParams {
    let mut params = CertificateParams::default();
    let now = SystemTime::now();
    params.not_before = (now - BEFORE).into();
    params.not_after = (now + LIFE).into();
    // Two of one name would be taken for each other.
    let print = &blake3::hash(key.public_key_raw()).to_hex()[..8];
    let name = format!("Shiplap development authority {print}");
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, name);
    // It may issue for hosts, and make no other authorities.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

#[cfg(test)]
mod tests {
    use shiplap_edge::Certificate;

    use super::*;

    #[test]
    fn it_is_made_once_and_issues_what_the_edge_takes() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let names = ["shop.localhost".to_owned(), "*.shop.localhost".to_owned()];
        let first = Authority::open(&store).unwrap();
        let again = Authority::open(&store).unwrap();
        assert_eq!(first.certificate, again.certificate);
        for authority in [first, again] {
            let pem = authority.issue(&names).unwrap();
            let certificate = Certificate::from_pem(pem.as_bytes()).unwrap();
            assert_eq!(certificate.check(&names, SystemTime::now()), Ok(()));
        }
        assert!(Authority::path(&store).exists());
    }
}
