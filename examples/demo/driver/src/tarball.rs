//! A tar archive of a few files, the form in which the engine takes a build context.

const BLOCK: usize = 512;

/// One file of an archive.
pub struct Entry<'a> {
    pub name: &'a str,
    pub mode: u32,
    pub content: &'a [u8],
}

/// The archive as bytes.
///
/// # Panics
/// If a name is longer than the 100 bytes that a plain header holds.
pub fn tarball(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut archive = Vec::new();
    for entry in entries {
        archive.extend_from_slice(&header(entry));
        archive.extend_from_slice(entry.content);
        archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    }
    // Two empty blocks end an archive.
    archive.resize(archive.len() + 2 * BLOCK, 0);
    archive
}

fn header(entry: &Entry<'_>) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    let mut put = |at: usize, text: &str| {
        header[at..at + text.len()].copy_from_slice(text.as_bytes());
    };
    assert!(entry.name.len() <= 100, "a plain header holds 100 bytes of name: {}", entry.name);
    put(0, entry.name);
    put(100, &format!("{:07o}", entry.mode));
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{:011o}", entry.content.len()));
    // The same time in every archive: the build cache of the engine looks at content only.
    put(136, "00000000000");
    put(156, "0");
    put(257, "ustar\x0000");
    // The checksum counts its own field as spaces.
    put(148, "        ");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    #[test]
    fn tar_reads_the_archive() {
        let long = vec![b'x'; 1000];
        let archive = tarball(&[
            Entry { name: "Dockerfile", mode: 0o644, content: b"FROM scratch\n" },
            Entry { name: "app", mode: 0o755, content: &long },
        ]);
        assert_eq!(archive.len() % BLOCK, 0);
        let mut tar = Command::new("tar")
            .args(["-tvf", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        tar.stdin.take().unwrap().write_all(&archive).unwrap();
        let output = tar.wait_with_output().unwrap();
        let listing = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{listing}");
        let lines: Vec<_> = listing.lines().collect();
        assert!(
            lines[0].starts_with("-rw-r--r--") && lines[0].ends_with(" Dockerfile"),
            "{listing}"
        );
        assert!(lines[1].starts_with("-rwxr-xr-x") && lines[1].contains(" 1000 "), "{listing}");
    }
}
