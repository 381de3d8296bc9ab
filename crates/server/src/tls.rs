//! TLS with a certificate that is given.

use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The certificate of a listener. Clones share it, so it can be replaced while the server runs.
#[derive(Clone)]
pub struct TlsKeys(Arc<RwLock<Arc<ServerConfig>>>);

impl TlsKeys {
    /// From a chain of certificates and a key, both PEM.
    ///
    /// # Errors
    /// When they cannot be read or do not belong together.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> io::Result<Self> {
        Ok(Self(Arc::new(RwLock::new(Arc::new(config(chain, key)?)))))
    }

    /// Uses another one for connections from now on.
    ///
    /// # Errors
    /// As above; the one before stays then.
    pub fn replace(&self, chain: &[u8], key: &[u8]) -> io::Result<()> {
        let config = Arc::new(config(chain, key)?);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl std::fmt::Debug for TlsKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsKeys")
    }
}

fn config(chain: &[u8], key: &[u8]) -> io::Result<ServerConfig> {
    let wrong = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(format!("the certificate cannot be read: {error}")))?;
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|error| wrong(format!("the key cannot be read: {error}")))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has what TLS 1.2 and 1.3 need")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| wrong(format!("the certificate cannot be used: {error}")))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
