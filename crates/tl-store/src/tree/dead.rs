//! Tables of a dead generation: nobody reads it, and nothing may be copied from it any more.
//!
//! Compaction would drop such rows one by one, but it looks at tables that new ones overlap, and
//! nobody writes next to a dead generation. A table that has nothing else leaves the tree whole: one
//! pointer move, with the blob files that only such tables name. That rewrites nothing, so it
//! gives room back on a disk that has none. Tables that have rows of others as well, a few for
//! each level, wait for the compaction that meets them, and so do blob files.

use std::sync::atomic::Ordering;

use lsm_tree::{AbstractTree, AnyTree};
use tl_types::{FullKey, Generation, GroupId, ResourceNumber, RowKey, Table};

use super::Tree;
use crate::error::StoreError;
use crate::floors::Floors;

impl Tree {
    /// Lets the tables go that have nothing but rows of one dead generation; false when there are
    /// none.
    pub(super) fn drop_dead(&self) -> Result<bool, StoreError> {
        let doing = "dropping rows of a dead generation";
        let found = self.read(doing, || find(&self.tree, &self.floors))?;
        let Some(Dead { rows: (start, end), blob_bytes }) = found else { return Ok(false) };
        let before = (self.shape(), self.blob_bytes());
        self.writing(doing, || self.tree.drop_range(start.as_bytes()..end.as_bytes()))?;
        if self.shape() == before.0 {
            return Ok(false);
        }
        let gone = before.1.saturating_sub(self.blob_bytes());
        self.blob_bytes_left.fetch_add(blob_bytes.saturating_sub(gone), Ordering::Relaxed);
        self.forget_versions()?;
        Ok(true)
    }
}

/// From the first possible row of a generation to what all of them end before. The store's own
/// rows are not among them.
pub(crate) fn all_rows(group: GroupId, generation: Generation) -> (FullKey, FullKey) {
    let key = |row: &RowKey| FullKey::new(group, generation, row);
    let start = key(&RowKey::table_start(Table::Group, ResourceNumber(0)));
    let last = Table::ALL.last().expect("there are tables");
    (start, key(&RowKey::table_end(*last, ResourceNumber(u64::MAX))))
}

/// A dead generation that has tables to itself.
struct Dead {
    /// Its rows, from the first to what they end before.
    rows: (FullKey, FullKey),
    /// Bytes in blob files that these tables name.
    blob_bytes: u64,
}

/// Finds one, if there is one.
fn find(tree: &AnyTree, floors: &Floors) -> lsm_tree::Result<Option<Dead>> {
    let version = tree.current_version();
    let dead = version.iter_tables().find_map(|table| {
        let first = FullKey::from_bytes(table.metadata.key_range.min())?;
        let (group, generation, _) = first.parts();
        let rows = all_rows(group, generation);
        (floors.is_dead(group, generation) && is_within(table, &rows)).then_some(rows)
    });
    let Some(rows) = dead else { return Ok(None) };
    let all = version.iter_tables().filter(|table| is_within(table, &rows));
    let blob_bytes = all.map(lsm_tree::Table::referenced_blob_bytes).sum::<Result<u64, _>>()?;
    Ok(Some(Dead { rows, blob_bytes }))
}

fn is_within(table: &lsm_tree::Table, (start, end): &(FullKey, FullKey)) -> bool {
    let range = &table.metadata.key_range;
    start.as_bytes() <= range.min().as_ref() && range.max().as_ref() < end.as_bytes()
}
