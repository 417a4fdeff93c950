//! What must hold for any bytes given to this crate's decoders.

use bytes::Bytes;

use crate::{Envelope, FullKey, RowKey, Seq, StoredEvent};

/// An event's row, and keys.
///
/// # Panics
/// When what was read does not come back from its own encoding.
pub fn event_row(bytes: &[u8]) {
    if let Ok(event) = StoredEvent::decode_row(Seq(1), Bytes::copy_from_slice(bytes)) {
        assert_eq!(StoredEvent::encode_row(event.at, &event.envelope), bytes);
        if let Ok(envelope) = Envelope::decode(event.envelope) {
            let again = envelope.encode();
            assert_eq!(Envelope::decode(again.into()), Ok(envelope));
        }
    }
    if let Some(key) = RowKey::from_bytes(bytes) {
        assert_eq!(key.as_bytes(), bytes);
        assert!(key.prefix_end() > key || bytes.iter().all(|byte| *byte == 0xff));
        let _ = (key.table(), key.number(), key.rest(), key.event_seq());
    }
    if let Some(key) = FullKey::from_bytes(bytes) {
        let (group, generation, row) = key.parts();
        assert_eq!(FullKey::new(group, generation, &row).as_bytes(), bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Generation, GroupId, ResourceNumber, UnixMs};

    #[test]
    fn event_rows_over_the_corpus() {
        let full = Envelope {
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
        };
        let row = |envelope: &Envelope| {
            StoredEvent::encode_row(UnixMs(1_700_000_000_000), &envelope.encode()).to_vec()
        };
        let key = RowKey::event(ResourceNumber(3), Seq(9));
        let seeds = [
            ("full", row(&full)),
            ("bare", row(&Envelope { payload: "{}".into(), ..Envelope::default() })),
            ("key", key.as_bytes().to_vec()),
            ("full_key", FullKey::new(GroupId(1), Generation(2), &key).as_bytes().to_vec()),
        ];
        tl_fuzz::check("event_row", &seeds, event_row);
    }
}
