//! What must hold for any bytes given to this crate's readers.

use serde_json::Value;
use tl_types::limits::{BATCH_EVENTS_MAX, EVENT_BYTES_MAX, PAGE_MAX, TAIL_BATCH_MAX, WAIT_MS_MAX};
use tl_types::{ErrorCode, Principal, Seq};

use crate::append::{AppendBody, BatchRequest, ParsedEvent};
use crate::error::WireError;
use crate::json::compact;
use crate::lines::Line;
use crate::query::{EventsQuery, Freshness, ListQuery, TailQuery, append_expected_seq, session_id};
use crate::session::{CreateRequest, PatchRequest};

/// Most that the sender's name adds to an event's metadata, bytes.
const PRINCIPAL_BYTES: usize = 1_024;

/// Any JSON text: judged as another reader judges it, and what is compact stays as it is.
///
/// # Panics
/// When one of these does not hold.
pub fn json(bytes: &[u8]) {
    let Ok((out, hash)) = compact(bytes) else { return };
    assert!(out.len() <= bytes.len(), "whitespace goes, nothing is added");
    assert_eq!(compact(&out), Ok((out.clone(), hash)));
    match serde_json::from_slice::<Value>(bytes) {
        Ok(value) => {
            assert_eq!(serde_json::from_slice::<Value>(&out).expect("as before"), value);
        }
        // Numbers are kept as they are written, also where no double is near.
        Err(error) => assert!(error.to_string().contains("number out of range"), "{error}"),
    }
}

/// An append's body: one event, a JSON batch, or lines.
///
/// # Panics
/// When a body is taken that is not JSON, or an event grows, or is judged differently alone.
pub fn append_body(bytes: &[u8]) {
    match AppendBody::parse(bytes) {
        Ok(AppendBody::Single(request)) => {
            is_json(bytes);
            event(request.event);
        }
        Ok(AppendBody::Batch(request)) => {
            is_json(bytes);
            batch(request);
        }
        Err(error) => is_client_error(&error),
    }
    match BatchRequest::parse_lines(bytes, Some(Seq(3))) {
        Ok(request) => {
            assert_eq!(request.expected_seq, Some(Seq(3)));
            assert!(request.events.len() <= bytes.split(|byte| *byte == b'\n').count());
            batch(request);
        }
        Err(error) => is_client_error(&error),
    }
}

fn batch(request: BatchRequest) {
    assert!((1..=BATCH_EVENTS_MAX).contains(&request.events.len()));
    request.events.into_iter().for_each(event);
}

fn event(parsed: ParsedEvent) {
    let bytes = parsed.compact_bytes();
    assert!(bytes <= EVENT_BYTES_MAX && parsed.producer_seq() >= 1);
    let twin = parsed.clone();
    match parsed.seal(&Principal::open_access()) {
        Ok(sealed) => {
            let stored = sealed.envelope.encode();
            assert!(stored.len() <= bytes + PRINCIPAL_BYTES, "{bytes} became {}", stored.len());
            let text = std::str::from_utf8(&sealed.envelope.payload).expect("UTF-8");
            assert!(serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok());
            assert_eq!(twin.seal(&Principal::open_access()), Ok(sealed), "hashes do not wander");
        }
        Err(error) => is_client_error(&error),
    }
}

/// Bodies of creates and changes, and lines of an import.
///
/// # Panics
/// When one is taken that is not JSON.
pub fn session_body(bytes: &[u8]) {
    // No body at all is an empty create.
    match CreateRequest::parse(bytes) {
        Ok(_) if bytes.is_empty() => {}
        Ok(_) => is_json(bytes),
        Err(error) => is_client_error(&error),
    }
    match PatchRequest::parse(bytes) {
        Ok(_) => is_json(bytes),
        Err(error) => is_client_error(&error),
    }
    match Line::parse(bytes) {
        Ok(Line::Session(_)) => is_json(bytes),
        Ok(Line::Event(line)) => {
            is_json(bytes);
            let _ = line.stated_seq();
            if let Ok(parsed) = line.check("import:s", 1) {
                event(parsed);
            }
        }
        Err(error) => is_client_error(&error),
    }
}

