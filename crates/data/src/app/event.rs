//! How a run goes, for whoever shows it.

/// A part of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Reading the source's schema.
    Schema,
    /// Looking at columns for personal data.
    Columns,
    /// Finding out which rows come.
    Keys,
    /// Making the new database.
    Definition,
    /// Copying rows.
    Rows,
    /// Making indexes and checking keys.
    Constraints,
    /// Sequences, materialised views, statistics.
    Finishing,
    /// Verifying what was made.
    Verifying,
    /// Copying the files that belong to the rows.
    Files,
    /// Putting the new database in the old one's place.
    Swap,
}

impl Stage {
    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Schema => "reading the schema",
            Self::Columns => "looking for personal data",
            Self::Keys => "choosing rows",
            Self::Definition => "making the new database",
            Self::Rows => "copying rows",
            Self::Constraints => "making indexes, checking keys",
            Self::Finishing => "setting sequences, filling views, collecting statistics",
            Self::Verifying => "verifying",
            Self::Files => "copying files",
            Self::Swap => "swapping databases",
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A part begins.
    Begins(Stage),
    /// A table was copied.
    Copied {
        /// Its name.
        table: String,
        /// Rows written.
        rows: u64,
        /// Bytes written.
        bytes: u64,
        /// Tables done so far.
        done: usize,
        /// Tables in all.
        of: usize,
    },
    /// Something to know.
    Note(String),
}

/// Who is told.
pub trait Listener: Send + Sync {
    /// Takes an event.
    fn tell(&self, event: Event);
}

impl<F: Fn(Event) + Send + Sync> Listener for F {
    fn tell(&self, event: Event) {
        self(event);
    }
}
