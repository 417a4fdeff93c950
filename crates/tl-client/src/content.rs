//! What a sender puts into an event, and a hash of exactly that, taken the same way from what
//! was sent and from what came back.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tl_types::UnixMs;
use xxhash_rust::xxh3::Xxh3;

use crate::error::ClientError;
use crate::event::Event;

/// The actor that a node without access control writes when an event names none.
pub const ACTOR_DEFAULT: &str = "service:service";

/// The member that the server adds to every event's metadata; never part of the content.
pub const PRINCIPAL_MEMBER: &str = "starcite_principal";

/// An event before it has a position. JSON parts are kept as they are written.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NewEvent {
    /// Kind of event.
    #[serde(rename = "type")]
    pub event_type: String,
    /// A JSON object.
    pub payload: Box<RawValue>,
    /// `<user|agent|service>:<id>`; the server fills in the caller when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// Where the event comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// A JSON object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Box<RawValue>>,
    /// References to other events, a JSON object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refs: Option<Box<RawValue>>,
    /// Kept for readers; the server never uses it for dedupe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// When it happened, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_time: Option<String>,
}

/// The body of an append: the content with its producer position.
#[derive(Serialize)]
struct Body<'a> {
    #[serde(rename = "type")]
    event_type: &'a str,
    payload: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: &'a Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: &'a Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: &'a Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refs: &'a Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: &'a Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_time: &'a Option<String>,
    producer_id: &'a str,
    producer_seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_seq: Option<u64>,
}

impl NewEvent {
    /// An event of a type with a payload that serialises to a JSON object.
    ///
    /// # Errors
    /// [`ClientError::BadArgument`] when the payload cannot be written as JSON.
    pub fn new(event_type: &str, payload: &impl Serialize) -> Result<NewEvent, ClientError> {
        let payload = serde_json::value::to_raw_value(payload)
            .map_err(|e| ClientError::BadArgument(format!("the payload is not JSON: {e}")))?;
        Ok(NewEvent::raw(event_type, payload))
    }

    /// An event of a type with a payload already written as JSON.
    #[must_use]
    pub fn raw(event_type: &str, payload: Box<RawValue>) -> NewEvent {
        NewEvent {
            event_type: event_type.to_owned(),
            payload,
            actor: None,
            source: None,
            metadata: None,
            refs: None,
            idempotency_key: None,
            event_time: None,
        }
    }

    /// The same event, said by `actor`.
    #[must_use]
    pub fn by(mut self, actor: &str) -> NewEvent {
        self.actor = Some(actor.to_owned());
        self
    }

    /// What the sender of a stored event had sent: without the server's own members.
    ///
    /// # Errors
    /// When the event holds members of a type that an event never has.
    pub fn from_event(event: &Event) -> Result<NewEvent, serde_json::Error> {
        let fields = event.fields()?;
        let metadata = fields.metadata.map(own_metadata).transpose()?.flatten();
        Ok(NewEvent {
            event_type: fields.event_type.into_owned(),
            payload: fields.payload.to_owned(),
            actor: Some(fields.actor.into_owned()),
            source: fields.source.map(Cow::into_owned),
            metadata,
            refs: fields.refs.filter(|refs| refs.get() != "{}").map(ToOwned::to_owned),
            idempotency_key: fields.idempotency_key.map(Cow::into_owned),
            event_time: fields.event_time.map(Cow::into_owned),
        })
    }

    /// Appends the request body of this event at a producer position.
    pub(crate) fn write_body(
        &self,
        producer_id: &str,
        producer_seq: u64,
        expected_seq: Option<u64>,
        out: &mut Vec<u8>,
    ) {
        let body = Body {
            event_type: &self.event_type,
            payload: &self.payload,
            actor: &self.actor,
            source: &self.source,
            metadata: &self.metadata,
            refs: &self.refs,
            idempotency_key: &self.idempotency_key,
            event_time: &self.event_time,
            producer_id,
            producer_seq,
            expected_seq,
        };
        serde_json::to_writer(out, &body).expect("strings, numbers and JSON text always serialise");
    }

    /// The member in which two events differ first, by the content rules; `None` when they are
    /// equal in content.
    #[must_use]
    pub fn difference(&self, other: &NewEvent) -> Option<&'static str> {
        let (mine, theirs) = (Parts::of(self), Parts::of(other));
        mine.0.into_iter().zip(theirs.0).find(|(a, b)| a != b).map(|((name, _), _)| name)
    }
}

