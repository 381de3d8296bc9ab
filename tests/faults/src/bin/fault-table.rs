//! Prints what the fault suite saw as a table, and writes it into the documentation where `UPDATE`
//! is set.

use std::path::Path;
use std::process::ExitCode;

use shiplap_faults::{read_all, table};

/// What comes before the table.
const BEFORE: &str = "\
# Faults, and what became of them

Written by `make test-faults UPDATE=1`, from what the suite in `tests/faults` saw: the real program,
on a real engine, with requests being sent to the published ports meanwhile. A *crash point* is a
place at which the program was killed with `kill -9`; another fault is something else that was
broken. After each, every container, network, name holder, route, lease and line of history is
looked at: what should not be there is a leak.

";

fn main() -> ExitCode {
    let seen = match read_all() {
        Ok(seen) => seen,
        Err(error) => {
            eprintln!("error: no observations: {error}; `make test-faults` makes them");
            return ExitCode::FAILURE;
        }
    };
    let table = table(&seen);
    print!("{table}");
    if std::env::var_os("UPDATE").is_some_and(|update| !update.is_empty()) {
        let page = Path::new("docs/faults.md");
        if let Err(error) = std::fs::write(page, format!("{BEFORE}{table}")) {
            eprintln!("error: {}: {error}", page.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
