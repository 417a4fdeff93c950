//! What must hold for any bytes that a client sends.

use bytes::BytesMut;
use tl_types::limits::WS_MESSAGE_BYTES_MAX;

use crate::settings::CLIENT_FRAMES_MAX;
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
