//! The records of one group as they are read: its last entries, promises and members.
use std::collections::VecDeque;

use tl_types::ids::{Generation, Index, Term};
use tl_wal::{Position, Record};

use super::{GroupStart, LogDamage, RecoverError, RecoveredGroup};
use crate::deeds::Staged;
use crate::doubt::DOUBTED;
use crate::group_log::LogEntry;
use crate::members::Members;
use crate::terms::Terms;

/// One group's log as far as it has been read.
#[derive(Debug)]
pub(super) struct Tail {
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
    pub(super) fn new(start: GroupStart) -> Tail {
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

    pub(super) fn record(&mut self, position: Position, record: Record, keep_bytes: usize) {
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
    pub(super) fn is_next(&self, index: Index) -> bool {
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

    /// The caller has applied the entry that is next.
    pub(super) fn applied(&mut self, entry: (Index, Term)) {
        self.clear();
        self.start.applied = entry;
        self.is_replayed = true;
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

    pub(super) fn finish(mut self, damages: &[LogDamage]) -> Result<RecoveredGroup, RecoverError> {
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
