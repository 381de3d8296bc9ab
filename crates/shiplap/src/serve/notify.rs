//! Whom a control server tells how deployments end: a file of webhooks.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use serde::Deserialize;
use serde_json::Value;
use shiplap_compose::Diagnostic;
use shiplap_compose::document::Document;
use shiplap_model::Secret;
use shiplap_server::{Channel, Notifier, OnlyFailures, Webhook};

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    webhooks: Vec<Hook>,
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
    }
}
