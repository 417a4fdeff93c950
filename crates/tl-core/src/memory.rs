//! Rows in memory: the rules' own test bench, and state for tools that need no disk.

use std::collections::BTreeMap;

use bytes::Bytes;
use tl_types::RowKey;

use crate::rows::{Read, Rows};
use crate::view::WriteSet;

/// One group's rows in an ordered map. Never cold, never damaged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryRows {
    rows: BTreeMap<RowKey, Bytes>,
}

impl MemoryRows {
    /// Takes a write set in one step.
    pub fn write(&mut self, writes: WriteSet) {
        for (key, value) in writes {
            match value {
                Some(value) => self.rows.insert(key, value),
                None => self.rows.remove(&key),
            };
        }
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// All rows, in key order.
    pub fn iter(&self) -> impl Iterator<Item = (&RowKey, &Bytes)> {
        self.rows.iter()
    }
}

impl Rows for MemoryRows {
    fn get(&self, key: &RowKey) -> Read<Bytes> {
        match self.rows.get(key) {
            Some(value) => Read::Found(value.clone()),
            None => Read::Absent,
        }
    }

    fn range(&self, start: &RowKey, end: &RowKey, limit: usize) -> Read<Vec<(RowKey, Bytes)>> {
        if start >= end {
            return Read::Found(Vec::new());
        }
        let rows = self.rows.range(start..end).take(limit);
        Read::Found(rows.map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}
