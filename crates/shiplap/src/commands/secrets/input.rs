//! Where values come from: standard input, a terminal, a file. Never an argument.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, IsTerminal as _, Read, Write as _};
use std::path::Path;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use shiplap_model::Secret;
use shiplap_secrets::{LARGEST_VALUE, Name};

use crate::exit::Exit;

/// What keys send while the terminal does not interpret them.
const INTERRUPT: u8 = 3;
const END: u8 = 4;
const BACKSPACE: [u8; 2] = [8, 127];
const KILL_LINE: u8 = 21;

/// From standard input, or from a person at the terminal.
pub fn standard(name: &Name) -> Result<Secret<Vec<u8>>, Exit> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        return asked(name);
    }
    let read = read(&mut stdin.lock(), "standard input")?;
    Ok(Secret::new(without_line_break(read)))
}

/// From a file, byte by byte.
pub fn file(path: &Path) -> Result<Secret<Vec<u8>>, Exit> {
    let shown = path.display().to_string();
    let mut file = File::open(path).map_err(|error| unreadable(&shown, &error))?;
    read(&mut file, &shown).map(Secret::new)
}

/// Variables of a file in the form of `.env`.
pub fn dotenv(path: &Path) -> Result<Vec<(String, String)>, Exit> {
    let shown = path.display().to_string();
    let bytes = file(path)?;
    let Ok(text) = std::str::from_utf8(bytes.expose()) else {
        eprintln!("error[secrets]: {shown} is no text");
        return Err(Exit::Failed);
    };
    let environment: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    shiplap_compose::read_dotenv(text, &environment).map_err(|error| {
        eprintln!("error[secrets]: {shown}: {error}");
        Exit::Failed
    })
}

fn read(from: &mut dyn Read, what: &str) -> Result<Vec<u8>, Exit> {
    let mut value = Vec::new();
    // One more than is kept, and a line break: the store says what is too large.
    let most = LARGEST_VALUE as u64 + 3;
    from.take(most).read_to_end(&mut value).map_err(|error| unreadable(what, &error))?;
    Ok(value)
}

fn unreadable(what: &str, error: &io::Error) -> Exit {
    eprintln!("error[secrets]: {what} cannot be read: {error}");
    Exit::Failed
}

/// `echo` and editors end a text with a line break that is not meant.
fn without_line_break(mut value: Vec<u8>) -> Vec<u8> {
    if value.last() == Some(&b'\n') {
        value.pop();
        if value.last() == Some(&b'\r') {
            value.pop();
        }
    }
    value
}

/// Asks at the terminal, and shows nothing of the answer.
fn asked(name: &Name) -> Result<Secret<Vec<u8>>, Exit> {
    eprint!("value of {name} (not shown): ");
    let _ = io::stderr().flush();
    let silent = Silent::enter().map_err(|error| unreadable("the terminal", &error.into()))?;
    let line = typed(io::stdin().lock());
    drop(silent);
    eprintln!();
    match line {
        Ok(Some(line)) => Ok(Secret::new(line)),
        Ok(None) => {
            eprintln!("nothing was changed");
            Err(Exit::Failed)
        }
        Err(error) => Err(unreadable("the terminal", &error)),
    }
}

/// A line as it is typed; nothing if the person gave up.
fn typed(keys: impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line: Vec<u8> = Vec::new();
    for key in keys.bytes() {
        match key? {
            INTERRUPT => return Ok(None),
            END if line.is_empty() => return Ok(None),
            b'\n' | b'\r' | END => return Ok(Some(line)),
            key if BACKSPACE.contains(&key) => {
                // A whole character: the bytes that follow its first one begin with 10.
                while line.pop().is_some_and(|byte| byte & 0b1100_0000 == 0b1000_0000) {}
            }
            KILL_LINE => line.clear(),
            key => line.push(key),
        }
    }
    Ok(None)
}

/// The terminal without echo, until dropped. Keys that would end this program arrive as bytes, so
/// that it never leaves the terminal mute.
struct Silent(Termios);

impl Silent {
    fn enter() -> rustix::io::Result<Self> {
        let stdin = io::stdin();
        let before = tcgetattr(&stdin)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        tcsetattr(&stdin, OptionalActions::Flush, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_break_is_left_out() {
        let check = |given: &[u8], left: &[u8]| {
            assert_eq!(without_line_break(given.to_vec()), left);
        };
        check(b"x", b"x");
        check(b"x\n", b"x");
        check(b"x\r\n", b"x");
        check(b"x\n\n", b"x\n");
        check(b"\n", b"");
    }

    #[test]
    fn keys_are_a_line() {
        let check = |keys: &str, line: Option<&str>| {
            let typed = typed(keys.as_bytes()).unwrap();
            assert_eq!(typed.as_deref(), line.map(str::as_bytes), "{keys:?}");
        };
        check("secret\n", Some("secret"));
        check("secret\rmore", Some("secret"));
        check("sexx\u{7f}\u{7f}cret\n", Some("secret"));
        check("sä\u{7f}e\n", Some("se"));
        check("wrong\u{15}secret\n", Some("secret"));
        check("secret\u{4}", Some("secret"));
        check("\u{4}", None);
        check("sec\u{3}", None);
        check("sec", None);
    }
}
