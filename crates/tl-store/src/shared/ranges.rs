//! Ranges of the runs kept in memory for the driver, all of one epoch.

use std::collections::HashMap;
use std::sync::Arc;

use tl_types::{FullKey, RowKey};

use crate::store::Row;

/// Ranges of the runs remembered; the next one past it forgets all others.
const RANGES_MAX: usize = 1_024;
/// Pieces of the runs that `prefetch_range` loaded, all of one epoch.
#[derive(Default)]
pub(super) struct Ranges {
    pub(super) epoch: u64,
    pub(super) bytes: usize,
    pub(super) found: HashMap<(FullKey, RowKey), Arc<RunsPiece>>,
}

/// The first rows of a range of the runs.
pub(super) struct RunsPiece {
    pub(super) rows: Vec<Row>,
    /// Whether these are all rows up to the range's end.
    pub(super) is_whole: bool,
}

impl Ranges {
    pub(super) fn put(
        &mut self,
        epoch: u64,
        of: (FullKey, RowKey),
        piece: Arc<RunsPiece>,
        bytes: usize,
        bytes_max: usize,
    ) {
        let is_over = self.found.len() >= RANGES_MAX || self.bytes + bytes > bytes_max;
        if self.epoch != epoch || is_over {
            self.found.clear();
            self.bytes = 0;
            self.epoch = epoch;
        }
        self.bytes += bytes;
        self.found.insert(of, piece);
    }
}
