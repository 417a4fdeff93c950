//! Sorted runs on disk: the only module that touches the `lsm-tree` crate.
//!
//! The tree never sees its own memtable used, nor its sequence numbers: every flush is one
//! *ingestion*, a sorted stream of rows that becomes tables and blob files and enters the tree
//! by one pointer move. `lsm-tree` has no journal, so that move is all there is to durability.
//!
//! **Order of syncs**, each a line of what the crate does unless said otherwise:
//!
//! ```text
//!   blobs/      synced by us, after the last row and before anything is registered: all blob
//!               files of the flush exist by then, the crate only syncs what is in them
//!   blobs/N     contents synced
//!   tables/N    contents synced, then tables/
//!   vM          the new list of tables and blob files: contents synced, then the directory
//!   current     a temporary file synced, renamed over `current`: the pointer move
//!   current     synced, then the directory
//! ```
//!
//! Compaction may move values to new blob files by the same writer. Its only hook between the
//! last value and the pointer move is the end of the compaction filter, so `blobs/` is synced
//! there; see [`filter`]. Tables that leave without being rewritten take the last two lines alone.
//!
//! **What the crate does not look at**, so that we do before it opens anything: whether
//! `current` is there, whether the version file is what was written, whether every file it names
//! exists; see [`manifest`].
//!
//! **A full disk** is no reason to stop as long as the pointer has not moved: the half-written
//! files are removed, and the memtable or the runs stay as they are; see [`leftovers`].
//!
//! **Panics.** The crate asserts some things about bytes that it reads. A panic there is damage,
//! not a bug of the caller, so every call runs under [`guarded`], which turns it into an error.

use std::any::Any;
use std::fs::{self, File};
use std::io;
use std::ops::{Bound, ControlFlow};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use lsm_tree::compaction::Leveled;
use lsm_tree::config::CompressionPolicy;
use lsm_tree::{
    AbstractTree, AnyTree, Cache, CompressionType, Config, Guard, KvSeparationOptions, SeqNo,
    SequenceNumberCounter, UserKey, UserValue,
};
use parking_lot::Mutex;
use tl_types::FullKey;

use crate::error::StoreError;
use crate::floors::Floors;
use crate::memtable::Slot;
use crate::options::{KillPoints, Pacing, StoreOptions, Work};
use crate::runs::{PinnedRows, RunRows, Runs};
use crate::store::{ScrubProgress, ScrubReport, StoreStats};
use leftovers::Before;
use manifest::Listed;
use writeback::Writeback;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use manifest::listed_files;

pub(crate) use dead::all_rows;

mod archive;
mod dead;
mod filter;
mod leftovers;
mod manifest;
mod scrub;
mod writeback;

/// The crate's name for the directory of blob files.
const BLOBS_DIR: &str = "blobs";
/// Share of a blob file that must be forgotten before compaction moves the rest elsewhere: at
/// a half, each byte kept costs at most one byte rewritten.
const BLOB_STALE_RATIO: f32 = 0.5;
/// Reads look at the newest state; there are no snapshots by sequence number.
const NEWEST: SeqNo = SeqNo::MAX;

/// Tables and blob files in a directory.
pub struct Tree {
    tree: AnyTree,
    dir: PathBuf,
    /// Held by the one flush or compaction at a time, so that new files have one maker.
    writing: Mutex<()>,
    table_file_bytes: u64,
    purge_rows_min: u64,
    /// Bytes of dropped blobs when a purge last looked at them.
    stale_seen: AtomicU64,
    /// Bytes that tables of dead generations named in blob files and that are still there, as far
    /// as no purge has looked since. The crate does not count all of these as dropped.
    blob_bytes_left: AtomicU64,
    floors: Arc<Floors>,
    pacing: Pacing,
    kill_points: KillPoints,
}

