//! The face of the store: one trait, two stores behind it (on disk, and its in-memory twin).
//!
//! Three kinds of callers, and which calls are theirs:
//!  - the *driver* (never waits for a disk): `write`, `load`, `applied`, `get_cached`,
//!    `range_cached`, `needs_rotation`, `rotate`, `is_full`, `flushes`, `flush_mark`,
//!    `set_generation`, `set_loading`, `set_floor`;
//!  - *readers* beside it (may wait for a disk): `get`, `range`, `prefetch`, `prefetch_range`,
//!    `export`, `newest_generation`;
//!  - *background threads*: `flush_one`, `compact_step`, `scrub`.
//!
//! Absent on purpose: transactions, and views of any moment but the last flush (`export`). One
//! entry's rows enter in one step, and whoever needs more than one step at once asks the driver.

use std::ops::ControlFlow;
use std::path::PathBuf;

use bytes::Bytes;
use tl_types::{FullKey, Generation, GroupId, Index, ResourceNumber, RowKey, Seq, Term};

use crate::applied::Applied;
use crate::error::StoreError;

/// A row with its key within the group.
pub type Row = (RowKey, Bytes);

/// All rows of a group as its last flush made them durable, read from disk as they are asked for.
/// What is written, flushed or compacted meanwhile does not show in them.
pub struct Export {
    /// The last entry in the rows.
    pub applied: Applied,
    /// The rows in order of their keys, those of the `Applied` table left out.
    pub rows: Box<dyn Iterator<Item = Result<Row, StoreError>> + Send>,
}

impl std::fmt::Debug for Export {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Export").field("applied", &self.applied).finish_non_exhaustive()
    }
}

/// The writes of one applied log entry.
#[derive(Debug, Clone)]
pub struct GroupWrites {
    /// The group.
    pub group: GroupId,
    /// The group's live generation.
    pub generation: Generation,
    /// The entry's index.
    pub index: Index,
    /// The entry's term.
    pub term: Term,
    /// What it wrote: a value, or `None` to delete. A later item wins over an earlier one.
    pub rows: Vec<(RowKey, Option<Bytes>)>,
}

/// What memory alone can say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read<T> {
    /// The value.
    Found(T),
    /// There is no such row.
    Absent,
    /// Memory does not know: prefetch, or read beside the driver.
    Cold,
}

/// One group's rows in memory, held still while they are looked at.
///
/// Writes of other rows wait meanwhile, so a look is short and never waits for anything.
pub trait Held {
    /// As [`OrderedStore::get_cached`], lending the value instead of sharing it.
    fn look(&self, key: &RowKey, found: &mut dyn FnMut(&Bytes)) -> Read<()>;

    /// As [`OrderedStore::range_cached`].
    fn range(&self, start: &RowKey, end: &RowKey, limit: usize) -> Read<Vec<Row>>;
}

/// Rows of all groups of one node.
///
/// Two things are asked of what is written:
///  - rows of the `Applied` table are the store's own, made from the indexes of `write`;
///  - events of a session come in the order of their seqs and are not written again after they
///    were flushed. (A crash takes back what was not, so applying the log again is fine.) From
///    that `range_cached` knows that what lies behind the first event in memory is in memory.
///    What `load` brings may come in any order and more than once.
pub trait OrderedStore: Send + Sync {
    /// Takes one entry's rows and its index in one step. Never waits for a disk.
    ///
    /// With a new generation and no rows, this is the switch to that generation.
    fn write(&self, writes: GroupWrites);

    /// Takes rows of a generation that is not live yet (a snapshot being installed), leaving
    /// the applied index alone.
    fn load(&self, group: GroupId, generation: Generation, rows: Vec<(RowKey, Option<Bytes>)>);

    /// The last entry whose rows were taken; index 0 when there is none.
    fn applied(&self, group: GroupId) -> Applied;

    /// How far each known group's rows would survive a crash now.
    fn durable_applied(&self) -> Vec<(GroupId, Applied)>;

    /// Looks a row up in memory only; never waits for a disk or for a thread that does.
    fn get_cached(&self, group: GroupId, generation: Generation, key: &RowKey) -> Read<Bytes>;

