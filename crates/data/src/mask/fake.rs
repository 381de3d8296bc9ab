//! Invented values. The same value of a class becomes the same fake, in every table, under one
//! key, so that joins over addresses and names hold; without the key nobody can tell what it was.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::class::Class;
use super::originals::Originals;
use super::permute::Permutation;
use super::shape::shaped;

/// Characters of base32 in the invented part of an address: 100 bits.
const EMAIL_CHARS: usize = 20;
/// Below this many (50 bits), two of a million addresses could meet.
const FEWEST_EMAIL_CHARS: usize = 10;
/// Never delivered: the name is reserved (RFC 2606).
const EMAIL_DOMAIN: &str = "@mail.invalid";
/// A prefix that no country has.
const PHONE_PREFIX: &str = "+999";
/// `shiplap-dev` by bcrypt, which most frameworks accept: developers can log in as anyone.
const PASSWORD_BCRYPT: &str = "$2b$10$abcdefghijklmnopqrstuuAnoNL8d6heZxHvctKsKCQBWYeGe5X6a";

const FIRST: [&str; 32] = [
    "Alba", "Benno", "Cleo", "Dario", "Edda", "Fabio", "Gerda", "Henk", "Ilka", "Joris", "Katja",
    "Lennart", "Malin", "Norbert", "Odile", "Piet", "Quirin", "Ronja", "Selma", "Tilda", "Ulla",
    "Valtteri", "Wim", "Xaver", "Ylva", "Zita", "Arvid", "Britta", "Casimir", "Dagny", "Enno",
    "Frida",
];
const LAST: [&str; 32] = [
    "Achterberg",
    "Birkeland",
    "Castellan",
    "Dornfeld",
    "Eikeland",
    "Falkner",
    "Grunewald",
    "Hallgren",
    "Isaksen",
    "Jagersma",
    "Kettunen",
    "Lindholm",
    "Mossberg",
    "Nyquist",
    "Oosterhuis",
    "Pellegrin",
    "Quandt",
    "Rautio",
    "Sandvik",
    "Terhune",
    "Ulbricht",
    "Vesterholm",
    "Wikstrand",
    "Yrjola",
    "Zandstra",
    "Almgren",
    "Bruckner",
    "Calloway",
    "Drexler",
    "Engstrom",
    "Fairweather",
    "Gallagher",
];
const STREETS: [&str; 8] = [
    "Sample Street",
    "Example Road",
    "Mill Lane",
    "Harbour Row",
    "Orchard Way",
    "Quarry Hill",
    "Station Square",
    "Meadow Close",
];

/// How wide the narrowest column of a class is: fakes are the same in all of its columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Widths {
    /// Of e-mail addresses, in characters.
    pub email: usize,
    /// Of phone numbers.
    pub phone: usize,
}

impl Default for Widths {
    fn default() -> Self {
        Self { email: usize::MAX, phone: usize::MAX }
    }
}

/// Invents values under one key.
pub struct Faker {
    hash_keys: Vec<(Class, [u8; 32])>,
    permutations: Vec<(Class, Permutation)>,
    widths: Widths,
    originals: Arc<Originals>,
}

/// Classes with keys of their own.
const KEYED: [Class; 12] = [
    Class::Email,
    Class::Phone,
    Class::Name,
    Class::Handle,
    Class::Address,
    Class::Ip,
    Class::Digest,
    Class::Date,
    Class::Id,
    Class::Text,
    Class::Password,
    Class::Secret,
];

impl Faker {
    /// What is masked under `secret` can be found again with it; what is secret itself gets a key
    /// of chance that is forgotten after the run.
    pub fn new(secret: &[u8], chance: &[u8; 32], widths: Widths) -> Self {
        let key = |class: Class| match class {
            Class::Secret | Class::Password => {
                blake3::derive_key("shiplap data 2026-11 forgotten", chance)
            }
            _ => {
                let mut material = class.word().as_bytes().to_vec();
                material.push(0);
                material.extend_from_slice(secret);
                blake3::derive_key("shiplap data 2026-11 masks", &material)
            }
        };
        let hash_keys = KEYED.map(|class| (class, key(class)));
        let permutation = |(class, key): &(Class, [u8; 32])| {
            let half = key.first_chunk().expect("a key has 32 bytes");
            (*class, Permutation::new(half))
        };
        Self {
            permutations: hash_keys.iter().map(permutation).collect(),
            hash_keys: hash_keys.to_vec(),
            widths,
            originals: Arc::default(),
        }
    }

