//! Rows of a whole group, from the node that leads it to one that is too far behind for the log.
//!
//! ```text
//!   giver (leads)                                     taker
//!   Raft: entries are gone ─► open rows of last flush
//!        Offer(index, term) ────────────────────────► find a generation without rows
//!                         ◄──────────────────── Ask(0)
//!        Chunk(0) ──────────────────────────────────► load under that generation
//!          ...            ◄──────────────────── Ask(n)
//!        Chunk(n, sum of all) ──────────────────────► compare, flush
//!                         ◄───────────────────── Ready   (Raft here may go on from them)
//!   Raft: "go on behind index" ═════════════════════► record in the log, synced ─► switch
//!                         ◄────────────────────── Done
//! ```
//!
//! The same mends a group whose rows are damaged on one node: it has the entries, and asks its
//! leader for rows through Raft.
//!
//! Invariants:
//!  - K1 nothing reads rows that are being loaded. They become the group's by one record in the
//!    log, written after they are durable; a crash before it leaves the old rows, one behind it
//!    the new ones, and never some of each;
//!  - K2 they become so only when the group's leader says so, about exactly their entry;
//!  - K3 a generation is used for one load, also over restarts;
//!  - K4 chunks are taken in order, each with its checksum right, and all together with theirs;
//!  - K5 transfers, their memory and their rate are bounded on both sides.
//!
//! Before a chunk the taker asks what is in it, if it may have those rows: of an earlier load that
//! was cut off, or its own old ones. Rows whose fingerprint is the same are copied, and only
//! others travel, see [`alike`]. So a transfer goes on where it was cut off, over a restart of
//! either side and a change of leader, though the rows are of another moment then:
//!
//! ```text
//!                         ◄──────── AskFingerprint(n)
//!        Fingerprint(n) ────────────────────────────► the same rows here? copy, ask for n + 1
//!                         ◄──────────────────── Ask(n)   otherwise
//! ```
//!
//! Messages may be lost, doubled and late. The taker asks and asks again; the giver keeps the
//! chunk that it gave last, to give it again. Whoever hears nothing for a while lets the transfer
//! go, and Raft asks for another one as long as it is needed. What came to nothing is offered again
//! after rests that grow, see [`rests`].

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use tl_raft::{Committed, Installed, PeerId, Rejected};
use tl_store::{GroupWrites, OrderedStore};
use tl_types::{Generation, GroupId, Index};

use self::aside::Found;
use self::give::{Giving, Wanted};
use self::message::{Message, What};
use self::rests::Rests;
use self::sources::CutOffs;
use self::taking::Taking;
use super::{Done, Failure, Node, Now, Turned};

mod alike;
mod aside;
mod give;
mod message;
mod rests;
mod sources;
mod take;
mod taking;

pub use self::aside::{Aside, AsideDone};

/// A transfer of which nothing was heard for so long is let go, milliseconds.
const PATIENCE_MS: u64 = 10_000;
/// Whoever waits for an answer says it again after so long, milliseconds. Also the first rest of
/// what came to nothing.
const AGAIN_MS: u64 = 1_000;
/// A taker that is heard and takes no further chunk for so long, say because its disk is full,
/// makes room for others, milliseconds.
const STALLED_MS: u64 = 60_000;
/// A taker from whose memory nothing gets out for so long has no room on its disk, as a rule: it keeps
/// nothing then that is only there to be copied from, nor what it lets go, milliseconds.
const NO_ROOM_MS: u64 = 5_000;
/// How long a taker that has everything may need to go on from it, milliseconds.
const INSTALL_WITHIN_MS: u64 = 30_000;
/// Rows that are no longer the group's stay for so long, for reads that began on them,
/// milliseconds.
const RETIRE_AFTER_MS: u64 = 30_000;
/// Former rows of one group that stay at a time. Before the oldest go, no further ones are taken:
/// they would need room as well.
const FORMER_MAX: usize = 2;
/// A giver may be ahead of its rate by so much: its clock ticks no oftener, milliseconds.
const BURST_MS: u64 = 50;

/// A chunk of which only the fingerprint is sent counts for its rows divided by this: they are
/// read all the same.
const PRINT_COST_DIVISOR: usize = 4;

/// How much transfers may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CatchUpLimits {
    /// A chunk ends once it has so many bytes of rows (one row always goes). Each transfer keeps
    /// one in memory.
    pub chunk_bytes: usize,
    /// Bytes given per second, all transfers together.
    pub bytes_per_s: u64,
    /// Transfers at a time, given and taken each.
    pub at_once: usize,
}

impl Default for CatchUpLimits {
    fn default() -> CatchUpLimits {
        CatchUpLimits { chunk_bytes: 1024 * 1024, bytes_per_s: 64 * 1024 * 1024, at_once: 2 }
    }
}

