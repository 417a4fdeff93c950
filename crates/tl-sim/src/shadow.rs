//! What the simulator knows of a machine's log, from the records that its driver gave out: the
//! entries as they stand, and how far the disk has confirmed them.
//!
//! The shadow outlives a crash, as the disk does. After one it is read anew from a copy of the
//! disk, and what the disk had confirmed must be found there again.

use std::collections::VecDeque;

use tl_raft::{DOUBTED, JobId, LogJob};
use tl_types::{Generation, GroupId, Index, Term};
use tl_wal::Record;
use xxhash_rust::xxh3::xxh3_64;

/// One entry: its term, and a hash of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogEntry {
    pub(crate) term: Term,
    pub(crate) hash: u64,
}

/// One group's log.
#[derive(Debug, Clone, Default)]
pub(crate) struct GroupShadow {
    /// Index of the first of `entries`.
    first: u64,
    entries: VecDeque<LogEntry>,
    /// What stood there before rows took its place, from this index on: some of it may be applied
    /// until the record of the rows is on disk.
    former: (u64, VecDeque<LogEntry>),
    /// Entries up to here are confirmed as they stand.
    pub(crate) synced: Index,
    /// Term and vote, as confirmed.
    pub(crate) promised: (Term, u64),
    /// Term and vote, as given out last.
    pub(crate) voted: (Term, u64),
    /// A record that rows are in place was given out since the start.
    pub(crate) has_rows: bool,
    /// Of the last such record read, which a log may repeat.
    generation: Option<Generation>,
    /// While the machine is doubted: what it had confirmed before its log rotted. Whoever counts on
    /// that may go on to, since it says nothing before it has rows with all of it.
    pledged: Option<Box<GroupShadow>>,
}

/// A machine's log.
#[derive(Debug, Default)]
pub(crate) struct Shadow {
    groups: Vec<GroupShadow>,
    open: VecDeque<OpenJob>,
}

#[derive(Debug)]
struct OpenJob {
    id: JobId,
    /// Last entry of each group in it.
    ends: Vec<(GroupId, Index, Term)>,
    promises: Vec<(GroupId, Term, u64)>,
}

impl GroupShadow {
    pub(crate) fn get(&self, index: Index) -> Option<LogEntry> {
        let at = index.0.checked_sub(self.first)?;
        self.entries.get(usize::try_from(at).ok()?).copied()
    }

    /// Whether the disk has confirmed an entry, or had before the machine was doubted.
    pub(crate) fn has_confirmed(&self, index: Index, entry: LogEntry) -> bool {
        let is_here = self.synced >= index && self.get(index) == Some(entry);
        is_here || self.pledged.as_ref().is_some_and(|before| before.has_confirmed(index, entry))
    }

    /// The same of an entry that is applied now.
    pub(crate) fn get_applied(&self, index: Index) -> Option<LogEntry> {
        let (first, former) = &self.former;
        let former = || {
            let at = index.0.checked_sub(*first)?;
            former.get(usize::try_from(at).ok()?).copied()
        };
        self.get(index).or_else(former)
    }

    pub(crate) fn first(&self) -> Index {
        Index(self.first)
    }

    /// Rows take the place of all entries up to here, and of what followed them.
    fn restart_behind(&mut self, index: Index) {
        self.former = (self.first, std::mem::take(&mut self.entries));
        self.first = index.0 + 1;
        self.synced = index;
    }

    /// Returns how many entries were cut off for this one.
    fn put(&mut self, index: Index, entry: LogEntry) -> usize {
        if self.entries.is_empty() || index.0 < self.first {
            self.first = index.0;
            self.entries.clear();
        }
        let at = (index.0 - self.first) as usize;
        if at > self.entries.len() {
            // The log was let go in between, which only a replay can show.
            self.first = index.0;
            self.entries.clear();
        }
        let at = (index.0 - self.first) as usize;
        let cut = self.entries.len() - at;
        self.entries.truncate(at);
        self.entries.push_back(entry);
        if self.synced >= index {
            self.synced = Index(index.0 - 1);
        }
        cut
    }
}

impl Shadow {
    pub(crate) fn new(groups: u16) -> Shadow {
        Shadow { groups: vec![GroupShadow::default(); usize::from(groups)], open: VecDeque::new() }
    }

    pub(crate) fn group(&self, group: GroupId) -> &GroupShadow {
        &self.groups[usize::from(group.0)]
    }

