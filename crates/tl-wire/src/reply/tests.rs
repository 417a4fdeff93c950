#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use serde_json::{Value, json};
use tl_types::{Actor, Envelope, StoredEvent, Tenant, UnixMs};

use super::*;
use crate::testing::golden;

fn stored(envelope: &Envelope) -> StoredEvent {
    StoredEvent { seq: Seq(42), at: UnixMs(1_770_562_801_123), envelope: envelope.encode().into() }
}

fn full() -> Envelope {
    Envelope {
        event_type: "state\"\n".into(),
        payload: r#"{"b":1.0,"a":[]}"#.into(),
        actor: "agent:é".into(),
        source: Some("agent".into()),
        metadata: r#"{"k":1}"#.into(),
        refs: Some(r#"{"to_seq":1}"#.into()),
        idempotency_key: Some("k\\1".into()),
        producer_id: "w1".into(),
        producer_seq: 8,
        event_time: Some(UnixMs(0)),
    }
}

fn event(envelope: &Envelope) -> Vec<u8> {
    let mut out = Vec::new();
    event_json(&mut out, &stored(envelope), &Tenant::new("acme").unwrap()).unwrap();
    out
}

#[test]
fn events_golden() {
    let sparse =
        Envelope { source: None, refs: None, idempotency_key: None, event_time: None, ..full() };
    let mut out = event(&full());
    out.push(b'\n');
    out.extend_from_slice(&event(&sparse));
    golden("events.ndjson", &out);
    for line in out.split(|&byte| byte == b'\n') {
        let value: Value = serde_json::from_slice(line).unwrap();
        assert_eq!(value["type"], "state\"\n");
        assert_eq!((&value["seq"], &value["cursor"]), (&json!(42), &json!(42)));
    }
}

#[test]
fn an_unreadable_envelope_leaves_the_buffer_alone() {
    let mut out = b"before".to_vec();
    let event = StoredEvent { envelope: Bytes::from_static(b"\x09"), ..stored(&full()) };
    assert!(event_json(&mut out, &event, &Tenant::new("acme").unwrap()).is_err());
    assert_eq!(out, b"before");
}

type Part<'a> = &'a dyn Fn(&mut Vec<u8>);

fn lines(parts: &[Part<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            out.push(b'\n');
        }
        part(&mut out);
    }
    for line in out.split(|&byte| byte == b'\n') {
        serde_json::from_slice::<Value>(line).unwrap();
    }
    out
}

#[test]
fn append_replies_golden() {
    let appended = Appended {
        first_seq: Seq(5),
        last_seq: Seq(7),
        head_seq: Seq(9),
        deduped: true,
        committed_cursor: Seq(4),
    };
    let seen =
        lines(&[&|out| append_reply(out, &appended), &|out| batch_reply(out, &appended), &|out| {
            append_reply(out, &Appended { deduped: false, ..appended })
        }]);
    golden("append_replies.ndjson", &seen);
}

#[test]
fn frames_golden() {
    let gap = Gap {
        reason: GapReason::CursorExpired,
        from_cursor: Seq(1),
        next_cursor: Seq(4),
        committed_cursor: Seq(6),
        earliest_available_cursor: Seq(4),
    };
    let event: &[u8] = br#"{"seq":1}"#;
    let seen = lines(&[
        &|out| gap_json(out, &gap),
        &|out| gap_json(out, &Gap { reason: GapReason::ResumeInvalidated, ..gap }),
        &|out| end_json(out, SessionState::Closed, Seq(9)),
        &|out| end_json(out, SessionState::Tombstoned, Seq(0)),
        &|out| event_list(out, [event]),
        &|out| events_page(out, [event, event], Seq(2), Seq(3), false),
        &|out| events_page(out, [], Seq(3), Seq(3), true),
    ]);
    golden("frames.ndjson", &seen);
}

#[test]
fn session_rows_golden() {
    let creator = Actor::parse("user:ann:1").unwrap();
    let metadata: [(Bytes, Bytes); 2] =
        [("\"a\"".into(), "1".into()), ("\"b\"".into(), "{\"c\":null}".into())];
    let view = SessionView {
        id: "ses_\"1\"",
        title: Some("T\n"),
        metadata: &metadata,
        tenant: "acme",
        creator: &creator,
        created_at: UnixMs(0),
        updated_at: UnixMs(1_770_562_801_123),
        version: 3,
        archived: true,
        state: SessionState::Active,
        last_seq: Seq(9),
        archived_seq: Seq(4),
    };
    let bare = SessionView {
        title: None,
        metadata: &[],
        archived: false,
        state: SessionState::Closed,
        ..view
    };
    let row = |out: &mut Vec<u8>, view| session_row_with_tenant(out, &view);
    let seen = lines(&[
        &|out| session_row(out, &view),
        &|out| session_row_with_tenant(out, &bare),
        &|out| list_page(out, [view, bare], row, Some("ses/2")),
        &|out| list_page(out, [], row, None),
    ]);
    golden("sessions.ndjson", &seen);
}
