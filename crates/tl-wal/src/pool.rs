//! Segment files that are ready to be used: made ahead, or given back by the log.
//!
//! Overwriting a file whose blocks exist costs a fraction of the sync of a growing one, so a
//! segment is filled with zeros and synced before the log needs it. That takes long and is
//! done by a [`Preparer`] on any thread; the log takes what is ready and makes a segment
//! itself only when nothing is.
//!
//! A file given back keeps its bytes: its next use has a later life, under which they never
//! pass for records.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tl_types::NodeId;

use crate::disk::{Disk, DiskFile, write_all_at};
use crate::error::WalError;
use crate::format::SegmentHead;
use crate::record::Position;

/// Bytes of zeros written between two syncs of a new segment, so that the log's own syncs
/// never queue behind a large write-back.
const PIECE_BYTES: usize = 1024 * 1024;

/// A file that is ready for a segment.
#[derive(Debug)]
pub(crate) struct Spare {
    pub name: String,
    pub file: Arc<dyn DiskFile>,
    pub segment_bytes: u64,
}

/// Files ready for use, and those to be removed.
#[derive(Debug)]
pub(crate) struct Pool {
    disk: Arc<dyn Disk>,
    owner: NodeId,
    segment_bytes: u64,
    wanted: usize,
    shelf: Mutex<Shelf>,
}

#[derive(Debug)]
struct Shelf {
    ready: VecDeque<Spare>,
    surplus: Vec<String>,
    /// Files being made right now.
    underway: usize,
    next_number: u64,
}

impl Pool {
    pub fn new(
        disk: Arc<dyn Disk>,
        owner: NodeId,
        segment_bytes: u64,
        wanted: usize,
        next_number: u64,
    ) -> Pool {
        let shelf = Shelf { ready: VecDeque::new(), surplus: Vec::new(), underway: 0, next_number };
        Pool { disk, owner, segment_bytes, wanted, shelf: Mutex::new(shelf) }
    }

    /// The next ready file, if there is one.
    pub fn take(&self) -> Option<Spare> {
        self.shelf().ready.pop_front()
    }

    /// Keeps a file for its next use, or marks it for removal: released segments come in
    /// bursts, so up to twice the wanted number stay.
    pub fn give(&self, spare: Spare) {
        let mut shelf = self.shelf();
        if spare.segment_bytes == self.segment_bytes && shelf.ready.len() < 2 * self.wanted {
            shelf.ready.push_back(spare);
        } else {
            shelf.surplus.push(spare.name);
        }
    }

    /// How many more files should be made.
    pub fn missing(&self) -> usize {
        let shelf = self.shelf();
        self.wanted.saturating_sub(shelf.ready.len() + shelf.underway)
    }

    /// How many files are ready.
    pub fn ready(&self) -> usize {
        self.shelf().ready.len()
    }

    /// Makes one file, durable with its name, that says it was never used.
    pub fn make(&self, pace: &mut dyn FnMut(u64)) -> Result<Spare, WalError> {
        let (first, owner, segment_bytes) = (Position(0), self.owner, self.segment_bytes);
        let head = SegmentHead { life: 0, first, start_life: 0, segment_bytes, owner };
        self.make_with_head(&head, pace)
    }

