//! The compaction filter: drops rows that can no longer be read, and makes the names of new
//! blob files durable.
//!
//! A dropped row leaves no tombstone behind. An older version of it further down may come up
//! again, which nobody can see: it is below the same floor or of the same dead generation.
//!
//! The end of the filter is the one moment between the last blob written by a compaction and
//! its pointer move that the crate lets us have. It cannot return an error, and going on would
//! register files whose names may not survive a power loss, so a failed sync unwinds from here
//! to the guard around the compaction, with the version untouched.

use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::Arc;

use lsm_tree::compaction::filter::{CompactionFilter, Context, Factory, ItemAccessor, Verdict};

use super::{SyncFailed, sync_dir};
use crate::floors::Floors;
use crate::options::{KillPoints, Pacing, StoreOptions, Work};

/// Bytes counted for what follows a key in a table: a short value, or where a blob lies.
const ROW_BYTES_GUESS: usize = 64;

/// Makes a filter for each compaction.
#[derive(Clone)]
pub(super) struct Cut {
    floors: Arc<Floors>,
    blobs: PathBuf,
    pacing: Pacing,
    /// Bytes since the last pacing step.
    paced: u64,
    kill_points: KillPoints,
}

impl Cut {
    pub(super) fn new(floors: Arc<Floors>, blobs: PathBuf, options: &StoreOptions) -> Cut {
        let pacing = options.pacing.clone();
        let kill_points = options.kill_points.clone();
        Cut { floors, blobs, pacing, paced: 0, kill_points }
    }
}

// Locks of floors do not poison and its maps are changed in single steps, so a panic elsewhere
// leaves them whole; the callback of kill points belongs to tests.
impl std::panic::RefUnwindSafe for Cut {}

impl Factory for Cut {
    fn name(&self) -> &str {
        "floors and generations"
    }

    fn make_filter(&self, _ctx: &Context) -> Box<dyn CompactionFilter> {
        Box::new(self.clone())
    }
}

impl CompactionFilter for Cut {
    fn filter_item(&mut self, item: ItemAccessor<'_>, _ctx: &Context) -> lsm_tree::Result<Verdict> {
        let bytes = item.key().len() + ROW_BYTES_GUESS;
        self.pacing.count(Work::Compaction, &mut self.paced, bytes);
        let is_forgotten = self.floors.is_forgotten(item.key());
        Ok(if is_forgotten { Verdict::Destroy } else { Verdict::Keep })
    }

    fn finish(self: Box<Self>) {
        self.kill_points.reach("compaction-rows-written");
        if let Err(error) = sync_dir(&self.blobs) {
            resume_unwind(Box::new(SyncFailed(error)));
        }
        self.kill_points.reach("compaction-before-pointer-move");
    }
}
