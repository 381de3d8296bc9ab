//! The frames of a WebSocket (RFC 6455), as far as is needed to say goodbye between two of them.

/// Close, 1012: the service restarts; come back.
pub(super) const CLOSE_RESTART: [u8; 4] = [0x88, 0x02, 0x03, 0xf4];

const OPCODE: u8 = 0x0f;
const CLOSE: u8 = 0x08;
const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7f;
const LONGEST_HEAD: usize = 14;

/// Follows one way of a WebSocket.
#[derive(Default)]
pub(super) struct Frames {
    head: [u8; LONGEST_HEAD],
    have: usize,
    /// Of the payload.
    left: u64,
    close: Close,
}

/// Whether this side has said that it closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Close {
    #[default]
    No,
    /// The frame's head was seen.
    Begun,
}

impl Frames {
    /// Between two frames, where one of our own may stand.
    pub(super) fn is_between(&self) -> bool {
        self.have == 0 && self.left == 0
    }

    /// Its close frame has come in full.
    pub(super) fn has_closed(&self) -> bool {
        self.close == Close::Begun && self.is_between()
    }

    /// Follows all of these bytes.
    pub(super) fn follow(&mut self, bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() {
            at += self.step(&bytes[at..]);
        }
    }

    /// Follows these bytes to the next place between two frames; answers how many that are.
    pub(super) fn follow_to_between(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() && !self.is_between() {
            at += self.step(&bytes[at..]);
        }
        at
    }

    fn step(&mut self, bytes: &[u8]) -> usize {
        if self.left > 0 {
            let taken = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
            self.left -= taken as u64;
            return taken;
        }
        self.head[self.have] = bytes[0];
        self.have += 1;
        if let Some(length) = self.payload() {
            if self.head[0] & OPCODE == CLOSE {
                self.close = Close::Begun;
            }
            self.left = length;
            self.have = 0;
        }
        1
    }

    /// The length of the payload, if the head is complete.
    fn payload(&self) -> Option<u64> {
        if self.have < 2 {
            return None;
        }
        let (short, extended) = match self.head[1] & LENGTH {
            126 => (None, 2),
            127 => (None, 8),
            short => (Some(short.into()), 0),
        };
        let mask = if self.head[1] & MASKED == 0 { 0 } else { 4 };
        if self.have < 2 + extended + mask {
            return None;
        }
        let bytes = &self.head[2..2 + extended];
        let long = bytes.iter().fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
        Some(short.unwrap_or(long))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_all_sizes_are_followed_wherever_they_are_cut() {
        let mut bytes = Vec::new();
        let mut ends = vec![0];
        for (length, masked) in
            [(0_usize, false), (5, true), (125, false), (126, true), (70_000, false)]
        {
            let mask = if masked { MASKED } else { 0 };
            bytes.push(0x82);
            match length {
                0..126 => bytes.push(length as u8 | mask),
                126..65_536 => {
                    bytes.push(126 | mask);
                    bytes.extend((length as u16).to_be_bytes());
                }
                _ => {
                    bytes.push(127 | mask);
                    bytes.extend((length as u64).to_be_bytes());
                }
            }
            bytes.resize(bytes.len() + if masked { 4 } else { 0 } + length, 0x88);
            ends.push(bytes.len());
        }
        for size in [1, 2, 3, 7, 1000, 100_000] {
            let mut frames = Frames::default();
            let mut at = 0;
            for part in bytes.chunks(size) {
                frames.follow(part);
                at += part.len();
                assert_eq!(frames.is_between(), ends.contains(&at), "at {at} in parts of {size}");
                assert!(!frames.has_closed());
            }
        }
        let mut frames = Frames::default();
        frames.follow(&bytes[..3]);
        assert_eq!(frames.follow_to_between(&bytes[3..]), ends[2] - 3);
    }

    #[test]
    fn a_close_frame_is_seen_when_it_is_complete() {
        let mut frames = Frames::default();
        frames.follow(&CLOSE_RESTART[..3]);
        assert!(!frames.has_closed());
        frames.follow(&CLOSE_RESTART[3..]);
        assert!(frames.has_closed());
    }
}
