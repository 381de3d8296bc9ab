//! Names that callers send, checked before they are used for anything.

use shiplap_model::Scope;

/// The longest name of a project, an environment or a service.
const MAX_NAME: usize = 128;
/// The longest name of an owner, a repository or a workflow: forges allow up to 255.
const MAX_FORGE_NAME: usize = 255;
/// The longest tag (OCI distribution specification).
const MAX_TAG: usize = 128;
/// The longest reference of an image: 255 for the name, the tag, the digest.
const MAX_REFERENCE: usize = 512;

/// Whether this can be the name of a project, an environment or a service: letters, digits, `.`,
/// `_` and `-`, beginning with a letter or a digit. No slash, so no way out of a folder.
pub(crate) fn is_name(text: &str) -> bool {
    text.len() <= MAX_NAME && starts_alphanumeric(text) && text.bytes().all(is_word_or_dash)
}

/// Whether this can be the owner, the repository or the workflow of a dispatch. `.` and `..` are
/// not.
pub(crate) fn is_forge_name(text: &str) -> bool {
    (1..=MAX_FORGE_NAME).contains(&text.len())
        && text.bytes().all(is_word_or_dash)
        && text.bytes().any(|byte| byte != b'.')
}

/// A scope of two names, where both can be names.
pub(crate) fn scope(project: &str, environment: &str) -> Option<Scope> {
    (is_name(project) && is_name(environment))
        .then(|| Scope { project: project.to_owned(), environment: environment.to_owned() })
}

/// Whether a service can be set to this: a tag, `abc123`, or a tag with the digest that it must
/// have, `abc123@sha256:…`. A digest alone cannot stand behind the colon of `image: api:${TAG}`.
pub(crate) fn is_tag(text: &str) -> bool {
    match text.split_once('@') {
        None => is_plain_tag(text),
        Some((tag, digest)) => is_plain_tag(tag) && is_digest(digest),
    }
}

/// `[A-Za-z0-9_][A-Za-z0-9._-]{0,127}`.
fn is_plain_tag(text: &str) -> bool {
    let first = text.bytes().next();
    text.len() <= MAX_TAG
        && first.is_some_and(|first| first.is_ascii_alphanumeric() || first == b'_')
        && text.bytes().all(is_word_or_dash)
}

/// `sha256:` and 64 hexadecimal digits.
fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

/// An image reference as its repository and its tag: `ghcr.io/o/api:abc@sha256:…` as
/// `ghcr.io/o/api` and `abc@sha256:…`. None where it has no tag, or is none.
pub(crate) fn image(reference: &str) -> Option<(&str, &str)> {
    if reference.len() > MAX_REFERENCE {
        return None;
    }
    let before_digest = reference.find('@').unwrap_or(reference.len());
    let colon = reference[..before_digest].rfind(':')?;
    let (repository, tag) = (&reference[..colon], &reference[colon + 1..]);
    // A colon before a slash is that of a port: `localhost:5000/api` has no tag.
    (is_repository(repository) && is_tag(tag)).then_some((repository, tag))
}

/// Whether this can be an image repository, with or without a registry's host and port.
pub(crate) fn is_repository(text: &str) -> bool {
    let is_part = |part: &str| {
        starts_alphanumeric(part) && part.bytes().all(|byte| is_word_or_dash(byte) || byte == b':')
    };
    !text.is_empty() && text.len() <= MAX_REFERENCE && text.split('/').all(is_part)
}

/// Whether `pattern` means `text`; `*` stands for any characters, also none.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

fn starts_alphanumeric(text: &str) -> bool {
    text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
}

fn is_word_or_dash(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_tricks_are_no_names() {
        for bad in ["", ".", "..", "../etc", "a/b", "a\\b", "a b", "a\0", "-a", ".git", "ä", "a%2f"]
        {
            assert!(!is_name(bad), "{bad:?}");
        }
        assert!(is_name("shop") && is_name("pr-42") && is_name("api_v1.2"));
        assert!(!is_name(&"a".repeat(129)) && is_name(&"a".repeat(128)));
        assert!(!is_forge_name("..") && !is_forge_name("") && is_forge_name(".github"));
    }

    #[test]
    fn tags_are_those_of_the_distribution_specification() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        for good in ["latest", "abc123", "_x", "v1.2.3-rc.1_b", &format!("v1@{digest}")] {
            assert!(is_tag(good), "{good}");
        }
        let (long, upper) = ("a".repeat(129), format!("v1@{}", digest.to_uppercase()));
        let other = [&long, &upper, &digest, &format!("v1@{digest}@{digest}")];
        for bad in
            ["", "-a", ".a", "a/b", "a:b", "a b", "$(id)", "${X}", "a\n", "a#", "v1@sha256:00"]
        {
            assert!(!is_tag(bad), "{bad:?}");
        }
        assert!(other.iter().all(|bad| !is_tag(bad)));
    }

    #[test]
    fn images_are_split_at_the_right_colon() {
        assert_eq!(image("ghcr.io/o/api:abc"), Some(("ghcr.io/o/api", "abc")));
        assert_eq!(image("localhost:5000/api:1"), Some(("localhost:5000/api", "1")));
        assert_eq!(image("api:1"), Some(("api", "1")));
        let digest = format!("1@sha256:{}", "ab".repeat(32));
        assert_eq!(image(&format!("o/api:{digest}")), Some(("o/api", digest.as_str())));
        for bad in ["api", "localhost:5000/api", "a//b:1", "../b:1", "/a:1", "a:1:2/", ":1", "a:"] {
            assert_eq!(image(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, text) in
            [("*", ""), ("*", "x"), ("v*", "v1"), ("*-rc", "1-rc"), ("a*b*c", "a1b2c"), ("a", "a")]
        {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in
            [("", "x"), ("v*", "1"), ("a*a", "a"), ("a*b*c", "acb"), ("a", "ab"), ("*b", "ba")]
        {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }
}
