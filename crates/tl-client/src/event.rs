//! One event as it came off the wire: its bytes, and what a reader needs to place it.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tl_types::Seq;

/// An event with its exact JSON. Only the position, producer and type are decoded; the rest is
/// read on demand with [`Event::fields`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Position in the session.
    pub seq: Seq,
    /// Kind of event.
    pub event_type: Box<str>,
    /// Who numbered this write.
    pub producer_id: Box<str>,
    /// The producer's own position.
    pub producer_seq: u64,
    raw: Bytes,
}

#[derive(Deserialize)]
struct Light<'a> {
    seq: u64,
    #[serde(rename = "type", borrow)]
    event_type: Cow<'a, str>,
    #[serde(borrow)]
    producer_id: Cow<'a, str>,
    producer_seq: u64,
}

/// The members of an event, borrowed from its bytes.
#[derive(Debug, Deserialize)]
pub struct EventFields<'a> {
    /// Kind of event.
    #[serde(rename = "type", borrow)]
    pub event_type: Cow<'a, str>,
    /// What was sent, as compact JSON.
    #[serde(borrow)]
    pub payload: &'a RawValue,
    /// Who acted.
    #[serde(borrow, default)]
    pub actor: Cow<'a, str>,
    /// Where it came from.
    #[serde(default)]
    pub source: Option<Cow<'a, str>>,
    /// The sender's metadata with what the server added.
    #[serde(borrow, default)]
    pub metadata: Option<&'a RawValue>,
    /// References to other events.
    #[serde(borrow, default)]
    pub refs: Option<&'a RawValue>,
    /// Kept for readers.
    #[serde(default)]
    pub idempotency_key: Option<Cow<'a, str>>,
    /// When it happened, if the sender said so.
    #[serde(default)]
    pub event_time: Option<Cow<'a, str>>,
    /// When it was committed.
    #[serde(default)]
    pub inserted_at: Option<Cow<'a, str>>,
}

impl Event {
    /// Reads one event object.
    ///
    /// # Errors
    /// When the bytes are not a JSON object with the members of an event.
    pub fn parse(raw: Bytes) -> Result<Event, serde_json::Error> {
        let light: Light<'_> = serde_json::from_slice(&raw)?;
        Ok(Event {
            seq: Seq(light.seq),
            event_type: light.event_type.into(),
            producer_id: light.producer_id.into(),
            producer_seq: light.producer_seq,
            raw,
        })
    }

    /// Reads a JSON array of events; each keeps a slice of `raw`, not a copy.
    ///
    /// # Errors
    /// When the bytes are not an array of events.
    pub fn parse_array(raw: &Bytes) -> Result<Vec<Event>, serde_json::Error> {
        let items: Vec<&RawValue> = serde_json::from_slice(raw)?;
        items.into_iter().map(|item| Event::parse(raw.slice_ref(item.get().as_bytes()))).collect()
    }

    /// The exact bytes of the event's JSON object.
    #[must_use]
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// All members.
    ///
    /// # Errors
    /// When a member has a type that an event never has.
    pub fn fields(&self) -> Result<EventFields<'_>, serde_json::Error> {
        serde_json::from_slice(&self.raw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = r#"{"seq":7,"type":"mess\"age","payload":{"b":1.50},"actor":"user:a","producer_id":"p","producer_seq":2}"#;

    #[test]
    fn bytes_stay_as_they_came() {
        let event = Event::parse(ONE.into()).expect("an event");
        assert_eq!((event.seq, &*event.event_type), (Seq(7), "mess\"age"));
        assert_eq!(event.fields().expect("fields").payload.get(), r#"{"b":1.50}"#);
        let array = Bytes::from(format!("[{ONE}, {ONE}]"));
        let events = Event::parse_array(&array).expect("events");
        assert_eq!(events[1].raw(), ONE.as_bytes());
    }

    #[test]
    fn bad_bytes_are_errors() {
        for bad in ["", "[]", "{}", "{\"seq\":-1}", "\u{0}", "[1]"] {
            assert!(Event::parse(bad.into()).is_err(), "{bad}");
        }
        assert!(Event::parse_array(&Bytes::from_static(b"[{}]")).is_err());
    }
}