/// What transfers did since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CatchUpCounts {
    /// Given whole, and gone on from.
    pub given: u64,
    /// Offered, and not wanted.
    pub not_wanted: u64,
    /// Given up by the giver, after the taker had begun to take it or before it could be offered.
    pub given_up: u64,
    /// Taken whole, and gone on from.
    pub taken: u64,
    /// Let go by the taker.
    pub let_go: u64,
    /// Bytes given.
    pub bytes_given: u64,
    /// Rows taken.
    pub rows_taken: u64,
    /// Bytes of these that were copied from a load that was cut off.
    pub bytes_resumed: u64,
    /// Bytes of these that were copied from the group's own old rows.
    pub bytes_alike: u64,
    /// Messages that were damaged or made no sense.
    pub refused: u64,
}

/// Transfers that are under way now, by the step that they are at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CatchUpOpen {
    /// Given: rows are made ready, by a flush if need be.
    pub preparing: u64,
    /// Given: the taker asks for chunks.
    pub sending: u64,
    /// Given: all is there, and the taker is told to go on from it.
    pub finishing: u64,
    /// Given: the taker goes on, and gets entries that were kept for it.
    pub following: u64,
    /// Taken: chunks are asked for.
    pub loading: u64,
    /// Taken: all is there and on its way to the disk.
    pub flushing: u64,
    /// Taken: all is durable, and the leader may say to go on from it.
    pub installing: u64,
}

/// Transfers of one node.
#[derive(Debug)]
pub(super) struct CatchUp {
    limits: CatchUpLimits,
    counts: CatchUpCounts,
    /// Number of the next transfer given; begins elsewhere at every start.
    next_transfer: u64,
    giving: Vec<Giving>,
    taking: Vec<Taking>,
    rests: Rests,
    cut_offs: CutOffs,
    /// When the next chunk is due by the rate.
    may_send_at_ms: u64,
    /// What may go, the earliest first; at most [`FORMER_MAX`] for each group.
    retiring: VecDeque<Retiring>,
    /// What was last told to be held in the log.
    held: BTreeMap<GroupId, Index>,
}

/// Rows that reads may still need.
#[derive(Debug)]
struct Retiring {
    at_ms: u64,
    group: GroupId,
    /// Those before this generation go.
    before: Generation,
}

impl CatchUp {
    pub(super) fn new(life: u64, now_ms: u64) -> CatchUp {
        CatchUp {
            limits: CatchUpLimits::default(),
            counts: CatchUpCounts::default(),
            next_transfer: life,
            giving: Vec::new(),
            taking: Vec::new(),
            rests: Rests::default(),
            cut_offs: CutOffs::new(now_ms),
            may_send_at_ms: 0,
            retiring: VecDeque::new(),
            held: BTreeMap::new(),
        }
    }

    /// For each group that is given, the last entry in the rows, if that has changed: what comes
    /// behind them is needed next.
    pub(super) fn log_held(&mut self) -> Option<BTreeMap<GroupId, Index>> {
        if self.giving.is_empty() && self.held.is_empty() {
            return None;
        }
        let mut held = BTreeMap::new();
        for (group, upto) in self.giving.iter().filter_map(Giving::holds) {
            let least = held.entry(group).or_insert(upto);
            *least = upto.min(*least);
        }
        let is_news = held != self.held;
        self.held.clone_from(&held);
        is_news.then_some(held)
    }
}

impl<S: OrderedStore> Node<S> {
    /// Sets how much transfers may take.
    pub fn limit_catch_up(&mut self, limits: CatchUpLimits) {
        self.catch_up.limits = limits;
    }

    /// What transfers did.
    #[must_use]
    pub fn catch_up_counts(&self) -> CatchUpCounts {
        self.catch_up.counts
    }

    /// Transfers under way.
    #[must_use]
    pub fn catch_up_open(&self) -> CatchUpOpen {
        let mut open = CatchUpOpen::default();
        self.catch_up.giving.iter().for_each(|giving| giving.count(&mut open));
        self.catch_up.taking.iter().for_each(|taking| taking.count(&mut open));
        open
    }

