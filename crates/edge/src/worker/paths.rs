//! Paths as those who serve them may read them.

use std::borrow::Cow;

use super::refusal::Refusal;

/// The path by which a request's route is chosen: decoded once, without empty segments, `.`, `..`
/// and what follows a `;`. A replica may read the path it gets in this way, and must not so be
/// led to what another route, with its own protection, is about.
pub(super) fn normal(path: &str) -> Result<Cow<'_, str>, Refusal> {
    let odd = |pair: &[u8]| matches!(pair, [b'/', b'/' | b'.']);
    let bytes = path.as_bytes();
    if !bytes.iter().any(|byte| matches!(byte, b'%' | b';' | b'\\')) && !bytes.windows(2).any(odd) {
        return Ok(Cow::Borrowed(path));
    }
    let decoded = decode(bytes)?;
    let mut segments: Vec<&[u8]> = Vec::new();
    for segment in decoded.split(|byte| matches!(byte, b'/' | b'\\')) {
        let segment = segment.split(|byte| *byte == b';').next().unwrap_or_default();
        match segment {
            b"" | b"." => {}
            b".." => {
                segments.pop().ok_or(Refusal::BadTarget)?;
            }
            other => segments.push(other),
        }
    }
    let mut normal = Vec::with_capacity(decoded.len());
    for segment in segments {
        normal.push(b'/');
        normal.extend_from_slice(segment);
    }
    if normal.is_empty() {
        normal.push(b'/');
    }
    Ok(Cow::Owned(String::from_utf8_lossy(&normal).into_owned()))
}

fn decode(path: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut at = 0;
    while at < path.len() {
        let byte = match path[at] {
            b'%' => {
                let digits = path.get(at + 1..at + 3).ok_or(Refusal::BadTarget)?;
                let digits = std::str::from_utf8(digits).map_err(|_| Refusal::BadTarget)?;
                at += 2;
                u8::from_str_radix(digits, 16).map_err(|_| Refusal::BadTarget)?
            }
            plain => plain,
        };
        if byte == 0 {
            return Err(Refusal::BadTarget);
        }
        decoded.push(byte);
        at += 1;
    }
    Ok(decoded)
}

/// Whether a path is the prefix, or lies below it. The prefix has no slash at its end.
pub(super) fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_compared_as_servers_read_them() {
        for (path, expected) in [
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("/%61dmin", "/admin"),
            ("//admin", "/admin"),
            ("/x/../admin", "/admin"),
            ("/x/%2e%2E/admin", "/admin"),
            ("/x%2f..%2fadmin", "/admin"),
            ("/x/..;/admin", "/admin"),
            ("/admin;a=b/c", "/admin/c"),
            ("/./admin", "/admin"),
            ("/x\\..\\admin", "/admin"),
            ("/.well-known/x", "/.well-known/x"),
            ("/%", "-"),
            ("/%zz", "-"),
            ("/a%00", "-"),
            ("/../x", "-"),
            ("/", "/"),
            ("//", "/"),
        ] {
            assert_eq!(normal(path).as_deref().unwrap_or("-"), expected, "{path}");
        }
    }

    #[test]
    fn a_prefix_is_of_whole_segments() {
        assert!(is_below("/api", "/api") && is_below("/api/x", "/api") && is_below("/x", ""));
        assert!(!is_below("/apix", "/api") && !is_below("/", "/api"));
    }
}
