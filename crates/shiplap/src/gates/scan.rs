//! A scanner that the operator has chosen: run, read, and remembered for a while.
//!
//! What it wrote is kept in the state folder under the image that it is about, so that any release
//! with that image has it: `scans/<image>/<scanner>.json` is the summary, `.report.json` beside it
//! the report. The summary is written last, and is what says that there is a result.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use shiplap_config::{HookSettings, ReportSettings};
use shiplap_execute::program::{self, Printed};
use shiplap_model::{CheckedImage, ImageCheck, Tell};
use tokio::process::Command;

use super::report;

/// The longest report that is read: a large image with a few thousand findings has some megabytes.
const LONGEST: usize = 64 << 20;
/// Findings that a refusal names.
const NAMED: usize = 10;
/// The form of summaries.
const VERSION: u32 = 1;
/// The word that stands for the file of the report.
const REPORT: &str = "{report}";

/// Asks a scanner.
#[derive(Debug)]
pub struct Scanner {
    hook: HookSettings,
    rules: ReportSettings,
    folder: PathBuf,
}

impl Scanner {
    /// One that keeps what it finds in a folder.
    pub fn new(hook: HookSettings, rules: ReportSettings, folder: PathBuf) -> Self {
        Self { hook, rules, folder }
    }

    /// Where the results about an image are. The command is part of it: another scanner, or another
    /// version of it, finds something else.
    fn place(&self, image: &CheckedImage) -> PathBuf {
        let named = image.digest.as_ref().unwrap_or(&image.id);
        let name: String = named.replace(':', "-").chars().filter(|c| is_plain(*c)).collect();
        let scanner = format!("{:?} {:?}", self.hook.command, self.rules.format);
        let scanner = blake3::hash(scanner.as_bytes()).to_hex();
        self.folder.join(name).join(&scanner[..16])
    }

    /// The report from before, where it still counts.
    fn remembered(&self, place: &Path) -> Option<Vec<u8>> {
        let summary: Value =
            serde_json::from_slice(&std::fs::read(place.with_extension("json")).ok()?).ok()?;
        if summary["version"] != VERSION {
            return None;
        }
        let age = shiplap_execute::now_ms() - summary["at_ms"].as_i64()?;
        // One from the future has no age.
        let age = Duration::from_millis(u64::try_from(age).ok()?);
        if age >= self.rules.max_age {
            return None;
        }
        let report = std::fs::read(place.with_extension("report.json")).ok()?;
        let hash = blake3::hash(&report).to_hex();
        (summary["report"] == hash.as_str()).then_some(report)
    }

    async fn scan(
        &self,
        image: &CheckedImage,
        place: &Path,
        tell: &Tell,
    ) -> Result<Vec<u8>, String> {
        let parent = place.parent().expect("it is in a folder");
        let failed = |error: std::io::Error| format!("{}: {error}", parent.display());
        std::fs::create_dir_all(parent).map_err(failed)?;
        // A file of its own: what another scan writes at the same time is another one's.
        let file = place.with_extension(format!("{}.new", std::process::id()));
        let exact = image.exact();
        let mut writes_file = false;
        let words: Vec<String> = self
            .hook
            .command
            .iter()
            .map(|word| {
                writes_file |= word.contains(REPORT);
                let word = word.replace("{image}", &exact).replace("{id}", &image.id);
                word.replace(REPORT, &file.to_string_lossy())
            })
            .collect();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).current_dir(&self.hook.folder);
        let printed = if writes_file { Printed::Told } else { Printed::Kept(LONGEST) };
        let ran = program::run(command, printed, self.hook.timeout, tell.as_ref()).await;
        let report = match ran {
            Ok(ended) if !ended.status.success() => {
                Err(format!("the scanner itself failed: {}", ended.words()))
            }
            Ok(_) if writes_file => written(&file),
            Ok(ended) => Ok(ended.output),
            Err(error) => Err(format!("the scanner: {error}")),
        };
        let _ = std::fs::remove_file(&file);
        report
    }

    fn keep(&self, image: &CheckedImage, place: &Path, bytes: &[u8], found: &report::Findings) {
        let findings: serde_json::Map<String, Value> = found
            .found
            .iter()
            .map(|(name, weight)| (name.clone(), format!("{weight:?}").to_lowercase().into()))
            .collect();
        let summary = json!({
            "version": VERSION,
            "image": {"reference": image.reference, "digest": image.digest, "id": image.id},
            "scanner": self.hook.command,
            "at_ms": shiplap_execute::now_ms(),
            "summary": found.words(),
            "findings": findings,
            "report": blake3::hash(bytes).to_hex().as_str(),
        });
        let write = || {
            crate::versions::write_whole(&place.with_extension("report.json"), bytes)?;
            crate::versions::write_whole(&place.with_extension("json"), format!("{summary:#}\n"))
        };
        // What is not kept is scanned again; the answer is the same.
        let _: std::io::Result<()> = write();
    }
}

fn is_plain(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '-'
}

fn written(file: &Path) -> Result<Vec<u8>, String> {
    let bad = |error: std::io::Error| format!("the scanner wrote no report: {error}");
    let length = std::fs::metadata(file).map_err(bad)?.len();
    if length > LONGEST as u64 {
        return Err(format!("the scanner's report has more than {LONGEST} bytes"));
    }
    std::fs::read(file).map_err(bad)
}

