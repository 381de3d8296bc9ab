//! What a load carries along: the sources, the findings, the bounds.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Location, Severity};
use crate::node::{Node, Sources, Span};
use crate::request::{Tolerance, Trust};
use crate::source::FileSource;
use crate::yaml::{Budget, YamlError};

/// The largest file that is read. Real Compose files have a few hundred kilobytes at most.
const MAX_FILE: u64 = 16 << 20;

/// So many errors and so many warnings are reported: nobody reads more at once.
const MAX_FINDINGS: usize = 200;
/// How long a message may be: names in it can be as long as the file.
const MAX_MESSAGE: usize = 600;
/// So many known words are looked at for what was meant.
const MAX_CANDIDATES: usize = 5_000;

fn shorten(text: &mut String) {
    if text.len() > MAX_MESSAGE {
        let mut end = MAX_MESSAGE;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
}

pub(crate) struct Context<'a> {
    pub files: &'a dyn FileSource,
    pub sources: Sources,
    pub diagnostics: Vec<Diagnostic>,
    pub budget: Budget,
    pub tolerance: Tolerance,
    pub trust: Trust,
    pub interpolate: bool,
    pub resolve_paths: bool,
    /// Something could not be read: what seems undefined may be there.
    pub incomplete: bool,
    /// How many files were included.
    pub includes: usize,
    /// Files that were read and not used yet.
    pub documents: HashMap<PathBuf, Rc<Vec<Node>>>,
    /// Files that services extend from, by their variables.
    pub extended: HashMap<(PathBuf, usize), (Node, Marks)>,
    /// Where untrusted files must stay.
    pub root: PathBuf,
    /// Files that the user named: they may stand anywhere.
    pub given: Vec<PathBuf>,
    /// For showing paths short.
    pub working_dir: PathBuf,
    pub home: Option<String>,
    /// Variables that were found unset.
    pub unset: HashSet<String>,
    /// Variables whose values were looked for, if that is what is asked.
    pub mentioned: Option<BTreeSet<String>>,
}

/// Places that a later file resets or overrides.
pub(crate) type Marks = Vec<Vec<String>>;

pub(crate) type Environment = BTreeMap<String, String>;

