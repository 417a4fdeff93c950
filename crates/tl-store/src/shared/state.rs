//! The memtables that reads merge, and what is durable beneath them.

use std::collections::VecDeque;
use std::sync::Arc;

use tl_types::{Generation, GroupId, ResourceNumber, RowKey, Seq};

use crate::applied::Applied;
use crate::memtable::Slot;
use crate::merge::Layer;

/// Everything that a rotation or a flush changes, under one lock.
pub(super) struct State {
    pub(super) active: Arc<Layer>,
    /// Oldest first.
    pub(super) sealed: VecDeque<Arc<Layer>>,
    /// Applied indexes of the last completed flush, by group number.
    pub(super) durable: Vec<Applied>,
    pub(super) epoch: u64,
}

impl State {
    /// The row's newest slot in memtables, if one has it.
    pub(super) fn in_memtables(
        &self,
        group: GroupId,
        generation: Generation,
        key: &RowKey,
    ) -> Option<Slot> {
        let newest_first = std::iter::once(&self.active).chain(self.sealed.iter().rev());
        for layer in newest_first {
            if let Some(slot) = layer.rows.read().get(group, generation, key) {
                return Some(slot.clone());
            }
        }
        None
    }

    /// All memtables, newest first.
    pub(super) fn layers(&self) -> Vec<Arc<Layer>> {
        std::iter::once(&self.active).chain(self.sealed.iter().rev()).cloned().collect()
    }

    /// The first event from which on memtables have every event of a session.
    pub(super) fn events_known_from(
        &self,
        group: GroupId,
        generation: Generation,
        number: ResourceNumber,
    ) -> Option<Seq> {
        let newest_first = std::iter::once(&self.active).chain(self.sealed.iter().rev());
        let mut known: Option<Seq> = None;
        for layer in newest_first {
            let memtable = layer.rows.read_recursive();
            let Some((first, next)) = memtable.event_seqs(group, generation, number) else {
                continue;
            };
            match known {
                Some(from) if next < from => break,
                Some(from) => known = Some(first.min(from)),
                None => known = Some(first),
            }
        }
        known
    }
}
