//! What must hold for any bytes that a client sends.

use bytes::BytesMut;
use tl_types::limits::WS_MESSAGE_BYTES_MAX;

#[cfg(target_os = "linux")]
use crate::hot::{Head, read_head};
use crate::settings::{CLIENT_FRAMES_MAX, HEADERS_MAX};
use crate::tail::frames::{Asked, Incoming, Violation};

/// Input on a WebSocket: it means the same however it was cut into pieces, what is kept while
/// waiting is bounded, and so is what is answered.
///
/// # Panics
/// When one of these does not hold.
pub fn websocket(bytes: &[u8]) {
    let (whole, end) = read(bytes, bytes.len());
    for piece in [1, 7, 130] {
        assert_eq!(read(bytes, piece), (whole.clone(), end), "pieces of {piece}");
    }
    assert!(whole.len() <= CLIENT_FRAMES_MAX);
    for asked in whole {
        if let Asked::Pong(payload) = asked {
            assert!(payload.len() <= 125);
        }
    }
}

/// The head of a request that may be served on the driver's thread: what is taken for a plain
/// append is whole for the parser under the general way too, says its length once, and nothing
/// about another framing; and more bytes never turn a verdict round.
///
/// # Panics
/// When one of these does not hold.
#[cfg(target_os = "linux")]
pub fn http_head(bytes: &[u8]) {
    let whole = read_head(bytes);
    for cut in [bytes.len() / 3, bytes.len() / 2, bytes.len().saturating_sub(1)] {
        match read_head(&bytes[..cut]) {
            Head::Partial => {}
            Head::Append(_) => assert_eq!(read_head(&bytes[..cut]), whole),
            Head::Other => assert!(!matches!(whole, Head::Append(_)), "refused at {cut} bytes"),
        }
    }
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let theirs = httparse::Request::new(&mut headers).parse(bytes);
    let Head::Append(head) = whole else {
        let partial = theirs.is_ok_and(|status| status.is_partial());
        return assert!(whole == Head::Other || partial, "nothing is missing: {theirs:?}");
    };
    assert_eq!(theirs, Ok(httparse::Status::Complete(head.head_bytes)));
    assert_eq!(read_head(&bytes[..head.head_bytes]), Head::Append(head));
    let Head::Append(head) = read_head(bytes) else { unreachable!("read before") };
    let (mut lengths, mut lines) = (Vec::new(), 0);
    for line in bytes[..head.head_bytes].split(|byte| *byte == b'\n').skip(1) {
        let line = String::from_utf8_lossy(line).trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        lines += 1;
        let (name, value) = line.split_once(':').expect("a header has a colon");
        assert!(!["transfer-encoding", "expect", "upgrade", "trailer"].contains(&name), "{line}");
        if name == "content-length" {
            lengths.push(value.trim().to_owned());
        }
    }
    assert_eq!(lengths.len(), 1, "among {lines} headers");
    assert_eq!(
        lengths[0].trim_start_matches('0'),
        head.body_bytes.to_string().trim_start_matches('0')
    );
}

/// All that is asked, until more bytes are needed or the connection cannot go on.
fn read(bytes: &[u8], piece: usize) -> (Vec<Asked>, Option<Violation>) {
    let (mut incoming, mut input, mut asked) = (Incoming::default(), BytesMut::new(), Vec::new());
    for part in bytes.chunks(piece.max(1)) {
        input.extend_from_slice(part);
        loop {
            match incoming.next(&mut input) {
                Ok(Some(one)) => asked.push(one),
                Ok(None) => break,
                Err(violation) => return (asked, Some(violation)),
            }
        }
        assert!(input.len() < 14 + 125 && input.len() < WS_MESSAGE_BYTES_MAX, "data is not held");
    }
    (asked, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        let mut out = vec![first];
        match payload.len() {
            length @ 0..=125 => out.push(0x80 | length as u8),
            length => {
                out.push(0x80 | 126);
                out.extend_from_slice(&(length as u16).to_be_bytes());
            }
        }
        out.extend_from_slice(&mask);
        out.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
        out
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn http_heads_over_the_corpus() {
        let plain = "POST /v1/sessions/chat-1/append HTTP/1.1\r\nhost: x\r\n\
                     content-type: application/json\r\ncontent-length: 17\r\n\r\n";
        let rich = "POST /v1/sessions/a%2Fb/append?expected_seq=4 HTTP/1.1\r\nHost: t\r\n\
                    X-Throughline-Namespace: team\r\nAccept: */*\r\nConnection: keep-alive\r\n\
                    Content-Type: application/x-ndjson\r\nContent-Length: 0\r\n\r\n{}";
        let odd = plain.replace("host: x", "transfer-encoding: chunked");
        let twice = plain.replace("host: x", "content-length: 17");
        let bare = plain.replace("\r\n", "\n");
        let seeds = [
            ("plain", plain.into()),
            ("rich", rich.into()),
            ("odd", odd.into_bytes()),
            ("twice", twice.into_bytes()),
            ("bare", bare.into_bytes()),
            ("begun", plain.as_bytes()[..60].to_vec()),
        ];
        tl_fuzz::check("http_head", &seeds, http_head);
    }

    #[test]
    fn websockets_over_the_corpus() {
        let fragments =
            [frame(0x01, b"a"), frame(0x89, b"p"), frame(0x00, &[b'x'; 300]), frame(0x80, b"")];
        let mut huge = vec![0x82, 0xff];
        huge.extend_from_slice(&(1_u64 << 62).to_be_bytes());
        let seeds = [
            ("text", frame(0x81, b"hello")),
            ("ping", [frame(0x89, b"are you there"), frame(0x8a, b"")].concat()),
            ("fragments", fragments.concat()),
            ("close", frame(0x88, &[0x03, 0xe8, b'b'])),
            ("huge", huge),
            ("many", frame(0x81, b"").repeat(CLIENT_FRAMES_MAX + 1)),
        ];
        tl_fuzz::check("websocket", &seeds, websocket);
    }
}
