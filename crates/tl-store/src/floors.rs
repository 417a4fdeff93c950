//! What compaction may forget: events at or below a floor, rows of generations that are neither
//! live nor being loaded.
//!
//! Told by the node from rows that it has, kept in memory only. Forgetting less than allowed is
//! harmless, so the number of floors remembered is bounded and a new one past it is dropped.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use tl_types::{FullKey, Generation, GroupId, ResourceNumber, Seq, Table};

/// Most floors remembered, about 40 bytes each.
const FLOORS_MAX: usize = 1 << 20;

/// Rows that one step of a session's floor counts for at most: a floor of a session that is
/// gone says nothing of how many there were.
const SESSION_ROWS_GUESS: u64 = 10_000;
/// Rows that a change of generation counts for: those in tables with rows of others. What has
/// tables to itself goes with these, and is not counted.
const GENERATION_ROWS_GUESS: u64 = 100_000;

type SessionOf = (GroupId, Generation, ResourceNumber);

/// Floors of sessions and live generations of groups.
#[derive(Debug, Default)]
pub(crate) struct Floors {
    live: RwLock<HashMap<GroupId, Generation>>,
    /// Generations above the live ones whose rows stay; a few for each group. All of them stay
    /// of a group of which nothing was said yet.
    loading: RwLock<HashMap<GroupId, Vec<Generation>>>,
    floors: RwLock<HashMap<SessionOf, Seq>>,
    /// About how many rows were forgotten since compaction last went over everything.
    forgotten: AtomicU64,
}

impl Floors {
    /// A generation never goes back to an earlier one.
    pub(crate) fn set_generation(&self, group: GroupId, generation: Generation) {
        let mut live = self.live.write();
        let entry = live.entry(group).or_insert(generation);
        if generation <= *entry {
            return;
        }
        *entry = generation;
        drop(live);
        if let Some(loading) = self.loading.write().get_mut(&group) {
            loading.retain(|loading| *loading > generation);
        }
        self.forgotten.fetch_add(GENERATION_ROWS_GUESS, Ordering::Relaxed);
        self.floors.write().retain(|of, _| of.0 != group || of.1 >= generation);
    }

    /// What was named before and is not live is forgotten.
    pub(crate) fn set_loading(&self, group: GroupId, generations: &[Generation]) {
        let mut loading = self.loading.write();
        let before = loading.insert(group, generations.to_vec());
        if before.is_some_and(|before| before.iter().any(|old| !generations.contains(old))) {
            self.forgotten.fetch_add(GENERATION_ROWS_GUESS, Ordering::Relaxed);
        }
    }

    pub(crate) fn set_floor(
        &self,
        group: GroupId,
        generation: Generation,
        number: ResourceNumber,
        floor: Seq,
    ) {
        let mut floors = self.floors.write();
        let of = (group, generation, number);
        if floors.len() >= FLOORS_MAX && !floors.contains_key(&of) {
            return;
        }
        let old = floors.entry(of).or_default();
        let rows = floor.0.saturating_sub(old.0).min(SESSION_ROWS_GUESS);
        self.forgotten.fetch_add(rows, Ordering::Relaxed);
        *old = floor.max(*old);
    }

    /// About how many rows compaction could drop, were it to look at all of them.
    pub(crate) fn forgotten(&self) -> u64 {
        self.forgotten.load(Ordering::Relaxed)
    }

    /// Compaction has looked at everything since this count was read.
    pub(crate) fn purged(&self, counted: u64) {
        self.forgotten.fetch_sub(counted, Ordering::Relaxed);
    }

    /// Forgets everything, as a crash does.
    pub(crate) fn clear(&self) {
        self.live.write().clear();
        self.loading.write().clear();
        self.floors.write().clear();
        self.forgotten.store(0, Ordering::Relaxed);
    }

    /// Whether rows of this generation can no longer be read by anyone, nor copied from.
    pub(crate) fn is_dead(&self, group: GroupId, generation: Generation) -> bool {
        let live = self.live.read().get(&group).copied();
        live.is_some_and(|live| {
            generation != live && (generation < live || !self.is_loading(group, generation))
        })
    }

    fn is_loading(&self, group: GroupId, generation: Generation) -> bool {
        let loading = self.loading.read();
        loading.get(&group).is_none_or(|loading| loading.contains(&generation))
    }

