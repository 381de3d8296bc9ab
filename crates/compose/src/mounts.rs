//! The short syntax of `volumes`: `SOURCE:TARGET:OPTIONS`.

/// A mount as its short syntax says it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ShortMount {
    pub source: Option<String>,
    pub target: String,
    pub bind: bool,
    pub read_only: bool,
    pub no_copy: bool,
    pub propagation: Option<String>,
    pub selinux: Option<String>,
}

/// Reads `data:/var/lib/data:ro`. A single letter before a colon is a Windows drive; unknown
/// options are ignored, as the reference does.
pub(crate) fn parse(spec: &str) -> Result<ShortMount, &'static str> {
    let mut mount = ShortMount::default();
    match spec.len() {
        0 => return Err("it is empty"),
        1 | 2 => {
            mount.target = spec.to_string();
            return Ok(mount);
        }
        _ => {}
    }
    let sections = split(spec);
    if sections.iter().any(|section| section.is_empty()) {
        return Err("there is nothing between two colons");
    }
    match sections.as_slice() {
        [target] => mount.target = target.to_string(),
        [source, target] => {
            mount.source = Some(source.to_string());
            mount.target = target.to_string();
        }
        [source, target, options] => {
            mount.source = Some(source.to_string());
            mount.target = target.to_string();
            for option in options.split(',') {
                mount.set(option);
            }
        }
        _ => return Err("there are too many colons"),
    }
    mount.bind = mount.source.as_deref().is_some_and(is_file_path);
    Ok(mount)
}

impl ShortMount {
    fn set(&mut self, option: &str) {
        match option {
            "ro" => self.read_only = true,
            "rw" => self.read_only = false,
            "nocopy" => self.no_copy = true,
            "rprivate" | "private" | "rshared" | "shared" | "rslave" | "slave" => {
                self.propagation = Some(option.into());
            }
            "z" | "Z" => self.selinux = Some(option.into()),
            _ => {}
        }
    }
}

/// Splits at colons, but not inside of `${…}` nor after a drive letter.
fn split(spec: &str) -> Vec<&str> {
    let mut sections = Vec::new();
    let (mut start, mut braces) = (0, 0usize);
    let bytes = spec.as_bytes();
    for (at, c) in spec.char_indices() {
        match c {
            '{' if at > 0 && bytes[at - 1] == b'$' => braces += 1,
            '}' if braces > 0 => braces -= 1,
            ':' if braces == 0 => {
                let section = &spec[start..at];
                let mut letters = section.chars();
                let drive = matches!((letters.next(), letters.next()), (Some(c), None) if c.is_alphabetic());
                if !drive {
                    sections.push(section);
                    start = at + 1;
                }
            }
            _ => {}
        }
    }
    sections.push(&spec[start..]);
    sections
}

/// Whether a source is a path of the host, not a volume's name.
fn is_file_path(source: &str) -> bool {
    if source.starts_with(['.', '/', '~']) || source.starts_with(r"\\") {
        return true;
    }
    let mut chars = source.chars();
    matches!((chars.next(), chars.next()), (Some(c), Some(':')) if c.is_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_tell_binds_from_volumes() {
        for (spec, source, target, bind) in [
            ("/data", None, "/data", false),
            ("data:/data", Some("data"), "/data", false),
            ("./a:/data:ro", Some("./a"), "/data", true),
            ("~/a:/data", Some("~/a"), "/data", true),
            (r"C:\a:/data", Some(r"C:\a"), "/data", true),
            ("a", None, "a", false),
        ] {
            let mount = parse(spec).unwrap();
            assert_eq!(
                (mount.source.as_deref(), mount.target.as_str(), mount.bind),
                (source, target, bind),
                "{spec}"
            );
        }
    }

    #[test]
    fn options_are_read_and_unknown_ones_ignored() {
        let mount = parse("a1:/b:ro,z,rslave,nocopy,fancy").unwrap();
        assert!(mount.read_only && mount.no_copy);
        assert_eq!(
            (mount.selinux.as_deref(), mount.propagation.as_deref()),
            (Some("z"), Some("rslave"))
        );
    }

    #[test]
    fn empty_sections_and_too_many_colons_are_errors() {
        assert!(parse("").is_err());
        assert!(parse("aa::/b").is_err());
        assert!(parse("aa:/b:ro:x").is_err());
    }
}
