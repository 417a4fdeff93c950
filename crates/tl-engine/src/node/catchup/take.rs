//! The taker's side: a replica that is too far behind for the log.

use bytes::Bytes;
use crc32fast::Hasher;
use tl_core::memory::MemoryRows;
use tl_raft::{Inbound, PeerId, Staged};
use tl_store::OrderedStore;
use tl_types::keys::GroupField;
use tl_types::{Generation, GroupId, Index, RowKey, Term, UnixMs};

use super::aside::{Aside, Work};
use super::message::{Sum, What, rows_of};
use super::{AGAIN_MS, CatchUpOpen, PATIENCE_MS};
use crate::node::{Node, Now, Turned};

/// Rows on their way in.
#[derive(Debug)]
pub(super) struct Taking {
    pub(super) group: GroupId,
    from: PeerId,
    transfer: u64,
    /// The last entry in the rows.
    index: Index,
    term: Term,
    stage: Stage,
    /// The generation that they are loaded under, once it has a name.
    generation: Generation,
    /// The next chunk.
    next: u64,
    rows: u64,
    crc: Hasher,
    /// The last row taken; the next is behind it.
    last_key: Option<RowKey>,
    /// The stamp of the entry that wrote last, as the rows say.
    stamp: UnixMs,
    /// The next chunk is to be asked for when the store has room.
    is_ask_due: bool,
    heard_ms: u64,
    said_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Waits for a generation.
    Naming,
    /// Asks for chunks.
    Loading,
    /// Waits until the store has made so many memtables durable.
    Flushing { until: u64 },
    /// Raft may go on from them.
    Ready,
}

impl Taking {
    /// The generation that rows are loaded under, if they are.
    pub(super) fn generation(&self) -> Option<Generation> {
        (self.stage != Stage::Naming).then_some(self.generation)
    }

    pub(super) fn count(&self, open: &mut CatchUpOpen) {
        let counted = match self.stage {
            Stage::Naming | Stage::Loading => &mut open.loading,
            Stage::Flushing { .. } => &mut open.flushing,
            Stage::Ready => &mut open.installing,
        };
        *counted += 1;
    }
}

impl<S: OrderedStore> Node<S> {
    fn taking_at(&self, from: PeerId, (group, transfer): (GroupId, u64)) -> Option<usize> {
        self.catch_up.taking.iter().position(|taking| {
            (taking.from, taking.group, taking.transfer) == (from, group, transfer)
        })
    }

    /// A giver has rows for this node.
    pub(super) fn offered(
        &mut self,
        now: Now,
        from: PeerId,
        of: (GroupId, u64),
        (index, term): (Index, Term),
        chunk: u64,
        turned: &mut Turned,
    ) {
        let (group, transfer) = of;
        if let Some(at) = self.taking_at(from, of) {
            let taking = &mut self.catch_up.taking[at];
            taking.heard_ms = now.boot_ms;
            let what = match taking.stage {
                Stage::Naming => return,
                Stage::Loading | Stage::Flushing { .. } => What::Ask { chunk: taking.next },
                Stage::Ready => What::Ready,
            };
            return self.say(from, of, what, turned);
        }
        let is_installing = self.driver.is_installing(group);
        let is_damaged = self.slots[usize::from(group.0)].stopped;
        if !is_damaged && !is_installing && self.is_overtaken(group, index) {
            // All of it is here, only the giver has not heard: perhaps the word was lost with a
            // crash. Once Raft asks, it is told so.
            return self.say(from, of, What::Ready, turned);
        }
        if let Some(at) = self.catch_up.taking.iter().position(|taking| taking.group == group) {
            let taking = &self.catch_up.taking[at];
            // A giver that offers anew has let the former transfer go. Another one takes over
            // when nothing is heard of the first.
            let is_silent = now.boot_ms.saturating_sub(taking.heard_ms) >= 2 * AGAIN_MS;
            if is_installing || !(taking.from == from || is_silent) {
                return self.say(from, of, What::Gone, turned);
            }
            self.let_go(at);
        }
        let is_full = self.catch_up.taking.len() >= self.catch_up.limits.at_once;
        let is_full = is_full || self.is_full_of_former(group);
        if is_full || is_installing || chunk != 0 || self.is_overtaken(group, index) {
            return self.say(from, of, What::Gone, turned);
        }
        self.catch_up.taking.push(Taking {
            group,
            from,
            transfer,
            index,
            term,
            stage: Stage::Naming,
            generation: Generation(0),
            next: 0,
            rows: 0,
            crc: Hasher::new(),
            last_key: None,
            stamp: UnixMs(0),
            is_ask_due: false,
            heard_ms: now.boot_ms,
            said_ms: now.boot_ms,
        });
        turned.asides.push(Aside { group, transfer, work: Work::Name });
    }

