//! Files of names and hashed passwords, as `htpasswd -B` writes them.

use std::collections::BTreeMap;
use std::path::Path;

use shiplap_compose::{Diagnostic, FileSource, Location};

use crate::LARGEST_FILE;

/// Reads one. `named` is where the file is named.
///
/// # Errors
/// `config/unreadable`; `config/htpasswd` for a line that is not `NAME:HASH`, and for hashes other
/// than bcrypt's, which are broken in seconds. No hash is shown.
pub(crate) fn read(
    path: &Path,
    named: Option<Location>,
    files: &dyn FileSource,
) -> Result<BTreeMap<String, String>, Box<Diagnostic>> {
    let shown = path.display();
    let wrong =
        |code, message: String| Diagnostic::error(code, message).at(named.clone(), "named here");
    let bytes = files.read(path, LARGEST_FILE).map_err(|error| {
        let problem = wrong("config/unreadable", format!("cannot read `{shown}`: {error}"));
        Box::new(problem.help(format!("`shiplap htpasswd NAME >> {shown}` makes it")))
    })?;
    let text = String::from_utf8_lossy(&bytes);
    let mut users = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let number = number + 1;
        let Some((name, hash)) = line.split_once(':').filter(|(name, _)| !name.is_empty()) else {
            let message = format!("line {number} of `{shown}` is not of the form NAME:HASH");
            return Err(Box::new(wrong("config/htpasswd", message)));
        };
        if !is_bcrypt(hash) {
            let message = format!("the password of `{name}` in `{shown}` is not hashed by bcrypt");
            let help = format!("`shiplap htpasswd {name}` prints a line that is");
            return Err(Box::new(wrong("config/htpasswd", message).help(help)));
        }
        users.insert(name.to_owned(), hash.to_owned());
    }
    if users.is_empty() {
        let problem = wrong("config/htpasswd", format!("`{shown}` names nobody"));
        return Err(Box::new(problem.help(format!("`shiplap htpasswd NAME >> {shown}`"))));
    }
    Ok(users)
}

/// `$2y$10$`, then 53 characters.
fn is_bcrypt(hash: &str) -> bool {
    let form = |prefix: &str| hash.starts_with(prefix);
    (form("$2y$") || form("$2b$") || form("$2a$")) && hash.len() == 60
}
