//! One group's rows as the rules see them: from memory only, or with blocking reads.

use bytes::Bytes;
use tl_core::{Entry, Read, Rows};
use tl_store::{Held, OrderedStore, Read as Cached, StoreError};
use tl_types::{FullKey, Generation, GroupId, RowKey};

/// Rows that are in memory; anything else is [`Read::Cold`]. For the driver thread.
#[derive(Debug)]
pub struct CachedRows<'a, S> {
    store: &'a S,
    group: GroupId,
    generation: Generation,
}

impl<'a, S: OrderedStore> CachedRows<'a, S> {
    /// One generation of one group.
    pub fn new(store: &'a S, group: GroupId, generation: Generation) -> Self {
        CachedRows { store, group, generation }
    }
}

impl<S: OrderedStore> Rows for CachedRows<'_, S> {
    fn get(&self, key: &RowKey) -> Read<Bytes> {
        match self.store.get_cached(self.group, self.generation, key) {
            Cached::Found(value) => Read::Found(value),
            Cached::Absent => Read::Absent,
            Cached::Cold => Read::Cold,
        }
    }

    fn range(&self, start: &RowKey, end: &RowKey, limit: usize) -> Read<Vec<(RowKey, Bytes)>> {
        match self.store.range_cached(self.group, self.generation, start, end, limit) {
            Cached::Found(rows) => Read::Found(rows),
            Cached::Absent => Read::Absent,
            Cached::Cold => Read::Cold,
        }
    }
}

/// The same while the store holds them still: for the one look at a time that an entry is.
pub(crate) struct HeldRows<'a>(pub(crate) &'a dyn Held);

impl Rows for HeldRows<'_> {
    fn get(&self, key: &RowKey) -> Read<Bytes> {
        let mut value = Bytes::new();
        match self.look(key, &mut |found| value = found.clone()) {
            Read::Found(()) => Read::Found(value),
            Read::Absent => Read::Absent,
            Read::Cold => Read::Cold,
            Read::Damaged(what) => Read::Damaged(what),
        }
    }

    fn look(&self, key: &RowKey, found: &mut dyn FnMut(&Bytes)) -> Read<()> {
        match self.0.look(key, found) {
            Cached::Found(()) => Read::Found(()),
            Cached::Absent => Read::Absent,
            Cached::Cold => Read::Cold,
        }
    }

    fn range(&self, start: &RowKey, end: &RowKey, limit: usize) -> Read<Vec<(RowKey, Bytes)>> {
        match self.0.range(start, end, limit) {
            Cached::Found(rows) => Read::Found(rows),
            Cached::Absent => Read::Absent,
            Cached::Cold => Read::Cold,
        }
    }
}

/// Names lead to numbers and numbers to further rows.
const WARM_ROUNDS: usize = 3;

/// Rows that an entry needs, as far as they are known, and that are not in memory.
pub(crate) fn cold_keys<S: OrderedStore>(
    store: &S,
    group: GroupId,
    generation: Generation,
    entry: &Entry,
) -> Vec<RowKey> {
    store.hold(group, generation, |held| tl_core::cold_keys(entry, &HeldRows(held)))
}

/// Loads the rows that an entry needs into memory. Never on the driver thread.
///
/// # Errors
/// As [`OrderedStore::prefetch`].
pub(crate) fn warm<S: OrderedStore>(
    store: &S,
    group: GroupId,
    entry: &Entry,
) -> Result<(), StoreError> {
    for _ in 0..WARM_ROUNDS {
        let generation = store.applied(group).generation;
        let cold = cold_keys(store, group, generation, entry);
        if cold.is_empty() {
            return Ok(());
        }
        let keys: Vec<_> = cold.iter().map(|row| FullKey::new(group, generation, row)).collect();
        store.prefetch(&keys)?;
    }
    Ok(())
}

/// Rows read from disk when they are not in memory. Never on the driver thread.
#[derive(Debug)]
pub struct BlockingRows<'a, S> {
    store: &'a S,
    group: GroupId,
    generation: Generation,
    keeps: bool,
}

impl<'a, S: OrderedStore> BlockingRows<'a, S> {
    /// One generation of one group.
    pub fn new(store: &'a S, group: GroupId, generation: Generation) -> Self {
        BlockingRows { store, group, generation, keeps: false }
    }

    /// The same; what is read stays in memory, because it will be needed again soon.
    pub(crate) fn keeping(store: &'a S, group: GroupId, generation: Generation) -> Self {
        BlockingRows { keeps: true, ..BlockingRows::new(store, group, generation) }
    }
}

impl<S: OrderedStore> Rows for BlockingRows<'_, S> {
    fn get(&self, key: &RowKey) -> Read<Bytes> {
        if self.keeps
            && let Err(error) =
                self.store.prefetch(&[FullKey::new(self.group, self.generation, key)])
        {
            return damaged(&error);
        }
        match self.store.get(self.group, self.generation, key) {
            Ok(Some(value)) => Read::Found(value),
            Ok(None) => Read::Absent,
            Err(error) => damaged(&error),
        }
    }

    fn range(&self, start: &RowKey, end: &RowKey, limit: usize) -> Read<Vec<(RowKey, Bytes)>> {
        let (group, generation) = (self.group, self.generation);
        // A rule must get what it asked for, so only `limit` bounds the rows; callers keep it small
        // where rows are large.
        match self.store.range(group, generation, start, end, limit, usize::MAX) {
            Ok(rows) => Read::Found(rows),
            Err(error) => damaged(&error),
        }
    }
}

fn damaged<T>(error: &StoreError) -> Read<T> {
    Read::Damaged(crate::chain(error))
}
