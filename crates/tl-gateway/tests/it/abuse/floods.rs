//! Too much of what is allowed: connections, requests, tails.

use super::is_served;
use crate::http::{Wire, soon};
use crate::server::{Server, event};
use crate::websocket::{Socket, UPGRADE};

const TAIL: &str = "/v1/sessions/s/tail";
const STREAM: [(&str, &str); 1] = [("accept", "text/event-stream")];

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_past_the_limit_make_room_for_honest_ones() {
    let server = Server::with(|settings| {
        settings.connections_max = 16;
        settings.head_read_ms = 100;
    })
    .await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(server.connect().await);
    }
    is_served(&server).await;
    for wire in &mut silent {
        wire.closed().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_sent_ahead_and_replies_not_taken_end_in_a_cut() {
    let server = Server::with(|settings| settings.write_stall_ms = 200).await;
    let mut wire = Wire::connect_small(server.address).await;
    let ahead = "GET /openapi.json HTTP/1.1\r\nhost: t\r\n\r\n".repeat(10_000);
    // The server stops reading long before the end, and then cuts.
    let sent = soon(tokio::io::AsyncWriteExt::write_all(&mut wire.stream, ahead.as_bytes())).await;
    soon(server.metric("throughline_http_slow_readers_total 1")).await;
    soon(server.metric("throughline_http_connections_open 1")).await;
    drop((sent, wire));
    is_served(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_past_the_limit_are_refused_and_operators_still_see() {
    let server = Server::with(|settings| settings.requests_max = 1).await;
    server.session("s").await;
    let mut slow = server.connect().await;
    let headers =
        [("content-type", "application/json"), ("content-length", "2"), ("expect", "100-continue")];
    slow.request("POST", "/v1/sessions", &headers, None).await;
    // The interim reply shows that the request is being worked on.
    assert_eq!(slow.head().await.status, 100);
    for target in ["/v1/sessions/s", "/v1/sessions/s/events?wait_ms=1000", "/v1/sessions", "/"] {
        let reply = server.get(target).await;
        assert_eq!(reply.error(), "event_store_backpressure", "{target}");
        assert_eq!((reply.status, reply.json()["limit"].as_u64()), (429, Some(1)));
    }
    let refused = server.ask("GET", TAIL, &UPGRADE, None).await;
    assert_eq!(refused.error(), "event_store_backpressure");
    for target in ["/health/live", "/health/ready", "/metrics"] {
        assert_eq!(server.get(target).await.status, 200, "{target}");
    }
    slow.send(b"{}").await;
    assert_eq!(slow.reply("POST").await.status, 201);
    is_served(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_only_waits_does_not_count_as_a_request() {
    let server = Server::with(|settings| settings.requests_max = 1).await;
    server.session("s").await;
    let mut poll = server.connect().await;
    poll.request("GET", "/v1/sessions/s/events?wait_ms=30000", &[], None).await;
    soon(server.metric("throughline_http_tails_open{front=\"long_poll\"} 1")).await;
    let mut socket = Socket::open(server.address, TAIL).await;
    let mut stream = server.connect().await;
    stream.request("GET", TAIL, &STREAM, None).await;
    assert_eq!(stream.head().await.status, 200);
    is_served(&server).await;
    let mut writer = server.connect().await;
    let body = event("p", 1).to_string();
    let json = [("content-type", "application/json")];
    writer.request("POST", "/v1/sessions/s/append", &json, Some(body.as_bytes())).await;
    assert_eq!(writer.reply("POST").await.status, 201);
    assert_eq!(socket.json().await["seq"], 1);
    assert!(stream.chunk().await.starts_with(b"id: 1\n"));
    // The poll that was woken is a request again, and may find the one place taken.
    let reply = poll.reply("GET").await;
    assert!(reply.status == 429 || reply.json()["next_cursor"] == 1, "{reply:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tails_of_every_front_share_one_limit() {
    let server = Server::with(|settings| settings.tails_max = 3).await;
    server.session("s").await;
    let socket = Socket::open(server.address, TAIL).await;
    let mut poll = server.connect().await;
    poll.request("GET", "/v1/sessions/s/events?wait_ms=30000", &[], None).await;
    soon(server.metric("throughline_http_tails_open{front=\"long_poll\"} 1")).await;
    let mut stream = server.connect().await;
    stream.request("GET", TAIL, &STREAM, None).await;
    assert_eq!(stream.head().await.status, 200);
    let past: [(&str, &[(&str, &str)]); 3] =
        [(TAIL, &UPGRADE), (TAIL, &STREAM), ("/v1/sessions/s/events?wait_ms=1000", &[])];
    for (target, headers) in past {
        let reply = server.ask("GET", target, headers, None).await;
        assert_eq!(reply.error(), "too_many_tails", "{target} {headers:?}");
        assert_eq!(reply.json()["limit"], 3);
        assert_eq!(reply.header("retry-after"), Some("5"));
    }
    // A page at once is no tail.
    assert_eq!(server.get("/v1/sessions/s/events").await.status, 200);
    drop(socket);
    soon(server.metric("throughline_http_tails_open{front=\"websocket\"} 0")).await;
    let mut again = Socket::open(server.address, TAIL).await;
    server.append("s", 1).await;
    assert_eq!(again.json().await["seq"], 1);
    assert_eq!(poll.reply("GET").await.json()["next_cursor"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_carries_one_tail_at_a_time() {
    let server = Server::start().await;
    server.session("s").await;
    let mut wire = server.connect().await;
    for _ in 0..50 {
        wire.request("GET", TAIL, &STREAM, None).await;
    }
    assert_eq!(wire.head().await.status, 200);
    server.append("s", 1).await;
    assert!(wire.chunk().await.starts_with(b"id: 1\n"));
    soon(server.metric("throughline_http_tails_open{front=\"sse\"} 1")).await;
    soon(server.metric("throughline_tails_open 1")).await;
    // Once the first one ends, the next is opened.
    server.ask("POST", "/v1/sessions/s/close", &[], None).await;
    while !wire.chunk().await.is_empty() {}
    assert_eq!(wire.head().await.status, 200);
}

/// Far more is sent ahead than the driver's thread may keep; the rest waits in the sockets.
#[tokio::test(flavor = "multi_thread")]
async fn appends_sent_ahead_past_the_room_for_them_are_all_answered_in_order() {
    const CONNECTIONS: u64 = 160;
    const AHEAD: u64 = 20;
    let server = Server::start().await;
    server.session("s").await;
    let mut wires = Vec::new();
    for connection in 0..CONNECTIONS {
        let mut ahead = String::new();
        for n in 1..=AHEAD {
            let mut large = event(&format!("p{connection}"), n);
            large["payload"] = serde_json::json!({"text": "x".repeat(10_000)});
            let (body, length) = (large.to_string(), large.to_string().len());
            ahead.push_str(&format!(
                "POST /v1/sessions/s/append HTTP/1.1\r\nhost: t\r\n\
                 content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
            ));
        }
        let mut wire = server.connect().await;
        wires.push(tokio::spawn(async move {
            wire.send(ahead.as_bytes()).await;
            let mut before = 0;
            for _ in 0..AHEAD {
                let reply = wire.reply("POST").await;
                let seq = reply.json()["seq"].as_u64().unwrap();
                assert!(reply.status == 201 && seq > before, "{reply:?}");
                before = seq;
            }
        }));
    }
    for wire in wires {
        soon(wire).await.unwrap();
    }
    let session = server.get("/v1/sessions/s").await.json();
    assert_eq!(session["last_seq"], CONNECTIONS * AHEAD);
}