impl Tree {
    pub(crate) fn open(
        dir: &Path,
        options: &StoreOptions,
        floors: Arc<Floors>,
    ) -> Result<Tree, StoreError> {
        let doing = "opening the store";
        let dir = &std::path::absolute(dir).map_err(|source| StoreError::Io {
            file: dir.to_path_buf(),
            doing: doing.into(),
            source,
        })?;
        let seqno = SequenceNumberCounter::default();
        let visible = SequenceNumberCounter::default();
        let blobs = KvSeparationOptions::default()
            .compression(CompressionType::None)
            .separation_threshold(options.blob_threshold)
            .staleness_threshold(BLOB_STALE_RATIO)
            .age_cutoff(1.0)
            .file_target_size(options.blob_file_bytes);
        let cut = filter::Cut::new(Arc::clone(&floors), dir.join(BLOBS_DIR), options);
        let config = Config::new(dir, seqno.clone(), visible.clone())
            .use_cache(Arc::new(Cache::with_capacity_bytes(options.block_cache_bytes as u64)))
            .with_kv_separation(Some(blobs))
            .data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4))
            .with_compaction_filter_factory(Some(Arc::new(cut)));
        let listed = manifest::read(dir)?;
        if listed.is_empty() {
            make_findable(dir)?;
        }
        let tree = guarded(dir, doing, || config.open()).map_err(|error| named(error, &listed))?;
        let next = tree.get_highest_persisted_seqno().map_or(0, |highest| highest + 1);
        seqno.fetch_max(next);
        visible.fetch_max(next);
        Ok(Tree {
            tree,
            dir: dir.to_path_buf(),
            writing: Mutex::new(()),
            table_file_bytes: options.table_file_bytes,
            purge_rows_min: options.purge_rows_min,
            stale_seen: AtomicU64::new(0),
            blob_bytes_left: AtomicU64::new(0),
            floors,
            pacing: options.pacing.clone(),
            kill_points: options.kill_points.clone(),
        })
    }

    /// Runs a call of the tree; a damaged read names the file that was damaged, if it is found.
    fn read<T>(
        &self,
        doing: &str,
        call: impl FnOnce() -> lsm_tree::Result<T>,
    ) -> Result<T, StoreError> {
        guarded(&self.dir, doing, call).map_err(|error| {
            let (_held, files) = scrub::files_of(&self.tree);
            named(error, &files)
        })
    }

    /// Runs what writes new files and moves the pointer to them. When there is no room, what was
    /// written is removed, and the call may be repeated.
    fn writing<T>(
        &self,
        doing: &str,
        call: impl FnOnce() -> lsm_tree::Result<T>,
    ) -> Result<T, StoreError> {
        let io = |source| StoreError::Io { file: self.dir.clone(), doing: doing.into(), source };
        let before = Before::an_attempt(&self.dir, self.shape()).map_err(io)?;
        self.read(doing, call).map_err(|error| {
            let StoreError::Io { file, doing, source } = error else { return error };
            if !is_no_room(&source) {
                return StoreError::Io { file, doing, source };
            }
            match before.restore(&self.dir) {
                Ok(()) => StoreError::NoRoom { file, doing, source },
                Err(source) => StoreError::Io { file, doing, source },
            }
        })
    }

    /// Rewrites all tables through the filter when enough of their rows are forgotten, when
    /// more than half of the bytes in blob files are of rows that compaction has dropped, or when
    /// a quarter of them was named by tables of dead generations.
    ///
    /// Compaction by levels looks at tables that overlap new ones only, so rows of a store that
    /// is trimmed more than it is written would stay for ever. Tables hold keys and short values;
    /// the cost is a copy of those, and a quarter of the rows is gained by it. Blobs are given
    /// back in a second pass, which knows from the first what nobody names any more.
    fn purge(&self) -> Result<bool, StoreError> {
        let forgotten = self.floors.forgotten();
        let quarter = self.tree.approximate_len() as u64 / 4;
        let has_rows = forgotten > 0 && forgotten >= self.purge_rows_min.max(quarter);
        let stale = self.tree.stale_blob_bytes();
        let blobs = self.blob_bytes();
        let left = self.blob_bytes_left.load(Ordering::Relaxed);
        let has_left = left > 0 && left >= blobs / 4;
        // The same bytes again would be a pass in vain, and then one more.
        let has_blobs =
            stale > blobs / 2 && self.stale_seen.swap(stale, Ordering::Relaxed) != stale;
        if !has_rows && !has_blobs && !has_left {
            return Ok(false);
        }
        self.kill_points.reach("purge-begin");
        self.writing("purging", || self.tree.major_compact(self.table_file_bytes, NEWEST))
            .inspect_err(|_| self.stale_seen.store(0, Ordering::Relaxed))?;
        self.forget_versions()?;
        self.floors.purged(forgotten);
        self.blob_bytes_left.fetch_sub(left, Ordering::Relaxed);
        self.kill_points.reach("purge-end");
        Ok(true)
    }

    /// Lets all versions but the newest go, and so the files that only they name.
    ///
    /// The crate keeps them for readers of the past. There are none here: whoever reads holds
    /// the version that was newest when the read began, and its files stay until that ends.
    fn forget_versions(&self) -> Result<(), StoreError> {
        let forgotten = guarded(&self.dir, "removing old lists of files", || {
            self.tree.get_version_history_lock().maintenance(&self.dir, NEWEST)
        });
        match forgotten {
            // Some file systems need room to remove a file; the next time takes the rest.
            Err(StoreError::Io { source, .. }) if is_no_room(&source) => Ok(()),
            other => other,
        }
    }

    fn blob_bytes(&self) -> u64 {
        self.tree.current_version().blob_files.on_disk_size()
    }

    /// What compaction looks at, so that a step that did nothing can be told.
    fn shape(&self) -> u64 {
        self.tree.current_version().id()
    }
}

