//! The giver's side: a leader whose follower needs what is no longer in memory.

use bytes::Bytes;
use tl_raft::{Inbound, Lacking, PeerId};
use tl_store::{Applied, OrderedStore};
use tl_types::{GroupId, Index, Term};

use super::aside::{Aside, Piece, Stream, Work};
use super::message::{Message, What};
use super::{
    AGAIN_MS, BURST_MS, CatchUpOpen, INSTALL_WITHIN_MS, PATIENCE_MS, PRINT_COST_DIVISOR, STALLED_MS,
};
use crate::node::{Node, Now, Turned};

/// Rows on their way to one follower.
#[derive(Debug)]
pub(super) struct Giving {
    group: GroupId,
    to: PeerId,
    transfer: u64,
    /// The term in which the group is led here.
    term: Term,
    stage: Stage,
    /// The last entry in the rows; zeros until they are open.
    rows: (Index, Term),
    /// The rows that are left, unless somebody is reading them.
    stream: Option<Stream>,
    /// The chunk that was read last.
    kept: Option<Kept>,
    /// What of it waits to be sent.
    due: Option<Wanted>,
    /// What the taker asked for while the chunk is read.
    wanted: Wanted,
    /// The follower's rows are damaged, and it has entries up to here; 0 if entries are what it
    /// needs.
    damaged_at: Index,
    /// The most that the follower has confirmed.
    matched: Index,
    /// The taker has asked for a chunk.
    is_taken: bool,
    heard_ms: u64,
    offered_ms: u64,
    /// When it last got on by a chunk.
    moved_ms: u64,
}

/// A chunk, as it is sent and sent again.
#[derive(Debug)]
struct Kept {
    chunk: u64,
    rows: Bytes,
    /// What says what is in it, if that was asked for.
    print: Option<Bytes>,
}

/// What a taker asks for of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Rows,
    /// It may have the rows.
    Fingerprint,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Waits until the store has made so many memtables durable.
    Flushing { until: u64 },
    /// Waits until the rows are open.
    Opening,
    /// Gives what it is asked for.
    Sending,
    /// The follower has everything; Raft tells it to go on from there.
    Installing { since_ms: u64 },
    /// It did, and is given entries up to this one before they may leave memory.
    Following { until: Index },
}

impl Giving {
    /// Whether entries are what the follower needs.
    fn is_lagging(&self) -> bool {
        self.damaged_at == Index(0)
    }

    /// Once all are given there is no next one, and nobody can begin with it.
    fn next_chunk(&self) -> u64 {
        match self.stage {
            Stage::Installing { .. } | Stage::Following { .. } => u64::MAX,
            Stage::Flushing { .. } | Stage::Opening | Stage::Sending => {
                self.kept.as_ref().map_or(0, |kept| kept.chunk + 1)
            }
        }
    }

    /// The group, and the last entry in its rows once they are open.
    pub(super) fn holds(&self) -> Option<(GroupId, Index)> {
        (self.rows.0 > Index(0)).then_some((self.group, self.rows.0))
    }

    pub(super) fn count(&self, open: &mut CatchUpOpen) {
        let counted = match self.stage {
            Stage::Flushing { .. } | Stage::Opening => &mut open.preparing,
            Stage::Sending => &mut open.sending,
            Stage::Installing { .. } => &mut open.finishing,
            Stage::Following { .. } => &mut open.following,
        };
        *counted += 1;
    }

    fn aside(&self, work: Work) -> Aside {
        Aside { group: self.group, transfer: self.transfer, work }
    }
}

