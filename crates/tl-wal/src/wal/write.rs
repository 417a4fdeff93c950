//! How jobs and segments get written.
//!
//! Beginning a segment takes four steps in this order, so that a crash between any two leaves
//! a log that opens: the full segment is synced; the new one's head is written and synced; the
//! full one gets a last record that names the new life, and is synced; the new one gets the
//! state of every group. Hence a record in a segment proves that its head was durable and that
//! everything before it was; and a last record proves that a next segment was there.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use tl_types::Index;

use super::job::bare;
use super::{Segment, Wal};
use crate::disk::write_all_at;
use crate::error::WalError;
use crate::format::{
    FLAG_STATE, HEAD_BYTES, RECORD_HEADER_BYTES, RecordKind, SegmentHead, record_bytes,
};
use crate::options::MEMBERSHIP_BYTES_MAX;
use crate::pool::Spare;
use crate::record::{Position, Record};
use crate::states::{Small, content, data_bytes};

/// Bytes of a record without data.
pub(crate) const BARE_BYTES: u64 = RECORD_HEADER_BYTES as u64;
/// Kept free at the end of every segment for the record that names the next one.
const RESERVE_BYTES: u64 = BARE_BYTES;

impl Wal {
    pub(super) fn refuse_if_poisoned(&self) -> Result<(), WalError> {
        if self.poisoned { Err(WalError::Poisoned) } else { Ok(()) }
    }

    pub(super) fn check_sizes(&self, records: &[Record]) -> Result<(), WalError> {
        for record in records {
            let limit = match record {
                Record::Entry { .. } => self.options.entry_bytes_max,
                Record::Membership { .. } => MEMBERSHIP_BYTES_MAX,
                Record::HardState { .. } | Record::Installed { .. } => continue,
            };
            let bytes = data_bytes(record);
            if bytes > limit {
                return Err(WalError::TooLarge { bytes: bytes as u64, limit_bytes: limit as u64 });
            }
        }
        // Whatever comes, the state of all groups and the largest record must fit one segment.
        let state = (self.states.bytes() + self.states.growth(records)) as u64;
        let largest = record_bytes(self.options.entry_bytes_max.max(MEMBERSHIP_BYTES_MAX)) as u64;
        let limit = self.options.segment_bytes - HEAD_BYTES as u64 - 2 * BARE_BYTES - RESERVE_BYTES;
        if state + largest > limit {
            let limit_bytes = limit.saturating_sub(largest);
            return Err(WalError::TooLarge { bytes: state, limit_bytes });
        }
        Ok(())
    }

    /// How many of `records` the current segment takes; none when all of them should rather go
    /// into the next one together.
    pub(super) fn take(&self, records: &[Record]) -> usize {
        let sizes = || records.iter().map(|record| record_bytes(data_bytes(record)) as u64);
        let room = self.room().saturating_sub(self.note_bytes());
        let ends = sizes().scan(0, |end, bytes| {
            *end += bytes;
            Some(*end)
        });
        let fit = ends.take_while(|end| *end <= room).count();
        let total: u64 = sizes().sum();
        let head = HEAD_BYTES as u64 + BARE_BYTES + self.states.bytes() as u64;
        let fits_next = head + total + RESERVE_BYTES <= self.options.segment_bytes;
        if fit < records.len() && fits_next { 0 } else { fit }
    }

    /// Bytes that a job may take in the current segment.
    fn room(&self) -> u64 {
        (self.current.spare.segment_bytes - RESERVE_BYTES).saturating_sub(self.offset)
    }

    /// Bytes that the note about the oldest needed segment takes in the next job.
    fn note_bytes(&self) -> u64 {
        if self.start_noted { 0 } else { BARE_BYTES }
    }

    pub(super) fn write_job(&mut self, records: &[Record]) -> Result<(), WalError> {
        self.begin_job(records.len());
        for record in records {
            self.job.put(&content(record, &mut Small::default()), 0);
        }
        self.finish_job()?;
        for record in records {
            let is_news = self.states.note(record);
            match record {
                Record::Entry { group, index, .. } => {
                    if self.tops.replaces(*group, *index) {
                        self.cut_from(*group, *index);
                        self.replaced_at = self.end;
                    }
                    self.current.note_index(*group, *index);
                }
                Record::HardState { group, .. } => {
                    if let Some(ends) = self.doubted.as_mut().and_then(|all| all.get_mut(group)) {
                        ends.get_or_insert(self.end);
                    }
                }
                Record::Installed { group, .. } => {
                    if is_news && self.tops.forget(*group) {
                        self.cut_from(*group, Index(0));
                        self.replaced_at = self.end;
                    }
                }
                Record::Membership { .. } => {}
            }
        }
        self.content_end = self.end;
        self.counters.job(records.len());
        Ok(())
    }

