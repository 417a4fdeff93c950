#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

const PLAIN: &str = "POST /v1/sessions/chat-1/append HTTP/1.1\r\nhost: x\r\n\
                     content-type: application/json\r\ncontent-length: 17\r\n\r\n";

fn with(header: &str) -> String {
    PLAIN.replace("host: x\r\n", &format!("host: x\r\n{header}\r\n"))
}

fn is_append(text: &str) -> bool {
    matches!(read(text.as_bytes()), Head::Append(_))
}

#[test]
fn a_plain_append_is_read() {
    let head = AppendHead {
        id: "chat-1",
        query: "",
        namespace: None,
        kind: BodyKind::Json,
        head_bytes: PLAIN.len(),
        body_bytes: 17,
    };
    assert_eq!(read(PLAIN.as_bytes()), Head::Append(head));
    let text = with("X-Throughline-Namespace: team")
        .replace("append HTTP", "append?expected_seq=4 HTTP")
        .replace("application/json", "application/x-ndjson")
        .replace("chat-1", "a%2Fb");
    let Head::Append(head) = read(text.as_bytes()) else { panic!("{text}") };
    assert_eq!(
        (head.id, head.query, head.namespace, head.kind),
        ("a%2Fb", "expected_seq=4", Some("team"), BodyKind::Lines)
    );
}

#[test]
fn headers_that_change_nothing_are_passed_over() {
    for header in [
        "authorization: Bearer x",
        "accept: */*",
        "accept: text/plain, application/json;q=0.5",
        "connection: Keep-Alive",
        "user-agent: anything",
        "idempotency-key: k",
    ] {
        assert!(is_append(&with(header)), "{header}");
    }
}

#[test]
fn whatever_is_not_plain_is_for_the_general_way() {
    for header in [
        "transfer-encoding: chunked",
        "content-encoding: gzip",
        "content-encoding: identity",
        "expect: 100-continue",
        "upgrade: websocket",
        "origin: https://a.example",
        "connection: close",
        "connection: keep-alive, upgrade",
        "accept: text/html",
        "accept: application/json;q=0",
        "content-length: 17",
        "content-type: application/json",
        "x-throughline-namespace: a\r\nx-throughline-namespace: b",
        "te: trailers",
        "bad header",
    ] {
        assert_eq!(read(with(header).as_bytes()), Head::Other, "{header}");
    }
    for (old, new) in [
        ("POST", "PUT"),
        ("POST", "post"),
        ("HTTP/1.1", "HTTP/1.0"),
        ("/append", "/archive"),
        ("/append", "/append/"),
        ("/append", "/x/append"),
        ("/append", "/append#x"),
        ("/append", "/append?a b"),
        ("chat-1", "chat\"1"),
        ("chat-1", "chat{1}"),
        ("17", ""),
        ("17", "+17"),
        ("17", "17, 17"),
        ("17", "1234567890"),
        ("application/json", "text/plain"),
        ("content-length: 17\r\n", ""),
        ("content-type: application/json\r\n", ""),
    ] {
        let text = PLAIN.replace(old, new);
        assert_eq!(read(text.as_bytes()), Head::Other, "{new}");
    }
}

#[test]
fn limits_hold_at_the_limit_and_one_past_it() {
    let filled = |count: usize| {
        let more: String = (0..count).map(|n| format!("x-{n}: y\r\n")).collect();
        PLAIN.replace("host: x\r\n", &more)
    };
    assert!(is_append(&filled(HEADERS_MAX - 2)));
    assert_eq!(read(filled(HEADERS_MAX - 1).as_bytes()), Head::Other);
    let long = |bytes: usize| with(&format!("x: {}", "y".repeat(bytes - PLAIN.len() - 5)));
    assert_eq!(long(HEAD_BYTES_MAX).len(), HEAD_BYTES_MAX);
    assert!(is_append(&long(HEAD_BYTES_MAX)));
    assert_eq!(read(long(HEAD_BYTES_MAX + 1).as_bytes()), Head::Other);
    let endless = &long(2 * HEAD_BYTES_MAX)[..HEAD_BYTES_MAX];
    assert_eq!(read(endless.as_bytes()), Head::Other);
    assert_eq!(read(&endless.as_bytes()[..HEAD_BYTES_MAX - 1]), Head::Partial);
}

#[test]
fn every_part_of_a_plain_append_may_become_one() {
    for end in 0..PLAIN.len() {
        assert_eq!(read(&PLAIN.as_bytes()[..end]), Head::Partial, "{end}");
    }
}

proptest! {
    /// More bytes never turn a verdict round: what was refused stays refused, and a head is read
    /// the same whatever follows it.
    #[test]
    fn a_verdict_stays(
        changes in prop::collection::vec((0..PLAIN.len(), any::<u8>()), 0..4),
        rest in prop::collection::vec(any::<u8>(), 0..64),
        end in 0..PLAIN.len(),
    ) {
        let mut bytes = PLAIN.as_bytes().to_vec();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        let early = read(&bytes[..end]) == Head::Other;
        let whole = bytes.len();
        bytes.extend_from_slice(&rest);
        match read(&bytes) {
            Head::Append(head) => {
                prop_assert!(!early && head.head_bytes <= bytes.len());
                let cut = read(&bytes[..head.head_bytes]);
                prop_assert_eq!(cut, Head::Append(head));
            }
            Head::Partial => prop_assert!(!early && read(&bytes[..whole]) == Head::Partial),
            Head::Other => {}
        }
    }
}
