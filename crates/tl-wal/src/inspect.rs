//! Looking into a log without opening it: read-only, without its lock, whatever the damage.
//!
//! Every segment file is listed, and every place in it where a record is or should be. Nothing
//! is judged here beyond "intact or not": whether damage matters is decided on opening.

use std::io;

use tl_types::{GroupId, Index, NodeId, Term};

use crate::disk::{Disk, DiskFile, read_up_to};
use crate::format::{FLAG_STATE, HEAD_BYTES, HeadRead, RecordHead, SegmentHead};
use crate::options::SEGMENT_BYTES_MAX;
use crate::pool::file_number;
use crate::record::Position;
use crate::scan::{Found, Scan, latest_life};

pub use crate::format::RecordKind;

/// One segment file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentInfo {
    /// File name.
    pub name: String,
    /// Length of the file.
    pub file_bytes: u64,
    /// What its head says.
    pub head: HeadInfo,
}

/// What the head of a segment file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeadInfo {
    /// In use, or released and not yet used again.
    Used {
        /// Which use of a file this is; segments follow each other by it.
        life: u64,
        /// Position of the first record.
        first: Position,
        /// The oldest life still needed when this segment began.
        start_life: u64,
        /// The node that wrote it.
        owner: NodeId,
        /// Both copies of the head are intact and agree.
        whole: bool,
    },
    /// Prepared and never used.
    Spare,
    /// Zeros only: a file that is being made, or was when its process ended. Its head is written
    /// last.
    Unfinished,
    /// Written by a release that this one does not know.
    Unsupported {
        /// Its format version.
        version: u32,
    },
    /// No copy of the head is intact.
    Unreadable {
        /// The latest life that intact record headers in the file name.
        latest_life: Option<u64>,
    },
}

/// One place in a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordInfo {
    /// Byte in the file.
    pub at_bytes: u64,
    /// Position in the log.
    pub position: Position,
    /// What lies there.
    pub status: Status,
}

/// What lies at a place in a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// An intact record.
    Intact(Facts),
    /// A record whose header is intact and whose data is not.
    DamagedData(Facts),
    /// Unreadable bytes up to the next intact record.
    Unreadable {
        /// How many.
        bytes: u64,
    },
    /// Nothing of this life from here on. The log's last segment ends so; `zeros` is false when
    /// something else than zeros lies there, which may be a torn write or a damaged record.
    End {
        /// Zeros are here, as a finished job leaves them.
        zeros: bool,
    },
}

/// What a record's header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// What the record is; `None` for a kind that this release does not know.
    pub kind: Option<RecordKind>,
    /// The group; 0 in records of the log itself.
    pub group: GroupId,
    /// Term, where the kind has one.
    pub term: Term,
    /// Index, where the kind has one; a life in records of the log itself.
    pub index: Index,
    /// Bytes of data.
    pub data_bytes: u32,
    /// The log was durable up to here when this was written.
    pub mark: Position,
    /// Repeats earlier state at the head of a segment.
    pub repeated: bool,
}

