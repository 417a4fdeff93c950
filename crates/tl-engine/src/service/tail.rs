//! A tail: replay and live delivery as one loop over a cursor.
//!
//! ```text
//!   look: events after the cursor, up to what may be shown ──► give, advance
//!     ▲                                  │ none
//!     └──────── wake, drain, or 5 s ◄────┘
//! ```
//!
//! Invariant: what a tail gives is contiguous from its cursor; it gives no event twice and
//! leaves none out, or says [`TailItem::Gap`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tl_core::{SessionRow, SessionState};
use tl_store::{LsmStore, OrderedStore};
use tl_types::limits::TAILS_OPEN_MAX;
use tl_types::{ErrorCode, ResourcePath, Seq, SessionId};
use tl_wire::reply::{Gap, GapReason};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::Service;
use super::events::Lines;
use super::follow::Follow;
use super::lags::Place;
use super::read::Wanted;
use crate::api::{Caller, EventLine, Freshness, ServiceError, TailEnd, TailFrom, TailItem};
use crate::hub::{Membership, RECENT_EVENTS_MAX};

/// Rest of a tail whose session is elsewhere while no member shows its events.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// A lost wake costs at most this much delay.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Events taken from rows or from the shared window at a time.
const STEP_EVENTS: usize = 512;
/// Bytes taken from rows at a time (one event always goes): a slow reader holds no more.
const STEP_BYTES: usize = 512 * 1024;
/// The same from the shared window, and from rows when more than half of the room is taken.
const SMALL_STEP_BYTES: usize = 32 * 1024;

/// One open tail. Dropping it closes it.
#[derive(Debug)]
pub struct Tail<S = LsmStore> {
    service: Service<S>,
    path: ResourcePath,
    member: Membership,
    /// Brings what is new of a session that is elsewhere.
    follow: Option<Arc<Follow>>,
    place: Place,
    _open: OpenTail<S>,
    draining: watch::Receiver<bool>,
    cursor: Seq,
    /// Read and not given yet; at most one step.
    ready: VecDeque<EventLine>,
    /// Room for the step that was read last, until the reader comes for the next one.
    room: Option<OwnedSemaphorePermit>,
    report_gaps: bool,
}

/// Room for what tails have read and their readers have not taken, over all tails. Not counted: what
/// comes from the shared window, a small step at the live end while there is no room, and what one
/// event has beyond a step.
#[derive(Debug)]
pub(crate) struct TailRoom {
    kib: Arc<Semaphore>,
    /// Free KiB under which steps are small.
    crowded_kib: usize,
}

impl TailRoom {
    /// Room for so many bytes; at least for a few steps.
    pub(crate) fn new(bytes: u64) -> TailRoom {
        let kib = usize::try_from(bytes / 1024).unwrap_or(Semaphore::MAX_PERMITS);
        let kib = kib.clamp(2 * STEP_BYTES / 1024, Semaphore::MAX_PERMITS);
        TailRoom { kib: Arc::new(Semaphore::new(kib)), crowded_kib: kib / 2 }
    }

    /// Waits for room for one step, and says how large it is.
    async fn step(&self) -> (OwnedSemaphorePermit, usize) {
        let is_crowded = self.kib.available_permits() <= self.crowded_kib;
        let bytes = if is_crowded { SMALL_STEP_BYTES } else { STEP_BYTES };
        let kib = Arc::clone(&self.kib).acquire_many_owned((bytes / 1024) as u32);
        (kib.await.expect("never closed"), bytes)
    }

    /// The same for a reader at the live end, who reads for all that follow the session and must
    /// not wait for strangers: a small step, with room if there is some.
    fn small_step(&self) -> (Option<OwnedSemaphorePermit>, usize) {
        let kib = Arc::clone(&self.kib).try_acquire_many_owned((SMALL_STEP_BYTES / 1024) as u32);
        (kib.ok(), SMALL_STEP_BYTES)
    }
}

