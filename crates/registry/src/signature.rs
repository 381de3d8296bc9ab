//! Whether an image was signed with a key, as `cosign sign --key` does.
//!
//! Two forms are known: the one before cosign 3, a manifest under the tag `sha256-….sig` whose
//! layers are payloads; and bundles of Sigstore, which refer to the image's manifest. In both, what
//! counts is the digest inside of what was signed: that of the image that is about to run. Nothing
//! else of a signature is believed before its key has been checked.

mod bundle;
mod key;
mod payload;

pub use key::{BadKey, PublicKey};

use shiplap_model::Reference;

use crate::{Client, RegistryError, RegistryErrorKind};

/// Payloads and bundles are a few kilobytes; certificates and proofs make some longer.
const LONGEST: usize = 1 << 20;
/// Signatures of one image that are looked at. Whoever may push may add any number.
const MOST: usize = 64;

/// The kind of the layers that hold payloads.
const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The annotation of such a layer that holds the signature.
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// What the kind of a bundle begins with; its version follows.
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle";

/// A signature that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// Where it was found, in words.
    pub form: &'static str,
    /// Which of the keys made it, from 0.
    pub key: usize,
}

/// Why no signature holds.
#[derive(Debug, thiserror::Error)]
pub enum Unsigned {
    /// Nobody signed it.
    #[error("it has no signature")]
    None,
    /// There are signatures, and none is good.
    #[error("none of its {count} signatures holds: {reasons}")]
    Bad {
        /// How many were looked at.
        count: usize,
        /// Why not, each once.
        reasons: String,
    },
    /// The registry did not say.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// Looks for a signature of the image with this digest by one of the keys.
///
/// # Errors
/// When there is none that holds. A registry that does not answer is an error too, also where
/// another form was found to be absent: nothing that was not seen counts.
pub async fn verify(
    client: &Client,
    image: &Reference,
    digest: &str,
    keys: &[PublicKey],
) -> Result<Signed, Unsigned> {
    let mut judge = Judge { digest, keys, reasons: Vec::new(), count: 0 };
    if let Some(signed) = by_tag(client, image, &mut judge).await? {
        return Ok(signed);
    }
    if let Some(signed) = by_bundle(client, image, &mut judge).await? {
        return Ok(signed);
    }
    Err(judge.verdict())
}

/// What was seen so far of one image.
struct Judge<'a> {
    digest: &'a str,
    keys: &'a [PublicKey],
    reasons: Vec<String>,
    count: usize,
}

impl Judge<'_> {
    fn is_full(&self) -> bool {
        self.count >= MOST
    }

    /// Notes what came of one signature.
    fn hear(&mut self, form: &'static str, result: Result<usize, String>) -> Option<Signed> {
        self.count += 1;
        match result {
            Ok(key) => Some(Signed { form, key }),
            Err(reason) => {
                if !self.reasons.contains(&reason) {
                    self.reasons.push(reason);
                }
                None
            }
        }
    }

    fn verdict(self) -> Unsigned {
        match self.count {
            0 => Unsigned::None,
            count => Unsigned::Bad { count, reasons: self.reasons.join("; ") },
        }
    }
}

async fn by_tag(
    client: &Client,
    image: &Reference,
    judge: &mut Judge<'_>,
) -> Result<Option<Signed>, RegistryError> {
    let tag = format!("{}.sig", judge.digest.replacen(':', "-", 1));
    let at = Reference { tag: Some(tag), digest: None, ..image.clone() };
    let manifest = match client.manifest(&at).await {
        Ok(manifest) => manifest,
        Err(error) if is_absent(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    for layer in manifest.descriptors("layers") {
        if layer.media_type != PAYLOAD || judge.is_full() {
            continue;
        }
        let Some(signature) = layer.annotations.get(SIGNATURE) else { continue };
        let blob = client.blob(image, &layer.digest, LONGEST).await?;
        let result = payload::check(&blob, signature, judge.digest, judge.keys);
        if let Some(signed) = judge.hear("signature by tag", result) {
            return Ok(Some(signed));
        }
    }
    Ok(None)
}

async fn by_bundle(
    client: &Client,
    image: &Reference,
    judge: &mut Judge<'_>,
) -> Result<Option<Signed>, RegistryError> {
    for referrer in client.referrers(image, judge.digest).await? {
        let kind = referrer.artifact_type.as_deref().unwrap_or(BUNDLE);
        if !kind.starts_with(BUNDLE) || judge.is_full() {
            continue;
        }
        let manifest = match client.manifest(&image.at(&referrer.digest)).await {
            Ok(manifest) => manifest,
            // A list that names what was removed since.
            Err(error) if is_absent(&error) => continue,
            Err(error) => return Err(error),
        };
        for layer in manifest.descriptors("layers") {
            if !layer.media_type.starts_with(BUNDLE) || judge.is_full() {
                continue;
            }
            let blob = client.blob(image, &layer.digest, LONGEST).await?;
            // Bundles that say something else of an image, such as how it was built, are none.
            let Some(result) = bundle::check(&blob, judge.digest, judge.keys) else { continue };
            if let Some(signed) = judge.hear("bundle", result) {
                return Ok(Some(signed));
            }
        }
    }
    Ok(None)
}

fn is_absent(error: &RegistryError) -> bool {
    matches!(error.kind, RegistryErrorKind::NoSuchTag | RegistryErrorKind::NoSuchRepository)
}

/// Which of the keys made a signature.
fn signer(keys: &[PublicKey], message: &[u8], signature: &[u8]) -> Result<usize, String> {
    let made = keys.iter().position(|key| key.verifies(message, signature));
    made.ok_or_else(|| "made by another key, or changed since".to_owned())
}
