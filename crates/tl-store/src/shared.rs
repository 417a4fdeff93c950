//! What both stores share: memtables, rotation, the row cache, merging, flushing.
//!
//! Order of locks: `flushing` → `state` → a layer's rows. The driver takes `state` for reading
//! and its active layer for writing; nobody holds either across a read or write of a disk.
//!
//! **Why a cached row is never stale.** An entry speaks of the runs, and the runs change (as far
//! as a reader can tell) only when a flush moves their pointer. Each such move is an *epoch*:
//!  1. the runs' pointer moves; the sealed memtable still hides every row that it changed;
//!  2. the epoch is raised under the state's write lock. A prefetch notes the epoch before it
//!     reads and installs under the read lock only if it is still the same, so whatever it read
//!     before step 1 is in the cache by now or never will be;
//!  3. the cache's entries for every row of the sealed memtable are corrected;
//!  4. only then does the sealed memtable leave the read path.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::ops::{Bound, ControlFlow};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tl_types::{FullKey, Generation, GroupId, ResourceNumber, RowKey, Seq, Table};

use crate::applied::Applied;
use crate::cache::RowCache;
use crate::error::StoreError;
use crate::floors::Floors;
use crate::memtable::{Memtable, Slot};
use crate::merge::{Layer, Wanted, merge};
use crate::options::{KillPoints, StoreOptions};
use crate::runs::Runs;
use crate::runs::mem::MemRuns;
use crate::store::{
    Export, GroupWrites, Held, OrderedStore, Read, Row, ScrubProgress, ScrubReport, StoreStats,
};
use crate::tree::{Tree, all_rows};

mod held;
mod ranges;
mod state;

use held::HeldRows;
use ranges::{Ranges, RunsPiece};
use state::State;

/// How often a prefetch reads again because a flush overtook it; then it gives up, being a hint.
const PREFETCH_ATTEMPTS_MAX: u32 = 4;
/// A memtable is sealed although it is small behind so many times its size of log, and never
/// behind less than the bytes below.
const LOG_PER_MEMTABLE: usize = 4;
const LOG_BYTES_MIN: usize = 64 * 1024 * 1024;
/// Bytes of rows in remembered ranges, as a share of the row cache.
const RANGES_BYTES_DIVISOR: usize = 8;

/// The store on disk.
pub type LsmStore = Store<Tree>;

/// The store in memory: the same above the runs, and a map in their place. For simulation; a
/// crash takes it back to its last completed flush.
pub type MemStore = Store<MemRuns>;

/// A store over some kind of runs.
pub struct Store<R> {
    runs: R,
    state: RwLock<State>,
    cache: RowCache,
    ranges: Mutex<Ranges>,
    floors: Arc<Floors>,
    /// Held by the one flush at a time; whether an earlier one failed.
    flushing: Mutex<FlushFailed>,
    flushes: AtomicU64,
    options: StoreOptions,
}

/// After a failed write or sync nobody knows what reached the disk, and asking once more would
/// be answered with yes: no flush after it may claim anything. One that found no room is another
/// matter: its files are gone, and the next attempt writes its own.
type FlushFailed = bool;

impl LsmStore {
    /// Opens the store in `dir`, which is made when missing.
    ///
    /// One process at a time: whoever owns the node's data directory holds its lock.
    ///
    /// # Errors
    /// - [`StoreError::Damaged`] when a file that the store needs is missing or unreadable.
    /// - [`StoreError::Io`] when the operating system refuses.
    pub fn open(dir: &Path, options: StoreOptions) -> Result<LsmStore, StoreError> {
        let floors = Arc::new(Floors::default());
        let tree = Tree::open(dir, &options, Arc::clone(&floors))?;
        Store::over(tree, floors, options)
    }
}

impl MemStore {
    /// An empty store in memory.
    #[must_use]
    pub fn new(options: StoreOptions) -> MemStore {
        let floors = Arc::new(Floors::default());
        let runs = MemRuns::new(Arc::clone(&floors));
        Store::over(runs, floors, options).expect("an empty map is read without error")
    }

