//! What a session remembers of one producer: its last accepted writes, by which a retry is
//! recognised and answered with its first positions.
//!
//! ```text
//! row = version u8 ‖ age seq u64 ‖ count u8 ‖ count × write       (oldest write first)
//! write = first u64 ‖ length varint ‖ first seq u64 ‖ algorithm u8 ‖ hash u128
//! ```
//!
//! A write is one append, single or batch. Writes are contiguous: each starts where the one
//! before it ended. The age seq is a seq that the producer wrote, the last one or one that is not
//! long ago; it stands in the session's order of ages, whose first row is the producer to forget
//! when there are too many.

use bytes::Bytes;
use smallvec::SmallVec;
use tl_types::Seq;
use tl_types::bytes_codec::{DecodeError, Scan, put_varint};
use tl_types::limits::PRODUCER_WRITES_KEPT;

use crate::entry::ContentHash;

const VERSION: u8 = 1;
/// Bytes in front of the writes.
const HEAD_BYTES: usize = 10;
/// Most bytes of one write.
const WRITE_BYTES_MAX: usize = 48;

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

/// A producer's row, checked; its writes stay as they were read, for most are only carried on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProducerRow {
    pub(crate) age_seq: Seq,
    /// The position that comes next.
    next: u64,
    count: u8,
    writes: Bytes,
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
        row.map_or(1, |row| row.next)
    }

    /// The remembered writes, oldest first; never none.
    pub(crate) fn writes(&self) -> impl Iterator<Item = Write> + '_ {
        let mut scan = Scan::new(&self.writes);
        (0..self.count).map(move |_| read(&mut scan).expect("checked when the row was read"))
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
        let mut writes = row.into_iter().flat_map(ProducerRow::writes);
        match writes.find(|write| write.first == first && write.last == last) {
            Some(write) if write.hash == hash => Verdict::Duplicate(write.first_seq),
            Some(_) => Verdict::Replay,
            None => Verdict::OutOfLine,
        }
    }

    /// The row that also remembers this write; the oldest one goes when there are too many.
    pub(crate) fn encode_with(row: Option<&ProducerRow>, age_seq: Seq, write: Write) -> Bytes {
        let (kept, count) = row.map_or((&[][..], 0), ProducerRow::carried);
        let mut new: SmallVec<[u8; WRITE_BYTES_MAX]> = SmallVec::new();
        new.extend_from_slice(&write.first.to_be_bytes());
        put_varint(&mut new, write.last - write.first);
        new.extend_from_slice(&write.first_seq.0.to_be_bytes());
        new.push(write.hash.algorithm);
        new.extend_from_slice(&write.hash.value.to_be_bytes());
        // Of the right size at once: spare room would stay with the row.
        let mut row = Vec::with_capacity(HEAD_BYTES + kept.len() + new.len());
        row.push(VERSION);
        row.extend_from_slice(&age_seq.0.to_be_bytes());
        row.push(count + 1);
        row.extend_from_slice(kept);
        row.extend_from_slice(&new);
        row.into()
    }

    /// What stays when one more write joins, and how many writes that are.
    fn carried(&self) -> (&[u8], u8) {
        if usize::from(self.count) < PRODUCER_WRITES_KEPT {
            return (&self.writes, self.count);
        }
        let mut scan = Scan::new(&self.writes);
        read(&mut scan).expect("checked when the row was read");
        (scan.rest(), self.count - 1)
    }

    pub(crate) fn decode(row: &Bytes) -> Result<ProducerRow, DecodeError> {
        let mut scan = Scan::new(row);
        let version = scan.u8()?;
        if version != VERSION {
            return Err(DecodeError::Unknown { what: "producer version", value: version.into() });
        }
        let age_seq = Seq(scan.u64()?);
        let count = scan.u8()?;
        if !(1..=PRODUCER_WRITES_KEPT).contains(&usize::from(count)) {
            return Err(DecodeError::Malformed("producer: number of writes"));
        }
        let writes = scan.rest();
        let mut last = 0;
        for _ in 0..count {
            last = read(&mut scan)?.last;
        }
        let writes = scan.shared(&writes[..writes.len() - scan.rest().len()]);
        Ok(ProducerRow { age_seq, next: last + 1, count, writes })
    }
}

fn read(scan: &mut Scan<'_>) -> Result<Write, DecodeError> {
    let first = scan.u64()?;
    let last = first.checked_add(scan.varint()?).filter(|last| *last < u64::MAX);
    Ok(Write {
        first,
        last: last.ok_or(DecodeError::Malformed("producer: range of a write"))?,
        first_seq: Seq(scan.u64()?),
        hash: ContentHash { algorithm: scan.u8()?, value: u128::from_be_bytes(scan.array()?) },
    })
}

#[cfg(test)]
mod tests;