    /// Makes one file with this head, durable with its name, and hands it over.
    pub fn make_with_head(
        &self,
        head: &SegmentHead,
        pace: &mut dyn FnMut(u64),
    ) -> Result<Spare, WalError> {
        let number = {
            let mut shelf = self.shelf();
            shelf.next_number += 1;
            shelf.next_number - 1
        };
        let name = file_name(number);
        self.fill(&name, head, pace).map_err(|source| {
            // What is left of the file is removed at the next open if it cannot be now.
            let _ = self.disk.remove(&name);
            match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    WalError::Full { source }
                }
                _ => WalError::Failed { deed: "prepare", file: name.clone(), source },
            }
        })
    }

    fn fill(&self, name: &str, head: &SegmentHead, pace: &mut dyn FnMut(u64)) -> io::Result<Spare> {
        let file = self.disk.create(name)?;
        let bytes = head.segment_bytes;
        let zeros = vec![0; PIECE_BYTES.min(usize::try_from(bytes).unwrap_or(PIECE_BYTES))];
        let mut offset = 0;
        while offset < bytes {
            let piece = (bytes - offset).min(zeros.len() as u64);
            write_all_at(file.as_ref(), &zeros[..piece as usize], offset)?;
            file.sync()?;
            offset += piece;
            pace(piece);
        }
        write_all_at(file.as_ref(), &head.encode(), 0)?;
        file.sync()?;
        self.disk.sync_dir()?;
        Ok(Spare { name: name.to_owned(), file: file.into(), segment_bytes: bytes })
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        // The shelf is changed in single steps, so it is whole even after a panic elsewhere.
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes segment files ready beside the log. Cheap to clone, usable from any thread.
#[derive(Debug, Clone)]
pub struct Preparer {
    pool: Arc<Pool>,
}

impl Preparer {
    pub(crate) fn new(pool: Arc<Pool>) -> Preparer {
        Preparer { pool }
    }

    /// True when [`work`](Preparer::work) would do something.
    #[must_use]
    pub fn needed(&self) -> bool {
        self.pool.missing() > 0 || !self.pool.shelf().surplus.is_empty()
    }

    /// Makes one segment file, or removes one that is no longer wanted; false when there was
    /// nothing to do. `pace` is called with the size of each synced piece and may wait.
    ///
    /// # Errors
    /// - [`WalError::Full`] when the disk has no room; try again later.
    /// - [`WalError::Failed`] when the file could not be made. The log itself is not affected.
    pub fn work(&self, pace: &mut dyn FnMut(u64)) -> Result<bool, WalError> {
        Ok(self.remove_one()? || self.make_one(pace)?)
    }

    /// Bytes that [`make_one`](Preparer::make_one) takes on disk.
    #[must_use]
    pub fn segment_bytes(&self) -> u64 {
        self.pool.segment_bytes
    }

    /// How many more files should be made.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.pool.missing()
    }

    /// How many files are ready.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.pool.ready()
    }

    /// The half of [`work`](Preparer::work) that gives room back.
    ///
    /// # Errors
    /// As [`work`](Preparer::work).
    pub fn remove_one(&self) -> Result<bool, WalError> {
        let Some(name) = self.pool.shelf().surplus.pop() else { return Ok(false) };
        let removed = self.pool.disk.remove(&name).and_then(|()| self.pool.disk.sync_dir());
        removed.map_err(|source| WalError::Failed { deed: "remove", file: name, source })?;
        Ok(true)
    }

    /// The half of [`work`](Preparer::work) that takes room.
    ///
    /// # Errors
    /// As [`work`](Preparer::work).
    pub fn make_one(&self, pace: &mut dyn FnMut(u64)) -> Result<bool, WalError> {
        {
            let mut shelf = self.pool.shelf();
            if shelf.ready.len() + shelf.underway >= self.pool.wanted {
                return Ok(false);
            }
            shelf.underway += 1;
        }
        let made = self.pool.make(pace);
        self.pool.shelf().underway -= 1;
        self.pool.give(made?);
        Ok(true)
    }
}

const NAME_START: &str = "segment-";
const NAME_END: &str = ".wal";

/// Name of the file with this number. Numbers say nothing about order in the log.
pub(crate) fn file_name(number: u64) -> String {
    format!("{NAME_START}{number:08}{NAME_END}")
}

/// The number in a segment file's name; `None` for any other file.
pub(crate) fn file_number(name: &str) -> Option<u64> {
    name.strip_prefix(NAME_START)?.strip_suffix(NAME_END)?.parse().ok()
}