/// What is kept of a step's room for the bytes that were read.
fn fitted(room: Option<OwnedSemaphorePermit>, bytes: usize) -> Option<OwnedSemaphorePermit> {
    let mut room = room?;
    let kib = bytes.div_ceil(1024);
    match room.num_permits().checked_sub(kib) {
        Some(spare) => drop(room.split(spare)),
        None => {
            let more = (kib - room.num_permits()) as u32;
            if let Ok(more) = Arc::clone(room.semaphore()).try_acquire_many_owned(more) {
                room.merge(more);
            }
        }
    }
    Some(room)
}

/// Counts an open tail while it lives.
#[derive(Debug)]
struct OpenTail<S>(Service<S>);

impl<S> Drop for OpenTail<S> {
    fn drop(&mut self) {
        self.0.inner.metrics.tails_open.dec();
    }
}

impl<S: OrderedStore + 'static> Service<S> {
    /// Opens a tail on a session.
    ///
    /// # Errors
    /// `too_many_tails`, `session_not_found`, `session_tombstoned`.
    pub async fn open_tail(
        &self,
        caller: &Caller,
        id: &SessionId,
        from: TailFrom,
        fresh: Freshness,
    ) -> Result<Tail<S>, ServiceError> {
        let before = self.inner.metrics.tails_open.inc();
        let open = OpenTail(self.clone());
        if before >= TAILS_OPEN_MAX as i64 {
            return Err(ServiceError::new(
                ErrorCode::TooManyTails,
                format!("This node has {TAILS_OPEN_MAX} open tails, as many as it may have"),
            ));
        }
        let path = caller.session(id);
        let group = path.group(self.inner.groups);
        // Where the log ends is an absence: it takes a round.
        let confirm = !matches!(from, TailFrom::After(_)) && !fresh.stale;
        let (row, _) = self.find_readable(caller, &path, confirm, fresh.min_index).await?;
        let member = self.inner.hub.join(crate::hub::TopicKey { group, number: row.number });
        let last = row.header.last_seq;
        let cursor = match from {
            TailFrom::After(cursor) => cursor,
            TailFrom::Latest => last,
            TailFrom::Last(count) => Seq(last.0.saturating_sub(count)),
        };
        let follow = match self.is_here(group) {
            true => None,
            false => {
                self.saw(&member, &row).await;
                self.follow_elsewhere(&path, &member)?
            }
        };
        let tail = Tail {
            service: self.clone(),
            place: self.inner.lags.open(member.topic(), cursor),
            path,
            member,
            follow,
            _open: open,
            draining: self.inner.draining.subscribe(),
            cursor,
            ready: VecDeque::new(),
            room: None,
            report_gaps: false,
        };
        if tail.follow.is_none() {
            // Read again now that wakes are heard: nothing applied in between is missed.
            self.look_again(&tail.path, &tail.member).await?;
        }
        Ok(tail)
    }

    /// Tells a topic what the session's row says now.
    pub(super) async fn look_again(
        &self,
        path: &ResourcePath,
        member: &Membership,
    ) -> Result<(), ServiceError> {
        let row = match self.is_here(path.group(self.inner.groups)) {
            true => self.find(path).await?,
            false => {
                let deadline = std::time::Instant::now() + LOOK_AGAIN;
                self.row(deadline, Wanted::present(path)).await?.0
            }
        };
        if let Some(row) = row {
            self.saw(member, &row).await;
        }
        Ok(())
    }

    /// Tells a topic what a row says, once the holds that belong to it are set.
    pub(super) async fn saw(&self, member: &Membership, row: &SessionRow) {
        self.inner.hub.settled().await;
        member.topic().saw_head(row.header.last_seq, end_of(row));
    }
}

fn end_of(row: &SessionRow) -> Option<TailEnd> {
    match row.header.state {
        SessionState::Active => None,
        SessionState::Closed => Some(TailEnd::Closed),
        SessionState::Tombstoned => Some(TailEnd::Tombstoned),
    }
}

