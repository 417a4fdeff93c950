//! Reading entries back, for a peer that lacks what their owner no longer has in memory.
//!
//! ```text
//!   Wal::segments_with ─► Segments (held, so not used again) ─► Reader::read ─► ReadBack
//!     under the log's lock                                        beside it
//! ```
//!
//! A reading goes once over the segments, header by header, for all that is wanted, and takes an
//! entry only if its record is whole and of the term that the asker names. In Raft an index and a
//! term name one entry, so a copy that was overwritten later is passed over wherever it stands. What
//! is damaged ends the reading of whoever needs that segment; what was found before it is given.
//!
//! A group's next entry never stands before its last one, so the reader remembers where it ended and
//! goes on there.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tl_types::{GroupId, Index, Term};

use crate::disk::DiskFile;
use crate::format::{HEAD_BYTES, RECORD_HEADER_BYTES, RecordHead, RecordKind};
use crate::record::Position;
use crate::wal::{Segment, Span};

/// Bytes read from a file at a time, or one record if that is larger.
const BLOCK_BYTES: usize = 256 * 1024;
/// Places remembered; with one more all are forgotten.
const PLACES_MAX: usize = 256;

/// Entries of one group that somebody lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// The group.
    pub group: GroupId,
    /// The first entry.
    pub from: Index,
    /// The last one.
    pub upto: Index,
    /// Their terms: each holds from its index to the next one.
    pub terms: Vec<(Index, Term)>,
    /// Bytes of data that are enough (one entry always goes).
    pub bytes_max: usize,
}

impl Want {
    fn term(&self, index: Index) -> Option<Term> {
        let behind = self.terms.partition_point(|(first, _)| *first <= index);
        behind.checked_sub(1).map(|run| self.terms[run].1)
    }
}

/// What was found of a [`Want`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadBack {
    /// Terms and data of the entries from the first one wanted, without a hole.
    pub entries: Vec<(Term, Bytes)>,
    /// Why there are no more of them, if that is a fault.
    pub trouble: Option<String>,
}

/// Segments that may have what is wanted, oldest first.
#[derive(Debug)]
pub struct Segments(Vec<Part>);

#[derive(Debug)]
struct Part {
    name: String,
    file: Arc<dyn DiskFile>,
    life: u64,
    first: Position,
    /// Offset behind the last record.
    end: u64,
    spans: BTreeMap<GroupId, Span>,
    /// Held for its drop.
    _pin: Arc<()>,
}

impl Segments {
    pub(crate) fn of<'a>(
        all: impl Iterator<Item = (&'a Segment, Position)>,
        wants: &[Want],
    ) -> Segments {
        let parts = all.filter_map(|(segment, end)| {
            let spans: BTreeMap<GroupId, Span> = wants
                .iter()
                .filter_map(|want| Some((want.group, *segment.spans.get(&want.group)?)))
                .collect();
            let part = Part {
                name: segment.spare.name.clone(),
                file: Arc::clone(&segment.spare.file),
                life: segment.life,
                first: segment.first,
                end: HEAD_BYTES as u64 + (end.0 - segment.first.0),
                spans,
                _pin: Arc::clone(&segment.pin),
            };
            wants.iter().any(|want| part.may_have(want, want.from)).then_some(part)
        });
        Segments(parts.collect())
    }
}

impl Part {
    /// Whether some entry of a want from `next` on may be here.
    fn may_have(&self, want: &Want, next: Index) -> bool {
        let span = self.spans.get(&want.group);
        span.is_some_and(|span| span.lowest <= want.upto && span.highest >= next)
    }

    fn position(&self, offset: u64) -> Position {
        self.first.plus(offset - HEAD_BYTES as u64)
    }
}

/// Reads what is wanted, and remembers where it ended.
#[derive(Debug, Default)]
pub struct Reader {
    /// Where the entry behind the last one read may begin: a group, that entry, life and offset.
    places: BTreeMap<(GroupId, Index), (u64, u64)>,
}

impl Reader {
    /// Goes over the segments once. The results are in the order of `wants`.
    pub fn read(&mut self, segments: Segments, wants: &[Want]) -> Vec<ReadBack> {
        let mut finds: Vec<Find<'_>> = wants
            .iter()
            .map(|want| Find::new(want, self.places.remove(&(want.group, want.from))))
            .collect();
        for part in segments.0 {
            if let Err(error) = walk(&part, &mut finds) {
                let trouble = format!("segment {} could not be read: {error}", part.name);
                finds.iter_mut().for_each(|find| find.fail_in(&part, &trouble));
            }
        }
        if self.places.len() + finds.len() > PLACES_MAX {
            self.places.clear();
        }
        for find in &finds {
            if find.bytes > 0 {
                self.places.insert((find.want.group, find.next), find.place);
            }
        }
        finds
            .into_iter()
            .map(|Find { entries, trouble, .. }| ReadBack { entries, trouble })
            .collect()
    }
}

