//! Names of images, taken apart.

use std::fmt;

/// The name by which images call Docker's own registry.
const DOCKER_HUB: &str = "docker.io";
/// The longest name of a repository that registries take.
const LONGEST_REPOSITORY: usize = 255;
/// The longest tag.
const LONGEST_TAG: usize = 128;

/// The name of an image, with nothing left to be guessed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The registry: `docker.io`, `ghcr.io`, `127.0.0.1:5000`.
    pub host: String,
    /// The repository there: `library/nginx`.
    pub repository: String,
    /// The tag; `latest` where neither tag nor digest is said.
    pub tag: Option<String>,
    /// The digest: `sha256:` and 64 hexadecimal digits.
    pub digest: Option<String>,
}

/// A text that is no name of an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not the name of an image: {why}")]
pub struct BadReference {
    text: String,
    why: &'static str,
}

impl Reference {
    /// Takes a name apart, such as `nginx`, `ghcr.io/team/api:1.2` or `api@sha256:…`.
    ///
    /// # Errors
    /// When a part is not of the form that registries take.
    pub fn parse(text: &str) -> Result<Self, BadReference> {
        let bad = |why| BadReference { text: text.to_owned(), why };
        let (named, digest) = match text.split_once('@') {
            Some((named, digest)) => (named, Some(digest.to_owned())),
            None => (text, None),
        };
        let (path, tag) = match named.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag.to_owned())),
            _ => (named, None),
        };
        let (host, repository) = match path.split_once('/') {
            Some((first, rest)) if is_host(first) => (first, rest.to_owned()),
            Some(_) => (DOCKER_HUB, path.to_owned()),
            None => (DOCKER_HUB, format!("library/{path}")),
        };
        if repository.len() > LONGEST_REPOSITORY || !repository.split('/').all(is_component) {
            return Err(bad("the repository has letters in lower case, digits, and . _ - between"));
        }
        if tag.as_deref().is_some_and(|tag| !is_tag(tag)) {
            return Err(bad("the tag has letters, digits, and . _ - after the first"));
        }
        if digest.as_deref().is_some_and(|digest| !Self::is_digest(digest)) {
            return Err(bad("the digest is sha256: and 64 hexadecimal digits"));
        }
        let tag = tag.or_else(|| digest.is_none().then(|| "latest".to_owned()));
        Ok(Self { host: host.to_owned(), repository, tag, digest })
    }

    /// Registry and repository, as policies name them: `docker.io/library/nginx`.
    #[must_use]
    pub fn place(&self) -> String {
        format!("{}/{}", self.host, self.repository)
    }

    /// The same image by its digest.
    #[must_use]
    pub fn at(&self, digest: &str) -> Self {
        Self { tag: None, digest: Some(digest.to_owned()), ..self.clone() }
    }

    /// What names the image in its repository: the digest, else the tag.
    #[must_use]
    pub fn name(&self) -> &str {
        self.digest.as_deref().or(self.tag.as_deref()).unwrap_or("latest")
    }

    /// Whether a text is a digest: `sha256:` and 64 hexadecimal digits in lower case.
    #[must_use]
    pub fn is_digest(text: &str) -> bool {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        text.strip_prefix("sha256:").is_some_and(|hash| hash.len() == 64 && hash.bytes().all(hex))
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        self.digest.iter().try_for_each(|digest| write!(f, "@{digest}"))
    }
}

/// Whether the first part of a name is a registry's.
fn is_host(first: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
    let begins = first.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[');
    let is_one = first.contains(['.', ':']) || first == "localhost";
    is_one && begins && first.bytes().all(fits)
}

fn is_component(part: &str) -> bool {
    let end = |byte: Option<u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    end(part.bytes().next()) && end(part.bytes().last()) && part.bytes().all(fits)
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= LONGEST_TAG
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart_as_docker_does() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        for (text, whole) in [
            ("nginx", "docker.io/library/nginx:latest".to_owned()),
            ("team/api:v1", "docker.io/team/api:v1".to_owned()),
            ("localhost/api", "localhost/api:latest".to_owned()),
            ("reg.example:5000/a/b:1.2-x", "reg.example:5000/a/b:1.2-x".to_owned()),
            (&format!("api:v1@{digest}"), format!("docker.io/library/api:v1@{digest}")),
            (&format!("ghcr.io/a/b@{digest}"), format!("ghcr.io/a/b@{digest}")),
        ] {
            assert_eq!(Reference::parse(text).unwrap().to_string(), whole);
        }
    }

    #[test]
    fn what_no_registry_takes_is_refused() {
        for text in
            ["", "API", "a//b", "../a", "a/..", "a:-x", "a:", "a@sha256:12", "a b", "a:v?x", "-a"]
        {
            assert!(Reference::parse(text).is_err(), "{text}");
        }
    }
}
