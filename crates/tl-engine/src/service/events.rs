//! Reading events: from memory when they are there, else beside the runtime; pages and long
//! polls on top.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tl_core::session::{EventQuery, ReadError, read_events};
use tl_core::{Poison, Rows};
use tl_store::OrderedStore;
use tl_types::limits::PAGE_BYTES_MAX;
use tl_types::{ErrorCode, GroupId, Index, ResourceNumber, Seq, SessionId, StoredEvent, Tenant};
use tl_wire::reply::{Gap, GapReason, event_json};

use super::{Service, damage};
use crate::api::{Caller, EventLine, EventPage, Freshness, Indexed, ReadEvents, ServiceError};
use crate::hub::TopicKey;
use crate::node::rows::{BlockingRows, CachedRows};

/// Events read from rows at a time; bounds what one read brings into memory even when every
/// event is as large as it may be.
const EVENTS_PER_READ_MAX: usize = 128;
/// Longest wait of a long poll before it looks again although nobody woke it.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Longest wait of a page that is asked for while the node is drained.
const DRAINED_WAIT_MAX: Duration = Duration::from_secs(1);

/// Events read, or what stands in the way.
pub(super) enum Lines {
    /// Contiguous events right after the cursor; empty at the end.
    Events(Vec<EventLine>),
    /// Events right after the cursor are gone from this tier.
    Gone(Gap),
}

impl<S: OrderedStore + 'static> Service<S> {
    /// Events after `after` up to `upto`, serialised: at most `limit`, and none further once
    /// there are `bytes_max` bytes.
    pub(super) async fn event_lines(
        &self,
        key: TopicKey,
        tenant: &Tenant,
        after: Seq,
        upto: Seq,
        (limit, bytes_max): (usize, usize),
    ) -> Result<Lines, ServiceError> {
        if let Some(links) = self.inner.links.as_ref().filter(|links| !links.is_local(key.group)) {
            let bounds = (limit, bytes_max);
            return self.lines_elsewhere(links, key, tenant, (after, upto), bounds).await;
        }
        let wanted = upto.0.saturating_sub(after.0).min(limit as u64) as usize;
        let mut page = Page { lines: Vec::new(), bytes: 0, after, wanted, bytes_max };
        let store = &self.inner.store;
        let generation = store.applied(key.group).generation;
        let hot = CachedRows::new(&**store, key.group, generation);
        let read = match page.fill(&hot, key.number, tenant) {
            Err(ReadError::Rows(Poison::Cold)) => {
                let (store, tenant) = (Arc::clone(store), tenant.clone());
                let read = self.beside(move || {
                    let rows = BlockingRows::new(&*store, key.group, generation);
                    (page.fill(&rows, key.number, &tenant), page)
                });
                let (read, whole) = read.await?;
                page = whole;
                read
            }
            done => done,
        };
        match read {
            Ok(()) => {}
            Err(ReadError::Gap { earliest, archived_seq, .. }) if page.lines.is_empty() => {
                return Ok(Lines::Gone(Gap {
                    reason: GapReason::CursorExpired,
                    from_cursor: after,
                    next_cursor: Seq(earliest.0 - 1),
                    committed_cursor: archived_seq,
                    earliest_available_cursor: Seq(earliest.0 - 1),
                }));
            }
            // Trimmed while we read: give what we have, the next read tells.
            Err(ReadError::Gap { .. }) => {}
            Err(ReadError::NotFound) => {
                return Err(ServiceError::of(ErrorCode::SessionNotFound));
            }
            Err(ReadError::Hole { missing }) => {
                tracing::error!(group = key.group.0, session = key.number.0, %missing, "hole");
                return Err(ServiceError::new(
                    ErrorCode::EventGapDetected,
                    format!("Event {missing} of this session cannot be found on this node"),
                )
                .with("missing_seq", missing.0));
            }
            Err(ReadError::Rows(poison)) => return Err(damage(&poison.to_string())),
        }
        Ok(Lines::Events(page.lines))
    }

    /// A page of events, or with a wait the first ones to come.
    ///
    /// # Errors
    /// `session_not_found`, `session_tombstoned`, `event_gap_detected`.
    pub async fn read_events(
        &self,
        caller: &Caller,
        id: &SessionId,
        request: ReadEvents,
        fresh: Freshness,
    ) -> Result<Indexed<EventPage>, ServiceError> {
        let path = caller.session(id);
        let group = path.group(self.inner.groups);
        let (row, mut index) = self.find_readable(caller, &path, false, fresh.min_index).await?;
        let key = TopicKey { group, number: row.number };
        let member = self.inner.hub.join(key);
        self.saw(&member, &row).await;
        // Who waits when a drain begins goes elsewhere; who comes later is told to, but not at once:
        // it might ask again and again.
        let was_draining = *self.inner.draining.borrow();
        let wait_max = if was_draining { DRAINED_WAIT_MAX } else { request.wait };
        let until = Instant::now() + request.wait.min(wait_max);
        let mut confirmed = fresh.stale;
        let mut waited = false;
        let mut follow = None;
        loop {
            let wake = member.topic().wake();
            tokio::pin!(wake);
            wake.as_mut().enable();
            let sight = member.topic().sight();
            // A page is an answer and shows what is applied; only what a wait brings is a push,
            // which comes after the writer's own reply.
            let upto = if waited { sight.visible } else { sight.head };
            if request.cursor < upto {
                let mut page = self.page(key, &path.tenant, request, upto, index).await?;
                if confirmed || self.inner.links.is_none() || !page.value.up_to_date {
                    return Ok(page);
                }
                // "Nothing follows" is an absence too; another member may know more.
                match self.look_confirmed(caller.deadline, &path, &member, false).await {
                    Ok(at) => index = at,
                    Err(error) if error.code == ErrorCode::InternalError => return Err(error),
                    Err(_) => {
                        page.value.up_to_date = false;
                        return Ok(page);
                    }
                }
                confirmed = true;
                continue;
            }
            // "Nothing after the cursor" is an absence: it takes a round before it is told.
            if !confirmed {
                index = self.look_confirmed(caller.deadline, &path, &member, true).await?;
                confirmed = true;
                continue;
            }
            let left = until.saturating_duration_since(Instant::now());
            let drain_begins = !was_draining && *self.inner.draining.borrow();
            if left.is_zero() || sight.ended.is_some() || drain_begins {
                let page = EventPage {
                    events: Vec::new(),
                    next_cursor: request.cursor,
                    last_seq: upto,
                    up_to_date: true,
                };
                let index = self.index_now(group, index);
                return Ok(Indexed { value: page, index });
            }
            waited = true;
            if follow.is_none() {
                // Without one, when there are too many, the session is looked at now and then.
                follow = self.follow_elsewhere(&path, &member).ok().flatten();
            }
            if tokio::time::timeout(left.min(LOOK_AGAIN), wake).await.is_err() && follow.is_none() {
                self.look_again(&path, &member).await?;
            }
        }
    }

    async fn page(
        &self,
        key: TopicKey,
        tenant: &Tenant,
        request: ReadEvents,
        upto: Seq,
        index: Index,
    ) -> Result<Indexed<EventPage>, ServiceError> {
        let bounds = (request.limit, PAGE_BYTES_MAX);
        let lines = self.event_lines(key, tenant, request.cursor, upto, bounds).await?;
        let (events, next_cursor) = match lines {
            Lines::Events(events) => {
                let next = events.last().map_or(request.cursor, |line| line.seq);
                (events, next)
            }
            Lines::Gone(gap) => {
                return Err(ServiceError::new(
                    ErrorCode::EventGapDetected,
                    format!("Events up to {} are gone; go on from there", gap.next_cursor),
                )
                .with("next_cursor", gap.next_cursor.0));
            }
        };
        let page =
            EventPage { events, next_cursor, last_seq: upto, up_to_date: next_cursor >= upto };
        Ok(Indexed { value: page, index: self.index_now(key.group, index) })
    }

    /// How far a group is applied here, or was where it was read last.
    fn index_now(&self, group: GroupId, known: Index) -> Index {
        if self.is_here(group) { self.inner.store.applied(group).index } else { known }
    }
}

