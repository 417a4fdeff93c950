//! Encoding one job into a buffer that is used again.

use tl_types::{GroupId, Index, Term};

use crate::format::{
    Content, FLAG_FIRST, FLAG_LAST, Place, RECORD_HEADER_BYTES, RecordKind, put_record,
};
use crate::record::Position;

/// The buffer is given back beyond this.
const BUFFER_KEPT_BYTES: usize = 4 * 1024 * 1024;

/// Records that are written together.
#[derive(Debug, Default)]
pub(crate) struct Job {
    bytes: Vec<u8>,
    life: u64,
    start: Position,
    mark: Position,
    /// Records still to come; the last one ends the job.
    left: usize,
}

impl Job {
    /// Starts a job of exactly `records` records.
    pub fn begin(&mut self, life: u64, start: Position, mark: Position, records: usize) {
        self.bytes.clear();
        (self.life, self.start, self.mark, self.left) = (life, start, mark, records);
    }

    /// Adds the next record.
    pub fn put(&mut self, content: &Content<'_>, flags: u8) {
        let first = if self.bytes.is_empty() { FLAG_FIRST } else { 0 };
        self.left = self.left.checked_sub(1).expect("a job is begun with its number of records");
        let last = if self.left == 0 { FLAG_LAST } else { 0 };
        let place = Place {
            life: self.life,
            position: self.start.plus(self.bytes.len() as u64),
            mark: self.mark,
            flags: flags | first | last,
        };
        put_record(&mut self.bytes, content, &place);
    }

    /// Size of the job.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The whole job, with zeros behind it where at most `room` bytes are: they show a replay
    /// where the log ends, even in a file full of older bytes.
    pub fn finish(&mut self, room: u64) -> &[u8] {
        assert_eq!(self.left, 0, "a job is written whole");
        let zeros = (RECORD_HEADER_BYTES as u64).min(room.saturating_sub(self.bytes.len() as u64));
        self.bytes.resize(self.bytes.len() + zeros as usize, 0);
        &self.bytes
    }

    /// Frees what a rare large job left behind.
    pub fn shrink(&mut self) {
        if self.bytes.capacity() > BUFFER_KEPT_BYTES {
            self.bytes = Vec::new();
        }
    }
}

/// A record of the log itself: no data, and a life where it has one.
pub(crate) fn bare(kind: RecordKind, life: u64) -> Content<'static> {
    Content { kind, group: GroupId(0), term: Term(0), index: Index(life), data: &[] }
}
