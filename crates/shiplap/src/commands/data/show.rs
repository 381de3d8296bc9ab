//! What `data` prints.

use std::io::IsTerminal as _;
use std::sync::Mutex;
use std::time::Instant;

use serde_json::json;
use shiplap_data::app::{Event, Listener, Plan, Problem, Report, TablePlan};

use crate::commands::Format;
use crate::exit::Exit;

/// Missing files that are named; the JSON has more.
const MISSING_SHOWN: usize = 10;
/// What nobody decided about, or what is too much, is refused with this code.
const REFUSED: Exit = Exit::Of(3);

/// Shows how a run goes: on standard error, one line for each part, or one JSON document a line.
pub struct Progress {
    format: Format,
    terminal: bool,
    begun: Instant,
    /// Bytes and rows so far.
    copied: Mutex<(u64, u64)>,
}

impl Progress {
    pub fn new(format: Format) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { format, terminal, begun: Instant::now(), copied: Mutex::new((0, 0)) }
    }

    fn document(&self, event: &Event) -> serde_json::Value {
        let at_ms = self.begun.elapsed().as_millis() as u64;
        match event {
            Event::Begins(stage) => {
                json!({ "version": 1, "at_ms": at_ms, "event": "begins", "stage": stage.words() })
            }
            Event::Copied { table, rows, bytes, done, of } => json!({
                "version": 1, "at_ms": at_ms, "event": "copied", "table": table, "rows": rows,
                "bytes": bytes, "done": done, "of": of,
            }),
            Event::Note(note) => {
                json!({ "version": 1, "at_ms": at_ms, "event": "note", "note": note })
            }
        }
    }

    fn line(&self, event: &Event) -> String {
        let seconds = self.begun.elapsed().as_secs_f64();
        match event {
            Event::Begins(stage) => format!("{seconds:6.1} s  {}", stage.words()),
            Event::Copied { table, rows, bytes, done, of } => {
                let mut copied = self.copied.lock().expect("nobody panics while holding it");
                copied.0 += bytes;
                copied.1 += rows;
                let total = size(copied.0);
                format!("{seconds:6.1} s    {table}: {rows} rows ({done} of {of} tables, {total})")
            }
            Event::Note(note) => format!("{seconds:6.1} s  note: {note}"),
        }
    }
}

impl Listener for Progress {
    fn tell(&self, event: Event) {
        match self.format {
            Format::Json => eprintln!("{}", self.document(&event)),
            // Tables come and go on one line of a terminal.
            Format::Text if self.terminal && matches!(event, Event::Copied { .. }) => {
                eprint!("\r\x1b[K{}", self.line(&event));
            }
            Format::Text if self.terminal => eprintln!("\r\x1b[K{}", self.line(&event)),
            Format::Text => eprintln!("{}", self.line(&event)),
        }
    }
}

/// `1.9 GB`
fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.0} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

pub fn plan(plan: &Plan, format: Format) {
    if format == Format::Json {
        let mut document = json!(plan);
        document["version"] = 1.into();
        println!("{document:#}");
        return;
    }
    print!("{}", text(plan));
}

/// Tables, what grows, what is wrong.
fn text(plan: &Plan) -> String {
    let width = plan.tables.iter().map(|table| table.table.len()).max().unwrap_or(0);
    let head = ("mode", "source", "core", "extra", "size");
    let row = |name: &str, (mode, source, core, extra, size): (&str, &str, &str, &str, &str)| {
        format!("{name:width$}  {mode:7}  {source:>10} {core:>9} {extra:>9} {size:>9}\n")
    };
    let mut text = row("table", head);
    for table in &plan.tables {
        let numbers = [table.source_rows, table.core_rows, table.extra_rows].map(|n| n.to_string());
        let [source, core, extra] = &numbers;
        text += &row(&table.table, (table.mode, source, core, extra, &size(table.bytes)));
    }
    let rows: u64 = plan.tables.iter().map(TablePlan::rows).sum();
    let bytes: u64 = plan.tables.iter().map(|table| table.bytes).sum();
    text += &format!("\n{rows} rows, about {} without indexes\n", size(bytes));
    let mut growing: Vec<_> = plan.edges.iter().filter(|edge| edge.growth > 0).collect();
    growing.sort_by_key(|edge| std::cmp::Reverse(edge.growth));
    if !growing.is_empty() {
        text += "\nextra rows, by the reference that brings them first\n";
    }
    for edge in growing {
        let (reference, to, policy) = (&edge.reference, &edge.to, edge.policy.word());
        text += &format!("{:>10}  {reference} -> {to} ({policy})\n", edge.growth);
    }
    for edge in plan.edges.iter().filter(|edge| edge.orphans > 0) {
        let (orphans, reference, to) = (edge.orphans, &edge.reference, &edge.to);
        text += &format!("\n! {orphans} keys of {reference} lead to no row of {to}\n");
    }
    for passed in &plan.passed {
        text += &format!("\n! more than is allowed: {passed}\n");
    }
    if !plan.unclassified.is_empty() {
        let count = plan.unclassified.len();
        text += &format!("\n! {count} columns look personal and have no rule:\n");
    }
    for (column, why) in &plan.unclassified {
        text += &format!("    {column}: {why}\n");
    }
    text
}