impl Context<'_> {
    pub fn at(&self, span: Span) -> Option<Location> {
        if self.is_full(Severity::Error) {
            return None;
        }
        self.sources.locate(span)
    }

    /// Whether no more findings of this kind are kept.
    fn is_full(&self, severity: Severity) -> bool {
        let kind = |diagnostic: &&Diagnostic| diagnostic.severity == severity;
        self.diagnostics.len() >= MAX_FINDINGS
            && self.diagnostics.iter().filter(kind).count() >= MAX_FINDINGS
    }

    pub fn push(&mut self, mut diagnostic: Diagnostic) {
        if self.is_full(diagnostic.severity) {
            return;
        }
        shorten(&mut diagnostic.message);
        diagnostic.help.iter_mut().for_each(shorten);
        // The same part of a file may be looked at more than once: merged, extended, anchored.
        if !self.diagnostics.contains(&diagnostic) {
            self.diagnostics.push(diagnostic);
        }
    }

    /// Whether this variable is found unset for the first time, and there is room to say so.
    pub fn first_unset(&mut self, name: &str) -> bool {
        !self.is_full(Severity::Warning) && self.unset.insert(name.to_string())
    }

    /// Notes a variable, in a survey.
    pub fn mention(&mut self, name: &str) {
        if let Some(mentioned) = &mut self.mentioned {
            mentioned.insert(name.to_string());
        }
    }

    pub fn error(
        &mut self,
        code: &'static str,
        message: impl Into<String>,
        span: Span,
        label: impl Into<String>,
    ) {
        let diagnostic = Diagnostic::error(code, message).at(self.at(span), label);
        self.push(diagnostic);
    }

    pub fn warn(
        &mut self,
        code: &'static str,
        message: impl Into<String>,
        span: Span,
        label: impl Into<String>,
    ) {
        let diagnostic = Diagnostic::warning(code, message).at(self.at(span), label);
        self.push(diagnostic);
    }

    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    pub fn yaml_error(&mut self, error: YamlError) {
        let message = match error.path.is_empty() {
            true => error.message.into(),
            false => format!("{}, in `{}`", error.message, error.path.join(".")),
        };
        let mut diagnostic =
            Diagnostic::error(error.code, message).at(self.at(error.span), error.label);
        if let Some((message, span)) = error.other {
            diagnostic = diagnostic.related(message, self.at(span));
        }
        if error.code == "compose/yaml"
            && self.at(error.span).is_some_and(|at| at.text.contains('\t'))
        {
            diagnostic = diagnostic.help("indent with spaces: YAML does not allow tabs there");
        } else if error.code == "compose/yaml"
            && ["mapping values are not", "unexpected character"]
                .iter()
                .any(|text| diagnostic.message.contains(text))
        {
            diagnostic = diagnostic.help("put a text with special characters in quotes");
        }
        self.push(diagnostic);
    }

    /// A text for a message: as it stands in the file if a variable went into it.
    pub fn shown(&self, text: &str, span: Span) -> String {
        match self.sources.raw(span) {
            Some(raw) if raw.contains('$') => {
                raw.trim_matches(|c: char| c.is_whitespace() || c == '"' || c == '\'').to_string()
            }
            _ => text.to_string(),
        }
    }

    /// A path for a message, likewise.
    pub fn shown_path(&self, path: &Path, span: Span) -> String {
        self.shown(&self.display(path).display().to_string(), span)
    }

    /// The path as it is shown: relative to where the user is, if it is below.
    pub fn display(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.working_dir)
            .ok()
            .filter(|short| !short.as_os_str().is_empty())
            .unwrap_or(path)
            .to_path_buf()
    }

    /// Reads a file as text. `Err` holds what is wrong, for the caller's message.
    pub fn read(&mut self, path: &Path) -> Result<String, ReadError> {
        let named = self.given.iter().any(|given| given == path);
        if self.trust == Trust::Untrusted && !named && !self.is_inside(path) {
            return Err(ReadError::Outside);
        }
        if self.files.is_dir(path) {
            return Err(ReadError::Folder);
        }
        let bytes = self.files.read(path, MAX_FILE).map_err(ReadError::Io)?;
        String::from_utf8(bytes)
            .map_err(|error| ReadError::NotUtf8(error.utf8_error().valid_up_to()))
    }

    /// Reads a file as text and remembers it for messages.
    pub fn read_source(&mut self, path: &Path) -> Result<(Arc<str>, u32), ReadError> {
        let text = self.read(path)?;
        let text: Arc<str> = text.strip_prefix('\u{feff}').unwrap_or(&text).into();
        let shown = self.display(path);
        let file = self.sources.add(shown, text.clone());
        Ok((text, file))
    }

    fn is_inside(&self, path: &Path) -> bool {
        // What is not there has no links to follow, so its text decides.
        match (self.files.resolve(path), self.files.resolve(&self.root)) {
            (Ok(path), Ok(root)) => clean(&path).starts_with(clean(&root)),
            _ => clean(path).starts_with(clean(&self.root)),
        }
    }
}

pub(crate) enum ReadError {
    Io(io::Error),
    Folder,
    NotUtf8(usize),
    /// An untrusted file points outside of the project.
    Outside,
}

impl ReadError {
    pub fn is_missing(&self) -> bool {
        matches!(self, ReadError::Io(error) if error.kind() == io::ErrorKind::NotFound)
    }

    pub fn code(&self) -> &'static str {
        match self {
            ReadError::Outside => "compose/outside-project",
            ReadError::NotUtf8(_) => "compose/not-utf8",
            ReadError::Io(_) | ReadError::Folder => "compose/unreadable-file",
        }
    }
}

impl std::fmt::Display for ReadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ReadError::Io(error) if error.kind() == io::ErrorKind::NotFound => {
                f.write_str("there is no such file")
            }
            ReadError::Io(error) => error.fmt(f),
            ReadError::Folder => f.write_str("it is a folder"),
            ReadError::NotUtf8(at) => write!(f, "it is not UTF-8 text: byte {at}"),
            ReadError::Outside => {
                f.write_str("it lies outside of the project, and the files are not trusted")
            }
        }
    }
}

/// The path without `.`, `..` and doubled slashes, by its text alone.
pub(crate) fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                if matches!(out.components().next_back(), Some(Component::Normal(_))) {
                    out.pop();
                } else if !out.has_root() {
                    out.push("..");
                }
            }
            other => out.push(other),
        }
    }
    if out.as_os_str().is_empty() {
        out.push(".");
    }
    out
}

/// The known word nearest to what was typed, if it is near.
pub(crate) fn nearest<'a>(
    typed: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let length = typed.chars().count();
    if length < 3 {
        // Every other short word would be near.
        return None;
    }
    let limit = (length / 3).clamp(1, 4);
    known
        .into_iter()
        .take(MAX_CANDIDATES)
        .filter(|word| word.len().abs_diff(typed.len()) <= limit * 4)
        .map(|word| (distance(typed, word), word))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// How many letters must be inserted, dropped, replaced or swapped.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) =
        (a.to_lowercase().chars().take(64).collect(), b.to_lowercase().chars().take(64).collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let cost = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + cost);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}
