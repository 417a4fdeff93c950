//! Rows in memory under locks that are taken once for all looks at them.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tl_types::{FullKey, Generation, GroupId, RowKey, Table};

use super::ranges::Ranges;
use super::state::State;
use crate::cache::RowCache;
use crate::error::StoreError;
use crate::memtable::Memtable;
use crate::merge::{Wanted, cached_runs, merge};
use crate::store::{Held, Read, Row};

/// One group's rows while the state and the active memtable are locked for reading.
pub(super) struct HeldRows<'a> {
    pub(super) cache: &'a RowCache,
    pub(super) ranges: &'a Mutex<Ranges>,
    pub(super) state: &'a State,
    pub(super) active: &'a Memtable,
    pub(super) group: GroupId,
    pub(super) generation: Generation,
}

impl Held for HeldRows<'_> {
    fn look(&self, key: &RowKey, found: &mut dyn FnMut(&Bytes)) -> Read<()> {
        let mut take = |value: Option<&Bytes>| match value {
            Some(value) => {
                found(value);
                Read::Found(())
            }
            None => Read::Absent,
        };
        if let Some(slot) = self.active.get(self.group, self.generation, key) {
            return take(slot.as_ref());
        }
        for layer in self.state.sealed.iter().rev() {
            if let Some(slot) = layer.rows.read().get(self.group, self.generation, key) {
                return take(slot.as_ref());
            }
        }
        match self.cache.get(&FullKey::new(self.group, self.generation, key)) {
            Some(value) => take(value.as_ref()),
            None => Read::Cold,
        }
    }

    fn range(&self, start: &RowKey, end: &RowKey, limit: usize) -> Read<Vec<Row>> {
        let (group, generation) = (self.group, self.generation);
        let wanted = Wanted { group, generation, start, end, limit, bytes_max: usize::MAX };
        range(self.state, self.ranges, wanted)
    }
}

/// Rows of a range, if memory has them all.
pub(super) fn range(state: &State, ranges: &Mutex<Ranges>, wanted: Wanted<'_>) -> Read<Vec<Row>> {
    let Wanted { group, generation, start, end, limit, .. } = wanted;
    if start >= end || limit == 0 {
        return Read::Found(Vec::new());
    }
    let layers = state.layers();
    if is_of_one_session(start, end)
        && let Some(seq) = start.event_seq()
        && let Some(known) = state.events_known_from(group, generation, start.number())
        && seq >= known
    {
        return found(merge(wanted, &layers, std::iter::empty()));
    }
    let of = (FullKey::new(group, generation, start), end.clone());
    let piece = {
        let ranges = ranges.lock();
        match ranges.found.get(&of).filter(|_| ranges.epoch == state.epoch) {
            Some(piece) => Arc::clone(piece),
            None => return Read::Cold,
        }
    };
    if piece.is_whole {
        return found(merge(wanted, &layers, cached_runs(&piece.rows)));
    }
    // What lies behind the piece is not known: stop at its last row.
    let Some((last, _)) = piece.rows.last() else { return Read::Cold };
    let known = Wanted { end: &last.with(&[0]), ..wanted };
    match merge(known, &layers, cached_runs(&piece.rows)) {
        Ok(rows) if rows.len() == limit => Read::Found(rows),
        _ => Read::Cold,
    }
}

/// A merge without runs cannot fail; a damaged one would have been `Cold`.
fn found(rows: Result<Vec<Row>, StoreError>) -> Read<Vec<Row>> {
    rows.map_or(Read::Cold, Read::Found)
}

/// Whether a range stays within the events of one session.
fn is_of_one_session(start: &RowKey, end: &RowKey) -> bool {
    start.event_seq().is_some() && *end <= RowKey::table_end(Table::Event, start.number())
}
