//! One node without threads, clocks, files or sockets: the driver, and the application of what
//! it commits.
//!
//! ```text
//!   Input ──► stamp ──► Driver::turn ──► log job, frames            (to the shell)
//!                            │
//!                            └─ committed ──► apply on rows in memory ──► Store::write ──► Done
//!                                                  │ cold
//!                                                  └──► Beside (rules over blocking reads) ──► Input
//! ```
//!
//! The engine's driver thread and the simulator call the same [`Node::turn`].
//!
//! Invariants:
//!  - N1 entries of a group are applied in index order, each exactly once per start; while one
//!    is being applied beside, the group's later entries wait.
//!  - N2 a token is answered at most once.
//!  - N3 an outcome that is poisoned or cannot be decoded changes nothing; damage stops the
//!    group, names itself, and never stops another group. With others, the group is led by one of
//!    them from then on, and goes on here from rows of its leader. A group that the log lost records
//!    of is stopped from the start.
//!  - N4 stamps of a group never go back.
//!  - N5 the log behind the memtable is bounded, also when its entries write no rows.
//!  - K1 to K5 about rows that come from another node: see [`catchup`].
use std::collections::VecDeque;
use std::sync::Arc;

use tl_core::clock::StampClock;
use tl_core::entry::LEVEL_SPOKEN;
use tl_core::{Outcome, Poison, Reply, SessionHeader, WriteSet};
use tl_raft::{Committed, Driver, Inbound, Now as DriverNow, Outcome as DriverOutcome, Token};
use tl_store::{GroupWrites, OrderedStore};
use tl_types::{Generation, GroupId, Index, ResourceNumber, Seq, Table, Term, UnixMs};

use self::catchup::CatchUp;
use self::rows::{BlockingRows, HeldRows};

mod catchup;
mod fetch;
mod turn;

pub use self::turn::{Beside, BesideDone, Done, Failure, Input, Now, Turned};
pub mod recover;
pub mod rows;

pub use self::catchup::{Aside, AsideDone, CatchUpCounts, CatchUpLimits, CatchUpOpen};
pub use self::fetch::{Fetched, fetch};

/// Counted for an entry on top of its data: what the log writes around it, about.
const LOG_ENTRY_OVERHEAD: usize = 64;

/// Why a doubted group is stopped.
const DOUBTED: &str = "the log of this node is damaged and may have lost records of the group: it \
                       neither votes nor acknowledges before its leader has given it other rows";

/// What a node knows about one of its groups.
#[derive(Debug)]
struct Slot {
    generation: Generation,
    /// The newest generation that rows were loaded under since the start.
    named: Generation,
    applied: Index,
    /// Stamps proposals; never behind what was applied.
    clock: StampClock,
    /// Stamp of the last entry applied here.
    stamp: UnixMs,
    /// Committed entries that wait behind one being applied beside.
    waiting: VecDeque<Committed>,
    /// The entry being applied beside: index, term, token.
    beside: Option<(Index, Term, Option<Token>)>,
    stopped: bool,
    /// Reads that wait until their index is applied.
    reads: Vec<(Index, Token)>,
}

/// Driver, store and rules of one node.
pub struct Node<S> {
    driver: Driver,
    store: Arc<S>,
    slots: Vec<Slot>,
    /// The highest feature level of entries that are applied here.
    level_spoken: u16,
    /// What the driver is told first in the next turn.
    feedback: Vec<Inbound>,
    /// Groups that were doubted at the start, which the first turn tells.
    doubted: Vec<GroupId>,
    /// Bytes of entries applied since the memtable was sealed last.
    log_bytes: usize,
    /// Of committed entries that wait to be applied and were proposed elsewhere.
    waiting_bytes: usize,
    catch_up: CatchUp,
}

impl<S> std::fmt::Debug for Node<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("groups", &self.slots.len()).finish_non_exhaustive()
    }
}

