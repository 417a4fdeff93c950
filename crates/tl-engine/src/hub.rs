//! The tail hub: who waits for which session, what they may see, and the recent events that
//! they share.
//!
//! ```text
//!   apply ── applied(seq) ──► head ┐
//!   reply written ── release ──────┴─► visible = min(head, first unanswered write − 1)
//!                                         │ wake
//!                              tails: read after cursor, send, advance, wait
//! ```
//!
//! A wake says "look again" and nothing more: events are read from the shared recent window or
//! from the store, never pushed into a queue per reader, so a slow reader holds no memory and a
//! lost wake costs delay only.
//!
//! A header read from rows may be ahead of what the driver has told the hub: rows are written
//! during a turn, and holds are set right behind it. So whoever takes a head from rows waits for
//! [`Hub::settled`] first, or it would show an event whose reply is not written.
//!
//! Invariants:
//!  - a tail never shows a seq above `visible`;
//!  - all recent windows together hold at most as many bytes as the hub was made with;
//!  - the recent window is contiguous and holds at most [`RECENT_EVENTS_MAX`] events and
//!    [`RECENT_BYTES_MAX`] bytes per session with open tails;
//!  - a session without tails and without unanswered writes takes no memory here.
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use smallvec::SmallVec;
use tl_types::{GroupId, ResourceNumber, Seq};
use tokio::sync::Notify;

use crate::api::{EventLine, TailEnd};

/// Most events kept serialised per session with open tails.
pub const RECENT_EVENTS_MAX: usize = 1_024;
/// Most bytes kept serialised per session with open tails; one event larger than this is kept
/// alone.
pub const RECENT_BYTES_MAX: usize = 1024 * 1024;
/// Most bytes in the recent windows of all sessions unless told otherwise; past it tails read for
/// themselves.
pub const RECENT_TOTAL_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Locks that sessions are spread over.
const SHARDS: usize = 64;

/// A session within the node: its group and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TopicKey {
    /// Group.
    pub group: GroupId,
    /// Number in the group.
    pub number: ResourceNumber,
}

/// All topics of the node.
#[derive(Debug)]
pub struct Hub {
    shards: Vec<Mutex<Shard>>,
    /// Odd while the driver is in a turn whose effects are not all told yet.
    turns: AtomicU64,
    settled: Notify,
    /// Bytes in all recent windows.
    recent_bytes: Arc<AtomicUsize>,
    /// The most they may hold.
    recent_bytes_max: usize,
}

/// A turn of the driver under way; its end is its drop, so that a panic ends it too.
#[derive(Debug)]
pub struct TurnMark<'a>(&'a Hub);

impl Drop for TurnMark<'_> {
    fn drop(&mut self) {
        self.0.turns.fetch_add(1, Ordering::Release);
        self.0.settled.notify_waiters();
    }
}

#[derive(Debug, Default)]
struct Shard {
    topics: HashMap<TopicKey, Arc<Topic>>,
    /// First seqs of writes whose reply is not on its way yet, in no order; usually one.
    held: HashMap<TopicKey, SmallVec<[u64; 4]>>,
}

/// One session with open tails.
#[derive(Debug)]
pub struct Topic {
    state: Mutex<TopicState>,
    wake: Notify,
    /// Held by the one tail that reads the store for all of them.
    pub(crate) fill: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct TopicState {
    tails: usize,
    head: Seq,
    held_first: Option<Seq>,
    ended: Option<TailEnd>,
    recent: VecDeque<EventLine>,
    recent_bytes: usize,
    /// What all windows of the node hold together.
    recent_total: Arc<AtomicUsize>,
    recent_total_max: usize,
}

impl TopicState {
    fn forget_first(&mut self) {
        if let Some(gone) = self.recent.pop_front() {
            self.recent_bytes -= gone.json.len();
            self.recent_total.fetch_sub(gone.json.len(), Ordering::Relaxed);
        }
    }

    fn forget_all(&mut self) {
        self.recent_total.fetch_sub(self.recent_bytes, Ordering::Relaxed);
        self.recent_bytes = 0;
        self.recent = VecDeque::new();
    }
}

impl Drop for TopicState {
    fn drop(&mut self) {
        self.forget_all();
    }
}

/// What a tail sees of its topic at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sight {
    /// Events up to here may be shown.
    pub visible: Seq,
    /// The last applied seq.
    pub head: Seq,
    /// Set when no event will follow `head`.
    pub ended: Option<TailEnd>,
}

impl Hub {
    /// A hub without topics.
    #[must_use]
    pub fn new() -> Arc<Hub> {
        Hub::holding(RECENT_TOTAL_BYTES_MAX)
    }

