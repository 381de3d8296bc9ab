//! Signatures and shared secrets of webhooks, over the raw bytes and in constant time.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::catalog::PushProvider;

/// A signed time that is further away than this is not accepted (Standard Webhooks).
const TOLERANCE_S: i64 = 300;

/// Whether this request was made by somebody who knows the secret. `now_ms` is milliseconds since
/// 1970.
pub(crate) fn is_signed(
    provider: PushProvider,
    secret: &str,
    headers: &HeaderMap,
    body: &[u8],
    now_ms: i64,
) -> bool {
    if secret.is_empty() {
        return false;
    }
    match provider {
        PushProvider::GitHub => text(headers, "x-hub-signature-256")
            .and_then(|value| value.strip_prefix("sha256="))
            .is_some_and(|hex| is_hex_mac(secret, body, hex)),
        PushProvider::Gitea => {
            text(headers, "x-gitea-signature").is_some_and(|hex| is_hex_mac(secret, body, hex))
        }
        // One that is wrong is not mended by the other name for the same.
        PushProvider::Forgejo => text(headers, "x-forgejo-signature")
            .or_else(|| text(headers, "x-gitea-signature"))
            .is_some_and(|hex| is_hex_mac(secret, body, hex)),
        PushProvider::GitLab if headers.contains_key("webhook-signature") => {
            is_standard_webhook(secret, headers, body, now_ms)
        }
        PushProvider::GitLab => {
            text(headers, "x-gitlab-token").is_some_and(|token| is_same(secret, token))
        }
    }
}

/// Whether `Authorization` is the secret: as it stands, behind `Bearer `, or as the password of
/// basic authentication.
pub(crate) fn is_authorized(secret: &str, headers: &HeaderMap) -> bool {
    let Some(value) = text(headers, AUTHORIZATION.as_str()) else { return false };
    let bearer = value.strip_prefix("Bearer ").unwrap_or_default();
    let basic = basic(value).map(|(_, password)| password).unwrap_or_default();
    !secret.is_empty()
        && (is_same(secret, value) | is_same(secret, bearer) | is_same(secret, &basic))
}

