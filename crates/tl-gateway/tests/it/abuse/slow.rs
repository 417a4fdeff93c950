//! Slow headers, slow bodies, slow readers, and peers that are gone without a word.

use std::time::Duration;

use socket2::{SockFilter, SockRef};

use super::is_served;
use crate::http::{Wire, soon};
use crate::server::{FLOOD_EVENTS, Server};
use crate::websocket::Socket;

/// Sends a byte again and again, often enough to look alive, until the server ends it.
async fn trickle(wire: &mut Wire, piece: &[u8]) {
    let mut pace = tokio::time::interval(Duration::from_millis(5));
    loop {
        tokio::select! {
            _ = pace.tick() => {
                if tokio::io::AsyncWriteExt::write_all(&mut wire.stream, piece).await.is_err() {
                    return;
                }
            }
            more = wire.more() => {
                if !more {
                    return;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_trickle_in_for_ever_end_the_connection() {
    let server = Server::with(|settings| settings.head_read_ms = 200).await;
    for line in ["GET /v1/sessions HTTP/1.1", "POST /v1/sessions/s/append HTTP/1.1"] {
        let mut first = server.connect().await;
        first.send(format!("{line}\r\nhost: t\r\nx: ").as_bytes()).await;
        soon(trickle(&mut first, b"y")).await;
    }
    // Nor may the second request of a connection take longer than the first.
    let mut second = server.connect().await;
    second.request("GET", "/v1/sessions", &[], None).await;
    assert_eq!(second.reply("GET").await.status, 200);
    second.send(b"GET ").await;
    soon(trickle(&mut second, b"/")).await;
    assert!(second.input.is_empty(), "{:?}", String::from_utf8_lossy(&second.input));
    is_served(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_trickle_in_for_ever_are_refused() {
    let server = Server::with(|settings| settings.body_read_ms = 200).await;
    let ways: [(&str, &str, &[u8]); 3] = [
        ("/v1/sessions", "content-length: 9000000", b" "),
        ("/v1/sessions", "transfer-encoding: chunked", b"1\r\n \r\n"),
        // Small enough to begin on the driver's thread.
        ("/v1/sessions/s/append", "content-length: 200000", b" "),
    ];
    for (target, framing, piece) in ways {
        let mut wire = server.connect().await;
        let head = format!(
            "POST {target} HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\n{framing}\r\n\r\n"
        );
        wire.send(head.as_bytes()).await;
        soon(trickle(&mut wire, piece)).await;
        assert_eq!(wire.reply("POST").await.error(), "request_timeout");
    }
    is_served(&server).await;
}

/// Asks for large pages and takes none of them.
async fn takes_no_pages(server: &Server) -> Wire {
    let mut wire = Wire::connect_small(server.address).await;
    // More than the kernel holds for both sides of a connection.
    for _ in 0..6 {
        wire.request("GET", "/v1/sessions/s/events?limit=1000", &[], None).await;
    }
    wire
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_whose_reader_takes_nothing_is_cut_off() {
    let server = Server::with(|settings| settings.write_stall_ms = 200).await;
    server.session("s").await;
    server.flood("s", FLOOD_EVENTS).await;
    let mut wire = takes_no_pages(&server).await;
    soon(server.metric("throughline_http_slow_readers_total 1")).await;
    soon(server.metric("throughline_http_connections_open 1")).await;
    wire.closed().await;
    is_served(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_nobody_takes_leave_room_for_as_many_as_the_limit_says() {
    let server = Server::with(|settings| settings.pages_bytes_max = 16 << 20).await;
    server.session("s").await;
    server.flood("s", 10).await;
    let mut stuck = Vec::new();
    let refused = loop {
        stuck.push(takes_no_pages(&server).await);
        let reply = server.get("/v1/sessions/s/events?limit=1000").await;
        if reply.status != 200 {
            break reply;
        }
        assert!(stuck.len() < 20, "each of them holds a page of 4 MiB");
    };
    assert_eq!(refused.error(), "event_store_backpressure");
    assert_eq!(refused.header("retry-after"), Some("1"));
    // What is no page needs no room.
    assert_eq!(server.get("/v1/sessions/s").await.status, 200);
    drop(stuck);
    let page = server.get("/v1/sessions/s/events?limit=1000").await;
    assert_eq!(page.json()["next_cursor"], 9, "whole events, up to the bytes of a page");
}

/// A peer behind a cut cable: from now on its system drops all that comes, and says nothing.
fn vanish(wire: &Wire) {
    const RETURN: u16 = 0x06;
    let drop_all = [SockFilter::new(RETURN, 0, 0, 0)];
    SockRef::from(&wire.stream).attach_filter(&drop_all).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_gone_without_a_word_gives_its_place_back() {
    let server = Server::with(|settings| {
        settings.unacked_ms = 300;
        settings.ping_ms = 20;
        settings.heartbeat_ms = 20;
    })
    .await;
    server.session("s").await;
    let socket = Socket::open(server.address, "/v1/sessions/s/tail").await;
    let mut stream = server.connect().await;
    stream.request("GET", "/v1/sessions/s/tail", &[("accept", "text/event-stream")], None).await;
    assert_eq!(stream.head().await.status, 200);
    soon(server.metric("throughline_http_connections_open 3")).await;
    vanish(&socket.0);
    vanish(&stream);
    soon(server.metric("throughline_http_connections_open 1")).await;
    soon(server.metric("throughline_tails_open 0")).await;
}