    /// Loses what a crash would: everything since the last completed flush, and all floors.
    pub fn crash(&self) {
        let _flushing = self.flushing.lock();
        let mut state = self.state.write();
        state.sealed.clear();
        let memtable = Memtable::following(state.durable.clone());
        state.active = Arc::new(Layer::new(memtable));
        state.epoch += 1;
        drop(state);
        self.cache.clear();
        self.floors.clear();
    }

    /// Lets one durable row of a group rot: the `pick`th of those that are wanted, counted around.
    /// From then on it is damaged for whoever reads it, until it is written anew. Returns which row it
    /// is, or `None` when there is none.
    pub fn rot(
        &self,
        group: GroupId,
        generation: Generation,
        pick: usize,
        wanted: impl Fn(&RowKey) -> bool,
    ) -> Option<RowKey> {
        let (start, end) = all_rows(group, generation);
        let row = self.runs.rot(&start, &end, pick, |key| wanted(&key.parts().2))?;
        self.cache.remove(&row);
        Some(row.parts().2)
    }
}

impl<R: Runs> Store<R> {
    fn over(runs: R, floors: Arc<Floors>, options: StoreOptions) -> Result<Store<R>, StoreError> {
        let durable = read_applied(&runs)?;
        let memtable = Memtable::following(durable.clone());
        let state = State {
            active: Arc::new(Layer::new(memtable)),
            sealed: VecDeque::new(),
            durable,
            epoch: 0,
        };
        Ok(Store {
            runs,
            state: RwLock::new(state),
            cache: RowCache::new(options.cache_bytes),
            ranges: Mutex::default(),
            floors,
            flushing: Mutex::new(false),
            flushes: AtomicU64::new(0),
            options,
        })
    }

    fn kill_points(&self) -> &KillPoints {
        &self.options.kill_points
    }

    fn put_all(
        active: &Layer,
        group: GroupId,
        generation: Generation,
        rows: Vec<(RowKey, Slot)>,
        applied: Option<Applied>,
    ) {
        let mut memtable = active.rows.write();
        for (key, value) in rows {
            assert!(key.table() != Table::Applied, "applied rows are the store's own");
            memtable.put(group, generation, key, value);
        }
        match applied {
            Some(applied) => memtable.set_applied(group, applied),
            None => memtable.set_loaded(group, generation),
        }
    }

    /// The oldest sealed memtable has reached the runs: lets it go. See the module's doc.
    fn retire(&self, layer: &Arc<Layer>) {
        self.state.write().epoch += 1;
        {
            let memtable = layer.rows.read();
            for (group, generation, key, slot) in memtable.rows() {
                let full = FullKey::new(group, generation, &key);
                let is_known = || self.cache.has(&full);
                if is_hot(&key) && (memtable.is_active(group, generation, &key) || is_known()) {
                    self.cache.put(full, slot.as_deref());
                } else {
                    self.cache.remove(&full);
                }
            }
        }
        let mut state = self.state.write();
        state.durable = layer.rows.read().all_applied().to_vec();
        state.sealed.pop_front();
        // Under the lock, so that this and the number of those that wait are of one moment.
        self.flushes.fetch_add(1, Ordering::Relaxed);
        drop(state);
        for (group, generation, number, floor) in layer.floors.lock().drain(..) {
            self.floors.set_floor(group, generation, number, floor);
        }
    }

    /// Reads the runs for a row and installs what it found, unless a flush came in between.
    fn prefetch_one(&self, key: &FullKey) -> Result<(), StoreError> {
        let (group, generation, row) = key.parts();
        for _ in 0..PREFETCH_ATTEMPTS_MAX {
            let epoch = {
                let state = self.state.read();
                if state.in_memtables(group, generation, &row).is_some() {
                    return Ok(());
                }
                state.epoch
            };
            if self.cache.get(key).is_some() {
                return Ok(());
            }
            let value = self.runs.get(key)?;
            let state = self.state.read();
            if state.epoch == epoch {
                self.cache.put(key.clone(), value.as_deref());
                return Ok(());
            }
        }
        Ok(())
    }

    /// Rows of the runs in a range, as keys within the group.
    fn runs_in<'a>(
        &'a self,
        wanted: Wanted<'_>,
    ) -> impl Iterator<Item = Result<Row, StoreError>> + 'a {
        let start = FullKey::new(wanted.group, wanted.generation, wanted.start);
        let end = FullKey::new(wanted.group, wanted.generation, wanted.end);
        let rows = self.runs.range(Bound::Included(&start), Bound::Excluded(&end));
        rows.map(|row| row.map(|(key, value)| (key.parts().2, value)))
    }
}

