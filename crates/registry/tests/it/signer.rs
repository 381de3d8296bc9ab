//! Signs as cosign does.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};
use shiplap_registry::signature::PublicKey;

use crate::server::Server;

/// What comes before the point of a key on P-256.
const P256_INFO: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

pub struct Signer(EcdsaKeyPair);

impl Signer {
    pub fn new() -> Self {
        let (random, algorithm) = (SystemRandom::new(), &ECDSA_P256_SHA256_ASN1_SIGNING);
        let key = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        Self(EcdsaKeyPair::from_pkcs8(algorithm, key.as_ref(), &random).unwrap())
    }

    pub fn public(&self) -> PublicKey {
        let info = [&P256_INFO[..], self.0.public_key().as_ref()].concat();
        let pem = format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            STANDARD.encode(info)
        );
        PublicKey::from_pem(pem.as_bytes()).unwrap()
    }

    pub fn sign(&self, message: &[u8]) -> String {
        STANDARD.encode(self.0.sign(&SystemRandom::new(), message).unwrap().as_ref())
    }

    /// An envelope with a statement about a digest.
    pub fn bundle(&self, digest: &str, says: &str) -> Value {
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"digest": {"sha256": digest.trim_start_matches("sha256:")}}],
            "predicateType": says, "predicate": {},
        });
        let payload = statement.to_string();
        let kind = "application/vnd.in-toto+json";
        let message = format!("DSSEv1 {} {kind} {} {payload}", kind.len(), payload.len());
        json!({
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {"publicKey": {"hint": "x"}},
            "dsseEnvelope": {
                "payload": STANDARD.encode(&payload), "payloadType": kind,
                "signatures": [{"sig": self.sign(message.as_bytes())}],
            },
        })
    }
}

pub fn payload(digest: &str) -> String {
    json!({
        "critical": {
            "identity": {"docker-reference": "reg/team/api"},
            "image": {"docker-manifest-digest": digest},
            "type": "cosign container image signature",
        },
        "optional": null,
    })
    .to_string()
}

/// Puts a signature in the form before cosign 3 under the tag of an image.
pub fn put_by_tag(server: &Server, digest: &str, payload: &str, signature: &str) {
    let blob = server.blob(payload.as_bytes());
    let manifest = json!({"layers": [{
        "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
        "digest": blob, "size": payload.len(),
        "annotations": {"dev.cosignproject.cosign/signature": signature},
    }]});
    server.manifest(&format!("{}.sig", digest.replace(':', "-")), &manifest);
}

/// Puts a bundle there that refers to an image, in the list of older registries.
pub fn put_bundle(server: &Server, digest: &str, bundle: &Value) {
    const KIND: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
    let blob = server.blob(bundle.to_string().as_bytes());
    let manifest = json!({"artifactType": KIND, "layers": [
        {"mediaType": KIND, "digest": blob, "size": 1},
    ]});
    let referrer = server.manifest("any", &manifest);
    let list = json!({"manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "artifactType": KIND,
        "digest": referrer, "size": 1,
    }]});
    server.manifest(&digest.replace(':', "-"), &list);
}
