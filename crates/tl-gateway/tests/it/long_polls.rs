//! Pages of events and long polls.

use crate::http::soon;
use crate::server::Server;

#[tokio::test(flavor = "multi_thread")]
async fn pages_follow_the_cursor_to_the_end() {
    let server = Server::start().await;
    server.session("s").await;
    for n in 1..=5 {
        server.append("s", n).await;
    }
    let page = server.get("/v1/sessions/s/events?limit=3").await;
    assert!(page.header("x-throughline-index").is_some());
    let page = page.json();
    let seqs = |page: &serde_json::Value| {
        let events = page["events"].as_array().unwrap();
        events.iter().map(|event| event["seq"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(seqs(&page), [1, 2, 3]);
    assert_eq!(
        (page["next_cursor"].as_u64(), page["up_to_date"].as_bool()),
        (Some(3), Some(false))
    );
    let page = server.get("/v1/sessions/s/events?cursor=3").await.json();
    assert_eq!(seqs(&page), [4, 5]);
    assert_eq!((page["last_seq"].as_u64(), page["up_to_date"].as_bool()), (Some(5), Some(true)));
    for target in ["/v1/sessions/s/events?cursor=5", "/v1/sessions/s/events?cursor=5&wait_ms=1"] {
        let page = server.get(target).await;
        assert_eq!(page.body, br#"{"events":[],"next_cursor":5,"last_seq":5,"up_to_date":true}"#);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_poll_is_woken_by_the_next_event() {
    let server = Server::start().await;
    server.session("s").await;
    let mut wire = server.connect().await;
    wire.request("GET", "/v1/sessions/s/events?cursor=0&wait_ms=30000", &[], None).await;
    server.append("s", 1).await;
    let page = soon(wire.reply("GET")).await.json();
    assert_eq!(page["events"][0]["seq"], 1);
    assert_eq!(page["next_cursor"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_answers_waiting_polls_at_once() {
    let mut server = Server::start().await;
    server.session("s").await;
    let mut wire = server.connect().await;
    wire.request("GET", "/v1/sessions/s/events?wait_ms=30000", &[], None).await;
    // The poll, and the request for the metrics itself.
    soon(server.metric("throughline_http_requests_under_way 2")).await;
    let drained = server.stop();
    let page = soon(wire.reply("GET")).await;
    assert_eq!((page.status, page.json()["last_seq"].as_u64()), (200, Some(0)));
    wire.closed().await;
    assert_eq!(drained.await.unwrap().cut, 0);
}
