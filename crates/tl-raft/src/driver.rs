//! The driver: every group of the node, moved on by one synchronous turn.
//!
//! ```text
//!   inbox --> confirm log jobs, applied --> step frames, tick --> propose, ask reads
//!         --> one Ready per dirty group --> Deeds { log job, frames, apply, answers }
//! ```
//!
//! Invariants:
//!  - D1 a vote, or an answer to an append, leaves after the log job with what it promises;
//!  - D2 log jobs are numbered without a hole and confirmed in that order;
//!  - D3 every token is answered at most once, and "lost" only when what is committed rules the
//!    entry out;
//!  - D4 the same seed, inbox and times give the same deeds, bit for bit.
//!
//! Jobs are confirmed before anything is proposed: one `Ready` then carries what became committed
//! and what is new. Absent: clocks, threads, files, sockets, encoding of records, rows: whoever has
//! them carries them to a follower that lacks entries, and Raft is told when they are there.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use raft::eraftpb::Message;
use tl_types::{GroupId, Index, Term};

use crate::config::{DriverConfig, FRAME_BACKLOG_BYTES_MAX, FRAME_BYTES_MAX, TICKS_PER_TURN_MAX};
use crate::deeds::{
    Deeds, FollowerStatus, GroupStatus, Inbound, JobId, Lacking, LogJob, Now, Outcome, PeerId,
    Rejected,
};
use crate::frame::{self, FrameBuilder, Said};
use crate::group::{Group, Heard, Yield};
use crate::members::ChangeRefused;
use crate::reads::RoundId;
use crate::recovery::RecoveredGroup;

pub use self::feeds::FeedCounts;
use self::feeds::Feeds;

mod feeds;

/// All Raft groups of one node.
pub struct Driver {
    config: DriverConfig,
    /// Indexed by group id; groups that live elsewhere are `None`.
    groups: Vec<Option<Box<Group>>>,
    dirty: Dirty,
    /// Groups with reads that wait for an index.
    reading: Vec<GroupId>,
    backlog: VecDeque<Inbound>,
    backlog_frame_bytes: usize,
    /// Jobs handed out and not confirmed, with the groups that wait for them.
    jobs: VecDeque<(JobId, Vec<GroupId>)>,
    jobs_made: u64,
    /// When the next tick is due; `None` before the first turn.
    tick_at_ms: Option<u64>,
    ticks: u64,
    /// Leaders beat in this turn; what waited for that goes along.
    is_beat: bool,
    /// As many as there were numbers that something was said to since the start.
    outgoing: BTreeMap<PeerId, FrameBuilder>,
    /// Names this life of the node in read rounds.
    life: u64,
    rounds_made: u64,
    /// Applied entries kept for followers, all groups together, bytes.
    kept_bytes: usize,
    /// What one group may keep of them when the cache is full, bytes.
    cache_share_bytes: usize,
    feeds: Feeds,
}

/// Groups that may have a `Ready`, each once.
#[derive(Debug, Default)]
struct Dirty {
    list: Vec<GroupId>,
    marked: Vec<bool>,
}

impl Dirty {
    fn mark(&mut self, group: GroupId) {
        let marked = &mut self.marked[usize::from(group.0)];
        if !*marked {
            *marked = true;
            self.list.push(group);
        }
    }

    fn take(&mut self) -> Vec<GroupId> {
        for group in &self.list {
            self.marked[usize::from(group.0)] = false;
        }
        std::mem::take(&mut self.list)
    }
}

impl Driver {
    /// Starts the groups from what was recovered. Groups with one voter stand for election at
    /// once, so the first turn's log job holds all their first votes.
    ///
    /// # Panics
    /// If the settings do not fit together or a group is given twice: both are mistakes in code.
    #[must_use]
    pub fn new(config: DriverConfig, recovered: Vec<RecoveredGroup>) -> Driver {
        config.check();
        let mut seeds = fastrand::Rng::with_seed(
            config.seed ^ config.peer.0.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        );
        let life = seeds.u64(..);
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let slots = recovered.iter().map(|group| usize::from(group.group.0) + 1).max().unwrap_or(0);
        let shared = recovered.iter().filter(|group| group.members.count() > 1).count();
        let mut driver = Driver {
            cache_share_bytes: config.entry_cache_bytes / shared.max(1),
            groups: (0..slots).map(|_| None).collect(),
            dirty: Dirty { list: Vec::new(), marked: vec![false; slots] },
            reading: Vec::new(),
            backlog: VecDeque::new(),
            backlog_frame_bytes: 0,
            jobs: VecDeque::new(),
            jobs_made: 0,
            tick_at_ms: None,
            ticks: 0,
            is_beat: false,
            outgoing: BTreeMap::new(),
            life,
            rounds_made: 0,
            kept_bytes: 0,
            feeds: Feeds::new(config.fetches_max),
            config,
        };
        for recovered in recovered {
            let id = recovered.group;
            let jitter = fastrand::Rng::with_seed(seeds.u64(..));
            let group = Group::new(&driver.config, recovered, jitter, &logger);
            driver.kept_bytes += group.applied_bytes();
            let slot = &mut driver.groups[usize::from(id.0)];
            assert!(slot.is_none(), "group {id} is given once");
            *slot = Some(Box::new(group));
            driver.dirty.mark(id);
        }
        driver
    }

