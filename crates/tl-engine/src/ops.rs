//! What an operator is told of a node and its cluster, and what an operator may ask of it.
//!
//! ```text
//!   transport ─ heard ──► Sights ─┐
//!   peers ─ reports ────► Sights ─┼─► states   (pure: ready, suspect, lost, draining, drained)
//!   driver ─ look ────────────────┼─► writable (pure: why a group takes no writes)
//!   drain file ─ DrainFile ───────┘        └─► pages: what `/v1/ops/…` answers
//!   reports ─────────────────────► level (pure: which feature level may be committed)
//!   list of members ─ Roster ─► plan (pure: what a leader does next for a group's members)
//! ```
//!
//! Decisions are functions of what is known and of a given time. A node that is silent loses
//! nothing by being called lost: only an operator has a life replaced.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tl_raft::PeerId;
use tl_types::GroupId;

pub mod drain;
pub mod level;
pub mod look;
pub mod pages;
pub mod plan;
pub mod repair;
pub mod report;
pub(crate) mod roster;
pub mod sights;
pub mod states;
pub mod writable;

pub use self::drain::{DrainError, DrainFile};
pub use self::look::{GroupLook, Replica};
pub use self::report::{Lag, Report};
pub use self::states::{NodeState, Patience, Standing};
pub use self::writable::Unwritable;

use self::roster::Roster;
use self::sights::Sights;

/// How long a group stays where an operator had it led, milliseconds.
const HELD_MS: u64 = 600_000;

/// What a node keeps for its operator.
#[derive(Debug)]
pub(crate) struct Ops {
    /// What was seen of the other members.
    pub(crate) sights: Sights,
    /// When somebody who is silent is suspect, and when lost.
    pub(crate) patience: Patience,
    /// Remembers over restarts that the node shall be drained.
    pub(crate) drain_file: DrainFile,
    /// The process ends: there is no way back from this drain.
    stopping: AtomicBool,
    /// How often groups were handed over since the start.
    hand_overs: AtomicUsize,
    /// The group that was handed over last.
    handed_last: AtomicU16,
    /// Groups that were confirmed since the start.
    confirmed: AtomicU16,
    /// The last look at the groups, for whoever cannot wait for one.
    looked: Mutex<Arc<[GroupLook]>>,
    /// Groups that an operator has this node lead, and until when: no more than there are groups.
    held: Mutex<BTreeMap<GroupId, u64>>,
    /// The list of members; `None` on a node that is a cluster of its own.
    pub(crate) roster: Option<Roster>,
    /// One change of the drain at a time.
    pub(crate) changing: tokio::sync::Mutex<()>,
}

impl Ops {
    pub(crate) fn new(
        dir: &Path,
        others: impl IntoIterator<Item = PeerId>,
        roster: Option<Roster>,
        patience: Patience,
        now_ms: u64,
    ) -> Ops {
        Ops {
            sights: Sights::new(others, now_ms),
            patience,
            drain_file: DrainFile::in_dir(dir),
            stopping: AtomicBool::new(false),
            hand_overs: AtomicUsize::new(0),
            handed_last: AtomicU16::new(u16::MAX),
            confirmed: AtomicU16::new(0),
            looked: Mutex::new(Arc::new([])),
            held: Mutex::default(),
            roster,
            changing: tokio::sync::Mutex::new(()),
        }
    }

    /// The process ends from now on.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Counts a hand-over; returns how many were before.
    pub(crate) fn next_hand_over(&self) -> usize {
        self.hand_overs.fetch_add(1, Ordering::Relaxed)
    }

    /// Which of these groups, in order of their numbers, are handed over next: those behind the
    /// one that was last, and then around, so that groups which nobody can take hold up no others.
    pub(crate) fn behind_last_handed(
        &self,
        mut groups: Vec<(GroupId, PeerId)>,
        most: usize,
    ) -> Vec<(GroupId, PeerId)> {
        let last = GroupId(self.handed_last.load(Ordering::Relaxed));
        let begin = groups.partition_point(|(group, _)| *group <= last);
        groups.rotate_left(begin);
        groups.truncate(most);
        if let Some((last, _)) = groups.last() {
            self.handed_last.store(last.0, Ordering::Relaxed);
        }
        groups
    }

    /// So many groups have been confirmed since the start, in order.
    pub(crate) fn confirmed(&self, groups: u16) {
        self.confirmed.store(groups, Ordering::Relaxed);
    }

    pub(crate) fn groups_confirmed(&self) -> u16 {
        self.confirmed.load(Ordering::Relaxed)
    }

    pub(crate) fn saw(&self, look: Arc<[GroupLook]>) {
        *self.looked.lock() = look;
    }

    /// An operator wants this node to lead the group.
    pub(crate) fn hold(&self, group: GroupId, now_ms: u64) {
        self.held.lock().insert(group, now_ms + HELD_MS);
    }

    /// Whether the balance must leave the group here.
    pub(crate) fn holds(&self, group: GroupId, now_ms: u64) -> bool {
        self.held.lock().get(&group).is_some_and(|until_ms| now_ms < *until_ms)
    }

    /// The last look; empty before the first.
    pub(crate) fn looked(&self) -> Arc<[GroupLook]> {
        Arc::clone(&self.looked.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ops(dir: &Path) -> Ops {
        let patience = Patience { suspect_after_ms: 500, lost_after_ms: 120_000 };
        Ops::new(dir, [], None, patience, 0)
    }

    #[test]
    fn groups_that_nobody_can_take_hold_up_no_others() {
        const STUCK: u16 = 100;
        let dir = tempfile::tempdir().expect("temp dir");
        let ops = ops(dir.path());
        let mut led: Vec<_> = (0..200).map(|group| (GroupId(group), PeerId(2))).collect();
        let mut times = [0; STUCK as usize];
        for _ in 0..7 {
            let asked = ops.behind_last_handed(led.clone(), 64);
            assert!(asked.len() <= 64);
            for (group, _) in &asked {
                if let Some(times) = times.get_mut(usize::from(group.0)) {
                    *times += 1;
                }
            }
            led.retain(|of| of.0.0 < STUCK || !asked.contains(of));
        }
        assert_eq!(led.len(), usize::from(STUCK), "all others are given");
        assert!(times.iter().all(|times| *times >= 2), "and these are asked again: {times:?}");
        assert_eq!(ops.behind_last_handed(Vec::new(), 64), []);
    }

    #[test]
    fn a_group_is_held_for_some_minutes() {
        let dir = tempfile::tempdir().expect("temp dir");
        let ops = ops(dir.path());
        assert!(!ops.holds(GroupId(3), 1));
        ops.hold(GroupId(3), 1);
        assert!(ops.holds(GroupId(3), HELD_MS) && !ops.holds(GroupId(4), 1));
        assert!(!ops.holds(GroupId(3), HELD_MS + 1));
    }
}