/// How far one want is served.
struct Find<'a> {
    want: &'a Want,
    next: Index,
    entries: Vec<(Term, Bytes)>,
    bytes: usize,
    /// Life and offset before which there is nothing for it.
    place: (u64, u64),
    trouble: Option<String>,
}

impl<'a> Find<'a> {
    fn new(want: &'a Want, place: Option<(u64, u64)>) -> Find<'a> {
        let place = place.unwrap_or_default();
        Find { want, next: want.from, entries: Vec::new(), bytes: 0, place, trouble: None }
    }

    fn is_open(&self) -> bool {
        self.next <= self.want.upto && self.bytes < self.want.bytes_max && self.trouble.is_none()
    }

    /// The offset from which on a segment may have something for it.
    fn begins_in(&self, part: &Part) -> Option<u64> {
        let (life, offset) = self.place;
        if !self.is_open() || life > part.life || !part.may_have(self.want, self.next) {
            return None;
        }
        Some(if life == part.life { offset } else { HEAD_BYTES as u64 })
    }

    fn wants(&self, record: &RecordHead) -> bool {
        record.group == self.want.group
            && record.index == self.next
            && self.is_open()
            && self.want.term(self.next) == Some(record.term)
    }

    fn take(&mut self, term: Term, data: &[u8], behind: (u64, u64)) {
        // A copy: a slice would keep the whole block in memory.
        self.entries.push((term, Bytes::copy_from_slice(data)));
        // An empty entry is one too.
        self.bytes += data.len().max(1);
        self.next = Index(self.next.0 + 1);
        self.place = behind;
    }

    fn fail_in(&mut self, part: &Part, trouble: &str) {
        if self.begins_in(part).is_some() {
            self.trouble = Some(trouble.to_owned());
        }
    }
}

/// Goes over one segment, for those that may find something in it.
fn walk(part: &Part, finds: &mut [Find<'_>]) -> io::Result<()> {
    let begins = finds.iter().filter_map(|find| find.begins_in(part)).min();
    let Some(mut offset) = begins else { return Ok(()) };
    let mut window = Window { file: part.file.as_ref(), start: 0, bytes: Vec::new() };
    let header_bytes = RECORD_HEADER_BYTES as u64;
    let mut has_found = false;
    while offset + header_bytes <= part.end {
        if has_found && !finds.iter().any(|find| find.begins_in(part).is_some()) {
            return Ok(());
        }
        has_found = false;
        let header = window.get(offset, RECORD_HEADER_BYTES, part.end)?;
        let record = RecordHead::read(header).filter(|record| {
            let ends_within = offset + record.record_bytes() as u64 <= part.end;
            record.life == part.life && record.position == part.position(offset) && ends_within
        });
        let Some(record) = record else {
            let trouble = format!("damaged record header in {} at byte {offset}", part.name);
            finds.iter_mut().for_each(|find| find.fail_in(part, &trouble));
            return Ok(());
        };
        let end = offset + record.record_bytes() as u64;
        if record.kind == RecordKind::Entry as u8 {
            for find in finds.iter_mut().filter(|find| find.wants(&record)) {
                let bytes = window.get(offset, record.record_bytes(), part.end)?;
                let data = &bytes[RECORD_HEADER_BYTES..];
                has_found = true;
                if record.data_is_intact(data) {
                    find.take(record.term, &data[..record.data_bytes as usize], (part.life, end));
                } else {
                    let at = format!("damaged record data in {} at byte {offset}", part.name);
                    find.trouble = Some(at);
                }
            }
        }
        offset = end;
    }
    Ok(())
}

/// A piece of a file.
struct Window<'a> {
    file: &'a dyn DiskFile,
    start: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// So many bytes at an offset, with those behind them read along up to `end`.
    fn get(&mut self, offset: u64, bytes: usize, end: u64) -> io::Result<&[u8]> {
        let is_here =
            offset >= self.start && offset + bytes as u64 <= self.start + self.bytes.len() as u64;
        if !is_here {
            let left = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX);
            self.bytes.resize(left.min(BLOCK_BYTES).max(bytes), 0);
            self.start = offset;
            let mut filled = 0;
            while filled < self.bytes.len() {
                match self.file.read_at(&mut self.bytes[filled..], offset + filled as u64) {
                    Ok(0) => break,
                    Ok(n) => filled += n,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            self.bytes.truncate(filled);
            if filled < bytes {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let at = usize::try_from(offset - self.start).expect("within a window");
        Ok(&self.bytes[at..at + bytes])
    }
}

#[cfg(test)]
mod tests;