    /// Runs a look at rows of one group in memory: locks are taken once, not for every row.
    fn hold<T>(
        &self,
        group: GroupId,
        generation: Generation,
        look: impl FnOnce(&dyn Held) -> T,
    ) -> T
    where
        Self: Sized;

    /// Like [`OrderedStore::range`], from memory only. `Found` also when empty, never `Absent`.
    ///
    /// Memory can tell when the rows are events that all sit in memtables, or when the same
    /// range (or one that starts there and is longer) was given to
    /// [`OrderedStore::prefetch_range`] and no flush has happened since.
    fn range_cached(
        &self,
        group: GroupId,
        generation: Generation,
        start: &RowKey,
        end: &RowKey,
        limit: usize,
    ) -> Read<Vec<Row>>;

    /// Looks a row up, on disk if need be.
    ///
    /// # Errors
    /// - [`StoreError::Damaged`] when the bytes that would answer are not what was written.
    /// - [`StoreError::Io`] when they could not be read.
    fn get(
        &self,
        group: GroupId,
        generation: Generation,
        key: &RowKey,
    ) -> Result<Option<Bytes>, StoreError>;

    /// Rows from `start` (inclusive) to `end` (exclusive) in key order: at most `limit` of
    /// them, and no further row once `bytes_max` bytes of keys and values are reached, so a
    /// row larger than that is still returned alone.
    ///
    /// What a range promises while others write: every row whose last write was finished before
    /// the call is there with that value or a later one, no row is older than the call, none is
    /// invented, none appears twice, and one that was deleted before the call is not there.
    /// Rows of one entry written *during* the call may be seen in part.
    ///
    /// # Errors
    /// As [`OrderedStore::get`].
    fn range(
        &self,
        group: GroupId,
        generation: Generation,
        start: &RowKey,
        end: &RowKey,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Vec<Row>, StoreError>;

    /// Loads rows, or the knowledge that they are absent, from disk into the row cache.
    ///
    /// A hint: the cache is bounded, and a row may be gone again when it is looked up.
    ///
    /// # Errors
    /// As [`OrderedStore::get`].
    fn prefetch(&self, keys: &[FullKey]) -> Result<(), StoreError>;

    /// Loads the first `limit` rows of a range for [`OrderedStore::range_cached`]. A hint too.
    ///
    /// # Errors
    /// As [`OrderedStore::get`].
    fn prefetch_range(
        &self,
        group: GroupId,
        generation: Generation,
        start: &RowKey,
        end: &RowKey,
        limit: usize,
    ) -> Result<(), StoreError>;

    /// Whether the active memtable has reached its size, or stands behind so much log
    /// (`log_bytes` since it was begun) that it must be flushed to let the log go: entries that
    /// are refused or repeat an earlier one write no rows.
    fn needs_rotation(&self, log_bytes: usize) -> bool;

    /// Seals the active memtable for [`OrderedStore::flush_one`]; false when it holds nothing
    /// new. Between batches only, so that a memtable holds whole entries.
    fn rotate(&self) -> bool;

    /// Whether so many sealed memtables wait that writers should be held back.
    fn is_full(&self) -> bool;

    /// Makes the oldest sealed memtable durable, applied indexes included, in one pointer move,
    /// and says whether there was one. Blocking.
    ///
    /// # Errors
    /// - [`StoreError::NoRoom`]: nothing of the memtable counts as durable, it stays readable and
    ///   sealed, and what was written of it is removed; to be called again when there is room.
    /// - [`StoreError::Io`] and [`StoreError::Damaged`]: nothing of the memtable counts as
    ///   durable and it stays readable; the node must stop. Every later flush fails too, since
    ///   after a failed sync a second one proves nothing.
    fn flush_one(&self) -> Result<bool, StoreError>;

    /// Memtables made durable since the store was opened.
    fn flushes(&self) -> u64;

    /// What [`OrderedStore::flushes`] says once every memtable that is sealed now is durable.
    fn flush_mark(&self) -> u64;

    /// Opens a group's rows as of the last flush. They hold on to the files they are in, so
    /// whoever takes them reads them to the end or drops them soon. Blocking: it waits for a
    /// flush that is under way.
    ///
    /// # Errors
    /// [`StoreError::Io`] when an earlier flush failed. What cannot be read later is among the rows.
    fn export(&self, group: GroupId) -> Result<Export, StoreError>;

    /// The generations above this one of which there are rows of the group, or that an entry has
    /// written, in order: what loads that were never finished left behind counts too. Blocking.
    ///
    /// # Errors
    /// As [`OrderedStore::get`].
    fn generations_above(
        &self,
        group: GroupId,
        generation: Generation,
    ) -> Result<Vec<Generation>, StoreError>;

    /// The last key among the rows of a generation, as of the last flush; none if there are none.
    /// Its value is not looked at. Blocking.
    ///
    /// # Errors
    /// As [`OrderedStore::get`].
    fn last_flushed(
        &self,
        group: GroupId,
        generation: Generation,
    ) -> Result<Option<RowKey>, StoreError>;

    /// Does one bounded piece of compaction and says whether the runs changed, so that the
    /// caller asks again. Blocking.
    ///
    /// # Errors
    /// [`StoreError::NoRoom`], after which it may be called again, [`StoreError::Io`] and
    /// [`StoreError::Damaged`]; the runs stay as they were.
    fn compact_step(&self) -> Result<bool, StoreError>;

    /// Says which generation of a group is live; compaction drops rows of earlier ones, and of
    /// later ones that [`OrderedStore::set_loading`] did not name, once it was called for the
    /// group.
    ///
    /// To be called once the switch is durable elsewhere. Feeds compaction only, reads do not
    /// look at it; not remembered across a restart.
    fn set_generation(&self, group: GroupId, generation: Generation);

    /// Says which generations above the live one keep their rows, instead of those named before:
    /// one that is being loaded, ones that are read already while reads that began earlier
    /// still need the live one, and a load that was cut off while a later one may copy from it.
    /// Ends for each when it is said to be live. Not remembered across a restart: until it is
    /// called again for the group, all that are above the live one stay.
    fn set_loading(&self, group: GroupId, generations: &[Generation]);

    /// Says that events of a session up to and including `floor` can no longer be read;
    /// compaction drops them. `Seq(u64::MAX)` stands for a session that is gone.
    ///
    /// Compaction hears of it once everything written before is durable: until then a crash
    /// would bring back rows from before the floor, which read the events below it.
    ///
    /// A floor never moves back. Feeds compaction only, reads do not look at it; not
    /// remembered across a restart.
    fn set_floor(&self, group: GroupId, generation: Generation, number: ResourceNumber, floor: Seq);

    /// Reads everything on disk and compares it with its checksums, file by file.
    ///
    /// `pace` is called before each piece of work and may wait; `Break` ends the scrub early.
    /// Damage goes into the report and does not end the scrub.
    ///
    /// # Errors
    /// [`StoreError::Io`] when a file cannot be read although it is there.
    fn scrub(
        &self,
        pace: &mut dyn FnMut(&ScrubProgress) -> ControlFlow<()>,
    ) -> Result<ScrubReport, StoreError>;

    /// Sizes and counts for metrics.
    fn stats(&self) -> StoreStats;
}

/// Where a scrub is.
#[derive(Debug, Clone, Default)]
pub struct ScrubProgress {
    /// The file being read.
    pub file: PathBuf,
    /// Files of this scrub.
    pub files_total: usize,
    /// Files already read to their end.
    pub files_done: usize,
    /// Bytes read so far, all files.
    pub bytes_done: u64,
}

/// What a scrub found.
#[derive(Debug, Default)]
pub struct ScrubReport {
    /// Files read to their end.
    pub files: usize,
    /// Bytes read.
    pub bytes: u64,
    /// Whether every file was read.
    pub complete: bool,
    /// One error for each damaged or missing file.
    pub damage: Vec<StoreError>,
}

/// Sizes and counts of a store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Bytes of rows in the active memtable.
    pub active_bytes: usize,
    /// Sealed memtables that wait for a flush.
    pub sealed: usize,
    /// Bytes of rows in them.
    pub sealed_bytes: usize,
    /// Bytes of rows in the row cache.
    pub cache_bytes: u64,
    /// Flushes completed since the store was opened.
    pub flushes: u64,
    /// Table files.
    pub tables: usize,
    /// Blob files.
    pub blob_files: usize,
    /// Bytes of table and blob files.
    pub disk_bytes: u64,
}
