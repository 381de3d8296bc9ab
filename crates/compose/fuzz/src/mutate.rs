//! Changes the corpus by chance, the same chance for the same seed, and checks each result.
//!
//! ```text
//! cargo run --release -- SECONDS [TARGET] [SEED]
//! ```
//!
//! With `all`, or without a target, each gets a third of the time. An input that breaks a promise is written to
//! `found/`, and the run goes on; it ends with 1 if there was one.

#![forbid(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

type Check = fn(&[u8]);

const TARGETS: [(&str, Check); 3] = [
    ("load", shiplap_compose_fuzz::load),
    ("interpolation", shiplap_compose_fuzz::interpolation),
    ("dotenv", shiplap_compose_fuzz::dotenv),
];
/// Larger ones are cut: small inputs are tried more often.
const LONGEST_INPUT: usize = 16 << 10;
/// How many different findings of a target are kept.
const MOST_FINDINGS: usize = 50;
/// Words that mean something to one of the parsers.
const WORDS: &[&str] = &[
    "services:",
    "image: ",
    "build: ",
    "extends: ",
    "include:",
    "<<: *a",
    "&a ",
    "*a",
    "!reset ",
    "!override ",
    "!!str ",
    "!!int ",
    "- ",
    ": ",
    "? ",
    "| ",
    ">-\n",
    "---\n",
    "...\n",
    "%YAML 1.2\n",
    "{",
    "}",
    "[",
    "]",
    "#",
    "'",
    "\"",
    "\\",
    "\t",
    "\r\n",
    "\u{feff}",
    "\0",
    "null",
    "~",
    "true",
    "0x10",
    "0o17",
    "1e999",
    "-1",
    "18446744073709551616",
    "2024-01-02",
    ".nan",
    "${",
    "}",
    "$$",
    "${A:-",
    "${A:?",
    "${A:+",
    "${A?",
    "$A",
    "${",
    "export ",
    "A=",
    "=",
    "ports:",
    "80-90:80-90",
    "127.0.0.1::80/udp",
    "volumes:",
    "./a:/b:ro",
    "networks:",
    "default",
    "depends_on:",
    "condition: service_healthy",
    "healthcheck:",
    "1m30s",
    "10gb",
    "deploy:",
    "replicas: 2",
    "secrets:",
    "configs:",
    "external: true",
    "x-a: ",
    "profiles:",
    "env_file:",
    "required: false",
    "network_mode: service:web",
    "links:",
    "volumes_from:",
    "develop:",
    "gpus: all",
    "ulimits:",
    "name: ",
    "--- .env\n",
    "--- other.yaml\n",
    "file: other.yaml",
    "service: web",
    "file: compose.yaml",
    "COMPOSE_FILE=",
    "COMPOSE_PROFILES=",
    "é",
    "\u{2028}",
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: u64| match arguments.get(at) {
        Some(text) => text.parse().ok(),
        None => Some(default),
    };
    let wanted = arguments.get(1).map(String::as_str);
    let targets: Vec<_> = TARGETS
        .into_iter()
        .filter(|(name, _)| wanted.is_none_or(|wanted| wanted == "all" || wanted == *name))
        .collect();
    let (Some(seconds), Some(seed), false) = (number(0, 60), number(2, 1), targets.is_empty())
    else {
        eprintln!("usage: mutate SECONDS [all|load|interpolation|dotenv] [SEED]");
        return ExitCode::from(2);
    };
    // One line per panic, from where it is caught.
    std::panic::set_hook(Box::new(|_| {}));
    let share = Duration::from_secs(seconds) / targets.len() as u32;
    let mut all_well = true;
    for (name, check) in targets {
        all_well &= run(name, check, share, seed);
    }
    if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Tries until the time is over; true if every promise held.
fn run(name: &str, check: Check, time: Duration, seed: u64) -> bool {
    let corpus = corpus(name);
    let mut chance = Chance(seed ^ 0x9e37_79b9_7f4a_7c15);
    let (mut executions, mut slowest) = (0u64, Duration::ZERO);
    let mut reasons: Vec<String> = Vec::new();
    let start = Instant::now();
    while start.elapsed() < time {
        // The corpus itself comes first.
        let input = match corpus.get(executions as usize) {
            Some(seed) => seed.clone(),
            None => mutant(&corpus, &mut chance),
        };
        executions += 1;
        let began = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| check(&input)));
        slowest = slowest.max(began.elapsed());
        let Err(panic) = result else { continue };
        let reason = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_default();
        let kind: String = reason.lines().next().unwrap_or_default().chars().take(60).collect();
        if reasons.contains(&kind) || reasons.len() == MOST_FINDINGS {
            continue;
        }
        let path = PathBuf::from("found").join(format!("{name}-{seed}-{executions}"));
        let _ = std::fs::create_dir_all("found");
        let _ = std::fs::write(&path, &input);
        let shown: String = reason.chars().take(2_000).collect();
        eprintln!("{name}: {}: {shown}", path.display());
        reasons.push(kind);
    }
    println!(
        "{name}: {executions} executions in {} s, seed {seed}, slowest {} ms, {} findings",
        start.elapsed().as_secs(),
        slowest.as_millis(),
        reasons.len()
    );
    reasons.is_empty()
}

