//! The part of a group's log that Raft may ask for, in memory: unsynced, unapplied, and a few
//! applied entries for followers that lag.
//!
//! ```text
//!   dropped | applied, kept for followers | not applied, perhaps not synced
//!   --------+-----------------------------+--------------------------------> index
//!         base                         applied                            last
//! ```
//!
//! Invariants: entries are `base + 1 ..= last` without a hole; `base <= applied`, so that Raft
//! never asks for a term or entry that it needs and that is gone (it panics on such answers); an
//! entry is here before Raft is told that its `Ready` was taken, synced or not.
//!
//! Of what is dropped the terms stay known ([`Terms`]), so that the log on disk can be asked for it.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use raft::eraftpb::{Entry, EntryType, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Storage, StorageError};
use tl_types::ids::{Index, Term};

use crate::deeds::PeerId;
use crate::members::{Members, is_change};
use crate::terms::Terms;

/// Counted on top of its data for every entry in memory, bytes.
const ENTRY_OVERHEAD: usize = 48;

/// An entry without its position.
#[derive(Debug, Clone)]
pub(crate) struct LogEntry {
    pub(crate) term: Term,
    pub(crate) data: Bytes,
}

impl LogEntry {
    pub(crate) fn size(&self) -> usize {
        self.data.len() + ENTRY_OVERHEAD
    }

    /// As Raft wants it.
    pub(crate) fn to_entry(&self, index: Index) -> Entry {
        let mut entry = Entry::default();
        entry.index = index.0;
        entry.term = self.term.0;
        entry.data = self.data.clone();
        if is_change(&entry.data) {
            entry.set_entry_type(EntryType::EntryConfChangeV2);
        }
        entry
    }
}

/// The entries of one group in memory, and what Raft is started with.
#[derive(Debug)]
pub(crate) struct GroupLog {
    base: (Index, Term),
    /// Of entries up to `base`.
    terms: Terms,
    entries: VecDeque<LogEntry>,
    bytes: usize,
    applied: Index,
    applied_bytes: usize,
    hard: HardState,
    members: Members,
    /// Followers that hold rows up to an entry and may be told to go on from it.
    offers: BTreeMap<u64, (Index, Term)>,
    /// Followers for which Raft looked for a snapshot since last asked, and the least entry in it.
    lacking: RefCell<BTreeMap<u64, u64>>,
}

impl GroupLog {
    /// A log as recovered; `hard` is only asked for when Raft starts.
    pub(crate) fn new(
        base: (Index, Term),
        terms: Terms,
        entries: VecDeque<LogEntry>,
        applied: Index,
        hard: HardState,
        members: Members,
    ) -> GroupLog {
        let mut log = GroupLog {
            base,
            terms: terms.up_to(base),
            bytes: entries.iter().map(LogEntry::size).sum(),
            entries,
            applied: base.0,
            applied_bytes: 0,
            hard,
            members,
            offers: BTreeMap::new(),
            lacking: RefCell::default(),
        };
        log.set_applied(applied);
        log
    }

