#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::{Value, json};
use tl_types::Principal;

use super::*;
use crate::error::Fact;
use crate::testing::{Choices, ann, golden};

fn event() -> Value {
    json!({"type": "message", "payload": {"text": "hi"}, "producer_id": "w1", "producer_seq": 1})
}

/// The event with some fields set; `null` stays `null`.
fn with(fields: Value) -> String {
    let mut event = event();
    for (name, value) in fields.as_object().unwrap() {
        event[name] = value.clone();
    }
    event.to_string()
}

fn parse(body: &str) -> Result<AppendRequest, WireError> {
    match AppendBody::parse(body.as_bytes())? {
        AppendBody::Single(request) => Ok(request),
        AppendBody::Batch(_) => panic!("a batch: {body}"),
    }
}

fn parse_batch(body: &str) -> Result<BatchRequest, WireError> {
    match AppendBody::parse(body.as_bytes())? {
        AppendBody::Single(_) => panic!("a single event: {body}"),
        AppendBody::Batch(request) => Ok(request),
    }
}

fn seal(body: &str) -> SealedEvent {
    parse(body).unwrap().event.seal(&Principal::open_access()).unwrap()
}

/// `code: message` of the refusal.
fn refused(body: &str) -> String {
    parse(body).unwrap_err().to_string()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn a_full_event_is_sealed_golden() {
    let body = r#" { "type":"mess\u0061ge", "payload": {"b":1.0, "a":"\u00e9"}, "producer_id":"w1",
        "producer_seq":"7", "actor":"agent:x:1", "source":"agent", "unknown":{"x":[1]},
        "metadata":{"k":1,"starcite_principal":{"tenant_id":"evil","note":"kept"},"z":2},
        "refs":{"to_seq":"3","step":4,"request_id":"r","other":[ ]},
        "idempotency_key":"key", "expected_seq":"12", "event_time":"2026-02-08T16:00:01.5+01:00" } "#;
    let request = parse(body).unwrap();
    assert_eq!(request.expected_seq, Some(Seq(12)));
    assert_eq!(request.event.producer_id(), "w1");
    assert_eq!(request.event.producer_seq(), 7);
    let sealed = request.event.seal(&Principal::open_access()).unwrap();
    let envelope = &sealed.envelope;
    let seen = format!(
        "type {}\npayload {}\nactor {}\nsource {}\nmetadata {}\nrefs {}\nidempotency_key {}\n\
         producer {} {}\nevent_time {}\nhash {} {:032x}",
        text(&envelope.event_type),
        text(&envelope.payload),
        text(&envelope.actor),
        text(envelope.source.as_ref().unwrap()),
        text(&envelope.metadata),
        text(envelope.refs.as_ref().unwrap()),
        text(envelope.idempotency_key.as_ref().unwrap()),
        text(&envelope.producer_id),
        envelope.producer_seq,
        envelope.event_time.unwrap(),
        HASH_ALGORITHM,
        sealed.hash,
    );
    golden("sealed.txt", seen.as_bytes());
}

#[test]
fn a_smallest_event_gets_the_defaults() {
    let sealed = seal(&event().to_string());
    assert_eq!(sealed.envelope.actor, "service:service");
    assert_eq!((sealed.envelope.source, sealed.envelope.refs), (None, None));
    assert_eq!((sealed.envelope.idempotency_key, sealed.envelope.event_time), (None, None));
    assert_eq!(
        text(&sealed.envelope.metadata),
        r#"{"starcite_principal":{"tenant_id":"default","actor":"service:service","principal_type":"service","principal_id":"service"}}"#
    );
    let nulls = json!({"actor": null, "source": null, "metadata": null, "refs": null,
        "idempotency_key": null, "expected_seq": null, "event_time": null});
    assert_eq!(seal(&with(nulls)), seal(&event().to_string()), "null means absent");
    assert_eq!(seal(&with(json!({"refs": {}, "metadata": {}}))), seal(&event().to_string()));
}

