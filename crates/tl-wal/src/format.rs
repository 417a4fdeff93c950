//! Bytes of segments and records, version 1. All integers are big-endian.
//!
//! ```text
//! segment file   0      head, first copy        2048   head, second copy
//!                4096   records, each on an 8-byte boundary, then zeros or stale bytes
//!
//! head, 64 B     0 magic "TLWALSEG"   8 version u32   12 life u64      20 first position u64
//!                28 start life u64   36 segment bytes u64   44 owner 16 B   60 crc u32 of 0..60
//!
//! record         0 crc u32 of 4..56   4 crc u32 of data and padding    8 data length u32
//!                12 kind u8   13 flags u8   14 group u16   16 life u64   24 position u64
//!                32 mark u64  40 term u64   48 index u64   56 data, zeros up to 8 bytes
//! ```
//!
//! Both checksums of a record start from the segment's life, and the header repeats life and
//! position, so bytes left over from an earlier life of the file never pass for a record. The
//! header has a checksum of its own: when only data is damaged, group and length still hold.
//! *Mark* is the position up to which the log was durable when the record was written.
//!
//! Every version keeps magic, version, the 64-byte head and the place of its checksum, so that
//! an older release can tell "newer" from "damaged". A new version changes anything else.

use tl_types::{GroupId, Index, NodeId, Term};

use crate::record::Position;

/// The version written, and the only one read.
pub(crate) const VERSION: u32 = 1;
/// Bytes before the first record of a segment.
pub(crate) const HEAD_BYTES: usize = 4096;
/// Where the two copies of the head lie: in different sectors, so that one fault spares one.
pub(crate) const HEAD_COPIES: [usize; 2] = [0, 2048];
/// Bytes of one copy of the head.
pub(crate) const HEAD_COPY_BYTES: usize = 64;
/// Bytes of a record's header.
pub(crate) const RECORD_HEADER_BYTES: usize = 56;
/// Records start on multiples of this.
pub(crate) const ALIGN: usize = 8;

const MAGIC: [u8; 8] = *b"TLWALSEG";

/// First record of a job.
pub(crate) const FLAG_FIRST: u8 = 1;
/// Last record of a job.
pub(crate) const FLAG_LAST: u8 = 2;
/// Part of the job at the head of a segment that repeats what is known of every group.
pub(crate) const FLAG_STATE: u8 = 4;

/// What a record is. Numbers are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKind {
    /// A Raft entry.
    Entry = 1,
    /// Term and vote of a group.
    HardState = 2,
    /// Membership of a group.
    Membership = 3,
    /// A snapshot of a group was installed.
    Installed = 4,
    /// No content: carries the durable mark.
    Mark = 5,
    /// Segments with a life below `index` are no longer needed.
    Start = 6,
    /// Last record of a segment: the segment with life `index` follows.
    Next = 7,
}

impl RecordKind {
    pub(crate) fn from_u8(value: u8) -> Option<RecordKind> {
        Some(match value {
            1 => RecordKind::Entry,
            2 => RecordKind::HardState,
            3 => RecordKind::Membership,
            4 => RecordKind::Installed,
            5 => RecordKind::Mark,
            6 => RecordKind::Start,
            7 => RecordKind::Next,
            _ => return None,
        })
    }
}

/// Head of a segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHead {
    /// Which use of which file this is: from 1, one more for each segment of the log; 0 = a
    /// prepared file that has never been used.
    pub life: u64,
    /// Position of the first record.
    pub first: Position,
    /// The oldest life still needed when this segment began.
    pub start_life: u64,
    /// Size of the file; records end within it.
    pub segment_bytes: u64,
    /// The node that wrote it.
    pub owner: NodeId,
}

/// What one or both copies of a head say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeadRead {
    /// Readable; `whole` when both copies say the same.
    Known { head: SegmentHead, whole: bool },
    /// Intact, but of a version that this release does not know.
    Unsupported(u32),
    /// No copy is intact.
    Unreadable,
}

