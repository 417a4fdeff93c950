//! What rules see of one group's rows: an overlay that collects an entry's writes.
//!
//! Calls return values, never `Result`. A read that cannot be answered *poisons* the view and
//! the rule sees "absent"; whoever ran the rule looks at [`View::poison`] before using
//! anything. The first poison stays: what a rule finds after it may be nonsense.

use bytes::Bytes;
use tl_types::RowKey;

use crate::rows::{Poison, Read, Rows};

use self::writes::Writes;

mod writes;

/// Rows to write, in key order, each key once; `None` deletes.
pub type WriteSet = Vec<(RowKey, Option<Bytes>)>;

/// One group's rows with the writes of one entry laid over them.
pub struct View<'a> {
    rows: &'a dyn Rows,
    writes: Writes,
    poison: Option<Poison>,
}

impl std::fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").field("writes", &self.writes).field("poison", &self.poison).finish()
    }
}

impl<'a> View<'a> {
    /// A view without writes.
    #[must_use]
    pub fn new(rows: &'a dyn Rows) -> View<'a> {
        View { rows, writes: Writes::default(), poison: None }
    }

    /// Runs a read and gives its result only if every row could be read.
    ///
    /// # Errors
    /// [`Poison`] when a row was cold or damaged.
    pub fn read<T>(rows: &'a dyn Rows, read: impl FnOnce(&mut View<'a>) -> T) -> Result<T, Poison> {
        let mut view = View::new(rows);
        let seen = read(&mut view);
        debug_assert!(view.writes.is_empty(), "a read writes nothing");
        match view.poison {
            None => Ok(seen),
            Some(poison) => Err(poison),
        }
    }

    /// The value of a row.
    pub fn get(&mut self, key: &RowKey) -> Option<Bytes> {
        if let Some(written) = self.writes.get(key) {
            return written.clone();
        }
        match self.rows.get(key) {
            Read::Found(value) => Some(value),
            Read::Absent => None,
            Read::Cold => {
                self.poison_with(Poison::Cold);
                None
            }
            Read::Damaged(what) => {
                self.damaged(what);
                None
            }
        }
    }

    /// What `look` makes of a row, without sharing its value.
    pub fn look<T>(&mut self, key: &RowKey, look: impl FnOnce(&Bytes) -> T) -> Option<T> {
        if let Some(written) = self.writes.get(key) {
            return written.as_ref().map(look);
        }
        let (mut look, mut seen) = (Some(look), None);
        let read = self.rows.look(key, &mut |value| {
            seen = look.take().map(|look| look(value));
        });
        match read {
            Read::Found(()) => {}
            Read::Absent => return None,
            Read::Cold => self.poison_with(Poison::Cold),
            Read::Damaged(what) => self.damaged(what),
        }
        seen
    }

    /// The first `limit` rows of `start..end`, in key order.
    pub fn range(&mut self, start: &RowKey, end: &RowKey, limit: usize) -> Vec<(RowKey, Bytes)> {
        let written: Vec<_> = self.writes.range(start, end);
        let deleted = written.iter().filter(|(_, value)| value.is_none()).count();
        // Deleted rows may hide as many of the rows below; ask for those too.
        let below = match self.rows.range(start, end, limit.saturating_add(deleted)) {
            Read::Found(rows) => rows,
            Read::Absent => Vec::new(),
            Read::Cold => {
                self.poison_with(Poison::Cold);
                Vec::new()
            }
            Read::Damaged(what) => {
                self.damaged(what);
                Vec::new()
            }
        };
        if written.is_empty() { below } else { merge(below, written, limit) }
    }

    /// Writes a row.
    pub fn put(&mut self, key: RowKey, value: Bytes) {
        self.writes.insert(key, Some(value));
    }

    /// Deletes a row.
    pub fn delete(&mut self, key: RowKey) {
        self.writes.insert(key, None);
    }

    /// Says that a row's bytes make no sense.
    pub fn damaged(&mut self, what: String) {
        self.poison_with(Poison::Damaged(what));
    }

    /// Why nothing seen through this view may be used, if so.
    #[must_use]
    pub fn poison(&self) -> Option<&Poison> {
        self.poison.as_ref()
    }

    /// Whether anything was written.
    #[must_use]
    pub fn has_writes(&self) -> bool {
        !self.writes.is_empty()
    }

    /// Calls `each` for every write, in key order.
    pub fn for_each_write(&self, each: impl FnMut(&RowKey, Option<&Bytes>)) {
        self.writes.for_each(each);
    }

    /// The writes, or why they must not be used.
    ///
    /// # Errors
    /// [`Poison`] when a row could not be read.
    pub fn into_writes(self) -> Result<WriteSet, Poison> {
        match self.poison {
            None => Ok(self.writes.into_sorted()),
            Some(poison) => Err(poison),
        }
    }

    fn poison_with(&mut self, poison: Poison) {
        self.poison.get_or_insert(poison);
    }
}

/// Two sorted lists into one; a write hides the row below it.
fn merge(
    below: Vec<(RowKey, Bytes)>,
    written: Vec<(RowKey, Option<Bytes>)>,
    limit: usize,
) -> Vec<(RowKey, Bytes)> {
    let mut merged = Vec::with_capacity(limit.min(below.len() + written.len()));
    let mut below = below.into_iter().peekable();
    let mut written = written.into_iter().peekable();
    while merged.len() < limit {
        let take_below = match (below.peek(), written.peek()) {
            (None, None) => break,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some((a, _)), Some((b, _))) => {
                if a == b {
                    below.next();
                    continue;
                }
                a < b
            }
        };
        if take_below {
            merged.extend(below.next());
        } else if let Some((key, Some(value))) = written.next() {
            merged.push((key, value));
        }
    }
    merged
}

#[cfg(test)]
mod tests;