/// The committed inputs; for `load` also the conformance cases.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![here.join("corpus").join(name)];
    if name == "load" {
        folders.push(here.join("../tests/cases"));
    }
    let mut paths: Vec<PathBuf> = folders
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    paths.sort();
    let inputs: Vec<Vec<u8>> =
        paths.iter().filter_map(|path| std::fs::read(path).ok()).map(without_expectation).collect();
    assert!(!inputs.is_empty(), "no corpus for {name}");
    inputs
}

fn without_expectation(mut input: Vec<u8>) -> Vec<u8> {
    const MARK: &[u8] = b"--- expect\n";
    if let Some(at) = input.windows(MARK.len()).position(|window| window == MARK) {
        input.truncate(at);
    }
    input
}

fn mutant(corpus: &[Vec<u8>], chance: &mut Chance) -> Vec<u8> {
    let mut input = corpus[chance.below(corpus.len())].clone();
    for _ in 0..=chance.below(6) {
        let at = chance.below(input.len() + 1);
        let length = 1 + chance.below(24);
        let end = (at + length).min(input.len());
        match chance.below(9) {
            0 if at < input.len() => input[at] ^= 1 << chance.below(8),
            1 => drop(input.drain(at..end)),
            2 => {
                let copy = input[at..end].to_vec();
                let place = chance.below(input.len() + 1);
                input.splice(place..place, copy);
            }
            3 | 4 => {
                let word = WORDS[chance.below(WORDS.len())];
                input.splice(at..at, word.bytes());
            }
            5 => {
                let word = WORDS[chance.below(WORDS.len())];
                input.splice(at..end, word.bytes());
            }
            6 => {
                // A piece of another input, by lines.
                let other = &corpus[chance.below(corpus.len())];
                let lines: Vec<&[u8]> = other.split_inclusive(|byte| *byte == b'\n').collect();
                if lines.is_empty() {
                    continue;
                }
                let first = chance.below(lines.len());
                let last = (first + 1 + chance.below(8)).min(lines.len());
                let place = line_start(&input, at);
                input.splice(place..place, lines[first..last].concat());
            }
            7 => {
                // A line moves in or out.
                let place = line_start(&input, at);
                if chance.below(2) == 0 {
                    input.splice(place..place, *b"  ");
                } else if input[place..].starts_with(b"  ") {
                    input.drain(place..place + 2);
                }
            }
            _ => {
                // A line goes, or is there many times.
                let place = line_start(&input, at);
                let end = input[place..].iter().position(|byte| *byte == b'\n');
                let end = end.map_or(input.len(), |length| place + length + 1);
                let line = input[place..end].to_vec();
                let copies = line.repeat([0, 2, 2, 50][chance.below(4)]);
                input.splice(place..end, copies);
            }
        }
    }
    input.truncate(LONGEST_INPUT);
    input
}

fn line_start(input: &[u8], at: usize) -> usize {
    input[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1)
}

/// xorshift64*: the same numbers on every machine.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}