    /// Groups that this node is taking rows of.
    pub fn taking(&self) -> impl Iterator<Item = GroupId> + '_ {
        self.catch_up.taking.iter().map(|taking| taking.group)
    }

    /// Takes a message of a peer.
    pub(super) fn hear(&mut self, now: Now, from: PeerId, bytes: &Bytes, turned: &mut Turned) {
        let groups = self.groups();
        let message = match Message::decode(bytes) {
            Ok(message) if message.group.0 < groups => message,
            Ok(message) => {
                let group = Some(message.group);
                return self.refuse(from, group, "group does not live here", turned);
            }
            Err(reason) => return self.refuse(from, None, reason, turned),
        };
        let Message { group, transfer, what } = message;
        match what {
            What::Offer { index, term, chunk } => {
                self.offered(now, from, (group, transfer), (index, term), chunk, turned);
            }
            What::Ask { chunk } => {
                self.asked(now, from, (group, transfer), (chunk, Wanted::Rows), turned);
            }
            What::AskFingerprint { chunk } => {
                self.asked(now, from, (group, transfer), (chunk, Wanted::Fingerprint), turned);
            }
            What::Fingerprint { chunk, print, last } => {
                self.printed(now, from, (group, transfer), (chunk, print, last), turned);
            }
            What::Chunk { chunk, rows, last } => {
                self.took(now, from, (group, transfer), (chunk, rows, last), turned);
            }
            What::Ready => self.taker_is_ready(now, from, (group, transfer), turned),
            What::Done => self.taker_is_done(from, transfer),
            What::Gone => {
                self.taker_is_gone(now, from, transfer);
                self.giver_is_gone(now, from, transfer);
            }
        }
    }

    fn refuse(
        &mut self,
        from: PeerId,
        group: Option<GroupId>,
        reason: &'static str,
        turned: &mut Turned,
    ) {
        self.catch_up.counts.refused += 1;
        turned.rejected.push(Rejected { from, group, reason });
    }

    /// Takes the end of work that was done off the driver.
    pub(super) fn aside_done(&mut self, now: Now, done: AsideDone, turned: &mut Turned) {
        let AsideDone { group, transfer, found } = done;
        match found {
            Found::Opened(opened) => self.opened(now, transfer, opened, turned),
            Found::Read(read) => self.read_on(now, transfer, read, turned),
            Found::Named(named) => self.named(now, (group, transfer), named, turned),
            Found::Compared(compared) => self.compared(now, (group, transfer), compared, turned),
        }
    }

    /// Does what time has made due, and what was waited for.
    pub(super) fn move_transfers(&mut self, now: Now, turned: &mut Turned) {
        if !self.catch_up.giving.is_empty() {
            self.move_giving(now, turned);
        }
        if !self.catch_up.taking.is_empty() {
            self.move_taking(now, turned);
        }
        let is_due = |retiring: &mut Retiring| retiring.at_ms <= now.boot_ms;
        while let Some(retiring) = self.catch_up.retiring.pop_front_if(is_due) {
            self.store.set_generation(retiring.group, retiring.before);
        }
        while let Some(group) = self.catch_up.cut_offs.pop_due(now.boot_ms) {
            self.keep_rows(group);
        }
        if self.catch_up.cut_offs.former_are_due(now.boot_ms) {
            (0..self.groups()).map(GroupId).for_each(|group| self.keep_rows(group));
        }
    }

    /// Whether a group has as much that may go soon as it may have.
    fn is_full_of_former(&self, group: GroupId) -> bool {
        let all = self.catch_up.retiring.iter();
        all.filter(|retiring| retiring.group == group).count() >= FORMER_MAX
    }

    /// Keeps the rows that are read, those that are loaded, those between that were read lately,
    /// and a load that was cut off.
    fn keep_rows(&self, group: GroupId) {
        let retiring = self.catch_up.retiring.iter().filter(|retiring| retiring.group == group);
        let taking = self.catch_up.taking.iter().filter(|taking| taking.group == group);
        let kept: Vec<Generation> = retiring
            .map(|retiring| retiring.before)
            .chain(taking.clone().filter_map(Taking::generation))
            .chain(taking.filter_map(Taking::cut_off))
            .chain(self.catch_up.cut_offs.of(group))
            .collect();
        self.store.set_loading(group, &kept);
    }

    /// The log says that a group goes on from the rows that were loaded.
    pub(super) fn install(&mut self, now: Now, installed: Installed, turned: &mut Turned) {
        let Installed { group, rows } = installed;
        let (generation, index, term) = (rows.generation, rows.index, rows.term);
        let stamp = self.end_taking(group, turned);
        self.store.write(GroupWrites { group, generation, index, term, rows: Vec::new() });
        let slot = &mut self.slots[usize::from(group.0)];
        slot.generation = generation;
        slot.applied = index;
        // Damaged rows are no longer the group's.
        slot.stopped = false;
        slot.stamp = slot.stamp.max(stamp);
        // What waited is in the rows; what it was answered with, nobody here knows.
        let beside = slot.beside.take().and_then(|(_, _, token)| token);
        self.waiting_bytes -= slot.waiting.iter().map(Committed::followed_bytes).sum::<usize>();
        let waiting = slot.waiting.drain(..).filter_map(|entry| entry.token);
        let failure = Failure::Unknown;
        let unknown = beside.into_iter().chain(waiting);
        turned.done.extend(unknown.map(|token| Done::Failed { token, failure }));
        self.catch_up.counts.taken += 1;
        let at_ms = now.boot_ms + RETIRE_AFTER_MS;
        self.catch_up.retiring.push_back(Retiring { at_ms, group, before: generation });
        self.keep_rows(group);
        turned.installed.push((group, index));
        self.answer_reads(group, turned);
    }

    fn say(&self, to: PeerId, (group, transfer): (GroupId, u64), what: What, turned: &mut Turned) {
        turned.bulk.push((to, Message { group, transfer, what }.encode()));
    }

    /// The last entry that is known to be committed here.
    fn committed(&self, group: GroupId) -> Index {
        self.driver.status(group).map_or(Index(0), |status| status.committed)
    }
}

#[cfg(test)]
mod tests;