    /// One turn: takes in what happened, moves the groups on, says what is to be done. What does
    /// not fit the turn's budget stays inside for the next one, in order.
    ///
    /// # Panics
    /// If a log job is confirmed out of order or an entry is reported as applied that was never
    /// handed out: going on would risk acknowledged data.
    pub fn turn(&mut self, now: Now, inbox: impl IntoIterator<Item = Inbound>) -> Deeds {
        let mut deeds = Deeds::default();
        self.take_in(inbox, &mut deeds);
        let proposing = self.work_off_backlog(&mut deeds);
        self.tick(now, &mut deeds);
        for group in proposing {
            self.group_mut(group).propose_all(&mut deeds.outcomes);
            self.dirty.mark(group);
        }
        self.ask_reads();
        self.take_readies(&mut deeds);
        let is_beat = std::mem::take(&mut self.is_beat);
        for (peer, builder) in &mut self.outgoing {
            let peer = *peer;
            if is_beat {
                builder.beats_now();
            }
            deeds.frames.extend(builder.finish().map(|frame| (peer, frame)));
        }
        deeds.more = !self.backlog.is_empty() || !self.dirty.list.is_empty();
        deeds
    }

    /// When the next turn is due even if nothing happens.
    #[must_use]
    pub fn next_tick(&self) -> Option<Now> {
        self.tick_at_ms.map(|boot_ms| Now { boot_ms })
    }

    /// Log jobs handed out and not confirmed.
    #[must_use]
    pub fn jobs_open(&self) -> usize {
        self.jobs.len()
    }

    /// Another number at every start of the node.
    #[must_use]
    pub fn life(&self) -> u64 {
        self.life
    }

    /// What a follower has confirmed; `None` unless the group is led here.
    #[must_use]
    pub fn matched(&self, group: GroupId, peer: PeerId) -> Option<Index> {
        self.group(group)?.matched(peer)
    }

    /// Whether the record that puts staged rows in place is on its way to the disk.
    #[must_use]
    pub fn is_installing(&self, group: GroupId) -> bool {
        self.group(group).is_some_and(Group::is_installing)
    }

    /// Whether records of the group's log were lost here, and it has not gone on from rows since.
    #[must_use]
    pub fn is_doubted(&self, group: GroupId) -> bool {
        self.group(group).is_some_and(Group::is_doubted)
    }

    /// Whether a group is doubted here and lacks a word of another member, without which it cannot go
    /// on from any rows.
    #[must_use]
    pub fn lacks_answers(&self, group: GroupId) -> bool {
        self.group(group).is_some_and(Group::lacks_answers)
    }

    /// Where a group stands; `None` if it does not live here.
    #[must_use]
    pub fn status(&self, group: GroupId) -> Option<GroupStatus> {
        self.group(group).map(Group::status)
    }

    /// How far the followers of a group led here are; nothing for other groups.
    #[must_use]
    pub fn followers(&self, group: GroupId) -> Vec<FollowerStatus> {
        self.group(group).map_or_else(Vec::new, Group::followers)
    }

    /// First entry that is still in memory and can be sent to a follower.
    #[must_use]
    pub fn first_kept(&self, group: GroupId) -> Option<Index> {
        self.group(group).map(Group::first_kept)
    }

    /// Whether a follower of a group led here could be given this entry next, from memory or from
    /// the log.
    #[must_use]
    pub fn can_send(&self, group: GroupId, index: Index) -> bool {
        self.group(group).is_some_and(|group| group.can_send(index))
    }

    /// For each group the first entry that the log on disk has: followers may be sent those that
    /// are no longer in memory. A group that is not named has none there. To be said at the start,
    /// and whenever the log lets go of some.
    pub fn log_begins(&mut self, begins: &BTreeMap<GroupId, Index>) {
        if self.config.fetches_max == 0 {
            return;
        }
        for (slot, group) in self.groups.iter_mut().enumerate() {
            let id = GroupId(u16::try_from(slot).expect("slots are group ids"));
            if let Some(group) = group {
                group.log_begins(begins.get(&id).copied());
            }
        }
    }

