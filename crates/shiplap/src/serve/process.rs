//! A process of this program that outlives the server: it prints to files, which are read as they
//! grow.

use std::fs::{DirBuilder, File};
use std::io::{self, Read as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::remote::INSIDE_VARIABLE;

/// What it prints on standard output.
const OUTPUT: &str = "output";
/// What it prints on standard error.
const ERRORS: &str = "errors";

/// A process that was started here.
pub struct Process {
    child: Child,
    folder: PathBuf,
    output: Tail,
    errors: Tail,
}

impl Process {
    /// Starts one, which keeps what it prints in a folder of its own.
    ///
    /// # Errors
    /// When the folder or the process cannot be made.
    pub fn start(
        program: &Path,
        folder: PathBuf,
        words: impl IntoIterator<Item = impl AsRef<std::ffi::OsStr>>,
        variables: &[(&str, &str)],
        input: Stdio,
    ) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let (output, errors) = (folder.join(OUTPUT), folder.join(ERRORS));
        let mut command = Command::new(program);
        command
            .args(words)
            .envs(variables.iter().copied())
            .env(INSIDE_VARIABLE, "1")
            .stdin(input)
            .stdout(File::create(&output)?)
            .stderr(File::create(&errors)?)
            .current_dir("/")
            // Ctrl-C in the server's terminal, and stopping the server, are not meant for it.
            .process_group(0);
        crate::ledger::hand_over(&mut command);
        let child = command.spawn()?;
        let (output, errors) = (Tail::of(&output)?, Tail::of(&errors)?);
        Ok(Self { child, folder, output, errors })
    }

    /// How it ended, if it has: an exit code, or none where it was killed.
    ///
    /// # Errors
    /// When the system does not know it.
    pub fn ended(&mut self) -> io::Result<Option<Option<u8>>> {
        let status = self.child.try_wait()?;
        Ok(status.map(|status| status.code().and_then(|code| u8::try_from(code).ok())))
    }

    /// What was printed on standard output since the last time, up to the last line that is whole.
    pub fn output(&mut self) -> String {
        self.output.lines()
    }

    /// The same of standard error.
    pub fn errors(&mut self) -> String {
        self.errors.lines()
    }

    /// What was printed after the last line break, once it has ended.
    pub fn rest(&mut self) -> (String, String) {
        (self.output.rest(), self.errors.rest())
    }

    /// Everything that it has printed on standard output, up to so many bytes.
    pub fn whole_output(&self, most: u64) -> io::Result<String> {
        let mut text = String::new();
        File::open(self.folder.join(OUTPUT))?.take(most).read_to_string(&mut text)?;
        Ok(text)
    }

    /// Where it is told something, if it can be.
    pub fn input(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Asks it to undo what it has begun, and to end.
    pub fn interrupt(&self) {
        let id = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(id) = id {
            let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        }
    }
}

/// Removes all folders of a folder that have numbers for names, but the `kept` highest.
pub fn forget_old(folder: &Path, kept: usize) {
    let Ok(folders) = std::fs::read_dir(folder) else { return };
    let number = |name: std::ffi::OsString| name.into_string().ok()?.parse::<u64>().ok();
    let mut known: Vec<u64> =
        folders.flatten().filter_map(|folder| number(folder.file_name())).collect();
    known.sort_unstable();
    for old in known.iter().rev().skip(kept) {
        let _ = std::fs::remove_dir_all(folder.join(old.to_string()));
    }
}

/// A file that grows meanwhile.
struct Tail {
    file: File,
    /// What was read of a line that has not ended.
    rest: Vec<u8>,
}

impl Tail {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::open(path)?, rest: Vec::new() })
    }

    fn lines(&mut self) -> String {
        let _ = self.file.read_to_end(&mut self.rest);
        let Some(last) = self.rest.iter().rposition(|byte| *byte == b'\n') else {
            return String::new();
        };
        let whole: Vec<u8> = self.rest.drain(..=last).collect();
        String::from_utf8_lossy(&whole).into_owned()
    }

    fn rest(&mut self) -> String {
        let mut text = self.lines();
        text.push_str(&String::from_utf8_lossy(&std::mem::take(&mut self.rest)));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(folder: &Path, script: &str) -> Process {
        let words = ["-c", script];
        Process::start(Path::new("/bin/sh"), folder.into(), words, &[("A", "b")], Stdio::piped())
            .expect("a shell")
    }

    fn wait(process: &mut Process) -> Option<u8> {
        loop {
            if let Some(code) = process.ended().expect("it is ours") {
                return code;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    #[test]
    fn what_it_prints_is_kept_and_told_apart() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut process = shell(folder.path(), "echo out $A; echo err >&2; printf rest; exit 3");
        assert_eq!(wait(&mut process), Some(3));
        assert_eq!(process.output(), "out b\n");
        assert_eq!(process.errors(), "err\n");
        assert_eq!(process.rest(), ("rest".to_owned(), String::new()));
        assert_eq!(process.whole_output(5).expect("read"), "out b");
    }

    #[test]
    fn it_can_be_told_something_and_interrupted() {
        use std::io::Write as _;
        let folder = tempfile::tempdir().expect("a folder");
        let mut process = shell(folder.path(), "read line; echo got $line; exec sleep 60");
        process.input().expect("a pipe").write_all(b"yes\n").expect("written");
        while process.output() != "got yes\n" {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        process.interrupt();
        assert_eq!(wait(&mut process), None, "killed, without a code");
    }

    #[test]
    fn old_folders_go() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["1", "2", "10", "other"] {
            std::fs::create_dir(folder.path().join(name)).expect("made");
        }
        forget_old(folder.path(), 1);
        let left = |name: &str| folder.path().join(name).exists();
        assert_eq!(["1", "2", "10", "other"].map(left), [false, false, true, true]);
    }
}
