//! The read side of one group's rows, as the store offers them.

use bytes::Bytes;
use tl_types::RowKey;

/// What a read found. "Not there" and "cannot say" are different answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read<T> {
    /// It is there.
    Found(T),
    /// It is certainly not there.
    Absent,
    /// It is not in memory; load it and ask again.
    Cold,
    /// It was there and cannot be trusted; the text names the damage.
    Damaged(String),
}

/// One group's rows, read only. Implemented by the store's live view and by
/// [`crate::memory::MemoryRows`].
pub trait Rows {
    /// The value of one row.
    fn get(&self, key: &RowKey) -> Read<Bytes>;

    /// Lends the value of one row to `found`, for readers that keep nothing of it.
    fn look(&self, key: &RowKey, found: &mut dyn FnMut(&Bytes)) -> Read<()> {
        match self.get(key) {
            Read::Found(value) => {
                found(&value);
                Read::Found(())
            }
            Read::Absent => Read::Absent,
            Read::Cold => Read::Cold,
            Read::Damaged(what) => Read::Damaged(what),
        }
    }

    /// The first `limit` rows of `start..end`, in key order. `Found` also when there are none.
    fn range(&self, start: &RowKey, end: &RowKey, limit: usize) -> Read<Vec<(RowKey, Bytes)>>;
}

/// Why what a rule or a read produced must not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Poison {
    /// A row was not in memory: load the rows and do it again.
    #[error("a needed row is not in memory")]
    Cold,
    /// A row could not be trusted: stop the group and name the damage.
    #[error("damaged row: {0}")]
    Damaged(String),
}
