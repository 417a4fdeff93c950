//! Replies and frames: sessions, appends, pages, gaps, ends, and the JSON of an event.
//!
//! Each function appends one JSON value on one line to a buffer. The same input always gives the
//! same bytes: event lines are archived as they are.

mod event;
mod session;

#[cfg(test)]
mod tests;

use tl_types::Seq;

use crate::json::write::{boolean, number, string};

pub use event::event_json;
pub use session::{SessionState, SessionView, list_page, session_row, session_row_with_tenant};

/// What an append achieved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Position of the write's first event.
    pub first_seq: Seq,
    /// Position of the write's last event.
    pub last_seq: Seq,
    /// Last position of the session.
    pub head_seq: Seq,
    /// True when an earlier, identical write was answered again.
    pub deduped: bool,
    /// Everything up to here is in the archive.
    pub committed_cursor: Seq,
}

/// Reply to a single append: `last_seq` is the session's.
pub fn append_reply(out: &mut Vec<u8>, appended: &Appended) {
    let mut object = Object::new(out);
    object.number("seq", appended.first_seq.0);
    object.number("last_seq", appended.head_seq.0);
    object.boolean("deduped", appended.deduped);
    object.number("cursor", appended.first_seq.0);
    object.number("committed_cursor", appended.committed_cursor.0);
    object.end();
}

/// Reply to a batch append: `last_seq` is that of the batch's last event.
pub fn batch_reply(out: &mut Vec<u8>, appended: &Appended) {
    let mut object = Object::new(out);
    object.number("first_seq", appended.first_seq.0);
    object.number("last_seq", appended.last_seq.0);
    object.number("count", appended.last_seq.0 + 1 - appended.first_seq.0);
    object.boolean("deduped", appended.deduped);
    object.number("cursor", appended.last_seq.0);
    object.number("committed_cursor", appended.committed_cursor.0);
    object.end();
}

/// A list of events that are JSON already: a frame of a tail with a batch size above 1.
pub fn event_list<'a>(out: &mut Vec<u8>, events: impl IntoIterator<Item = &'a [u8]>) {
    out.push(b'[');
    for (index, event) in events.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(event);
    }
    out.push(b']');
}

/// A page of events that are JSON already.
pub fn events_page<'a>(
    out: &mut Vec<u8>,
    events: impl IntoIterator<Item = &'a [u8]>,
    next_cursor: Seq,
    last_seq: Seq,
    up_to_date: bool,
) {
    let mut object = Object::new(out);
    event_list(object.key("events"), events);
    object.number("next_cursor", next_cursor.0);
    object.number("last_seq", last_seq.0);
    object.boolean("up_to_date", up_to_date);
    object.end();
}

/// Why events behind a cursor cannot be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapReason {
    /// They are no longer kept.
    CursorExpired,
    /// The cursor is ahead of the session, or belongs to another life of it.
    ResumeInvalidated,
}

impl GapReason {
    /// The word on the wire.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            GapReason::CursorExpired => "cursor_expired",
            GapReason::ResumeInvalidated => "resume_invalidated",
        }
    }
}

/// Notice that a tail goes on elsewhere than its reader asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// Why.
    pub reason: GapReason,
    /// Where the reader was.
    pub from_cursor: Seq,
    /// Where the tail goes on.
    pub next_cursor: Seq,
    /// Everything up to here is in the archive.
    pub committed_cursor: Seq,
    /// The smallest cursor that can be served.
    pub earliest_available_cursor: Seq,
}

/// A gap frame.
pub fn gap_json(out: &mut Vec<u8>, gap: &Gap) {
    let mut object = Object::new(out);
    object.string("type", "gap");
    object.string("reason", gap.reason.word());
    object.number("from_cursor", gap.from_cursor.0);
    object.number("next_cursor", gap.next_cursor.0);
    object.number("committed_cursor", gap.committed_cursor.0);
    object.number("earliest_available_cursor", gap.earliest_available_cursor.0);
    object.end();
}

/// The last frame of a tail whose session takes no more events.
pub fn end_json(out: &mut Vec<u8>, state: SessionState, last_seq: Seq) {
    let mut object = Object::new(out);
    object.string("type", "end");
    object.string("reason", state.word());
    object.number("last_seq", last_seq.0);
    object.end();
}

/// An object that is being written, members in the order of the calls.
struct Object<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl<'a> Object<'a> {
    fn new(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Object { out, first: true }
    }

    /// Writes a name; the caller writes the value. Names are plain words.
    fn key(&mut self, name: &'static str) -> &mut Vec<u8> {
        if !self.first {
            self.out.push(b',');
        }
        self.first = false;
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    fn raw(&mut self, name: &'static str, json: &[u8]) {
        self.key(name).extend_from_slice(json);
    }

    fn string(&mut self, name: &'static str, value: &str) {
        string(self.key(name), value);
    }

    fn number(&mut self, name: &'static str, value: u64) {
        number(self.key(name), value);
    }

    fn boolean(&mut self, name: &'static str, value: bool) {
        boolean(self.key(name), value);
    }

    fn end(self) {
        self.out.push(b'}');
    }
}
