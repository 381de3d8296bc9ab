//! Certificates that somebody else puts into files.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// No file of PEM is larger.
const MAX_BYTES: u64 = 256 << 10;

/// What two files hold together: the chain, then the key.
pub(crate) fn read(chain: &Path, key: &Path) -> Result<Vec<u8>, String> {
    let mut text = part(chain)?;
    if chain != key {
        if !text.ends_with(b"\n") {
            text.push(b'\n');
        }
        text.extend(part(key)?);
    }
    Ok(text)
}

fn part(path: &Path) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut text));
    match read {
        Ok(length) if length as u64 > MAX_BYTES => {
            Err(io::Error::from(io::ErrorKind::FileTooLarge))
        }
        Ok(_) => return Ok(text),
        Err(error) => Err(error),
    }
    .map_err(|error| format!("reading {}: {error}", path.display()))
}
