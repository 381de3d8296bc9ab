//! What is wrong in the configuration, and where.

use std::fmt;

/// A place in the configuration file, from 1. `None` of it: what is wrong is what is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: u64,
    /// The column, in characters.
    pub column: u64,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Stable, such as `data/unknown-table`.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// Where.
    pub place: Option<Place>,
    /// What to type instead.
    pub help: Option<String>,
}

impl Diagnostic {
    /// Without a place or help.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), place: None, help: None }
    }

    /// With the place that it is about.
    pub fn at(self, place: Place) -> Self {
        Self { place: Some(place), ..self }
    }

    /// With what to type instead.
    pub fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    /// Shows it with its line of the file's text.
    pub fn in_file<'a>(&'a self, file: &'a str, text: &'a str) -> InFile<'a> {
        InFile { diagnostic: self, file, text }
    }
}

/// A [`Diagnostic`] for people.
pub struct InFile<'a> {
    diagnostic: &'a Diagnostic,
    file: &'a str,
    text: &'a str,
}

impl fmt::Display for InFile<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Diagnostic { code, message, place, help } = self.diagnostic;
        write!(f, "error[{code}]: {message}")?;
        if let Some(Place { line, column }) = place {
            let number = line.to_string();
            let margin = " ".repeat(number.len() + 1);
            write!(f, "\n{margin}┌ {}:{line}:{column}", self.file)?;
            let index = usize::try_from(line.saturating_sub(1)).unwrap_or(usize::MAX);
            if let Some(text) = self.text.lines().nth(index) {
                write!(f, "\n{number} │ {text}")?;
            }
        }
        match help {
            Some(help) => write!(f, "\n  = help: {help}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn a_diagnostic_shows_its_line() {
        let diagnostic = Diagnostic::new("data/unknown-table", "there is no table `usres`")
            .at(Place { line: 2, column: 17 })
            .help("did you mean `users`?");
        let text = "sample:\n  root: { table: usres }\n";
        expect![[r#"
            error[data/unknown-table]: there is no table `usres`
              ┌ data.yaml:2:17
            2 │   root: { table: usres }
              = help: did you mean `users`?"#]]
        .assert_eq(&diagnostic.in_file("data.yaml", text).to_string());
    }
}
