//! Bundles of Sigstore that hold a statement of in-toto in an envelope (DSSE).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::{PublicKey, signer};

/// What the envelope of a statement says that it holds.
const STATEMENT: &str = "application/vnd.in-toto+json";
/// What a statement says that is a signature of an image. Others are about how it was built, or
/// what is in it: made with the same key, they say nothing of whether it may run.
const SIGNS: &str = "https://sigstore.dev/cosign/sign/v1";

/// Says which key signed that the image has this digest; nothing for a bundle that is about
/// something else.
pub(super) fn check(
    bundle: &[u8],
    digest: &str,
    keys: &[PublicKey],
) -> Option<Result<usize, String>> {
    let Ok(bundle) = serde_json::from_slice::<Value>(bundle) else {
        return Some(Err("a bundle is not JSON".to_owned()));
    };
    let envelope = &bundle["dsseEnvelope"];
    if envelope["payloadType"] != STATEMENT {
        return None;
    }
    let payload = match decoded(&envelope["payload"]) {
        Some(payload) => payload,
        None => return Some(Err("a bundle's payload is not base64".to_owned())),
    };
    let statement: Value = match serde_json::from_slice(&payload) {
        Ok(statement) => statement,
        Err(_) => return Some(Err("a bundle's statement is not JSON".to_owned())),
    };
    (statement["predicateType"] == SIGNS)
        .then(|| signed(envelope, &payload, &statement, digest, keys))
}

fn signed(
    envelope: &Value,
    payload: &[u8],
    statement: &Value,
    digest: &str,
    keys: &[PublicKey],
) -> Result<usize, String> {
    // What was parsed are the very bytes that the signature is checked for.
    let message = encoded(STATEMENT, payload);
    let signatures = envelope["signatures"].as_array().into_iter().flatten();
    let mut result = Err("a bundle without a signature".to_owned());
    for signature in signatures.filter_map(|signature| decoded(&signature["sig"])) {
        result = signer(keys, &message, &signature);
        if result.is_ok() {
            break;
        }
    }
    let key = result?;
    let hash = digest.strip_prefix("sha256:").unwrap_or(digest);
    let subjects = statement["subject"].as_array().into_iter().flatten();
    let mut hashes = subjects.filter_map(|subject| subject["digest"]["sha256"].as_str());
    match hashes.any(|named| named == hash) {
        true => Ok(key),
        false => Err("it is about another image".to_owned()),
    }
}

/// What an envelope's signature is made of: kind and payload, each after its length, so that no
/// byte can pass from one to the other.
pub(super) fn encoded(kind: &str, payload: &[u8]) -> Vec<u8> {
    let mut out = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
    out.extend_from_slice(payload);
    out
}

fn decoded(value: &Value) -> Option<Vec<u8>> {
    STANDARD.decode(value.as_str()?).ok()
}
