//! What is wrong in the user's files, where, and what to type instead.

use std::fmt;
use std::path::PathBuf;

/// A place in a file, with the line for showing it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The file as it was named.
    pub file: PathBuf,
    /// The first line is 1.
    pub line: usize,
    /// The first column is 1, in characters.
    pub column: usize,
    /// How many characters to underline, at least 1.
    pub width: usize,
    /// The line's text; of a very long line, the part around the place.
    pub text: String,
    /// How many characters of `text` come before the place.
    pub offset: usize,
}

impl fmt::Display for Location {
    /// `compose.yaml:14:9`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// The project cannot be used.
    Error,
    /// The project can be used, but this deserves a look.
    Warning,
    /// Advice.
    Advice,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Advice => "advice",
        })
    }
}

/// A further place that explains a diagnostic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Related {
    /// What is there.
    pub message: String,
    /// Where.
    pub location: Location,
}

/// One thing about the user's files. `Display` shows it with its line of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// A stable code such as `compose/unknown-service`.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong; never holds an interpolated value.
    pub message: String,
    /// Where it is wrong.
    pub location: Option<Location>,
    /// The few words under the place.
    pub label: String,
    /// What to type instead.
    pub help: Vec<String>,
    /// Other places that matter.
    pub related: Vec<Related>,
}

impl Diagnostic {
    /// An error without a place.
    pub fn error(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, message)
    }

    /// A warning without a place.
    pub fn warning(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, message)
    }

    /// A diagnostic without a place.
    pub fn new(severity: Severity, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            severity,
            message: message.into(),
            location: None,
            label: String::new(),
            help: Vec::new(),
            related: Vec::new(),
        }
    }

    /// With the place and the words under it.
    #[must_use]
    pub fn at(mut self, location: Option<Location>, label: impl Into<String>) -> Self {
        self.location = location;
        self.label = label.into();
        self
    }

    /// With what to type instead.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }

    /// With another place that matters; nothing if it is unknown.
    #[must_use]
    pub fn related(mut self, message: impl Into<String>, location: Option<Location>) -> Self {
        if let Some(location) = location {
            self.related.push(Related { message: message.into(), location });
        }
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]: {}", self.severity, self.code, self.message)?;
        let gutter = match &self.location {
            Some(location) => {
                let number = location.line.to_string();
                let gutter = " ".repeat(number.len());
                let pad: String = location
                    .text
                    .chars()
                    .take(location.offset)
                    .map(|c| if c == '\t' { '\t' } else { ' ' })
                    .collect();
                write!(f, "\n{gutter}┌ {location}\n{number} │ {}", location.text)?;
                write!(f, "\n{gutter} │ {pad}{}", "^".repeat(location.width.max(1)))?;
                if !self.label.is_empty() {
                    write!(f, " {}", self.label)?;
                }
                gutter
            }
            None => String::new(),
        };
        for related in &self.related {
            write!(f, "\n{gutter} = {}: {}", related.location, related.message)?;
        }
        for help in &self.help {
            write!(f, "\n{gutter} = help: {help}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostic {}