    /// What was sent from the log.
    #[must_use]
    pub fn feed_counts(&self) -> FeedCounts {
        self.feeds.counts
    }

    /// Drops applied entries up to `index` from memory, but for those that a follower has not
    /// confirmed to a group led here: about these the budgets decide. Applied entries that nobody
    /// lacks, or that do not fit the budgets, go without being asked.
    pub fn compact(&mut self, group: GroupId, index: Index) {
        if self.lives_here(group) {
            self.reckoned(group, |group| group.compact(index));
        }
    }

    fn group(&self, group: GroupId) -> Option<&Group> {
        self.groups.get(usize::from(group.0))?.as_deref()
    }

    fn lives_here(&self, group: GroupId) -> bool {
        self.group(group).is_some()
    }

    /// A group that is known to live here.
    fn group_mut(&mut self, group: GroupId) -> &mut Group {
        self.groups[usize::from(group.0)].as_deref_mut().expect("the group lives here")
    }

    /// Does something that may change how many bytes the group keeps for followers.
    fn reckoned(&mut self, group: GroupId, change: impl FnOnce(&mut Group)) {
        let group = self.group_mut(group);
        let before = group.applied_bytes();
        change(group);
        let after = group.applied_bytes();
        self.kept_bytes = self.kept_bytes - before + after;
    }

    fn shrink(&mut self, group: GroupId) {
        let share = self.cache_share_bytes;
        let full = self.kept_bytes > self.config.entry_cache_bytes;
        let lag = if full { share } else { self.config.follower_lag_bytes };
        self.reckoned(group, |group| group.shrink(share, lag));
    }

    /// Confirmations and applied indexes are taken at once, whatever is queued before them: they
    /// free memory and make room for the proposals of this turn.
    fn take_in(&mut self, inbox: impl IntoIterator<Item = Inbound>, deeds: &mut Deeds) {
        for inbound in inbox {
            match inbound {
                Inbound::LogDone { job } => self.log_done(job, deeds),
                Inbound::Applied { group, index } => {
                    if self.lives_here(group) {
                        self.reckoned(group, |group| group.applied(index));
                        self.shrink(group);
                    }
                }
                Inbound::Frame { from, ref bytes } => {
                    if self.backlog_frame_bytes + bytes.len() > FRAME_BACKLOG_BYTES_MAX {
                        deeds.rejected.push(Rejected {
                            from,
                            group: None,
                            reason: "too many frames wait",
                        });
                    } else {
                        self.backlog_frame_bytes += bytes.len();
                        self.backlog.push_back(inbound);
                    }
                }
                Inbound::Propose { .. }
                | Inbound::ReadIndex { .. }
                | Inbound::Campaign { .. }
                | Inbound::Transfer { .. }
                | Inbound::ChangeMembers { .. }
                | Inbound::Unreachable { .. } => self.backlog.push_back(inbound),
                Inbound::Giving { group, to, rows } => {
                    self.with_group(group, |group| group.give(to, rows));
                }
                Inbound::Given { group, to } => self.with_group(group, |group| group.given(to)),
                Inbound::Staged { group, rows } => {
                    self.with_group(group, |group| group.stage(Some(rows)));
                }
                Inbound::Unstaged { group } => self.with_group(group, |group| group.stage(None)),
                Inbound::Damaged { group } => self.with_group(group, Group::damaged),
                Inbound::Fetched { group, to, from, entries } => {
                    self.fetched((group, to), from, entries, deeds);
                }
            }
        }
    }

    /// Entries were read from the log for a follower, or none.
    fn fetched(
        &mut self,
        (id, to): (GroupId, PeerId),
        from: Index,
        entries: Vec<(Term, Bytes)>,
        deeds: &mut Deeds,
    ) {
        if !self.feeds.awaits(id, to, from) {
            return;
        }
        let counts = &mut self.feeds.counts;
        let group = self.groups[usize::from(id.0)].as_deref_mut().expect("a feed is of a group");
        if entries.is_empty() {
            counts.missed += 1;
            group.cannot_fetch(from);
        }
        match group.fed(to, from, entries) {
            Some((message, upto)) => {
                counts.entries += upto.0 + 1 - from.0;
                counts.bytes += message.entries.iter().map(|it| it.data.len() as u64).sum::<u64>();
                self.feeds.sent(id, to, upto);
                self.send(id, &mut vec![message], deeds);
            }
            // It needs others by now, and says so again.
            None => self.feeds.end(id, to),
        }
    }

