//! Recognises personal data inside of text.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::LazyLock;

use regex::Regex;

use super::class::Class;

/// What is looked for, the more telling before the less.
const PATTERNS: [&str; 9] = [
    // Keys and certificates.
    r"-----BEGIN [A-Z0-9 ]+-----[^-]*-----END [A-Z0-9 ]+-----",
    // JSON Web Tokens.
    r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*",
    r"[A-Za-z0-9._%+'-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+",
    // Tokens that say what they are for: `gho_…`, `sk_live_…`.
    r"\b[A-Za-z]{2,10}(?:_[a-z]{2,10})?_[A-Za-z0-9]{14,}",
    // IPv6, then IPv4: whether they are is seen by reading them.
    r"(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}",
    r"\b(?:[0-9]{1,3}\.){3}[0-9]{1,3}\b",
    r"\+[0-9][0-9 ().-]{7,}[0-9]",
    r"\([0-9]{3}\) ?[0-9]{3}-[0-9]{4}\b",
    // IBANs, cards, long random words.
    r"\b[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b|\b[0-9](?:[ -]?[0-9]){12,18}\b|\b[0-9A-Za-z]{32,}\b",
];

static ANY: LazyLock<Regex> = LazyLock::new(|| {
    let all = PATTERNS.map(|pattern| format!("(?:{pattern})")).join("|");
    Regex::new(&all).expect("the patterns are valid")
});

/// What a match is, if it is anything.
fn class_of(found: &str) -> Option<Class> {
    if found.starts_with("-----BEGIN") || found.starts_with("eyJ") {
        return Some(Class::Secret);
    }
    if found.contains('@') {
        return Some(Class::Email);
    }
    if found.contains('_') {
        return found.bytes().any(|b| b.is_ascii_digit()).then_some(Class::Secret);
    }
    if found.contains(':') || found.bytes().filter(|b| *b == b'.').count() == 3 {
        if found.parse::<IpAddr>().is_ok() {
            return Some(Class::Ip);
        }
        if found.contains(':') {
            return None;
        }
    }
    if found.starts_with(['+', '(']) {
        return Some(Class::Phone);
    }
    let digits = found.bytes().filter(u8::is_ascii_digit).count();
    let letters = found.bytes().filter(u8::is_ascii_alphabetic).count();
    match (letters, digits) {
        (0, 13..) => is_card(found).then_some(Class::Id),
        (1.., 1..) if is_iban(found) => Some(Class::Id),
        // A random word has both, in plenty.
        (6.., 6..) if found.len() >= 32 => Some(Class::Digest),
        _ => None,
    }
}

/// The check digit of card numbers (Luhn).
fn is_card(text: &str) -> bool {
    let digits = text.bytes().rev().filter(u8::is_ascii_digit).map(|b| u32::from(b - b'0'));
    let sum: u32 = digits
        .enumerate()
        .map(|(at, digit)| match at % 2 {
            0 => digit,
            _ => digit * 2 / 10 + digit * 2 % 10,
        })
        .sum();
    sum.is_multiple_of(10)
}

/// The check digits of account numbers (ISO 13616).
fn is_iban(text: &str) -> bool {
    let text: Vec<u8> = text.bytes().filter(u8::is_ascii_alphanumeric).collect();
    if !(15..=34).contains(&text.len()) {
        return false;
    }
    let turned = text[4..].iter().chain(&text[..4]);
    let rest = turned.fold(0_u64, |rest, byte| match byte {
        b'0'..=b'9' => (rest * 10 + u64::from(byte - b'0')) % 97,
        _ => (rest * 100 + u64::from(byte.to_ascii_uppercase().wrapping_sub(b'A')) + 10) % 97,
    });
    rest == 1
}

/// Whether a text could hold anything: most do not, and are not searched.
fn may_hold(text: &str) -> bool {
    text.bytes().any(|b| b == b'@' || b.is_ascii_digit())
        || text.contains("-----BEGIN")
        || text.contains("eyJ")
}

/// Everything that is recognised, with its class.
pub(super) fn found(text: &str) -> Vec<(Class, &str)> {
    if !may_hold(text) {
        return Vec::new();
    }
    let matches = ANY.find_iter(text).map(|found| found.as_str());
    matches.filter_map(|found| class_of(found).map(|class| (class, found))).collect()
}

/// The text with everything that is recognised replaced.
pub(super) fn replaced<'t>(
    text: &'t str,
    mut replace: impl FnMut(Class, &str, &mut Vec<u8>),
) -> Cow<'t, str> {
    if !may_hold(text) {
        return Cow::Borrowed(text);
    }
    let mut out: Vec<u8> = Vec::new();
    let mut copied = 0;
    for found in ANY.find_iter(text) {
        if let Some(class) = class_of(found.as_str()) {
            out.extend_from_slice(&text.as_bytes()[copied..found.start()]);
            replace(class, found.as_str(), &mut out);
            copied = found.end();
        }
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    out.extend_from_slice(&text.as_bytes()[copied..]);
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_personal_is_found() {
        let classes = |text| found(text).iter().map(|(class, _)| *class).collect::<Vec<_>>();
        assert_eq!(classes("mail me: ada_r1@uni.example."), [Class::Email]);
        assert_eq!(classes("call +44 20 1000 000001 now"), [Class::Phone]);
        assert_eq!(classes("from 198.18.0.7 and 2001:db8::5"), [Class::Ip, Class::Ip]);
        assert_eq!(classes("gho_0123456789abcdef0123"), [Class::Secret]);
        assert_eq!(classes("DE89 3704 0044 0532 0130 00"), [Class::Id]);
        assert_eq!(classes("4111 1111 1111 1111"), [Class::Id]);
        assert_eq!(
            classes("-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----"),
            [Class::Secret]
        );
    }

    #[test]
    fn what_only_looks_like_it_is_not() {
        for text in [
            "at 12:34:56 on 2026-01-01",
            "version 1.2.3",
            "tiny dragon, 64x64",
            "2026-01-01T12:34:56Z",
            "/vault/avatar/ab/0e4f0b7c-3c2d-4a55-9a8e-0a0a0a0a0a0a.png",
            "999.999.999.999",
        ] {
            assert_eq!(found(text), [], "{text}");
        }
    }
}