    /// What was masked so far.
    pub fn originals(&self) -> &Arc<Originals> {
        &self.originals
    }

    fn permutation(&self, class: Class) -> &Permutation {
        let found = self.permutations.iter().find(|(known, _)| *known == class);
        &found.expect("the class has a key").1
    }

    fn hash(&self, class: Class, value: &[u8]) -> blake3::OutputReader {
        let found = self.hash_keys.iter().find(|(known, _)| *known == class);
        let mut hasher = blake3::Hasher::new_keyed(&found.expect("the class has a key").1);
        hasher.update(value);
        hasher.finalize_xof()
    }

    fn number(&self, class: Class, value: &[u8]) -> u64 {
        let mut bytes = [0; 8];
        self.hash(class, value).fill(&mut bytes);
        u64::from_be_bytes(bytes)
    }

    /// Fakes a text of a class. Free text and JSON are walked elsewhere.
    pub fn text(&self, class: Class, value: &str, max_chars: Option<u32>, out: &mut Vec<u8>) {
        self.originals.remember(class, value);
        match class {
            Class::Email if value.contains('@') => self.email(value, out),
            Class::Phone => self.phone(value, out),
            Class::Name => self.name(value, max_chars, out),
            Class::Address => self.address(value, max_chars, out),
            Class::Ip => match parse_ip(value) {
                Some((ip, rest)) => {
                    out.extend_from_slice(self.ip(ip).to_string().as_bytes());
                    out.extend_from_slice(rest.as_bytes());
                }
                None => self.shaped(Class::Id, value, out),
            },
            Class::Digest | Class::Secret => self.digest(class, value, out),
            Class::Password => self.password(value, max_chars, out),
            // Addresses without an `@`, days written as text.
            Class::Email | Class::Date => self.shaped(Class::Id, value, out),
            Class::Handle | Class::Id => self.shaped(class, value, out),
            Class::Text | Class::Json | Class::Null => unreachable!("not a fake of its own"),
        }
    }

    /// A letter for a letter, a digit for a digit. Never the same for two values.
    pub fn shaped(&self, class: Class, value: &str, out: &mut Vec<u8>) {
        shaped(self.permutation(class), value, out);
    }

    /// `q3v…@mail.invalid`: as wide as the narrowest column allows, the case as it was.
    fn email(&self, value: &str, out: &mut Vec<u8>) {
        let value = value.trim();
        let canonical = value.to_lowercase();
        let room = self.widths.email.saturating_sub(EMAIL_DOMAIN.len());
        let chars = room.min(EMAIL_CHARS);
        if chars < FEWEST_EMAIL_CHARS {
            // Too narrow for a domain of ours, so at least nobody's.
            self.shaped(Class::Email, value, out);
            return;
        }
        let mut bytes = [0; EMAIL_CHARS];
        self.hash(Class::Email, canonical.as_bytes()).fill(&mut bytes);
        // Where the case tells two apart, so does that of the fake.
        let local = value.split('@').next().unwrap_or_default();
        let has = |test: fn(char) -> bool| local.chars().any(test);
        let cases: u64 = match (has(char::is_uppercase), has(char::is_lowercase)) {
            (false, _) => 0,
            (true, false) => u64::MAX,
            (true, true) => self.number(Class::Text, local.as_bytes()) | 1,
        };
        for (at, byte) in bytes[..chars].iter().enumerate() {
            let letter = b"abcdefghijklmnopqrstuvwxyz234567"[usize::from(byte & 31)];
            // The first is a letter, as some CHECKs want it.
            let letter = if at == 0 { b'a' + byte % 26 } else { letter };
            out.push(if cases >> at & 1 == 1 { letter.to_ascii_uppercase() } else { letter });
        }
        out.extend_from_slice(EMAIL_DOMAIN.as_bytes());
    }

