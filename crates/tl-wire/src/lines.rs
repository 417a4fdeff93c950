//! Lines of an export: a session, then its events.
//!
//! ```text
//! {"session":{"id":…,"title":…,"metadata":…,…}}
//! {"event":{"seq":1,"type":…,…}}
//! ```
//!
//! A file may hold many sessions, one after another. An event line holds the event's JSON byte
//! for byte as a tail shows it; on the way in, the members that the server sets are ignored.

#[cfg(test)]
mod tests;

use bytes::Bytes;
use tl_types::{ErrorCode, Seq};

use crate::append::{DefaultProducer, EventParts, ParsedEvent, put_event};
use crate::error::WireError;
use crate::json::{Kind, Scanner};
use crate::reply::{SessionView, session_row_with_tenant};
use crate::session::{CreateRequest, Fields};

/// Writes a session line, without its line end.
pub fn session_line(out: &mut Vec<u8>, view: &SessionView<'_>) {
    out.extend_from_slice(b"{\"session\":");
    session_row_with_tenant(out, view);
    out.push(b'}');
}

/// Writes an event line, without its line end, around the event's JSON.
pub fn event_line(out: &mut Vec<u8>, event_json: &[u8]) {
    out.extend_from_slice(b"{\"event\":");
    out.extend_from_slice(event_json);
    out.push(b'}');
}

/// One line of an export.
#[derive(Debug)]
pub enum Line {
    /// A session starts; the events behind it are its own.
    Session(CreateRequest),
    /// An event of the session named last.
    Event(Box<LineEvent>),
}

/// An event line whose fields have not been judged yet.
#[derive(Debug)]
pub struct LineEvent {
    out: Bytes,
    parts: EventParts,
}

impl LineEvent {
    /// The position that the line states, if it states one.
    #[must_use]
    pub fn stated_seq(&self) -> Option<Seq> {
        self.parts.stated_seq(&self.out)
    }

    /// Judges the fields. An event that names neither part of a producer position gets the
    /// given one.
    ///
    /// # Errors
    /// [`WireError`] naming the field at fault.
    pub fn check(&self, producer_id: &str, producer_seq: u64) -> Result<ParsedEvent, WireError> {
        let default = DefaultProducer { id: producer_id, seq: producer_seq };
        self.parts.check_with(&self.out, Some(default))
    }
}

impl Line {
    /// Reads one line, without its line end. Members beside `session` or `event` are ignored.
    ///
    /// # Errors
    /// [`WireError`] when the line is not JSON or is neither a session nor an event, or when
    /// the session breaks a rule.
    pub fn parse(line: &[u8]) -> Result<Line, WireError> {
        let mut scanner = Scanner::new(line);
        if scanner.peek_kind()? != Kind::Object {
            scanner.value()?;
            scanner.finish()?;
            return Err(neither());
        }
        let (mut session, mut event) = (None, None);
        let mut object = scanner.begin_object()?;
        scanner.count_depth_from_here();
        while let Some(key) = scanner.next_key(&mut object)? {
            match &*scanner.name(&key) {
                b"session" => session = Some(Fields::scan(&mut scanner)?),
                b"event" => event = Some(put_event(&mut scanner)?),
                _ => drop(scanner.value()?),
            }
        }
        scanner.finish()?;
        match (session, event) {
            (Some(fields), None) => Ok(Line::Session(fields.create(&scanner)?)),
            (None, Some(parts)) => {
                let out = scanner.into_out().into();
                Ok(Line::Event(Box::new(LineEvent { out, parts })))
            }
            (None, None) | (Some(_), Some(_)) => Err(neither()),
        }
    }
}

fn neither() -> WireError {
    WireError::new(
        ErrorCode::InvalidEvent,
        "A line must be an object with either a session or an event in it",
    )
}
