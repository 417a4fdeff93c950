//! The claims that a pod has in hand.
//!
//! ```text
//!   claimed ──> ready ──(room)──> running ──> reported ──> gone
//!                 └── drain: given back unstarted ──^
//! ```
//!
//! Invariants:
//!  - H1 `ready + running` is at most capacity and prefetch together, but for capacity that has
//!    just been lowered.
//!  - H2 a claim past its fence is told to stop and is never started.
//!  - H3 nothing is renewed for ever: not a step past its time-out, not one whose report waits.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tl_core::fleet::Fence;
use tokio::sync::watch;

use crate::claim::{Claim, ClaimKey, Renewal};
use crate::json::JsonText;
use crate::run::Stop;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Ready,
    Running { deadline_ms: u64 },
    Reported { since_ms: u64 },
}

#[derive(Debug)]
struct Entry {
    claim: Arc<Claim>,
    fence: Fence,
    phase: Phase,
    stop: watch::Sender<Stop>,
    progress: watch::Sender<Option<JsonText>>,
}

/// How many claims are in which phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HeldCounts {
    /// Held ready.
    pub ready: u32,
    /// Running.
    pub running: u32,
    /// Ended, with the report under way.
    pub reported: u32,
}

/// A claim to start now.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) claim: Arc<Claim>,
    pub(super) stop: watch::Receiver<Stop>,
    pub(super) progress: watch::Sender<Option<JsonText>>,
    pub(super) timeout_ms: u64,
}

#[derive(Debug, Default)]
struct Table {
    entries: HashMap<ClaimKey, Entry>,
    ready: VecDeque<ClaimKey>,
    counts: HeldCounts,
}

/// All claims in hand.
#[derive(Debug, Default)]
pub(super) struct Held(Mutex<Table>);

impl Held {
    pub(super) fn counts(&self) -> HeldCounts {
        self.0.lock().counts
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().entries.is_empty()
    }

    /// Takes claims in that were asked for at `sent_ms`, until `most` are ready or run; gives
    /// back for what there is no room.
    pub(super) fn insert(
        &self,
        claims: Vec<Claim>,
        sent_ms: u64,
        lease_ms: u64,
        most: u32,
    ) -> Vec<Claim> {
        let mut table = self.0.lock();
        let mut over = Vec::new();
        for claim in claims {
            if table.counts.ready + table.counts.running >= most {
                over.push(claim);
                continue;
            }
            let key = claim.key;
            let entry = Entry {
                claim: Arc::new(claim),
                fence: Fence::new(sent_ms, lease_ms),
                phase: Phase::Ready,
                stop: watch::Sender::new(Stop::Go),
                progress: watch::Sender::new(None),
            };
            table.entries.insert(key, entry);
            table.ready.push_back(key);
            table.counts.ready += 1;
        }
        over
    }

    /// The next claim to start, while fewer than `capacity` run.
    pub(super) fn start(&self, capacity: u32, now_ms: u64, timeout_ms: u64) -> Option<Start> {
        let mut table = self.0.lock();
        while table.counts.running < capacity {
            let key = table.ready.pop_front()?;
            table.counts.ready -= 1;
            let Some(entry) = table.entries.get_mut(&key) else { continue };
            if entry.fence.is_past(now_ms) {
                table.entries.remove(&key);
                continue;
            }
            let timeout_ms = entry.claim.timeout_ms.unwrap_or(timeout_ms);
            entry.phase = Phase::Running { deadline_ms: now_ms.saturating_add(timeout_ms) };
            let start = Start {
                claim: Arc::clone(&entry.claim),
                stop: entry.stop.subscribe(),
                progress: entry.progress.clone(),
                timeout_ms,
            };
            table.counts.running += 1;
            return Some(start);
        }
        None
    }

    /// A running one has ended; it stays in hand until its report is answered.
    pub(super) fn ended(&self, key: &ClaimKey, now_ms: u64) {
        let mut table = self.0.lock();
        if let Some(entry) = table.entries.get_mut(key) {
            entry.phase = Phase::Reported { since_ms: now_ms };
            table.counts.running -= 1;
            table.counts.reported += 1;
        }
    }

    /// It is out of hand.
    pub(super) fn remove(&self, key: &ClaimKey) {
        let mut table = self.0.lock();
        if let Some(entry) = table.entries.remove(key) {
            match entry.phase {
                // It leaves the queue of the ready when its turn comes.
                Phase::Ready => table.ready.retain(|ready| ready != key),
                Phase::Running { .. } | Phase::Reported { .. } => {}
            }
            match entry.phase {
                Phase::Ready => table.counts.ready -= 1,
                Phase::Running { .. } => table.counts.running -= 1,
                Phase::Reported { .. } => table.counts.reported -= 1,
            }
        }
    }

    /// Takes all that have not started, to be given back.
    pub(super) fn take_ready(&self, now_ms: u64) -> Vec<ClaimKey> {
        let mut table = self.0.lock();
        let keys: Vec<ClaimKey> = table.ready.drain(..).collect();
        table.counts.ready = 0;
        for key in &keys {
            if let Some(entry) = table.entries.get_mut(key) {
                entry.phase = Phase::Reported { since_ms: now_ms };
                table.counts.reported += 1;
            }
        }
        keys
    }

    /// Tells one to stop.
    pub(super) fn stop(&self, key: &ClaimKey, stop: Stop) {
        if let Some(entry) = self.0.lock().entries.get(key) {
            entry.stop.send_replace(stop);
        }
    }

