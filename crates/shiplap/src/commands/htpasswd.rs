//! `htpasswd`: a line for a file of names and hashed passwords.

use std::io::{IsTerminal as _, Read as _};

use super::Exit;

/// More than any password.
const LONGEST: u64 = 4096;

pub fn htpasswd(name: &str) -> Exit {
    if name.is_empty() || name.contains([':', '\n']) {
        eprintln!("error[usage]: a name is not empty, and has no `:`");
        return Exit::Usage;
    }
    if std::io::stdin().is_terminal() {
        eprintln!("error[usage]: the password is read from a pipe, so that no screen shows it");
        eprintln!("  = help: `read -rs P; printf %s \"$P\" | shiplap htpasswd {name}`");
        return Exit::Usage;
    }
    let mut password = String::new();
    if let Err(error) = std::io::stdin().take(LONGEST).read_to_string(&mut password) {
        eprintln!("error[htpasswd]: the password cannot be read: {error}");
        return Exit::Failed;
    }
    match shiplap_edge::hash_password(password.trim_end_matches(['\r', '\n'])) {
        Ok(hash) => {
            println!("{name}:{hash}");
            Exit::Done
        }
        Err(error) => {
            eprintln!("error[htpasswd]: {error}");
            Exit::Failed
        }
    }
}
