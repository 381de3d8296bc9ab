//! Numbers with a unit: durations, byte sizes, file modes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A length of time, written as Go writes it.
///
/// ```
/// use shiplap_compose::model::Duration;
/// let duration: Duration = "90s".parse().unwrap();
/// assert_eq!(duration.to_string(), "1m30s");
/// assert_eq!(duration.as_std(), Some(std::time::Duration::from_secs(90)));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Duration {
    nanoseconds: i64,
}

const MICROSECOND: i64 = 1_000;
const MILLISECOND: i64 = 1_000_000;
const SECOND: i64 = 1_000_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const WEEK: i64 = 7 * DAY;

impl Duration {
    /// A duration of so many nanoseconds; negative ones exist in files.
    pub const fn from_nanoseconds(nanoseconds: i64) -> Self {
        Self { nanoseconds }
    }

    /// A duration of so many seconds.
    pub const fn from_seconds(seconds: i64) -> Self {
        Self { nanoseconds: seconds.saturating_mul(SECOND) }
    }

    /// The whole length in nanoseconds.
    pub const fn as_nanoseconds(self) -> i64 {
        self.nanoseconds
    }

    /// The standard type, unless negative.
    pub fn as_std(self) -> Option<std::time::Duration> {
        u64::try_from(self.nanoseconds).ok().map(std::time::Duration::from_nanos)
    }
}

/// A text that is not of the wanted form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitError {
    expected: &'static str,
}

impl fmt::Display for UnitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}", self.expected)
    }
}

impl std::error::Error for UnitError {}

const DURATION_FORM: UnitError = UnitError { expected: "a duration such as `1m30s`" };
const SIZE_FORM: UnitError = UnitError { expected: "a size such as `64m` or `1.5GiB`" };
const MODE_FORM: UnitError = UnitError { expected: "an octal mode such as `0440`" };

impl FromStr for Duration {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (negative, mut rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        if rest == "0" {
            return Ok(Self::default());
        }
        if rest.is_empty() {
            return Err(DURATION_FORM);
        }
        let mut total: i128 = 0;
        while !rest.is_empty() {
            let number_len =
                rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or(DURATION_FORM)?;
            let (number, tail) = rest.split_at(number_len);
            let unit_len =
                tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(unit_len);
            let unit = match unit {
                "ns" => 1,
                "us" | "µs" | "μs" => MICROSECOND,
                "ms" => MILLISECOND,
                "s" => SECOND,
                "m" => MINUTE,
                "h" => HOUR,
                "d" => DAY,
                "w" => WEEK,
                _ => return Err(DURATION_FORM),
            };
            total += scaled(number, i128::from(unit)).ok_or(DURATION_FORM)?;
            if total > i128::from(i64::MAX) {
                return Err(DURATION_FORM);
            }
            rest = tail;
        }
        let nanoseconds = i64::try_from(if negative { -total } else { total });
        nanoseconds.map(Self::from_nanoseconds).map_err(|_| DURATION_FORM)
    }
}

/// A decimal number times a unit, cut to a whole: `1.5` × 60 = 90.
fn scaled(number: &str, unit: i128) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    if fraction.contains('.') || whole.len() > 18 {
        return None;
    }
    let mut total = if whole.is_empty() { 0 } else { whole.parse::<i128>().ok()? * unit };
    let fraction = &fraction[..fraction.len().min(18)];
    if !fraction.is_empty() {
        let scale = 10i128.pow(fraction.len() as u32);
        total += fraction.parse::<i128>().ok()? * unit / scale;
    }
    Some(total)
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.nanoseconds.unsigned_abs();
        if self.nanoseconds < 0 {
            f.write_str("-")?;
        }
        let (second, minute, hour) = (SECOND as u64, MINUTE as u64, HOUR as u64);
        if total == 0 {
            return f.write_str("0s");
        }
        if total < second {
            let (unit, name) = if total < MICROSECOND as u64 {
                (1, "ns")
            } else if total < MILLISECOND as u64 {
                (MICROSECOND as u64, "µs")
            } else {
                (MILLISECOND as u64, "ms")
            };
            return write!(f, "{}{name}", Decimal { value: total, unit });
        }
        let hours = total / hour;
        let minutes = total % hour / minute;
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if hours > 0 || minutes > 0 {
            write!(f, "{minutes}m")?;
        }
        write!(f, "{}s", Decimal { value: total % minute, unit: second })
    }
}

/// `value / unit` without trailing zeros.
struct Decimal {
    value: u64,
    unit: u64,
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.value / self.unit)?;
        let rest = self.value % self.unit;
        if rest == 0 {
            return Ok(());
        }
        let width = self.unit.ilog10() as usize;
        let digits = format!("{rest:0width$}");
        write!(f, ".{}", digits.trim_end_matches('0'))
    }
}

/// A number of bytes, written as a string of digits; -1 means no limit where that is allowed.
///
/// ```
/// use shiplap_compose::model::ByteSize;
/// let size: ByteSize = "1.5g".parse().unwrap();
/// assert_eq!(size.bytes(), 1_610_612_736);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ByteSize(i64);

impl ByteSize {
    /// So many bytes.
    pub const fn from_bytes(bytes: i64) -> Self {
        Self(bytes)
    }

    /// The number of bytes.
    pub const fn bytes(self) -> i64 {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    /// Reads `64m`, `1.5GiB`, `1024`: all units are powers of 1,024, as Docker has them.
    fn from_str(text: &str) -> Result<Self, UnitError> {
        if let Ok(bytes) = text.parse::<i64>() {
            return Ok(Self(bytes));
        }
        let number_len = text.rfind(|c: char| c.is_ascii_digit() || c == '.').ok_or(SIZE_FORM)? + 1;
        let (number, suffix) = text.split_at(number_len);
        let number = number.strip_suffix(' ').unwrap_or(number);
        let value: f64 = number.parse().map_err(|_| SIZE_FORM)?;
        if value < 0.0 || !value.is_finite() {
            return Err(SIZE_FORM);
        }
        let suffix = suffix.strip_prefix(' ').unwrap_or(suffix).to_ascii_lowercase();
        let exponent = match suffix.as_bytes() {
            [] | b"b" => 0,
            [unit] | [unit, b'b'] | [unit, b'i', b'b'] => {
                b"kmgtp".iter().position(|known| known == unit).ok_or(SIZE_FORM)? as i32 + 1
            }
            _ => return Err(SIZE_FORM),
        };
        Ok(Self((value * 1024f64.powi(exponent)) as i64))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A file's permission bits, written in octal with a leading zero.
///
/// ```
/// use shiplap_compose::model::FileMode;
/// assert_eq!(FileMode::from_bits(0o440).to_string(), "0440");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileMode(i64);

impl FileMode {
    /// From the bits.
    pub const fn from_bits(bits: i64) -> Self {
        Self(bits)
    }

    /// The bits.
    pub const fn bits(self) -> i64 {
        self.0
    }
}

impl FromStr for FileMode {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        i64::from_str_radix(text, 8).map(Self).map_err(|_| MODE_FORM)
    }
}

impl fmt::Display for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

macro_rules! as_text {
    ($type:ident, $form:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl de::Visitor<'_> for Visitor {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($form)
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Visitor)
            }
        }
    };
}

as_text!(Duration, "a duration such as `1m30s`");
as_text!(ByteSize, "a number of bytes as text");
as_text!(FileMode, "an octal mode such as `0440`");
