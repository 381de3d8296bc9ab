//! TLS as a URL asks for it.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use shiplap_model::LedgerError;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::server::Protection;

/// What makes connections as `protection` says.
///
/// # Errors
/// `Storage` where the file of authorities cannot be read.
pub(crate) fn connector(protection: &Protection) -> Result<MakeRustlsConnect, LedgerError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("the provider has what the default versions need");
    let config = match protection {
        Protection::Verified(authorities) => {
            builder.with_root_certificates(roots(authorities.as_deref())?).with_no_client_auth()
        }
        Protection::Plain | Protection::IfItCan | Protection::Encrypted => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Whoever { provider }))
            .with_no_client_auth(),
    };
    Ok(MakeRustlsConnect::new(config))
}

fn roots(authorities: Option<&Path>) -> Result<RootCertStore, LedgerError> {
    let Some(path) = authorities else {
        return Ok(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() });
    };
    let wrong = |error: &dyn std::fmt::Display| {
        LedgerError::Storage(format!("its authorities `{}`: {error}", path.display()))
    };
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))? {
        let certificate = certificate.map_err(|error| wrong(&error))?;
        store.add(certificate).map_err(|error| wrong(&error))?;
    }
    if store.is_empty() { Err(wrong(&"no certificate is in it")) } else { Ok(store) }
}

/// Takes any certificate, as `sslmode=require` does with libpq: what is sent is hidden from those
/// who listen, not from one in the middle. The password does not go to that one either: the login
/// is bound to the channel where the server offers it.
#[derive(Debug)]
struct Whoever {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Whoever {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
