//! The field rules of an event.

use bytes::Bytes;
use tl_types::limits::{EVENT_BYTES_MAX, FIELD_BYTES_MAX, NUMBER_MAX};
use tl_types::{ErrorCode, Seq, UnixMs};

use super::scan::RawEvent;
use super::{Metadata, ParsedEvent, Part};
use crate::error::WireError;
use crate::json::{Kind, Node, string_hash, unescape};

/// The member of an event's metadata that the server sets.
pub(super) const PRINCIPAL: &str = "starcite_principal";

/// Its members, in the order in which they are written.
pub(super) const PRINCIPAL_FIELDS: [&str; 4] =
    ["tenant_id", "actor", "principal_type", "principal_id"];

/// A producer position for an event that names none itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DefaultProducer<'a> {
    pub(crate) id: &'a str,
    pub(crate) seq: u64,
}

impl RawEvent {
    /// Judges the fields; `out` is the scanner's output.
    pub(super) fn check(&self, out: &Bytes) -> Result<ParsedEvent, WireError> {
        self.check_with(out, None)
    }

    /// The same, with a producer position to use when the event has neither part of one.
    pub(crate) fn check_with(
        &self,
        out: &Bytes,
        default: Option<DefaultProducer<'_>>,
    ) -> Result<ParsedEvent, WireError> {
        if !self.is_object {
            return Err(invalid("The event must be a JSON object"));
        }
        if self.compact_bytes() > EVENT_BYTES_MAX {
            let sent = self.compact_bytes();
            return Err(WireError::too_large("the event", "bytes", EVENT_BYTES_MAX, sent));
        }
        let event_type = required(out, "type", self.event_type)?;
        let payload = match self.payload {
            Some(node) if node.kind == Kind::Object => part(out, &node),
            _ => return Err(invalid("payload is required and must be a JSON object")),
        };
        let (producer_id, producer_seq) =
            match (default, present(self.producer_id), present(self.producer_seq)) {
                (Some(default), None, None) => {
                    let bytes = Bytes::copy_from_slice(default.id.as_bytes());
                    (Part { hash: string_hash(&bytes), bytes }, default.seq)
                }
                _ => (required(out, "producer_id", self.producer_id)?, self.producer_seq(out)?),
            };
        Ok(ParsedEvent {
            event_type,
            payload,
            actor: optional(out, "actor", self.actor)?.map(|part| part.bytes),
            source: optional(out, "source", self.source)?,
            metadata: match &self.metadata {
                Some(metadata) => metadata.check(out)?,
                None => Metadata::default(),
            },
            refs: self.refs(out)?,
            idempotency_key: optional(out, "idempotency_key", self.idempotency_key)?,
            producer_id,
            producer_seq,
            event_time: event_time(out, self.event_time)?,
            compact_bytes: self.compact_bytes(),
        })
    }

    /// The position that an exported line states, if it is one.
    pub(crate) fn stated_seq(&self, out: &[u8]) -> Option<Seq> {
        self.seq.and_then(|node| whole_number(out, &node)).map(Seq)
    }

    fn producer_seq(&self, out: &Bytes) -> Result<u64, WireError> {
        match self.producer_seq.and_then(|node| whole_number(out, &node)) {
            Some(seq) if seq >= 1 => Ok(seq),
            _ => Err(invalid(
                "producer_seq is required and must be a whole number from 1 to 9007199254740991",
            )),
        }
    }

    /// An empty object is the same as none.
    fn refs(&self, out: &Bytes) -> Result<Option<Part>, WireError> {
        let Some(node) = present(self.refs) else { return Ok(None) };
        if node.kind != Kind::Object {
            return Err(WireError::new(
                ErrorCode::InvalidRefs,
                "refs must be a JSON object, or be left out",
            ));
        }
        match self.bad_ref {
            Some(name @ ("to_seq" | "step")) => Err(invalid(format!(
                "refs.{name} must be a whole number from 0 to 9007199254740991"
            ))),
            Some(name) => Err(invalid(format!("refs.{name} must be a string"))),
            None if node.end - node.start == 2 => Ok(None),
            None => Ok(Some(part(out, &node))),
        }
    }
}

