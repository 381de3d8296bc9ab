//! What an environment's secrets do to the loading of its project.
//!
//! Before: the survey tells which variables are looked up. Those that the store has, and those
//! that Coolify would generate, become variables of the request. After: what was loaded is told
//! where secrets came to stand, and what is said of the files is searched for their values.

mod places;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use shiplap_compose::{Diagnostic, Loaded, Severity, Survey};
use shiplap_execute::app::UsedSecret;
use shiplap_model::Scope;
use shiplap_secrets::magic::{self, Magic, Mentioned, Place, Recipe, Route};
use shiplap_secrets::{Name, Store, StoreError};

/// A shorter value is part of too many words to be told from them.
const TELLING: usize = 4;
/// Stands for what is not to be shown, or not generated yet.
const BLANK: &str = "***";

/// What becomes of secrets that have to be generated and are not there yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// They are made, and kept.
    Make,
    /// Something stands for them: this command changes nothing.
    Pretend,
}

/// The store of this machine.
pub fn store() -> Store {
    Store::open(&crate::world::state_dir().join("secrets"))
}

/// What a load gets from the store.
#[derive(Debug, Default)]
pub struct Supply {
    used: BTreeMap<String, UsedSecret>,
    magic: Magic,
    made: Vec<Name>,
}

impl Supply {
    /// Looks up, or makes, what a project's files mention.
    ///
    /// # Errors
    /// When the store cannot be read, or a variable is no text.
    pub fn find(
        store: &Store,
        place: &Place<'_>,
        survey: &Survey,
        missing: Missing,
    ) -> Result<Self, Vec<Diagnostic>> {
        let scope = place.scope;
        let mut supply = Self { magic: magic::magic(&mentioned(survey), place), ..Self::default() };
        let known = store.versions(scope).map_err(refused)?;
        for (name, recipe) in &supply.magic.secrets {
            let is_given = survey.environment.contains_key(name.as_str());
            if !known.contains_key(name) && !is_given && missing == Missing::Make {
                store.ensure(scope, name, || recipe.make()).map_err(refused)?;
                supply.made.push(name.clone());
            }
        }
        let mut used = store.versions(scope).map_err(refused)?;
        used.retain(|name, _| survey.variables.contains(name.as_str()));
        for (name, stored) in store.at(scope, &used).map_err(refused)? {
            let used = UsedSecret { version: stored.version, content: stored.value };
            supply.used.insert(name.to_string(), used);
        }
        Ok(supply)
    }

    /// The variables that interpolation gets, besides the process's and before them.
    ///
    /// # Errors
    /// When a value is no text.
    pub fn variables(&self, survey: &Survey) -> Result<BTreeMap<String, String>, Vec<Diagnostic>> {
        let is_given = |name: &str| survey.environment.contains_key(name);
        let mut variables = BTreeMap::new();
        for (name, address) in &self.magic.addresses {
            if !is_given(name) {
                variables.insert(name.clone(), address.clone());
            }
        }
        for name in self.magic.secrets.keys().map(Name::as_str) {
            if !is_given(name) {
                variables.insert(name.to_owned(), BLANK.to_owned());
            }
        }
        let mut problems = Vec::new();
        for (name, secret) in &self.used {
            match text(secret.content.expose()) {
                Some(text) => {
                    variables.insert(name.clone(), text.to_owned());
                }
                None => problems.push(
                    Diagnostic::error(
                        "secrets/not-text",
                        format!("the secret `{name}` is used as a variable, and is no text"),
                    )
                    .help("a Compose secret with `external: true` holds any bytes"),
                ),
            }
        }
        if problems.is_empty() { Ok(variables) } else { Err(problems) }
    }

    /// Adds external secrets, and what Coolify gives to services; tells where secrets came to stand.
    ///
    /// # Errors
    /// When the store cannot be read, or a secret would be shown.
    pub fn finish(
        &mut self,
        loaded: &mut Loaded,
        survey: &Survey,
        (store, scope): (&Store, &Scope),
    ) -> Result<(), Vec<Diagnostic>> {
        let known = store.versions(scope).map_err(refused)?;
        let objects = loaded.project.secrets.iter().filter(|(_, object)| object.external);
        let names = objects.map(|(key, object)| object.name.as_ref().unwrap_or(key));
        let wanted: BTreeMap<Name, u32> = names
            .filter(|name| !self.used.contains_key(*name))
            .filter_map(|name| known.get_key_value(name.as_str()))
            .map(|(name, version)| (name.clone(), *version))
            .collect();
        for (name, stored) in store.at(scope, &wanted).map_err(refused)? {
            let used = UsedSecret { version: stored.version, content: stored.value };
            self.used.insert(name.to_string(), used);
        }
        for entry in &self.magic.environment {
            let service = loaded.project.services.get_mut(&entry.service);
            if let Some(service) = service.filter(|_| !survey.environment.contains_key(&entry.name))
            {
                service.environment.insert(entry.name.clone(), Some(entry.value.clone()));
            }
        }
        let (errors, warnings): (Vec<_>, Vec<_>) = places::open(loaded, &self.hidden())
            .into_iter()
            .partition(|diagnostic| diagnostic.severity == Severity::Error);
        if !errors.is_empty() {
            return Err(errors);
        }
        loaded.warnings.extend(warnings);
        loaded.warnings.extend(self.told());
        self.blank(&mut loaded.warnings);
        Ok(())
    }