    /// Whether a row can no longer be read by anyone. Applied rows always can.
    pub(crate) fn is_forgotten(&self, key: &[u8]) -> bool {
        let Some(key) = FullKey::from_bytes(key) else { return false };
        let (group, generation, row) = key.parts();
        if row.table() == Table::Applied {
            return false;
        }
        if self.is_dead(group, generation) {
            return true;
        }
        let Some(seq) = row.event_seq() else { return false };
        let floors = self.floors.read();
        floors.get(&(group, generation, row.number())).is_some_and(|floor| seq <= *floor)
    }
}

#[cfg(test)]
mod tests {
    use tl_types::RowKey;

    use super::*;

    const GROUP: GroupId = GroupId(1);
    const NUMBER: ResourceNumber = ResourceNumber(5);

    fn forgotten(floors: &Floors, generation: u32, row: &RowKey) -> bool {
        floors.is_forgotten(FullKey::new(GROUP, Generation(generation), row).as_bytes())
    }

    #[test]
    fn events_up_to_the_floor_are_forgotten_and_nothing_else() {
        let floors = Floors::default();
        floors.set_floor(GROUP, Generation(1), NUMBER, Seq(3));
        floors.set_floor(GROUP, Generation(1), NUMBER, Seq(2));
        assert!(forgotten(&floors, 1, &RowKey::event(NUMBER, Seq(3))));
        assert!(!forgotten(&floors, 1, &RowKey::event(NUMBER, Seq(4))));
        assert!(!forgotten(&floors, 2, &RowKey::event(NUMBER, Seq(3))));
        assert!(!forgotten(&floors, 1, &RowKey::event(ResourceNumber(6), Seq(3))));
        assert!(!forgotten(&floors, 1, &RowKey::session(NUMBER)));
    }

    #[test]
    fn rows_of_a_later_generation_stay_while_it_is_loaded_and_once_it_is_live() {
        let floors = Floors::default();
        let row = RowKey::session(NUMBER);
        assert!(!forgotten(&floors, 5, &row), "nothing is known yet");
        floors.set_generation(GROUP, Generation(4));
        assert!(!forgotten(&floors, 5, &row), "a load that was cut off, perhaps still of use");
        floors.set_loading(GROUP, &[]);
        assert!(forgotten(&floors, 5, &row), "it is of no use");
        floors.set_loading(GROUP, &[Generation(6)]);
        assert!(forgotten(&floors, 5, &row));
        assert!(!forgotten(&floors, 6, &row) && !forgotten(&floors, 4, &row));
        floors.set_generation(GROUP, Generation(6));
        assert!(!forgotten(&floors, 6, &row) && forgotten(&floors, 4, &row));
        floors.set_loading(GROUP, &[Generation(7)]);
        floors.set_loading(GROUP, &[]);
        assert!(forgotten(&floors, 7, &row) && !forgotten(&floors, 6, &row));
        assert!(floors.forgotten() > 0);
    }

    #[test]
    fn rows_that_are_read_already_stay_with_those_before_them_and_those_behind() {
        let floors = Floors::default();
        let row = RowKey::session(NUMBER);
        floors.set_generation(GROUP, Generation(4));
        floors.set_loading(GROUP, &[Generation(6)]);
        floors.set_loading(GROUP, &[Generation(6), Generation(8)]);
        assert_eq!(floors.forgotten(), 0, "nothing to compact for");
        let kept = |floors: &Floors| [4, 5, 6, 7, 8].map(|of| !forgotten(floors, of, &row));
        assert_eq!(kept(&floors), [true, false, true, false, true]);
        floors.set_generation(GROUP, Generation(6));
        assert_eq!(kept(&floors), [false, false, true, false, true]);
        floors.set_loading(GROUP, &[]);
        assert_eq!(kept(&floors), [false, false, true, false, false]);
    }

    #[test]
    fn rows_of_earlier_generations_are_forgotten_but_for_the_applied_row() {
        let floors = Floors::default();
        floors.set_generation(GROUP, Generation(4));
        floors.set_generation(GROUP, Generation(3));
        assert!(forgotten(&floors, 3, &RowKey::session(NUMBER)));
        assert!(!forgotten(&floors, 4, &RowKey::session(NUMBER)));
        assert!(!floors.is_forgotten(FullKey::applied(GROUP).as_bytes()));
        assert!(!floors.is_forgotten(b"short"));
    }
}