pub fn report(report: &Report, format: Format) {
    if format == Format::Json {
        let mut document = json!(report);
        document["version"] = 1.into();
        println!("{document:#}");
        return;
    }
    println!("{} rows, {}, in {} tables", report.rows, size(report.bytes), report.tables.len());
    for table in report.tables.iter().filter(|table| table.emptied + table.dropped > 0) {
        println!(
            "  {}: {} references emptied, {} rows left out",
            table.table, table.emptied, table.dropped
        );
    }
    for files in &report.files {
        println!(
            "  {}: {} files copied ({}), {} were there, {} missing, {} removed",
            files.to,
            files.copied,
            size(files.bytes),
            files.unchanged,
            files.missing,
            files.removed
        );
        for path in files.missing_paths.iter().take(MISSING_SHOWN) {
            println!("    missing: {path}");
        }
    }
}

pub fn refuse(problem: &Problem) -> Exit {
    match problem {
        Problem::Configuration(diagnostics) => {
            for diagnostic in diagnostics {
                eprintln!("{}", diagnostic.in_file("", ""));
            }
            Exit::Failed
        }
        Problem::Unclassified { columns, block } => {
            let count = columns.len();
            eprintln!(
                "refused[data/unclassified]: {count} columns look personal or secret, and no rule \
                 says what becomes of them; nothing was copied"
            );
            for column in columns {
                eprintln!("  {}: {}", column.column, column.finding.why);
            }
            eprintln!("  = help: look at each, and paste this into the configuration:\n");
            // Data, so that it can be redirected.
            print!("{block}");
            REFUSED
        }
        Problem::Changed { tables, block } => {
            let tables = tables.join(", ");
            eprintln!(
                "refused[data/changed]: columns of {tables} are not what they were when somebody \
                 looked at them; nothing was copied"
            );
            eprintln!("  = help: look at them, and paste this into the configuration:\n");
            print!("{block}");
            REFUSED
        }
        Problem::Limits(passed) => {
            for passed in passed {
                eprintln!("refused[data/limit]: {passed}; nothing was copied");
            }
            REFUSED
        }
        Problem::Leaks(columns) => {
            for (column, rows) in columns {
                eprintln!(
                    "refused[data/leak]: `{column}` was kept, but {rows} of its rows hold values that were \
                     masked in other columns"
                );
            }
            eprintln!(
                "  = help: mask these columns, too; the new database was dropped, the target is as it was"
            );
            REFUSED
        }
        Problem::Files(error) => {
            eprintln!("error[data/files]: {error}");
            eprintln!("  = help: the target is as it was; it is safe to try again");
            Exit::Failed
        }
        Problem::World(error) => {
            eprintln!("error[data/failed]: {error}");
            eprintln!("  = help: the target is as it was; it is safe to try again");
            Exit::Failed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shiplap_data::app::EdgePlan;
    use shiplap_data::config::Policy;

    #[test]
    fn a_plan_shows_what_comes_and_why() {
        let table = |table: &str, mode, core_rows, extra_rows| TablePlan {
            table: table.into(),
            mode,
            source_rows: 1000,
            core_rows,
            extra_rows,
            bytes: 1_900_000,
        };
        let plan = Plan {
            tables: vec![table("posts", "reached", 610, 12), table("users", "root", 100, 0)],
            edges: vec![EdgePlan {
                reference: "posts.remix_of".into(),
                to: "posts".into(),
                policy: Policy::Pull,
                growth: 12,
                orphans: 0,
            }],
            passed: vec!["722 rows, where `max.rows` is 700".into()],
            unclassified: vec![("users.email".into(), "by its name".into())],
        };
        let expected = "\
table  mode         source      core     extra      size
posts  reached        1000       610        12    1.9 MB
users  root           1000       100         0    1.9 MB

722 rows, about 3.8 MB without indexes

extra rows, by the reference that brings them first
        12  posts.remix_of -> posts (pull)

! more than is allowed: 722 rows, where `max.rows` is 700

! 1 columns look personal and have no rule:
    users.email: by its name
";
        assert_eq!(text(&plan), expected);
    }
}
