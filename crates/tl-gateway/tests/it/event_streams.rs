//! The tail as server-sent events: ids, heartbeats, resuming, ends.

use crate::http::{Wire, soon};
use crate::server::{FLOOD_EVENTS, Server};

const ACCEPT: (&str, &str) = ("accept", "text/event-stream");

async fn open(server: &Server, target: &str, headers: &[(&str, &str)]) -> Wire {
    let mut wire = server.connect().await;
    wire.request("GET", target, &[&[ACCEPT], headers].concat(), None).await;
    let head = wire.head().await;
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    wire
}

async fn text(wire: &mut Wire) -> String {
    String::from_utf8(wire.chunk().await).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_event_id_wins_over_the_cursor() {
    let server = Server::start().await;
    server.session("s").await;
    for n in 1..=3 {
        server.append("s", n).await;
    }
    let mut stream = open(&server, "/v1/sessions/s/tail?cursor=0", &[("last-event-id", "2")]).await;
    let event = text(&mut stream).await;
    assert!(event.starts_with("id: 3\nevent: event\ndata: {\"seq\":3,"), "{event}");
    assert!(event.ends_with("}\n\n"));
    let bad = [ACCEPT, ("last-event-id", "x")];
    let reply = server.ask("GET", "/v1/sessions/s/tail", &bad, None).await;
    assert_eq!(reply.error(), "invalid_cursor");
    let reply = server.ask("GET", "/v1/sessions/nobody/tail", &[ACCEPT], None).await;
    assert_eq!(reply.error(), "session_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_stream_beats_with_the_last_seq() {
    let server = Server::with(|settings| settings.heartbeat_ms = 20).await;
    server.session("s").await;
    server.append("s", 1).await;
    let mut stream = open(&server, "/v1/sessions/s/tail?from=latest", &[]).await;
    for _ in 0..2 {
        assert_eq!(text(&mut stream).await, ": 1\n\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_ahead_of_the_session_is_told_as_a_gap() {
    let server = Server::start().await;
    server.session("s").await;
    server.append("s", 1).await;
    let mut stream = open(&server, "/v1/sessions/s/tail?cursor=9", &[]).await;
    let gap = text(&mut stream).await;
    assert!(gap.starts_with("id: 1\nevent: gap\ndata: {\"type\":\"gap\",\"reason\":\"resume_invalidated\",\"from_cursor\":9,\"next_cursor\":1,"), "{gap}");
    server.append("s", 2).await;
    assert!(text(&mut stream).await.starts_with("id: 2\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_session_is_told_and_a_stop_just_ends() {
    let mut server = Server::start().await;
    server.session("s").await;
    let mut stream = open(&server, "/v1/sessions/s/tail", &[]).await;
    server.append("s", 1).await;
    server.ask("POST", "/v1/sessions/s/close", &[], None).await;
    assert!(text(&mut stream).await.starts_with("id: 1\n"));
    let end = text(&mut stream).await;
    assert_eq!(
        end,
        "event: end\ndata: {\"type\":\"end\",\"reason\":\"closed\",\"last_seq\":1}\n\n"
    );
    assert_eq!(text(&mut stream).await, "");

    server.session("t").await;
    let mut stream = open(&server, "/v1/sessions/t/tail", &[]).await;
    let drained = server.stop();
    assert_eq!(text(&mut stream).await, "");
    stream.closed().await;
    assert_eq!(soon(drained).await.unwrap().cut, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_reader_takes_nothing_is_cut_off() {
    let server = Server::with(|settings| settings.write_stall_ms = 200).await;
    server.session("s").await;
    server.flood("s", FLOOD_EVENTS).await;
    let mut wire = Wire::connect_small(server.address).await;
    wire.request("GET", "/v1/sessions/s/tail", &[ACCEPT], None).await;
    assert_eq!(wire.head().await.status, 200);
    soon(server.metric("throughline_http_slow_readers_total 1")).await;
    soon(server.metric("throughline_http_tails_open{front=\"sse\"} 0")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_reader_left_gives_its_place_back() {
    let server = Server::with(|settings| settings.heartbeat_ms = 20).await;
    server.session("s").await;
    let stream = open(&server, "/v1/sessions/s/tail", &[]).await;
    soon(server.metric("throughline_http_tails_open{front=\"sse\"} 1")).await;
    let socket = crate::websocket::Socket::open(server.address, "/v1/sessions/s/tail").await;
    soon(server.metric("throughline_http_tails_open{front=\"websocket\"} 1")).await;
    // Both tails, and the connection that asks.
    soon(server.metric("throughline_http_connections_open 3")).await;
    drop((stream, socket));
    soon(server.metric("throughline_http_connections_open 1")).await;
    soon(server.metric("throughline_http_tails_open{front=\"sse\"} 0")).await;
    soon(server.metric("throughline_tails_open 0")).await;
}
