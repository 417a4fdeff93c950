//! From the records of the log to what a group starts with.
//!
//! Records come in the order in which they were written, every group's mixed with the others'.
//! A record for an index that is there already replaces it and all behind it, as Raft's own log
//! did when it was written. Entries that the store has applied are dropped on the way (a few stay
//! for followers that lag), so that memory holds the tail and not the log. A caller who knows that
//! entries are committed may apply them at once; then memory does not even hold the tail.
//!
//! A record that a snapshot is in place decides over the store, whose switch to those rows may not
//! have been flushed: entries before it are gone, and the group goes on behind it.
//!
//! Who belongs to the group, the newest of these says: a record of its members, and a change in the
//! log that is known to be committed. One is known to be if another follows it: a leader proposes no
//! change before it has applied the last one. That must hold over restarts, or a replica that
//! has the second change could win an election by the majority before the first.
//!
//! Records that were durable may be damaged. A group that may have lost one is *doubted*
//! ([`DOUBTED`]): it starts from its rows alone, with the highest term and the newest members that can
//! be read, and goes on as `group::doubt` says. Of damage, only this is no loss:
//!
//!  - what stands before a record that the group is doubted. Whoever wrote it knew of the damage, or
//!    the damage is to what the end of that doubt has replaced: rows, members, term and vote are
//!    written anew then, term and vote behind the rest;
//!  - an entry that the store has applied durably, if what is left of the log still fits the store, or
//!    if rows were put in place behind it.
use std::collections::{BTreeMap, VecDeque};

use tl_types::ids::{Generation, GroupId, Index, Term};
use tl_wal::{Position, Record};

use crate::deeds::{PeerId, Staged};
use crate::doubt::DOUBTED;
use crate::group_log::LogEntry;
use crate::members::Members;
use crate::terms::Terms;

mod tail;

use self::tail::Tail;

/// What the caller knows of a group before its log is read.
#[derive(Debug, Clone)]
pub struct GroupStart {
    /// The group.
    pub group: GroupId,
    /// Who voted in it when it was founded. This node is not among them if it came later; it has
    /// no vote then until the log says so.
    pub voters: Vec<PeerId>,
    /// How far the store has applied it durably, and that entry's term; zeros if it is new.
    pub applied: (Index, Term),
    /// The generation of the rows that it has applied them to.
    pub generation: Generation,
}

/// A place in the log where records that were durable cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogDamage {
    /// Where it begins.
    pub position: Position,
    /// Whose record it was; `None` if any group's may have been there.
    pub group: Option<GroupId>,
    /// The entry that was there, if it was one and that is known.
    pub entry: Option<Index>,
}

/// Why a group cannot start from its log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecoverError {
    /// Entries between what is applied and what the log has are missing.
    #[error("group {group}: the log goes on at {found}, but {expected} is missing")]
    Hole {
        /// The group.
        group: GroupId,
        /// The first entry missing.
        expected: Index,
        /// The entry found instead.
        found: Index,
    },
    /// The log and the store disagree about an entry that is applied.
    #[error(
        "group {group}: entry {index} is of term {in_log} in the log, but was applied as of term {in_store}"
    )]
    TermDiffers {
        /// The group.
        group: GroupId,
        /// The entry.
        index: Index,
        /// Its term in the log.
        in_log: Term,
        /// Its term in the store.
        in_store: Term,
    },
    /// An entry was written again behind those that were taken as committed.
    #[error("group {group}: entry {index} stands in the log again, but was committed before")]
    Rewritten {
        /// The group.
        group: GroupId,
        /// The entry.
        index: Index,
    },
    /// An entry or the store is ahead of the hard state: a vote may have been forgotten.
    #[error(
        "group {group}: an entry is of term {entry}, but the hard state only knows term {hard}"
    )]
    TermForgotten {
        /// The group.
        group: GroupId,
        /// The entry's term.
        entry: Term,
        /// The hard state's term.
        hard: Term,
    },
    /// Records were lost, and no other replica has them.
    #[error("group {group}: its log is damaged, and it has no other voter to go on from")]
    Alone {
        /// The group.
        group: GroupId,
    },
    /// What the log says of the members cannot be read: damaged, or written by a later release.
    #[error("group {group}: {reason}")]
    Members {
        /// The group.
        group: GroupId,
        /// What is wrong, in a few words.
        reason: &'static str,
    },
}

/// Reads a log from its start to its end.
#[derive(Debug)]
pub struct Recovery {
    groups: BTreeMap<GroupId, Tail>,
    keep_bytes_per_group: usize,
    unknown: u64,
}

