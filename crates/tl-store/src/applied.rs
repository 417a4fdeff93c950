//! How far the rows of a group follow its log.

use bytes::Bytes;
use tl_types::bytes_codec::Reader;
use tl_types::{Generation, Index, Term};

/// Layout of an applied row; a next version adds fields behind these and a new number.
const VERSION: u8 = 1;

/// The last log entry whose writes are in the rows, and the generation that is live.
///
/// The default, index 0, stands for a group the store has never heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Applied {
    /// Index of the entry.
    pub index: Index,
    /// Term of the entry.
    pub term: Term,
    /// The generation it was written under.
    pub generation: Generation,
}

impl Applied {
    /// The row's value: `version u8 ‖ index u64 ‖ term u64 ‖ generation u32`, big-endian.
    pub(crate) fn encode(self) -> Bytes {
        let mut out = Vec::with_capacity(21);
        out.push(VERSION);
        out.extend_from_slice(&self.index.0.to_be_bytes());
        out.extend_from_slice(&self.term.0.to_be_bytes());
        out.extend_from_slice(&self.generation.0.to_be_bytes());
        Bytes::from(out)
    }

    /// Reads the value back; `None` when it is not one.
    pub(crate) fn decode(value: Bytes) -> Option<Applied> {
        let mut reader = Reader::new(value);
        if reader.u8().ok()? != VERSION {
            return None;
        }
        let applied = Applied {
            index: Index(reader.u64().ok()?),
            term: Term(reader.u64().ok()?),
            generation: Generation(reader.u32().ok()?),
        };
        reader.is_empty().then_some(applied)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn applied_row_has_its_golden_bytes_and_reads_back() {
        let applied = Applied { index: Index(258), term: Term(3), generation: Generation(7) };
        let golden = [1, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 7];
        assert_eq!(applied.encode(), golden.as_slice());
        assert_eq!(Applied::decode(applied.encode()), Some(applied));
    }

    #[test]
    fn anything_but_an_applied_row_is_refused() {
        let good = Applied::default().encode();
        for length in 0..good.len() {
            assert_eq!(Applied::decode(good.slice(..length)), None);
        }
        let mut long = good.to_vec();
        long.push(0);
        assert_eq!(Applied::decode(long.into()), None);
        let mut other = good.to_vec();
        other[0] = 2;
        assert_eq!(Applied::decode(other.into()), None);
    }
}
