//! `check`: everything that is wrong with the files, or deserves a second thought.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use shiplap_compose::{Diagnostic, Severity, advise};
use shiplap_execute::app::{Source, UsedSecret};
use shiplap_secrets::magic::Recipe;

use super::{Exit, Format};
use crate::cli::{CheckArgs, ProjectArgs};
use crate::secrets::Missing;

pub async fn check(project: &ProjectArgs, args: &CheckArgs, format: Format) -> Exit {
    let (name, found) = match environments(project) {
        Ok(None) => one(project).await,
        Ok(Some((name, environments))) => {
            let mut all = Vec::new();
            for environment in &environments {
                let chosen = crate::load::with_environment(project, environment);
                all.push((environment.as_str(), one(&chosen).await.1));
            }
            (Some(name), together(all))
        }
        Err(problems) => (None, problems),
    };
    match format {
        Format::Text => print!("{}", text(&found)),
        Format::Json => println!("{:#}", document(name.as_deref(), &found)),
    }
    let failed = match args.strict {
        true => !found.is_empty(),
        false => count(&found, Severity::Error) > 0,
    };
    if failed { Exit::Failed } else { Exit::Done }
}

/// The environments that are to be checked: the one that is named, or all of them. Nothing without
/// a configuration.
fn environments(project: &ProjectArgs) -> Result<Option<(String, Vec<String>)>, Vec<Diagnostic>> {
    let Some(config) = crate::load::config(project)? else { return Ok(None) };
    let name = crate::load::project_name(project, &config)?;
    let environments: Vec<String> = match crate::load::wanted(project) {
        Some(wanted) => vec![wanted],
        None => config.environments().map(str::to_owned).collect(),
    };
    Ok((!environments.is_empty()).then_some((name, environments)))
}

/// Everything about one environment: its files, its routes, what it makes of the project.
async fn one(project: &ProjectArgs) -> (Option<String>, Vec<Diagnostic>) {
    match crate::load::open(project, Missing::Pretend).await.map(|opened| opened.source) {
        Ok(Source { loaded, secrets, .. }) => {
            let mut found = loaded.warnings.clone();
            found.extend(advise(&loaded));
            found.extend(in_the_clear(&loaded.environment, &secrets));
            (Some(loaded.project.name), found)
        }
        Err(problems) => (None, problems),
    }
}

/// What was found in several environments counts once; what only some of them have says which.
fn together(all: Vec<(&str, Vec<Diagnostic>)>) -> Vec<Diagnostic> {
    let mut found: Vec<(Diagnostic, Vec<&str>)> = Vec::new();
    let environments = all.len();
    for (environment, diagnostics) in all {
        for diagnostic in diagnostics {
            match found.iter_mut().find(|(known, _)| *known == diagnostic) {
                Some((_, of)) => of.push(environment),
                None => found.push((diagnostic, vec![environment])),
            }
        }
    }
    found
        .into_iter()
        .map(|(diagnostic, of)| match of.len() == environments {
            true => diagnostic,
            false => diagnostic.help(format!("of {} only", of.join(", "))),
        })
        .collect()
}

/// Names that end so stand for secrets.
const TELLING: [&str; 7] =
    ["PASSWORD", "PASSWD", "_PASS", "SECRET", "TOKEN", "_KEY", "CREDENTIALS"];

/// Variables of `.env` files that the store would keep better. What comes from the process is in no
/// file that we know of, and what the store has does not come from a file.
fn in_the_clear(
    environment: &BTreeMap<String, String>,
    secrets: &BTreeMap<String, UsedSecret>,
) -> Option<Diagnostic> {
    let is_in_file = |name: &str, value: &str| {
        let process = std::env::var(name).is_ok_and(|process| process == value);
        !process && !value.is_empty() && !secrets.contains_key(name)
    };
    let is_telling = |name: &str| {
        let upper = name.to_ascii_uppercase();
        // Those that are generated are never in a file.
        TELLING.iter().any(|end| upper.ends_with(end)) && Recipe::of(name).is_none()
    };
    let names: Vec<&str> = environment
        .iter()
        .filter(|(name, value)| is_telling(name) && is_in_file(name, value))
        .map(|(name, _)| name.as_str())
        .collect();
    let list = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let advice = Diagnostic::new(
        Severity::Advice,
        "secrets/in-the-clear",
        format!("a file of variables holds what sounds like secrets: {list}"),
    );
    let help =
        format!("`shiplap secrets import FILE --only {}` keeps them encrypted", names.join(","));
    (!names.is_empty()).then(|| advice.help(help))
}

