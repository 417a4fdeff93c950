//! Finding records in the bytes of one segment, intact or not. Pure; any bytes will do.

use tl_types::NodeId;

use crate::format::{ALIGN, HEAD_BYTES, RECORD_HEADER_BYTES, RecordHead, SegmentHead, be_u64};
use crate::record::Position;

/// What lies at an offset where a record may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// An intact record of this segment, at its place.
    Record(RecordHead),
    /// The header is intact and at its place, its data is not.
    DamagedData(RecordHead),
    /// Not a header of this segment, not zeros.
    NoHeader,
    /// Zeros where a header would be: the end, or a write that never arrived.
    Zeros,
    /// No room for a header.
    Full,
}

/// One segment's bytes with its head.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scan<'a> {
    pub head: SegmentHead,
    pub bytes: &'a [u8],
}

impl Scan<'_> {
    /// The log position of a file offset.
    pub fn position(&self, offset: usize) -> Position {
        self.head.first.plus((offset - HEAD_BYTES) as u64)
    }

    /// The file offset of a log position that is one of this segment's.
    pub fn offset(&self, position: Position) -> Option<usize> {
        let offset = position.0.checked_sub(self.head.first.0)?.checked_add(HEAD_BYTES as u64)?;
        usize::try_from(offset).ok().filter(|_| offset <= self.head.segment_bytes)
    }

    /// What lies at `offset`, a multiple of [`ALIGN`] behind the head.
    pub fn at(&self, offset: usize) -> Found {
        if (offset + RECORD_HEADER_BYTES) as u64 > self.head.segment_bytes {
            return Found::Full;
        }
        // A file cut short by someone else reads as damage, not as the end.
        let Some(header) = self.bytes.get(offset..offset + RECORD_HEADER_BYTES) else {
            return Found::NoHeader;
        };
        let Some(record) = self.header(offset) else {
            let zeros = header.iter().all(|byte| *byte == 0);
            return if zeros { Found::Zeros } else { Found::NoHeader };
        };
        let data = &self.bytes[offset + RECORD_HEADER_BYTES..offset + record.record_bytes()];
        if record.data_is_intact(data) { Found::Record(record) } else { Found::DamagedData(record) }
    }

    /// The first offset from `from` on with an intact record, looked for at every place.
    pub fn next_intact(&self, from: usize) -> Option<usize> {
        self.headers(from).find(|offset| matches!(self.at(*offset), Found::Record(_)))
    }

    /// The same for a record of which at least the header is intact.
    pub fn next_header(&self, from: usize) -> Option<usize> {
        self.headers(from)
            .find(|offset| matches!(self.at(*offset), Found::Record(_) | Found::DamagedData(_)))
    }

    /// Where a header may be: two fields decide before any checksum is computed.
    fn headers(&self, from: usize) -> impl Iterator<Item = usize> {
        let end = (self.bytes.len() + 1).saturating_sub(RECORD_HEADER_BYTES);
        (from.next_multiple_of(ALIGN)..end).step_by(ALIGN).filter(|offset| {
            be_u64(&self.bytes[offset + 16..]) == self.head.life
                && be_u64(&self.bytes[offset + 24..]) == self.position(*offset).0
        })
    }

    /// An intact header of this life, at its place, whose data lies within the bytes.
    fn header(&self, offset: usize) -> Option<RecordHead> {
        let record = RecordHead::read(&self.bytes[offset..])?;
        let fits = record.record_bytes() <= self.bytes.len() - offset;
        let here = record.life == self.head.life && record.position == self.position(offset);
        (fits && here && record.mark <= record.position).then_some(record)
    }
}

/// The latest life that any intact record in `bytes` names: for a file whose head is gone.
pub(crate) fn latest_life(bytes: &[u8]) -> Option<u64> {
    let mut latest = None;
    let mut offset = HEAD_BYTES;
    while offset + RECORD_HEADER_BYTES <= bytes.len() {
        if let Some(record) = RecordHead::read(&bytes[offset..]) {
            latest = latest.max(Some(record.life));
        }
        offset += ALIGN;
    }
    latest
}

/// The head of a file whose head is gone, as far as its records tell: they know its life and where
/// they stand in the log. Which segments were needed when it began is not known.
pub(crate) fn head_from_records(bytes: &[u8], owner: NodeId) -> Option<SegmentHead> {
    let life = latest_life(bytes)?;
    let mut offsets = (HEAD_BYTES..bytes.len()).step_by(ALIGN);
    let (offset, record) = offsets.find_map(|offset| {
        let record = RecordHead::read(&bytes[offset..])?;
        (record.life == life).then_some((offset, record))
    })?;
    let first = Position(record.position.0.checked_sub((offset - HEAD_BYTES) as u64)?);
    let segment_bytes = bytes.len() as u64;
    Some(SegmentHead { life, first, start_life: 1, segment_bytes, owner })
}

#[cfg(test)]
mod tests;
