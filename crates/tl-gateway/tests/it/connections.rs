//! Connections: half requests, nonsense, idle ones, stopping.

use crate::http::soon;
use crate::server::{Server, event};

#[tokio::test(flavor = "multi_thread")]
async fn half_requests_leave_nothing_behind() {
    let server = Server::start().await;
    server.session("s").await;
    let body = event("p", 1).to_string();
    let whole = format!(
        "POST /v1/sessions/s/append HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    for cut in (0..whole.len()).step_by(7) {
        let mut wire = server.connect().await;
        wire.send(&whole.as_bytes()[..cut]).await;
    }
    let page = server.get("/v1/sessions/s/events").await.json();
    assert_eq!(page["last_seq"], 0);
    server.append("s", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_http_is_refused_and_ends_the_connection() {
    let server = Server::start().await;
    let headers = "x: y\r\n".repeat(101);
    let huge = format!("GET / HTTP/1.1\r\nhost: t\r\nx: {}\r\n\r\n", "y".repeat(70_000));
    let cases: [(&[u8], u16); 5] = [
        (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET / HTTP/1.1\r\nhost: t\r\ncontent-length: x\r\n\r\n", 400),
        (format!("GET / HTTP/1.1\r\nhost: t\r\n{headers}\r\n").into_bytes().leak(), 431),
        (huge.into_bytes().leak(), 431),
    ];
    for (bytes, status) in cases {
        let mut wire = server.connect().await;
        wire.send(bytes).await;
        let reply = wire.reply("GET").await;
        assert_eq!(
            reply.status,
            status,
            "{:?}",
            String::from_utf8_lossy(&bytes[..30.min(bytes.len())])
        );
        wire.closed().await;
    }
    assert_eq!(server.get("/health/live").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_sends_no_request_is_closed() {
    let server = Server::with(|settings| settings.head_read_ms = 50).await;
    let mut silent = server.connect().await;
    let mut slow = server.connect().await;
    slow.send(b"GET /health/live HT").await;
    soon(silent.closed()).await;
    soon(slow.closed()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_serves_many_requests_also_sent_ahead() {
    let server = Server::start().await;
    let mut wire = server.connect().await;
    for _ in 0..3 {
        wire.request("GET", "/health/live", &[], None).await;
    }
    for _ in 0..3 {
        assert_eq!(wire.reply("GET").await.status, 200);
    }
    wire.request("HEAD", "/v1/sessions", &[], None).await;
    let head = wire.reply("HEAD").await;
    wire.request("GET", "/v1/sessions", &[], None).await;
    let whole = wire.reply("GET").await;
    assert_eq!(head.status, 200);
    assert_eq!(head.header("content-length"), whole.header("content-length"));
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_limit_of_connections_new_ones_wait_for_a_free_place() {
    let server = Server::with(|settings| settings.connections_max = 1).await;
    let mut first = server.connect().await;
    first.request("GET", "/health/live", &[], None).await;
    assert_eq!(first.reply("GET").await.status, 200);
    let mut second = server.connect().await;
    second.request("GET", "/health/live", &[], None).await;
    first.request("GET", "/health/live", &[], None).await;
    assert_eq!(first.reply("GET").await.status, 200);
    let early = second.stream.try_read(&mut [0; 1]);
    assert_eq!(early.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    drop(first);
    assert_eq!(second.reply("GET").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_closes_idle_connections_and_cuts_those_that_do_not_finish() {
    let mut server = Server::with(|settings| settings.drain_ms = 100).await;
    let mut idle = server.connect().await;
    idle.request("GET", "/health/live", &[], None).await;
    idle.reply("GET").await;
    let mut half = server.connect().await;
    let json = [("content-type", "application/json"), ("content-length", "10")];
    half.request("POST", "/v1/sessions", &[json[0], json[1], ("expect", "100-continue")], None)
        .await;
    // The interim reply shows that the request is being served.
    assert_eq!(half.head().await.status, 100);
    let drained = server.stop();
    soon(idle.closed()).await;
    soon(half.closed()).await;
    assert_eq!(soon(drained).await.unwrap().cut, 1);
    assert!(tokio::net::TcpStream::connect(server.address).await.is_err());
}
