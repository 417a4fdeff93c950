//! The taker's side: a replica that is too far behind for the log.

use bytes::Bytes;
use tl_core::memory::MemoryRows;
use tl_raft::{Inbound, PeerId, Staged};
use tl_store::OrderedStore;
use tl_types::keys::GroupField;
use tl_types::{Generation, GroupId, Index, RowKey, Term, UnixMs};

use super::alike::{Compare, Compared};
use super::aside::{Aside, Names, Work};
use super::give::Wanted;
use super::message::{Fingerprint, Sum, What, rows_of};
use super::sources::{Sources, further};
use super::taking::{Looked, Stage, Taking};
use super::{AGAIN_MS, PATIENCE_MS};
use crate::node::{Node, Now, Turned};

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
            let is_full = self.store.is_full();
            let taking = &mut self.catch_up.taking[at];
            taking.heard_ms = now.boot_ms;
            let what = match taking.stage {
                Stage::Naming => return,
                Stage::Loading if taking.looked == Looked::UnderWay => taking.same_question(),
                // No further chunk: it would have no place.
                Stage::Loading if is_full && taking.next > 0 => {
                    What::Ask { chunk: taking.next - 1 }
                }
                Stage::Loading => {
                    taking.is_ask_due = false;
                    taking.said_ms = now.boot_ms;
                    taking.next_question()
                }
                Stage::Flushing { .. } => What::Ask { chunk: taking.next },
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
            self.let_go(at, now);
        }
        let is_full = self.catch_up.taking.len() >= self.catch_up.limits.at_once;
        let is_full = is_full || self.is_full_of_former(group);
        // Rows that it could not go on from would be loaded again and again.
        let is_early = self.driver.lacks_answers(group);
        if is_full || is_early || is_installing || chunk != 0 || self.is_overtaken(group, index) {
            return self.say(from, of, What::Gone, turned);
        }
        let taking = Taking::new(now.boot_ms, from, of, (index, term));
        self.catch_up.taking.push(taking);
        let live = self.slots[usize::from(group.0)].generation;
        turned.asides.push(Aside { group, transfer, work: Work::Name { live } });
    }

    fn taking_of(&self, (group, transfer): (GroupId, u64)) -> Option<usize> {
        let is_it = |taking: &Taking| (taking.group, taking.transfer) == (group, transfer);
        self.catch_up.taking.iter().position(is_it)
    }

    /// A generation is known above which there are no rows of the group.
    pub(super) fn named(
        &mut self,
        now: Now,
        of: (GroupId, u64),
        named: Result<Names, String>,
        turned: &mut Turned,
    ) {
        let Some(at) = self.taking_of(of) else { return };
        let group = of.0;
        let Names { newest, mut of_use } = match named {
            Ok(names) => names,
            Err(why) => {
                turned.troubles.push((group, why));
                return self.let_go(at, now);
            }
        };
        let slot = &mut self.slots[usize::from(group.0)];
        let live = slot.generation;
        if slot.named > live {
            // What this process has loaded, it knows itself; others go.
            of_use.retain(|(of, _)| *of == live);
        }
        let cut_off = self.catch_up.cut_offs.take(group);
        // Rows of an earlier attempt may not be in the store yet.
        let generation = Generation(newest.max(slot.named).max(slot.generation).0 + 1);
        slot.named = generation;
        let taking = &mut self.catch_up.taking[at];
        taking.generation = generation;
        taking.sources = Sources::pick(live, of_use, cut_off);
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
        let is_looking = taking.looked == Looked::UnderWay;
        if (taking.is_ask_due || is_late) && !is_full && !is_looking {
            if !taking.is_ask_due && taking.asked == Some(Wanted::Fingerprint) {
                taking.sources.not_answered();
            }
            taking.is_ask_due = false;
            taking.said_ms = now.boot_ms;
            let (from, of) = (taking.from, (taking.group, taking.transfer));
            let what = taking.next_question();
            self.say(from, of, what, turned);
        }
    }

    /// The transfer that a giver speaks of. It is told if there is none.
    fn heard(
        &mut self,
        now: Now,
        from: PeerId,
        of: (GroupId, u64),
        turned: &mut Turned,
    ) -> Option<usize> {
        let at = self.taking_at(from, of);
        match at {
            Some(at) => self.catch_up.taking[at].heard_ms = now.boot_ms,
            None => self.say(from, of, What::Gone, turned),
        }
        at
    }

    /// The giver says what is in a chunk.
    pub(super) fn printed(
        &mut self,
        now: Now,
        from: PeerId,
        of: (GroupId, u64),
        (chunk, print, last): (u64, Fingerprint, Option<Sum>),
        turned: &mut Turned,
    ) {
        let Some(at) = self.heard(now, from, of, turned) else { return };
        let taking = &mut self.catch_up.taking[at];
        taking.sources.answered();
        if !taking.waits_for(chunk) || taking.looked != Looked::NotYet {
            return;
        }
        taking.looked = Looked::UnderWay;
        let after = taking.last_key.clone();
        let among = taking.sources.behind(after.as_ref());
        let work = Work::Compare(Compare { chunk, after, print, last, among });
        turned.asides.push(Aside { group: of.0, transfer: of.1, work });
    }

    /// A chunk was looked for in what is here.
    pub(super) fn compared(
        &mut self,
        now: Now,
        of: (GroupId, u64),
        Compared { chunk, last, same }: Compared,
        turned: &mut Turned,
    ) {
        let Some(at) = self.taking_of(of) else { return };
        let taking = &mut self.catch_up.taking[at];
        if !taking.waits_for(chunk) || taking.looked != Looked::UnderWay {
            return;
        }
        // This node was busy meanwhile, the giver was not silent.
        taking.heard_ms = now.boot_ms;
        let Some((found_in, rows)) = same else {
            taking.looked = Looked::InVain;
            taking.is_ask_due = true;
            return self.ask(at, now, turned);
        };
        // It may have been let go meanwhile.
        let is_resumed = found_in > self.slots[usize::from(of.0.0)].generation;
        let counts = &mut self.catch_up.counts;
        let counted = if is_resumed { &mut counts.bytes_resumed } else { &mut counts.bytes_alike };
        *counted += rows.len() as u64;
        self.take_chunk(at, now, (rows, last), turned);
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
        let Some(at) = self.heard(now, from, of, turned) else { return };
        if self.catch_up.taking[at].waits_for(chunk) {
            self.take_chunk(at, now, (rows, last), turned);
        }
    }

    /// Loads the next chunk, and asks for the one behind it.
    fn take_chunk(
        &mut self,
        at: usize,
        now: Now,
        (rows, last): (Bytes, Option<Sum>),
        turned: &mut Turned,
    ) {
        if let Err(reason) = self.load(at, rows, last) {
            let taking = &mut self.catch_up.taking[at];
            let (from, of) = (taking.from, (taking.group, taking.transfer));
            // Nothing of it is copied again.
            (taking.last_key, taking.sources) = (None, Sources::default());
            self.refuse(from, Some(of.0), reason, turned);
            self.let_go(at, now);
            return self.say(from, of, What::Gone, turned);
        }
        let taking = &mut self.catch_up.taking[at];
        taking.next += 1;
        taking.asked = None;
        taking.looked = Looked::NotYet;
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
                self.let_go(at, now);
            }
        }
    }

    /// False when the transfer is to be let go.
    fn move_one_taking(&mut self, at: usize, now: Now, turned: &mut Turned) -> bool {
        let (is_full, flushes) = (self.store.is_full(), self.store.flushes());
        let taking = &mut self.catch_up.taking[at];
        taking.look_whether_stuck(now.boot_ms, is_full, flushes);
        if taking.has_no_room(now.boot_ms) {
            self.make_room(at);
        }
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

    /// Keeps nothing that is only there to be copied from, of whichever group: what this transfer
    /// still lacks of it travels, and compaction may give its room to what is loaded.
    fn make_room(&mut self, at: usize) {
        self.catch_up.cut_offs.let_all_go();
        let taking = &mut self.catch_up.taking[at];
        if taking.sources.cut_off.take().is_some() {
            let group = taking.group;
            self.keep_rows(group);
        }
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

    pub(super) fn giver_is_gone(&mut self, now: Now, from: PeerId, transfer: u64) {
        let all = &self.catch_up.taking;
        let is_it = |taking: &Taking| (taking.from, taking.transfer) == (from, transfer);
        if let Some(at) = all.iter().position(is_it)
            && !self.driver.is_installing(all[at].group)
        {
            self.let_go(at, now);
        }
    }

    /// The next attempt has another generation, and copies from this one what is still right.
    /// Where there is no room, nothing is kept for it.
    fn let_go(&mut self, at: usize, now: Now) {
        let mut taking = self.catch_up.taking.swap_remove(at);
        taking.look_whether_stuck(now.boot_ms, self.store.is_full(), self.store.flushes());
        self.catch_up.counts.let_go += 1;
        if taking.stage != Stage::Naming {
            let has_no_room = taking.has_no_room(now.boot_ms);
            let loaded = taking.last_key.map(|upto| (taking.generation, upto));
            let of_use = further(taking.sources.cut_off, loaded).filter(|_| !has_no_room);
            if let Some(extent) = of_use
                && let Some(oldest) = self.catch_up.cut_offs.keep(taking.group, extent, now.boot_ms)
            {
                self.keep_rows(oldest);
            }
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
