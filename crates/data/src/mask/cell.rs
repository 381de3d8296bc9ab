//! One column of a row on its way.

use super::value::ColumnMask;

/// What becomes of a column.
#[derive(Clone)]
pub enum Cell {
    /// It stays as it is.
    Keep,
    /// It is masked.
    Mask(ColumnMask),
    /// It is computed from another column of the row, after that was masked.
    Derive {
        /// The place of that column among those that are copied.
        from: usize,
        /// How.
        how: Derivation,
    },
}

/// How a column follows from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Derivation {
    /// The same value.
    Same,
    /// In lower case.
    Lower,
    /// In upper case.
    Upper,
    /// Without spaces around it.
    Trim,
}

impl Derivation {
    /// Reads `lower(email)`, `email`: how, and from what.
    pub fn parse(text: &str) -> Option<(Self, &str)> {
        let Some((function, rest)) = text.split_once('(') else {
            return Some((Self::Same, text.trim()));
        };
        let column = rest.strip_suffix(')')?.trim();
        match function.trim().to_ascii_lowercase().as_str() {
            "lower" => Some((Self::Lower, column)),
            "upper" => Some((Self::Upper, column)),
            "trim" => Some((Self::Trim, column)),
            _ => None,
        }
    }

    /// Computes the value.
    pub fn of(self, value: &[u8]) -> Vec<u8> {
        let text = String::from_utf8_lossy(value);
        match self {
            Self::Same => value.to_vec(),
            Self::Lower => text.to_lowercase().into_bytes(),
            Self::Upper => text.to_uppercase().into_bytes(),
            Self::Trim => text.trim().as_bytes().to_vec(),
        }
    }
}
