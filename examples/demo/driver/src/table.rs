//! What is left to read in the end.

use crate::act::{Done, shown};
use serde_json::{Value, json};
use std::time::Duration;

/// The last lines of what a program printed are the ones that say why it ended.
const TAIL_LINES: usize = 14;
const TAIL_COLUMNS: usize = 110;

/// The acts as a table, then what was not as expected.
pub fn table(done: &[Done]) -> String {
    let mut rows = vec![
        [
            "act",
            "seconds",
            "new version after, s",
            "exit code",
            "sent",
            "failed",
            "longest gap, ms",
            "answered",
        ]
        .map(String::from),
        ["", "", "web/api/store", "want/got", "", "", "web/api/store", "by"].map(String::from),
    ];
    rows.extend(done.iter().map(row));
    let total_sent: u64 = done.iter().map(Done::sent).sum();
    let total_failed: u64 = done.iter().map(Done::failed).sum();
    let longest = done.iter().filter_map(Done::longest_gap).max();
    rows.push([
        "all".into(),
        seconds(done.iter().map(|act| act.took).sum()),
        String::new(),
        String::new(),
        total_sent.to_string(),
        total_failed.to_string(),
        longest.map_or("-".into(), |gap| gap.as_millis().to_string()),
        String::new(),
    ]);
    let mut text = aligned(&rows);
    for act in done.iter().filter(|act| !act.problems.is_empty()) {
        text.push_str(&format!("\n✗ {}: {}", act.title, act.problems.join("; ")));
        let kinds: Vec<_> = act.failures().iter().map(|(k, n)| format!("{k} {n}")).collect();
        if !kinds.is_empty() {
            text.push_str(&format!(" ({})", kinds.join(", ")));
        }
    }
    text
}

fn row(act: &Done) -> [String; 8] {
    let loaded = !act.reports.is_empty();
    let number = |value: u64| if loaded { value.to_string() } else { "-".into() };
    let list = |words: Vec<String>| if loaded { words.join("/") } else { "-".into() };
    [
        act.title.into(),
        seconds(act.took),
        answers(act),
        format!("{}/{}", act.expected_exit, shown(act.exit)),
        number(act.sent()),
        number(act.failed()),
        list(act.gaps().iter().map(|gap| gap.as_millis().to_string()).collect()),
        list(act.versions().iter().map(|version| version.to_string()).collect()),
    ]
}

fn answers(act: &Done) -> String {
    let one = |after: &Option<Duration>| {
        after.map_or("-".into(), |after| format!("{:.2}", after.as_secs_f64()))
    };
    let all: Vec<_> = act.answered_after.iter().map(one).collect();
    if all.is_empty() { "-".into() } else { all.join("/") }
}

fn seconds(value: Duration) -> String {
    format!("{:.1}", value.as_secs_f64())
}

/// The first and the last column to the left, the others to the right.
fn aligned(rows: &[[String; 8]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: [usize; 8] = std::array::from_fn(|column| width(column).unwrap_or(0));
    let line = |row: &[String; 8]| {
        let cells =
            row.iter().zip(widths).enumerate().map(|(column, (cell, width))| match column {
                0 | 7 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The last lines of what a program printed, indented.
pub fn tail(output: &str) -> String {
    let lines: Vec<_> = output.lines().filter(|line| !line.trim().is_empty()).collect();
    let skipped = lines.len().saturating_sub(TAIL_LINES);
    let cut = |line: &&str| {
        let short: String = line.chars().take(TAIL_COLUMNS).collect();
        format!("    {short}{}", if short.len() < line.len() { "…" } else { "" })
    };
    let head = (skipped > 0).then(|| format!("    … {skipped} lines before"));
    head.into_iter().chain(lines[skipped..].iter().map(cut)).collect::<Vec<_>>().join("\n")
}

/// The acts as one JSON object.
pub fn to_json(done: &[Done]) -> Value {
    let acts: Vec<_> = done
        .iter()
        .map(|act| {
            let ms = |after: &Option<Duration>| after.map(|after| after.as_millis() as u64);
            let answered_after_ms: Vec<_> = act.answered_after.iter().map(ms).collect();
            json!({
                "act": act.title,
                "took_ms": act.took.as_millis() as u64,
                "answered_after_ms": answered_after_ms,
                "expected_exit": act.expected_exit,
                "exit": act.exit,
                "sent": act.sent(),
                "failed": act.failed(),
                "failures": act.failures(),
                "max_gap_ms": act.longest_gap().map(|gap| gap.as_millis() as u64),
                "versions": act.versions(),
                "problems": act.problems,
                "services": act.reports.iter().map(|report| report.to_json()).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({ "version": 1, "acts": acts })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn act() -> Done {
        Done {
            title: "deploy v1",
            expected_exit: 0,
            exit: None,
            took: Duration::from_millis(1234),
            answered_after: vec![Some(Duration::from_millis(987)), None],
            reports: Vec::new(),
            problems: vec!["exit code -, not 0".into()],
            output: String::new(),
        }
    }

    #[test]
    fn an_act_without_load_has_dashes_and_its_problem_below() {
        let text = table(&[act()]);
        let lines: Vec<_> = text.lines().collect();
        let words: Vec<_> = lines[2].split_whitespace().collect();
        assert_eq!(words, ["deploy", "v1", "1.2", "0.99/-", "0/-", "-", "-", "-", "-"]);
        assert_eq!(lines.last(), Some(&"✗ deploy v1: exit code -, not 0"));
    }

    #[test]
    fn the_tail_keeps_the_end_of_a_long_output() {
        let output: String = (1..=20).map(|line| format!("line {line}\n\n")).collect();
        let text = tail(&output);
        assert!(text.starts_with("    … 6 lines before\n    line 7\n"), "{text}");
        assert!(text.ends_with("line 20"), "{text}");
        assert_eq!(tail(&"x".repeat(200)).chars().count(), 4 + TAIL_COLUMNS + 1);
    }
}
