//! What is said of secrets. Never a value.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use shiplap_model::Scope;
use shiplap_secrets::{Entry, Name, Origin, Version, Written};

use super::Format;
use crate::output::table::columns;
use crate::output::time;

/// What was set.
pub fn written(scope: &Scope, written: &[(Name, Written)], format: Format) {
    let number = |written: &Written| match written {
        Written::New(number) | Written::Same(number) => *number,
    };
    match format {
        Format::Json => {
            let secret = |(name, written): &(Name, Written)| {
                json!({
                    "name": name.as_str(),
                    "version": number(written),
                    "new": matches!(written, Written::New(_)),
                })
            };
            let secrets: Vec<Value> = written.iter().map(secret).collect();
            println!("{:#}", document(scope, secrets));
        }
        Format::Text => {
            for (name, written) in written {
                match written {
                    Written::New(number) => println!("{name} is now version {number}"),
                    Written::Same(number) => println!("{name} is version {number}, as before"),
                }
            }
        }
    }
    if written.iter().any(|(_, written)| matches!(written, Written::New(2..))) {
        eprintln!("what runs keeps its version until `shiplap deploy`");
    }
}

/// What was removed.
pub fn removed(scope: &Scope, name: &Name, format: Format) {
    match format {
        Format::Json => {
            let secret = json!({ "name": name.as_str(), "removed": true });
            println!("{:#}", document(scope, vec![secret]));
        }
        Format::Text => println!("{name} is out of use; its versions stay, for rollbacks"),
    }
}

fn document(scope: &Scope, secrets: Vec<Value>) -> Value {
    json!({
        "version": 1,
        "project": scope.project,
        "environment": scope.environment,
        "secrets": secrets,
    })
}

/// The secrets of an environment, and which versions run.
pub struct List<'a> {
    pub scope: &'a Scope,
    pub entries: &'a [Entry],
    pub running: &'a BTreeMap<String, u32>,
}

impl List<'_> {
    fn running(&self, entry: &Entry) -> Option<u32> {
        self.running.get(entry.name.as_str()).copied()
    }

    /// For a person.
    pub fn text(&self, all: bool) -> String {
        let shown = self.entries.iter().filter(|entry| all || entry.removed_ms.is_none());
        let mut rows: Vec<Vec<String>> = Vec::new();
        for entry in shown {
            let newest = entry.newest().number;
            for version in entry.versions.iter().rev() {
                if all || version.number == newest {
                    rows.push(self.row(entry, version, all));
                }
            }
        }
        if rows.is_empty() {
            format!("{} has no secrets yet\n", self.scope)
        } else {
            columns(&rows)
        }
    }

    fn row(&self, entry: &Entry, version: &Version, all: bool) -> Vec<String> {
        let newest = entry.newest().number;
        let running = self.running(entry);
        let mut notes: Vec<String> = Vec::new();
        match running {
            Some(number) if number == version.number => notes.push("runs".to_owned()),
            Some(number) if !all => notes.push(format!("version {number} runs: not deployed yet")),
            Some(_) | None => {}
        }
        if let (Some(removed), true) = (entry.removed_ms, version.number == newest) {
            notes.push(format!("removed {}", time::moment(removed)));
        }
        vec![
            entry.name.to_string(),
            format!("version {}", version.number),
            time::moment(version.set_ms),
            origin(version.origin).to_owned(),
            notes.join(", "),
        ]
    }

    /// For a program.
    pub fn json(&self, all: bool) -> Value {
        let version = |version: &Version| {
            json!({
                "version": version.number,
                "set": time::stamp(version.set_ms),
                "origin": origin(version.origin),
            })
        };
        let shown = self.entries.iter().filter(|entry| all || entry.removed_ms.is_none());
        let secrets = shown.map(|entry| {
            let newest = entry.newest();
            let mut secret = version(newest);
            secret["name"] = entry.name.as_str().into();
            secret["running"] = self.running(entry).into();
            secret["removed"] = entry.removed_ms.map(time::stamp).into();
            if all {
                secret["versions"] = entry.versions.iter().map(version).collect();
            }
            secret
        });
        document(self.scope, secrets.collect())
    }
}

fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Given => "given",
        Origin::Generated => "generated",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, numbers: &[u32], removed_ms: Option<i64>) -> Entry {
        let version = |number: &u32| Version {
            number: *number,
            set_ms: i64::from(*number) * 1000,
            origin: if *number == 1 { Origin::Generated } else { Origin::Given },
        };
        let versions = numbers.iter().map(version).collect();
        Entry { name: name.parse().unwrap(), versions, removed_ms }
    }

    #[test]
    fn a_list_marks_what_runs_in_another_version() {
        let scope = Scope { project: "shop".into(), environment: "prod".into() };
        let entries = [
            entry("CURRENT", &[1, 2], None),
            entry("GONE", &[1], Some(9000)),
            entry("NEW", &[1], None),
            entry("OLD", &[1, 3], None),
        ];
        let running =
            BTreeMap::from([("CURRENT".into(), 2), ("OLD".into(), 1), ("GONE".into(), 1)]);
        let list = List { scope: &scope, entries: &entries, running: &running };
        let words = |text: String| -> Vec<String> {
            let words = text.lines().map(|line| {
                let cells = line.split("  ").map(str::trim).filter(|cell| !cell.is_empty());
                cells.filter(|cell| !cell.starts_with("19")).collect::<Vec<_>>().join("|")
            });
            words.collect()
        };
        assert_eq!(
            words(list.text(false)),
            [
                "CURRENT|version 2|given|runs",
                "NEW|version 1|generated",
                "OLD|version 3|given|version 1 runs: not deployed yet",
            ]
        );
        let all = words(list.text(true));
        assert_eq!(all.len(), 6);
        assert!(all[2].starts_with("GONE|version 1|generated|runs, removed"), "{}", all[2]);
        assert_eq!(all[5], "OLD|version 1|generated|runs");

        let json = list.json(false);
        assert_eq!((&json["version"], json["secrets"].as_array().unwrap().len()), (&json!(1), 3));
        assert_eq!(
            json["secrets"][2],
            json!({"name": "OLD", "version": 3, "set": "1970-01-01T00:00:03Z", "origin": "given",
                "running": 1, "removed": null})
        );
        assert_eq!(list.json(true)["secrets"][3]["versions"][0]["origin"], "generated");
    }
}
