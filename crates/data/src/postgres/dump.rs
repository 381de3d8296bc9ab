//! The schema's definition, by PostgreSQL's own `pg_dump` and `pg_restore`.
//!
//! Writing down every kind of object of every version is not this product's core, and those who
//! do it for the server do it right. So both programs must be at hand, of the source's version or
//! newer; the archive that they exchange holds no rows.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use super::error::{Doing, Error};
use super::server::Server;
use super::source::Source;

/// Where Debian keeps the programs of each version, besides the one on the `PATH`.
const DEBIAN: &str = "/usr/lib/postgresql";
/// Names the folder of the programs, where they are elsewhere.
const PROGRAMS_VARIABLE: &str = "SHIPLAP_POSTGRES_BIN";
/// How much of what a program says is shown.
const SHOWN: usize = 2_000;

/// Objects that must not come along: they would act by themselves, or need a superuser.
const LEFT_OUT: [&str; 4] =
    ["EVENT TRIGGER ", "PUBLICATION ", "SUBSCRIPTION ", "COMMENT - EXTENSION "];

/// A schema's definition.
pub(super) struct Definition {
    programs: PathBuf,
    folder: TempDir,
}

/// Which part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    /// Types, functions, tables.
    PreData,
    /// Indexes, constraints, triggers.
    PostData,
}

impl Definition {
    /// Reads it, as of the source's snapshot.
    pub async fn of(source: &Source) -> Result<Self, Error> {
        let major = source.version() / 10_000;
        let programs = programs(major)?;
        let folder =
            TempDir::with_prefix("shiplap-data-").doing(|| "making a folder".to_owned())?;
        let definition = Self { programs, folder };
        let mut dump = definition.command("pg_dump");
        dump.args(["--format=custom", "--schema-only", "--no-owner", "--no-privileges"])
            .args(["--no-publications", "--no-subscriptions", "--no-security-labels"])
            .args(["--lock-wait-timeout=5s", "--no-password"])
            .arg(format!("--snapshot={}", source.snapshot()))
            .arg("--file")
            .arg(definition.archive());
        source.server().tell(&mut dump);
        run(dump, "reading the definition of the source").await?;
        definition.list().await?;
        Ok(definition)
    }

    fn archive(&self) -> PathBuf {
        self.folder.path().join("schema.dump")
    }

    fn contents(&self) -> PathBuf {
        self.folder.path().join("contents.list")
    }

    fn command(&self, program: &str) -> Command {
        Command::new(self.programs.join(program))
    }

    /// Writes the table of contents, without what is left out.
    async fn list(&self) -> Result<(), Error> {
        let mut list = self.command("pg_restore");
        list.arg("--list").arg(self.archive());
        let output = run(list, "reading the archive's contents").await?;
        let text = String::from_utf8_lossy(&output.stdout);
        let kept: Vec<&str> = text.lines().filter(|line| comes(line)).collect();
        std::fs::write(self.contents(), kept.join("\n"))
            .doing(|| "writing the archive's contents".to_owned())
    }

    /// Makes its objects in a database.
    pub async fn make(&self, section: Section, target: &Server, jobs: usize) -> Result<(), Error> {
        let (name, doing) = match section {
            Section::PreData => ("--section=pre-data", "making the tables"),
            Section::PostData => ("--section=post-data", "making indexes and checking all keys"),
        };
        let mut restore = self.command("pg_restore");
        restore
            .args([name, "--exit-on-error", "--no-owner", "--no-privileges", "--no-password"])
            .arg("--use-list")
            .arg(self.contents())
            .arg(format!("--dbname=dbname={}", conninfo(target.database())));
        match section {
            // One after the other, and all or nothing.
            Section::PreData => restore.arg("--single-transaction"),
            Section::PostData => restore.arg(format!("--jobs={jobs}")),
        };
        restore.arg(self.archive());
        target.tell(&mut restore);
        run(restore, doing).await.map(|_| ())
    }
}

/// Whether a line of the contents comes: `215; 1259 16385 TABLE public users owner`. Names are
/// anything that people think of, so only what stands before them counts.
fn comes(line: &str) -> bool {
    let mut rest = line;
    for _ in 0..3 {
        let (number, after) = rest.split_once(' ').unwrap_or((rest, ""));
        if !number.trim_end_matches(';').bytes().all(|c| c.is_ascii_digit()) {
            return true;
        }
        rest = after;
    }
    !LEFT_OUT.iter().any(|kind| rest.starts_with(kind))
}

/// A value in a connection string.
fn conninfo(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// The folder with programs of this version, or the next newer.
fn programs(major: i32) -> Result<PathBuf, Error> {
    let given = std::env::var_os(PROGRAMS_VARIABLE).map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = given.into_iter().collect();
    if folders.is_empty() {
        let mut debian: Vec<PathBuf> = std::fs::read_dir(DEBIAN)
            .map(|entries| entries.flatten().map(|entry| entry.path().join("bin")).collect())
            .unwrap_or_default();
        debian.sort();
        // Debian's own `pg_dump` on the PATH is a wrapper that starts Perl; the real ones first.
        folders.extend(debian);
        folders.extend(std::env::split_paths(&path));
    }
    let fits = |folder: &PathBuf| version(folder).filter(|version| *version >= major);
    let found = folders.into_iter().filter_map(|folder| Some((fits(&folder)?, folder))).min();
    found.map(|(_, folder)| folder).ok_or_else(|| {
        let cause = format!(
            "no pg_dump of PostgreSQL {major} or newer was found; install postgresql-client, or \
             name its folder in {PROGRAMS_VARIABLE}"
        );
        Error::said("looking for PostgreSQL's programs", cause)
    })
}

/// The major version of the programs in a folder.
fn version(folder: &Path) -> Option<i32> {
    let program = folder.join("pg_dump");
    if !program.is_file() || !folder.join("pg_restore").is_file() {
        return None;
    }
    let output = Command::new(program).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    // `pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`
    let number =
        text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    number?.split('.').next()?.parse().ok()
}

async fn run(command: Command, doing: &str) -> Result<Output, Error> {
    let mut command = tokio::process::Command::from(command);
    command.stdin(Stdio::null()).kill_on_drop(true).env("LC_ALL", "C");
    let output = command.output().await.doing(|| doing.to_owned())?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: String = said.trim().chars().take(SHOWN).collect();
    Err(Error::said(doing, said))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_by_itself_does_not_come_whatever_tables_are_called() {
        assert!(!comes("3505; 6104 16438 PUBLICATION - everything postgres"));
        assert!(!comes("3506; 3466 16440 EVENT TRIGGER - notice postgres"));
        assert!(!comes("3507; 0 0 COMMENT - EXTENSION citext "));
        assert!(comes("215; 1259 16385 TABLE public a PUBLICATION postgres"));
        assert!(comes("3508; 0 0 COMMENT public TABLE \"EVENT TRIGGER \" postgres"));
        assert!(comes(";     Format: CUSTOM") && comes(""));
    }

    #[test]
    fn a_database_may_have_any_name() {
        assert_eq!(conninfo("a b'c\\d host=x"), r"'a b\'c\\d host=x'");
    }
}