impl SegmentHead {
    /// The whole head area with both copies.
    pub fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut copy = [0; HEAD_COPY_BYTES];
        copy[..8].copy_from_slice(&MAGIC);
        copy[8..12].copy_from_slice(&VERSION.to_be_bytes());
        copy[12..20].copy_from_slice(&self.life.to_be_bytes());
        copy[20..28].copy_from_slice(&self.first.0.to_be_bytes());
        copy[28..36].copy_from_slice(&self.start_life.to_be_bytes());
        copy[36..44].copy_from_slice(&self.segment_bytes.to_be_bytes());
        copy[44..60].copy_from_slice(&self.owner.0);
        let crc = crc32fast::hash(&copy[..60]);
        copy[60..].copy_from_slice(&crc.to_be_bytes());
        let mut area = [0; HEAD_BYTES];
        for at in HEAD_COPIES {
            area[at..at + HEAD_COPY_BYTES].copy_from_slice(&copy);
        }
        area
    }

    /// Reads a head area of any length. Of two intact copies that differ, a half-finished
    /// reuse of the file, the later life wins.
    pub fn read(area: &[u8]) -> HeadRead {
        let copies = HEAD_COPIES.map(|at| {
            area.get(at..at + HEAD_COPY_BYTES).map_or(HeadRead::Unreadable, SegmentHead::read_copy)
        });
        match copies {
            [HeadRead::Known { head: a, .. }, HeadRead::Known { head: b, .. }] => {
                let head = if a.life >= b.life { a } else { b };
                HeadRead::Known { head, whole: a == b }
            }
            [known @ HeadRead::Known { .. }, _] | [_, known @ HeadRead::Known { .. }] => known,
            [newer @ HeadRead::Unsupported(_), _] | [_, newer] => newer,
        }
    }

    fn read_copy(copy: &[u8]) -> HeadRead {
        if copy[..8] != MAGIC || crc32fast::hash(&copy[..60]) != be_u32(&copy[60..]) {
            return HeadRead::Unreadable;
        }
        let version = be_u32(&copy[8..]);
        if version != VERSION {
            return HeadRead::Unsupported(version);
        }
        let mut owner = [0; 16];
        owner.copy_from_slice(&copy[44..60]);
        let head = SegmentHead {
            life: be_u64(&copy[12..]),
            first: Position(be_u64(&copy[20..])),
            start_life: be_u64(&copy[28..]),
            segment_bytes: be_u64(&copy[36..]),
            owner: NodeId(owner),
        };
        HeadRead::Known { head, whole: false }
    }
}

/// Header of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordHead {
    pub kind: u8,
    pub flags: u8,
    pub group: GroupId,
    pub life: u64,
    pub position: Position,
    pub mark: Position,
    pub term: Term,
    pub index: Index,
    pub data_bytes: u32,
    pub data_crc: u32,
}

impl RecordHead {
    /// Reads a header if its own checksum holds, whatever life it names.
    pub fn read(bytes: &[u8]) -> Option<RecordHead> {
        let bytes = bytes.get(..RECORD_HEADER_BYTES)?;
        let life = be_u64(&bytes[16..]);
        if life == 0 || seeded_crc(life, &[&bytes[4..]]) != be_u32(bytes) {
            return None;
        }
        Some(RecordHead {
            data_crc: be_u32(&bytes[4..]),
            data_bytes: be_u32(&bytes[8..]),
            kind: bytes[12],
            flags: bytes[13],
            group: GroupId(u16::from_be_bytes([bytes[14], bytes[15]])),
            life,
            position: Position(be_u64(&bytes[24..])),
            mark: Position(be_u64(&bytes[32..])),
            term: Term(be_u64(&bytes[40..])),
            index: Index(be_u64(&bytes[48..])),
        })
    }

    /// Header, data and padding.
    pub fn record_bytes(&self) -> usize {
        record_bytes(self.data_bytes as usize)
    }

    /// Whether `data_and_padding` are the bytes that were written.
    pub fn data_is_intact(&self, data_and_padding: &[u8]) -> bool {
        seeded_crc(self.life, &[data_and_padding]) == self.data_crc
    }
}

/// Size of a record with so much data.
pub(crate) fn record_bytes(data_bytes: usize) -> usize {
    RECORD_HEADER_BYTES + data_bytes.next_multiple_of(ALIGN)
}

/// What a record says, before it has a place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Content<'a> {
    pub kind: RecordKind,
    pub group: GroupId,
    pub term: Term,
    pub index: Index,
    pub data: &'a [u8],
}

/// Where a record goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub life: u64,
    pub position: Position,
    pub mark: Position,
    pub flags: u8,
}

/// Appends one record's bytes.
pub(crate) fn put_record(out: &mut Vec<u8>, content: &Content<'_>, place: &Place) {
    let data_bytes = u32::try_from(content.data.len()).expect("the size was checked on append");
    let padding = &[0; ALIGN][..content.data.len().next_multiple_of(ALIGN) - content.data.len()];
    let mut head = [0; RECORD_HEADER_BYTES];
    let data_crc = seeded_crc(place.life, &[content.data, padding]);
    head[4..8].copy_from_slice(&data_crc.to_be_bytes());
    head[8..12].copy_from_slice(&data_bytes.to_be_bytes());
    head[12] = content.kind as u8;
    head[13] = place.flags;
    head[14..16].copy_from_slice(&content.group.0.to_be_bytes());
    head[16..24].copy_from_slice(&place.life.to_be_bytes());
    head[24..32].copy_from_slice(&place.position.0.to_be_bytes());
    head[32..40].copy_from_slice(&place.mark.0.to_be_bytes());
    head[40..48].copy_from_slice(&content.term.0.to_be_bytes());
    head[48..56].copy_from_slice(&content.index.0.to_be_bytes());
    let crc = seeded_crc(place.life, &[&head[4..]]);
    head[..4].copy_from_slice(&crc.to_be_bytes());
    out.extend_from_slice(&head);
    out.extend_from_slice(content.data);
    out.extend_from_slice(padding);
}

fn seeded_crc(life: u64, parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial((life ^ (life >> 32)) as u32);
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize()
}

fn be_u32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

pub(crate) fn be_u64(bytes: &[u8]) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[..8]);
    u64::from_be_bytes(eight)
}

#[cfg(test)]
mod tests;