impl Runs for Tree {
    fn ingest(&self, rows: &mut dyn Iterator<Item = (FullKey, Slot)>) -> Result<(), StoreError> {
        let _one = self.writing.lock();
        let blobs = self.dir.join(BLOBS_DIR);
        self.writing("flushing a memtable", || {
            let mut writeback = Writeback::of(&blobs);
            let mut ingestion = self.tree.ingestion()?;
            let mut paced = 0;
            for (key, slot) in rows {
                let bytes = key.as_bytes().len() + slot.as_ref().map_or(0, Bytes::len);
                self.pacing.count(Work::Flush, &mut paced, bytes);
                writeback.count(bytes)?;
                match slot {
                    Some(value) => ingestion.write(key.as_bytes(), value)?,
                    None => ingestion.write_tombstone(key.as_bytes())?,
                }
            }
            self.kill_points.reach("flush-rows-written");
            sync_dir(&blobs)?;
            self.kill_points.reach("flush-before-pointer-move");
            ingestion.finish()
        })?;
        self.forget_versions()
    }

    fn get(&self, key: &FullKey) -> Result<Option<Bytes>, StoreError> {
        let value = match guarded(&self.dir, "", || self.tree.get(key.as_bytes(), NEWEST)) {
            Ok(value) => value,
            // Read again to say what and where: the words are not paid for by reads that work.
            Err(_) => self
                .read(&format!("reading row {key:?}"), || self.tree.get(key.as_bytes(), NEWEST))?,
        };
        Ok(value.map(Bytes::from))
    }

    fn range(&self, start: Bound<&FullKey>, end: Bound<&FullKey>) -> RunRows<'_> {
        let bounds = (start.map(FullKey::as_bytes), end.map(FullKey::as_bytes));
        let doing = "reading a range of rows";
        let open = || Ok(self.tree.range::<&[u8], _>(bounds, NEWEST, None));
        let mut rows = match guarded(&self.dir, doing, open) {
            Ok(rows) => Some(rows),
            Err(error) => return Box::new(std::iter::once(Err(error))),
        };
        Box::new(std::iter::from_fn(move || {
            let next = self.read(doing, || {
                rows.as_mut().and_then(Iterator::next).map(Guard::into_inner).transpose()
            });
            let row = match next {
                Ok(row) => row?,
                Err(error) => {
                    // Nothing behind a failed read is trusted.
                    rows = None;
                    return Some(Err(error));
                }
            };
            Some(named_row(&self.dir, doing, row))
        }))
    }

    fn last_key(&self, start: &FullKey, end: &FullKey) -> Result<Option<FullKey>, StoreError> {
        let bounds = (Bound::Included(start.as_bytes()), Bound::Excluded(end.as_bytes()));
        let doing = "looking for the last row of a range";
        let last = self.read(doing, || {
            let mut rows = self.tree.range::<&[u8], _>(bounds, NEWEST, None);
            rows.next_back().map(Guard::key).transpose()
        })?;
        last.map(|key| named_key(&self.dir, doing, &key)).transpose()
    }

    fn pinned(&self, start: &FullKey, end: &FullKey) -> PinnedRows {
        let bounds = (Bound::Included(start.as_bytes()), Bound::Excluded(end.as_bytes()));
        let (dir, doing) = (self.dir.clone(), "reading all rows of a group");
        let open = || Ok(self.tree.range::<&[u8], _>(bounds, NEWEST, None));
        let mut rows = match guarded(&dir, doing, open) {
            Ok(rows) => Some(rows),
            Err(error) => return Box::new(std::iter::once(Err(error))),
        };
        Box::new(std::iter::from_fn(move || {
            let next = guarded(&dir, doing, || {
                rows.as_mut().and_then(Iterator::next).map(Guard::into_inner).transpose()
            });
            match next {
                Ok(row) => row.map(|row| named_row(&dir, doing, row)),
                Err(error) => {
                    // Nothing behind a failed read is trusted.
                    rows = None;
                    Some(Err(error))
                }
            }
        }))
    }

    fn compact_step(&self) -> Result<bool, StoreError> {
        let _one = self.writing.lock();
        // First: it needs the least room, and what it lets go need not be rewritten.
        if self.drop_dead()? {
            return Ok(true);
        }
        let before = self.shape();
        let leveled = Leveled::default().with_table_target_size(self.table_file_bytes);
        self.kill_points.reach("compaction-begin");
        self.writing("compacting", || self.tree.compact(Arc::new(leveled), NEWEST))?;
        self.kill_points.reach("compaction-end");
        if self.shape() != before {
            self.forget_versions()?;
            return Ok(true);
        }
        self.purge()
    }

    fn scrub(
        &self,
        pace: &mut dyn FnMut(&ScrubProgress) -> ControlFlow<()>,
    ) -> Result<ScrubReport, StoreError> {
        scrub::scrub(&self.dir, &self.tree, pace)
    }

    fn flush_failed(&self) -> StoreError {
        StoreError::Io {
            file: self.dir.clone(),
            doing: "flushing a memtable".into(),
            source: io::Error::other("an earlier flush failed"),
        }
    }

    fn bad_row(&self, key: &FullKey) -> StoreError {
        StoreError::Damaged {
            file: self.dir.clone(),
            doing: format!("reading row {key:?}"),
            detail: "the value is not one of this row".into(),
        }
    }

    fn stats(&self, stats: &mut StoreStats) {
        stats.tables = self.tree.table_count();
        stats.blob_files = self.tree.blob_file_count();
        stats.disk_bytes = self.tree.disk_space();
    }
}

