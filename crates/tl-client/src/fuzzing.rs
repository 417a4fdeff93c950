//! What must hold for any bytes that a server sends.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::event::Event;
use crate::tail::sse_parser::{SseParser, SseUnit};

/// An event stream: it means the same however it was cut into pieces, and nothing is added.
///
/// # Panics
/// When one of these does not hold.
pub fn event_stream(bytes: &[u8]) {
    let whole = read(bytes, bytes.len());
    for piece in [1, 2, 9] {
        assert_eq!(read(bytes, piece), whole, "pieces of {piece}");
    }
    let mut data_bytes = 0;
    for unit in whole {
        if let SseUnit::Event { data, .. } = unit {
            data_bytes += data.len();
            let _ = Event::parse(data);
        }
    }
    assert!(data_bytes <= bytes.len());
    let _ = Event::parse(Bytes::copy_from_slice(bytes));
}

fn read(bytes: &[u8], piece: usize) -> VecDeque<SseUnit> {
    let (mut parser, mut out) = (SseParser::default(), VecDeque::new());
    for part in bytes.chunks(piece.max(1)) {
        parser.push(part, &mut out).expect("short input passes no limit");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_streams_over_the_corpus() {
        let event = r#"{"seq":1,"type":"m","payload":{"text":"x"},"actor":"user:u","producer_id":"p","producer_seq":1,"metadata":{},"inserted_at":"2026-01-01T00:00:00.000Z"}"#;
        let stream = format!(
            "id: 1\nevent: event\ndata: {event}\n\n: 1\n\nid: 4\nevent: gap\ndata: {{\"type\":\"gap\"}}\n\n"
        );
        let seeds = [
            ("event", event.as_bytes().to_vec()),
            ("stream", stream.into_bytes()),
            ("ends", b"\xEF\xBB\xBFdata: a\r\ndata:b\r\revent\n\ndata\n\n".to_vec()),
        ];
        tl_fuzz::check("event_stream", &seeds, event_stream);
    }
}
