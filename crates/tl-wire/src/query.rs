//! Query strings and path segments.
//!
//! Rules for every query: unknown parameters are ignored, of a parameter given twice the last
//! one counts, names and values are percent-decoded and `+` is a space. A value that does not
//! decode to UTF-8 is refused with the code of its parameter.

mod decode;
mod list;

#[cfg(test)]
mod tests;

use tl_types::limits::{PAGE_DEFAULT, PAGE_MAX, TAIL_BATCH_MAX, WAIT_MS_MAX};
use tl_types::{ErrorCode, Index, Seq, SessionId};

use crate::append::digits;
use crate::error::WireError;
use crate::session::invalid_session_id;
use decode::{Value, pairs, percent_decode};

pub use list::{ListQuery, Listing};

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Freshness {
    /// `consistent=true`: as fresh as the newest acknowledged write anywhere.
    pub consistent: bool,
    /// `stale=true`: whatever this node has, at once.
    pub stale: bool,
    /// `min_index=N`: not older than an acknowledgement that carried this index.
    pub min_index: Option<Index>,
}

impl Freshness {
    /// Reads the parameters of a request that has no others (a session by id, a change).
    ///
    /// # Errors
    /// [`ErrorCode::InvalidListQuery`] when a value is not one of the allowed.
    pub fn parse(query: &str) -> Result<Freshness, WireError> {
        let mut freshness = Freshness::default();
        for pair in pairs(query) {
            freshness.take(&pair.name, &pair.value, ErrorCode::InvalidListQuery)?;
        }
        Ok(freshness)
    }

    /// Takes one parameter; false when it is another one.
    fn take(&mut self, name: &str, value: &Value, code: ErrorCode) -> Result<bool, WireError> {
        match name {
            "consistent" => self.consistent = flag(name, value, code)?,
            "stale" => self.stale = flag(name, value, code)?,
            "min_index" => self.min_index = Some(Index(whole(name, value, code)?)),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// Where a tail starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TailStart {
    /// Behind this position; 0 is the start.
    After(Seq),
    /// Behind the last event, whatever it is when the tail opens.
    Latest,
    /// This many events before the end, or at the start when there are fewer.
    Last(u64),
}

/// Query of a tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TailQuery {
    /// Where to start.
    pub start: TailStart,
    /// Most events in a frame. With 1 a frame is one object, else a list.
    pub batch_size: usize,
    /// How fresh the session must be.
    pub freshness: Freshness,
}

impl TailQuery {
    /// Reads a query.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidCursor`] for `cursor`, `from`, both at once, or a freshness
    /// parameter; [`ErrorCode::InvalidTailBatchSize`] for `batch_size`.
    pub fn parse(query: &str) -> Result<TailQuery, WireError> {
        let code = ErrorCode::InvalidCursor;
        let mut freshness = Freshness::default();
        let (mut cursor, mut from, mut batch_size) = (None, None, None);
        for pair in pairs(query) {
            match &*pair.name {
                "cursor" => cursor = Some(pair.value),
                "from" => from = Some(pair.value),
                "batch_size" => batch_size = Some(pair.value),
                name => drop(freshness.take(name, &pair.value, code)?),
            }
        }
        let start = match (cursor, from) {
            (Some(_), Some(_)) => {
                return Err(WireError::new(code, "cursor and from exclude each other: send one"));
            }
            (Some(cursor), None) => TailStart::After(Seq(whole("cursor", &cursor, code)?)),
            (None, Some(from)) => start_of(&from)?,
            (None, None) => TailStart::After(Seq(0)),
        };
        let batch_size = match batch_size {
            None => 1,
            Some(value) => {
                let code = ErrorCode::InvalidTailBatchSize;
                ranged("batch_size", &value, code, 1, TAIL_BATCH_MAX as u64)? as usize
            }
        };
        Ok(TailQuery { start, batch_size, freshness })
    }

