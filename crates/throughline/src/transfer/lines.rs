//! The lines of an export, read one by one with a limit on each.

use std::io::{BufRead, Read};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tl_client::{Event, NewEvent, Session};

/// Longest line, bytes: an event at its limit with metadata at its limit, and room for escapes.
pub const LINE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// One line of a file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// Starts a session; the events that follow belong to it.
    Session(SessionLine),
    /// One event.
    Event(Box<EventLine>),
}

/// What an import needs to know of a session; other members are passed over.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SessionLine {
    pub id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub archived: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

impl SessionLine {
    /// What an import needs to make this session again.
    pub fn lean(session: &Session) -> SessionLine {
        let metadata = Some(session.metadata.clone()).filter(|metadata| metadata.get() != "{}");
        let state = Some(session.state.clone()).filter(|state| state == "closed");
        SessionLine {
            id: session.id.clone(),
            title: session.title.clone(),
            metadata,
            archived: session.archived,
            state,
        }
    }
}

/// What an import needs to know of an event: what its sender said. Members that a server adds
/// (`seq`, `inserted_at`, …) are passed over.
#[derive(Debug, Serialize, Deserialize)]
pub struct EventLine {
    #[serde(rename = "type")]
    event_type: String,
    payload: Box<RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    actor: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metadata: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refs: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    event_time: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    producer_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    producer_seq: Option<u64>,
}

/// An event with the producer position it is imported at.
#[derive(Debug, Clone)]
pub struct Positioned {
    pub event: NewEvent,
    pub producer_id: String,
    pub producer_seq: u64,
}

/// The producer of events that name none.
pub fn import_producer(session: &str) -> String {
    format!("import:{session}")
}

impl EventLine {
    /// The event at its own position, or at the one an import gives it.
    ///
    /// # Errors
    /// When only one half of a position is there.
    pub fn position(self, session: &str, ordinal: u64) -> anyhow::Result<Positioned> {
        let (producer_id, producer_seq) = match (self.producer_id, self.producer_seq) {
            (Some(id), Some(seq)) => (id, seq),
            (None, None) => (import_producer(session), ordinal),
            (Some(_), None) | (None, Some(_)) => {
                bail!("an event has both producer_id and producer_seq, or neither")
            }
        };
        let event = NewEvent {
            event_type: self.event_type,
            payload: self.payload,
            actor: self.actor,
            source: self.source,
            metadata: self.metadata,
            refs: self.refs,
            idempotency_key: self.idempotency_key,
            event_time: self.event_time,
        };
        Ok(Positioned { event, producer_id, producer_seq })
    }

    /// What an import needs to make event number `ordinal` of a session again.
    ///
    /// # Errors
    /// When the stored event is not one.
    pub fn lean(event: &Event, session: &str, ordinal: u64) -> anyhow::Result<EventLine> {
        let content = NewEvent::from_event(event).context("an event is not understood")?;
        let by_import =
            *event.producer_id == import_producer(session) && event.producer_seq == ordinal;
        Ok(EventLine {
            event_type: content.event_type,
            payload: content.payload,
            actor: content.actor,
            source: content.source,
            metadata: content.metadata,
            refs: content.refs,
            idempotency_key: content.idempotency_key,
            event_time: content.event_time.map(|at| at.replace(".000Z", "Z")),
            producer_id: (!by_import).then(|| event.producer_id.to_string()),
            producer_seq: (!by_import).then_some(event.producer_seq),
        })
    }
}

/// Reads lines with their numbers and lengths; blank ones are passed over.
pub struct LineReader<R> {
    source: R,
    buffer: Vec<u8>,
    number: u64,
}

impl<R: BufRead> LineReader<R> {
    pub fn new(source: R) -> LineReader<R> {
        LineReader { source, buffer: Vec::new(), number: 0 }
    }

    /// Number of the line read last, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The next line and its length in bytes, or `None` at the end.
    ///
    /// # Errors
    /// When reading fails, or a line is too long or not one of ours.
    pub fn next(&mut self) -> anyhow::Result<Option<(Line, usize)>> {
        loop {
            self.buffer.clear();
            self.number += 1;
            let limit = LINE_BYTES_MAX as u64 + 1;
            let read = (&mut self.source).take(limit).read_until(b'\n', &mut self.buffer)?;
            if read == 0 {
                return Ok(None);
            }
            if read > LINE_BYTES_MAX {
                bail!("line {} is longer than {LINE_BYTES_MAX} bytes", self.number);
            }
            if self.buffer.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let line = serde_json::from_slice(&self.buffer).with_context(|| {
                format!(
                    "line {} is neither {{\"session\":{{…}}}} nor {{\"event\":{{…}}}}",
                    self.number
                )
            })?;
            return Ok(Some((line, read)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> anyhow::Result<Vec<Line>> {
        let mut reader = LineReader::new(text.as_bytes());
        let mut lines = Vec::new();
        while let Some((line, _)) = reader.next()? {
            lines.push(line);
        }
        Ok(lines)
    }

    #[test]
    fn lines_of_a_full_export_are_read_back() {
        let text = r#"{"session":{"id":"s","title":null,"metadata":{"a":1},"version":3,"archived":true}}

{"event":{"seq":9,"type":"m","payload":{},"producer_id":"p","producer_seq":4,"inserted_at":"x"}}
{"event":{"type":"m","payload":{}}}"#;
        let lines = all(text).expect("lines");
        assert_eq!(lines.len(), 3);
        let positions: Vec<_> = lines
            .into_iter()
            .filter_map(|line| match line {
                Line::Event(event) => Some(event.position("s", 2).expect("position")),
                Line::Session(session) => {
                    assert!(session.archived && session.title.is_none());
                    None
                }
            })
            .map(|event| (event.producer_id, event.producer_seq))
            .collect();
        assert_eq!(positions, [("p".into(), 4), ("import:s".into(), 2)]);
    }

    #[test]
    fn other_lines_are_refused_with_their_number() {
        for bad in ["{}", "[]", "{\"event\":{}}", "x", "{\"session\":{}}"] {
            let error = all(&format!("\n{bad}\n")).expect_err(bad);
            assert!(error.to_string().starts_with("line 2 "), "{error}");
        }
        assert!(all(&"x".repeat(LINE_BYTES_MAX + 1)).is_err());
        let half =
            serde_json::from_str::<EventLine>(r#"{"type":"m","payload":{},"producer_seq":1}"#);
        assert!(half.expect("a line").position("s", 1).is_err());
    }

    #[test]
    fn a_lean_line_says_only_what_an_import_needs() {
        let event = Event::parse(
            r#"{"seq":1,"type":"message","payload":{"text":"x"},"actor":"user:u","producer_id":"import:s","producer_seq":1,"metadata":{"starcite_principal":{}},"refs":{},"event_time":"2018-05-02T00:00:01.000Z","inserted_at":"2026-01-01T00:00:00.000Z"}"#.into(),
        )
        .expect("event");
        let line = EventLine::lean(&event, "s", 1).expect("line");
        assert_eq!(
            serde_json::to_string(&line).expect("json"),
            r#"{"type":"message","payload":{"text":"x"},"actor":"user:u","event_time":"2018-05-02T00:00:01Z"}"#
        );
        let other = EventLine::lean(&event, "s", 2).expect("line");
        assert_eq!((other.producer_id.as_deref(), other.producer_seq), (Some("import:s"), Some(1)));
    }
}
