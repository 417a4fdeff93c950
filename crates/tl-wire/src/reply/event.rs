//! The JSON of an event.

use std::io::Write;

use tl_types::bytes_codec::DecodeError;
use tl_types::{Envelope, StoredEvent, Tenant, UnixMs};

use super::Object;
use crate::json::write::utf8;

/// Writes an event on one line: `seq, type, payload, actor, producer_id, producer_seq, source
/// (if any), metadata, refs, idempotency_key (or null), inserted_at, event_time (if any),
/// tenant_id, cursor`.
///
/// `source` is left out rather than null: readers that accept only a string drop the whole
/// frame otherwise.
///
/// # Errors
/// [`DecodeError`] when the stored envelope cannot be read; `out` is as before.
pub fn event_json(
    out: &mut Vec<u8>,
    event: &StoredEvent,
    tenant: &Tenant,
) -> Result<(), DecodeError> {
    let envelope = Envelope::decode(event.envelope.clone())?;
    out.reserve(event.envelope.len() + 320);
    let mut object = Object::new(out);
    object.number("seq", event.seq.0);
    utf8(object.key("type"), &envelope.event_type);
    object.raw("payload", &envelope.payload);
    utf8(object.key("actor"), &envelope.actor);
    utf8(object.key("producer_id"), &envelope.producer_id);
    object.number("producer_seq", envelope.producer_seq);
    if let Some(source) = &envelope.source {
        utf8(object.key("source"), source);
    }
    object.raw("metadata", &envelope.metadata);
    object.raw("refs", envelope.refs.as_deref().unwrap_or(b"{}"));
    match &envelope.idempotency_key {
        Some(key) => utf8(object.key("idempotency_key"), key),
        None => object.raw("idempotency_key", b"null"),
    }
    time(object.key("inserted_at"), event.at);
    if let Some(at) = envelope.event_time {
        time(object.key("event_time"), at);
    }
    object.string("tenant_id", tenant.as_str());
    object.number("cursor", event.seq.0);
    object.end();
    Ok(())
}

/// An instant as a JSON string.
pub(super) fn time(out: &mut Vec<u8>, at: UnixMs) {
    write!(out, "\"{at}\"").expect("writing to memory does not fail");
}