    /// A generation is known above which there are no rows of the group.
    pub(super) fn named(
        &mut self,
        now: Now,
        (group, transfer): (GroupId, u64),
        named: Result<Generation, String>,
        turned: &mut Turned,
    ) {
        let all = &self.catch_up.taking;
        let is_it = |taking: &Taking| (taking.group, taking.transfer) == (group, transfer);
        let Some(at) = all.iter().position(is_it) else { return };
        let newest = match named {
            Ok(newest) => newest,
            Err(why) => {
                turned.troubles.push((group, why));
                return self.let_go(at);
            }
        };
        let slot = &mut self.slots[usize::from(group.0)];
        // Rows of an earlier attempt may not be in the store yet.
        let generation = Generation(newest.max(slot.named).max(slot.generation).0 + 1);
        slot.named = generation;
        let taking = &mut self.catch_up.taking[at];
        taking.generation = generation;
        taking.stage = Stage::Loading;
        taking.is_ask_due = true;
        taking.heard_ms = now.boot_ms;
        self.keep_rows(group);
        self.ask(at, now, turned);
    }

    /// Asks for the next chunk if it is time to. A store that is full is given time.
    fn ask(&mut self, at: usize, now: Now, turned: &mut Turned) {
        let is_full = self.store.is_full();
        let taking = &mut self.catch_up.taking[at];
        let is_late = now.boot_ms.saturating_sub(taking.said_ms) >= AGAIN_MS;
        if (taking.is_ask_due || is_late) && !is_full {
            taking.is_ask_due = false;
            taking.said_ms = now.boot_ms;
            let (from, of) = (taking.from, (taking.group, taking.transfer));
            let chunk = taking.next;
            self.say(from, of, What::Ask { chunk }, turned);
        }
    }

    /// A chunk has come.
    pub(super) fn took(
        &mut self,
        now: Now,
        from: PeerId,
        of: (GroupId, u64),
        (chunk, rows, last): (u64, Bytes, Option<Sum>),
        turned: &mut Turned,
    ) {
        let Some(at) = self.taking_at(from, of) else {
            return self.say(from, of, What::Gone, turned);
        };
        let taking = &mut self.catch_up.taking[at];
        taking.heard_ms = now.boot_ms;
        if taking.stage != Stage::Loading || taking.next != chunk {
            return;
        }
        if let Err(reason) = self.load(at, rows, last) {
            self.refuse(from, Some(of.0), reason, turned);
            self.let_go(at);
            return self.say(from, of, What::Gone, turned);
        }
        let taking = &mut self.catch_up.taking[at];
        taking.next += 1;
        taking.is_ask_due = true;
        if last.is_none() {
            return self.ask(at, now, turned);
        }
        if self.store.rotate() {
            self.log_bytes = 0;
            turned.sealed = true;
        }
        let until = self.store.flush_mark();
        self.catch_up.taking[at].stage = Stage::Flushing { until };
    }