impl<S: OrderedStore> Node<S> {
    /// A node over a recovered driver and store. The stamp of each group continues from its
    /// last applied one; with `step_clock` it may first step forward to wall time, which only a
    /// single node may do on its own authority.
    ///
    /// # Errors
    /// A sentence naming what could not be read from the store.
    pub fn new(
        driver: Driver,
        store: Arc<S>,
        groups: u16,
        now: Now,
        step_clock: bool,
    ) -> Result<Node<S>, String> {
        let mut slots = Vec::with_capacity(usize::from(groups));
        for group in (0..groups).map(GroupId) {
            let applied = store.applied(group);
            // What the store gives at a start is durable, its generation too.
            store.set_generation(group, applied.generation);
            let rows = BlockingRows::new(&*store, group, applied.generation);
            let stamp = tl_core::group::stamp_of(&rows)
                .map_err(|poison| format!("group {group}: {poison}"))?;
            let mut clock = StampClock::new(now.into(), stamp);
            if step_clock {
                clock.step(now.into());
            }
            slots.push(Slot {
                generation: applied.generation,
                named: applied.generation,
                applied: applied.index,
                clock,
                stamp,
                waiting: VecDeque::new(),
                beside: None,
                stopped: driver.is_doubted(group),
                reads: Vec::new(),
            });
        }
        let doubted = (0..groups).map(GroupId).filter(|group| driver.is_doubted(*group)).collect();
        let catch_up = CatchUp::new(driver.life(), now.boot_ms);
        let (feedback, log_bytes, waiting_bytes) = (Vec::new(), 0, 0);
        let level_spoken = LEVEL_SPOKEN;
        Ok(Node {
            driver,
            store,
            slots,
            level_spoken,
            feedback,
            doubted,
            log_bytes,
            waiting_bytes,
            catch_up,
        })
    }

    /// No stamp from here on is earlier: the cluster was founded then.
    pub fn not_before(&mut self, founded_at: UnixMs) {
        for slot in &mut self.slots {
            slot.stamp = slot.stamp.max(founded_at);
        }
    }

    /// The driver, for status pages and tests.
    #[must_use]
    pub fn driver(&self) -> &Driver {
        &self.driver
    }

