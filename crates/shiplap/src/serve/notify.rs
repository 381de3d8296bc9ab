//! Whom a control server tells how deployments end: a file of webhooks and mail.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use serde::Deserialize;
use serde_json::Value;
use shiplap_compose::Diagnostic;
use shiplap_compose::document::Document;
use shiplap_model::Secret;
use shiplap_server::{Channel, Mail, MailServer, MailTls, Notifier, OnlyFailures, Webhook};

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    webhooks: Vec<Hook>,
    #[serde(default)]
    mail: Vec<Letter>,
}

/// Mail to somebody.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Letter {
    /// For the log.
    name: String,
    /// The server that takes it.
    host: String,
    /// Its port: 465, 587 or 25 by `tls` unless given.
    port: Option<u16>,
    /// How it is spoken to.
    #[serde(default)]
    tls: Protection,
    /// Who we are to it, and the file with the password.
    user: Option<String>,
    password_file: Option<String>,
    /// From whom, and to whom.
    from: String,
    to: Vec<String>,
    /// Whether success is not worth a mail.
    #[serde(default)]
    only_failures: bool,
}

/// How a server for mail is spoken to.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Protection {
    /// TLS after a greeting in the clear.
    #[default]
    Starttls,
    /// TLS from the first byte.
    Implicit,
    /// In the clear: a relay on this machine.
    None,
}

/// A webhook.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hook {
    /// For the log.
    name: String,
    /// The address, where it is no secret.
    url: Option<String>,
    /// A file with the address: chats put the secret into it.
    url_file: Option<String>,
    /// Headers, and the files that have their values.
    #[serde(default)]
    header_files: BTreeMap<String, String>,
    /// What is posted: words such as `{summary}` are filled in.
    body: Value,
    /// Whether success is not worth a word.
    #[serde(default)]
    only_failures: bool,
}

/// Reads the file; without one nobody is told.
///
/// # Errors
/// What is wrong with it, and files that it names and that cannot be read.
pub fn notifier(path: Option<&Path>) -> Result<Notifier, Vec<Diagnostic>> {
    let Some(path) = path else { return Ok(Notifier::default()) };
    let shown = path.display();
    let wrong = |message: String| {
        vec![
            Diagnostic::error("serve/notify", message)
                .help("webhooks: [{ name: chat, url_file: FILE, body: { text: \"{summary}\" } }]"),
        ]
    };
    let text = std::fs::read_to_string(path)
        .map_err(|error| wrong(format!("cannot read `{shown}`: {error}")))?;
    let document = Document::parse(path, &text).map_err(|problem| vec![*problem])?;
    let file: File = serde_json::from_value(document.root().to_json())
        .map_err(|error| wrong(format!("`{shown}` cannot be used: {error}")))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read_to_string(&path)
            .map(|text| Secret::new(text.trim().to_owned()))
            .map_err(|error| wrong(format!("cannot read `{}`: {error}", path.display())))
    };
    let mut channels: Vec<Arc<dyn Channel>> = Vec::new();
    for letter in file.mail {
        let (tls, usual) = match letter.tls {
            Protection::Starttls => (MailTls::Starttls, 587),
            Protection::Implicit => (MailTls::Implicit, 465),
            Protection::None => (MailTls::None, 25),
        };
        let credentials = match (letter.user, &letter.password_file) {
            (Some(user), Some(file)) => Some((user, read(file)?)),
            (None, None) => None,
            _ => {
                let name = &letter.name;
                return Err(wrong(format!("`{name}` needs both `user` and `password_file`")));
            }
        };
        let port = letter.port.unwrap_or(usual);
        let server = MailServer { host: letter.host, port, tls, credentials };
        let only = if letter.only_failures { OnlyFailures::Yes } else { OnlyFailures::No };
        let mail = Mail::new(&letter.name, &server, &letter.from, &letter.to, only);
        let mail = mail.map_err(|why| wrong(format!("`{}` in `{shown}`: {why}", letter.name)))?;
        channels.push(Arc::new(mail));
    }
    for hook in file.webhooks {
        let url = match (&hook.url, &hook.url_file) {
            (Some(url), None) => Secret::new(url.clone()),
            (None, Some(file)) => read(file)?,
            _ => {
                return Err(wrong(format!(
                    "`{}` in `{shown}` has either `url` or `url_file`",
                    hook.name
                )));
            }
        };
        let mut headers = Vec::new();
        for (name, file) in &hook.header_files {
            let header = name.parse().map_err(|_| wrong(format!("`{name}` is no header")))?;
            headers.push((header, read(file)?));
        }
        let only = if hook.only_failures { OnlyFailures::Yes } else { OnlyFailures::No };
        let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        channels.push(Arc::new(Webhook::new(&hook.name, url, headers, hook.body, only, roots)));
    }
    Ok(Notifier::new(channels))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_told_and_secrets_are_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify.yaml");
        let said = |text: &str| {
            std::fs::write(&path, text).expect("written");
            match notifier(Some(&path)) {
                Ok(_) => String::new(),
                Err(problems) => problems[0].message.clone(),
            }
        };
        std::fs::write(folder.path().join("url"), "https://chat.example/secret\n")
            .expect("written");
        assert_eq!(said("webhooks: [{name: chat, url_file: url, body: {text: '{summary}'}}]"), "");
        assert!(said("webhooks: [{name: chat, body: {}}]").contains("either `url` or `url_file`"));
        assert!(said("webhook: []").contains("unknown field `webhook`"));
        assert!(said("webhooks: [{name: c, url_file: none, body: 1}]").contains("cannot read"));
        let mail = |more: &str| {
            said(&format!("mail: [{{name: ops, host: mx.example, from: a@b.example, {more}}}]"))
        };
        assert_eq!(mail("to: [ops@shop.example], tls: implicit, user: a, password_file: url"), "");
        assert!(mail("to: [nobody]").contains("`nobody`"));
        assert!(mail("to: [a@b.example], user: a").contains("both `user` and `password_file`"));
        let clear = mail("to: [a@b.example], tls: none, user: a, password_file: url");
        assert!(clear.contains("in the clear") && !clear.contains("secret"), "{clear}");
    }
}
