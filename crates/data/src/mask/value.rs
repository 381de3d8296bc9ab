//! Masks values as they stand in the binary format.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::class::Class;
use super::fake::Faker;
use super::{detect, json};
use crate::schema::{Column, ValueKind};

/// How PostgreSQL writes the families of `inet`.
const FAMILY_V4: u8 = 2;
const FAMILY_V6: u8 = 3;
/// The only version of the binary `jsonb`.
const JSONB_VERSION: u8 = 1;
const DAY_MICROSECONDS: i64 = 86_400_000_000;

/// How the values of one column are masked.
#[derive(Clone)]
pub struct ColumnMask {
    faker: Arc<Faker>,
    class: Class,
    kind: ValueKind,
    max_chars: Option<u32>,
    /// The same for all rows.
    set: Option<Arc<str>>,
    /// Whether NULL stands for a secret.
    was_secret: bool,
}

/// A value that cannot be masked in its column.
#[derive(Debug, PartialEq, Eq)]
pub struct Unmaskable(&'static str);

impl Unmaskable {
    /// Why.
    pub fn new(why: &'static str) -> Self {
        Self(why)
    }
}

impl fmt::Display for Unmaskable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

const BROKEN: Unmaskable = Unmaskable("a value is not in the format of its type");
const TOO_NARROW: Unmaskable = Unmaskable("the column is too narrow for what would stand for it");

impl ColumnMask {
    /// Masks a column as values of a class.
    ///
    /// # Errors
    /// If values of its type cannot be.
    pub fn new(faker: &Arc<Faker>, class: Class, column: &Column) -> Result<Self, Unmaskable> {
        // Nothing of a secret is needed where nothing may stand.
        let was_secret = class == Class::Secret;
        let class = match class {
            Class::Secret if column.nullable && !column.checked => Class::Null,
            other => other,
        };
        if class == Class::Null && !column.nullable {
            return Err(Unmaskable("it is NOT NULL, so it cannot become NULL"));
        }
        if class != Class::Null && !supports(&column.kind) {
            return Err(Unmaskable("values of its type cannot be masked: `null` or `keep`"));
        }
        Ok(Self {
            faker: faker.clone(),
            class,
            kind: column.kind.clone(),
            max_chars: column.max_chars,
            set: None,
            was_secret,
        })
    }

    /// One text for all rows.
    ///
    /// # Errors
    /// If it is not a column of text, or too narrow.
    pub fn set(faker: &Arc<Faker>, text: &str, column: &Column) -> Result<Self, Unmaskable> {
        if !matches!(column.kind, ValueKind::Text { .. }) {
            return Err(Unmaskable("`set` is for columns of text"));
        }
        if column.max_chars.is_some_and(|most| text.chars().count() > most as usize) {
            return Err(TOO_NARROW);
        }
        let mask = Self::new(faker, Class::Id, column)?;
        Ok(Self { set: Some(text.into()), ..mask })
    }

    /// Writes what stands for a value. `false`: NULL does.
    pub fn apply(&self, value: &[u8], out: &mut Vec<u8>) -> Result<bool, Unmaskable> {
        if let Some(text) = &self.set {
            out.extend_from_slice(text.as_bytes());
            return Ok(true);
        }
        if self.class == Class::Null {
            if let (true, Ok(text)) = (self.was_secret, std::str::from_utf8(value)) {
                self.faker.originals().remember(Class::Secret, text);
            }
            return Ok(false);
        }
        self.value(&self.kind, value, out)?;
        Ok(true)
    }

    fn value(&self, kind: &ValueKind, value: &[u8], out: &mut Vec<u8>) -> Result<(), Unmaskable> {
        match kind {
            ValueKind::Text { .. } => self.text(value, out),
            ValueKind::Json => {
                json::masked(&self.faker, &String::from_utf8_lossy(value), self.json_class(), out);
                Ok(())
            }
            ValueKind::Jsonb => {
                let Some((&JSONB_VERSION, text)) = value.split_first() else { return Err(BROKEN) };
                out.push(JSONB_VERSION);
                json::masked(&self.faker, &String::from_utf8_lossy(text), self.json_class(), out);
                Ok(())
            }
            ValueKind::Bytes => {
                self.faker.bytes(self.keyed_class(), value, out);
                Ok(())
            }
            ValueKind::Inet => self.inet(value, out),
            ValueKind::Date => {
                let day = i32::from_be_bytes(value.try_into().map_err(|_| BROKEN)?);
                // The ends of the range stand for infinity.
                let masked =
                    if day.abs_diff(0) > i32::MAX as u32 / 2 { day } else { self.faker.day(day) };
                out.extend_from_slice(&masked.to_be_bytes());
                Ok(())
            }
            ValueKind::Timestamp => {
                let time = i64::from_be_bytes(value.try_into().map_err(|_| BROKEN)?);
                let day = i32::try_from(time.div_euclid(DAY_MICROSECONDS));
                let masked = match day {
                    Ok(day) => {
                        i64::from(self.faker.day(day)) * DAY_MICROSECONDS
                            + time.rem_euclid(DAY_MICROSECONDS)
                    }
                    Err(_) => time,
                };
                out.extend_from_slice(&masked.to_be_bytes());
                Ok(())
            }
            ValueKind::Int(bytes) => self.integer(*bytes, value, out),
            ValueKind::Uuid => {
                let start = out.len();
                self.faker.bytes(self.keyed_class(), value, out);
                // The version and the variant stay.
                if let (Some(new), true) = (out.get_mut(start..start + 16), value.len() == 16) {
                    new[6] = (new[6] & 0x0f) | (value[6] & 0xf0);
                    new[8] = (new[8] & 0x3f) | (value[8] & 0xc0);
                }
                Ok(())
            }
            ValueKind::Array(element) => self.array(element, value, out),
            ValueKind::Numeric
            | ValueKind::Float(_)
            | ValueKind::Bool
            | ValueKind::Enum
            | ValueKind::Composite
            | ValueKind::Other => unreachable!("refused when the mask was made"),
        }
    }

    /// The class under whose key values without letters are masked.
    fn keyed_class(&self) -> Class {
        match self.class {
            Class::Json | Class::Null => Class::Id,
            class => class,
        }
    }

    /// What strings in a document are where their key does not say.
    fn json_class(&self) -> Option<Class> {
        match self.class {
            Class::Json | Class::Text | Class::Null => None,
            class => Some(class),
        }
    }

    fn text(&self, value: &[u8], out: &mut Vec<u8>) -> Result<(), Unmaskable> {
        let text = String::from_utf8_lossy(value);
        let start = out.len();
        match self.class {
            Class::Json => json::masked(&self.faker, &text, None, out),
            Class::Text => {
                let masked = detect::replaced(&text, |class, found, out| {
                    self.faker.text(class, found, None, out);
                });
                out.extend_from_slice(masked.as_bytes());
            }
            class => self.faker.text(class, &text, self.max_chars, out),
        }
        let Some(most) = self.max_chars.map(|most| most as usize) else { return Ok(()) };
        let written = std::str::from_utf8(&out[start..]).map_err(|_| BROKEN)?;
        match (written.char_indices().nth(most), self.class) {
            (None, _) => Ok(()),
            // What was found in a text may have grown; the end of the text can go.
            (Some((end, _)), Class::Text) => {
                out.truncate(start + end);
                Ok(())
            }
            (Some(_), _) => Err(TOO_NARROW),
        }
    }

    fn inet(&self, value: &[u8], out: &mut Vec<u8>) -> Result<(), Unmaskable> {
        let [family, bits, is_cidr, length, address @ ..] = value else { return Err(BROKEN) };
        let ip = match (*family, *length, address.len()) {
            (FAMILY_V4, 4, 4) => IpAddr::from(*address.first_chunk::<4>().ok_or(BROKEN)?),
            (FAMILY_V6, 16, 16) => IpAddr::from(*address.first_chunk::<16>().ok_or(BROKEN)?),
            _ => return Err(BROKEN),
        };
        out.extend_from_slice(&[*family, *bits, *is_cidr, *length]);
        let start = out.len();
        match self.faker.ip(ip) {
            IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
            IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
        }
        if *is_cidr == 1 {
            // A network has no bits behind its mask.
            for (at, byte) in out[start..].iter_mut().enumerate() {
                let kept = usize::from(*bits).saturating_sub(at * 8).min(8);
                *byte &= !(0xff_u16 >> kept) as u8;
            }
        }
        Ok(())
    }

    fn integer(&self, bytes: u8, value: &[u8], out: &mut Vec<u8>) -> Result<(), Unmaskable> {
        let (number, most) = match bytes {
            2 => (
                i64::from(i16::from_be_bytes(value.try_into().map_err(|_| BROKEN)?)),
                i16::MAX.into(),
            ),
            4 => (
                i64::from(i32::from_be_bytes(value.try_into().map_err(|_| BROKEN)?)),
                i32::MAX.into(),
            ),
            _ => (i64::from_be_bytes(value.try_into().map_err(|_| BROKEN)?), i64::MAX),
        };
        let masked = self.faker.integer(self.keyed_class(), number, most).to_be_bytes();
        out.extend_from_slice(&masked[8 - value.len()..]);
        Ok(())
    }

    /// Dimensions, a flag for nulls, the element's type, lengths and elements.
    fn array(
        &self,
        element: &ValueKind,
        value: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Unmaskable> {
        let word = |at: usize| -> Result<i32, Unmaskable> {
            let bytes = value.get(at..at + 4).ok_or(BROKEN)?;
            Ok(i32::from_be_bytes(bytes.try_into().map_err(|_| BROKEN)?))
        };
        let dimensions = usize::try_from(word(0)?).map_err(|_| BROKEN)?;
        let mut at = 12 + dimensions * 8;
        out.extend_from_slice(value.get(..at).ok_or(BROKEN)?);
        while at < value.len() {
            let length = word(at)?;
            at += 4;
            let Ok(length) = usize::try_from(length) else {
                out.extend_from_slice(&(-1_i32).to_be_bytes());
                continue;
            };
            let item = value.get(at..at + length).ok_or(BROKEN)?;
            at += length;
            let place = out.len();
            out.extend_from_slice(&[0; 4]);
            self.value(element, item, out)?;
            let length = i32::try_from(out.len() - place - 4).map_err(|_| BROKEN)?;
            out[place..place + 4].copy_from_slice(&length.to_be_bytes());
        }
        Ok(())
    }
}

/// Whether values of this type can be masked to something that is not NULL.
fn supports(kind: &ValueKind) -> bool {
    match kind {
        ValueKind::Text { .. }
        | ValueKind::Int(_)
        | ValueKind::Uuid
        | ValueKind::Date
        | ValueKind::Timestamp
        | ValueKind::Json
        | ValueKind::Jsonb
        | ValueKind::Bytes
        | ValueKind::Inet => true,
        ValueKind::Array(element) => !matches!(**element, ValueKind::Array(_)) && supports(element),
        ValueKind::Numeric
        | ValueKind::Float(_)
        | ValueKind::Bool
        | ValueKind::Enum
        | ValueKind::Composite
        | ValueKind::Other => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mask::Widths;

    fn column(kind: ValueKind) -> Column {
        Column {
            name: "c".into(),
            type_name: String::new(),
            kind,
            max_chars: None,
            nullable: false,
            generated: false,
            unique: false,
            checked: false,
        }
    }

    fn masked(class: Class, kind: ValueKind, value: &[u8]) -> Vec<u8> {
        let faker = Arc::new(Faker::new(b"secret", &[1; 32], Widths::default()));
        let mut out = Vec::new();
        let mask = ColumnMask::new(&faker, class, &column(kind)).unwrap();
        assert_eq!(mask.apply(value, &mut out), Ok(true));
        out
    }

    #[test]
    fn elements_of_arrays_are_masked_as_values_are() {
        let mut value: Vec<u8> = Vec::new();
        // One dimension, nulls, the element's type, two elements from 1.
        for word in [1_i32, 1, 25, 2, 1] {
            value.extend_from_slice(&word.to_be_bytes());
        }
        value.extend_from_slice(&9_i32.to_be_bytes());
        value.extend_from_slice(b"a@bc.test");
        value.extend_from_slice(&(-1_i32).to_be_bytes());
        let text = ValueKind::Text { folds: false };
        let out = masked(Class::Email, ValueKind::Array(Box::new(text.clone())), &value);
        let alone = masked(Class::Email, text, b"a@bc.test");
        assert_eq!(out[..20], value[..20]);
        assert_eq!(out[20..24], (alone.len() as i32).to_be_bytes());
        assert_eq!(out[24..24 + alone.len()], alone);
        assert_eq!(out[24 + alone.len()..], (-1_i32).to_be_bytes());
    }

    #[test]
    fn networks_stay_networks_and_numbers_fit() {
        let out = masked(Class::Ip, ValueKind::Inet, &[2, 12, 1, 4, 10, 16, 0, 0]);
        assert_eq!((out.len(), out[5] & 0x0f, out[6], out[7]), (8, 0, 0, 0));
        let out = masked(Class::Id, ValueKind::Int(4), &2_000_000_011_i32.to_be_bytes());
        assert!(i32::from_be_bytes(out.try_into().unwrap()) >= 1_000_000_000);
    }

    #[test]
    fn a_secret_that_may_be_absent_is() {
        let faker = Arc::new(Faker::new(b"secret", &[1; 32], Widths::default()));
        let of = |nullable| Column { nullable, ..column(ValueKind::Text { folds: false }) };
        let mask = ColumnMask::new(&faker, Class::Secret, &of(true)).unwrap();
        assert_eq!(mask.apply(b"x", &mut Vec::new()), Ok(false));
        assert!(ColumnMask::new(&faker, Class::Null, &of(false)).is_err());
        assert!(ColumnMask::new(&faker, Class::Id, &column(ValueKind::Composite)).is_err());
    }

    #[test]
    fn documents_keep_their_form() {
        let text = br#"{"theme":"dark","to":"a@b.example","nested":[{"api_key":"x1","n":1.50}]}"#;
        let out = masked(Class::Json, ValueKind::Json, text);
        let out = String::from_utf8(out).unwrap();
        assert!(out.contains(r#""theme":"dark""#) && out.contains("@mail.invalid"), "{out}");
        assert!(!out.contains("x1") && !out.contains("a@b.example"), "{out}");
        let plain = br#"{"big": 12345678901234567890123, "x": "y"}"#;
        assert_eq!(masked(Class::Json, ValueKind::Json, plain), plain);
    }
}