    /// Number of groups.
    #[must_use]
    pub fn groups(&self) -> u16 {
        u16::try_from(self.slots.len()).expect("a node is made with a 16-bit number of groups")
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Arc<S> {
        &self.store
    }

    /// The generation of a group's rows here.
    #[must_use]
    pub fn generation(&self, group: GroupId) -> Generation {
        self.slots[usize::from(group.0)].generation
    }

    /// The last index applied here.
    #[must_use]
    pub fn applied(&self, group: GroupId) -> Index {
        self.slots[usize::from(group.0)].applied
    }

    /// Groups that are doubted since the start and that no turn has told of yet, and why they stopped.
    pub(crate) fn doubted(&self) -> impl Iterator<Item = (GroupId, String)> {
        self.doubted.iter().map(|group| (*group, DOUBTED.to_owned()))
    }

    /// Does everything that can be done now. `inbox` is emptied.
    pub fn turn(&mut self, now: Now, inbox: &mut Vec<Input>) -> Turned {
        let mut turned = Turned::default();
        turned.stopped.extend(self.doubted());
        self.doubted.clear();
        let mut inbound = std::mem::take(&mut self.feedback);
        for input in inbox.drain(..) {
            match input {
                Input::Propose { group, token, entry } => {
                    inbound.extend(self.stamped(now, group, token, entry, &mut turned.done));
                }
                Input::Read { group, token } => {
                    if self.slots[usize::from(group.0)].stopped {
                        turned.done.push(Done::Failed { token, failure: Failure::Stopped });
                    } else {
                        inbound.push(Inbound::ReadIndex { group, token });
                    }
                }
                Input::LogDone(job) => inbound.push(Inbound::LogDone { job }),
                Input::Frame { from, bytes } => inbound.push(Inbound::Frame { from, bytes }),
                Input::BesideDone(done) => self.beside_done(done, &mut turned),
                Input::Bulk { from, bytes } => self.hear(now, from, &bytes, &mut turned),
                Input::AsideDone(done) => self.aside_done(now, done, &mut turned),
                Input::Transfer { group, to } => inbound.push(Inbound::Transfer { group, to }),
                Input::ChangeMembers { group, token, change } => {
                    inbound.push(Inbound::ChangeMembers { group, change, token });
                }
                Input::Repair(group) => self.repair(group, &mut turned),
                Input::Unreachable(peer) => inbound.push(Inbound::Unreachable { peer }),
                Input::ClocksAgree(agreed) => {
                    // What the wall clock says meanwhile, nobody has agreed to.
                    let since_ms = now.boot_ms.saturating_sub(agreed.boot_ms);
                    let wall_ms = agreed.wall_ms.saturating_add(since_ms);
                    let reading = Now { boot_ms: now.boot_ms, wall_ms }.into();
                    self.slots.iter_mut().for_each(|slot| slot.clock.step(reading));
                }
                Input::Fetched(fetched) => {
                    inbound.push(fetched.into_inbound(&mut turned.troubles));
                }
                Input::LogBegins(begins) => self.driver.log_begins(&begins),
                Input::Flushed(indexes) => {
                    for (group, index) in indexes {
                        self.driver.compact(group, index);
                    }
                }
            }
        }

        self.move_transfers(now, &mut turned);
        inbound.append(&mut self.feedback);
        self.driver.set_waiting(self.waiting_bytes, self.is_store_full());
        let deeds = self.driver.turn(DriverNow { boot_ms: now.boot_ms }, inbound.drain(..));
        // Its room is used again.
        self.feedback = inbound;
        turned.done.reserve(deeds.apply.iter().map(|batch| batch.entries.len()).sum());
        turned.log = deeds.log;
        turned.frames = deeds.frames;
        turned.fetches = deeds.fetches;
        turned.roles = deeds.roles;
        turned.rejected.extend(deeds.rejected);
        turned.more = deeds.more;
        turned.appends_passed_over = deeds.appends_passed_over;
        turned.done.extend(deeds.outcomes.into_iter().map(failed));
        for installed in deeds.installed {
            self.install(now, installed, &mut turned);
        }
        for batch in deeds.apply {
            let slot = &mut self.slots[usize::from(batch.group.0)];
            self.waiting_bytes +=
                batch.entries.iter().map(Committed::followed_bytes).sum::<usize>();
            slot.waiting.extend(batch.entries);
            self.apply_waiting(batch.group, &mut turned);
        }
        for read in deeds.reads {
            let slot = &mut self.slots[usize::from(read.group.0)];
            if slot.stopped {
                // It was asked before the group stopped; its index may never be applied.
                let (token, failure) = (read.token, Failure::Stopped);
                turned.done.push(Done::Failed { token, failure });
                continue;
            }
            slot.reads.push((read.index, read.token));
            self.answer_reads(read.group, &mut turned);
        }

        for lacking in deeds.lacking {
            self.lacks(now, lacking, &mut turned);
        }
        turned.log_held = self.catch_up.log_held();
        // With as many sealed as there may be, the active memtable grows on for what is under way.
        if self.store.needs_rotation(self.log_bytes) && !self.store.is_full() && self.store.rotate()
        {
            self.log_bytes = 0;
            turned.sealed = true;
        }
        turned
    }

    /// Whether all memtables that there may be are full: the disk is behind, and more rows have no place.
    fn is_store_full(&self) -> bool {
        self.store.is_full() && self.store.needs_rotation(self.log_bytes)
    }

    /// Stamps a proposal with the group's clock, which never goes back.
    fn stamped(
        &mut self,
        now: Now,
        group: GroupId,
        token: Token,
        mut entry: Vec<u8>,
        done: &mut Vec<Done>,
    ) -> Option<Inbound> {
        let slot = &mut self.slots[usize::from(group.0)];
        if slot.stopped {
            done.push(Done::Failed { token, failure: Failure::Stopped });
            return None;
        }
        let stamp = slot.clock.stamp(now.into(), slot.stamp);
        tl_core::entry::set_stamp(&mut entry, stamp);
        Some(Inbound::Propose { group, token, data: entry.into() })
    }

    /// Applies what waits, until it ends, turns cold, or stops the group.
    fn apply_waiting(&mut self, group: GroupId, turned: &mut Turned) {
        loop {
            let slot = &mut self.slots[usize::from(group.0)];
            if slot.beside.is_some() {
                return;
            }
            let Some(entry) = slot.waiting.pop_front() else { break };
            self.waiting_bytes -= entry.followed_bytes();
            if slot.stopped {
                let (index, failure) = (entry.index, Failure::Unknown);
                turned.done.extend(entry.token.map(|token| Done::Failed { token, failure }));
                self.feedback.push(Inbound::Applied { group, index });
                continue;
            }
            assert!(entry.index > slot.applied, "entries of a group are applied in order");
            self.log_bytes += entry.data.len() + LOG_ENTRY_OVERHEAD;
            let spoken = self.level_spoken;
            let outcome = self.store.hold(group, slot.generation, |held| {
                tl_core::apply_up_to(spoken, &HeldRows(held), entry.index, entry.data.clone())
            });
            let place = (entry.index, entry.term, entry.token);
            match outcome {
                Ok(outcome) if outcome.poison == Some(Poison::Cold) => {
                    slot.beside = Some(place);
                    turned.beside.push(Beside {
                        group,
                        generation: slot.generation,
                        index: entry.index,
                        entry: entry.data,
                        level_spoken: spoken,
                    });
                }
                Ok(outcome) => self.take(group, place, Ok(outcome), turned),
                Err(stop) => self.take(group, place, Err(crate::chain(&stop)), turned),
            }
        }
        self.answer_reads(group, turned);
    }

    fn beside_done(&mut self, done: BesideDone, turned: &mut Turned) {
        let slot = &mut self.slots[usize::from(done.group.0)];
        if done.generation != slot.generation {
            // The group goes on from other rows, which the entry is in.
            return;
        }
        let place = slot.beside.take().expect("a group has one entry beside at a time");
        self.take(done.group, place, done.outcome, turned);
        self.apply_waiting(done.group, turned);
    }

    /// Takes over the outcome of one entry: rows and applied index in one step, then answers.
    fn take(
        &mut self,
        group: GroupId,
        (index, term, token): (Index, Term, Option<Token>),
        outcome: Result<Outcome, String>,
        turned: &mut Turned,
    ) {
        let slot = &mut self.slots[usize::from(group.0)];
        let outcome = match outcome {
            Ok(Outcome { poison: None, replies, effects, writes, stamp, .. }) => {
                slot.stamp = slot.stamp.max(stamp);
                (replies, effects, writes)
            }
            Ok(Outcome { poison: Some(poison), .. }) => {
                return self.stop_at(group, (index, token), poison.to_string(), turned);
            }
            Err(stop) => return self.stop_at(group, (index, token), stop, turned),
        };
        let (replies, effects, rows) = outcome;
        let generation = slot.generation;
        let floors = floors_of(&replies, &rows);
        self.store.write(GroupWrites { group, generation, index, term, rows });
        for (number, floor) in floors {
            self.store.set_floor(group, generation, number, floor);
        }
        slot.applied = index;
        self.feedback.push(Inbound::Applied { group, index });
        turned.applied += 1;
        if token.is_some() || !effects.is_empty() {
            turned.done.push(Done::Applied { group, token, index, replies, effects });
        }
    }

    /// An entry cannot be applied here. Neither it nor those behind it ever are, so that nobody
    /// here needs them in memory: they count as applied to the driver, and go.
    fn stop_at(
        &mut self,
        group: GroupId,
        (index, token): (Index, Option<Token>),
        why: String,
        turned: &mut Turned,
    ) {
        turned.done.extend(token.map(|token| Done::Failed { token, failure: Failure::Unknown }));
        self.feedback.push(Inbound::Applied { group, index });
        self.stop(group, why, turned);
    }

    fn stop(&mut self, group: GroupId, why: String, turned: &mut Turned) {
        let slot = &mut self.slots[usize::from(group.0)];
        slot.stopped = true;
        self.feedback.push(Inbound::Damaged { group });
        let reads = std::mem::take(&mut slot.reads);
        let failure = Failure::Stopped;
        turned.done.extend(reads.into_iter().map(|(_, token)| Done::Failed { token, failure }));
        turned.stopped.push((group, why));
    }

    /// Stops a group as damage would, unless rows are given to it already.
    fn repair(&mut self, group: GroupId, turned: &mut Turned) {
        let is_stopped = self.slots[usize::from(group.0)].stopped;
        if !is_stopped && !self.driver.is_installing(group) {
            self.stop(group, "an operator has its rows given anew".to_owned(), turned);
        }
    }

    fn answer_reads(&mut self, group: GroupId, turned: &mut Turned) {
        let slot = &mut self.slots[usize::from(group.0)];
        let applied = slot.applied;
        slot.reads.retain(|&(index, token)| {
            let ready = index <= applied;
            if ready {
                turned.done.push(Done::Read { token, index: applied });
            }
            !ready
        });
    }
}

/// Floors that an entry may have moved: commands that trim are answered with [`Reply::Done`], so
/// appends do not pay for this. A header that cannot be read is for the rules to find.
fn floors_of(replies: &[Reply], rows: &WriteSet) -> Vec<(ResourceNumber, Seq)> {
    if !replies.contains(&Reply::Done) {
        return Vec::new();
    }
    let headers = rows.iter().filter(|(key, _)| key.table() == Table::Session);
    headers.filter_map(|(key, row)| Some((key.number(), floor_of(row.clone()?)?))).collect()
}

/// The floor in a session's header; `None` when nothing was trimmed.
pub(crate) fn floor_of(header: bytes::Bytes) -> Option<Seq> {
    let floor = SessionHeader::decode(header).ok()?.floor_seq;
    (floor > Seq(0)).then_some(floor)
}

fn failed(outcome: DriverOutcome) -> Done {
    let (token, failure) = match outcome {
        DriverOutcome::NotLeader { token, leader } => (token, Failure::NotLeader(leader)),
        DriverOutcome::Busy { token } => (token, Failure::Busy),
        DriverOutcome::Lost { token } => (token, Failure::Lost),
        DriverOutcome::Unknown { token } => (token, Failure::Unknown),
        DriverOutcome::ChangeRefused { token, reason } => (token, Failure::ChangeRefused(reason)),
        DriverOutcome::ReadFailed { token, leader } => (token, Failure::NotLeader(leader)),
    };
    Done::Failed { token, failure }
}

#[cfg(test)]
mod tests;
