//! Floods on a WebSocket: frames, fragments, control frames, bytes; and compression.

use tl_gateway::settings::{CLIENT_BYTES_MAX, CLIENT_FRAMES_MAX};
use tl_types::limits::WS_MESSAGE_BYTES_MAX;

use crate::server::Server;
use crate::websocket::{Frame, Socket, UPGRADE};

const TAIL: &str = "/v1/sessions/s/tail";
const TEXT: u8 = 0x81;
const PING: u8 = 0x89;
const PONG: u8 = 0x8A;

/// `count` masked frames, all with this first byte and payload.
fn frames(first: u8, payload: &[u8], count: usize) -> Vec<u8> {
    let mut one = vec![first];
    match payload.len() {
        length @ 0..=125 => one.push(0x80 | length as u8),
        length @ 126..=0xFFFF => {
            one.push(0x80 | 126);
            one.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            one.push(0x80 | 127);
            one.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    one.extend_from_slice(&[0; 4]);
    one.extend_from_slice(payload);
    one.repeat(count)
}

async fn open(server: &Server) -> Socket {
    Socket::open(server.address, TAIL).await
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_frames_as_the_limit_are_ignored_and_one_more_closes() {
    let server = Server::start().await;
    server.session("s").await;
    server.append("s", 1).await;
    let fragments = [frames(0x01, b"", 1), frames(0x00, b"", CLIENT_FRAMES_MAX - 1)].concat();
    let floods = [
        (frames(TEXT, b"", CLIENT_FRAMES_MAX), frames(TEXT, b"", 1)),
        (frames(PONG, b"", CLIENT_FRAMES_MAX), frames(PONG, b"", 1)),
        (fragments, frames(0x00, b"", 1)),
    ];
    for (flood, more) in floods {
        let mut tail = open(&server).await;
        tail.0.send(&flood).await;
        assert_eq!(tail.json().await["seq"], 1);
        // Nothing but the flood's end is answered, so this shows that all of it was read.
        tail.0.send(&more).await;
        assert_eq!(tail.frame().await, Frame::Close(Some(1008), "too_many_frames".into()));
        tail.0.closed().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pings_are_answered_up_to_the_limit_and_one_more_closes() {
    let server = Server::start().await;
    server.session("s").await;
    let mut tail = open(&server).await;
    tail.0.send(&frames(PING, b"are you there", CLIENT_FRAMES_MAX)).await;
    for _ in 0..CLIENT_FRAMES_MAX {
        assert_eq!(tail.frame().await, Frame::Pong(b"are you there".to_vec()));
    }
    tail.0.send(&frames(PING, b"", 1)).await;
    assert_eq!(tail.close().await.0, Some(1008));
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_bytes_as_the_limit_are_ignored_and_one_more_closes() {
    let server = Server::start().await;
    server.session("s").await;
    let mut tail = open(&server).await;
    let message = vec![b'x'; WS_MESSAGE_BYTES_MAX];
    tail.0.send(&frames(TEXT, &message, CLIENT_BYTES_MAX / message.len())).await;
    server.append("s", 1).await;
    assert_eq!(tail.json().await["seq"], 1);
    tail.0.send(&frames(TEXT, b"x", 1)).await;
    assert_eq!(tail.close().await, (Some(1008), "too_many_frames".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_ping_of_ours_lets_a_client_send_as_much_again() {
    let server = Server::with(|settings| settings.ping_ms = 300).await;
    server.session("s").await;
    let mut tail = open(&server).await;
    for _ in 0..3 {
        while tail.frame().await != Frame::Ping {}
        tail.0.send(&frames(TEXT, b"", CLIENT_FRAMES_MAX / 2)).await;
    }
    while tail.frame().await != Frame::Ping {}
    server.append("s", 1).await;
    assert_eq!(tail.json().await["seq"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn compression_is_never_agreed_on() {
    let server = Server::start().await;
    server.session("s").await;
    let mut headers = UPGRADE.to_vec();
    headers.push(("sec-websocket-extensions", "permessage-deflate; client_max_window_bits"));
    let mut wire = server.connect().await;
    wire.request("GET", TAIL, &headers, None).await;
    let reply = wire.reply("GET").await;
    assert_eq!((reply.status, reply.header("sec-websocket-extensions")), (101, None));
    let mut tail = Socket(wire);
    // A frame that says it is compressed.
    tail.0.send(&frames(0xC1, b"\x4a\x04\x00", 1)).await;
    assert_eq!(tail.close().await.0, Some(1002));
    let reply =
        server.ask("GET", "/v1/sessions", &[("accept-encoding", "gzip, br, zstd")], None).await;
    assert_eq!((reply.status, reply.header("content-encoding")), (200, None));
}
