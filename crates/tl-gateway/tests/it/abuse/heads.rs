//! Heads of requests: too large, too many headers, other protocols, framings that two readers
//! could read differently.

use tl_gateway::settings::{HEADER_BYTES_MAX, HEADERS_MAX};
use tl_types::limits::URI_BYTES_MAX;

use super::is_served;
use crate::http::Reply;
use crate::server::Server;

/// Sends bytes on a connection of their own; the first reply.
async fn first_reply(server: &Server, bytes: &[u8]) -> Reply {
    let mut wire = server.connect().await;
    wire.send(bytes).await;
    wire.reply("GET").await
}

/// A refusal below HTTP: a bare status, and the connection ends.
async fn is_refused_bare(server: &Server, bytes: &[u8], status: u16) {
    let mut wire = server.connect().await;
    wire.send(bytes).await;
    let reply = wire.reply("GET").await;
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
    assert_eq!((reply.status, reply.body.len()), (status, 0), "{start}");
    assert_eq!(reply.header("connection"), Some("close"), "{start}");
    wire.closed().await;
    assert!(wire.input.is_empty(), "nothing behind it is answered: {start}");
}

fn head(headers: &str) -> Vec<u8> {
    format!("GET /health/live HTTP/1.1\r\nhost: t\r\n{headers}\r\n").into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_have_a_limit_of_bytes_and_of_headers() {
    let server = Server::start().await;
    let counted = |count: usize| head(&"x: y\r\n".repeat(count - 1));
    assert_eq!(first_reply(&server, &counted(HEADERS_MAX)).await.status, 200);
    is_refused_bare(&server, &counted(HEADERS_MAX + 1), 431).await;
    let sized = |bytes: usize| {
        let bare = head("x: \r\n").len();
        head(&format!("x: {}\r\n", "y".repeat(bytes - bare)))
    };
    assert_eq!(sized(HEADER_BYTES_MAX).len(), HEADER_BYTES_MAX);
    assert_eq!(first_reply(&server, &sized(HEADER_BYTES_MAX)).await.status, 200);
    is_refused_bare(&server, &sized(HEADER_BYTES_MAX + 1), 431).await;
    // One that never ends is refused as soon as it has passed the limit.
    is_refused_bare(&server, &vec![b'y'; HEADER_BYTES_MAX + 1], 431).await;
    is_served(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_have_a_limit_of_bytes_and_many_parameters_cost_no_more() {
    let server = Server::start().await;
    let filled = |part: &str| {
        let start = "/v1/sessions?";
        let rest = URI_BYTES_MAX - start.len();
        let mut target = format!("{start}{}", part.repeat(rest / part.len()));
        target.push_str(&"x".repeat(URI_BYTES_MAX - target.len()));
        target
    };
    for part in ["&", "a=&", "metadata[k]=v&", "metadata.k=%41&", "limit=1&", "%41"] {
        let target = filled(part);
        let reply = server.get(&target).await;
        assert!(matches!(reply.status, 200 | 400), "{part}: {reply:?}");
        assert_eq!(server.get(&format!("{target}x")).await.error(), "uri_too_long", "{part}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_other_protocol_is_spoken() {
    let server = Server::start().await;
    // HTTP/2 is off: neither by foreknowledge nor by upgrade is a frame of it ever read.
    let settings_frame = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let preface = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings_frame].concat();
    let mut wire = server.connect().await;
    wire.send(&preface).await;
    wire.closed().await;
    let said = String::from_utf8_lossy(&wire.input).into_owned();
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 400 "), "{said:?}");
    let upgrade =
        head("connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n");
    assert_eq!(first_reply(&server, &upgrade).await.status, 200);
    is_served(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn framings_with_two_readings_are_refused() {
    let server = Server::start().await;
    let post = |headers: &str| {
        format!(
            "POST /v1/sessions HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\n{headers}\
             \r\n{{}}GET /health/live HTTP/1.1\r\nhost: t\r\n\r\n"
        )
    };
    let bad = [
        "content-length: 2\r\ncontent-length: 3\r\n",
        "content-length: +2\r\n",
        "content-length: 2, 3\r\n",
        "content-length : 2\r\n",
        "transfer-encoding: gzip\r\n",
        "transfer-encoding: chunked, identity\r\n",
        "content-length: 99999999999999999999\r\n",
    ];
    for headers in bad {
        is_refused_bare(&server, post(headers).as_bytes(), 400).await;
    }
    is_served(&server).await;
}
