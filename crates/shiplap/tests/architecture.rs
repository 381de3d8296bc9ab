//! ARCHITECTURE.md says which crate may depend on which; the manifests must agree.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Heading of the table's first column.
const FIRST_COLUMN: &str = "| crate |";
/// Prefix of the names of the workspace's own crates.
const OWN: &str = "shiplap-";

/// What a crate may depend on.
#[derive(Default)]
struct Allowed {
    always: BTreeSet<String>,
    in_tests: BTreeSet<String>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The rows of the table, in order: crate, allowed dependencies, further ones in tests.
fn table() -> Vec<(String, Allowed)> {
    let text = read(&root().join("ARCHITECTURE.md"));
    let mut lines = text.lines().skip_while(|line| !line.starts_with(FIRST_COLUMN)).skip(2);
    let mut rows = Vec::new();
    for line in lines.by_ref().take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, always, in_tests, ..] = cells[..] else { panic!("too few cells: {line}") };
        let allowed = Allowed { always: names(always), in_tests: names(in_tests) };
        rows.push((unquoted(name).to_owned(), allowed));
    }
    assert!(!rows.is_empty(), "ARCHITECTURE.md has no table that begins with `{FIRST_COLUMN}`");
    rows
}

/// `compose`, `model` in a cell; `—` for none.
fn names(cell: &str) -> BTreeSet<String> {
    if cell == "—" {
        return BTreeSet::new();
    }
    cell.split(',').map(|name| unquoted(name.trim()).to_owned()).collect()
}

fn unquoted(name: &str) -> &str {
    name.strip_prefix('`')
        .and_then(|rest| rest.strip_suffix('`'))
        .unwrap_or_else(|| panic!("not a name in backticks: {name}"))
}

/// The folders under `crates/`, with the text of their manifests.
fn manifests() -> BTreeMap<String, String> {
    let folders = fs::read_dir(root().join("crates")).expect("the workspace has crates");
    folders
        .map(|folder| folder.expect("a folder can be listed").path())
        .filter(|folder| folder.join("Cargo.toml").exists())
        .map(|folder| {
            let name = folder.file_name().expect("has a name").to_string_lossy().into_owned();
            (name, read(&folder.join("Cargo.toml")))
        })
        .collect()
}

/// The workspace's own crates that a manifest names, and whether only for tests.
fn dependencies(manifest: &str) -> Vec<(String, IsForTests)> {
    let mut found = Vec::new();
    let mut section = None;
    for line in manifest.lines().map(str::trim) {
        if let Some(heading) = line.strip_prefix('[') {
            section = kind(heading);
        }
        let Some(is_for_tests) = section else { continue };
        if let Some(at) = line.find(OWN) {
            let rest = &line[at + OWN.len()..];
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '-');
            found.push((rest[..end.unwrap_or(rest.len())].to_owned(), is_for_tests));
        }
    }
    found
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum IsForTests {
    No,
    Yes,
}

/// What a section's heading means: `dependencies]`, `target.'…'.dependencies.shiplap-model]`.
fn kind(heading: &str) -> Option<IsForTests> {
    if heading.contains("dev-dependencies") {
        Some(IsForTests::Yes)
    } else if heading.contains("dependencies") {
        Some(IsForTests::No)
    } else {
        None
    }
}

#[test]
fn crates_depend_on_each_other_only_as_the_architecture_allows() {
    let table: BTreeMap<String, Allowed> = table().into_iter().collect();
    let mut wrong = Vec::new();
    for (name, manifest) in manifests() {
        let Some(allowed) = table.get(&name) else {
            wrong.push(format!("crates/{name} has no row in the table of ARCHITECTURE.md"));
            continue;
        };
        for (dependency, is_for_tests) in dependencies(&manifest) {
            let is_allowed = allowed.always.contains(&dependency)
                || (is_for_tests == IsForTests::Yes && allowed.in_tests.contains(&dependency));
            if !is_allowed {
                wrong.push(format!("crates/{name} must not depend on crates/{dependency}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_names_only_crates_that_exist_and_those_above() {
    let manifests = manifests();
    let mut above: BTreeSet<String> = BTreeSet::new();
    for (name, allowed) in table() {
        assert!(manifests.contains_key(&name), "the table names `{name}`, which does not exist");
        for dependency in &allowed.always {
            assert!(above.contains(dependency), "`{dependency}` must stand above `{name}`");
        }
        above.insert(name);
    }
}

#[test]
fn dependencies_are_found_in_any_notation() {
    let manifest = "[package]\nname = \"shiplap-x\"\n[dependencies]\nserde.workspace = true\n\
        shiplap-model.workspace = true\nm = { package = \"shiplap-plan\" }\n\
        [dependencies.shiplap-edge]\n[dev-dependencies]\nshiplap-testkit = { path = \"..\" }\n";
    let found = dependencies(manifest);
    let expected = [
        ("model", IsForTests::No),
        ("plan", IsForTests::No),
        ("edge", IsForTests::No),
        ("testkit", IsForTests::Yes),
    ];
    assert_eq!(found, expected.map(|(name, tests)| (name.to_owned(), tests)));
}