fn count(found: &[Diagnostic], severity: Severity) -> usize {
    found.iter().filter(|diagnostic| diagnostic.severity == severity).count()
}

/// What is found, and a last line with the numbers.
fn text(found: &[Diagnostic]) -> String {
    let mut text: String = found.iter().map(|diagnostic| format!("{diagnostic}\n\n")).collect();
    let number = |severity, one: &str, many: &str| match count(found, severity) {
        1 => format!("1 {one}"),
        number => format!("{number} {many}"),
    };
    let errors = number(Severity::Error, "error", "errors");
    let warnings = number(Severity::Warning, "warning", "warnings");
    let advice = number(Severity::Advice, "piece of advice", "pieces of advice");
    text.push_str(&format!("{errors}, {warnings}, {advice}\n"));
    text
}

fn document(project: Option<&str>, found: &[Diagnostic]) -> Value {
    json!({
        "version": 1,
        "project": project,
        "errors": count(found, Severity::Error),
        "warnings": count(found, Severity::Warning),
        "advice": count(found, Severity::Advice),
        "diagnostics": found.iter().map(entry).collect::<Vec<_>>(),
    })
}

fn entry(diagnostic: &Diagnostic) -> Value {
    let place = diagnostic.location.as_ref();
    json!({
        "code": diagnostic.code,
        "severity": diagnostic.severity.to_string(),
        "message": diagnostic.message,
        "file": place.map(|place| place.file.to_string_lossy()),
        "line": place.map(|place| place.line),
        "column": place.map(|place| place.column),
        "help": diagnostic.help,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_environments_have_is_said_once() {
        let both = Diagnostic::error("compose/no-file", "there is no Compose file");
        let one = Diagnostic::error("config/htpasswd", "it names nobody");
        let found =
            together(vec![("prod", vec![both.clone()]), ("dev", vec![both.clone(), one.clone()])]);
        assert_eq!(found, [both, one.help("of dev only")]);
    }

    #[test]
    fn variables_of_files_that_sound_like_secrets_are_named() {
        let environment =
            ["DB_PASSWORD", "API_KEY", "KEYBOARD", "SERVICE_PASSWORD_DB", "STORED_TOKEN"];
        let environment = environment.map(|name| (name.to_owned(), "hush".to_owned())).into();
        let stored = UsedSecret { version: 1, content: Default::default() };
        let secrets = [("STORED_TOKEN".to_owned(), stored)].into();
        let advice = in_the_clear(&environment, &secrets).unwrap().to_string();
        assert!(advice.contains("`API_KEY`, `DB_PASSWORD`\n"), "{advice}");
        assert!(advice.contains("--only API_KEY,DB_PASSWORD"), "{advice}");
        assert!(!advice.contains("hush"), "{advice}");
        assert_eq!(in_the_clear(&Default::default(), &Default::default()), None);
    }

    #[test]
    fn a_document_has_places_and_numbers() {
        let found = [
            Diagnostic::error("compose/no-file", "there is no Compose file").help("name one"),
            Diagnostic::new(Severity::Advice, "compose/no-restart", "`web` stays down"),
        ];
        let document = document(None, &found);
        assert_eq!(document["version"], 1);
        assert_eq!(document["errors"], 1);
        assert_eq!(
            document["diagnostics"][0],
            json!({
                "code": "compose/no-file",
                "severity": "error",
                "message": "there is no Compose file",
                "file": null,
                "line": null,
                "column": null,
                "help": ["name one"],
            })
        );
        assert_eq!(document["diagnostics"][1]["severity"], "advice");
        assert!(text(&found).ends_with("\n\n1 error, 0 warnings, 1 piece of advice\n"));
    }
}
