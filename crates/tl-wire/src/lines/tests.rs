#![allow(clippy::unwrap_used)]

use tl_types::{Principal, StoredEvent, Tenant, UnixMs};

use super::*;
use crate::reply::event_json;

fn event(line: &str) -> LineEvent {
    match Line::parse(line.as_bytes()).unwrap() {
        Line::Event(event) => *event,
        Line::Session(_) => panic!("a session: {line}"),
    }
}

fn refused(line: &str) -> &'static str {
    Line::parse(line.as_bytes()).unwrap_err().code.word()
}

#[test]
fn an_exported_event_comes_back_as_it_was() {
    let line = r#"{"event":{"type":"t","payload":{"b":1,"a":2},"actor":"user:x","producer_id":"p",
        "producer_seq":3,"refs":{"step":"1"},"metadata":{"starcite_principal":{"own":1}}}}"#;
    let principal = Principal::open_access();
    let sealed = event(line).check("unused", 9).unwrap().seal(&principal).unwrap();
    let stored =
        StoredEvent { seq: Seq(5), at: UnixMs(7), envelope: sealed.envelope.encode().into() };
    let mut json = Vec::new();
    event_json(&mut json, &stored, &Tenant::new("default").unwrap()).unwrap();
    let mut exported = Vec::new();
    event_line(&mut exported, &json);
    let exported = String::from_utf8(exported).unwrap();
    let again = event(&exported);
    assert_eq!(again.stated_seq(), Some(Seq(5)));
    assert_eq!(again.check("unused", 9).unwrap().seal(&principal), Ok(sealed));
}

#[test]
fn an_event_without_a_producer_gets_the_given_one() {
    let parsed = event(r#"{"event":{"type":"t","payload":{}}}"#).check("import:s", 4).unwrap();
    assert_eq!((&parsed.producer_id()[..], parsed.producer_seq()), (&b"import:s"[..], 4));
    let same = r#"{"event":{"type":"t","payload":{},"producer_id":"import:s","producer_seq":4}}"#;
    let principal = Principal::open_access();
    let (given, said) = (parsed.seal(&principal), event(same).check("x", 1).unwrap());
    assert_eq!(given.unwrap().hash, said.seal(&principal).unwrap().hash);
    let half = event(r#"{"event":{"type":"t","payload":{},"producer_id":"p"}}"#);
    assert!(half.check("import:s", 4).is_err(), "half a position is a fault");
    assert_eq!(half.stated_seq(), None);
}

#[test]
fn a_session_line_is_read_and_written() {
    let creator = tl_types::Actor::parse("user:ann").unwrap();
    let metadata = [("\"a\"".into(), "1".into())];
    let view = SessionView {
        id: "s1",
        title: Some("T"),
        metadata: &metadata,
        tenant: "default",
        creator: &creator,
        created_at: UnixMs(1),
        updated_at: UnixMs(2),
        version: 1,
        archived: false,
        state: crate::reply::SessionState::Active,
        last_seq: Seq(1),
        archived_seq: Seq(0),
    };
    let mut out = Vec::new();
    session_line(&mut out, &view);
    out.push(b'\n');
    event_line(&mut out, br#"{"seq":1}"#);
    crate::testing::golden("lines.ndjson", &out);
    let first = out.split(|&byte| byte == b'\n').next().unwrap();
    match Line::parse(first).unwrap() {
        Line::Session(request) => {
            assert_eq!(request.id.unwrap().as_str(), "s1");
            assert_eq!(request.title.as_deref(), Some("T"));
            assert_eq!(request.metadata.0, metadata);
        }
        Line::Event(_) => panic!("an event"),
    }
}

#[test]
fn other_lines_are_refused() {
    for line in ["{}", "[]", "1", r#"{"session":{},"event":{}}"#, r#"{"other":{}}"#] {
        assert_eq!(refused(line), "invalid_event", "{line}");
    }
    assert_eq!(refused(""), "invalid_json");
    assert_eq!(refused(r#"{"event":{}} {}"#), "invalid_json");
    assert_eq!(refused(r#"{"session":{"id":""}}"#), "invalid_event");
    assert_eq!(refused(r#"{"session":[]}"#), "invalid_session");
    assert!(event(r#"{"event":[]}"#).check("p", 1).is_err());
}

#[test]
fn an_event_as_deep_as_may_be_sent_may_be_imported() {
    let nested = |levels: usize| {
        let payload = "{\"a\":".repeat(levels - 1) + "{}" + &"}".repeat(levels - 1);
        format!(r#"{{"event":{{"type":"t","payload":{payload}}}}}"#)
    };
    assert!(event(&nested(31)).check("p", 1).is_ok());
    assert_eq!(refused(&nested(32)), "too_deep");
}

proptest::proptest! {
    #[test]
    fn no_line_makes_reading_panic(bytes: Vec<u8>, text in "[{}\":,a-z0-9\\[\\]]{0,40}") {
        for line in [bytes, text.into_bytes()] {
            if let Ok(Line::Event(event)) = Line::parse(&line) {
                let _ = event.check("p", 1);
            }
        }
    }
}
