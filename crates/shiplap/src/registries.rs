//! The logins with which this process asks registries.

use std::sync::{Arc, LazyLock};

use shiplap_compose::Diagnostic;
use shiplap_config::Settings;
use shiplap_model::{Scope, Secret};
use shiplap_registry::{Client, Keyring, Login};
use shiplap_secrets::Name;

/// One process is one command, and a login is to a registry, whichever environment an image is for.
static KEYRING: LazyLock<Arc<Keyring>> = LazyLock::new(|| Arc::new(Keyring::of_this_user()));

/// The logins: Docker's, and over them those that an environment gives.
pub fn keyring() -> Arc<Keyring> {
    Arc::clone(&KEYRING)
}

/// Takes the logins that an environment's files name out of its store.
///
/// # Errors
/// When the store does not have one, or it is no text.
pub fn take(settings: &Settings, scope: &Scope) -> Result<(), Vec<Diagnostic>> {
    let mut problems = Vec::new();
    for (host, access) in &settings.registries {
        let (Some(user), Some(secret)) = (&access.user, &access.secret) else { continue };
        match password(scope, secret) {
            Ok(Some(password)) => {
                KEYRING.give(host, Login::Password { user: user.clone(), password });
            }
            Ok(None) => problems.push(settings.missing_login(host)),
            Err(why) => problems.push(Diagnostic::error("secrets/store", why)),
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

fn password(scope: &Scope, secret: &str) -> Result<Option<Secret<String>>, String> {
    let store = crate::secrets::store();
    let name: Name = secret.parse().map_err(|error: shiplap_secrets::BadName| error.to_string())?;
    if !store.versions(scope).map_err(|error| error.to_string())?.contains_key(&name) {
        return Ok(None);
    }
    let stored = store.get(scope, &name, None).map_err(|error| error.to_string())?;
    let text = String::from_utf8(stored.value.expose().clone());
    let text = text.map_err(|_| format!("the secret `{name}` is a password, and is no text"))?;
    Ok(Some(Secret::new(text)))
}

/// What asks registries directly, where an engine cannot be asked.
pub fn client(settings: &Settings) -> Client {
    let plain = settings.registries.iter().filter(|(_, access)| !access.tls);
    let plain = plain.map(|(host, _)| host.clone());
    Client::new(keyring(), plain).expect("a client needs nothing but memory")
}
