//! The form before cosign 3: a payload that names the image, and a signature beside it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::{PublicKey, signer};

/// What a payload says that it is.
const KIND: &str = "cosign container image signature";

/// Says which key signed that the image has this digest.
///
/// # Errors
/// Why it does not count.
pub(super) fn check(
    payload: &[u8],
    signature: &str,
    digest: &str,
    keys: &[PublicKey],
) -> Result<usize, String> {
    let signature = STANDARD.decode(signature.trim()).map_err(|_| "not base64".to_owned())?;
    let key = signer(keys, payload, &signature)?;
    let said: Value =
        serde_json::from_slice(payload).map_err(|_| "what was signed is not JSON".to_owned())?;
    let critical = &said["critical"];
    if critical["type"] != KIND {
        return Err("what was signed is not about an image".to_owned());
    }
    match critical["image"]["docker-manifest-digest"].as_str() {
        Some(named) if named == digest => Ok(key),
        Some(_) | None => Err("it is about another image".to_owned()),
    }
}
