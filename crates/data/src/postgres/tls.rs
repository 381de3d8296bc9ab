//! TLS to servers, by the words that PostgreSQL's own programs use: `sslmode` and `sslrootcert`.
//!
//! The same words are passed on to `pg_dump` and `pg_restore`, so that nobody is less careful than
//! the other.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error::{Doing, Error};

/// Where systems keep the authorities that they trust: Debian and Alpine, Red Hat, BSD.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// How far a server is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// No TLS.
    Disable,
    /// TLS where the server has it, whoever it is. What PostgreSQL's programs do unasked.
    Prefer,
    /// TLS, whoever the server is.
    Require,
    /// TLS, and its certificate is signed by somebody whom we trust.
    VerifyCa,
    /// And is for the name by which we call it.
    VerifyFull,
}

const MODES: [(Mode, &str); 5] = [
    (Mode::Disable, "disable"),
    (Mode::Prefer, "prefer"),
    (Mode::Require, "require"),
    (Mode::VerifyCa, "verify-ca"),
    (Mode::VerifyFull, "verify-full"),
];

/// What a URL says of TLS.
#[derive(Clone, Debug)]
pub(super) struct Tls {
    mode: Mode,
    /// Who is trusted, in PEM.
    roots: Option<PathBuf>,
}

impl Tls {
    /// From `sslmode` and `sslrootcert`, as far as they are given.
    ///
    /// # Errors
    /// If the first is none of the known words, or nobody is there to verify a server by.
    pub fn new(mode: Option<&str>, roots: Option<&str>) -> Result<Self, Error> {
        let doing = "reading the database's URL";
        let word = mode.unwrap_or("prefer");
        let known = MODES.iter().find(|(_, known)| *known == word);
        let Some((mode, _)) = known else {
            let words = MODES.map(|(_, word)| word).join(", ");
            return Err(Error::said(doing, format!("`sslmode` is not one of {words}")));
        };
        let roots = roots.filter(|path| *path != "system").map(PathBuf::from);
        // As PostgreSQL's programs have it: who names authorities wants them asked.
        let mode = match mode {
            Mode::Require if roots.is_some() => Mode::VerifyCa,
            mode => *mode,
        };
        let roots = match mode {
            Mode::Disable | Mode::Prefer | Mode::Require => None,
            Mode::VerifyCa | Mode::VerifyFull => Some(match roots {
                Some(path) => path,
                None => system_roots().ok_or_else(|| {
                    let cause =
                        "the system trusts no authority that we could find: say `sslrootcert=FILE`";
                    Error::said(doing, cause)
                })?,
            }),
        };
        Ok(Self { mode, roots })
    }

    /// For the library, which knows fewer words.
    pub fn ssl_mode(&self) -> SslMode {
        match self.mode {
            Mode::Disable => SslMode::Disable,
            Mode::Prefer => SslMode::Prefer,
            Mode::Require | Mode::VerifyCa | Mode::VerifyFull => SslMode::Require,
        }
    }

    /// What connects.
    ///
    /// # Errors
    /// If the authorities cannot be read.
    pub fn connector(&self) -> Result<MakeRustlsConnect, Error> {
        let provider = Arc::new(ring::default_provider());
        let trust = match &self.roots {
            None => Trust::Anybody,
            Some(path) => Trust::of(path, provider.clone(), self.mode)?,
        };
        let verifier = Arc::new(Verifier { trust, provider: provider.clone() });
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has TLS 1.2 and 1.3")
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        Ok(MakeRustlsConnect::new(config))
    }

    /// Tells a PostgreSQL program.
    pub fn tell(&self, command: &mut Command) {
        let word = MODES.iter().find(|(mode, _)| *mode == self.mode).map(|(_, word)| *word);
        command.env("PGSSLMODE", word.expect("every mode has a word"));
        if let Some(path) = &self.roots {
            command.env("PGSSLROOTCERT", path);
        }
    }
}

fn system_roots() -> Option<PathBuf> {
    let given = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let known = SYSTEM_ROOTS.iter().map(PathBuf::from);
    given.into_iter().chain(known).find(|path| path.is_file())
}

/// Whom we believe.
#[derive(Debug)]
enum Trust {
    Anybody,
    Signed {
        chain: Arc<WebPkiServerVerifier>,
        /// Certificates that are trusted as they stand: often a server's own, signed by itself.
        roots: Vec<CertificateDer<'static>>,
        mode: Mode,
    },
}

impl Trust {
    fn of(path: &Path, provider: Arc<CryptoProvider>, mode: Mode) -> Result<Self, Error> {
        let doing = || format!("reading the authorities of {}", path.display());
        let pem = std::fs::read(path).doing(doing)?;
        let roots: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        let roots = roots.map_err(|error| Error::said(doing(), error.to_string()))?;
        let mut store = RootCertStore::empty();
        // Bundles of systems hold some that are too old to be read.
        let (read, _) = store.add_parsable_certificates(roots.iter().cloned());
        if read == 0 {
            return Err(Error::said(doing(), "it holds no certificate"));
        }
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider).build();
        let chain = chain.map_err(|error| Error::said(doing(), error.to_string()))?;
        Ok(Self::Signed { chain, roots, mode })
    }
}

/// Verifies as much of a server as was asked for.
#[derive(Debug)]
struct Verifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let (chain, roots, mode) = match &self.trust {
            Trust::Anybody => return Ok(ServerCertVerified::assertion()),
            Trust::Signed { chain, roots, mode } => (chain, roots, *mode),
        };
        // One that signed itself is an authority, which must not be a server's, too, unless it is
        // this very certificate that is trusted.
        if roots.iter().any(|root| root == certificate) {
            if mode == Mode::VerifyFull {
                rustls::client::verify_server_name(
                    &ParsedCertificate::try_from(certificate)?,
                    name,
                )?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        match chain.verify_server_cert(certificate, others, name, ocsp, now) {
            // The name is looked at last, when everything else is as it must be.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if mode == Mode::VerifyCa => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
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