    /// Takes in what a replay of the disk hands over; all of it counts as confirmed.
    pub(crate) fn replayed(&mut self, record: &Record) {
        let group = &mut self.groups[usize::from(record.group().0)];
        match record {
            Record::Entry { term, index, data, .. } => {
                group.put(*index, LogEntry { term: *term, hash: xxh3_64(data) });
                group.synced = *index;
            }
            Record::HardState { vote: DOUBTED, .. } => {
                (group.promised, group.voted) = ((Term(0), 0), (Term(0), 0));
            }
            Record::HardState { term, vote, .. } => {
                group.promised = (*term, *vote);
                group.voted = group.promised;
            }
            Record::Installed { generation, .. } if group.generation == Some(*generation) => {}
            Record::Installed { index, generation, .. } => {
                group.generation = Some(*generation);
                group.restart_behind(*index);
            }
            Record::Membership { .. } => {}
        }
    }

    /// Rows hold all up to here; of a log that was let go whole nothing else says so.
    pub(crate) fn rows_reach(&mut self, group: GroupId, applied: Index) {
        let group = &mut self.groups[usize::from(group.0)];
        if group.entries.is_empty() && applied >= group.first() {
            group.restart_behind(applied);
        }
    }

    /// A machine starts doubted in a group: nothing that the log says of it counts. `before` is what
    /// was known before the start.
    pub(crate) fn doubt(&mut self, group: GroupId, before: &Shadow, applied: Index) {
        let mut pledged = before.group(group).clone();
        // It was doubted before: what it had confirmed then is what counts.
        let pledged = pledged.pledged.take().unwrap_or_else(|| Box::new(pledged));
        let group = &mut self.groups[usize::from(group.0)];
        *group = GroupShadow { pledged: Some(pledged), ..GroupShadow::default() };
        group.restart_behind(applied);
    }

    /// The machine has other rows, with all that it had confirmed.
    pub(crate) fn past_doubt(&mut self, group: GroupId) {
        self.groups[usize::from(group.0)].pledged = None;
    }

    /// Entries up to here are in the rows, and some of them are no longer in the log.
    pub(crate) fn forget(&mut self, group: GroupId, applied: Index) {
        let group = &mut self.groups[usize::from(group.0)];
        let (first, synced) = (group.first.max(applied.0 + 1), group.synced.max(applied));
        let gone = usize::try_from(first - group.first).expect("a log in memory is addressable");
        group.entries.drain(..gone.min(group.entries.len()));
        (group.first, group.synced) = (first, synced);
    }

    /// A driver has given out a job; returns how many times it cut entries off.
    pub(crate) fn given_out(&mut self, job: &LogJob) -> u64 {
        let mut open = OpenJob { id: job.id, ends: Vec::new(), promises: Vec::new() };
        let mut cuts = 0;
        for record in &job.records {
            let id = record.group();
            match record {
                Record::Entry { term, index, data, .. } => {
                    let entry = LogEntry { term: *term, hash: xxh3_64(data) };
                    cuts += u64::from(self.groups[usize::from(id.0)].put(*index, entry) > 0);
                    match open.ends.last_mut() {
                        Some(end) if end.0 == id => *end = (id, *index, *term),
                        Some(_) | None => open.ends.push((id, *index, *term)),
                    }
                }
                Record::HardState { vote: DOUBTED, .. } => {}
                Record::HardState { term, vote, .. } => {
                    self.groups[usize::from(id.0)].voted = (*term, *vote);
                    open.promises.push((id, *term, *vote));
                }
                Record::Installed { index, .. } => {
                    self.groups[usize::from(id.0)].has_rows = true;
                    self.groups[usize::from(id.0)].restart_behind(*index);
                    // Entries of the same job come behind it.
                    open.ends.retain(|end| end.0 != id);
                }
                Record::Membership { .. } => {}
            }
        }
        self.open.push_back(open);
        cuts
    }

    /// The disk has confirmed a job.
    pub(crate) fn confirmed(&mut self, id: JobId) {
        let job = self.open.pop_front().expect("only jobs that were given out are confirmed");
        assert_eq!(job.id, id, "jobs are confirmed in order");
        for (group, index, term) in job.ends {
            let group = &mut self.groups[usize::from(group.0)];
            // Cut off since, it stays unconfirmed.
            if group.get(index).is_some_and(|entry| entry.term == term) {
                group.synced = group.synced.max(index);
            }
        }
        for (group, term, vote) in job.promises {
            self.groups[usize::from(group.0)].promised = (term, vote);
        }
    }
}