    fn log_done(&mut self, job: JobId, deeds: &mut Deeds) {
        let (oldest, groups) =
            self.jobs.pop_front().expect("only a job that was handed out is confirmed");
        assert_eq!(job, oldest, "log jobs are confirmed in order");
        let mut messages = Vec::new();
        for group in groups {
            self.group_mut(group).confirm(job, &mut messages, &mut deeds.installed);
            self.send(group, &mut messages, deeds);
            self.dirty.mark(group);
        }
    }

    /// Steps what is queued, up to the budget; returns the groups with queued proposals.
    fn work_off_backlog(&mut self, deeds: &mut Deeds) -> Vec<GroupId> {
        let mut proposing = Vec::new();
        let mut items = 0;
        let mut bytes = 0;
        while items < self.config.turn_items_max && bytes < self.config.turn_bytes_max {
            let Some(inbound) = self.backlog.pop_front() else { break };
            items += 1;
            match inbound {
                Inbound::Propose { group, token, data } => {
                    bytes += data.len();
                    if !self.lives_here(group) {
                        deeds.outcomes.push(Outcome::NotLeader { token, leader: None });
                    } else if self.group_mut(group).queue_proposal(token, data) {
                        proposing.push(group);
                    }
                }
                Inbound::Frame { from, bytes: frame } => {
                    bytes += frame.len();
                    self.backlog_frame_bytes -= frame.len();
                    self.step_frame(from, &frame, deeds);
                }
                Inbound::ReadIndex { group, token } => self.queue_read(group, token, deeds),
                Inbound::Campaign { group } => self.with_group(group, Group::campaign),
                Inbound::Transfer { group, to } => {
                    self.with_group(group, |group| group.transfer(to))
                }
                Inbound::ChangeMembers { group, change, token } => {
                    if self.lives_here(group) {
                        let outcomes = &mut deeds.outcomes;
                        self.with_group(group, |group| {
                            group.change_members(change, token, outcomes);
                        });
                    } else {
                        let reason = ChangeRefused::NotLeader { leader: None };
                        deeds.outcomes.push(Outcome::ChangeRefused { token, reason });
                    }
                }
                Inbound::Unreachable { peer } => {
                    for slot in 0..self.groups.len() {
                        let id = GroupId(u16::try_from(slot).expect("slots are group ids"));
                        self.with_group(id, |group| group.unreachable(peer));
                    }
                }
                Inbound::LogDone { .. }
                | Inbound::Applied { .. }
                | Inbound::Giving { .. }
                | Inbound::Given { .. }
                | Inbound::Staged { .. }
                | Inbound::Unstaged { .. }
                | Inbound::Fetched { .. }
                | Inbound::Damaged { .. } => unreachable!("these are never queued"),
            }
        }
        proposing
    }

    fn with_group(&mut self, group: GroupId, change: impl FnOnce(&mut Group)) {
        if self.lives_here(group) {
            change(self.group_mut(group));
            self.dirty.mark(group);
        }
    }

    fn queue_read(&mut self, group: GroupId, token: crate::deeds::Token, deeds: &mut Deeds) {
        if !self.lives_here(group) {
            deeds.outcomes.push(Outcome::ReadFailed { token, leader: None });
            return;
        }
        // A group whose reads were answered in the last turn still stands in the list; standing
        // there twice would age its reads twice per tick.
        if !self.reading.contains(&group) {
            self.reading.push(group);
        }
        self.group_mut(group).queue_read(token);
    }

    fn step_frame(&mut self, from: PeerId, frame: &Bytes, deeds: &mut Deeds) {
        let decoded = frame::decode_said(frame, |group, said| {
            let slot =
                self.groups.get_mut(usize::from(group.0)).and_then(|slot| slot.as_deref_mut());
            let stepped = match (slot, said) {
                (Some(slot), Said::Raft(message)) => match slot.heard(from, &message) {
                    Heard::Beat(answer) => {
                        self.outgoing.entry(from).or_default().answer(group, answer);
                        return;
                    }
                    Heard::Answer => return,
                    Heard::News => slot.step(from, message),
                },
                (Some(slot), Said::Doubt(note)) => slot.hear(from, note),
                (None, _) => Err("group does not live here"),
            };
            if stepped.is_ok() {
                self.dirty.mark(group);
            }
            if let Err(reason) = stepped {
                deeds.rejected.push(Rejected { from, group: Some(group), reason });
            }
        });
        if let Err(reason) = decoded {
            deeds.rejected.push(Rejected { from, group: None, reason });
        }
    }

