//! Values of keys, small enough to hold those of a whole sample in memory.

/// The value of a key of one or more columns. Two keys are equal exactly if the database finds
/// the values equal (see [`crate::schema::KeyKind`]); no hash stands for a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// One whole number.
    Int(i64),
    /// One UUID.
    Uuid([u8; 16]),
    /// One text.
    Text(Box<str>),
    /// Several values, each of the above.
    Several(Box<[Key]>),
}

impl Key {
    /// Bytes that no other key has, for hashing.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        match self {
            Self::Int(number) => {
                out.push(1);
                out.extend_from_slice(&number.to_be_bytes());
            }
            Self::Uuid(bytes) => {
                out.push(2);
                out.extend_from_slice(bytes);
            }
            Self::Text(text) => {
                out.push(3);
                out.extend_from_slice(&(text.len() as u64).to_be_bytes());
                out.extend_from_slice(text.as_bytes());
            }
            Self::Several(parts) => {
                out.push(4);
                out.extend_from_slice(&(parts.len() as u64).to_be_bytes());
                for part in parts {
                    part.write_to(out);
                }
            }
        }
    }
}

impl From<i64> for Key {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}
