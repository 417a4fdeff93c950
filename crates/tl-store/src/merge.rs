//! Merging a range over layers: memtables, newest first, and the runs beneath them.
//!
//! A memtable is read in chunks, its lock released in between, so that a long range never makes
//! the writer wait. Rows only join a memtable or are overwritten there, so a chunk read later is
//! as good as one read at once, only newer.

use std::collections::VecDeque;
use std::iter::Peekable;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tl_types::{Generation, GroupId, ResourceNumber, RowKey, Seq};

use crate::error::StoreError;
use crate::memtable::{Memtable, Slot};
use crate::store::Row;

/// Rows taken from a memtable under one hold of its lock.
const CHUNK_ROWS: usize = 256;

/// A memtable that readers share with the writer.
#[derive(Debug, Default)]
pub(crate) struct Layer {
    pub(crate) rows: RwLock<Memtable>,
    /// Floors that rest on these rows: compaction hears of them once the rows are durable.
    pub(crate) floors: Mutex<Vec<(GroupId, Generation, ResourceNumber, Seq)>>,
}

impl Layer {
    pub(crate) fn new(rows: Memtable) -> Layer {
        Layer { rows: RwLock::new(rows), floors: Mutex::default() }
    }
}

/// Where a range begins and ends, and how much of it is wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) group: GroupId,
    pub(crate) generation: Generation,
    pub(crate) start: &'a RowKey,
    pub(crate) end: &'a RowKey,
    pub(crate) limit: usize,
    pub(crate) bytes_max: usize,
}

/// Merges `layers` (newest first) over `runs`; the newest slot of a key wins, deletes hide.
pub(crate) fn merge(
    wanted: Wanted<'_>,
    layers: &[Arc<Layer>],
    runs: impl Iterator<Item = Result<Row, StoreError>>,
) -> Result<Vec<Row>, StoreError> {
    let mut cursors: Vec<Cursor<'_>> =
        layers.iter().map(|layer| Cursor::new(layer, wanted)).collect();
    let mut runs = runs.peekable();
    let mut merged = Vec::new();
    let mut bytes = 0;
    while merged.len() < wanted.limit && bytes < wanted.bytes_max {
        let Some((key, slot)) = next_slot(&mut cursors, &mut runs)? else { break };
        let Some(value) = slot else { continue };
        let row_bytes = key.as_bytes().len() + value.len();
        if !merged.is_empty() && bytes + row_bytes > wanted.bytes_max {
            break;
        }
        bytes += row_bytes;
        merged.push((key, value));
    }
    Ok(merged)
}

/// The smallest key of all sources with its newest slot; every source moves past it.
fn next_slot(
    cursors: &mut [Cursor<'_>],
    runs: &mut Peekable<impl Iterator<Item = Result<Row, StoreError>>>,
) -> Result<Option<(RowKey, Slot)>, StoreError> {
    let mut least: Option<RowKey> = None;
    for cursor in cursors.iter_mut() {
        if let Some(key) = cursor.peek()
            && least.as_ref().is_none_or(|least| key < least)
        {
            least = Some(key.clone());
        }
    }
    let from_runs = match runs.peek() {
        Some(Ok((key, _))) => least.as_ref().is_none_or(|least| key <= least),
        Some(Err(_)) => true,
        None => false,
    };
    let mut newest = None;
    if from_runs {
        let (key, value) = runs.next().expect("it was just peeked at")?;
        least = Some(key);
        newest = Some(Some(value));
    }
    let Some(least) = least else { return Ok(None) };
    // Oldest first, so that the newest is the last to say.
    for cursor in cursors.iter_mut().rev() {
        if cursor.peek() == Some(&least) {
            newest = cursor.pop();
        }
    }
    Ok(newest.map(|slot| (least, slot)))
}

/// A place in one memtable's range.
struct Cursor<'a> {
    layer: &'a Layer,
    wanted: Wanted<'a>,
    read: VecDeque<(RowKey, Slot)>,
    last: Option<RowKey>,
    is_done: bool,
}

impl<'a> Cursor<'a> {
    fn new(layer: &'a Layer, wanted: Wanted<'a>) -> Cursor<'a> {
        Cursor { layer, wanted, read: VecDeque::new(), last: None, is_done: false }
    }

    fn peek(&mut self) -> Option<&RowKey> {
        if self.read.is_empty() && !self.is_done {
            let Wanted { group, generation, start, end, .. } = self.wanted;
            let start = self.last.as_ref().map_or(Bound::Included(start), Bound::Excluded);
            // Whoever holds the rows of a group may be here with the lock in hand.
            let rows = self.layer.rows.read_recursive();
            let chunk = rows.chunk(group, generation, start, end, CHUNK_ROWS);
            drop(rows);
            self.is_done = chunk.len() < CHUNK_ROWS;
            self.last = chunk.last().map(|(key, _)| key.clone()).or(self.last.take());
            self.read = chunk.into();
        }
        self.read.front().map(|(key, _)| key)
    }

    fn pop(&mut self) -> Option<Slot> {
        self.read.pop_front().map(|(_, slot)| slot)
    }
}

/// What a cached piece of the runs gives to [`merge`].
pub(crate) fn cached_runs(
    rows: &[(RowKey, Bytes)],
) -> impl Iterator<Item = Result<Row, StoreError>> + '_ {
    rows.iter().cloned().map(Ok)
}
