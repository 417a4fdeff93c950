//! The event envelope: what a user put in, as bytes, the same for every primitive.
//!
//! ```text
//! envelope   = version u8 (1) ‖ fields         field = tag u8, length, bytes
//! stored row = stamp u64 ms ‖ envelope         key carries the seq
//! ```
//!
//! A reader skips tags that it does not know, so a later release may add fields; a change that
//! an old reader must not skip takes a new version byte. JSON parts (payload, metadata, refs)
//! are kept as sent with insignificant whitespace removed.

use bytes::Bytes;

use crate::bytes_codec::{DecodeError, Reader, put_field};
use crate::ids::Seq;
use crate::time::UnixMs;

const VERSION: u8 = 1;

const TYPE: u8 = 1;
const PAYLOAD: u8 = 2;
const ACTOR: u8 = 3;
const SOURCE: u8 = 4;
const METADATA: u8 = 5;
const REFS: u8 = 6;
const IDEMPOTENCY_KEY: u8 = 7;
const PRODUCER_ID: u8 = 8;
const PRODUCER_SEQ: u8 = 9;
const EVENT_TIME: u8 = 10;

/// One event before it has a position. Texts are UTF-8, JSON parts compact JSON objects; the
/// edge has checked both, and decoding checks the texts again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Envelope {
    /// Kind of event, a user's word.
    pub event_type: Bytes,
    /// Compact JSON object.
    pub payload: Bytes,
    /// `<user|agent|service>:<id>`.
    pub actor: Bytes,
    /// Where the event came from, if said.
    pub source: Option<Bytes>,
    /// Compact JSON object, the server's `starcite_principal` included.
    pub metadata: Bytes,
    /// Compact JSON object, if sent.
    pub refs: Option<Bytes>,
    /// Kept for the reader; never used for dedupe.
    pub idempotency_key: Option<Bytes>,
    /// Who numbers these writes.
    pub producer_id: Bytes,
    /// The producer's own position, from 1.
    pub producer_seq: u64,
    /// When the event happened, if the sender said so.
    pub event_time: Option<UnixMs>,
}

impl Envelope {
    /// The envelope's bytes, version 1.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(96 + self.payload.len() + self.metadata.len());
        out.push(VERSION);
        put_field(&mut out, TYPE, &self.event_type);
        put_field(&mut out, PAYLOAD, &self.payload);
        put_field(&mut out, ACTOR, &self.actor);
        put_field(&mut out, METADATA, &self.metadata);
        put_field(&mut out, PRODUCER_ID, &self.producer_id);
        put_field(&mut out, PRODUCER_SEQ, &self.producer_seq.to_be_bytes());
        for (tag, part) in
            [(SOURCE, &self.source), (REFS, &self.refs), (IDEMPOTENCY_KEY, &self.idempotency_key)]
        {
            if let Some(part) = part {
                put_field(&mut out, tag, part);
            }
        }
        if let Some(at) = self.event_time {
            put_field(&mut out, EVENT_TIME, &at.0.to_be_bytes());
        }
        out
    }

    /// Reads an envelope; parts are slices of `bytes`.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are not an envelope of a known version.
    pub fn decode(bytes: Bytes) -> Result<Envelope, DecodeError> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            VERSION => {}
            other => {
                return Err(DecodeError::Unknown { what: "envelope version", value: other.into() });
            }
        }
        let mut envelope = Envelope::default();
        while let Some((tag, part)) = reader.field()? {
            match tag {
                TYPE => envelope.event_type = text(part)?,
                PAYLOAD => envelope.payload = text(part)?,
                ACTOR => envelope.actor = text(part)?,
                SOURCE => envelope.source = Some(text(part)?),
                METADATA => envelope.metadata = text(part)?,
                REFS => envelope.refs = Some(text(part)?),
                IDEMPOTENCY_KEY => envelope.idempotency_key = Some(text(part)?),
                PRODUCER_ID => envelope.producer_id = text(part)?,
                PRODUCER_SEQ => envelope.producer_seq = Reader::new(part).u64()?,
                EVENT_TIME => envelope.event_time = Some(UnixMs(Reader::new(part).u64()?)),
                _ => {}
            }
        }
        Ok(envelope)
    }
}

/// Texts are checked when they are read back, so that whoever holds an envelope may print it.
fn text(part: Bytes) -> Result<Bytes, DecodeError> {
    match std::str::from_utf8(&part) {
        Ok(_) => Ok(part),
        Err(_) => Err(DecodeError::Malformed("text in an envelope")),
    }
}

/// An event with its position, as read from the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Position in the session.
    pub seq: Seq,
    /// When it was committed, by the group's stamp.
    pub at: UnixMs,
    /// The envelope's bytes, not yet decoded.
    pub envelope: Bytes,
}

impl StoredEvent {
    /// The row's value: stamp, then envelope.
    #[must_use]
    pub fn encode_row(at: UnixMs, envelope: &[u8]) -> Bytes {
        let mut row = Vec::with_capacity(8 + envelope.len());
        row.extend_from_slice(&at.0.to_be_bytes());
        row.extend_from_slice(envelope);
        row.into()
    }

    /// Reads a row's value.
    ///
    /// # Errors
    /// [`DecodeError::Short`] when it holds no stamp.
    pub fn decode_row(seq: Seq, row: Bytes) -> Result<StoredEvent, DecodeError> {
        let mut reader = Reader::new(row);
        let at = UnixMs(reader.u64()?);
        Ok(StoredEvent { seq, at, envelope: reader.rest() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Envelope {
        Envelope {
            event_type: "message".into(),
            payload: r#"{"text":"hi"}"#.into(),
            actor: "user:ann".into(),
            source: Some("agent".into()),
            metadata: "{}".into(),
            refs: Some(r#"{"to_seq":1}"#.into()),
            idempotency_key: Some("k".into()),
            producer_id: "w1".into(),
            producer_seq: 7,
            event_time: Some(UnixMs(1_000)),
        }
    }

    #[test]
    fn envelope_bytes_are_a_promise_golden() {
        let hex: String = sample().encode().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, include_str!("../golden/envelope.txt").trim());
    }

    #[test]
    fn unknown_fields_are_skipped_and_unknown_versions_refused() {
        let mut bytes = sample().encode();
        put_field(&mut bytes, 200, b"from a later release");
        assert_eq!(Envelope::decode(bytes.clone().into()), Ok(sample()));
        bytes[0] = 2;
        assert!(matches!(Envelope::decode(bytes.into()), Err(DecodeError::Unknown { .. })));
    }

    proptest! {
        #[test]
        fn envelopes_come_back(
            event_type in ".{1,20}", payload in "[a-z]{0,40}", source in proptest::option::of(".{0,9}"),
            producer_seq: u64, at in proptest::option::of(any::<u64>()),
        ) {
            let envelope = Envelope {
                event_type: event_type.into(),
                payload: payload.into(),
                source: source.map(Into::into),
                producer_seq,
                event_time: at.map(UnixMs),
                ..sample()
            };
            prop_assert_eq!(Envelope::decode(envelope.encode().into()), Ok(envelope));
        }

        #[test]
        fn no_bytes_make_envelope_reading_panic(bytes: Vec<u8>) {
            let _ = Envelope::decode(bytes.clone().into());
            let _ = StoredEvent::decode_row(Seq(1), bytes.into());
        }
    }
}
