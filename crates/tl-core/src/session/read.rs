//! Reading events: pages of whole events, contiguous, oldest first.

use tl_types::limits::PAGE_BYTES_MAX;
use tl_types::{ResourceNumber, RowKey, Seq, StoredEvent};

use super::{SessionHeader, load_header};
use crate::rows::{Poison, Rows};
use crate::view::View;

/// Rows asked for at first; later steps follow from how large these were.
const FIRST_STEP_ROWS: usize = 16;

/// Which events to read.
#[derive(Debug, Clone, Copy)]
pub struct EventQuery {
    /// Exclusive: `Seq(0)` starts at the first event.
    pub after: Seq,
    /// Most events.
    pub limit: usize,
    /// Most bytes of rows; at least one whole event is given all the same.
    pub bytes: usize,
}

impl EventQuery {
    /// As many events as a page has bytes for.
    #[must_use]
    pub fn page(after: Seq, limit: usize) -> EventQuery {
        EventQuery { after, limit, bytes: PAGE_BYTES_MAX }
    }
}

/// Events right after the cursor, and the session at that moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventPage {
    /// Contiguous from `after + 1`; empty when the cursor is at or past the end.
    pub events: Vec<StoredEvent>,
    /// The session's header.
    pub header: SessionHeader,
}

/// Why events could not be given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No session has this number.
    #[error("no such session")]
    NotFound,
    /// Events right after the cursor were trimmed from this tier; read the archive, or go on at
    /// `earliest`.
    #[error("events before {earliest} are gone from this tier")]
    Gap {
        /// First event still held; one past the end when none is.
        earliest: Seq,
        /// Archived up to here.
        archived_seq: Seq,
        /// Last position given out.
        last_seq: Seq,
    },
    /// An event that must be held is missing: damage, never skipped over.
    #[error("event {missing} is missing")]
    Hole {
        /// The missing position.
        missing: Seq,
    },
    /// A row was cold or damaged.
    #[error(transparent)]
    Rows(#[from] Poison),
}

/// Reads events of a session, oldest first; at most `limit` events and `bytes` bytes, always
/// whole events without a hole. An empty list means "caught up", not "end".
///
/// # Errors
/// [`ReadError`].
pub fn read_events(
    rows: &dyn Rows,
    number: ResourceNumber,
    query: EventQuery,
) -> Result<EventPage, ReadError> {
    let mut view = View::new(rows);
    let seen = events_in(&mut view, number, query);
    // What was read past a poison means nothing, so the poison comes first.
    match view.into_writes() {
        Ok(_) => seen,
        Err(poison) => Err(poison.into()),
    }
}

fn events_in(
    view: &mut View<'_>,
    number: ResourceNumber,
    query: EventQuery,
) -> Result<EventPage, ReadError> {
    let header = load_header(view, number).ok_or(ReadError::NotFound)?;
    let (floor, last) = (header.floor_seq, header.last_seq);
    if query.after < floor {
        let archived_seq = header.archived_seq;
        return Err(ReadError::Gap { earliest: floor.next(), archived_seq, last_seq: last });
    }
    let wanted = last.0.saturating_sub(query.after.0).min(query.limit as u64) as usize;
    let mut events: Vec<StoredEvent> = Vec::with_capacity(wanted.min(1_024));
    let mut bytes = 0;
    let mut step = FIRST_STEP_ROWS;
    while events.len() < wanted {
        let next = Seq(query.after.0 + events.len() as u64 + 1);
        let count = step.min(wanted - events.len());
        let end = RowKey::event(number, Seq(next.0 + count as u64));
        let found = view.range(&RowKey::event(number, next), &end, count);
        for (place, (key, row)) in found.iter().enumerate() {
            let seq = Seq(next.0 + place as u64);
            if key.event_seq() != Some(seq) {
                return Err(ReadError::Hole { missing: seq });
            }
            bytes += row.len();
            if bytes > query.bytes && !events.is_empty() {
                return Ok(EventPage { events, header });
            }
            match StoredEvent::decode_row(seq, row.clone()) {
                Ok(event) => events.push(event),
                Err(error) => {
                    // The poison speaks for the page; asking for the same row again would not end.
                    view.damaged(format!("event {seq} of session {number}: {error}"));
                    return Ok(EventPage { events, header });
                }
            }
        }
        if found.len() < count {
            return Err(ReadError::Hole { missing: Seq(next.0 + found.len() as u64) });
        }
        // As many rows as should fit the rest of the budget, going by those seen so far.
        let row_bytes = (bytes / events.len().max(1)).max(1);
        step = (query.bytes.saturating_sub(bytes) / row_bytes).max(1);
    }
    Ok(EventPage { events, header })
}
