//! Finding the fields of events: the pass over the bytes, before any field is judged.

use bytes::Bytes;
use tl_types::ErrorCode;

use super::check_count;
use super::rules::{PRINCIPAL, PRINCIPAL_FIELDS};
use crate::error::WireError;
use crate::json::{HashSum, JsonError, Key, Kind, Node, Scanner};

/// Where the fields of one event stand in the compact output.
#[derive(Debug, Default)]
pub(crate) struct RawEvent {
    /// False when the value was not an object; then nothing else is set.
    pub(super) is_object: bool,
    pub(super) event_type: Option<Node>,
    pub(super) payload: Option<Node>,
    pub(super) producer_id: Option<Node>,
    pub(super) producer_seq: Option<Node>,
    pub(super) actor: Option<Node>,
    pub(super) source: Option<Node>,
    pub(super) metadata: Option<RawMetadata>,
    pub(super) refs: Option<Node>,
    /// The member of `refs` that breaks a rule, if one does.
    pub(super) bad_ref: Option<&'static str>,
    pub(super) idempotency_key: Option<Node>,
    pub(super) event_time: Option<Node>,
    /// `expected_seq` inside an event of a batch, where it has no place.
    pub(super) expected_seq: Option<Node>,
    /// `seq`, which only exported lines carry.
    pub(super) seq: Option<Node>,
    compact_bytes: usize,
}

impl RawEvent {
    /// Size of the object as sent, without insignificant whitespace.
    pub(super) fn compact_bytes(&self) -> usize {
        self.compact_bytes
    }
}

#[derive(Debug)]
pub(super) struct RawMetadata {
    pub(super) node: Node,
    pub(super) members: HashSum,
    /// What was cut out of the output as `starcite_principal`.
    pub(super) principal: Option<RawPrincipal>,
    /// Compact size of the object without `starcite_principal`, plus the members of that which
    /// the server does not set.
    pub(super) counted_bytes: usize,
}

/// The client's `starcite_principal`, less the members that the server sets.
#[derive(Debug)]
pub(super) struct RawPrincipal {
    pub(super) inner: Vec<u8>,
    pub(super) members: HashSum,
}

/// A JSON append body.
#[expect(clippy::large_enum_variant, reason = "moved once; a box would cost every single append")]
pub(super) enum Top {
    Single { event: RawEvent, expected_seq: Option<Node> },
    Batch { events: Batch, expected_seq: Option<Node> },
}

/// The member `events`.
pub(super) enum Batch {
    Events(Vec<RawEvent>),
    NotAnArray,
}

/// Reads a JSON append body to its end.
pub(super) fn top(scanner: &mut Scanner<'_>) -> Result<Top, WireError> {
    let mut event = RawEvent::default();
    let mut batch = None;
    let mut expected_seq = None;
    if scanner.peek_kind()? == Kind::Object {
        event.is_object = true;
        let mut object = scanner.begin_object()?;
        while let Some(key) = scanner.next_key(&mut object)? {
            match &*scanner.name(&key) {
                b"events" => batch = Some(events(scanner)?),
                b"expected_seq" => expected_seq = Some(scanner.value()?),
                _ => event.member(scanner, &key)?,
            }
        }
    } else {
        scanner.value()?;
    }
    scanner.finish()?;
    event.compact_bytes = scanner.compact_bytes();
    Ok(match batch {
        Some(events) => Top::Batch { events, expected_seq },
        None => Top::Single { event, expected_seq },
    })
}

/// Reads one line of a batch to its end.
pub(super) fn line(scanner: &mut Scanner<'_>) -> Result<RawEvent, WireError> {
    let event = put_event(scanner)?;
    scanner.finish()?;
    Ok(event)
}

fn events(scanner: &mut Scanner<'_>) -> Result<Batch, WireError> {
    if scanner.peek_kind()? != Kind::Array {
        scanner.value()?;
        return Ok(Batch::NotAnArray);
    }
    let mut events = Vec::new();
    let mut array = scanner.begin_array()?;
    scanner.count_depth_from_here();
    while scanner.next_item(&mut array)? {
        check_count(events.len() + 1)?;
        events.push(put_event(scanner)?);
    }
    scanner.end_array(array);
    scanner.count_depth_from_start();
    Ok(Batch::Events(events))
}

/// Reads one event object.
pub(crate) fn put_event(scanner: &mut Scanner<'_>) -> Result<RawEvent, WireError> {
    let mut event = RawEvent::default();
    let kind = scanner.peek_kind()?;
    let start = scanner.compact_bytes();
    if kind == Kind::Object {
        event.is_object = true;
        let mut object = scanner.begin_object()?;
        while let Some(key) = scanner.next_key(&mut object)? {
            event.member(scanner, &key)?;
        }
    } else {
        scanner.value()?;
    }
    event.compact_bytes = scanner.compact_bytes() - start;
    Ok(event)
}

