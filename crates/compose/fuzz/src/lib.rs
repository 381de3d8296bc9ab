//! What must hold for every input, however broken.
//!
//! Each function takes bytes, turns them into files, and panics if the loader breaks a promise:
//! it ends soon, says why it refuses, points to places that exist, and prints YAML.

#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use shiplap_compose::{
    ConfigOptions, Diagnostic, Format, MemoryFiles, Request, Severity, Tolerance, Trust, advise,
    load as load_project, render_config,
};

/// No input of a few kilobytes may take longer, even with checks and on a busy machine.
const LIMIT: Duration = Duration::from_secs(5);
/// A message is for reading.
const LONGEST_MESSAGE: usize = 20_000;
const FOLDER: &str = "/app";

/// A project: `--- NAME` at the start of a line begins a file; what stands before the first is
/// `compose.yaml`. The same form as `tests/cases`, from `--- expect` on nothing is read.
pub fn load(data: &[u8]) {
    let mut files = MemoryFiles::default();
    let mut request = request();
    let mut name = "compose.yaml".to_owned();
    let mut text: Vec<u8> = Vec::new();
    for line in data.split_inclusive(|byte| *byte == b'\n') {
        let heading = line.strip_prefix(b"--- ").and_then(|rest| std::str::from_utf8(rest).ok());
        let Some(heading) = heading.map(str::trim).filter(|heading| !heading.is_empty()) else {
            text.extend_from_slice(line);
            continue;
        };
        put(&mut files, &mut request, &name, std::mem::take(&mut text));
        name = heading.to_owned();
        if name == "expect" {
            break;
        }
    }
    if name != "expect" {
        put(&mut files, &mut request, &name, text);
    }
    promises(&request, &files);
}

/// A value with variables, in places where it becomes text, a number, a list and a name.
pub fn interpolation(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let value = quoted(text);
    let compose = format!(
        "services: {{web: {{image: web, command: {value}, labels: [{value}], cpus: {value}, \
         ports: [{value}], environment: {{A: {value}}}}}}}\nx-name: {value}\n"
    );
    let plain = format!(
        "services: {{web: {{image: web, labels: {{a: {value}}}}}}}\nx-name: {{{value}: {value}}}\n"
    );
    for compose in [compose, plain] {
        let files = MemoryFiles::from([
            ("/app/compose.yaml", compose.as_str()),
            ("/app/.env", "A=1\nB=two words\nEMPTY=\nQUOTE='a\"b$c'\n"),
        ]);
        promises(&request(), &files);
    }
}

/// A file of variables, as `.env` and as both formats of `env_file`.
pub fn dotenv(data: &[u8]) {
    let compose = "services:\n  web:\n    image: web:${A:-none}\n    env_file:\n\
                   \x20     - web.env\n      - {path: web.env, format: raw}\n";
    let files = [(".env", data), ("web.env", data), ("compose.yaml", compose.as_bytes())];
    let files: MemoryFiles =
        files.into_iter().map(|(name, text)| (format!("{FOLDER}/{name}"), text)).collect();
    promises(&request(), &files);
    let alone =
        MemoryFiles::from([("/app/compose.yaml", compose.as_bytes()), ("/app/web.env", data)]);
    promises(&request(), &alone);
}

fn request() -> Request {
    Request { working_dir: FOLDER.into(), trust: Trust::Untrusted, ..Request::default() }
}

fn put(files: &mut MemoryFiles, request: &mut Request, name: &str, text: Vec<u8>) {
    if name != "options" {
        files.insert(format!("{FOLDER}/{name}"), text);
        return;
    }
    for line in String::from_utf8_lossy(&text).lines() {
        match line.split_once('=').unwrap_or((line, "")) {
            ("file", value) => request.files.push(value.into()),
            ("env-file", value) => request.env_files.push(value.into()),
            ("profile", value) => request.profiles.push(value.into()),
            ("name", value) => request.project_name = Some(value.into()),
            ("directory", value) => request.project_directory = Some(value.into()),
            ("tolerant", _) => request.tolerance = Tolerance::Tolerant,
            ("env", value) => {
                if let Some((name, value)) = value.split_once('=') {
                    request.environment.insert(name.into(), value.into());
                }
            }
            _ => {}
        }
    }
}

fn promises(request: &Request, files: &MemoryFiles) {
    let start = Instant::now();
    match load_project(request, files) {
        Err(problems) => {
            let errors = problems.iter().filter(|problem| problem.severity == Severity::Error);
            assert!(errors.count() > 0, "refused without a reason");
            readable(&problems);
        }
        Ok(loaded) => {
            readable(&loaded.warnings);
            assert!(loaded.warnings.iter().all(|warning| warning.severity != Severity::Error));
            readable(&advise(&loaded));
            for name in loaded.project.services.keys() {
                assert!(loaded.span(&["services", name]).is_some(), "a service without a place");
            }
            again(request, files);
        }
    }
    assert!(start.elapsed() < LIMIT, "took {:?}", start.elapsed());
    let raw = ConfigOptions { interpolate: false, ..ConfigOptions::default() };
    let _ = render_config(request, files, &raw);
    assert!(start.elapsed() < LIMIT * 2, "took {:?} with the raw form", start.elapsed());
}

fn readable(diagnostics: &[Diagnostic]) {
    for diagnostic in diagnostics {
        assert!(diagnostic.code.contains('/') && !diagnostic.message.is_empty());
        assert!(diagnostic.to_string().len() < LONGEST_MESSAGE, "too long: {}", diagnostic.code);
    }
}

/// What is printed as YAML is YAML.
///
/// It need not load as the same project: the printed form follows the reference, which prints
/// some attributes in a form that it does not read, such as `weight_device`.
fn again(request: &Request, files: &MemoryFiles) {
    let options = ConfigOptions { format: Format::Yaml, ..ConfigOptions::default() };
    let first = match render_config(request, files, &options) {
        Ok(rendered) => rendered.text,
        Err(_) => panic!("loads, but does not print"),
    };
    let printed = MemoryFiles::from([("/app/compose.yaml", first.as_str())]);
    let plain = Request { working_dir: FOLDER.into(), ..Request::default() };
    let Err(problems) = load_project(&plain, &printed) else { return };
    for problem in problems {
        let broken = ["compose/yaml", "compose/duplicate-key", "compose/key-type"];
        assert!(!broken.contains(&problem.code), "what is printed is no YAML: {problem}");
    }
}

/// A double-quoted YAML scalar.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() || !c.is_ascii() => {
                quoted.push_str(&format!("\\U{:08X}", u32::from(c)));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