#[test]
fn each_field_has_its_refusal() {
    let long = "x".repeat(256);
    let long_actor = format!("user:{}", "x".repeat(251));
    for (fields, wanted) in [
        (json!({"type": null}), "invalid_event: type is required and must be a non-empty string"),
        (json!({"type": ""}), "invalid_event: type must be a non-empty string"),
        (json!({"type": 1}), "invalid_event: type must be a non-empty string"),
        (json!({"type": long}), "invalid_event: type has 256 bytes; at most 255 are allowed"),
        (json!({"payload": null}), "invalid_event: payload is required and must be a JSON object"),
        (json!({"payload": []}), "invalid_event: payload is required and must be a JSON object"),
        (json!({"payload": "{}"}), "invalid_event: payload is required and must be a JSON object"),
        (json!({"producer_id": null}), "invalid_event: producer_id is required"),
        (json!({"producer_id": ""}), "invalid_event: producer_id must be a non-empty string"),
        (json!({"producer_id": long}), "invalid_event: producer_id has 256 bytes"),
        (json!({"producer_seq": null}), "invalid_event: producer_seq is required"),
        (json!({"producer_seq": 0}), "invalid_event: producer_seq is required"),
        (json!({"producer_seq": -1}), "invalid_event: producer_seq is required"),
        (json!({"producer_seq": 1.0}), "invalid_event: producer_seq is required"),
        (json!({"producer_seq": "1x"}), "invalid_event: producer_seq is required"),
        (json!({"producer_seq": ""}), "invalid_event: producer_seq is required"),
        (json!({"producer_seq": 9_007_199_254_740_992u64}), "invalid_event: producer_seq is"),
        (json!({"producer_seq": "90071992547409910"}), "invalid_event: producer_seq is"),
        (json!({"producer_seq": [1]}), "invalid_event: producer_seq is required"),
        (json!({"actor": ""}), "invalid_event: actor must be a non-empty string"),
        (json!({"actor": 5}), "invalid_event: actor must be a non-empty string"),
        (json!({"actor": long_actor}), "invalid_event: actor has 256 bytes"),
        (json!({"source": ""}), "invalid_event: source must be a non-empty string"),
        (json!({"source": long}), "invalid_event: source has 256 bytes"),
        (json!({"metadata": []}), "invalid_metadata: metadata must be a JSON object"),
        (json!({"metadata": "x"}), "invalid_metadata: metadata must be a JSON object"),
        (json!({"refs": []}), "invalid_refs: refs must be a JSON object"),
        (json!({"refs": 1}), "invalid_refs: refs must be a JSON object"),
        (json!({"refs": {"to_seq": -1}}), "invalid_event: refs.to_seq must be a whole number"),
        (json!({"refs": {"to_seq": "x"}}), "invalid_event: refs.to_seq must be a whole number"),
        (json!({"refs": {"step": 1.5}}), "invalid_event: refs.step must be a whole number"),
        (json!({"refs": {"step": {}}}), "invalid_event: refs.step must be a whole number"),
        (json!({"refs": {"request_id": 1}}), "invalid_event: refs.request_id must be a string"),
        (json!({"refs": {"sequence_id": []}}), "invalid_event: refs.sequence_id must be a string"),
        (json!({"idempotency_key": ""}), "invalid_event: idempotency_key must be a non-empty"),
        (json!({"idempotency_key": long}), "invalid_event: idempotency_key has 256 bytes"),
        (json!({"expected_seq": -1}), "invalid_event: expected_seq must be a whole number from 0"),
        (json!({"expected_seq": "a"}), "invalid_event: expected_seq must be a whole number from 0"),
        (json!({"event_time": 5}), "invalid_event: event_time must be an RFC 3339 instant"),
        (json!({"event_time": "today"}), "invalid_event: event_time must be an RFC 3339 instant"),
        (json!({"event_time": "1969-12-31T23:59:59Z"}), "invalid_event: event_time must be"),
    ] {
        let seen = refused(&with(fields.clone()));
        assert!(seen.starts_with(wanted), "{fields}: {seen}");
    }
    for body in ["[]", "1", "\"x\"", "null"] {
        assert_eq!(refused(body), "invalid_event: The event must be a JSON object");
    }
}