    /// Its claim was taken away: it stops, or is dropped when it does not run.
    pub(super) fn lost(&self, key: &ClaimKey) {
        let phase = self.0.lock().entries.get(key).map(|entry| entry.phase);
        match phase {
            Some(Phase::Running { .. }) => self.stop(key, Stop::Lost),
            // A report under way is answered by itself.
            Some(Phase::Reported { .. }) | None => {}
            Some(Phase::Ready) => self.remove(key),
        }
    }

    /// Tells all to stop.
    pub(super) fn stop_all(&self, stop: Stop) {
        for entry in self.0.lock().entries.values() {
            entry.stop.send_replace(stop);
        }
    }

    /// Drops what has not started and tells the rest that its claims are lost: the life under
    /// which they were made is over.
    pub(super) fn lose_all(&self) -> usize {
        let mut table = self.0.lock();
        let lost = table.entries.len();
        let ready: Vec<ClaimKey> = table.ready.drain(..).collect();
        table.counts.ready = 0;
        for key in ready {
            table.entries.remove(&key);
        }
        for entry in table.entries.values() {
            entry.stop.send_replace(Stop::Lost);
        }
        lost
    }

    /// Renewals that are due, at most `items_max`. A step that has run past its time-out and a
    /// tenth of the lease, because its handler cannot be stopped, is not renewed: others may
    /// have it. Nor is one whose report has not been answered for `reported_ms`, although
    /// renewals are: something is wrong with that report.
    pub(super) fn due(
        &self,
        now_ms: u64,
        lease_ms: u64,
        reported_ms: u64,
        items_max: usize,
    ) -> Vec<Renewal> {
        let table = self.0.lock();
        let due = table.entries.iter().filter(|(_, entry)| {
            let hung = match entry.phase {
                Phase::Running { deadline_ms } => {
                    now_ms >= deadline_ms.saturating_add(lease_ms / 10)
                }
                Phase::Reported { since_ms } => now_ms >= since_ms.saturating_add(reported_ms),
                Phase::Ready => false,
            };
            !hung && now_ms >= entry.fence.renew_at_ms()
        });
        let renewal = |(key, entry): (&ClaimKey, &Entry)| {
            // The last word goes along every time: a renewal may be lost.
            let progress = entry.progress.borrow().clone();
            Renewal { key: *key, progress }
        };
        due.take(items_max).map(renewal).collect()
    }

    /// A renewal that was sent at `sent_ms` is confirmed.
    pub(super) fn confirm(&self, key: &ClaimKey, sent_ms: u64, lease_ms: u64) {
        if let Some(entry) = self.0.lock().entries.get_mut(key) {
            entry.fence.confirm(sent_ms, lease_ms);
        }
    }

    /// Tells those to stop whose lease may have run out, and drops them when they have not
    /// started or only wait for the answer to their report. Gives how many.
    pub(super) fn fence(&self, now_ms: u64) -> usize {
        let past: Vec<(ClaimKey, Phase)> = {
            let table = self.0.lock();
            table
                .entries
                .iter()
                .filter(|(_, entry)| entry.fence.is_past(now_ms))
                .map(|(key, entry)| (*key, entry.phase))
                .collect()
        };
        for (key, phase) in &past {
            match phase {
                Phase::Ready | Phase::Reported { .. } => self.remove(key),
                Phase::Running { .. } => self.stop(key, Stop::Lost),
            }
        }
        past.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Attempt, ClaimToken, StepId};
    use crate::step::Kind;
    use crate::time::StoreTime;

    fn claims(count: usize) -> Vec<Claim> {
        let claim = |_| Claim {
            key: ClaimKey { id: StepId::fresh(), token: ClaimToken::fresh() },
            attempt: Attempt(1),
            charged: 0,
            attempts_max: 1,
            kind: Kind::new("work").expect("a plain word"),
            args: JsonText::empty_object(),
            metadata: JsonText::empty_object(),
            priority: 0,
            timeout_ms: None,
            lease_until: StoreTime(0),
        };
        (0..count).map(claim).collect()
    }

    #[test]
    fn what_there_is_no_room_for_is_given_back() {
        let held = Held::default();
        assert_eq!(held.insert(claims(2), 0, 1_000, 3).len(), 0);
        let started = held.start(1, 0, 1_000).expect("one is ready");
        assert_eq!(held.insert(claims(3), 0, 1_000, 3).len(), 2);
        held.ended(&started.claim.key, 1);
        assert_eq!(held.insert(claims(1), 0, 1_000, 3).len(), 0, "what has ended takes no room");
        assert_eq!(held.counts(), HeldCounts { ready: 3, running: 0, reported: 1 });
    }

    #[test]
    fn a_step_whose_report_is_not_answered_is_renewed_for_a_while_only() {
        let held = Held::default();
        held.insert(claims(1), 0, 300, 1);
        let key = held.start(1, 0, 1_000).expect("it is ready").claim.key;
        held.ended(&key, 50);
        let due = |now_ms| held.due(now_ms, 300, 1_000, 10).len();
        assert_eq!((due(99), due(100)), (0, 1), "a third into the lease");
        held.confirm(&key, 940, 300);
        assert_eq!((due(1_039), due(1_040), due(1_049), due(1_050)), (0, 1, 1, 0));
    }
}