/// All segment files, in log order; files whose place is unknown come last.
///
/// # Errors
/// What the file system says.
pub fn segments(disk: &dyn Disk) -> io::Result<Vec<SegmentInfo>> {
    let mut segments = Vec::new();
    for info in disk.list()? {
        if file_number(&info.name).is_none() {
            continue;
        }
        let file = match disk.open(&info.name) {
            Ok(file) => file,
            // A running node removes files that it no longer wants.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let head = head_info(file.as_ref())?;
        segments.push(SegmentInfo { name: info.name, file_bytes: info.bytes, head });
    }
    segments.sort_by_key(|segment| match segment.head {
        HeadInfo::Used { life, .. } => life,
        HeadInfo::Unsupported { .. }
        | HeadInfo::Unreadable { .. }
        | HeadInfo::Spare
        | HeadInfo::Unfinished => u64::MAX,
    });
    Ok(segments)
}

fn head_info(file: &dyn DiskFile) -> io::Result<HeadInfo> {
    let known = known_head(&read_up_to(file, HEAD_BYTES)?);
    if let Some(info) = known {
        return Ok(info);
    }
    let bytes = read_up_to(file, SEGMENT_BYTES_MAX as usize)?;
    // A running node may have written the head in between.
    Ok(known_head(&bytes).unwrap_or_else(|| {
        if bytes.iter().all(|byte| *byte == 0) {
            HeadInfo::Unfinished
        } else {
            HeadInfo::Unreadable { latest_life: latest_life(&bytes) }
        }
    }))
}

/// `None` when no copy of the head is intact.
fn known_head(area: &[u8]) -> Option<HeadInfo> {
    match SegmentHead::read(area) {
        HeadRead::Known { head, .. } if head.life == 0 => Some(HeadInfo::Spare),
        HeadRead::Known { head, whole } => Some(HeadInfo::Used {
            life: head.life,
            first: head.first,
            start_life: head.start_life,
            owner: head.owner,
            whole,
        }),
        HeadRead::Unsupported(version) => Some(HeadInfo::Unsupported { version }),
        HeadRead::Unreadable => None,
    }
}

/// Everything in one segment file, in order; nothing when its head cannot be read or the file
/// was never used. The segment is held in memory while the iterator lives.
///
/// # Errors
/// What the file system says.
pub fn records(disk: &dyn Disk, name: &str) -> io::Result<Records> {
    let file = disk.open(name)?;
    let bytes = read_up_to(file.as_ref(), SEGMENT_BYTES_MAX as usize)?;
    let head = match SegmentHead::read(&bytes) {
        HeadRead::Known { head, .. } if head.life > 0 => Some(head),
        HeadRead::Known { .. } | HeadRead::Unsupported(_) | HeadRead::Unreadable => None,
    };
    Ok(Records { head, bytes, offset: HEAD_BYTES })
}

/// The places of one segment, in order.
#[derive(Debug)]
pub struct Records {
    /// `None` once the end was reached.
    head: Option<SegmentHead>,
    bytes: Vec<u8>,
    offset: usize,
}

impl Iterator for Records {
    type Item = RecordInfo;

    fn next(&mut self) -> Option<RecordInfo> {
        let scan = Scan { head: self.head?, bytes: &self.bytes };
        let offset = self.offset;
        let found = scan.at(offset);
        let (status, step) = match found {
            Found::Full => {
                self.head = None;
                return None;
            }
            Found::Record(record) => (Status::Intact(facts(&record)), record.record_bytes()),
            Found::DamagedData(record) => {
                (Status::DamagedData(facts(&record)), record.record_bytes())
            }
            Found::NoHeader | Found::Zeros => match scan.next_intact(offset + 1) {
                Some(next) => {
                    let bytes = next - offset;
                    (Status::Unreadable { bytes: bytes as u64 }, bytes)
                }
                None => (Status::End { zeros: found == Found::Zeros }, 0),
            },
        };
        let info = RecordInfo { at_bytes: offset as u64, position: scan.position(offset), status };
        if step == 0 {
            self.head = None;
        }
        self.offset += step;
        Some(info)
    }
}

/// The places of all records that the log proves to have been confirmed, intact or not, oldest
/// first, each with the name of its file: what an opening hands over or calls damaged.
///
/// # Errors
/// What the file system says.
pub fn confirmed(disk: &dyn Disk) -> io::Result<Vec<(String, RecordInfo)>> {
    let mut log: Vec<(u64, Position, String)> = Vec::new();
    // What lies before it is released.
    let mut needed = 0;
    for segment in segments(disk)? {
        if let HeadInfo::Used { life, first, start_life, .. } = segment.head {
            needed = start_life.max(needed);
            log.push((life, first, segment.name));
        }
    }
    log.retain(|(life, ..)| *life >= needed);
    let ends: Vec<Position> =
        log.iter().skip(1).map(|(_, first, _)| *first).chain([Position(u64::MAX)]).collect();
    let mut confirmed = log.iter().map(|(_, first, _)| *first).max().unwrap_or_default();
    let mut places = Vec::new();
    for ((_, _, name), end) in log.into_iter().zip(ends) {
        for place in records(disk, &name)?.take_while(|place| place.position < end) {
            match &place.status {
                Status::Intact(facts) | Status::DamagedData(facts) => {
                    confirmed = confirmed.max(facts.mark);
                }
                Status::Unreadable { .. } => {}
                Status::End { .. } => break,
            }
            places.push((name.clone(), place));
        }
    }
    places.retain(|(_, place)| place.position < confirmed);
    Ok(places)
}

fn facts(record: &RecordHead) -> Facts {
    Facts {
        kind: RecordKind::from_u8(record.kind),
        group: record.group,
        term: record.term,
        index: record.index,
        data_bytes: record.data_bytes,
        mark: record.mark,
        repeated: record.flags & FLAG_STATE != 0,
    }
}