impl<S: OrderedStore> Node<S> {
    /// A follower needs rows. Raft says so again and again.
    pub(in crate::node) fn lacks(&mut self, now: Now, lacking: Lacking, turned: &mut Turned) {
        let Lacking { group, peer: to, damaged_at } = lacking;
        let catch_up = &self.catch_up;
        let is_given =
            catch_up.giving.iter().any(|giving| (giving.group, giving.to) == (group, to));
        let is_early = catch_up.rests.is_early(group, to, now.boot_ms);
        let is_full = catch_up.giving.len() >= catch_up.limits.at_once;
        let slot = &self.slots[usize::from(group.0)];
        if is_given || is_early || is_full || slot.stopped {
            return;
        }
        let Some(status) = self.driver.status(group) else { return };
        let durable = self.store.durable_applied().into_iter().find(|(of, _)| *of == group);
        let durable = durable.map_or(Index(0), |(_, applied)| applied.index);
        self.catch_up.next_transfer = self.catch_up.next_transfer.wrapping_add(1);
        let mut giving = Giving {
            group,
            to,
            transfer: self.catch_up.next_transfer,
            term: status.term,
            stage: Stage::Opening,
            rows: (Index(0), Term(0)),
            stream: None,
            kept: None,
            due: None,
            wanted: Wanted::Rows,
            damaged_at,
            matched: Index(0),
            is_taken: false,
            heard_ms: now.boot_ms,
            offered_ms: now.boot_ms,
            moved_ms: now.boot_ms,
        };
        // The entries behind the rows must be here still, or the follower would lack them next.
        let can_follow = self.driver.can_send(group, Index(durable.0 + 1));
        if can_follow && durable >= damaged_at {
            turned.asides.push(giving.aside(Work::Open));
        } else {
            if self.store.rotate() {
                self.log_bytes = 0;
                turned.sealed = true;
            }
            giving.stage = Stage::Flushing { until: self.store.flush_mark() };
        }
        self.catch_up.giving.push(giving);
        self.feedback.push(Inbound::Giving { group, to, rows: None });
    }

    pub(super) fn move_giving(&mut self, now: Now, turned: &mut Turned) {
        let mut all = std::mem::take(&mut self.catch_up.giving);
        all.retain_mut(|giving| {
            let goes_on = self.move_one_giving(giving, now, turned);
            if !goes_on {
                self.feedback.push(Inbound::Given { group: giving.group, to: giving.to });
            }
            goes_on
        });
        self.catch_up.giving = all;
    }

    /// False when the transfer is over.
    fn move_one_giving(&mut self, giving: &mut Giving, now: Now, turned: &mut Turned) -> bool {
        let status = self.driver.status(giving.group).filter(|status| status.term == giving.term);
        let matched = self.driver.matched(giving.group, giving.to);
        let (Some(status), Some(matched)) = (status, matched) else {
            self.catch_up.counts.given_up += 1;
            return false;
        };
        if matched > giving.matched {
            giving.matched = matched;
            giving.heard_ms = now.boot_ms;
        }
        let is_silent = now.boot_ms.saturating_sub(giving.heard_ms) >= PATIENCE_MS;
        let is_slow = match giving.stage {
            Stage::Sending => now.boot_ms.saturating_sub(giving.moved_ms) >= STALLED_MS,
            Stage::Installing { since_ms } => {
                now.boot_ms.saturating_sub(since_ms) >= INSTALL_WITHIN_MS
            }
            Stage::Flushing { .. } | Stage::Opening | Stage::Following { .. } => false,
        };
        if is_silent || is_slow {
            self.give_up(giving, now);
            return false;
        }
        match giving.stage {
            Stage::Flushing { until } => {
                if self.store.flushes() >= until {
                    giving.stage = Stage::Opening;
                    turned.asides.push(giving.aside(Work::Open));
                }
            }
            Stage::Opening => {}
            Stage::Sending | Stage::Installing { .. }
                if giving.is_lagging() && matched >= giving.rows.0 =>
            {
                self.follow(giving, status.last);
            }
            Stage::Sending | Stage::Installing { .. } => {
                self.send_due(giving, now, turned);
                let said_ms = giving.heard_ms.max(giving.offered_ms);
                if now.boot_ms.saturating_sub(said_ms) >= AGAIN_MS {
                    // A taker that has started anew says that it does not know the transfer.
                    self.offer(giving, now, turned);
                }
            }
            Stage::Following { until } => {
                if matched >= until {
                    self.catch_up.counts.given += 1;
                    self.catch_up.rests.given(giving.group, giving.to);
                    return false;
                }
            }
        }
        true
    }