/// User and password of `Basic …`.
pub(crate) fn basic(value: &str) -> Option<(String, String)> {
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// Equality that tells nothing by its time, not even the length.
fn is_same(secret: &str, given: &str) -> bool {
    let (secret, given) = (blake3::hash(secret.as_bytes()), blake3::hash(given.as_bytes()));
    bool::from(secret.as_bytes().ct_eq(given.as_bytes()))
}

fn mac(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

fn is_hex_mac(secret: &str, body: &[u8], hex: &str) -> bool {
    unhex(hex)
        .is_some_and(|tag| mac(secret.as_bytes()).chain_update(body).verify_slice(&tag).is_ok())
}

/// `webhook-signature: v1,<base64>` over `id.timestamp.body`; several signatures may stand there.
fn is_standard_webhook(secret: &str, headers: &HeaderMap, body: &[u8], now_ms: i64) -> bool {
    let header = |name| text(headers, name);
    let (Some(id), Some(timestamp), Some(signatures)) =
        (header("webhook-id"), header("webhook-timestamp"), header("webhook-signature"))
    else {
        return false;
    };
    let Ok(at) = timestamp.parse::<i64>() else { return false };
    if at.abs_diff(now_ms / 1000) > TOLERANCE_S.unsigned_abs() {
        return false;
    }
    let encoded = secret.strip_prefix("whsec_");
    let key = encoded
        .and_then(|encoded| STANDARD.decode(encoded).ok())
        .unwrap_or_else(|| secret.as_bytes().to_vec());
    let signed = mac(&key)
        .chain_update(id)
        .chain_update(".")
        .chain_update(timestamp)
        .chain_update(".")
        .chain_update(body);
    signatures.split(' ').filter_map(|signature| signature.strip_prefix("v1,")).any(|signature| {
        STANDARD.decode(signature).is_ok_and(|tag| signed.clone().verify_slice(&tag).is_ok())
    })
}

/// A header that is there once, as text.
fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() {
        return None;
    }
    value.to_str().ok()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    // The example of GitHub's page "Validating webhook deliveries".
    const GITHUB_SECRET: &str = "It's a Secret to Everybody";
    const GITHUB_HEX: &str = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

    #[test]
    fn the_example_of_github_is_signed() {
        let signed = format!("sha256={GITHUB_HEX}");
        let with = |value: &str, secret: &str, body: &[u8]| {
            let headers = headers(&[("x-hub-signature-256", value)]);
            is_signed(PushProvider::GitHub, secret, &headers, body, 0)
        };
        assert!(with(&signed, GITHUB_SECRET, b"Hello, World!"));
        assert!(!with(&signed, GITHUB_SECRET, b"Hello, World"));
        assert!(!with(&signed, "another", b"Hello, World!"));
        assert!(!with(GITHUB_HEX, GITHUB_SECRET, b"Hello, World!"));
        assert!(!with(&signed[..signed.len() - 2], GITHUB_SECRET, b"Hello, World!"));
        assert!(!with("sha256=", GITHUB_SECRET, b"Hello, World!"));
        assert!(!with("sha256=zz", GITHUB_SECRET, b"Hello, World!"));
    }

    // RFC 4231, test case 2.
    const JEFE_HEX: &str = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
    const JEFE_BODY: &[u8] = b"what do ya want for nothing?";

    #[test]
    fn gitea_and_forgejo_sign_in_plain_hexadecimal() {
        let is = |provider, pairs: &[(&'static str, &str)]| {
            is_signed(provider, "Jefe", &headers(pairs), JEFE_BODY, 0)
        };
        assert!(is(PushProvider::Gitea, &[("x-gitea-signature", JEFE_HEX)]));
        assert!(is(PushProvider::Forgejo, &[("x-forgejo-signature", JEFE_HEX)]));
        assert!(is(PushProvider::Forgejo, &[("x-gitea-signature", JEFE_HEX)]));
        assert!(!is(PushProvider::Gitea, &[("x-forgejo-signature", JEFE_HEX)]));
        assert!(!is(PushProvider::Gitea, &[]));
        let wrong = "00".repeat(32);
        let both = [("x-forgejo-signature", wrong.as_str()), ("x-gitea-signature", JEFE_HEX)];
        assert!(!is(PushProvider::Forgejo, &both));
        let twice = [("x-gitea-signature", JEFE_HEX), ("x-gitea-signature", JEFE_HEX)];
        assert!(!is(PushProvider::Gitea, &twice));
    }

    // The example of the Standard Webhooks libraries.
    const STANDARD_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const STANDARD_BODY: &[u8] = br#"{"test": 2432232314}"#;

    fn standard(signature: &str) -> HeaderMap {
        headers(&[
            ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("webhook-timestamp", "1614265330"),
            ("webhook-signature", signature),
        ])
    }

    #[test]
    fn gitlab_sends_its_token_or_the_signature_of_standard_webhooks() {
        let is = |headers: &HeaderMap, secret, now_ms| {
            is_signed(PushProvider::GitLab, secret, headers, STANDARD_BODY, now_ms)
        };
        let good = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        let then = 1_614_265_330_000;
        assert!(is(&standard(good), STANDARD_SECRET, then));
        assert!(is(&standard(&format!("v1,AAAA v2,x {good}")), STANDARD_SECRET, then + 300_000));
        assert!(!is(&standard(good), STANDARD_SECRET, then + 301_000));
        assert!(!is(&standard(good), "whsec_AAAA", then));
        assert!(!is(&standard("v1,AAAA"), STANDARD_SECRET, then));
        assert!(is(&headers(&[("x-gitlab-token", "t0ken")]), "t0ken", 0));
        assert!(!is(&headers(&[("x-gitlab-token", "t0ke")]), "t0ken", 0));
        // A signature that is wrong is not mended by a token.
        let mut both = standard("v1,AAAA");
        both.insert("x-gitlab-token", STANDARD_SECRET.parse().unwrap());
        assert!(!is(&both, STANDARD_SECRET, then));
    }

    #[test]
    fn a_secret_that_is_empty_allows_nobody() {
        let empty = headers(&[("x-gitlab-token", ""), ("authorization", "")]);
        assert!(!is_signed(PushProvider::GitLab, "", &empty, b"", 0));
        assert!(!is_authorized("", &empty) && !is_authorized("", &HeaderMap::new()));
    }

    #[test]
    fn a_registry_sends_the_secret_in_any_of_the_usual_forms() {
        let basic = format!("Basic {}", STANDARD.encode("registry:s3cret"));
        for value in ["s3cret", "Bearer s3cret", &basic] {
            assert!(is_authorized("s3cret", &headers(&[("authorization", value)])), "{value}");
        }
        for value in ["s3cre", "Bearer  s3cret", "Basic s3cret", "Token s3cret"] {
            assert!(!is_authorized("s3cret", &headers(&[("authorization", value)])), "{value}");
        }
    }
}