    /// Takes values out of what is said of the files.
    pub fn blank(&self, diagnostics: &mut [Diagnostic]) {
        let hidden = self.hidden();
        let values: Vec<&str> = hidden.values().copied().collect();
        for diagnostic in diagnostics {
            blank(&mut diagnostic.message, &values);
            blank(&mut diagnostic.label, &values);
            diagnostic.help.iter_mut().for_each(|help| blank(help, &values));
            diagnostic.related.iter_mut().for_each(|related| blank(&mut related.message, &values));
        }
    }

    /// The secrets that the project uses, with their versions.
    pub fn into_used(self) -> BTreeMap<String, UsedSecret> {
        self.used
    }

    /// Values by name that must not be shown. A generated user is no secret.
    fn hidden(&self) -> BTreeMap<&str, &str> {
        let is_user = |name: &str| Recipe::of(name) == Some(Recipe::User);
        let texts = self.used.iter().filter(|(name, _)| !is_user(name));
        texts
            .filter_map(|(name, secret)| Some((name.as_str(), text(secret.content.expose())?)))
            .filter(|(_, value)| value.len() >= TELLING)
            .collect()
    }

    /// What was done to make a file of Coolify's work.
    fn told(&self) -> Vec<Diagnostic> {
        let advice = |code, message| Diagnostic::new(Severity::Advice, code, message);
        let mut told: Vec<Diagnostic> = Vec::new();
        if !self.made.is_empty() {
            let names: Vec<String> = self.made.iter().map(|name| format!("`{name}`")).collect();
            let made = format!("generated and kept as secrets: {}", names.join(", "));
            told.push(advice("coolify/generated", made).help("`shiplap secrets list` shows them"));
        }
        for route in &self.magic.routes {
            let Route { host, path, service, port } = route;
            let message =
                format!("`{service}` expects requests for `{host}{path}` at its port {port}");
            told.push(advice("coolify/route", message));
        }
        for name in &self.magic.unknown {
            let message = format!("`{name}` is generated by Coolify and not here");
            told.push(
                Diagnostic::warning("coolify/unknown", message).help(format!(
                    "`shiplap secrets set {name}` reads its value from standard input"
                )),
            );
        }
        told
    }
}

fn mentioned(survey: &Survey) -> Mentioned {
    let service = |service: &shiplap_compose::SurveyedService| magic::Service {
        environment: service.environment.clone(),
        ports: service.ports.clone(),
    };
    let services = survey.services.iter();
    Mentioned {
        variables: survey.variables.clone(),
        services: services.map(|(name, about)| (name.clone(), service(about))).collect(),
    }
}

/// Variables for showing a project: nothing among them is a value of the store, and none is
/// decrypted.
///
/// # Errors
/// When the store cannot be read.
pub fn blank_variables(
    store: &Store,
    place: &Place<'_>,
    survey: &Survey,
) -> Result<BTreeMap<String, String>, Vec<Diagnostic>> {
    let magic = magic::magic(&mentioned(survey), place);
    let mut variables = Supply { magic, ..Supply::default() }.variables(survey)?;
    let known = store.versions(place.scope).map_err(refused)?;
    variables.extend(known.keys().map(|name| (name.to_string(), BLANK.to_owned())));
    Ok(variables)
}

/// A value that can be a variable's.
fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok().filter(|text| !text.contains('\0'))
}

fn blank(text: &mut String, values: &[&str]) {
    for value in values {
        if text.contains(value) {
            *text = text.replace(value, BLANK);
        }
    }
}

/// The store's own words, as a diagnostic.
fn refused(error: StoreError) -> Vec<Diagnostic> {
    vec![Diagnostic::error("secrets/store", error.to_string())]
}
