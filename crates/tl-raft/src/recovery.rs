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
            tail.clear();
            tail.start.applied = entry;
            tail.is_replayed = true;
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

/// One group's log as far as it has been read.
#[derive(Debug)]
struct Tail {
    start: GroupStart,
    /// What the store had applied before anything was read.
    stored: Index,
    term: Term,
    vote: u64,
    /// The highest term in any record, and the vote in it.
    highest: (Term, u64),
    /// Where a record says last that the group is doubted.
    doubted_at: Option<Position>,
    /// Index of `entries[0]`; meaningless while there are none.
    first: Index,
    /// Where the first of them that follow one upon the other stands.
    run_at: Option<Position>,
    entries: VecDeque<LogEntry>,
    /// Of all entries that the log has, those no longer among `entries` included.
    terms: Terms,
    /// Bytes of those of `entries` that are applied.
    applied_bytes: usize,
    /// Entries were applied while the log was read.
    is_replayed: bool,
    /// The first of them that came again.
    rewritten: Option<Index>,
    installed: Option<Staged>,
    /// Of the last record of rows, which may be repeated.
    generation: Option<Generation>,
    /// Where that record stands first.
    rows_at: Option<Position>,
    /// Committed for certain.
    members: Members,
    /// The newest of which there is a record, or those of the founding.
    recorded: Members,
    /// The last change in the log, committed or not.
    change: Option<Members>,
    /// What could not be read of them.
    damage: Option<&'static str>,
}

impl Tail {
    fn new(start: GroupStart) -> Tail {
        Tail {
            members: Members::founding(&start.voters),
            recorded: Members::founding(&start.voters),
            stored: start.applied.0,
            highest: (Term(0), 0),
            doubted_at: None,
            generation: None,
            rows_at: None,
            change: None,
            damage: None,
            terms: Terms::of(start.applied),
            start,
            term: Term(0),
            vote: 0,
            first: Index(0),
            run_at: None,
            entries: VecDeque::new(),
            applied_bytes: 0,
            is_replayed: false,
            rewritten: None,
            installed: None,
        }
    }

    fn record(&mut self, position: Position, record: Record, keep_bytes: usize) {
        match record {
            Record::Entry { term, index, data, .. } => {
                self.saw(term, 0);
                if self.is_replayed && index <= self.start.applied.0 {
                    self.rewritten.get_or_insert(index);
                }
                self.cut_from(index);
                match Members::of_entry(index, &data) {
                    Some(Ok(members)) => self.change(members),
                    Some(Err(damage)) => self.damage = self.damage.or(Some(damage)),
                    None => {}
                }
                if self.next() != Some(index) {
                    // Either the first entry of all, or the log was let go up to here in between.
                    self.clear();
                    self.first = index;
                    self.run_at = Some(position);
                }
                // From the first entry on, the log itself says what came before.
                if index == Index(1) {
                    self.terms = Terms::of((Index(0), Term(0)));
                }
                self.terms.push(index, term);
                let entry = LogEntry { term, data };
                if index <= self.start.applied.0 {
                    self.applied_bytes += entry.size();
                }
                self.entries.push_back(entry);
                self.shrink(keep_bytes);
            }
            Record::HardState { term, vote: DOUBTED, .. } => {
                self.doubted_at = Some(position);
                self.saw(term, 0);
                (self.term, self.vote) = (term, DOUBTED);
            }
            Record::HardState { term, vote, .. } => {
                self.saw(term, vote);
                (self.term, self.vote) = (term, vote);
            }
            // A snapshot takes the place of the whole log before it. The store knows of it if the
            // switch was flushed; else the record decides, and the rows are durable.
            Record::Installed { generation, .. } if self.generation == Some(generation) => {}
            Record::Installed { index, term, generation, .. } => {
                self.generation = Some(generation);
                self.rows_at = Some(position);
                self.saw(term, 0);
                self.clear();
                self.terms = Terms::of((index, term));
                // The members as of these rows, or later, stand in a record of their own behind this.
                self.change = None;
                if generation > self.start.generation {
                    self.start.applied = (index, term);
                    self.start.generation = generation;
                    self.installed = Some(Staged { index, term, generation });
                }
            }
            Record::Membership { bytes, .. } => match Members::decode(&bytes) {
                Ok(members) => {
                    if members.at > self.recorded.at {
                        self.recorded = members.clone();
                    }
                    self.committed(members);
                }
                Err(damage) => self.damage = self.damage.or(Some(damage)),
            },
        }
    }

