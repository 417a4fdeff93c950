//! Append bodies: one event, a JSON batch, or a batch with one event per line.
//!
//! ```text
//! body ── one pass ──> RawEvent ── field rules ──> ParsedEvent ── principal ──> SealedEvent
//!         (scan)       (places)    (rules)         (values)       (seal)        (envelope, hash)
//! ```
//!
//! Invariants:
//!  - Errors of the JSON come before errors of its fields; fields are judged in a fixed order.
//!  - Unknown fields are ignored. `null` in an optional field means that it is absent.
//!  - An event is no deeper than the depth limit counted from itself, however it is sent.
//!
//! Absent on purpose: what the session holds. Positions, conflicts and dedupe are decided by
//! the rules behind the log.

mod rules;
mod scan;
mod seal;

#[cfg(test)]
mod tests;

use bytes::Bytes;
use tl_types::limits::{BATCH_BYTES_MAX, BATCH_EVENTS_MAX, BODY_BYTES_MAX};
use tl_types::{ErrorCode, Seq, UnixMs};

use crate::error::WireError;
use crate::json::{HashSum, Scanner};
use rules::expected_seq;
use scan::{Batch, RawEvent, Top};

pub use seal::{HASH_ALGORITHM, SealedEvent};

pub(crate) use rules::{DefaultProducer, digits, whole_number};
pub(crate) use scan::{RawEvent as EventParts, put_event};

/// An event whose fields have been checked, before it is known who sends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedEvent {
    event_type: Part,
    payload: Part,
    actor: Option<Bytes>,
    source: Option<Part>,
    metadata: Metadata,
    refs: Option<Part>,
    idempotency_key: Option<Part>,
    producer_id: Part,
    producer_seq: u64,
    event_time: Option<UnixMs>,
    compact_bytes: usize,
}

impl ParsedEvent {
    /// Who numbers this write.
    #[must_use]
    pub fn producer_id(&self) -> &Bytes {
        &self.producer_id.bytes
    }

    /// The producer's position.
    #[must_use]
    pub fn producer_seq(&self) -> u64 {
        self.producer_seq
    }

    /// Size of the event's JSON object as sent, without insignificant whitespace.
    #[must_use]
    pub fn compact_bytes(&self) -> usize {
        self.compact_bytes
    }
}

/// Bytes of a field and their content hash.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    bytes: Bytes,
    hash: u128,
}

/// Metadata with the client's own `starcite_principal` taken out, ready to take the real one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Metadata {
    /// Members without the braces, compact.
    inner: Bytes,
    members: HashSum,
    /// Members of the client's `starcite_principal` that the server does not set, compact.
    principal_inner: Bytes,
    principal_members: HashSum,
}

/// A single append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendRequest {
    /// The event.
    pub event: ParsedEvent,
    /// Append only if the session's last position is this.
    pub expected_seq: Option<Seq>,
}

/// A batch append: all of it or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchRequest {
    /// At least one event.
    pub events: Vec<ParsedEvent>,
    /// Append only if the session's last position is this.
    pub expected_seq: Option<Seq>,
}

/// A JSON append body: with a member `events` it is a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "moved once; a box would cost every single append")]
pub enum AppendBody {
    /// `{"type","payload",…}`
    Single(AppendRequest),
    /// `{"events":[…],"expected_seq"?}`
    Batch(BatchRequest),
}

impl AppendBody {
    /// Reads a body of content type `application/json`.
    ///
    /// # Errors
    /// [`WireError`] naming the field (and for a batch the `index`) at fault.
    pub fn parse(body: &[u8]) -> Result<AppendBody, WireError> {
        check_body_bytes(body)?;
        let mut scanner = Scanner::new(body);
        let top = scan::top(&mut scanner)?;
        let out = Bytes::from(scanner.into_out());
        match top {
            Top::Single { event, expected_seq: node } => {
                let expected_seq = expected_seq(&out, node)?;
                let event = event.check(&out)?;
                Ok(AppendBody::Single(AppendRequest { event, expected_seq }))
            }
            Top::Batch { events, expected_seq: node } => {
                let expected_seq = expected_seq(&out, node)?;
                let Batch::Events(events) = events else {
                    return Err(WireError::new(
                        ErrorCode::InvalidEvent,
                        "events must be an array of event objects",
                    ));
                };
                Ok(AppendBody::Batch(batch(&events, |_| &out, expected_seq)?))
            }
        }
    }
}

impl BatchRequest {
    /// Reads a body of content type `application/x-ndjson`: one event per line, the last line
    /// may be blank. `expected_seq` comes from the query.
    ///
    /// # Errors
    /// [`WireError`] naming the field and the `index` (the line, from 0) at fault.
    pub fn parse_lines(body: &[u8], expected_seq: Option<Seq>) -> Result<BatchRequest, WireError> {
        check_body_bytes(body)?;
        let body = body.trim_ascii_end();
        if body.is_empty() {
            return Err(empty_batch());
        }
        let mut events = Vec::new();
        let mut outs = Vec::new();
        for (index, line) in body.split(|&byte| byte == b'\n').enumerate() {
            check_count(index + 1)?;
            let mut scanner = Scanner::new(line);
            let event = scan::line(&mut scanner).map_err(|error| error.at_index(index))?;
            events.push(event);
            outs.push(Bytes::from(scanner.into_out()));
        }
        batch(&events, |index| &outs[index], expected_seq)
    }
}

fn batch<'a>(
    events: &[RawEvent],
    out: impl Fn(usize) -> &'a Bytes,
    expected_seq: Option<Seq>,
) -> Result<BatchRequest, WireError> {
    if events.is_empty() {
        return Err(empty_batch());
    }
    let bytes = events.iter().map(RawEvent::compact_bytes).sum();
    if bytes > BATCH_BYTES_MAX {
        return Err(WireError::too_large("the batch", "bytes", BATCH_BYTES_MAX, bytes));
    }
    let events = events
        .iter()
        .enumerate()
        .map(|(index, event)| {
            let checked = event.check_unguarded().and_then(|()| event.check(out(index)));
            checked.map_err(|error| error.at_index(index))
        })
        .collect::<Result<_, _>>()?;
    Ok(BatchRequest { events, expected_seq })
}

fn empty_batch() -> WireError {
    WireError::new(ErrorCode::InvalidEvent, "The batch holds no event: send at least one")
}

fn check_count(events: usize) -> Result<(), WireError> {
    if events > BATCH_EVENTS_MAX {
        let message = format!("the batch has more than {BATCH_EVENTS_MAX} events: split it");
        return Err(WireError::new(ErrorCode::PayloadTooLarge, message)
            .with("limit", BATCH_EVENTS_MAX)
            .with("unit", "events"));
    }
    Ok(())
}

/// Whoever reads the body off a connection stops at the same limit; this one guards callers
/// that have the bytes already.
fn check_body_bytes(body: &[u8]) -> Result<(), WireError> {
    if body.len() > BODY_BYTES_MAX {
        return Err(WireError::too_large("the body", "bytes", BODY_BYTES_MAX, body.len()));
    }
    Ok(())
}
