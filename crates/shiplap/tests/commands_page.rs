//! `docs/commands.md` shows what the commands print: their help, word for word.

use std::path::Path;
use std::process::Command;

/// Where a page's block of help begins, and how it ends.
const BEGIN: &str = "```text\n";
const END: &str = "\n```";

/// The words of a command, from the line that says how it is used.
fn words(help: &str) -> Option<Vec<&str>> {
    let usage = help.lines().find_map(|line| line.strip_prefix("Usage: shiplap"))?;
    Some(usage.split_whitespace().take_while(|word| !word.starts_with(['[', '<'])).collect())
}

fn help(words: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shiplap"));
    let output = command.args(words).arg("--help").env_clear().output().expect("it runs");
    let text = String::from_utf8(output.stdout).expect("help is UTF-8");
    let lines: Vec<&str> = text.trim_end().lines().map(str::trim_end).collect();
    lines.join("\n")
}

/// `UPDATE_EXPECT=1` writes the page anew.
#[test]
fn the_page_shows_the_help_of_each_command_as_it_is() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/commands.md");
    let page = std::fs::read_to_string(&path).expect("the page is there");
    let mut new = String::new();
    let mut shown = Vec::new();
    let mut rest = page.as_str();
    while let Some(begin) = rest.find(BEGIN) {
        let (before, from) = rest.split_at(begin + BEGIN.len());
        let end = from.find(END).expect("a block ends");
        let (block, after) = from.split_at(end);
        new.push_str(before);
        match words(block) {
            Some(words) => {
                new.push_str(&help(&words));
                shown.push(words.join(" "));
            }
            None => new.push_str(block),
        }
        rest = after;
    }
    new.push_str(rest);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, &new).expect("the page can be written");
    } else if new != page {
        let line = new.lines().zip(page.lines()).position(|(new, old)| new != old).unwrap_or(0);
        panic!("line {} of the page is not what is printed; UPDATE_EXPECT=1 mends it", line + 1);
    }
    // Every command that is not hidden has its block.
    let top = help(&[]);
    let commands = top.lines().skip_while(|line| *line != "Commands:").skip(1);
    for command in commands.take_while(|line| !line.is_empty()) {
        let name = command.split_whitespace().next().expect("a name");
        let has_block = shown.iter().any(|words| words.split(' ').next() == Some(name));
        assert!(has_block || name == "help", "`{name}` has no block in the page");
    }
}