impl std::fmt::Debug for Tree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tree").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// A row as the tree gives it, with its key read.
fn named_row(
    dir: &Path,
    doing: &str,
    (key, value): (UserKey, UserValue),
) -> Result<(FullKey, Bytes), StoreError> {
    Ok((named_key(dir, doing, &key)?, Bytes::from(value)))
}

fn named_key(dir: &Path, doing: &str, key: &UserKey) -> Result<FullKey, StoreError> {
    FullKey::from_bytes(key).ok_or_else(|| StoreError::Damaged {
        file: dir.to_path_buf(),
        doing: doing.into(),
        detail: format!("{key:?} is no key of a row"),
    })
}

/// Makes a new store's directory, so that its name outlives a power loss: the crate syncs what
/// is in the directory, never the one above it.
fn make_findable(dir: &Path) -> Result<(), StoreError> {
    let synced = fs::create_dir_all(dir).and_then(|()| dir.parent().map_or(Ok(()), sync_dir));
    synced.map_err(|source| StoreError::Io {
        file: dir.to_path_buf(),
        doing: "making the store's directory".into(),
        source,
    })
}

/// Makes the entries of a directory durable.
fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Whether the disk has no room, or whoever owns the files may have no more of it.
fn is_no_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// A failed sync of a directory, carried out of a place that can only panic.
struct SyncFailed(io::Error);

/// Runs a call of the crate; its errors and panics become ours, with what was being done.
fn guarded<T>(
    dir: &Path,
    doing: &str,
    call: impl FnOnce() -> lsm_tree::Result<T>,
) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(sorted(dir, doing, error)),
        Err(panic) => Err(caught(dir, doing, panic)),
    }
}

/// Puts the file to blame into a report of damage, when one of these turns out to be damaged.
fn named(error: StoreError, files: &[Listed]) -> StoreError {
    let StoreError::Damaged { file, doing, detail } = error else { return error };
    let file = scrub::blame(files).unwrap_or(file);
    StoreError::Damaged { file, doing, detail }
}

fn sorted(dir: &Path, doing: &str, error: lsm_tree::Error) -> StoreError {
    let damaged = |detail: String| StoreError::Damaged {
        file: dir.to_path_buf(),
        doing: doing.into(),
        detail,
    };
    match error {
        // A read that ends early or finds no file is damage: the lists name what must be there.
        lsm_tree::Error::Io(source)
            if matches!(
                source.kind(),
                io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound | io::ErrorKind::InvalidData
            ) =>
        {
            damaged(source.to_string())
        }
        lsm_tree::Error::Io(source) => {
            StoreError::Io { file: dir.to_path_buf(), doing: doing.into(), source }
        }
        other => damaged(format!("{other:?}")),
    }
}

fn caught(dir: &Path, doing: &str, panic: Box<dyn Any + Send>) -> StoreError {
    let file = dir.to_path_buf();
    let doing = doing.to_owned();
    match panic.downcast::<SyncFailed>() {
        // Not "no room", whatever it says: the crate was left in the middle of its work.
        Ok(failed) => {
            let source = io::Error::other(failed.0);
            StoreError::Io { file: file.join(BLOBS_DIR), doing, source }
        }
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            let detail = text.unwrap_or("the reader gave up").to_owned();
            StoreError::Damaged { file, doing, detail }
        }
    }
}
