//! Changing bytes in the ways that break decoders: one seed gives the same inputs every time.

use fastrand::Rng;

use crate::INPUT_BYTES_MAX;

/// Changes to one input, at most.
const CHANGES_MAX: usize = 6;
/// Bytes that mean something in one format or another.
const MEANINGFUL: [u8; 24] = [
    0, 1, 2, 0x7f, 0x80, 0x81, 0xfe, 0xff, b'0', b'9', b'-', b'{', b'}', b'[', b']', b'"', b'\\',
    b',', b':', b'%', b'&', b'=', b'\r', b'\n',
];
/// Numbers at the edges of their ranges.
const EDGES: [u64; 12] = [
    0,
    1,
    0x7f,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    (1 << 53) - 1,
    1 << 62,
    u64::MAX - 1,
    u64::MAX,
];

/// An endless run of changed inputs.
#[derive(Debug)]
pub struct Mutator {
    rng: Rng,
    corpus: Vec<Vec<u8>>,
}

impl Mutator {
    /// Mutations of `corpus`, the same ones for the same seed.
    ///
    /// # Panics
    /// When the corpus is empty.
    #[must_use]
    pub fn new(seed: u64, corpus: Vec<Vec<u8>>) -> Mutator {
        assert!(!corpus.is_empty(), "there is something to mutate");
        Mutator { rng: Rng::with_seed(seed), corpus }
    }

    /// The next input.
    #[allow(clippy::should_implement_trait)] // it never ends, and nobody iterates over it
    pub fn next(&mut self) -> Vec<u8> {
        let mut bytes = self.pick().to_vec();
        for _ in 0..self.rng.usize(1..=CHANGES_MAX) {
            self.change(&mut bytes);
        }
        bytes.truncate(INPUT_BYTES_MAX);
        bytes
    }

    fn pick(&mut self) -> &[u8] {
        let at = self.rng.usize(..self.corpus.len());
        &self.corpus[at]
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            bytes.push(self.rng.u8(..));
            return;
        }
        let at = self.rng.usize(..bytes.len());
        match self.rng.u8(..10) {
            0 => bytes[at] ^= 1 << self.rng.u8(..8),
            1 => bytes[at] = self.rng.u8(..),
            2 => bytes[at] = MEANINGFUL[self.rng.usize(..MEANINGFUL.len())],
            3 => bytes.insert(at, MEANINGFUL[self.rng.usize(..MEANINGFUL.len())]),
            4 => bytes.truncate(at),
            5 => drop(bytes.drain(self.span(at, bytes.len()))),
            6 => {
                let again = bytes[self.span(at, bytes.len())].to_vec();
                bytes.splice(at..at, again);
            }
            7 => self.write_edge(&mut bytes[at..]),
            8 => self.write_digits(bytes, at),
            _ => {
                let other = self.pick();
                let (start, end) = (other.len() / 4, other.len());
                let piece = other[start..end].to_vec();
                let piece = &piece[..self.rng.usize(..=piece.len())];
                bytes.splice(at.., piece.iter().copied());
            }
        }
    }

    /// A short piece from `at` on.
    fn span(&mut self, at: usize, len: usize) -> std::ops::Range<usize> {
        let longest = if self.rng.u8(..8) == 0 { len } else { 16 };
        at..(at + self.rng.usize(1..=longest)).min(len)
    }

    /// Overwrites with a number of 1, 2, 4 or 8 bytes, either end first.
    fn write_edge(&mut self, place: &mut [u8]) {
        let number = EDGES[self.rng.usize(..EDGES.len())];
        let width = 1 << self.rng.usize(..4);
        let mut bytes = number.to_le_bytes()[..width].to_vec();
        if self.rng.bool() {
            bytes.reverse();
        }
        for (byte, new) in place.iter_mut().zip(bytes) {
            *byte = new;
        }
    }

    /// Puts a written number in place of the digits at `at`.
    fn write_digits(&mut self, bytes: &mut Vec<u8>, at: usize) {
        let digits = bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let number = EDGES[self.rng.usize(..EDGES.len())].to_string();
        bytes.splice(at..at + digits, number.into_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn one_seed_makes_the_same_inputs_and_another_makes_others() {
        let run = |seed| {
            let mut mutator = Mutator::new(seed, vec![b"one".to_vec(), vec![0; 100], Vec::new()]);
            (0..200).map(|_| mutator.next()).collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
        assert!(run(1).iter().collect::<HashSet<_>>().len() > 150, "they differ among themselves");
    }

    #[test]
    fn inputs_stay_bounded() {
        let mut mutator = Mutator::new(3, vec![vec![7; INPUT_BYTES_MAX]]);
        assert!((0..500).all(|_| mutator.next().len() <= INPUT_BYTES_MAX));
    }
}