impl RawEvent {
    /// Reads the value of one member.
    fn member(&mut self, scanner: &mut Scanner<'_>, key: &Key) -> Result<(), JsonError> {
        let field = match &*scanner.name(key) {
            b"type" => &mut self.event_type,
            b"payload" => &mut self.payload,
            b"producer_id" => &mut self.producer_id,
            b"producer_seq" => &mut self.producer_seq,
            b"actor" => &mut self.actor,
            b"source" => &mut self.source,
            b"idempotency_key" => &mut self.idempotency_key,
            b"event_time" => &mut self.event_time,
            b"expected_seq" => &mut self.expected_seq,
            b"seq" => &mut self.seq,
            b"metadata" => {
                self.metadata = Some(put_metadata(scanner)?);
                return Ok(());
            }
            b"refs" => return self.put_refs(scanner),
            _ => {
                scanner.value()?;
                return Ok(());
            }
        };
        *field = Some(scanner.value()?);
        Ok(())
    }

    /// `refs`: whole numbers that came as strings are written as numbers.
    fn put_refs(&mut self, scanner: &mut Scanner<'_>) -> Result<(), JsonError> {
        if scanner.peek_kind()? != Kind::Object {
            self.refs = Some(scanner.value()?);
            return Ok(());
        }
        let mut object = scanner.begin_object()?;
        while let Some(key) = scanner.next_key(&mut object)? {
            let rule = RefRule::of(&scanner.name(&key));
            let mut value = scanner.value()?;
            match rule {
                Some(RefRule::Whole(name)) if value.kind != Kind::Null => {
                    match super::rules::whole_number(scanner.out(), &value) {
                        Some(number) if value.kind == Kind::String => {
                            scanner.cut_to(value.start);
                            value = scanner.put_number(number);
                        }
                        Some(_) => {}
                        None => self.bad_ref = self.bad_ref.or(Some(name)),
                    }
                }
                Some(RefRule::Text(name)) if !matches!(value.kind, Kind::String | Kind::Null) => {
                    self.bad_ref = self.bad_ref.or(Some(name));
                }
                _ => {}
            }
            scanner.end_member(&mut object, &key, value.hash);
        }
        self.refs = Some(scanner.end_object(object));
        Ok(())
    }
}

/// The members of `refs` that have a rule.
enum RefRule {
    Whole(&'static str),
    Text(&'static str),
}

impl RefRule {
    fn of(name: &[u8]) -> Option<RefRule> {
        match name {
            b"to_seq" => Some(RefRule::Whole("to_seq")),
            b"step" => Some(RefRule::Whole("step")),
            b"request_id" => Some(RefRule::Text("request_id")),
            b"sequence_id" => Some(RefRule::Text("sequence_id")),
            _ => None,
        }
    }
}

/// `metadata` of an event, `starcite_principal` cut out.
fn put_metadata(scanner: &mut Scanner<'_>) -> Result<RawMetadata, JsonError> {
    if scanner.peek_kind()? != Kind::Object {
        let node = scanner.value()?;
        let members = HashSum::default();
        return Ok(RawMetadata { node, members, principal: None, counted_bytes: 0 });
    }
    let mut principal = None;
    let mut object = scanner.begin_object()?;
    while let Some(key) = scanner.next_key(&mut object)? {
        if &*scanner.name(&key) == PRINCIPAL.as_bytes() {
            principal = put_principal(scanner)?;
            scanner.cut_to(key.member_start);
        } else {
            let value = scanner.value()?;
            scanner.end_member(&mut object, &key, value.hash);
        }
    }
    let members = object.members();
    let node = scanner.end_object(object);
    let extra = principal.as_ref().map_or(0, |p: &RawPrincipal| p.inner.len());
    let counted_bytes = node.end - node.start + extra;
    Ok(RawMetadata { node, members, principal, counted_bytes })
}

/// The client's own `starcite_principal`: `None` when it is not an object or says nothing that
/// the server does not say.
fn put_principal(scanner: &mut Scanner<'_>) -> Result<Option<RawPrincipal>, JsonError> {
    if scanner.peek_kind()? != Kind::Object {
        scanner.value()?;
        return Ok(None);
    }
    let mut object = scanner.begin_object()?;
    while let Some(key) = scanner.next_key(&mut object)? {
        let ours = PRINCIPAL_FIELDS.iter().any(|name| &*scanner.name(&key) == name.as_bytes());
        let value = scanner.value()?;
        if ours {
            scanner.cut_to(key.member_start);
        } else {
            scanner.end_member(&mut object, &key, value.hash);
        }
    }
    let members = object.members();
    let node = scanner.end_object(object);
    let raw = scanner.raw(&node);
    let inner = raw[1..raw.len() - 1].to_vec();
    Ok((members.count() > 0).then_some(RawPrincipal { inner, members }))
}

/// Judged once the whole body has been read.
impl RawMetadata {
    pub(super) fn check(&self, out: &Bytes) -> Result<super::Metadata, WireError> {
        if self.node.kind == Kind::Null {
            return Ok(super::Metadata::default());
        }
        if self.node.kind != Kind::Object {
            return Err(WireError::new(
                ErrorCode::InvalidMetadata,
                "metadata must be a JSON object, or be left out",
            ));
        }
        let limit = tl_types::limits::METADATA_BYTES_MAX;
        if self.counted_bytes > limit {
            return Err(WireError::too_large("metadata", "bytes", limit, self.counted_bytes));
        }
        let (principal_inner, principal_members) = match &self.principal {
            Some(sent) => (Bytes::from(sent.inner.clone()), sent.members),
            None => Default::default(),
        };
        Ok(super::Metadata {
            inner: out.slice(self.node.start + 1..self.node.end - 1),
            members: self.members,
            principal_inner,
            principal_members,
        })
    }
}
