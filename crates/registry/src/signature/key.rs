//! Public keys in PEM, as `cosign generate-key-pair` and `openssl` write them.

use std::fmt;

use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA256,
    UnparsedPublicKey, VerificationAlgorithm,
};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject as _;
use x509_cert::der::Decode as _;
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::spki::SubjectPublicKeyInfoRef;

const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const ED25519_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

/// A key that signatures are checked with.
#[derive(Clone)]
pub struct PublicKey {
    algorithm: &'static dyn VerificationAlgorithm,
    name: &'static str,
    bytes: Vec<u8>,
}

/// A text that is no public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// Not in PEM.
    #[error("it has no `-----BEGIN PUBLIC KEY-----`")]
    NotPem,
    /// A key that must not leave its owner.
    #[error("it is a private key; what is wanted is its public one")]
    Private,
    /// Not of a kind that is known.
    #[error("it is not a key for ECDSA on P-256 or P-384, Ed25519 or RSA")]
    Kind,
}

impl PublicKey {
    /// Reads a key.
    ///
    /// # Errors
    /// When it is none, or of a kind that is not supported.
    pub fn from_pem(pem: &[u8]) -> Result<Self, BadKey> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem).map_err(|_| {
            let text = String::from_utf8_lossy(pem);
            if text.contains("PRIVATE KEY-----") { BadKey::Private } else { BadKey::NotPem }
        })?;
        let info = SubjectPublicKeyInfoRef::from_der(&der).map_err(|_| BadKey::Kind)?;
        let curve = || info.algorithm.parameters_oid().ok();
        let (algorithm, name): (&'static dyn VerificationAlgorithm, _) = match info.algorithm.oid {
            EC if curve() == Some(P256) => (&ECDSA_P256_SHA256_ASN1, "ECDSA P-256"),
            EC if curve() == Some(P384) => (&ECDSA_P384_SHA384_ASN1, "ECDSA P-384"),
            ED25519_KEY => (&ED25519, "Ed25519"),
            RSA => (&RSA_PKCS1_2048_8192_SHA256, "RSA"),
            _ => return Err(BadKey::Kind),
        };
        let bytes = info.subject_public_key.as_bytes().ok_or(BadKey::Kind)?.to_vec();
        Ok(Self { algorithm, name, bytes })
    }

    /// Whether a signature of a message was made with it.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(self.algorithm, &self.bytes).verify(message, signature).is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PublicKey").field(&self.name).finish()
    }
}