impl<R: Runs> OrderedStore for Store<R> {
    fn write(&self, writes: GroupWrites) {
        let GroupWrites { group, generation, index, term, rows } = writes;
        let applied = Applied { index, term, generation };
        // Held for reading until the rows are in, so that a rotation comes before or after.
        let state = self.state.read();
        Self::put_all(&state.active, group, generation, rows, Some(applied));
    }

    fn load(&self, group: GroupId, generation: Generation, rows: Vec<(RowKey, Option<Bytes>)>) {
        let state = self.state.read();
        Self::put_all(&state.active, group, generation, rows, None);
    }

    fn applied(&self, group: GroupId) -> Applied {
        self.state.read().active.rows.read().applied(group)
    }

    fn durable_applied(&self) -> Vec<(GroupId, Applied)> {
        let state = self.state.read();
        let known = state.durable.iter().enumerate();
        known
            .filter(|(_, applied)| **applied != Applied::default())
            .map(|(group, applied)| (GroupId(group as u16), *applied))
            .collect()
    }

    fn get_cached(&self, group: GroupId, generation: Generation, key: &RowKey) -> Read<Bytes> {
        let mut value = None;
        let read = self.hold(group, generation, |held| {
            held.look(key, &mut |found| value = Some(found.clone()))
        });
        match (read, value) {
            (Read::Found(()), Some(value)) => Read::Found(value),
            (Read::Cold, _) => Read::Cold,
            (Read::Absent | Read::Found(()), _) => Read::Absent,
        }
    }

    fn hold<T>(
        &self,
        group: GroupId,
        generation: Generation,
        look: impl FnOnce(&dyn Held) -> T,
    ) -> T {
        let state = self.state.read();
        let active = state.active.rows.read();
        look(&HeldRows {
            cache: &self.cache,
            ranges: &self.ranges,
            state: &state,
            active: &active,
            group,
            generation,
        })
    }

    fn range_cached(
        &self,
        group: GroupId,
        generation: Generation,
        start: &RowKey,
        end: &RowKey,
        limit: usize,
    ) -> Read<Vec<Row>> {
        // Not under the memtable's lock: a long range would make the driver wait.
        let state = self.state.read();
        let wanted = Wanted { group, generation, start, end, limit, bytes_max: usize::MAX };
        held::range(&state, &self.ranges, wanted)
    }

    fn get(
        &self,
        group: GroupId,
        generation: Generation,
        key: &RowKey,
    ) -> Result<Option<Bytes>, StoreError> {
        match self.get_cached(group, generation, key) {
            Read::Found(value) => Ok(Some(value)),
            Read::Absent => Ok(None),
            Read::Cold => self.runs.get(&FullKey::new(group, generation, key)),
        }
    }