#[async_trait]
impl ImageCheck for Scanner {
    async fn check(&self, image: &CheckedImage, tell: Tell) -> Result<String, String> {
        let place = self.place(image);
        let (bytes, how) = match self.remembered(&place) {
            Some(report) => (report, "by an earlier scan"),
            None => (self.scan(image, &place, &tell).await?, "scanned now"),
        };
        let found = report::read(&bytes, self.rules.format)
            .map_err(|why| format!("the scanner's report cannot be used: {why}"))?;
        if how == "scanned now" {
            self.keep(image, &place, &bytes, &found);
        }
        let above = found.above(self.rules.fail_on, &self.rules.ignore);
        let words = format!("{} ({how})", found.words());
        if above.is_empty() {
            return Ok(words);
        }
        let more = above.len().saturating_sub(NAMED);
        let named = above[..above.len().min(NAMED)].join(", ");
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let report = place.with_extension("report.json");
        Err(format!("{words}: {named}{more}; report: {}", report.display()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::{Arc, Mutex};

    use shiplap_config::{ReportFormat, Weight};

    use super::*;

    struct Lab {
        folder: tempfile::TempDir,
    }

    impl Lab {
        fn new() -> Self {
            Self { folder: tempfile::tempdir().unwrap() }
        }

        /// A scanner that is a script; it counts its runs in the file `runs`.
        fn scanner(&self, script: &str, max_age: Duration) -> Scanner {
            let script = format!("echo x >> runs; {script}");
            let words = ["sh", "-c", &script, "scanner", "{image}", "{report}"];
            let hook = HookSettings {
                command: words.map(str::to_owned).to_vec(),
                timeout: Duration::from_secs(20),
                folder: self.folder.path().to_path_buf(),
            };
            let rules = ReportSettings {
                format: ReportFormat::Sarif,
                fail_on: Weight::High,
                ignore: BTreeSet::from(["CVE-ACCEPTED".to_owned()]),
                max_age,
            };
            Scanner::new(hook, rules, self.folder.path().join("scans"))
        }

        fn runs(&self) -> usize {
            let runs = std::fs::read_to_string(self.folder.path().join("runs"));
            runs.unwrap_or_default().lines().count()
        }
    }

    fn image() -> CheckedImage {
        CheckedImage {
            reference: "reg.example/api:v1".to_owned(),
            digest: Some(format!("sha256:{}", "ab".repeat(32))),
            id: format!("sha256:{}", "cd".repeat(32)),
        }
    }

    async fn ask(scanner: &Scanner) -> Result<String, String> {
        scanner.check(&image(), Arc::new(|_| ())).await
    }

    fn report(results: &str) -> String {
        format!(r#"printf '{{"version":"2.1.0","runs":[{{"results":[{results}]}}]}}' > "$2""#)
    }

    const DAY: Duration = Duration::from_secs(86_400);

    #[tokio::test]
    async fn a_clean_report_is_a_yes_and_asked_for_once() {
        let lab = Lab::new();
        let clean =
            report(r#"{"ruleId":"CVE-ACCEPTED","level":"error"},{"ruleId":"X","level":"note"}"#);
        let scanner = lab.scanner(&clean, DAY);
        assert_eq!(ask(&scanner).await.unwrap(), "1 high, 1 low (scanned now)");
        assert_eq!(ask(&scanner).await.unwrap(), "1 high, 1 low (by an earlier scan)");
        assert_eq!(lab.runs(), 1);
        let old = lab.scanner(&clean, Duration::ZERO);
        ask(&old).await.unwrap();
        assert_eq!(lab.runs(), 2);
    }

    #[tokio::test]
    async fn what_is_too_much_is_named_also_from_memory() {
        let lab = Lab::new();
        let scanner = lab.scanner(&report(r#"{"ruleId":"CVE-7","level":"error"}"#), DAY);
        for how in ["scanned now", "by an earlier scan"] {
            let why = ask(&scanner).await.unwrap_err();
            assert!(why.starts_with(&format!("1 high ({how}): CVE-7; report: ")), "{why}");
        }
        assert_eq!(lab.runs(), 1);
    }

    #[tokio::test]
    async fn a_scanner_that_fails_or_writes_nonsense_is_a_no_and_not_remembered() {
        let lab = Lab::new();
        let no = async |script: &str| ask(&lab.scanner(script, DAY)).await.unwrap_err();
        let good = report("");
        assert!(no(&format!("{good}; exit 3")).await.contains("itself failed: exit code 3"));
        assert!(no("true").await.contains("wrote no report"));
        assert!(no("echo nonsense > \"$2\"").await.contains("cannot be used"));
        assert!(no("kill -9 $$").await.contains("ended by a signal"));
        let before = lab.runs();
        assert!(no("echo nonsense > \"$2\"").await.contains("cannot be used"));
        assert_eq!(lab.runs(), before + 1);
    }

    #[tokio::test]
    async fn a_report_that_was_changed_afterwards_is_not_believed() {
        let lab = Lab::new();
        let bad = report(r#"{"ruleId":"CVE-7","level":"error"}"#);
        let scanner = lab.scanner(&bad, DAY);
        ask(&scanner).await.unwrap_err();
        let kept = scanner.place(&image()).with_extension("report.json");
        std::fs::write(kept, r#"{"version":"2.1.0","runs":[{"results":[]}]}"#).unwrap();
        ask(&scanner).await.unwrap_err();
        assert_eq!(lab.runs(), 2);
    }

    #[tokio::test]
    async fn the_image_is_named_by_its_digest_and_what_the_scanner_says_is_told() {
        let lab = Lab::new();
        let script = format!("echo scanning $1; {}", report(""));
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let heard = Arc::clone(&lines);
        let tell: Tell = Arc::new(move |line| heard.lock().unwrap().push(line));
        lab.scanner(&script, DAY).check(&image(), tell).await.unwrap();
        let digest = image().digest.unwrap();
        assert_eq!(*lines.lock().unwrap(), [format!("scanning reg.example/api@{digest}")]);
    }
}