    /// The follower goes on from the rows: what is new since they were made comes by entries.
    fn follow(&mut self, giving: &mut Giving, until: Index) {
        giving.stage = Stage::Following { until };
        (giving.stream, giving.kept) = (None, None);
        let (group, to) = (giving.group, giving.to);
        self.feedback.push(Inbound::Giving { group, to, rows: None });
    }

    /// The taker says that it does.
    pub(super) fn taker_is_done(&mut self, from: PeerId, transfer: u64) {
        let Some(mut giving) = self.giving_to(from, transfer) else { return };
        if matches!(giving.stage, Stage::Installing { .. })
            && let Some(status) = self.driver.status(giving.group)
        {
            self.follow(&mut giving, status.last);
        }
        self.catch_up.giving.push(giving);
    }

    fn offer(&self, giving: &mut Giving, now: Now, turned: &mut Turned) {
        let (index, term) = giving.rows;
        let what = What::Offer { index, term, chunk: giving.next_chunk() };
        self.say(giving.to, (giving.group, giving.transfer), what, turned);
        giving.offered_ms = now.boot_ms;
    }

    /// Sends what is due of the chunk, unless it is too early for it.
    fn send_due(&mut self, giving: &mut Giving, now: Now, turned: &mut Turned) {
        let catch_up = &mut self.catch_up;
        let (Some(kept), Some(due)) = (&giving.kept, giving.due) else { return };
        if now.boot_ms + BURST_MS < catch_up.may_send_at_ms {
            return;
        }
        giving.due = None;
        let (bytes, cost) = match (due, &kept.print) {
            (Wanted::Fingerprint, Some(print)) => (print, kept.rows.len() / PRINT_COST_DIVISOR),
            (Wanted::Fingerprint, None) | (Wanted::Rows, _) => (&kept.rows, kept.rows.len()),
        };
        let takes_ms = cost as u64 * 1_000 / catch_up.limits.bytes_per_s.max(1);
        catch_up.may_send_at_ms = catch_up.may_send_at_ms.max(now.boot_ms) + takes_ms;
        catch_up.counts.bytes_given += bytes.len() as u64;
        turned.bulk.push((giving.to, bytes.clone()));
    }

    fn give_up(&mut self, giving: &Giving, now: Now) {
        self.catch_up.counts.given_up += 1;
        self.catch_up.rests.failed(giving.group, giving.to, now.boot_ms);
    }

    /// Takes a transfer out, to be put back unless it is over.
    fn giving(&mut self, transfer: u64) -> Option<Giving> {
        let giving = &mut self.catch_up.giving;
        let at = giving.iter().position(|giving| giving.transfer == transfer)?;
        Some(giving.swap_remove(at))
    }

    fn giving_to(&mut self, from: PeerId, transfer: u64) -> Option<Giving> {
        let all = &self.catch_up.giving;
        let is_known = all.iter().any(|giving| (giving.to, giving.transfer) == (from, transfer));
        if is_known { self.giving(transfer) } else { None }
    }

    fn end_giving(&mut self, giving: &Giving, now: Now) {
        self.give_up(giving, now);
        self.forget_giving(giving);
    }

    fn forget_giving(&mut self, giving: &Giving) {
        self.feedback.push(Inbound::Given { group: giving.group, to: giving.to });
    }

    /// The taker asks for a chunk, or for what is in it.
    pub(super) fn asked(
        &mut self,
        now: Now,
        from: PeerId,
        of: (GroupId, u64),
        (chunk, wanted): (u64, Wanted),
        turned: &mut Turned,
    ) {
        let Some(mut giving) = self.giving_to(from, of.1) else {
            return self.say(from, of, What::Gone, turned);
        };
        giving.heard_ms = now.boot_ms;
        if !giving.is_taken {
            giving.is_taken = true;
            self.catch_up.rests.accepted(from);
        }
        if giving.stage == Stage::Sending {
            giving.wanted = wanted;
            if giving.kept.as_ref().is_some_and(|kept| kept.chunk == chunk) {
                giving.due = Some(wanted);
                self.send_due(&mut giving, now, turned);
            } else if giving.next_chunk() == chunk
                && let Some(stream) = giving.stream.take()
            {
                let chunk_bytes = self.catch_up.limits.chunk_bytes;
                let is_print_wanted = wanted == Wanted::Fingerprint;
                let read = Work::Read { stream, chunk_bytes, is_print_wanted };
                turned.asides.push(giving.aside(read));
            }
        }
        self.catch_up.giving.push(giving);
    }