    fn range(
        &self,
        group: GroupId,
        generation: Generation,
        start: &RowKey,
        end: &RowKey,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Vec<Row>, StoreError> {
        if start >= end {
            return Ok(Vec::new());
        }
        let wanted = Wanted { group, generation, start, end, limit, bytes_max };
        // Layers first: a memtable that leaves after this is in the runs opened next.
        let layers = self.state.read().layers();
        merge(wanted, &layers, self.runs_in(wanted))
    }

    fn prefetch(&self, keys: &[FullKey]) -> Result<(), StoreError> {
        for key in keys {
            self.prefetch_one(key)?;
        }
        Ok(())
    }

    fn prefetch_range(
        &self,
        group: GroupId,
        generation: Generation,
        start: &RowKey,
        end: &RowKey,
        limit: usize,
    ) -> Result<(), StoreError> {
        if start >= end || limit == 0 {
            return Ok(());
        }
        let wanted = Wanted { group, generation, start, end, limit, bytes_max: usize::MAX };
        let bytes_max = self.options.cache_bytes / RANGES_BYTES_DIVISOR;
        for _ in 0..PREFETCH_ATTEMPTS_MAX {
            let epoch = self.state.read().epoch;
            let mut rows = Vec::new();
            let mut bytes = 0;
            let mut is_whole = true;
            for row in self.runs_in(wanted) {
                if rows.len() == limit || bytes >= bytes_max {
                    is_whole = false;
                    break;
                }
                let (key, value) = row?;
                bytes += key.as_bytes().len() + value.len();
                rows.push((key, Bytes::copy_from_slice(&value)));
            }
            let state = self.state.read();
            if state.epoch == epoch {
                let of = (FullKey::new(group, generation, start), end.clone());
                let piece = Arc::new(RunsPiece { rows, is_whole });
                self.ranges.lock().put(epoch, of, piece, bytes, bytes_max);
                return Ok(());
            }
        }
        Ok(())
    }

    fn needs_rotation(&self, log_bytes: usize) -> bool {
        let rows_max = self.options.memtable_bytes;
        let log_max = rows_max.saturating_mul(LOG_PER_MEMTABLE).max(LOG_BYTES_MIN);
        log_bytes >= log_max || self.state.read().active.rows.read().bytes() >= rows_max
    }

    fn rotate(&self) -> bool {
        let mut state = self.state.write();
        let next = {
            let memtable = state.active.rows.read();
            if !memtable.is_touched() {
                return false;
            }
            Memtable::following(memtable.all_applied().to_vec())
        };
        let next = Arc::new(Layer::new(next));
        let full = std::mem::replace(&mut state.active, next);
        state.sealed.push_back(full);
        true
    }

    fn is_full(&self) -> bool {
        self.state.read().sealed.len() >= self.options.sealed_max
    }

    fn flush_one(&self) -> Result<bool, StoreError> {
        let mut has_failed = self.flushing.lock();
        if *has_failed {
            return Err(self.runs.flush_failed());
        }
        let (layer, durable) = {
            let state = self.state.read();
            let Some(oldest) = state.sealed.front() else { return Ok(false) };
            (Arc::clone(oldest), state.durable.clone())
        };
        self.kill_points().reach("flush-begin");
        {
            let memtable = layer.rows.read();
            let ingested = self.runs.ingest(&mut flush_rows(&memtable, &durable));
            *has_failed = ingested.as_ref().is_err_and(|error| !error.is_no_room());
            ingested?;
        }
        self.kill_points().reach("flush-pointer-moved");
        self.retire(&layer);
        self.kill_points().reach("flush-end");
        Ok(true)
    }

    fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::Relaxed)
    }

    fn flush_mark(&self) -> u64 {
        let state = self.state.read();
        self.flushes.load(Ordering::Relaxed) + state.sealed.len() as u64
    }

    fn export(&self, group: GroupId) -> Result<Export, StoreError> {
        // While this is held, the runs are exactly what `durable` speaks of.
        let has_failed = self.flushing.lock();
        if *has_failed {
            return Err(self.runs.flush_failed());
        }
        let durable = self.state.read().durable.get(usize::from(group.0)).copied();
        let applied = durable.unwrap_or_default();
        let (start, end) = all_rows(group, applied.generation);
        let rows = self.runs.pinned(&start, &end);
        let rows = Box::new(rows.map(|row| row.map(|(key, value)| (key.parts().2, value))));
        Ok(Export { applied, rows })
    }

    fn generations_above(
        &self,
        group: GroupId,
        generation: Generation,
    ) -> Result<Vec<Generation>, StoreError> {
        let mut found = BTreeSet::new();
        for layer in self.state.read().layers() {
            let memtable = layer.rows.read_recursive();
            found.extend(memtable.generations(group));
            found.insert(memtable.applied(group).generation);
        }
        found.retain(|of| *of > generation);
        let mut next = generation.0.checked_add(1);
        while let Some(from) = next {
            let (start, _) = all_rows(group, Generation(from));
            let first = self.runs.range(Bound::Included(&start), Bound::Unbounded).next();
            next = match first.transpose()?.map(|(key, _)| key.parts()) {
                Some((of, generation, _)) if of == group => {
                    found.insert(generation);
                    generation.0.checked_add(1)
                }
                Some(_) | None => None,
            };
        }
        Ok(found.into_iter().collect())
    }

    fn last_flushed(
        &self,
        group: GroupId,
        generation: Generation,
    ) -> Result<Option<RowKey>, StoreError> {
        let (start, end) = all_rows(group, generation);
        let last = self.runs.last_key(&start, &end)?;
        Ok(last.map(|key| key.parts().2))
    }

    fn compact_step(&self) -> Result<bool, StoreError> {
        self.runs.compact_step()
    }

    fn set_generation(&self, group: GroupId, generation: Generation) {
        self.floors.set_generation(group, generation);
    }

    fn set_loading(&self, group: GroupId, generations: &[Generation]) {
        self.floors.set_loading(group, generations);
    }

    fn set_floor(
        &self,
        group: GroupId,
        generation: Generation,
        number: ResourceNumber,
        floor: Seq,
    ) {
        let state = self.state.read();
        let unflushed = if state.active.rows.read().is_touched() {
            Some(&state.active)
        } else {
            state.sealed.back()
        };
        match unflushed {
            Some(layer) => layer.floors.lock().push((group, generation, number, floor)),
            None => self.floors.set_floor(group, generation, number, floor),
        }
    }

    fn scrub(
        &self,
        pace: &mut dyn FnMut(&ScrubProgress) -> ControlFlow<()>,
    ) -> Result<ScrubReport, StoreError> {
        self.runs.scrub(pace)
    }

    fn stats(&self) -> StoreStats {
        let mut stats = StoreStats {
            cache_bytes: self.cache.bytes(),
            flushes: self.flushes.load(Ordering::Relaxed),
            ..StoreStats::default()
        };
        {
            let state = self.state.read();
            stats.active_bytes = state.active.rows.read().bytes();
            stats.sealed = state.sealed.len();
            stats.sealed_bytes = state.sealed.iter().map(|layer| layer.rows.read().bytes()).sum();
        }
        self.runs.stats(&mut stats);
        stats
    }
}