    /// Takes a `Last-Event-ID` header, which wins over what the query says: a reader that
    /// reconnects repeats its first query.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidCursor`] when it is not a position.
    pub fn resume_after(mut self, last_event_id: &str) -> Result<TailQuery, WireError> {
        let value = Some(last_event_id.to_owned());
        let seq = whole("Last-Event-ID", &value, ErrorCode::InvalidCursor)?;
        self.start = TailStart::After(Seq(seq));
        Ok(self)
    }
}

fn start_of(from: &Value) -> Result<TailStart, WireError> {
    let start = match from.as_deref() {
        Some("latest") => Some(TailStart::Latest),
        Some("earliest") => Some(TailStart::After(Seq(0))),
        Some(text) => {
            text.strip_prefix('-').and_then(|count| digits(count.as_bytes())).map(TailStart::Last)
        }
        None => None,
    };
    start.ok_or_else(|| {
        WireError::new(
            ErrorCode::InvalidCursor,
            "from must be latest, earliest or -N, N being a number of events",
        )
    })
}

/// Query of a page of events, or of a long poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventsQuery {
    /// Events behind this position; 0 is the start.
    pub cursor: Seq,
    /// Most events in the page.
    pub limit: usize,
    /// How long to wait for an event when there is none yet.
    pub wait_ms: u64,
    /// How fresh the page must be.
    pub freshness: Freshness,
}

impl EventsQuery {
    /// Reads a query.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidCursor`] (also for freshness parameters),
    /// [`ErrorCode::InvalidLimit`], [`ErrorCode::InvalidWaitMs`].
    pub fn parse(query: &str) -> Result<EventsQuery, WireError> {
        let code = ErrorCode::InvalidCursor;
        let mut freshness = Freshness::default();
        let (mut cursor, mut limit, mut wait_ms) = (None, None, None);
        for pair in pairs(query) {
            match &*pair.name {
                "cursor" => cursor = Some(pair.value),
                "limit" => limit = Some(pair.value),
                "wait_ms" => wait_ms = Some(pair.value),
                name => drop(freshness.take(name, &pair.value, code)?),
            }
        }
        let cursor = cursor.map_or(Ok(0), |value| whole("cursor", &value, code))?;
        let wait_ms = wait_ms.map_or(Ok(0), |value| {
            ranged("wait_ms", &value, ErrorCode::InvalidWaitMs, 0, WAIT_MS_MAX)
        })?;
        Ok(EventsQuery { cursor: Seq(cursor), limit: page_limit(limit)?, wait_ms, freshness })
    }
}

/// The `expected_seq` of an append whose body has no place for it.
///
/// # Errors
/// [`ErrorCode::InvalidEvent`] when it is not a position.
pub fn append_expected_seq(query: &str) -> Result<Option<Seq>, WireError> {
    let sent = pairs(query).filter(|pair| pair.name == "expected_seq").last();
    let Some(pair) = sent else { return Ok(None) };
    Ok(Some(Seq(whole("expected_seq", &pair.value, ErrorCode::InvalidEvent)?)))
}

/// The session id in a path segment as sent, before any decoding: `%2F` is part of the id.
///
/// # Errors
/// [`ErrorCode::InvalidSessionId`] when it does not decode or breaks the rule for ids.
pub fn session_id(segment: &str) -> Result<SessionId, WireError> {
    percent_decode(segment.as_bytes(), false)
        .and_then(|text| SessionId::new(&text))
        .ok_or_else(invalid_session_id)
}

fn page_limit(limit: Option<Value>) -> Result<usize, WireError> {
    let Some(value) = limit else { return Ok(PAGE_DEFAULT) };
    Ok(ranged("limit", &value, ErrorCode::InvalidLimit, 1, PAGE_MAX as u64)? as usize)
}

fn whole(name: &str, value: &Value, code: ErrorCode) -> Result<u64, WireError> {
    value.as_deref().and_then(|text| digits(text.as_bytes())).ok_or_else(|| {
        let message = format!("{name} must be a whole number from 0 to 9007199254740991");
        WireError::new(code, message)
    })
}

fn ranged(
    name: &str,
    value: &Value,
    code: ErrorCode,
    min: u64,
    max: u64,
) -> Result<u64, WireError> {
    value
        .as_deref()
        .and_then(|text| digits(text.as_bytes()))
        .filter(|value| (min..=max).contains(value))
        .ok_or_else(|| {
            let message = format!("{name} must be a whole number from {min} to {max}");
            WireError::new(code, message).with("limit", max)
        })
}

fn flag(name: &str, value: &Value, code: ErrorCode) -> Result<bool, WireError> {
    match value.as_deref() {
        Some("true") => Ok(true),
        Some("false") => Ok(false),
        Some(_) | None => Err(WireError::new(code, format!("{name} must be true or false"))),
    }
}