    /// A term that the replica was in, and its vote, if it is one.
    fn saw(&mut self, term: Term, vote: u64) {
        if term > self.highest.0 {
            self.highest = (term, vote);
        } else if term == self.highest.0 && vote != 0 {
            self.highest.1 = vote;
        }
    }

    /// A change stands in the log: the one before it is committed.
    fn change(&mut self, members: Members) {
        if let Some(before) = self.change.take() {
            self.committed(before);
        }
        self.change = Some(members);
    }

    fn committed(&mut self, members: Members) {
        if members.at > self.members.at {
            self.members = members;
        }
    }

    /// See [`Recovery::is_next`]. An entry that is applied and in the log must be the same one.
    fn is_next(&self, index: Index) -> bool {
        let (applied, applied_term) = self.start.applied;
        let same = match self.next() {
            None => true,
            Some(next) if next == index => {
                self.entries.back().is_some_and(|last| last.term == applied_term)
            }
            Some(_) => false,
        };
        index.0 == applied.0 + 1 && same
    }

    /// The index right behind the entries read so far, if there are any.
    fn next(&self) -> Option<Index> {
        (!self.entries.is_empty()).then(|| Index(self.first.0 + self.entries.len() as u64))
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.applied_bytes = 0;
    }

    fn cut_from(&mut self, index: Index) {
        self.change.take_if(|change| change.at >= index);
        while self.next().is_some_and(|next| next > index) {
            let last = self.first.0 + self.entries.len() as u64 - 1;
            let entry = self.entries.pop_back().expect("there is a last entry");
            if last <= self.start.applied.0.0 {
                self.applied_bytes -= entry.size();
            }
        }
    }

    /// Drops applied entries from the front; the last applied one stays to be compared.
    fn shrink(&mut self, keep_bytes: usize) {
        let keep_bytes = if self.start.voters.len() > 1 { keep_bytes } else { 0 };
        while self.first < self.start.applied.0
            && self.applied_bytes > keep_bytes
            && self.entries.len() > 1
        {
            let entry = self.entries.pop_front().expect("there is a first entry");
            self.applied_bytes -= entry.size();
            self.first = Index(self.first.0 + 1);
        }
    }