impl<R> fmt::Debug for Store<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("options", &self.options).finish_non_exhaustive()
    }
}

/// Rows that the next entries of an active session need: kept in the cache across a flush. Which
/// session a name belongs to is not known here, so a name stays if it was there before.
fn is_hot(key: &RowKey) -> bool {
    match key.table() {
        Table::Group | Table::Directory | Table::Session | Table::Producer => true,
        Table::Applied | Table::Event | Table::ProducerAge | Table::Request | Table::RequestAge => {
            false
        }
    }
}

/// What a flush writes: the memtable's rows and the applied rows that differ from `durable`.
///
/// The applied row of a group is its very first key: generation 0, table 0.
fn flush_rows<'a>(
    memtable: &'a Memtable,
    durable: &'a [Applied],
) -> impl Iterator<Item = (FullKey, Slot)> + 'a {
    let changed = memtable.all_applied().iter().enumerate().filter_map(|(group, applied)| {
        let old = durable.get(group).copied().unwrap_or_default();
        let key = FullKey::applied(GroupId(group as u16));
        (*applied != old).then(|| (key, Some(applied.encode())))
    });
    let rows = memtable
        .rows()
        .map(|(group, generation, key, slot)| (FullKey::new(group, generation, &key), slot));
    let mut changed = changed.peekable();
    let mut rows = rows.peekable();
    std::iter::from_fn(move || match (changed.peek(), rows.peek()) {
        (Some((left, _)), Some((right, _))) if left < right => changed.next(),
        (Some(_), None) => changed.next(),
        _ => rows.next(),
    })
}

/// Finds the applied row of every group: the first key at or behind each one's place.
fn read_applied(runs: &impl Runs) -> Result<Vec<Applied>, StoreError> {
    let mut applied = Vec::new();
    let mut group = GroupId(0);
    loop {
        let key = FullKey::applied(group);
        let first = runs.range(Bound::Included(&key), Bound::Unbounded).next().transpose()?;
        let Some((found, value)) = first else { break };
        let (of, _, _) = found.parts();
        if found == FullKey::applied(of) {
            let decoded = Applied::decode(value).ok_or_else(|| runs.bad_row(&found))?;
            applied.resize(usize::from(of.0) + 1, Applied::default());
            applied[usize::from(of.0)] = decoded;
        }
        match of.0.checked_add(1) {
            Some(next) => group = GroupId(next),
            None => break,
        }
    }
    Ok(applied)
}

#[cfg(test)]
mod tests;
