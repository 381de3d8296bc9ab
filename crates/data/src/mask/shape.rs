//! Values that keep their shape: a letter for a letter, a digit for a digit, signs as they are.

use std::ops::Range;

use super::permute::Permutation;

/// Characters that one permutation turns at a time: 26^13 fits in 64 bits.
const TOGETHER: u64 = u64::MAX / 26;

/// Replaces each letter by a letter and each digit by a digit. Different texts stay different,
/// also where upper and lower case count as equal: the case of each letter is kept, and does not
/// decide what it becomes.
pub(super) fn shaped(permutation: &Permutation, text: &str, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(text.as_bytes());
    let bytes = &mut out[start..];
    let mut tweak = 0_u64;
    let mut at = 0;
    while at < bytes.len() {
        let (end, domain) = piece(bytes, at);
        let rank = rank(bytes, at..end);
        if domain > 1 {
            let turned = permutation.of(domain, tweak, rank);
            unrank(bytes, at..end, turned);
        }
        // The pieces before decide how the next is turned, and can be told from their results
        // one after the other, so that nothing collides.
        tweak = tweak.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ rank.rotate_left(17) ^ 1;
        at = end;
    }
}

/// From `start`, as many bytes as fit in one permutation, and how many values they may take.
fn piece(bytes: &[u8], start: usize) -> (usize, u64) {
    let mut domain = 1_u64;
    for (at, &byte) in bytes.iter().enumerate().skip(start) {
        if domain > TOGETHER / 64 {
            return (at, domain);
        }
        domain *= choices(bytes, at, byte);
    }
    (bytes.len(), domain)
}

/// How many values the byte at a place may take.
fn choices(bytes: &[u8], at: usize, byte: u8) -> u64 {
    match byte {
        b'0'..=b'9' => 10,
        b'a'..=b'z' | b'A'..=b'Z' => 26,
        // The last byte of a letter beyond ASCII: one of 64 neighbours, as long in UTF-8.
        0x80..=0xbf if is_last_of_letter(bytes, at) => 64,
        _ => 1,
    }
}

fn is_last_of_letter(bytes: &[u8], at: usize) -> bool {
    bytes.get(at + 1).is_none_or(|next| !(0x80..=0xbf).contains(next))
}

fn digit(byte: u8) -> u64 {
    u64::from(match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'z' => byte - b'a',
        b'A'..=b'Z' => byte - b'A',
        _ => byte & 0x3f,
    })
}

fn rank(bytes: &[u8], piece: Range<usize>) -> u64 {
    let mut rank = 0;
    for at in piece {
        match choices(bytes, at, bytes[at]) {
            1 => {}
            choices => rank = rank * choices + digit(bytes[at]),
        }
    }
    rank
}

fn unrank(bytes: &mut [u8], piece: Range<usize>, mut rank: u64) {
    for at in piece.rev() {
        let byte = bytes[at];
        let choices = choices(bytes, at, byte);
        if choices == 1 {
            continue;
        }
        let digit = (rank % choices) as u8;
        rank /= choices;
        bytes[at] = match byte {
            b'0'..=b'9' => b'0' + digit,
            b'a'..=b'z' => b'a' + digit,
            b'A'..=b'Z' => b'A' + digit,
            _ => 0x80 | digit,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn of(text: &str) -> String {
        let mut out = Vec::new();
        shaped(&Permutation::new(&[1; 16]), text, &mut out);
        String::from_utf8(out).expect("it stays UTF-8")
    }

    #[test]
    fn the_shape_stays_and_the_text_does_not() {
        let masked = of("Ada-17 (x)");
        assert_ne!(masked, "Ada-17 (x)");
        let shape = |text: &str| -> String {
            text.chars()
                .map(|c| match c {
                    '0'..='9' => '0',
                    'a'..='z' => 'a',
                    'A'..='Z' => 'A',
                    other => other,
                })
                .collect()
        };
        assert_eq!(shape(&masked), "Aaa-00 (a)");
        assert_eq!(of("ada-17 (x)").to_uppercase(), of("ADA-17 (X)"));
        assert_eq!(of("żółw").chars().count(), 4);
        assert_ne!(of("日本"), "日本");
        // Wherever a piece ends, letters of several bytes stay whole.
        (0..30).for_each(|n| drop(of(&format!("{}日本語żółw", "a".repeat(n)))));
    }

    #[test]
    fn short_values_never_collide() {
        let met: HashSet<String> = (0..20_000).map(|n| of(&format!("u{n}"))).collect();
        assert_eq!(met.len(), 20_000);
        let long = |n: u32| of(&format!("an-even-longer-handle-number-{n:06}"));
        let met: HashSet<String> = (0..5_000).map(long).collect();
        assert_eq!(met.len(), 5_000);
    }
}