/// Metadata without the server's member; `None` when nothing else is in it.
fn own_metadata(metadata: &RawValue) -> Result<Option<Box<RawValue>>, serde_json::Error> {
    let members: Vec<(String, Box<RawValue>)> = members_in_order(metadata.get())?;
    let mut text = String::from("{");
    for (name, value) in members.iter().filter(|(name, _)| name != PRINCIPAL_MEMBER) {
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(&serde_json::to_string(name)?);
        text.push(':');
        text.push_str(value.get());
    }
    text.push('}');
    if text.len() == 2 { Ok(None) } else { RawValue::from_string(text).map(Some) }
}

fn members_in_order(object: &str) -> Result<Vec<(String, Box<RawValue>)>, serde_json::Error> {
    struct InOrder;
    impl<'de> serde::de::Visitor<'de> for InOrder {
        type Value = Vec<(String, Box<RawValue>)>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a JSON object")
        }
        fn visit_map<A: serde::de::MapAccess<'de>>(
            self,
            mut map: A,
        ) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some(member) = map.next_entry()? {
                members.push(member);
            }
            Ok(members)
        }
    }
    let mut reader = serde_json::Deserializer::from_str(object);
    serde::Deserializer::deserialize_map(&mut reader, InOrder)
}

/// A 128-bit hash of an event's content: everything the sender said and nothing that the server
/// added. Whitespace between JSON tokens does not count; number spelling and member order do,
/// except the member order of `metadata`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentHash(pub u128);

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl ContentHash {
    /// The hash of an event as sent.
    #[must_use]
    pub fn of_sent(event: &NewEvent) -> ContentHash {
        let mut hash = Xxh3::new();
        for (name, part) in Parts::of(event).0 {
            for text in [name.as_bytes(), &part] {
                hash.update(&(text.len() as u64).to_be_bytes());
                hash.update(text);
            }
        }
        ContentHash(hash.digest128())
    }

    /// The hash of an event as read.
    ///
    /// # Errors
    /// When the event holds members of a type that an event never has.
    pub fn of_read(event: &Event) -> Result<ContentHash, serde_json::Error> {
        Ok(ContentHash::of_sent(&NewEvent::from_event(event)?))
    }
}

/// The content in one fixed order and spelling.
struct Parts<'a>([(&'static str, Cow<'a, [u8]>); 8]);

impl<'a> Parts<'a> {
    fn of(event: &'a NewEvent) -> Parts<'a> {
        fn text(part: &Option<String>) -> Cow<'_, [u8]> {
            Cow::Borrowed(part.as_deref().unwrap_or_default().as_bytes())
        }
        let actor = event.actor.as_deref().unwrap_or(ACTOR_DEFAULT);
        Parts([
            ("type", Cow::Borrowed(event.event_type.as_bytes())),
            ("payload", compact(event.payload.get())),
            ("actor", Cow::Borrowed(actor.as_bytes())),
            ("source", text(&event.source)),
            ("metadata", event.metadata.as_deref().map_or_else(empty, metadata_text)),
            ("refs", event.refs.as_deref().map_or_else(empty, refs_text)),
            ("idempotency_key", text(&event.idempotency_key)),
            ("event_time", event.event_time.as_deref().map_or_else(empty, instant_text)),
        ])
    }
}

fn empty<'a>() -> Cow<'a, [u8]> {
    Cow::Borrowed(&[])
}

/// Members sorted by name, the server's left out; text that is no object stays as it is.
fn metadata_text(metadata: &RawValue) -> Cow<'_, [u8]> {
    let Ok(members) = members_in_order(metadata.get()) else { return compact(metadata.get()) };
    let sorted: BTreeMap<String, Box<RawValue>> =
        members.into_iter().filter(|(name, _)| name != PRINCIPAL_MEMBER).collect();
    let mut out = Vec::new();
    for (name, value) in &sorted {
        out.extend_from_slice(&(name.len() as u64).to_be_bytes());
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(&compact(value.get()));
    }
    out.into()
}