    /// Takes the rows of a chunk, if they are what they should be.
    fn load(&mut self, at: usize, chunk: Bytes, last: Option<Sum>) -> Result<(), &'static str> {
        let taking = &mut self.catch_up.taking[at];
        taking.crc.update(&chunk);
        let rows = rows_of(chunk, taking.last_key.as_ref())?;
        taking.rows += rows.len() as u64;
        if let Some(sum) = last
            && sum != (Sum { rows: taking.rows, crc: taking.crc.clone().finalize() })
        {
            return Err("rows of a transfer are not what they were together");
        }
        let clock = RowKey::group(GroupField::Last);
        if let Some(row) = rows.iter().find(|(key, _)| *key == clock) {
            let mut alone = MemoryRows::default();
            alone.write(vec![(row.0.clone(), Some(row.1.clone()))]);
            let stamp = tl_core::group::stamp_of(&alone);
            taking.stamp = stamp.map_err(|_| "rows of a transfer have no stamp")?;
        }
        taking.last_key = rows.last().map(|(key, _)| key.clone()).or(taking.last_key.take());
        self.catch_up.counts.rows_taken += rows.len() as u64;
        let rows = rows.into_iter().map(|(key, value)| (key, Some(value))).collect();
        self.store.load(taking.group, taking.generation, rows);
        Ok(())
    }

    pub(super) fn move_taking(&mut self, now: Now, turned: &mut Turned) {
        let mut at = 0;
        while at < self.catch_up.taking.len() {
            if self.move_one_taking(at, now, turned) {
                at += 1;
            } else {
                self.let_go(at);
            }
        }
    }

    /// False when the transfer is to be let go.
    fn move_one_taking(&mut self, at: usize, now: Now, turned: &mut Turned) -> bool {
        let taking = &self.catch_up.taking[at];
        let group = taking.group;
        if self.driver.is_installing(group) {
            return true;
        }
        let is_overtaken = self.is_overtaken(group, taking.index);
        let is_silent = now.boot_ms.saturating_sub(taking.heard_ms) >= PATIENCE_MS;
        if is_overtaken || is_silent {
            return false;
        }
        match taking.stage {
            Stage::Naming => {}
            Stage::Loading => self.ask(at, now, turned),
            Stage::Flushing { until } if self.store.flushes() >= until => {
                let rows = Staged {
                    index: taking.index,
                    term: taking.term,
                    generation: taking.generation,
                };
                self.feedback.push(Inbound::Staged { group, rows });
                self.say_ready(at, now, turned);
            }
            Stage::Flushing { .. } => {}
            Stage::Ready => {
                if now.boot_ms.saturating_sub(taking.said_ms) >= AGAIN_MS {
                    self.say_ready(at, now, turned);
                }
            }
        }
        true
    }

    /// Entries came all the same, perhaps from another leader. Of a group whose rows are damaged
    /// the entries are here, and rows up to the last of them are what is needed.
    fn is_overtaken(&self, group: GroupId, index: Index) -> bool {
        let committed = self.committed(group);
        let is_damaged = self.slots[usize::from(group.0)].stopped;
        committed > index || (committed == index && !is_damaged)
    }

    fn say_ready(&mut self, at: usize, now: Now, turned: &mut Turned) {
        let taking = &mut self.catch_up.taking[at];
        taking.stage = Stage::Ready;
        taking.said_ms = now.boot_ms;
        let (from, of) = (taking.from, (taking.group, taking.transfer));
        self.say(from, of, What::Ready, turned);
    }

    pub(super) fn giver_is_gone(&mut self, from: PeerId, transfer: u64) {
        let all = &self.catch_up.taking;
        let is_it = |taking: &Taking| (taking.from, taking.transfer) == (from, transfer);
        if let Some(at) = all.iter().position(is_it)
            && !self.driver.is_installing(all[at].group)
        {
            self.let_go(at);
        }
    }

    /// Rows that are not gone on from are no use: the next attempt has another generation.
    fn let_go(&mut self, at: usize) {
        let taking = self.catch_up.taking.swap_remove(at);
        self.catch_up.counts.let_go += 1;
        if taking.stage != Stage::Naming {
            self.keep_rows(taking.group);
        }
        if taking.stage == Stage::Ready {
            self.feedback.push(Inbound::Unstaged { group: taking.group });
        }
    }

    /// The rows are the group's now; returns the stamp of what wrote them last.
    pub(super) fn end_taking(&mut self, group: GroupId, turned: &mut Turned) -> UnixMs {
        let taking = &mut self.catch_up.taking;
        let at = taking.iter().position(|taking| taking.group == group);
        let at = at.expect("rows are kept track of until they are gone on from");
        let taking = taking.swap_remove(at);
        self.say(taking.from, (group, taking.transfer), What::Done, turned);
        taking.stamp
    }
}