    /// The taker has everything, checked and durable. It says so again until it goes on from there.
    pub(super) fn taker_is_ready(
        &mut self,
        now: Now,
        from: PeerId,
        of: (GroupId, u64),
        turned: &mut Turned,
    ) {
        let Some(mut giving) = self.giving_to(from, of.1) else {
            return self.say(from, of, What::Gone, turned);
        };
        giving.heard_ms = now.boot_ms;
        if giving.stage == Stage::Sending {
            giving.stage = Stage::Installing { since_ms: now.boot_ms };
            (giving.stream, giving.kept) = (None, None);
        }
        if matches!(giving.stage, Stage::Installing { .. }) {
            let (group, to, rows) = (giving.group, giving.to, Some(giving.rows));
            self.feedback.push(Inbound::Giving { group, to, rows });
        }
        self.catch_up.giving.push(giving);
    }

    pub(super) fn taker_is_gone(&mut self, now: Now, from: PeerId, transfer: u64) {
        let Some(giving) = self.giving_to(from, transfer) else { return };
        if giving.is_taken {
            return self.end_giving(&giving, now);
        }
        self.catch_up.counts.not_wanted += 1;
        self.catch_up.rests.refused(giving.group, from, now.boot_ms);
        self.forget_giving(&giving);
    }

    pub(super) fn opened(
        &mut self,
        now: Now,
        transfer: u64,
        opened: Result<(Applied, Stream), String>,
        turned: &mut Turned,
    ) {
        let Some(mut giving) = self.giving(transfer) else { return };
        match opened {
            Ok((applied, stream)) => {
                let behind = Index(applied.index.0 + 1);
                let is_of_use = match giving.is_lagging() {
                    true => applied.index > giving.matched,
                    false => applied.index >= giving.damaged_at,
                };
                if !self.driver.can_send(giving.group, behind) || !is_of_use {
                    // Memory went on meanwhile; the next attempt flushes first.
                    return self.end_giving(&giving, now);
                }
                giving.moved_ms = now.boot_ms;
                giving.rows = (applied.index, applied.term);
                giving.stream = Some(stream);
                giving.stage = Stage::Sending;
                self.offer(&mut giving, now, turned);
                self.catch_up.giving.push(giving);
            }
            Err(why) => {
                turned.troubles.push((giving.group, why));
                self.end_giving(&giving, now);
            }
        }
    }

    pub(super) fn read_on(
        &mut self,
        now: Now,
        transfer: u64,
        read: Result<(Stream, Piece), String>,
        turned: &mut Turned,
    ) {
        let Some(mut giving) = self.giving(transfer) else { return };
        match read {
            Ok((stream, Piece { rows, last, print })) => {
                let (chunk, group) = (giving.next_chunk(), giving.group);
                giving.moved_ms = now.boot_ms;
                giving.stream = last.is_none().then_some(stream);
                let encoded = |what: What| Message { group, transfer, what }.encode();
                let print = print.map(|print| encoded(What::Fingerprint { chunk, print, last }));
                let rows = encoded(What::Chunk { chunk, rows: rows.into(), last });
                giving.kept = Some(Kept { chunk, rows, print });
                giving.due = Some(giving.wanted);
                self.send_due(&mut giving, now, turned);
                self.catch_up.giving.push(giving);
            }
            Err(why) => {
                turned.troubles.push((giving.group, why));
                self.say(giving.to, (giving.group, transfer), What::Gone, turned);
                self.end_giving(&giving, now);
            }
        }
    }
}
