//! One group's rows as the rules see them: from memory only, or with blocking reads.

use bytes::Bytes;
use tl_core::{Read, Rows};
use tl_store::{Held, OrderedStore, Read as Cached, StoreError};
use tl_types::{Generation, GroupId, RowKey};

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

/// Rows read from disk when they are not in memory. Never on the driver thread.
#[derive(Debug)]
pub struct BlockingRows<'a, S> {
    store: &'a S,
    group: GroupId,
    generation: Generation,
}

impl<'a, S: OrderedStore> BlockingRows<'a, S> {
    /// One generation of one group.
    pub fn new(store: &'a S, group: GroupId, generation: Generation) -> Self {
        BlockingRows { store, group, generation }
    }
}

impl<S: OrderedStore> Rows for BlockingRows<'_, S> {
    fn get(&self, key: &RowKey) -> Read<Bytes> {
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