impl<S: OrderedStore + 'static> Tail<S> {
    /// Asks for [`TailItem::Gap`] when the cursor is ahead of the session, and goes on from the
    /// session's end then. Without it, a tail ahead of its session waits until it is reached.
    pub fn report_gaps(&mut self, report: bool) {
        self.report_gaps = report;
    }

    /// The last seq given.
    #[must_use]
    pub fn cursor(&self) -> Seq {
        self.cursor
    }

    /// The last seq that may be shown, for heartbeats.
    #[must_use]
    pub fn last_seq(&self) -> Seq {
        self.member.topic().sight().visible
    }

    /// The next events, at most `events_max` of them; waits until there is something.
    ///
    /// Cancel-safe: what was not returned is returned by the next call.
    ///
    /// # Errors
    /// `event_gap_detected` and `internal_error` when stored events cannot be read.
    pub async fn next(&mut self, events_max: usize) -> Result<TailItem, ServiceError> {
        loop {
            if !self.ready.is_empty() {
                let count = events_max.clamp(1, self.ready.len());
                let events: Vec<EventLine> = self.ready.drain(..count).collect();
                if let Some(last) = events.last() {
                    self.cursor = last.seq;
                    self.place.gave(self.cursor);
                }
                return Ok(TailItem::Events(events));
            }
            // Whoever asks again has taken what was given before.
            self.room = None;
            let topic = Arc::clone(self.member.topic());
            let wake = topic.wake();
            tokio::pin!(wake);
            wake.as_mut().enable();
            let sight = topic.sight();
            let is_draining = *self.draining.borrow_and_update();
            // A session that is always written to has always more to give.
            if self.cursor < sight.visible && !is_draining {
                if self.take_shared(sight.visible) {
                    continue;
                }
                // Members may take long to answer, and others that wait for the same events come first.
                let mut draining = self.draining.clone();
                let filled = tokio::select! {
                    filled = self.fill(sight.visible) => filled,
                    _ = draining.changed() => continue,
                };
                match filled {
                    Ok(None) => {}
                    Ok(Some(gap)) => {
                        self.cursor = gap.next_cursor;
                        self.place.gave(self.cursor);
                        return Ok(TailItem::Gap(gap));
                    }
                    // Members come back, and the cursor stays where it is.
                    Err(error) if self.waits_for_members(&error) => {
                        tokio::select! {
                            _ = self.draining.changed() => {}
                            () = tokio::time::sleep(ASK_AGAIN) => {}
                        }
                    }
                    Err(error) => return Err(error),
                }
                continue;
            }
            if let Some(end) = sight.ended
                && self.cursor >= sight.head
                && sight.visible == sight.head
            {
                return Ok(TailItem::End(end));
            }
            if is_draining {
                return Ok(TailItem::End(TailEnd::Shutdown));
            }
            if self.report_gaps && self.cursor > sight.head {
                let mut draining = self.draining.clone();
                let looked = tokio::select! {
                    looked = self.ahead() => looked,
                    _ = draining.changed() => continue,
                };
                match looked {
                    Ok(None) => {}
                    Ok(Some(gap)) => return Ok(TailItem::Gap(gap)),
                    Err(error) if self.waits_for_members(&error) => {
                        tokio::select! {
                            _ = self.draining.changed() => {}
                            () = tokio::time::sleep(ASK_AGAIN) => {}
                        }
                    }
                    Err(error) => return Err(error),
                }
                continue;
            }
            tokio::select! {
                () = wake => {}
                _ = self.draining.changed() => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {
                    topic.forget_recent();
                    // Of a session that is elsewhere, its follow tells.
                    if self.follow.is_none() {
                        self.service.look_again(&self.path, &self.member).await?;
                    }
                }
            }
        }
    }

    /// Whether the session is elsewhere and nobody that has it answers now.
    fn waits_for_members(&self, error: &ServiceError) -> bool {
        self.follow.is_some()
            && error.code == ErrorCode::RaftUnavailable
            && self.service.is_running()
    }

    /// Takes events after the cursor from the shared window, if it has them.
    fn take_shared(&mut self, visible: Seq) -> bool {
        let step = (STEP_EVENTS, SMALL_STEP_BYTES);
        let shared = self.member.topic().recent_after(self.cursor, visible, step);
        let has_some = !shared.is_empty();
        self.take(shared);
        has_some
    }

    /// Reads events after the cursor into `ready`, or finds that they are gone. Changes nothing
    /// before it ends.
    async fn fill(&mut self, visible: Seq) -> Result<Option<Gap>, ServiceError> {
        let topic = Arc::clone(self.member.topic());
        // Near the live end tails want the same events: one reads them for all.
        let near = visible.0 - self.cursor.0 <= RECENT_EVENTS_MAX as u64 / 2;
        let _reader = if near { Some(topic.fill.lock().await) } else { None };
        if self.take_shared(visible) {
            return Ok(None);
        }
        let key = self.member.key();
        let all = &self.service.inner.tail_room;
        let (room, step_bytes) = if near {
            all.small_step()
        } else {
            let (room, bytes) = all.step().await;
            (Some(room), bytes)
        };
        let step = (STEP_EVENTS, step_bytes);
        let read = self.service.event_lines(key, &self.path.tenant, self.cursor, visible, step);
        match read.await? {
            Lines::Events(lines) if lines.is_empty() => Err(ServiceError::new(
                ErrorCode::EventGapDetected,
                format!("Event {} of this session cannot be found", self.cursor.next()),
            )),
            Lines::Events(lines) => {
                if near {
                    topic.share(&lines);
                }
                self.room = fitted(room, lines.iter().map(|line| line.json.len()).sum());
                self.take(lines);
                Ok(None)
            }
            Lines::Gone(gap) => Ok(Some(gap)),
        }
    }

    fn take(&mut self, lines: Vec<EventLine>) {
        let mut next = self.cursor.next();
        for line in &lines {
            assert_eq!(line.seq, next, "a tail gives contiguous events");
            next = next.next();
        }
        self.ready.extend(lines);
    }

    /// The cursor is ahead of what is known here: that is an absence, so it is confirmed first.
    async fn ahead(&mut self) -> Result<Option<Gap>, ServiceError> {
        let deadline = std::time::Instant::now() + LOOK_AGAIN;
        let (row, _) = self.service.row(deadline, Wanted::confirmed(&self.path)).await?;
        let Some(row) = row else { return Ok(None) };
        self.service.saw(&self.member, &row).await;
        if self.cursor <= row.header.last_seq {
            return Ok(None);
        }
        let gap = Gap {
            reason: GapReason::ResumeInvalidated,
            from_cursor: self.cursor,
            next_cursor: row.header.last_seq,
            committed_cursor: row.header.archived_seq,
            earliest_available_cursor: row.header.floor_seq,
        };
        self.cursor = gap.next_cursor;
        self.place.gave(self.cursor);
        Ok(Some(gap))
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future as _;

    use super::*;

    #[tokio::test]
    async fn steps_are_small_when_room_is_short_and_wait_when_there_is_none() {
        let room = TailRoom::new(2 * STEP_BYTES as u64);
        let mut held = vec![room.step().await];
        assert_eq!(held[0].1, STEP_BYTES);
        while room.kib.available_permits() > 0 {
            held.push(room.step().await);
        }
        assert!(held[1..].iter().all(|(_, bytes)| *bytes == SMALL_STEP_BYTES));
        assert_eq!(held.len(), 1 + STEP_BYTES / SMALL_STEP_BYTES);
        let mut next = std::pin::pin!(room.step());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(next.as_mut().poll(&mut context).is_pending());
        assert!(room.small_step().0.is_none(), "whoever is at the end goes on without");
        held.pop();
        assert_eq!(next.await.1, SMALL_STEP_BYTES);
    }

    #[tokio::test]
    async fn room_is_kept_for_what_was_read() {
        let room = TailRoom::new(2 * STEP_BYTES as u64);
        let all = room.kib.available_permits();
        let free = |held: &Option<OwnedSemaphorePermit>| {
            all - held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
        };
        let held = fitted(Some(room.step().await.0), 1);
        assert_eq!((free(&held), room.kib.available_permits()), (all - 1, all - 1));
        drop(held);
        let held = fitted(Some(room.step().await.0), STEP_BYTES + 1024);
        assert_eq!(room.kib.available_permits(), all - STEP_BYTES / 1024 - 1);
        drop(held);
        let held = fitted(Some(room.step().await.0), 4 * STEP_BYTES);
        assert_eq!(free(&held), all - STEP_BYTES / 1024, "more than there is");
        assert!(fitted(None, 1).is_none());
    }
}