#[test]
fn fields_at_their_limits_are_taken() {
    let long = "é".repeat(127) + "x";
    assert_eq!(long.len(), 255);
    let actor = format!("user:{}", "x".repeat(250));
    let body = with(json!({"type": long, "source": long, "producer_id": long, "actor": actor,
        "idempotency_key": long, "producer_seq": 9_007_199_254_740_991u64, "expected_seq": 0}));
    assert_eq!(seal(&body).envelope.source.unwrap(), long);
    // Escapes count by what they stand for.
    let escaped = "\\u0061".repeat(255);
    let body =
        format!(r#"{{"type":"{escaped}","payload":{{}},"producer_id":"w","producer_seq":1}}"#);
    assert_eq!(seal(&body).envelope.event_type, "a".repeat(255));
}

#[test]
fn json_faults_come_before_field_faults() {
    assert!(refused("").starts_with("invalid_json: "));
    let error = parse(r#"{"type":5,"payload":[}"#).unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidJson);
    assert_eq!(error.facts, [("offset", Fact::Number(21))]);
    assert!(refused(r#"{"type":5} x"#).starts_with("invalid_json: "));
    assert!(refused(r#"{"type":"a","type":"a"}"#).starts_with("invalid_json: "));
    assert!(refused(r#"{"metadata":{"a":1,"a":2}}"#).starts_with("invalid_json: "));
    assert!(refused(r#"{"refs":{"step":1,"\u0073tep":2}}"#).starts_with("invalid_json: "));
    let twice = r#"{"metadata":{"starcite_principal":1,"starcite_principal":2}}"#;
    assert!(refused(twice).starts_with("invalid_json: "), "also when the first was cut out");
}

/// An event whose compact form has exactly this many bytes.
fn event_of(bytes: usize, producer_seq: usize) -> String {
    let head = format!(
        r#"{{"type":"t","producer_id":"w","producer_seq":{producer_seq},"payload":{{"x":""#
    );
    let fill = bytes - head.len() - "\"}}".len();
    format!("{head}{}\"}}}}", "x".repeat(fill))
}

#[test]
fn an_event_at_its_size_limit_and_one_past() {
    let limit = tl_types::limits::EVENT_BYTES_MAX;
    let request = parse(&event_of(limit, 1)).unwrap();
    assert_eq!(request.event.compact_bytes(), limit);
    assert!(parse(&event_of(limit, 1).replace(",", " , ")).is_ok(), "whitespace does not count");
    let error = parse(&event_of(limit + 1, 1)).unwrap_err();
    assert_eq!(error.code, ErrorCode::PayloadTooLarge);
    assert_eq!(error.facts, [("limit", Fact::from(limit)), ("unit", "bytes".into())]);
    let batch = format!("{}\n{}", event_of(9_999, 1), event_of(limit + 1, 2));
    let error = BatchRequest::parse_lines(batch.as_bytes(), None).unwrap_err();
    assert_eq!(error.code, ErrorCode::PayloadTooLarge);
    assert_eq!(error.facts.last(), Some(&("index", Fact::Number(1))));
}

#[test]
fn what_is_left_out_still_counts_for_the_size_of_an_event() {
    let body = with(json!({"refs": {"to_seq": "7"},
        "metadata": {"starcite_principal": {"actor": "a", "x": 1}, "b": 1}}));
    assert_eq!(parse(&body).unwrap().event.compact_bytes(), body.len());
    for metadata in [
        r#"{"a":1,"starcite_principal":"none"}"#,
        r#"{"starcite_principal":{"actor":"x","tenant_id":"y"},"a":1,"b":2}"#,
        r#"{"starcite_principal":{"actor":"x"}}"#,
        r#"{"a":1,"starcite_principal":{"n":1,"actor":"x","m":2},"b":2}"#,
    ] {
        let body = format!(
            r#"{{"type":"t","payload":{{}},"metadata":{metadata},"producer_id":"w","producer_seq":1}}"#
        );
        assert_eq!(parse(&body).unwrap().event.compact_bytes(), body.len(), "{metadata}");
        let lines = BatchRequest::parse_lines(body.as_bytes(), None).unwrap();
        assert_eq!(lines.events[0].compact_bytes(), body.len(), "{metadata}");
    }
}

#[test]
fn metadata_at_its_size_limit_and_one_past() {
    let limit = tl_types::limits::METADATA_BYTES_MAX;
    let metadata = |bytes: usize| json!({"k": "x".repeat(bytes - r#"{"k":""}"#.len())});
    let sealed = seal(&with(json!({"metadata": metadata(limit)})));
    assert!(sealed.envelope.metadata.len() > limit, "the principal does not count");
    let error = parse(&with(json!({"metadata": metadata(limit + 1)}))).unwrap_err();
    assert_eq!(error.code, ErrorCode::PayloadTooLarge);
    assert_eq!(error.facts[0], ("limit", Fact::from(limit)));
    let mut sent_back = metadata(limit);
    sent_back["starcite_principal"] = json!({"tenant_id": "t", "actor": "a"});
    assert!(parse(&with(json!({"metadata": sent_back}))).is_ok());
    sent_back["starcite_principal"]["own"] = json!("counts");
    assert!(parse(&with(json!({"metadata": sent_back}))).is_err());
}

#[test]
fn a_body_past_its_limit_is_refused_unread() {
    let body = vec![b' '; tl_types::limits::BODY_BYTES_MAX + 1];
    assert_eq!(AppendBody::parse(&body).unwrap_err().code, ErrorCode::PayloadTooLarge);
    assert_eq!(
        BatchRequest::parse_lines(&body, None).unwrap_err().code,
        ErrorCode::PayloadTooLarge
    );
}

#[test]
fn a_caller_with_a_token_acts_as_itself() {
    let own = parse(&event().to_string()).unwrap().event.seal(&ann()).unwrap();
    assert_eq!(own.envelope.actor, "user:ann");
    assert_eq!(
        text(&own.envelope.metadata),
        r#"{"starcite_principal":{"tenant_id":"acme","actor":"user:ann","principal_type":"user","principal_id":"ann"}}"#
    );
    let named = parse(&with(json!({"actor": "user:ann"}))).unwrap().event.seal(&ann());
    assert_eq!(named, Ok(own), "saying the default changes nothing");
    for actor in ["user:bob", "agent:ann", "ann"] {
        let event = parse(&with(json!({"actor": actor}))).unwrap().event;
        assert_eq!(event.seal(&ann()).unwrap_err().code, ErrorCode::InvalidEvent, "{actor}");
    }
}

#[test]
fn without_access_control_any_well_formed_actor_may_be_named() {
    let sealed = seal(&with(json!({"actor": "agent:a\"b:c"})));
    assert_eq!(sealed.envelope.actor, "agent:a\"b:c");
    let metadata: Value = serde_json::from_slice(&sealed.envelope.metadata).unwrap();
    assert_eq!(
        metadata["starcite_principal"],
        json!({"tenant_id": "default", "actor": "agent:a\"b:c", "principal_type": "agent",
            "principal_id": "a\"b:c"})
    );
    let event = parse(&with(json!({"actor": "drafter"}))).unwrap().event;
    let error = event.seal(&Principal::open_access()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "invalid_event: actor must look like user:<id>, agent:<id> or service:<id>"
    );
}

#[test]
fn the_principal_is_merged_over_what_the_client_sent() {
    let metadata = |sent: &str| {
        let body = format!(
            r#"{{"type":"t","payload":{{}},"producer_id":"w","producer_seq":1,"metadata":{sent}}}"#
        );
        let sealed = seal(&body);
        (text(&sealed.envelope.metadata).to_owned(), sealed.hash)
    };
    let ours = r#""tenant_id":"default","actor":"service:service","principal_type":"service","principal_id":"service""#;
    let plain = metadata(r#"{"a":1,"b":2}"#);
    assert_eq!(plain.0, format!(r#"{{"a":1,"b":2,"starcite_principal":{{{ours}}}}}"#));
    for sent in [
        r#"{"starcite_principal":7,"a":1,"b":2}"#,
        r#"{"a":1,"starcite_principal":[],"b":2}"#,
        r#"{"a":1,"b":2,"starcite_principal":{}}"#,
        r#"{"a":1,"\u0073tarcite_principal":{"actor":"x","tenant_id":{"y":1}},"b":2}"#,
    ] {
        assert_eq!(metadata(sent), plain, "{sent}");
    }
    let extra = metadata(r#"{"starcite_principal":{"n":1,"actor":"x","m":[2]},"a":1}"#);
    assert_eq!(extra.0, format!(r#"{{"a":1,"starcite_principal":{{"n":1,"m":[2],{ours}}}}}"#));
    assert_ne!(extra.1, metadata(r#"{"a":1}"#).1);
    assert_eq!(metadata(&extra.0), extra, "sent back, it stays as it is");
}

#[test]
fn whole_numbers_in_refs_become_numbers() {
    let refs = |sent: &str| {
        let body = format!(
            r#"{{"type":"t","payload":{{}},"producer_id":"w","producer_seq":1,"refs":{sent}}}"#
        );
        let sealed = seal(&body);
        (text(&sealed.envelope.refs.unwrap()).to_owned(), sealed.hash)
    };
    let sent = refs(r#"{"to_seq":"3","x":"4","step":"05","request_id":null}"#);
    assert_eq!(sent.0, r#"{"to_seq":3,"x":"4","step":5,"request_id":null}"#);
    assert_eq!(sent.1, refs(r#"{"step":5,"request_id":null,"x":"4","to_seq":3}"#).1);
    assert_eq!(refs(r#"{"to_seq":9007199254740991}"#).0, r#"{"to_seq":9007199254740991}"#);
}

#[test]
fn every_content_field_is_in_the_hash_and_the_guard_is_not() {
    let base = json!({"type": "t", "payload": {"a": 1}, "actor": "user:a", "source": "s",
        "metadata": {"m": 1}, "refs": {"r": 1}, "idempotency_key": "k", "producer_id": "p",
        "producer_seq": 2, "event_time": "2026-01-01T00:00:00Z"});
    let hash = |event: &Value| seal(&event.to_string()).hash;
    let mut seen = vec![hash(&base)];
    for (name, value) in [
        ("type", json!("u")),
        ("payload", json!({"a": 2})),
        ("actor", json!("user:b")),
        ("source", json!("u")),
        ("metadata", json!({"m": 2})),
        ("refs", json!({"r": 2})),
        ("idempotency_key", json!("l")),
        ("producer_id", json!("q")),
        ("producer_seq", json!(3)),
        ("event_time", json!("2026-01-01T00:00:00.001Z")),
    ] {
        let mut event = base.clone();
        event[name] = value;
        seen.push(hash(&event));
        if !["type", "payload", "producer_id", "producer_seq"].contains(&name) {
            event[name] = Value::Null;
            seen.push(hash(&event));
        }
    }
    // A text moved from one field to another is another content.
    let mut swapped = base.clone();
    swapped["source"] = json!("k");
    swapped["idempotency_key"] = json!("s");
    seen.push(hash(&swapped));
    let all = seen.len();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), all);
    let mut guarded = base.clone();
    guarded["expected_seq"] = json!(4);
    guarded["unknown"] = json!("x");
    assert_eq!(hash(&guarded), hash(&base));
}

#[test]
fn a_json_batch_keeps_its_order() {
    let body = format!(
        r#"{{"expected_seq":"4","events":[{},{}],"x":1}}"#,
        with(json!({})),
        with(json!({"producer_seq": 2}))
    );
    let batch = parse_batch(&body).unwrap();
    assert_eq!(batch.expected_seq, Some(Seq(4)));
    let seqs: Vec<_> = batch.events.iter().map(ParsedEvent::producer_seq).collect();
    assert_eq!(seqs, [1, 2]);
    let lines = format!("{}\r\n{}\n\n", with(json!({})), with(json!({"producer_seq": 2})));
    assert_eq!(BatchRequest::parse_lines(lines.as_bytes(), Some(Seq(4))), Ok(batch));
}

#[test]
fn a_refused_batch_names_the_event() {
    let good = event().to_string();
    let bad = with(json!({"refs": []}));
    let error = parse_batch(&format!(r#"{{"events":[{good},{bad}]}}"#)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "invalid_refs: events[1]: refs must be a JSON object, or be left out"
    );
    assert_eq!(error.facts, [("index", Fact::Number(1))]);
    let lines = |body: String| BatchRequest::parse_lines(body.as_bytes(), None).unwrap_err();
    assert_eq!(lines(format!("{good}\n{bad}")).facts, [("index", Fact::Number(1))]);
    let error = lines(format!("{good}\n\n{good}"));
    assert_eq!((error.code, error.facts.len()), (ErrorCode::InvalidJson, 2));
    assert_eq!(lines(format!("{good}\n[]\n")).code, ErrorCode::InvalidEvent);
    assert_eq!(lines(format!("{good} {good}")).code, ErrorCode::InvalidJson);
}

#[test]
fn an_empty_batch_is_refused() {
    for body in [r#"{"events":[]}"#, r#"{"events":{}}"#, r#"{"events":null}"#] {
        assert_eq!(parse_batch(body).unwrap_err().code, ErrorCode::InvalidEvent, "{body}");
    }
    let error = parse_batch(r#"{"events":[],"expected_seq":"x"}"#).unwrap_err();
    assert!(error.message.starts_with("expected_seq"), "{error}");
    for body in ["", "\n", " \r\n"] {
        let error = BatchRequest::parse_lines(body.as_bytes(), None).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidEvent);
    }
}

#[test]
fn a_batch_at_its_limits_and_one_past() {
    let lines = |events: usize, bytes: usize| {
        let lines: Vec<_> = (1..=events).map(|seq| event_of(bytes, seq)).collect();
        lines.join("\n")
    };
    let parse = |lines: &str| BatchRequest::parse_lines(lines.as_bytes(), None);
    assert_eq!(parse(&lines(1_000, 100)).unwrap().events.len(), 1_000);
    let error = parse(&lines(1_001, 100)).unwrap_err();
    assert_eq!(error.code, ErrorCode::PayloadTooLarge);
    assert_eq!(error.facts, [("limit", Fact::Number(1_000)), ("unit", "events".into())]);
    let json = |lines: &str| format!(r#"{{"events":[{}]}}"#, lines.replace('\n', ","));
    assert_eq!(parse_batch(&json(&lines(1_000, 100))).unwrap().events.len(), 1_000);
    assert_eq!(parse_batch(&json(&lines(1_001, 100))).unwrap_err(), error);

    let half = BATCH_BYTES_MAX / 16;
    assert_eq!(parse(&lines(16, half)).unwrap().events.len(), 16);
    let past = format!("{}\n{}", lines(15, half), event_of(half + 1, 16));
    let error = parse(&past).unwrap_err();
    assert_eq!(error.code, ErrorCode::PayloadTooLarge);
    assert_eq!(error.facts, [("limit", Fact::from(BATCH_BYTES_MAX)), ("unit", "bytes".into())]);
    assert_eq!(parse_batch(&json(&past)).unwrap_err(), error);
}

#[test]
fn an_event_may_nest_as_deep_alone_as_in_a_batch() {
    let nested = |levels: usize| {
        let payload = "{\"a\":".repeat(levels - 1) + "{}" + &"}".repeat(levels - 1);
        format!(r#"{{"type":"t","payload":{payload},"producer_id":"w","producer_seq":1}}"#)
    };
    let fits = nested(31);
    assert!(BatchRequest::parse_lines(fits.as_bytes(), None).is_ok());
    assert!(parse_batch(&format!(r#"{{"events":[{fits}]}}"#)).is_ok());
    let deep = nested(32);
    assert_eq!(
        BatchRequest::parse_lines(deep.as_bytes(), None).unwrap_err().code,
        ErrorCode::TooDeep
    );
    assert_eq!(
        parse_batch(&format!(r#"{{"events":[{deep}]}}"#)).unwrap_err().code,
        ErrorCode::TooDeep
    );
    assert!(parse(&fits).is_ok());
    assert_eq!(parse(&deep).unwrap_err().code, ErrorCode::TooDeep);
}

proptest! {
    #[test]
    fn the_order_of_members_changes_nothing(seed: u64) {
        let mut members: Vec<_> = [
            r#""type":"t""#, r#""payload":{"a":1}"#, r#""producer_id":"p""#, r#""producer_seq":1"#,
            r#""metadata":{"starcite_principal":{"x":1},"k":2}"#, r#""refs":{"to_seq":"1"}"#,
            r#""source":"s""#, r#""expected_seq":3"#, r#""event_time":"2026-01-01T00:00:00Z""#,
        ].into();
        let in_order = parse(&format!("{{{}}}", members.join(","))).unwrap();
        let mut choices = Choices(seed);
        for index in (1..members.len()).rev() {
            members.swap(index, choices.below(index + 1));
        }
        let shuffled = parse(&format!("{{{}}}", members.join(", "))).unwrap();
        prop_assert_eq!(shuffled.expected_seq, in_order.expected_seq);
        let principal = Principal::open_access();
        prop_assert_eq!(shuffled.event.seal(&principal), in_order.event.seal(&principal));
    }

    #[test]
    fn no_body_makes_reading_panic(
        bytes: Vec<u8>, at in any::<prop::sample::Index>(), byte in prop_oneof![
            prop::sample::select(&b"{}[]\",:\\ 019-.\n\x80"[..]), any::<u8>(),
        ], cut: bool,
    ) {
        let _ = AppendBody::parse(&bytes);
        let _ = BatchRequest::parse_lines(&bytes, None);
        let mut body = with(json!({"metadata": {"starcite_principal": {"a": [1], "actor": "x"},
            "m": "\u{e9}"}, "refs": {"to_seq": "7", "request_id": "r"}, "actor": "user:x"}))
            .into_bytes();
        let at = at.index(body.len());
        body[at] = byte;
        if cut {
            body.truncate(at);
        }
        if let Ok(AppendBody::Single(request)) = AppendBody::parse(&body)
            && let Ok(sealed) = request.event.seal(&Principal::open_access())
        {
            for part in [&sealed.envelope.payload, &sealed.envelope.metadata] {
                prop_assert!(serde_json::from_slice::<Value>(part).unwrap().is_object());
            }
        }
        let _ = BatchRequest::parse_lines(&body, None);
    }
}

#[test]
fn a_guard_on_one_event_of_a_batch_is_refused() {
    let (plain, guarded) = (event().to_string(), with(json!({"expected_seq": 0})));
    let body = format!(r#"{{"events":[{plain},{guarded}],"expected_seq":0}}"#);
    let error = parse_batch(&body).unwrap_err();
    assert_eq!(
        (error.code, &error.facts[..]),
        (ErrorCode::InvalidEvent, &[("index", Fact::Number(1))][..])
    );
    let lines = format!("{plain}\n{guarded}");
    let error = BatchRequest::parse_lines(lines.as_bytes(), None).unwrap_err();
    assert!(error.message.contains("expected_seq guards a whole batch"), "{error}");
    let absent = with(json!({"expected_seq": null}));
    assert!(BatchRequest::parse_lines(absent.as_bytes(), None).is_ok());
}