impl RawEvent {
    /// Refuses a guard on one event of a batch: passing it over would append what its sender
    /// wanted held back.
    pub(super) fn check_unguarded(&self) -> Result<(), WireError> {
        match present(self.expected_seq) {
            None => Ok(()),
            Some(_) => Err(invalid(
                "expected_seq guards a whole batch: send it beside events, or in the query",
            )),
        }
    }
}

/// The optimistic check beside an event or batch.
pub(super) fn expected_seq(out: &[u8], node: Option<Node>) -> Result<Option<Seq>, WireError> {
    let Some(node) = present(node) else { return Ok(None) };
    match whole_number(out, &node) {
        Some(seq) => Ok(Some(Seq(seq))),
        None => Err(invalid("expected_seq must be a whole number from 0 to 9007199254740991")),
    }
}

fn event_time(out: &[u8], node: Option<Node>) -> Result<Option<UnixMs>, WireError> {
    let Some(node) = present(node) else { return Ok(None) };
    let text = (node.kind == Kind::String).then(|| unescape(inner(out, &node)));
    let at = text.as_deref().and_then(|text| std::str::from_utf8(text).ok());
    match at.and_then(UnixMs::parse_rfc3339) {
        Some(at) => Ok(Some(at)),
        None => Err(invalid(
            "event_time must be an RFC 3339 instant from 1970 on, such as 2026-02-08T15:00:01.123Z",
        )),
    }
}

fn required(out: &Bytes, name: &'static str, node: Option<Node>) -> Result<Part, WireError> {
    match optional(out, name, node)? {
        Some(part) => Ok(part),
        None => Err(invalid(format!("{name} is required and must be a non-empty string"))),
    }
}

fn optional(
    out: &Bytes,
    name: &'static str,
    node: Option<Node>,
) -> Result<Option<Part>, WireError> {
    let Some(node) = present(node) else { return Ok(None) };
    if node.kind != Kind::String || node.end - node.start == 2 {
        return Err(invalid(format!("{name} must be a non-empty string")));
    }
    let bytes = text(out, &node);
    if bytes.len() > FIELD_BYTES_MAX {
        let sent = bytes.len();
        return Err(invalid(format!(
            "{name} has {sent} bytes; at most {FIELD_BYTES_MAX} are allowed"
        ))
        .with("limit", FIELD_BYTES_MAX));
    }
    Ok(Some(Part { bytes, hash: node.hash }))
}

fn present(node: Option<Node>) -> Option<Node> {
    node.filter(|node| node.kind != Kind::Null)
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> WireError {
    WireError::new(ErrorCode::InvalidEvent, message)
}

fn part(out: &Bytes, node: &Node) -> Part {
    Part { bytes: out.slice(node.start..node.end), hash: node.hash }
}

/// The content of a string; a slice of `out` unless escapes had to be replaced.
fn text(out: &Bytes, node: &Node) -> Bytes {
    if node.escaped {
        unescape(inner(out, node)).into_owned().into()
    } else {
        out.slice(node.start + 1..node.end - 1)
    }
}

fn inner<'a>(out: &'a [u8], node: &Node) -> &'a [u8] {
    &out[node.start + 1..node.end - 1]
}

/// A whole number from 0 to 2^53 − 1, as a number or as a string of decimal digits.
pub(crate) fn whole_number(out: &[u8], node: &Node) -> Option<u64> {
    match node.kind {
        Kind::Number => digits(&out[node.start..node.end]),
        Kind::String => digits(inner(out, node)),
        Kind::Null | Kind::Bool | Kind::Array | Kind::Object => None,
    }
}

/// One to sixteen decimal digits that make a number of at most 2^53 − 1.
pub(crate) fn digits(text: &[u8]) -> Option<u64> {
    if !(1..=16).contains(&text.len()) || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = text.iter().fold(0, |value, digit| value * 10 + u64::from(digit - b'0'));
    (value <= NUMBER_MAX).then_some(value)
}