    pub(crate) fn last(&self) -> Index {
        Index(self.base.0.0 + self.entries.len() as u64)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of entries that are applied and kept for followers only.
    pub(crate) fn applied_bytes(&self) -> usize {
        self.applied_bytes
    }

    pub(crate) fn first_kept(&self) -> Index {
        Index(self.base.0.0 + 1)
    }

    /// Takes entries from a `Ready`, cutting off what they replace. Returns whether any were.
    pub(crate) fn append(&mut self, entries: &[Entry]) -> bool {
        let Some(first) = entries.first() else { return false };
        let cuts = first.index <= self.last().0;
        assert!(
            first.index > self.applied.0 && first.index <= self.last().0 + 1,
            "entry {} leaves a hole behind {} or replaces an applied one (up to {})",
            first.index,
            self.last(),
            self.applied
        );
        while self.last().0 >= first.index {
            let cut = self.entries.pop_back().expect("the log reaches up to last");
            self.bytes -= cut.size();
        }
        for entry in entries {
            assert_eq!(entry.index, self.last().0 + 1, "entries of a Ready are contiguous");
            let kept = LogEntry { term: Term(entry.term), data: entry.data.clone() };
            self.bytes += kept.size();
            self.entries.push_back(kept);
        }
        cuts
    }

    /// Notes how far entries are applied.
    pub(crate) fn set_applied(&mut self, applied: Index) {
        assert!(
            applied <= self.last() && applied >= self.applied,
            "applied only moves up, within the log"
        );
        for index in self.applied.0 + 1..=applied.0 {
            self.applied_bytes += self.entries[self.slot(index)].size();
        }
        self.applied = applied;
    }

    /// Drops applied entries from the front: all up to `unneeded`, further ones while more than
    /// `keep_bytes` of them are kept.
    pub(crate) fn shrink(&mut self, unneeded: Index, keep_bytes: usize) {
        while self.base.0 < self.applied
            && (self.base.0 < unneeded || self.applied_bytes > keep_bytes)
        {
            let entry = self.entries.pop_front().expect("applied entries are in the log");
            self.bytes -= entry.size();
            self.applied_bytes -= entry.size();
            self.base = (Index(self.base.0.0 + 1), entry.term);
            self.terms.push(self.base.0, entry.term);
        }
    }

    /// Rows up to this entry take the place of the whole log.
    pub(crate) fn restart_behind(&mut self, (index, term): (Index, Term)) {
        assert!(index >= self.applied, "a group never goes back behind what it has applied");
        self.entries.clear();
        (self.bytes, self.applied_bytes) = (0, 0);
        self.base = (index, term);
        self.terms = Terms::of(self.base);
        self.applied = index;
    }

    /// Terms of entries that are no longer here, and of the last of them.
    pub(crate) fn terms(&self) -> &Terms {
        &self.terms
    }

    /// How far entries are applied, or rows stand in for them.
    pub(crate) fn applied(&self) -> Index {
        self.applied
    }

    /// Who belongs to the group, as of the newest change that is committed and known here.
    pub(crate) fn members(&self) -> &Members {
        &self.members
    }

    pub(crate) fn set_members(&mut self, members: Members) {
        self.offers.retain(|peer, _| members.contains(PeerId(*peer)));
        self.members = members;
    }

    /// Lets a follower that holds rows up to this entry be told so, or no longer.
    pub(crate) fn offer(&mut self, to: u64, rows: Option<(Index, Term)>) {
        match rows {
            Some(rows) => self.offers.insert(to, rows),
            None => self.offers.remove(&to),
        };
    }

    /// Followers that need what is no longer here.
    pub(crate) fn take_lacking(&mut self) -> BTreeMap<u64, u64> {
        std::mem::take(self.lacking.get_mut())
    }

    /// All entries in memory, for tests that compare replicas.
    #[cfg(test)]
    pub(crate) fn held(&self) -> impl Iterator<Item = (Index, &LogEntry)> {
        (self.base.0.0 + 1..).map(Index).zip(&self.entries)
    }

    fn slot(&self, index: u64) -> usize {
        usize::try_from(index - self.base.0.0 - 1).expect("a log in memory is addressable")
    }
}

impl Storage for GroupLog {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState { hard_state: self.hard.clone(), conf_state: self.members.to_conf_state() })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.base.0.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        if high > self.last().0 + 1 {
            return Err(Error::Store(StorageError::Unavailable));
        }
        let bytes_max = max_size.into().unwrap_or(u64::MAX);
        let mut bytes = 0u64;
        let mut found = Vec::new();
        for (index, kept) in (low..high).zip(self.entries.range(self.slot(low)..)) {
            bytes += kept.size() as u64;
            if bytes > bytes_max && !found.is_empty() {
                break;
            }
            found.push(kept.to_entry(Index(index)));
        }
        Ok(found)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.base.0.0 {
            return Ok(self.base.1.0);
        }
        if index < self.base.0.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        match self.entries.get(self.slot(index)) {
            Some(entry) => Ok(entry.term.0),
            None => Err(Error::Store(StorageError::Unavailable)),
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first_kept().0)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last().0)
    }

    /// Rows travel by themselves. Raft only says that they are to be used, once they are there.
    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let offer = self.offers.get(&to).filter(|(index, _)| index.0 >= request_index);
        let Some((index, term)) = offer else {
            self.lacking.borrow_mut().insert(to, request_index);
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        };
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        metadata.index = index.0;
        metadata.term = term.0;
        metadata.set_conf_state(self.members.to_conf_state());
        // As of now, which may be behind that entry: what is committed is true for whoever it is told.
        if self.members.at.0 > 0 {
            snapshot.data = self.members.encode();
        }
        Ok(snapshot)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn entries_that_raft_looks_through_are_not_copied() {
        let datas: Vec<Bytes> = (1..=3).map(|byte| Bytes::from(vec![byte; 1000])).collect();
        let entries = datas.iter().map(|data| LogEntry { term: Term(1), data: data.clone() });
        let base = (Index(0), Term(0));
        let members = Members::founding(&[PeerId(1)]);
        let hard = HardState::default();
        let log = GroupLog::new(base, Terms::of(base), entries.collect(), Index(0), hard, members);
        let found = log.entries(1, 4, None, GetEntriesContext::empty(false)).unwrap();
        let place = |data: &Bytes| data.as_ptr();
        let places: Vec<_> = found.iter().map(|entry| place(&entry.data)).collect();
        assert_eq!(places, datas.iter().map(place).collect::<Vec<_>>());
    }
}