/// A group as [`Driver::new`](crate::Driver::new) starts it.
#[derive(Debug, Clone)]
pub struct RecoveredGroup {
    pub(crate) group: GroupId,
    pub(crate) members: Members,
    /// Members that only a later change in the log vouches for have no record.
    pub(crate) are_members_recorded: bool,
    pub(crate) term: Term,
    pub(crate) vote: u64,
    pub(crate) applied: Index,
    pub(crate) base: (Index, Term),
    /// Of the entries up to `base`, as far as the log still says.
    pub(crate) terms: Terms,
    pub(crate) entries: VecDeque<LogEntry>,
    pub(crate) installed: Option<Staged>,
    pub(crate) is_doubted: bool,
}

impl RecoveredGroup {
    /// A group that has no log yet.
    #[must_use]
    pub fn new(group: GroupId, voters: Vec<PeerId>) -> RecoveredGroup {
        RecoveredGroup {
            group,
            members: Members::founding(&voters),
            are_members_recorded: true,
            term: Term(0),
            vote: 0,
            applied: Index(0),
            base: (Index(0), Term(0)),
            terms: Terms::of((Index(0), Term(0))),
            entries: VecDeque::new(),
            installed: None,
            is_doubted: false,
        }
    }

    /// Whether records of it were lost, or may have been: it neither votes nor acknowledges before its
    /// leader has given it other rows.
    #[must_use]
    pub fn is_doubted(&self) -> bool {
        self.is_doubted
    }

    /// The group.
    #[must_use]
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// Rows that the log says are the group's, where the store does not say so yet: it has to be
    /// switched to them before anything is applied.
    #[must_use]
    pub fn installed(&self) -> Option<Staged> {
        self.installed
    }

    /// Says that the group is doubted, for whoever reads the log next.
    #[must_use]
    pub fn doubt_record(&self) -> Record {
        Record::HardState { group: self.group, term: self.term, vote: DOUBTED }
    }

    /// Last entry of the log as recovered.
    #[must_use]
    pub fn last(&self) -> Index {
        Index(self.base.0.0 + self.entries.len() as u64)
    }
}

impl Recovery {
    /// Starts with the groups that live here. `keep_bytes` is what all groups with more than one
    /// voter may keep together of applied entries.
    #[must_use]
    pub fn new(groups: Vec<GroupStart>, keep_bytes: usize) -> Recovery {
        let shared = groups.iter().filter(|group| group.voters.len() > 1).count();
        let groups = groups.into_iter().map(|start| (start.group, Tail::new(start))).collect();
        Recovery { groups, keep_bytes_per_group: keep_bytes / shared.max(1), unknown: 0 }
    }

    /// Takes the next record of the log, which stands there. Behind damage, what the log repeats of a
    /// group's state may come again. Records of groups that do not live here are counted and
    /// left out.
    pub fn record(&mut self, position: Position, record: Record) {
        let (Record::Entry { group, .. }
        | Record::HardState { group, .. }
        | Record::Membership { group, .. }
        | Record::Installed { group, .. }) = &record;
        match self.groups.get_mut(group) {
            Some(tail) => tail.record(position, record, self.keep_bytes_per_group),
            None => self.unknown += 1,
        }
    }

    /// Whether an entry is the one behind what a group has applied, with nothing read of the log
    /// that speaks against it. The caller may apply it if it knows that it is committed.
    #[must_use]
    pub fn is_next(&self, group: GroupId, index: Index) -> bool {
        self.groups.get(&group).is_some_and(|tail| tail.is_next(index))
    }

    /// The caller has applied the entry that [`Recovery::is_next`] spoke of.
    pub fn applied(&mut self, group: GroupId, entry: (Index, Term)) {
        if let Some(tail) = self.groups.get_mut(&group) {
            tail.applied(entry);
        }
    }

    /// Records of groups that do not live here.
    #[must_use]
    pub fn unknown_records(&self) -> u64 {
        self.unknown
    }

    /// The groups in order of their ids, or the first thing that does not fit together and that
    /// the damages found in the log do not explain.
    ///
    /// # Errors
    /// What is wrong with which group; no group should start then without repair.
    pub fn finish(self, damages: &[LogDamage]) -> Result<Vec<RecoveredGroup>, RecoverError> {
        self.groups.into_values().map(|tail| tail.finish(damages)).collect()
    }
}

#[cfg(test)]
mod tests;