/// The server stores `to_seq` and `step` as integers when they come as decimal strings.
fn refs_text(refs: &RawValue) -> Cow<'_, [u8]> {
    let Ok(members) = members_in_order(refs.get()) else { return compact(refs.get()) };
    let mut out = Vec::new();
    for (name, value) in &members {
        out.extend_from_slice(&(name.len() as u64).to_be_bytes());
        out.extend_from_slice(name.as_bytes());
        let value = value.get();
        let digits = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        match digits.and_then(|digits| digits.parse::<u64>().ok()) {
            Some(number) if name == "to_seq" || name == "step" => {
                out.extend_from_slice(number.to_string().as_bytes());
            }
            _ => out.extend_from_slice(&compact(value)),
        }
        out.push(0);
    }
    out.into()
}

/// Instants count by what they mean, to the millisecond.
fn instant_text(text: &str) -> Cow<'_, [u8]> {
    match UnixMs::parse_rfc3339(text) {
        Some(at) => Cow::Owned(at.to_string().into_bytes()),
        None => Cow::Borrowed(text.as_bytes()),
    }
}

/// JSON text without whitespace between its tokens.
fn compact(json: &str) -> Cow<'_, [u8]> {
    let is_space = |byte: u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
    if !json.bytes().any(is_space) {
        return Cow::Borrowed(json.as_bytes());
    }
    let mut out = Vec::with_capacity(json.len());
    let (mut in_string, mut escaped) = (false, false);
    for byte in json.bytes() {
        if in_string {
            out.push(byte);
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
        } else if !is_space(byte) {
            out.push(byte);
            in_string = byte == b'"';
        }
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn event(json: &str) -> NewEvent {
        serde_json::from_str(json).expect("an event")
    }

    #[test]
    fn what_the_server_adds_does_not_count() {
        let sent = event(
            r#"{"type":"m","payload":{ "t" : "a b\" c" },"metadata":{"b":1,"a":2},"refs":{"to_seq":"3"},
                "event_time":"2018-05-02T19:38:15Z"}"#,
        );
        let read = r#"{"seq":1,"type":"m","payload":{"t":"a b\" c"},"actor":"service:service",
            "producer_id":"p","producer_seq":1,"refs":{"to_seq":3},"idempotency_key":null,
            "metadata":{"a":2,"b":1,"starcite_principal":{"x":1}},"inserted_at":"2026-01-01T00:00:00.000Z",
            "event_time":"2018-05-02T19:38:15.000Z","tenant_id":"default"}"#;
        let read = Event::parse(read.into()).expect("event");
        assert_eq!(ContentHash::of_read(&read).expect("hash"), ContentHash::of_sent(&sent));
        let back = NewEvent::from_event(&read).expect("content");
        assert_eq!(back.difference(&sent), None);
        assert_eq!(back.metadata.expect("metadata").get(), r#"{"a":2,"b":1}"#);
    }

    #[test]
    fn the_first_different_member_is_named() {
        let base = event(r#"{"type":"m","payload":{"t":1}}"#);
        for (other, name) in [
            (r#"{"type":"n","payload":{"t":1}}"#, "type"),
            (r#"{"type":"m","payload":{"t":1.0}}"#, "payload"),
            (r#"{"type":"m","payload":{"t":1},"actor":"user:x"}"#, "actor"),
            (r#"{"type":"m","payload":{"t":1},"source":"s"}"#, "source"),
            (r#"{"type":"m","payload":{"t":1},"metadata":{"k":1}}"#, "metadata"),
            (r#"{"type":"m","payload":{"t":1},"refs":{"to_seq":1}}"#, "refs"),
            (r#"{"type":"m","payload":{"t":1},"event_time":"2018-05-02T19:38:15Z"}"#, "event_time"),
        ] {
            let other = event(other);
            assert_eq!(base.difference(&other), Some(name));
            assert_ne!(ContentHash::of_sent(&base), ContentHash::of_sent(&other), "{name}");
        }
    }

    #[test]
    fn bodies_carry_the_position_and_no_empty_members() {
        let mut out = Vec::new();
        event(r#"{"type":"m","payload":{"t":1}}"#).write_body("p", 4, Some(0), &mut out);
        assert_eq!(
            String::from_utf8(out).expect("text"),
            r#"{"type":"m","payload":{"t":1},"producer_id":"p","producer_seq":4,"expected_seq":0}"#
        );
    }

    proptest! {
        #[test]
        fn whitespace_inside_strings_counts(text in "[ a\\\\\"\t]{0,12}") {
            let json = serde_json::to_string(&serde_json::json!({ "t": text })).expect("json");
            let spaced = json.replacen(':', " :\n ", 1);
            let compacted = compact(&spaced);
            prop_assert_eq!(&*compacted, json.as_bytes());
        }
    }
}
