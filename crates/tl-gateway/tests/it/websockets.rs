//! The raw WebSocket tail: closes, pings, hostile and slow clients, a foreign client library.

use serde_json::json;
use tokio_tungstenite::tungstenite::protocol::Message;

use crate::http::{Wire, soon};
use crate::server::{FLOOD_EVENTS, Server, event};
use crate::websocket::{Frame, Socket};

const TAIL: &str = "/v1/sessions/s/tail";

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_or_deleted_session_ends_its_tails_after_the_last_event() {
    let server = Server::start().await;
    server.session("s").await;
    let mut live = Socket::open(server.address, TAIL).await;
    server.append("s", 1).await;
    server.ask("POST", "/v1/sessions/s/close", &[], None).await;
    let mut late = Socket::open(server.address, TAIL).await;
    for tail in [&mut live, &mut late] {
        assert_eq!(tail.json().await["seq"], 1);
        assert_eq!(tail.frame().await, Frame::Close(Some(4410), "session_closed".into()));
    }
    server.session("d").await;
    let mut tail = Socket::open(server.address, "/v1/sessions/d/tail").await;
    server.append("d", 1).await;
    server.ask("DELETE", "/v1/sessions/d", &[], None).await;
    assert_eq!(tail.json().await["seq"], 1);
    assert_eq!(tail.frame().await, Frame::Close(Some(4410), "session_tombstoned".into()));
    tail.0.closed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_closes_with_1012_and_a_stop_with_1001() {
    let server = Server::start().await;
    server.session("s").await;
    let mut tail = Socket::open(server.address, TAIL).await;
    server.engine().begin_drain();
    assert_eq!(tail.frame().await, Frame::Close(Some(1012), "drain".into()));

    let mut server = Server::start().await;
    server.session("s").await;
    let mut tail = Socket::open(server.address, TAIL).await;
    let drained = server.stop();
    assert_eq!(tail.frame().await, Frame::Close(Some(1001), "shutdown".into()));
    drop(tail);
    assert_eq!(soon(drained).await.unwrap().cut, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn pings_are_sent_and_answered_and_other_frames_ignored() {
    let server = Server::with(|settings| settings.ping_ms = 20).await;
    server.session("s").await;
    let mut tail = Socket::open(server.address, TAIL).await;
    assert_eq!(tail.frame().await, Frame::Ping);
    assert_eq!(tail.frame().await, Frame::Ping);
    tail.send(0x81, b"hello").await;
    tail.send(0x82, b"\xff\xfe").await;
    tail.send(0x89, b"are you there").await;
    loop {
        match tail.frame().await {
            Frame::Ping => {}
            other => break assert_eq!(other, Frame::Pong(b"are you there".to_vec())),
        }
    }
    server.append("s", 1).await;
    assert_eq!(tail.json().await["seq"], 1);
    // The client's close comes back.
    tail.send(0x88, &[0x03, 0xe8]).await;
    assert_eq!(tail.close().await, (Some(1000), String::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn huge_lengths_close_with_1009_and_nonsense_with_1002() {
    let server = Server::start().await;
    server.session("s").await;
    let huge = |opcode: u8| {
        let mut bytes = vec![opcode, 0x80 | 127];
        bytes.extend_from_slice(&(1_u64 << 62).to_be_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes
    };
    let mut fragments = Vec::new();
    for first in [0x01, 0x00, 0x00] {
        fragments.extend_from_slice(&[first, 0x80 | 126, 0x80, 0x00, 0, 0, 0, 0]);
        fragments.extend_from_slice(&[b'x'; 0x8000]);
    }
    let cases = [
        (huge(0x82), 1009),
        (huge(0x81), 1009),
        (fragments, 1009),
        (huge(0x88), 1002),
        (vec![0x81, 0x01, b'x'], 1002),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), 1002),
    ];
    for (bytes, code) in cases {
        let mut tail = Socket::open(server.address, TAIL).await;
        tail.0.send(&bytes).await;
        assert_eq!(tail.close().await.0, Some(code));
        tail.0.closed().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_takes_nothing_is_closed_with_1013_and_resumes() {
    let server = Server::with(|settings| settings.write_stall_ms = 1_000).await;
    server.session("s").await;
    server.flood("s", FLOOD_EVENTS).await;
    let wire = Wire::connect_small(server.address).await;
    let mut tail = Socket::over(wire, TAIL).await;
    // The server says when it has given up on the reader; only then it reads on.
    soon(server.metric("throughline_http_slow_readers_total 1")).await;
    let mut last = 0;
    let code = loop {
        match tail.frame().await {
            Frame::Text(text) => {
                let event: serde_json::Value = serde_json::from_str(&text).unwrap();
                assert_eq!(event["seq"], last + 1);
                last += 1;
            }
            Frame::Close(code, _) => break code,
            other => panic!("unexpected {other:?}"),
        }
    };
    assert_eq!(code, Some(1013));
    assert!((1..FLOOD_EVENTS).contains(&last), "cut off in the middle, after {last}");
    let mut tail = Socket::open(server.address, &format!("{TAIL}?cursor={last}")).await;
    for seq in last + 1..=FLOOD_EVENTS {
        assert_eq!(tail.json().await["seq"], seq);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_is_not_one_is_refused() {
    let server = Server::start().await;
    server.session("s").await;
    for missing in 0..4 {
        let mut headers = crate::websocket::UPGRADE.to_vec();
        headers.remove(missing);
        let reply = server.ask("GET", TAIL, &headers, None).await;
        assert_eq!(reply.error(), "invalid_websocket_upgrade");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_client_library_understands_the_frames() {
    let server = Server::start().await;
    server.session("s").await;
    for (n, bytes) in [(1, 10), (2, 200), (3, 70_000)] {
        let mut sized = event("p", n);
        sized["payload"] = json!({"text": "x".repeat(bytes)});
        assert_eq!(server.post("/v1/sessions/s/append", &sized).await.status, 201);
    }
    server.ask("POST", "/v1/sessions/s/close", &[], None).await;
    for (batch, frames) in [(1, 3), (2, 2)] {
        let url = format!("ws://{}{TAIL}?batch_size={batch}", server.address);
        let (mut client, _) = soon(tokio_tungstenite::connect_async(url)).await.unwrap();
        let mut texts = 0;
        let close = loop {
            match soon(futures_util::StreamExt::next(&mut client)).await.unwrap().unwrap() {
                Message::Text(_) => texts += 1,
                Message::Close(close) => break close.unwrap(),
                _ => {}
            }
        };
        assert_eq!((texts, u16::from(close.code)), (frames, 4410));
    }
}