    /// A hub without topics, whose recent windows together hold at most so many bytes.
    #[must_use]
    pub fn holding(recent_bytes_max: usize) -> Arc<Hub> {
        Arc::new(Hub {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            turns: AtomicU64::new(0),
            settled: Notify::new(),
            recent_bytes: Arc::default(),
            recent_bytes_max,
        })
    }

    /// The driver begins a turn; by the end of the mark it has told what the turn applied. Only
    /// one mark at a time.
    #[must_use]
    pub fn turn(&self) -> TurnMark<'_> {
        self.turns.fetch_add(1, Ordering::Acquire);
        TurnMark(self)
    }

    /// Waits until everything that rows could show when this was called has been told here.
    pub async fn settled(&self) {
        if self.turns.load(Ordering::Acquire).is_multiple_of(2) {
            return;
        }
        let settled = self.settled.notified();
        tokio::pin!(settled);
        settled.as_mut().enable();
        // A turn that is over by now has told all; one under way tells at its end.
        if !self.turns.load(Ordering::Acquire).is_multiple_of(2) {
            settled.await;
        }
    }

    /// Bytes in all recent windows, for metrics.
    #[must_use]
    pub fn recent_bytes(&self) -> usize {
        self.recent_bytes.load(Ordering::Relaxed)
    }

    fn shard(&self, key: TopicKey) -> &Mutex<Shard> {
        // Numbers are given out one by one and groups are hashed: adding them spreads well.
        let at = key.number.0.wrapping_add(u64::from(key.group.0)) % SHARDS as u64;
        &self.shards[at as usize]
    }

    /// Tells that `first..=last` were applied. With `hold` they stay invisible until the guard
    /// that comes back is dropped; the guard's owner drops it once the reply is written.
    #[must_use]
    pub fn applied(
        self: &Arc<Self>,
        key: TopicKey,
        first: Seq,
        last: Seq,
        hold: bool,
    ) -> Option<ReplyGuard> {
        let topic = {
            let mut shard = self.shard(key).lock();
            if hold {
                shard.held.entry(key).or_default().push(first.0);
            }
            let topic = shard.topics.get(&key).cloned();
            if let Some(topic) = &topic {
                let mut state = topic.state.lock();
                state.head = state.head.max(last);
                state.held_first = shard.first_held(key);
            }
            topic
        };
        if let (Some(topic), false) = (topic, hold) {
            topic.wake.notify_waiters();
        }
        hold.then(|| ReplyGuard { hub: Arc::clone(self), key, first })
    }

    /// Tells that no event will follow in this session.
    pub fn ended(&self, key: TopicKey, end: TailEnd) {
        let topic = self.shard(key).lock().topics.get(&key).cloned();
        if let Some(topic) = topic {
            topic.state.lock().ended = Some(end);
            topic.wake.notify_waiters();
        }
    }

    fn release(&self, key: TopicKey, first: Seq) {
        let topic = {
            let mut shard = self.shard(key).lock();
            if let Some(held) = shard.held.get_mut(&key) {
                if let Some(at) = held.iter().position(|&seq| seq == first.0) {
                    held.swap_remove(at);
                }
                if held.is_empty() {
                    shard.held.remove(&key);
                }
            }
            let topic = shard.topics.get(&key).cloned();
            if let Some(topic) = &topic {
                topic.state.lock().held_first = shard.first_held(key);
            }
            topic
        };
        if let Some(topic) = topic {
            topic.wake.notify_waiters();
        }
    }

    /// Joins the topic of a session. Read the header *after* this and hand its last seq to
    /// [`Topic::saw_head`]: then nothing applied in between is missed.
    #[must_use]
    pub fn join(self: &Arc<Self>, key: TopicKey) -> Membership {
        let mut shard = self.shard(key).lock();
        let held_first = shard.first_held(key);
        let topic = shard.topics.entry(key).or_insert_with(|| {
            Arc::new(Topic {
                state: Mutex::new(TopicState {
                    tails: 0,
                    head: Seq(0),
                    held_first,
                    ended: None,
                    recent: VecDeque::new(),
                    recent_bytes: 0,
                    recent_total: Arc::clone(&self.recent_bytes),
                    recent_total_max: self.recent_bytes_max,
                }),
                wake: Notify::new(),
                fill: tokio::sync::Mutex::new(()),
            })
        });
        topic.state.lock().tails += 1;
        Membership { hub: Arc::clone(self), key, topic: Arc::clone(topic) }
    }

    fn leave(&self, key: TopicKey) {
        let mut shard = self.shard(key).lock();
        let Some(topic) = shard.topics.get(&key) else { return };
        let left = {
            let mut state = topic.state.lock();
            state.tails -= 1;
            state.tails
        };
        if left == 0 {
            shard.topics.remove(&key);
        }
    }

    /// Wakes every tail of the node, for a drain.
    pub fn wake_all(&self) {
        for shard in &self.shards {
            for topic in shard.lock().topics.values() {
                topic.wake.notify_waiters();
            }
        }
    }

    /// Sessions with open tails, for metrics.
    #[must_use]
    pub fn topics(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().topics.len()).sum()
    }
}

