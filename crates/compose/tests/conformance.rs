//! Small projects and what becomes of them: every file below `tests/cases` is one.
//!
//! A case is a text with sections. `--- NAME` starts a file of that name below `/app`,
//! `--- options` lines of `file=`, `env-file=`, `profile=`, `name=`, `directory=`, `env=NAME=VALUE`,
//! `tolerant`, `untrusted`. After `--- expect` stands the normal form as JSON with the warnings
//! before it, or the errors. `UPDATE_EXPECT=1 cargo test` writes what comes out.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use shiplap_compose::model::Project;
use shiplap_compose::{MemoryFiles, Request, Tolerance, Trust, load};

const EXPECT: &str = "--- expect\n";

#[test]
fn every_case_gives_what_it_expects() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut cases: Vec<PathBuf> = std::fs::read_dir(&folder)
        .expect("the folder of cases is there")
        .map(|entry| entry.expect("readable").path())
        .collect();
    cases.sort();
    assert!(cases.len() > 50, "cases are missing");
    let mut failures = String::new();
    for path in cases {
        let text = std::fs::read_to_string(&path).expect("a case is text");
        let at = text.find(EXPECT).expect("a case has a section `expect`");
        let (input, expected) = (&text[..at], &text[at + EXPECT.len()..]);
        let got = outcome(input);
        if got == expected {
            continue;
        }
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&path, format!("{input}{EXPECT}{got}")).expect("writable");
        } else {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let _ = writeln!(failures, "== {name}\n-- expected\n{expected}\n-- got\n{got}");
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

fn outcome(input: &str) -> String {
    let mut files = MemoryFiles::default();
    let mut request = Request { working_dir: "/app".into(), ..Request::default() };
    request.environment.insert("HOME".into(), "/home/user".into());
    for section in input.split("--- ").skip(1) {
        let (name, content) = section.split_once('\n').expect("a section has a name");
        if name == "options" {
            content
                .lines()
                .filter(|line| !line.is_empty())
                .for_each(|line| set(&mut request, line));
        } else {
            files.insert(Path::new("/app").join(name), content);
        }
    }
    match load(&request, &files) {
        Ok(loaded) => {
            let stored = serde_json::to_value(&loaded.project).expect("a project is JSON");
            assert_eq!(stored, loaded.canonical);
            let back: Project = serde_json::from_value(stored).expect("a stored project loads");
            assert_eq!(back, loaded.project, "a stored project comes back the same");
            let mut text: String =
                loaded.warnings.iter().map(|warning| format!("{warning}\n")).collect();
            let _ = writeln!(text, "{:#}", loaded.canonical);
            text
        }
        Err(problems) => problems.iter().map(|problem| format!("{problem}\n")).collect(),
    }
}

fn set(request: &mut Request, line: &str) {
    match line.split_once('=').unwrap_or((line, "")) {
        ("file", path) => request.files.push(path.into()),
        ("env-file", path) => request.env_files.push(path.into()),
        ("profile", name) => request.profiles.push(name.into()),
        ("name", name) => request.project_name = Some(name.into()),
        ("directory", path) => request.project_directory = Some(path.into()),
        ("env", pair) => {
            let (name, value) = pair.split_once('=').expect("env=NAME=VALUE");
            request.environment.insert(name.into(), value.into());
        }
        ("tolerant", _) => request.tolerance = Tolerance::Tolerant,
        ("untrusted", _) => request.trust = Trust::Untrusted,
        (other, _) => panic!("unknown option {other}"),
    }
}
