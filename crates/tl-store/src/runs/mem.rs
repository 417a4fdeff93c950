//! Runs in memory: the image of the last completed flush.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;
use tl_types::FullKey;

use super::{PinnedRows, RunRows, Runs};
use crate::error::StoreError;
use crate::floors::Floors;
use crate::memtable::Slot;
use crate::store::{ScrubProgress, ScrubReport, StoreStats};

/// Rows taken from the map at a time, so that a range holds the lock shortly.
const CHUNK_ROWS: usize = 256;
/// Rows that one compaction step looks at.
const STEP_ROWS: usize = 4_096;

/// An ordered map that stands for tables on disk.
///
/// Unlike the tree, a range over it is not of one moment across chunks; the store above holds
/// ranges to weaker promises than that.
#[derive(Debug)]
pub struct MemRuns {
    rows: RwLock<BTreeMap<FullKey, Bytes>>,
    compacted_to: RwLock<Option<FullKey>>,
    /// Rows whose bytes are no longer what was written.
    rotten: RwLock<BTreeSet<FullKey>>,
    floors: Arc<Floors>,
}

impl MemRuns {
    pub(crate) fn new(floors: Arc<Floors>) -> MemRuns {
        MemRuns {
            rows: RwLock::default(),
            compacted_to: RwLock::default(),
            rotten: RwLock::default(),
            floors,
        }
    }

    /// Lets one of the rows between two keys rot, the `pick`th of those that are wanted, counted
    /// around; returns which.
    pub(crate) fn rot(
        &self,
        start: &FullKey,
        end: &FullKey,
        pick: usize,
        wanted: impl Fn(&FullKey) -> bool,
    ) -> Option<FullKey> {
        let rows = self.rows.read();
        let range = rows.range::<FullKey, _>((Bound::Included(start), Bound::Excluded(end)));
        let keys: Vec<&FullKey> = range.map(|(key, _)| key).filter(|key| wanted(key)).collect();
        let key = (*keys.get(pick % keys.len().max(1))?).clone();
        self.rotten.write().insert(key.clone());
        Some(key)
    }

    fn sound(&self, key: &FullKey, value: Bytes) -> Result<Bytes, StoreError> {
        if !self.rotten.read().contains(key) {
            return Ok(value);
        }
        Err(StoreError::Damaged {
            file: "memory".into(),
            doing: format!("reading row {key:?}"),
            detail: "the bytes are not what was written".into(),
        })
    }

    fn chunk(&self, start: Bound<&FullKey>, end: Bound<&FullKey>) -> Vec<(FullKey, Bytes)> {
        if let (Bound::Included(from) | Bound::Excluded(from), Bound::Excluded(to)) = (start, end)
            && from >= to
        {
            return Vec::new();
        }
        let rows = self.rows.read();
        let range = rows.range::<FullKey, _>((start, end));
        range.take(CHUNK_ROWS).map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}

impl Runs for MemRuns {
    fn ingest(&self, new: &mut dyn Iterator<Item = (FullKey, Slot)>) -> Result<(), StoreError> {
        let mut rows = self.rows.write();
        for (key, value) in new {
            self.rotten.write().remove(&key);
            match value {
                Some(value) => rows.insert(key, value),
                None => rows.remove(&key),
            };
        }
        Ok(())
    }

    fn get(&self, key: &FullKey) -> Result<Option<Bytes>, StoreError> {
        let found = self.rows.read().get(key).cloned();
        found.map(|value| self.sound(key, value)).transpose()
    }

    fn range(&self, start: Bound<&FullKey>, end: Bound<&FullKey>) -> RunRows<'_> {
        let end = end.map(Clone::clone);
        let mut chunk = self.chunk(start, end.as_ref()).into_iter();
        let mut last = None;
        Box::new(std::iter::from_fn(move || {
            if chunk.len() == 0
                && let Some(last) = &last
            {
                chunk = self.chunk(Bound::Excluded(last), end.as_ref()).into_iter();
            }
            let (key, value) = chunk.next()?;
            last = Some(key.clone());
            Some(self.sound(&key, value).map(|value| (key, value)))
        }))
    }

    fn last_key(&self, start: &FullKey, end: &FullKey) -> Result<Option<FullKey>, StoreError> {
        let rows = self.rows.read();
        let range = rows.range::<FullKey, _>((Bound::Included(start), Bound::Excluded(end)));
        Ok(range.map(|(key, _)| key).next_back().cloned())
    }

    fn pinned(&self, start: &FullKey, end: &FullKey) -> PinnedRows {
        let rows = self.rows.read();
        let range = rows.range::<FullKey, _>((Bound::Included(start), Bound::Excluded(end)));
        let sound = |(key, value): (&FullKey, &Bytes)| {
            self.sound(key, value.clone()).map(|value| (key.clone(), value))
        };
        let rows: Vec<_> = range.map(sound).collect();
        Box::new(rows.into_iter())
    }

    /// Looks at the next few rows and drops those that are forgotten.
    fn compact_step(&self) -> Result<bool, StoreError> {
        let mut rows = self.rows.write();
        let mut from = self.compacted_to.write();
        let start = from.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let keys = rows.range::<FullKey, _>((start, Bound::Unbounded)).map(|(key, _)| key);
        let step: Vec<FullKey> = keys.take(STEP_ROWS).cloned().collect();
        *from = if step.len() == STEP_ROWS { step.last().cloned() } else { None };
        let before = rows.len();
        for key in &step {
            if self.floors.is_forgotten(key.as_bytes()) {
                rows.remove(key);
                self.rotten.write().remove(key);
            }
        }
        Ok(rows.len() != before || from.is_some())
    }

    fn scrub(
        &self,
        _pace: &mut dyn FnMut(&ScrubProgress) -> ControlFlow<()>,
    ) -> Result<ScrubReport, StoreError> {
        Ok(ScrubReport { complete: true, ..ScrubReport::default() })
    }

    fn flush_failed(&self) -> StoreError {
        unreachable!("a map in memory takes every flush")
    }

    fn bad_row(&self, key: &FullKey) -> StoreError {
        StoreError::Damaged {
            file: "memory".into(),
            doing: format!("reading row {key:?}"),
            detail: "the value is not one of this row".into(),
        }
    }

    fn stats(&self, _stats: &mut StoreStats) {}
}