/// Events on their way into an answer.
struct Page {
    lines: Vec<EventLine>,
    /// Bytes of `lines`.
    bytes: usize,
    after: Seq,
    wanted: usize,
    bytes_max: usize,
}

impl Page {
    /// Reads on from where it stands, until it has what is wanted or there is no more.
    fn fill(
        &mut self,
        rows: &dyn Rows,
        number: ResourceNumber,
        tenant: &Tenant,
    ) -> Result<(), ReadError> {
        while self.lines.len() < self.wanted && self.bytes < self.bytes_max {
            let after = self.lines.last().map_or(self.after, |line| line.seq);
            let limit = (self.wanted - self.lines.len()).min(EVENTS_PER_READ_MAX);
            let query = EventQuery { after, limit, bytes: self.bytes_max - self.bytes };
            let read = serialise(&read_events(rows, number, query)?.events, tenant)?;
            if read.is_empty() {
                break;
            }
            self.bytes += read.iter().map(|line| line.json.len()).sum::<usize>();
            self.lines.extend(read);
        }
        Ok(())
    }
}

/// The JSON of each event, cut from one buffer.
fn serialise(events: &[StoredEvent], tenant: &Tenant) -> Result<Vec<EventLine>, ReadError> {
    let mut out = Vec::with_capacity(events.iter().map(|event| event.envelope.len() + 384).sum());
    let mut ends = Vec::with_capacity(events.len());
    for event in events {
        event_json(&mut out, event, tenant).map_err(|error| {
            ReadError::Rows(Poison::Damaged(format!("event {}: {error}", event.seq)))
        })?;
        ends.push(out.len());
    }
    let mut rest = BytesMut::from(Bytes::from(out)).freeze();
    let mut start = 0;
    Ok(events
        .iter()
        .zip(ends)
        .map(|(event, end)| {
            let json = rest.split_to(end - start);
            start = end;
            EventLine { seq: event.seq, json }
        })
        .collect())
}
