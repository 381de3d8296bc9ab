//! What `ssh` says when it does not get there, and what to do about it.

use std::path::Path;

use shiplap_model::{EngineError, EngineErrorKind};

use crate::address::SshAddress;

/// Why nobody is reached over a link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Trouble {
    pub(crate) kind: EngineErrorKind,
    pub(crate) message: String,
    pub(crate) help: Option<String>,
}

impl Trouble {
    fn new(kind: EngineErrorKind, message: String, help: String) -> Self {
        Self { kind, message, help: Some(help) }
    }

    /// As the error of what was being done.
    pub(crate) fn during(self, doing: impl Into<String>) -> EngineError {
        let Self { kind, message, help } = self;
        EngineError { kind, doing: doing.into(), message, help }
    }

    /// The same about a link that was there before. Keys and accounts may be away for a moment
    /// while a machine starts; that another machine answers never passes.
    pub(crate) fn of_a_lost_link(self) -> Self {
        match self.kind {
            EngineErrorKind::HostKey => self,
            _ => Self { kind: EngineErrorKind::Unreachable, ..self },
        }
    }
}

/// What the words of an `ssh` that has ended mean.
pub(crate) fn of_an_end(address: &SshAddress, words: &str) -> Trouble {
    let typed = address.typed();
    let last = last_line(words);
    if words.contains("HOST IDENTIFICATION HAS CHANGED") || words.contains("REVOKED HOST KEY") {
        let key = fingerprint(words).map(|key| format!(": it is {key} now")).unwrap_or_default();
        return Trouble::new(
            EngineErrorKind::HostKey,
            format!("the host key of {address} has changed{key}"),
            format!(
                "somebody may be in between. If the machine was made anew, compare with \
                 `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` there, forget the old key with \
                 `ssh-keygen -R {}`, and say yes once in `{typed}`",
                known_as(address)
            ),
        );
    }
    if words.contains("key is known for") || words.contains("Host key verification failed") {
        return Trouble::new(
            EngineErrorKind::HostKey,
            format!("the host key of {address} is not known here"),
            format!(
                "`{typed}` shows it: compare it with \
                 `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` on that machine, then say yes"
            ),
        );
    }
    if words.contains("Permission denied (") || words.contains("Too many authentication failures") {
        return Trouble::new(
            EngineErrorKind::Denied,
            format!("{address} does not let us in: {last}"),
            format!(
                "`{typed}` must get there without a question: `ssh-add` for a key with a \
                     passphrase, `ssh-copy-id` for a new one"
            ),
        );
    }
    let message = if last.is_empty() { "ssh ended without a word" } else { last };
    Trouble::new(
        EngineErrorKind::Unreachable,
        format!("{address} cannot be reached: {message}"),
        format!("does `{typed}` get there?"),
    )
}

/// That `ssh` is not there, or cannot be started.
pub(crate) fn of_no_start(address: &SshAddress, error: &std::io::Error) -> Trouble {
    Trouble::new(
        EngineErrorKind::Invalid,
        format!("{address} needs the program `ssh`, which cannot be started: {error}"),
        "install it: `sudo apt install openssh-client`".to_owned(),
    )
}

/// Who did not take a connection over there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The ssh server, which may not.
    Server,
    /// The socket: nothing listens, or the user may not use it.
    Socket,
}

/// The newest refusal that is told of.
pub(crate) fn refusal(words: &str) -> Option<Refusal> {
    let line = words.lines().rev().find(|line| line.contains(": open failed: "))?;
    let is_prohibited = line.contains("administratively prohibited");
    Some(if is_prohibited { Refusal::Server } else { Refusal::Socket })
}

/// What it means for a connection to a socket over there.
pub(crate) fn of_a_refusal(address: &SshAddress, socket: &Path, refusal: Refusal) -> Trouble {
    if refusal == Refusal::Server {
        return Trouble::new(
            EngineErrorKind::Denied,
            format!("the ssh server of {address} forwards no Unix sockets"),
            "`AllowStreamLocalForwarding yes` in its sshd_config".to_owned(),
        );
    }
    let place = socket.display();
    let user = address.user.as_deref().unwrap_or("$USER");
    Trouble::new(
        EngineErrorKind::Unreachable,
        format!("nothing that its user may use listens at {place} of {}", address.host),
        format!(
            "does docker run there, and may the user use it? `{} docker version`; on that machine, \
             `sudo systemctl start docker` or `sudo usermod -aG docker {user}`",
            address.typed()
        ),
    )
}

