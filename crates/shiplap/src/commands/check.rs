//! `check`: everything that is wrong with the files, or deserves a second thought.

use serde_json::{Value, json};
use shiplap_compose::{Diagnostic, OsFiles, Severity, advise};

use super::{Exit, Format};
use crate::cli::{CheckArgs, ProjectArgs};

pub fn check(project: &ProjectArgs, args: &CheckArgs, format: Format) -> Exit {
    let loaded =
        crate::load::files_request(project).and_then(|r| shiplap_compose::load(&r, &OsFiles));
    let (name, found) = match loaded {
        Ok(loaded) => {
            let mut found = loaded.warnings.clone();
            found.extend(advise(&loaded));
            (Some(loaded.project.name), found)
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