    fn finish(mut self, damages: &[LogDamage]) -> Result<RecoveredGroup, RecoverError> {
        let group = self.start.group;
        if let Some(index) = self.rewritten {
            return Err(RecoverError::Rewritten { group, index });
        }
        if let Some(reason) = self.damage {
            return Err(RecoverError::Members { group, reason });
        }
        let (mut lacks_applied, mut last_gap) = (false, None);
        for damage in damages.iter().filter(|damage| damage.group.is_none_or(|of| of == group)) {
            if self.doubted_at.is_some_and(|doubted_at| damage.position < doubted_at) {
                continue;
            }
            match damage.entry {
                // Rows that were put in place behind it took the place of all entries before them.
                Some(index) if index <= self.stored => {
                    lacks_applied = true;
                    let is_gap = self.rows_at.is_none_or(|rows_at| damage.position > rows_at);
                    last_gap = last_gap.max(Some(damage.position).filter(|_| is_gap));
                }
                Some(_) | None => return self.finish_doubted(),
            }
        }
        if lacks_applied {
            self.forget_changes();
        }
        if self.vote == DOUBTED || last_gap.is_some_and(|gap| !self.forget_applied(gap)) {
            return self.finish_doubted();
        }
        // What is applied was committed.
        if let Some(change) = self.change.take_if(|change| change.at <= self.start.applied.0) {
            self.committed(change);
        }
        let (applied, applied_term) = self.start.applied;
        let mut base = self.start.applied;
        match self.next() {
            // The log ends before what is applied: it was let go, and nothing followed.
            Some(next) if next <= applied => self.clear(),
            Some(_) if self.first.0 > applied.0 + 1 => {
                return Err(RecoverError::Hole {
                    group,
                    expected: Index(applied.0 + 1),
                    found: self.first,
                });
            }
            Some(_) if self.first <= applied => {
                let slot =
                    usize::try_from(applied.0 - self.first.0).expect("entries are in memory");
                let in_log = self.entries[slot].term;
                if in_log != applied_term {
                    return Err(RecoverError::TermDiffers {
                        group,
                        index: applied,
                        in_log,
                        in_store: applied_term,
                    });
                }
                base = if self.first == Index(1) && self.start.voters.len() > 1 {
                    (Index(0), Term(0))
                } else {
                    // The first entry gives way to its own position: what is before it has no known term.
                    let first = self.entries.pop_front().expect("there is a first entry");
                    (self.first, first.term)
                };
            }
            Some(_) | None => {}
        }
        let newest = self.entries.back().map_or(applied_term, |entry| entry.term);
        if newest > self.term {
            return Err(RecoverError::TermForgotten { group, entry: newest, hard: self.term });
        }
        Ok(RecoveredGroup {
            group,
            are_members_recorded: self.members.at <= self.recorded.at,
            members: self.members,
            term: self.term,
            vote: self.vote,
            applied,
            base,
            terms: self.terms.up_to(base),
            entries: self.entries,
            installed: self.installed,
            is_doubted: false,
        })
    }

    /// Entries up to what the store has applied durably are missing. A change up to there has a
    /// record, and one that seems to be there may have been replaced by what is missing.
    fn forget_changes(&mut self) {
        if self.members.at <= self.stored {
            self.members = self.recorded.clone();
        }
        self.change.take_if(|change| change.at <= self.stored);
    }

    /// The same of entries: what is before the last hole may have been replaced by what stood in it, and
    /// so may what is behind, unless the last one applied stands there. Keeps what is behind that one;
    /// false if it cannot be told. Entries that begin right behind that one, and behind the hole in the
    /// log too, were written by a start that went on from there.
    fn forget_applied(&mut self, last_gap: Position) -> bool {
        let (applied, term) = self.start.applied;
        if self.next().is_none_or(|next| next <= applied) {
            self.clear();
            return true;
        }
        if self.first.0 == applied.0 + 1 && self.run_at > Some(last_gap) {
            self.terms = Terms::of(self.start.applied);
            return true;
        }
        let slot = applied.0.checked_sub(self.first.0).and_then(|slot| usize::try_from(slot).ok());
        let Some(slot) = slot.filter(|slot| self.entries[*slot].term == term) else {
            return false;
        };
        self.entries.drain(..slot);
        self.first = applied;
        self.terms = Terms::of(self.start.applied);
        true
    }

    /// Nothing of the log counts but what stands above all that may be missing. Rows whose record can be read
    /// are the group's all the same: a crash may have cut off what ends the doubt behind it.
    fn finish_doubted(self) -> Result<RecoveredGroup, RecoverError> {
        let (group, base) = (self.start.group, self.start.applied);
        if self.recorded.voters.len() < 2 {
            return Err(RecoverError::Alone { group });
        }
        let (highest, vote) = self.highest;
        let term = highest.max(base.1);
        Ok(RecoveredGroup {
            group,
            members: self.recorded,
            are_members_recorded: true,
            term,
            vote: if term == highest { vote } else { 0 },
            applied: base.0,
            base,
            terms: Terms::of(base),
            entries: VecDeque::new(),
            installed: self.installed,
            is_doubted: true,
        })
    }
}

#[cfg(test)]
mod tests;
