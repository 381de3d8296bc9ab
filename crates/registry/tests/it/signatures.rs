//! Which images count as signed.

use std::sync::Arc;

use shiplap_registry::signature::{self, BadKey, PublicKey, Signed, Unsigned};
use shiplap_registry::{Client, Keyring, RegistryErrorKind};

use crate::server::{Answer, Server, digest};
use crate::signer::{Signer, payload, put_bundle, put_by_tag};

const SIGNS: &str = "https://sigstore.dev/cosign/sign/v1";

fn client() -> Client {
    let keyring = Keyring::in_folder(std::path::Path::new("/nonexistent"));
    Client::new(Arc::new(keyring), []).unwrap()
}

async fn verify(server: &Server, digest: &str, keys: &[&Signer]) -> Result<Signed, String> {
    let keys: Vec<PublicKey> = keys.iter().map(|key| key.public()).collect();
    let image = server.image("team/api:v1");
    let verified = signature::verify(&client(), &image, digest, &keys).await;
    verified.map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_signature_by_tag_holds_for_its_image_and_key() {
    let (server, signer, other) = (Server::new().await, Signer::new(), Signer::new());
    let image = digest(b"image");
    assert_eq!(verify(&server, &image, &[&signer]).await.unwrap_err(), "it has no signature");
    let text = payload(&image);
    put_by_tag(&server, &image, &text, &signer.sign(text.as_bytes()));
    let signed = verify(&server, &image, &[&other, &signer]).await.unwrap();
    assert_eq!((signed.form, signed.key), ("signature by tag", 1));
    let error = verify(&server, &image, &[&other]).await.unwrap_err();
    assert!(error.contains("made by another key"), "{error}");
}

#[tokio::test]
async fn a_payload_that_was_changed_does_not_hold() {
    let (server, signer) = (Server::new().await, Signer::new());
    let image = digest(b"image");
    let signature = signer.sign(payload(&image).as_bytes());
    put_by_tag(&server, &image, &payload(&image).replace("reg/", "gee/"), &signature);
    assert!(verify(&server, &image, &[&signer]).await.unwrap_err().contains("changed since"));
}

/// Whoever may push can copy the signature of one image under the tag of another.
#[tokio::test]
async fn a_signature_of_another_image_does_not_hold() {
    let (server, signer) = (Server::new().await, Signer::new());
    let (image, other) = (digest(b"image"), digest(b"other"));
    let text = payload(&other);
    put_by_tag(&server, &image, &text, &signer.sign(text.as_bytes()));
    assert!(verify(&server, &image, &[&signer]).await.unwrap_err().contains("another image"));
    put_bundle(&server, &image, &signer.bundle(&other, SIGNS));
    assert!(verify(&server, &image, &[&signer]).await.unwrap_err().contains("2 signatures"));
}

#[tokio::test]
async fn a_bundle_holds_for_its_image_and_key() {
    let (server, signer, other) = (Server::new().await, Signer::new(), Signer::new());
    let image = digest(b"image");
    put_bundle(&server, &image, &signer.bundle(&image, SIGNS));
    assert_eq!(verify(&server, &image, &[&signer]).await.unwrap().form, "bundle");
    assert!(verify(&server, &image, &[&other]).await.unwrap_err().contains("another key"));
}

/// A key that signs how images are built has not said that they may run.
#[tokio::test]
async fn a_bundle_about_something_else_is_no_signature() {
    let (server, signer) = (Server::new().await, Signer::new());
    let image = digest(b"image");
    put_bundle(&server, &image, &signer.bundle(&image, "https://slsa.dev/provenance/v1"));
    assert_eq!(verify(&server, &image, &[&signer]).await.unwrap_err(), "it has no signature");
}

#[tokio::test]
async fn a_bundle_with_another_statement_in_the_envelope_does_not_hold() {
    let (server, signer) = (Server::new().await, Signer::new());
    let image = digest(b"image");
    let mut bundle = signer.bundle(&digest(b"other"), SIGNS);
    let wanted = signer.bundle(&image, SIGNS);
    bundle["dsseEnvelope"]["payload"] = wanted["dsseEnvelope"]["payload"].clone();
    put_bundle(&server, &image, &bundle);
    assert!(verify(&server, &image, &[&signer]).await.unwrap_err().contains("another key"));
}

#[tokio::test]
async fn a_good_signature_among_bad_ones_is_found() {
    let (server, signer) = (Server::new().await, Signer::new());
    let image = digest(b"image");
    put_by_tag(&server, &image, &payload(&image), "not base64");
    put_bundle(&server, &image, &signer.bundle(&image, SIGNS));
    assert_eq!(verify(&server, &image, &[&signer]).await.unwrap().form, "bundle");
}

#[tokio::test]
async fn a_registry_that_does_not_answer_is_no_signature() {
    let server = Server::with(|_, _| Answer::error(403, "DENIED")).await;
    let image = server.image("team/api:v1");
    let keys = [Signer::new().public()];
    let error = signature::verify(&client(), &image, &digest(b"i"), &keys).await.unwrap_err();
    let Unsigned::Registry(error) = error else { panic!("{error}") };
    assert_eq!(error.kind, RegistryErrorKind::Denied);
}

#[tokio::test]
async fn no_key_signs_nothing() {
    let (server, signer) = (Server::new().await, Signer::new());
    let image = digest(b"image");
    let text = payload(&image);
    put_by_tag(&server, &image, &text, &signer.sign(text.as_bytes()));
    assert!(verify(&server, &image, &[]).await.is_err());
}

/// Made by openssl: see the folder's README.
#[tokio::test]
async fn signatures_of_another_program_hold() {
    let text = include_str!("../vectors/payload.json");
    let image = format!("sha256:{}", "ab".repeat(32));
    for (key, signature) in [
        (include_str!("../vectors/p256.pub"), include_str!("../vectors/p256.sig")),
        (include_str!("../vectors/ed25519.pub"), include_str!("../vectors/ed25519.sig")),
        (include_str!("../vectors/rsa.pub"), include_str!("../vectors/rsa.sig")),
    ] {
        let server = Server::new().await;
        put_by_tag(&server, &image, text, signature);
        let keys = [PublicKey::from_pem(key.as_bytes()).unwrap()];
        let at = server.image("team/api:v1");
        signature::verify(&client(), &at, &image, &keys).await.unwrap();
        let other = digest(b"other");
        put_by_tag(&server, &other, text, signature);
        signature::verify(&client(), &at, &other, &keys).await.unwrap_err();
    }
}

#[test]
fn what_is_no_public_key_is_named() {
    let bad = |text: &str| PublicKey::from_pem(text.as_bytes()).unwrap_err();
    assert_eq!(bad("hello"), BadKey::NotPem);
    let private = "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED \
                   SIGSTORE PRIVATE KEY-----\n";
    assert_eq!(bad(private), BadKey::Private);
    let broken = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";
    assert_eq!(bad(broken), BadKey::Kind);
}