impl Shard {
    fn first_held(&self, key: TopicKey) -> Option<Seq> {
        self.held.get(&key)?.iter().min().map(|&seq| Seq(seq))
    }
}

impl Topic {
    /// What may be shown now.
    #[must_use]
    pub fn sight(&self) -> Sight {
        let state = self.state.lock();
        let visible = match state.held_first {
            Some(first) => state.head.min(Seq(first.0.saturating_sub(1))),
            None => state.head,
        };
        Sight { visible, head: state.head, ended: state.ended }
    }

    /// Takes note of a last seq and an end read from the session's header.
    pub fn saw_head(&self, head: Seq, ended: Option<TailEnd>) {
        let mut state = self.state.lock();
        state.head = state.head.max(head);
        state.ended = state.ended.or(ended);
    }

    /// Takes note of a last seq and an end that were heard of another node's rows, and wakes whoever
    /// waits for them.
    pub(crate) fn tell(&self, head: Seq, ended: Option<TailEnd>) {
        self.saw_head(head, ended);
        self.wake.notify_waiters();
    }

    /// A wake that is registered from now on: create it, look, and only then wait on it.
    pub fn wake(&self) -> tokio::sync::futures::Notified<'_> {
        self.wake.notified()
    }

    /// Recent events after `cursor` and up to `visible`, at most `limit`, and none further once
    /// there are `bytes_max` bytes; empty when the window does not reach back that far or holds
    /// nothing newer.
    #[must_use]
    pub fn recent_after(
        &self,
        cursor: Seq,
        visible: Seq,
        (limit, bytes_max): (usize, usize),
    ) -> Vec<EventLine> {
        let state = self.state.lock();
        let Some(first) = state.recent.front().map(|line| line.seq) else { return Vec::new() };
        if cursor.next() < first {
            return Vec::new();
        }
        let skip = (cursor.next().0 - first.0) as usize;
        let mut bytes = 0;
        let lines = state.recent.iter().skip(skip).take(limit);
        let wanted = lines.take_while(|line| {
            let has_room = bytes < bytes_max;
            bytes += line.json.len();
            has_room && line.seq <= visible
        });
        wanted.cloned().collect()
    }

    /// Shares events that one tail has read and serialised. A run behind the window goes on with
    /// it, one further on replaces it; past the node's limit the window is given up instead.
    pub fn share(&self, lines: &[EventLine]) {
        let mut state = self.state.lock();
        for line in lines {
            match state.recent.back().map(|last| last.seq.next()) {
                Some(next) if line.seq < next => continue,
                Some(next) if line.seq > next => state.forget_all(),
                _ => {}
            }
            let bytes = line.json.len();
            state.recent_bytes += bytes;
            let total = state.recent_total.fetch_add(bytes, Ordering::Relaxed) + bytes;
            state.recent.push_back(line.clone());
            if total > state.recent_total_max {
                return state.forget_all();
            }
            while state.recent.len() > RECENT_EVENTS_MAX
                || (state.recent_bytes > RECENT_BYTES_MAX && state.recent.len() > 1)
            {
                state.forget_first();
            }
        }
    }

    /// Lets the shared window go: nothing has happened for a while, so nobody is near it.
    pub fn forget_recent(&self) {
        self.state.lock().forget_all();
    }
}

/// A tail's place in its topic; leaving is dropping it.
#[derive(Debug)]
pub struct Membership {
    hub: Arc<Hub>,
    key: TopicKey,
    topic: Arc<Topic>,
}

impl Membership {
    /// The topic.
    #[must_use]
    pub fn topic(&self) -> &Arc<Topic> {
        &self.topic
    }

    /// The session.
    #[must_use]
    pub fn key(&self) -> TopicKey {
        self.key
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.hub.leave(self.key);
    }
}

/// Holds a write's events back from tails on this node; drop it when the reply was written.
#[derive(Debug)]
pub struct ReplyGuard {
    hub: Arc<Hub>,
    key: TopicKey,
    first: Seq,
}

/// The guards of one entry, one per append in it; nearly always one.
pub type ReplyGuards = SmallVec<[ReplyGuard; 1]>;

impl ReplyGuard {
    /// Says that the reply's bytes were written.
    pub fn written(self) {}
}

impl Drop for ReplyGuard {
    fn drop(&mut self) {
        self.hub.release(self.key, self.first);
    }
}

#[cfg(test)]
mod tests;