fn last_line(words: &str) -> &str {
    let mut lines = words.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.next_back().unwrap_or_default()
}

/// `SHA256:…`, as ssh shows the key that it was offered.
fn fingerprint(words: &str) -> Option<&str> {
    let word = words.split_whitespace().find(|word| word.starts_with("SHA256:"))?;
    Some(word.trim_end_matches('.'))
}

/// How the file of known hosts calls it.
fn known_as(address: &SshAddress) -> String {
    match address.port {
        None | Some(22) => address.host.clone(),
        Some(port) => format!("'[{}]:{port}'", address.host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Address;

    fn address(text: &str) -> SshAddress {
        match Address::parse(text).unwrap() {
            Address::Ssh(address) => address,
            other => panic!("{other} is not reached by ssh"),
        }
    }

    /// What is made of words of OpenSSH 9.2.
    fn made(words: &str) -> (EngineErrorKind, String, String) {
        let made = of_an_end(&address("ssh://ada@vm1:2200"), words);
        (made.kind, made.message, made.help.unwrap_or_default())
    }

    #[test]
    fn an_unknown_host_key_says_how_to_learn_it() {
        let (kind, message, help) = made(
            "No ED25519 host key is known for [vm1]:2200 and you have requested strict checking.\r\n\
             Host key verification failed.\r\n",
        );
        assert_eq!(kind, EngineErrorKind::HostKey);
        assert_eq!(message, "the host key of ssh://ada@vm1:2200 is not known here");
        assert!(help.starts_with("`ssh -p 2200 ada@vm1` shows it"), "{help}");
    }

    #[test]
    fn a_changed_host_key_is_not_an_unknown_one() {
        let (kind, message, help) = made(
            "@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@\r\n\
             @    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\r\n\
             IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!\r\n\
             The fingerprint for the ED25519 key sent by the remote host is\n\
             SHA256:lZ3kvuUYYcIe5hY8.\r\n\
             Host key for [vm1]:2200 has changed and you have requested strict checking.\r\n\
             Host key verification failed.\r\n",
        );
        assert_eq!(kind, EngineErrorKind::HostKey);
        assert!(message.ends_with("has changed: it is SHA256:lZ3kvuUYYcIe5hY8 now"), "{message}");
        assert!(help.contains("ssh-keygen -R '[vm1]:2200'"), "{help}");
    }

    #[test]
    fn other_reasons_are_in_the_words_of_ssh() {
        let (kind, message, help) =
            made("Welcome!\r\n\r\nada@vm1: Permission denied (publickey,password).\r\n");
        assert_eq!(kind, EngineErrorKind::Denied);
        assert!(message.ends_with("Permission denied (publickey,password)."), "{message}");
        assert!(help.contains("ssh-add"), "{help}");
        for words in [
            "ssh: connect to host vm1 port 2200: No route to host",
            "ssh: connect to host vm1 port 2200: Connection timed out",
            "ssh: Could not resolve hostname vm1: Name or service not known",
            "Timeout, server vm1 not responding.",
            "kex_exchange_identification: Connection closed by remote host",
        ] {
            let (kind, message, _) = made(words);
            assert_eq!(kind, EngineErrorKind::Unreachable);
            assert!(message.ends_with(words), "{message}");
        }
    }

    #[test]
    fn a_host_key_that_changes_is_never_waited_for() {
        let lost = |words| of_an_end(&address("ssh://vm1"), words).of_a_lost_link().kind;
        assert_eq!(lost("Host key verification failed."), EngineErrorKind::HostKey);
        assert_eq!(lost("a@vm1: Permission denied (publickey)."), EngineErrorKind::Unreachable);
    }

    #[test]
    fn a_socket_that_is_not_there_is_told_from_one_that_may_not_be_forwarded() {
        let of = |words| {
            let socket = Path::new("/run/d.sock");
            Some(of_a_refusal(&address("ssh://vm1"), socket, refusal(words)?))
        };
        let away = of("channel 2: open failed: connect failed: open failed\r\n").unwrap();
        assert_eq!(away.kind, EngineErrorKind::Unreachable);
        assert!(away.message.contains("/run/d.sock of vm1"), "{}", away.message);
        let denied = of("channel 2: open failed: administratively prohibited: open failed\r\n");
        assert_eq!(denied.unwrap().kind, EngineErrorKind::Denied);
        assert_eq!(of("Warning: something else\n"), None);
    }
}