    /// Writes a mark, in a new segment when this one is full.
    pub(super) fn write_mark(&mut self) -> Result<(), WalError> {
        if self.room() < self.note_bytes() + BARE_BYTES {
            return self.rotate(true);
        }
        self.begin_job(1);
        self.job.put(&bare(RecordKind::Mark, 0), 0);
        self.finish_job()?;
        self.counters.marked();
        Ok(())
    }

    /// Begins the next segment. A full disk is an error to try again after only when
    /// `nothing_written` of what the caller was asked to write.
    pub(crate) fn rotate(&mut self, nothing_written: bool) -> Result<(), WalError> {
        if self.end > self.durable {
            self.sync_current()?;
        }
        let spare = self.next_spare(nothing_written)?;
        let head = SegmentHead {
            life: self.current.life + 1,
            first: self.end.plus(BARE_BYTES),
            start_life: self.start_life,
            segment_bytes: spare.segment_bytes,
            owner: self.options.owner,
        };
        write_head(&spare, &head).map_err(|source| self.fail("begin", &spare.name, source))?;
        self.counters.wrote(HEAD_BYTES);
        self.counters.synced();
        // The head says which segment is the oldest one needed, so no note has to.
        self.start_noted = true;
        self.begin_job(1);
        self.job.put(&bare(RecordKind::Next, head.life), 0);
        self.finish_job()?;
        self.sync_current()?;

        let next = Segment::new(spare, &head);
        self.old.push_back(std::mem::replace(&mut self.current, next));
        self.offset = HEAD_BYTES as u64;
        assert_eq!(self.end, self.current.first, "positions run on across segments");
        self.counters.rotated();
        self.write_states()
    }

    /// Writes the first job of a segment: the state of every group.
    pub(crate) fn write_states(&mut self) -> Result<(), WalError> {
        let records = 1 + self.states.contents().count();
        self.job.begin(self.current.life, self.end, self.durable, records);
        self.job.put(&bare(RecordKind::Mark, 0), FLAG_STATE);
        for state in self.states.contents() {
            self.job.put(&state, FLAG_STATE);
        }
        self.finish_job()
    }

    pub(crate) fn sync_current(&mut self) -> Result<(), WalError> {
        let synced = self.current.spare.file.sync();
        synced.map_err(|source| self.fail("sync", &self.current.spare.name.clone(), source))?;
        self.counters.synced();
        self.durable = self.end;
        Ok(())
    }

    fn next_spare(&mut self, nothing_written: bool) -> Result<Spare, WalError> {
        if let Some(spare) = self.pool.take() {
            return Ok(spare);
        }
        self.counters.prepared_inline();
        match self.pool.make(&mut |_| {}) {
            Err(WalError::Full { source }) if !nothing_written => {
                Err(self.fail("prepare", "another segment", source))
            }
            Err(failed @ WalError::Failed { .. }) => {
                self.poisoned = true;
                Err(failed)
            }
            made_or_full => made_or_full,
        }
    }

    /// Starts a job, with the note about the oldest needed segment if one is due.
    fn begin_job(&mut self, records: usize) {
        let notes = usize::from(!self.start_noted);
        self.job.begin(self.current.life, self.end, self.durable, notes + records);
        if !self.start_noted {
            self.job.put(&bare(RecordKind::Start, self.start_life), 0);
            self.start_noted = true;
        }
    }

    fn finish_job(&mut self) -> Result<(), WalError> {
        let job_bytes = self.job.bytes() as u64;
        let bytes = self.job.finish(self.current.spare.segment_bytes - self.offset);
        let written = write_all_at(self.current.spare.file.as_ref(), bytes, self.offset);
        self.counters.wrote(bytes.len());
        self.job.shrink();
        written.map_err(|source| self.fail("write", &self.current.spare.name.clone(), source))?;
        self.offset += job_bytes;
        self.end = self.end.plus(job_bytes);
        self.marked = self.durable;
        Ok(())
    }

    /// After this nothing is known of what reached the disk, so every later call fails too.
    fn fail(&mut self, deed: &'static str, file: &str, source: io::Error) -> WalError {
        self.poisoned = true;
        WalError::Failed { deed, file: file.to_owned(), source }
    }
}

impl Segment {
    pub(crate) fn new(spare: Spare, head: &SegmentHead) -> Segment {
        let (life, first) = (head.life, head.first);
        Segment { spare, life, first, spans: BTreeMap::new(), pin: Arc::default() }
    }

    /// Where a file offset lies in the log.
    pub(crate) fn position(&self, offset: u64) -> Position {
        self.first.plus(offset - HEAD_BYTES as u64)
    }
}

/// Makes a head durable, with zeros where the first record will be: whatever an earlier life
/// left there must not look like a damaged record.
fn write_head(spare: &Spare, head: &SegmentHead) -> io::Result<()> {
    let mut area = [0; HEAD_BYTES + RECORD_HEADER_BYTES];
    area[..HEAD_BYTES].copy_from_slice(&head.encode());
    write_all_at(spare.file.as_ref(), &area, 0)?;
    spare.file.sync()
}
