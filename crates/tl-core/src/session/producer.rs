//! What a session remembers of one producer: its last accepted writes, by which a retry is
//! recognised and answered with its first positions.
//!
//! ```text
//! row = version u8 ‖ age seq u64 ‖ count u8 ‖ count × write       (oldest write first)
//! write = first u64 ‖ length varint ‖ first seq u64 ‖ algorithm u8 ‖ hash u128
//! ```
//!
//! A write is one append, single or batch. Writes are contiguous: each starts where the one
//! before it ended. The age seq is the last seq the producer wrote; it stands in the session's
//! order of ages, whose first row is the producer to forget when there are too many.

use bytes::Bytes;
use smallvec::SmallVec;
use tl_types::Seq;
use tl_types::bytes_codec::{DecodeError, Reader, put_varint};
use tl_types::limits::PRODUCER_WRITES_KEPT;

use crate::entry::ContentHash;

const VERSION: u8 = 1;

/// One accepted write of a producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Write {
    /// First producer position.
    pub(crate) first: u64,
    /// Last producer position.
    pub(crate) last: u64,
    /// Position in the session of the first event.
    pub(crate) first_seq: Seq,
    /// What the write was.
    pub(crate) hash: ContentHash,
}

/// A producer's row, decoded; never without a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProducerRow {
    pub(crate) age_seq: Seq,
    pub(crate) writes: SmallVec<[Write; PRODUCER_WRITES_KEPT]>,
}

/// How a write stands to what is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Next in line.
    New,
    /// Accepted before, with its first event there.
    Duplicate(Seq),
    /// The positions of a remembered write, other content.
    Replay,
    /// Anything else: a gap, a partial overlap, or older than what is remembered.
    OutOfLine,
}

impl ProducerRow {
    /// The position this producer must use next; 1 for one that is not remembered.
    pub(crate) fn expected(row: Option<&ProducerRow>) -> u64 {
        row.and_then(|row| row.writes.last()).map_or(1, |write| write.last + 1)
    }

    /// Judges a write of positions `first..=last`.
    pub(crate) fn judge(
        row: Option<&ProducerRow>,
        first: u64,
        last: u64,
        hash: ContentHash,
    ) -> Verdict {
        if first == ProducerRow::expected(row) {
            return Verdict::New;
        }
        let writes = row.map_or(&[][..], |row| &row.writes);
        match writes.iter().find(|write| write.first == first && write.last == last) {
            Some(write) if write.hash == hash => Verdict::Duplicate(write.first_seq),
            Some(_) => Verdict::Replay,
            None => Verdict::OutOfLine,
        }
    }

    /// Remembers a write; the oldest goes when there are too many.
    pub(crate) fn push(&mut self, write: Write) {
        if self.writes.len() == PRODUCER_WRITES_KEPT {
            self.writes.remove(0);
        }
        self.writes.push(write);
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut row = Vec::with_capacity(16 + self.writes.len() * 40);
        row.push(VERSION);
        row.extend_from_slice(&self.age_seq.0.to_be_bytes());
        row.push(self.writes.len() as u8);
        for write in &self.writes {
            row.extend_from_slice(&write.first.to_be_bytes());
            put_varint(&mut row, write.last - write.first);
            row.extend_from_slice(&write.first_seq.0.to_be_bytes());
            row.push(write.hash.algorithm);
            row.extend_from_slice(&write.hash.value.to_be_bytes());
        }
        row.into()
    }

    pub(crate) fn decode(row: Bytes) -> Result<ProducerRow, DecodeError> {
        let mut reader = Reader::new(row);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(DecodeError::Unknown { what: "producer version", value: version.into() });
        }
        let age_seq = Seq(reader.u64()?);
        let count = usize::from(reader.u8()?);
        if !(1..=PRODUCER_WRITES_KEPT).contains(&count) {
            return Err(DecodeError::Malformed("producer: number of writes"));
        }
        let mut writes = SmallVec::new();
        for _ in 0..count {
            let first = reader.u64()?;
            let last = first.checked_add(reader.varint()?).filter(|last| *last < u64::MAX);
            writes.push(Write {
                first,
                last: last.ok_or(DecodeError::Malformed("producer: range of a write"))?,
                first_seq: Seq(reader.u64()?),
                hash: ContentHash {
                    algorithm: reader.u8()?,
                    value: u128::from_be_bytes(reader.array()?),
                },
            });
        }
        Ok(ProducerRow { age_seq, writes })
    }
}

#[cfg(test)]
mod tests;
