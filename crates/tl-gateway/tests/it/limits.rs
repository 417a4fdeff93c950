//! At the limit a request works; one past it is refused by name.

use serde_json::json;
use tl_types::limits::{
    BATCH_EVENTS_MAX, BODY_BYTES_MAX, EVENT_BYTES_MAX, SESSION_ID_BYTES_MAX, TITLE_BYTES_MAX,
    URI_BYTES_MAX,
};

use crate::server::{Server, event};

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

#[tokio::test(flavor = "multi_thread")]
async fn bodies() {
    let server = Server::start().await;
    let body = |bytes: usize| {
        let mut body = b"{}".to_vec();
        body.resize(bytes, b' ');
        body
    };
    let reply = server.ask("POST", "/v1/sessions", &JSON, Some(&body(BODY_BYTES_MAX))).await;
    assert_eq!(reply.status, 201);
    let reply = server.ask("POST", "/v1/sessions", &JSON, Some(&body(BODY_BYTES_MAX + 1))).await;
    assert_eq!(reply.error(), "payload_too_large");

    // Without a length the bytes themselves are counted.
    let mut wire = server.connect().await;
    let chunked = [JSON[0], ("transfer-encoding", "chunked")];
    wire.request("POST", "/v1/sessions", &chunked, None).await;
    let piece = body(1 << 20);
    for _ in 0..=BODY_BYTES_MAX >> 20 {
        wire.send(format!("{:x}\r\n", piece.len()).as_bytes()).await;
        wire.send(&piece).await;
        wire.send(b"\r\n").await;
    }
    wire.send(b"0\r\n\r\n").await;
    let reply = wire.reply("POST").await;
    assert_eq!(reply.error(), "payload_too_large");
    // How much of a refused body is still to come nobody knows: the connection ends.
    assert_eq!(reply.header("connection"), Some("close"));
    wire.closed().await;

    // A short rest is read and dropped, and the connection goes on.
    let mut wire = server.connect().await;
    wire.request("POST", "/v1/nowhere", &JSON, Some(&body(64 * 1024))).await;
    let reply = wire.reply("POST").await;
    assert_eq!((reply.status, reply.header("connection")), (404, None));
    wire.request("GET", "/health/live", &[], None).await;
    assert_eq!(wire.reply("GET").await.status, 200);
    wire.request("POST", "/v1/nowhere", &JSON, Some(&body(64 * 1024 + 1))).await;
    let reply = wire.reply("POST").await;
    assert_eq!((reply.status, reply.header("connection")), (404, Some("close")));
    wire.closed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn targets() {
    let server = Server::start().await;
    let target = |bytes: usize| {
        let start = "/v1/sessions?x=";
        format!("{start}{}", "y".repeat(bytes - start.len()))
    };
    assert_eq!(server.get(&target(URI_BYTES_MAX)).await.status, 200);
    let reply = server.get(&target(URI_BYTES_MAX + 1)).await;
    assert_eq!((reply.status, reply.json()["limit"].as_u64()), (414, Some(URI_BYTES_MAX as u64)));
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_titles_and_depth() {
    let server = Server::start().await;
    let id = |bytes| json!({"id": "x".repeat(bytes)});
    assert_eq!(server.post("/v1/sessions", &id(SESSION_ID_BYTES_MAX)).await.status, 201);
    let reply = server.post("/v1/sessions", &id(SESSION_ID_BYTES_MAX + 1)).await;
    assert_eq!(reply.error(), "invalid_session_id");
    let title = |bytes| json!({"title": "x".repeat(bytes)});
    assert_eq!(server.post("/v1/sessions", &title(TITLE_BYTES_MAX)).await.status, 201);
    let reply = server.post("/v1/sessions", &title(TITLE_BYTES_MAX + 1)).await;
    assert_eq!(reply.error(), "invalid_session");
    let nested = |levels: usize| {
        let (open, close) = ("{\"a\":".repeat(levels - 1), "}".repeat(levels - 1));
        format!("{{\"metadata\":{open}1{close}}}").into_bytes()
    };
    assert_eq!(server.ask("POST", "/v1/sessions", &JSON, Some(&nested(32))).await.status, 201);
    let reply = server.ask("POST", "/v1/sessions", &JSON, Some(&nested(33))).await;
    assert_eq!(reply.error(), "too_deep");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_and_batches() {
    let server = Server::start().await;
    server.session("s").await;
    let target = "/v1/sessions/s/append";
    let sized = |n, bytes: usize| {
        let mut event = event("p", n);
        event["payload"] = json!({"text": ""});
        let bare = event.to_string().len();
        event["payload"] = json!({"text": "x".repeat(bytes - bare)});
        event
    };
    assert_eq!(server.post(target, &sized(1, EVENT_BYTES_MAX)).await.status, 201);
    let reply = server.post(target, &sized(2, EVENT_BYTES_MAX + 1)).await;
    assert_eq!(reply.error(), "payload_too_large");
    let batch = |count: usize| json!({"events": (0..count as u64).map(|n| event("q", n + 1)).collect::<Vec<_>>()});
    let reply = server.post(target, &batch(BATCH_EVENTS_MAX + 1)).await;
    assert_eq!((reply.status, reply.error()), (413, "payload_too_large".to_owned()));
    assert_eq!(server.post(target, &batch(BATCH_EVENTS_MAX)).await.status, 201);
}
