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

use raft::eraftpb::Message;
use tl_types::{GroupId, Index};

use crate::config::{DriverConfig, FRAME_BYTES_MAX, TICKS_PER_TURN_MAX};
use crate::deeds::{Deeds, Inbound, JobId, Lacking, LogJob, Now, PeerId};
use crate::frame::FrameBuilder;
use crate::group::{Group, Yield};
use crate::reads::RoundId;
use crate::recovery::RecoveredGroup;

pub use self::feeds::FeedCounts;
use self::feeds::Feeds;
use self::followed::{Followed, followed_bytes};

mod feeds;
mod followed;
mod inbox;
mod look;

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
    jobs: VecDeque<Job>,
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
    followed: Followed,
}

/// A log job that was handed out and is not confirmed.
#[derive(Debug)]
struct Job {
    id: JobId,
    groups: Vec<GroupId>,
    /// Of entries in it that came from leaders.
    followed_bytes: usize,
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
            followed: Followed::default(),
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
        deeds.appends_passed_over = self.followed.end_turn();
        deeds
    }

    /// What the caller still has to do for entries that came from leaders: bytes that it was given to
    /// apply and did not, and whether there is no place for more. To be said before a turn.
    pub fn set_waiting(&mut self, followed_bytes: usize, has_no_place: bool) {
        self.followed.set_waiting(followed_bytes, has_no_place);
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
        let mut taken_bytes = 0;
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
            let (kept_before, records_before) = (group.applied_bytes(), records.len());
            let mut out = Yield { job, records: &mut records, messages: &mut messages, deeds };
            if group.take_ready(&mut out) {
                waiting.push(id);
            }
            if !group.leads() {
                taken_bytes += followed_bytes(&records[records_before..]);
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
            self.followed.hand_out(taken_bytes);
            self.jobs.push_back(Job { id: job, groups: waiting, followed_bytes: taken_bytes });
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