/// Queries of every kind, and the segment of a path that names a session.
///
/// # Panics
/// When a value is taken that is past its limit, or an id does not come back.
pub fn query(bytes: &[u8]) {
    // Targets are ASCII by the time they are read.
    let text: String = bytes.iter().map(|byte| char::from(byte & 0x7f)).collect();
    if let Ok(query) = EventsQuery::parse(&text) {
        assert!((1..=PAGE_MAX).contains(&query.limit) && query.wait_ms <= WAIT_MS_MAX);
    }
    if let Ok(query) = TailQuery::parse(&text) {
        assert!((1..=TAIL_BATCH_MAX).contains(&query.batch_size));
        let _ = query.resume_after(&text);
    }
    if let Ok(query) = ListQuery::parse(&text) {
        assert!((1..=PAGE_MAX).contains(&query.limit));
        assert!(query.metadata.len() <= text.len());
    }
    let _ = (Freshness::parse(&text), append_expected_seq(&text));
    if let Ok(id) = session_id(&text) {
        let escaped: String = id.as_str().bytes().map(|byte| format!("%{byte:02X}")).collect();
        assert_eq!(session_id(&escaped).as_ref(), Ok(&id));
        assert!(id.as_str().len() <= text.len());
    }
}

fn is_json(bytes: &[u8]) {
    if let Err(error) = serde_json::from_slice::<&serde_json::value::RawValue>(bytes) {
        panic!("taken, but not JSON: {error}");
    }
}

fn is_client_error(error: &WireError) {
    assert!(matches!(error.code.status(), 400 | 413), "{error:?}");
    assert!(!error.message.is_empty() && error.message.len() < 1_000, "{error:?}");
    assert_ne!(error.code, ErrorCode::InternalError);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seeds(texts: &[(&'static str, &str)]) -> Vec<tl_fuzz::Seed> {
        texts.iter().map(|(name, text)| (*name, text.as_bytes().to_vec())).collect()
    }

    const EVENT: &str = r#"{"type":"note","payload":{"text":"h\u00e9 \ud83d\ude00","n":[1,-2.5e3,true,null]},"producer_id":"w1","producer_seq":8,"actor":"agent:r","source":"agent","metadata":{"starcite_principal":{"x":1},"a":{}},"refs":{"to_seq":1},"idempotency_key":"k","event_time":"2026-01-01T00:00:00.000Z","expected_seq":7}"#;
    const SMALL: &str = r#"{"type":"a","payload":{},"producer_id":"p","producer_seq":1}"#;

    #[test]
    fn json_over_the_corpus() {
        let deep = format!("{}1{}", "[".repeat(32), "]".repeat(32));
        let texts = [
            ("event", EVENT),
            ("spaced", " { \"a\" : [ 1 , 2 ] ,\t\"b\" :\r\n\"\\\"\\u0041\" } "),
            ("numbers", "[0,-0,1e999,1.5E-7,123456789012345678901234567890]"),
            ("deep", &deep),
        ];
        tl_fuzz::check("json", &seeds(&texts), json);
    }

    #[test]
    fn append_bodies_over_the_corpus() {
        let json_batch = format!(r#"{{"events":[{SMALL},{EVENT}],"expected_seq":3}}"#);
        let lines = format!("{SMALL}\n{SMALL}\r\n\n");
        let texts =
            [("single", EVENT), ("small", SMALL), ("batch", &json_batch), ("lines", &lines)];
        tl_fuzz::check("append_body", &seeds(&texts), append_body);
    }

    #[test]
    fn session_bodies_over_the_corpus() {
        let line = format!(r#"{{"event":{SMALL}}}"#);
        let texts = [
            ("none", ""),
            (
                "create",
                r#"{"id":"ses_1","title":"Trip","metadata":{"a":{"b":[1]}},"creator_principal":{"id":"x"}}"#,
            ),
            ("patch", r#"{"title":null,"metadata":{"a":null},"expected_version":3}"#),
            ("session_line", r#"{"session":{"id":"s","title":"t","metadata":{"a":1}}}"#),
            ("event_line", &line),
        ];
        tl_fuzz::check("session_body", &seeds(&texts), session_body);
    }

    #[test]
    fn queries_over_the_corpus() {
        let texts = [
            ("page", "cursor=7&limit=100&wait_ms=30000&stale=true&min_index=9"),
            ("tail", "cursor=0&batch_size=1000&access_token=x"),
            ("from", "from=-20"),
            (
                "list",
                "limit=50&cursor=abc&archived=all&consistent=true&metadata[a]=b&metadata.c=%64",
            ),
            ("guard", "expected_seq=12&expected_seq=9007199254740991"),
            ("id", "chat%2F42%C3%A9~x"),
        ];
        tl_fuzz::check("query", &seeds(&texts), query);
    }
}