    /// The digits permuted, under a prefix that no country has where there is room for it.
    fn phone(&self, value: &str, out: &mut Vec<u8>) {
        let digits: String = value.chars().filter(char::is_ascii_digit).collect();
        let mut turned = Vec::with_capacity(digits.len());
        self.shaped(Class::Phone, &digits, &mut turned);
        let mut turned = turned.into_iter();
        let mut written = value;
        if value.chars().count() + PHONE_PREFIX.len() - 1 <= self.widths.phone
            && let Some(rest) = value.strip_prefix('+')
        {
            out.extend_from_slice(PHONE_PREFIX.as_bytes());
            written = rest;
        }
        for c in written.chars() {
            match c.is_ascii_digit() {
                true => out.push(turned.next().expect("as many digits as before")),
                false => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
    }

    fn name(&self, value: &str, max_chars: Option<u32>, out: &mut Vec<u8>) {
        let canonical = value.trim().to_lowercase();
        let number = self.number(Class::Name, canonical.as_bytes()) as usize;
        let (first, last) = (FIRST[number % 32], LAST[(number >> 8) % 32]);
        let name = match canonical.contains(char::is_whitespace) {
            true => format!("{first} {last}"),
            false => last.to_owned(),
        };
        out.extend(name.bytes().take(max_chars.map_or(usize::MAX, |most| most as usize)));
    }

    fn address(&self, value: &str, max_chars: Option<u32>, out: &mut Vec<u8>) {
        let number = self.number(Class::Address, value.trim().to_lowercase().as_bytes());
        let street = STREETS[(number >> 32) as usize % STREETS.len()];
        let address = format!("{} {street}", 1 + number % 999);
        out.extend(address.bytes().take(max_chars.map_or(usize::MAX, |most| most as usize)));
    }

    /// Another address: a bijection for IPv4; for IPv6, in the range for documentation.
    pub fn ip(&self, ip: IpAddr) -> IpAddr {
        self.originals.remember(Class::Ip, &ip.to_string());
        match ip {
            IpAddr::V4(v4) => {
                let value = u64::from(u32::from(v4));
                let turned = self.permutation(Class::Ip).of(1 << 32, 4, value);
                IpAddr::V4(Ipv4Addr::from(turned as u32))
            }
            IpAddr::V6(v6) => {
                let mut bytes = [0; 16];
                self.hash(Class::Ip, &v6.octets()).fill(&mut bytes);
                bytes[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
                IpAddr::V6(Ipv6Addr::from(bytes))
            }
        }
    }

    /// As long as it was, and of the same alphabet. Short ones are permuted, since chance would
    /// make two of them meet.
    fn digest(&self, class: Class, value: &str, out: &mut Vec<u8>) {
        let is_hex = |upper: bool| {
            value.bytes().all(|b| {
                b.is_ascii_digit() || (if upper { b'A'..=b'F' } else { b'a'..=b'f' }).contains(&b)
            })
        };
        let alphabet: &[u8; 16] = match (is_hex(false), is_hex(true)) {
            (true, _) if value.len() >= 24 => b"0123456789abcdef",
            (_, true) if value.len() >= 24 => b"0123456789ABCDEF",
            _ => return self.shaped(class, value, out),
        };
        let start = out.len();
        out.resize(start + value.len(), 0);
        self.hash(class, value.as_bytes()).fill(&mut out[start..]);
        out[start..].iter_mut().for_each(|byte| *byte = alphabet[usize::from(*byte & 15)]);
    }

    fn password(&self, value: &str, max_chars: Option<u32>, out: &mut Vec<u8>) {
        let fits = max_chars.is_none_or(|most| most as usize >= PASSWORD_BCRYPT.len());
        let is_hash = value.starts_with('$') || value.len() >= PASSWORD_BCRYPT.len();
        match fits && is_hash {
            true => out.extend_from_slice(PASSWORD_BCRYPT.as_bytes()),
            false => self.shaped(Class::Secret, value, out),
        }
    }

    /// Bytes of chance, as many as there were.
    pub fn bytes(&self, class: Class, value: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + value.len(), 0);
        self.hash(class, value).fill(&mut out[start..]);
    }

    /// A number with as many digits, up to `most`; never the same for two.
    pub fn integer(&self, class: Class, value: i64, most: i64) -> i64 {
        let magnitude = value.unsigned_abs();
        let most = most.unsigned_abs();
        // Only the lowest number of all has no positive counterpart.
        if magnitude > most {
            return value;
        }
        let digits = magnitude.checked_ilog10().unwrap_or(0);
        let least = if digits == 0 { 0 } else { 10_u64.pow(digits) };
        let end = 10_u64.checked_pow(digits + 1).unwrap_or(u64::MAX).min(most + 1);
        let turned = least + self.permutation(class).of(end - least, 9, magnitude - least);
        let turned = i64::try_from(turned).expect("it is at most the largest");
        if value < 0 { -turned } else { turned }
    }

    /// A day within the same four years.
    pub fn day(&self, day: i32) -> i32 {
        const FOUR_YEARS: i32 = 1_461;
        let start = day.div_euclid(FOUR_YEARS) * FOUR_YEARS;
        let number = self.number(Class::Date, &day.to_be_bytes());
        start.saturating_add((number % FOUR_YEARS as u64) as i32)
    }
}

/// An address, and what follows it: `/24`, a port.
fn parse_ip(text: &str) -> Option<(IpAddr, &str)> {
    let end = text.find('/').unwrap_or(text.len());
    Some((text[..end].trim().parse().ok()?, &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faker() -> Faker {
        Faker::new(b"a secret", &[3; 32], Widths { email: 255, phone: 24 })
    }

    fn of(class: Class, value: &str) -> String {
        let mut out = Vec::new();
        faker().text(class, value, None, &mut out);
        String::from_utf8(out).expect("it is text")
    }

    #[test]
    fn the_same_value_becomes_the_same_fake_whatever_its_case() {
        let lower = of(Class::Email, "ada@example.org");
        assert!(lower.ends_with("@mail.invalid") && lower.len() == 33, "{lower}");
        assert_eq!(of(Class::Email, "ADA@EXAMPLE.ORG").to_lowercase(), lower);
        assert_ne!(of(Class::Email, "ada@example.com"), lower);
        assert_ne!(of(Class::Email, "Ada@example.org"), lower);
        let other = Faker::new(b"another", &[3; 32], Widths { email: 255, phone: 24 });
        let mut out = Vec::new();
        other.text(Class::Email, "ada@example.org", None, &mut out);
        assert_ne!(out, lower.into_bytes());
    }

    #[test]
    fn formats_hold() {
        let phone = of(Class::Phone, "+44 20 1000 000001");
        assert!(phone.starts_with("+999") && phone.len() == 21, "{phone}");
        assert!(of(Class::Ip, "10.0.0.1").parse::<Ipv4Addr>().is_ok());
        assert!(of(Class::Ip, "2001:db8::1").starts_with("2001:db8:"));
        assert!(of(Class::Ip, "10.0.0.0/8").ends_with("/8"));
        let digest = of(Class::Digest, &"0f".repeat(32));
        assert!(digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit()));
        assert!(of(Class::Password, "$argon2id$x").starts_with("$2b$"));
        let number = faker().integer(Class::Id, 4_711, i64::MAX);
        assert!((1_000..10_000).contains(&number) && number != 4_711);
    }

    /// So many values of a class, each as columns hold them, must become as many fakes.
    fn become_as_many(class: Class, count: u32) {
        let faker = faker();
        let mut fakes = Vec::with_capacity(count as usize);
        let mut out = Vec::new();
        for n in 0..count {
            let (value, most) = match class {
                Class::Phone => (format!("+1 ({:03}) 555-{:06}", 200 + n % 7, n / 7), 24),
                Class::Email => (format!("u{n}@example.org"), 255),
                Class::Ip => (Ipv4Addr::from(n).to_string(), 45),
                // As wide as the column: what stands for it has no room to be longer.
                _ => (format!("h{n:015}"), 16),
            };
            out.clear();
            faker.text(class, &value, Some(most), &mut out);
            assert!(out.len() <= most as usize, "{value}");
            // Half of a hash: among five million, chance would not make two of them equal.
            let hash = blake3::hash(&out);
            fakes.push(*hash.as_bytes().first_chunk::<16>().expect("a hash has 32 bytes"));
        }
        fakes.sort_unstable();
        fakes.dedup();
        assert_eq!(fakes.len(), count as usize, "{class:?}");
    }

    #[test]
    fn unique_values_stay_unique() {
        for class in [Class::Phone, Class::Email, Class::Handle, Class::Id, Class::Ip] {
            become_as_many(class, 5_000);
        }
    }

    #[test]
    #[ignore = "takes long in a build that is not for release (make test-data)"]
    fn five_million_unique_values_stay_unique() {
        for class in [Class::Phone, Class::Email, Class::Handle] {
            become_as_many(class, 5_000_000);
        }
    }
}