    /// Lets due ticks pass: followers are ticked each time; leaders once per beat, all groups in
    /// the same turn, so that one frame per peer carries all heartbeats. A group that is its only
    /// voter needs no clock once it leads.
    fn tick(&mut self, now: Now, deeds: &mut Deeds) {
        let due_ms = *self.tick_at_ms.get_or_insert(now.boot_ms + self.config.tick_ms);
        let Some(late_ms) = now.boot_ms.checked_sub(due_ms) else { return };
        let due = late_ms / self.config.tick_ms + 1;
        self.tick_at_ms = Some(due_ms + due * self.config.tick_ms);
        for _ in 0..due.min(TICKS_PER_TURN_MAX) {
            self.ticks += 1;
            let beat = self.ticks.is_multiple_of(self.config.beat_ticks());
            for (slot, group) in self.groups.iter_mut().enumerate() {
                let Some(group) = group else { continue };
                if group.leads() && !(beat && group.several()) {
                    continue;
                }
                let id = GroupId(u16::try_from(slot).expect("slots are group ids"));
                if let Some(beat) = group.beat() {
                    for peer in group.others() {
                        self.outgoing.entry(peer).or_default().beat(id, beat);
                    }
                } else if group.tick() {
                    self.dirty.mark(id);
                }
            }
            for group in &self.reading {
                let slot = self.groups[usize::from(group.0)].as_deref_mut();
                slot.expect("the group lives here").tick_reads(&mut deeds.outcomes);
            }
            if beat {
                self.is_beat = true;
                self.feeds.beat().for_each(|group| self.dirty.mark(group));
            }
            if beat && self.kept_bytes > 0 {
                self.shrink_all();
            }
        }
    }

    fn shrink_all(&mut self) {
        for slot in 0..self.groups.len() {
            let group = GroupId(u16::try_from(slot).expect("slots are group ids"));
            if self.lives_here(group) {
                self.shrink(group);
            }
        }
    }

    fn ask_reads(&mut self) {
        for group in std::mem::take(&mut self.reading) {
            let (peer, life) = (self.config.peer, self.life);
            let rounds_made = &mut self.rounds_made;
            let slot =
                self.groups[usize::from(group.0)].as_deref_mut().expect("the group lives here");
            slot.ask_reads(|| {
                *rounds_made += 1;
                RoundId { peer, life, number: *rounds_made }
            });
            if slot.has_reads() {
                self.reading.push(group);
                self.dirty.mark(group);
            }
        }
    }

    fn take_readies(&mut self, deeds: &mut Deeds) {
        let job = JobId(self.jobs_made + 1);
        let mut records = Vec::new();
        let mut waiting = Vec::new();
        let mut messages = Vec::new();
        for id in self.dirty.take() {
            let group =
                self.groups[usize::from(id.0)].as_deref_mut().expect("dirty groups live here");
            self.feeds.look(id, group, &mut deeds.fetches);
            for (peer, least) in group.take_lacking() {
                let peer = PeerId(peer);
                if least > 0 || !self.feeds.lacks((id, peer), group, &mut deeds.fetches) {
                    deeds.lacking.push(Lacking { group: id, peer, damaged_at: Index(least) });
                }
            }
            for (peer, note) in group.take_notes() {
                self.outgoing.entry(peer).or_default().push_note(id, &note);
            }
            if !group.has_ready() {
                continue;
            }
            let kept_before = group.applied_bytes();
            let mut out = Yield { job, records: &mut records, messages: &mut messages, deeds };
            if group.take_ready(&mut out) {
                waiting.push(id);
            }
            self.kept_bytes = self.kept_bytes - kept_before + group.applied_bytes();
            // Committed entries past the budget come with the next turn.
            if group.has_ready() {
                self.dirty.mark(id);
            }
            self.send(id, &mut messages, deeds);
        }
        if !records.is_empty() {
            self.jobs_made = job.0;
            self.jobs.push_back((job, waiting));
            deeds.log = Some(LogJob { id: job, records });
        }
    }

    /// Puts messages into their peers' frames.
    fn send(&mut self, group: GroupId, messages: &mut Vec<Message>, deeds: &mut Deeds) {
        for message in messages.drain(..) {
            let peer = PeerId(message.to);
            let builder = self.outgoing.entry(peer).or_default();
            // Kinds that never leave the node are not sent; Raft makes none that matters here.
            builder.push(group, &message);
            if builder.len() >= FRAME_BYTES_MAX {
                deeds.frames.extend(builder.finish().map(|frame| (peer, frame)));
            }
        }
    }
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver")
            .field("peer", &self.config.peer)
            .field("groups", &self.groups.iter().flatten().count())
            .field("jobs_open", &self.jobs.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
