//! Health and metrics.

use crate::server::Server;

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_live_and_ready_until_it_drains() {
    let server = Server::start().await;
    assert_eq!(server.get("/health/live").await.body, br#"{"status":"ok"}"#);
    let ready = server.get("/health/ready").await;
    assert_eq!(
        (ready.status, &ready.body[..]),
        (200, &br#"{"status":"ok","mode":"write_node"}"#[..])
    );
    server.engine().begin_drain();
    let ready = server.get("/health/ready").await;
    assert_eq!(ready.status, 503);
    assert_eq!(
        (&ready.json()["status"], &ready.json()["reason"]),
        (&"starting".into(), &"draining".into())
    );
    assert!(ready.header("retry-after").is_some());
    assert_eq!(server.get("/health/live").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_prometheus_text_and_count_by_route() {
    let server = Server::start().await;
    server.session("s").await;
    server.append("s", 1).await;
    server.get("/nowhere/at/all").await;
    let _behind = server.tail_behind("s").await;
    let reply = server.get("/metrics").await;
    assert_eq!(reply.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = String::from_utf8(reply.body).unwrap();
    for line in [
        "# TYPE throughline_http_requests_total counter",
        "throughline_http_requests_total{method=\"POST\",route=\"/v1/sessions/{id}/append\",status=\"201\"} 1",
        "throughline_http_requests_total{method=\"GET\",route=\"unmatched\",status=\"404\"} 1",
        "throughline_http_request_seconds_count{route=\"/v1/sessions/{id}/append\"} 1",
        "# TYPE throughline_http_connections_open gauge",
        "throughline_http_refusals_total{code=\"not_found\"} 1",
        "throughline_write_stage_seconds_count{stage=\"queue\"} 1",
        "throughline_write_stage_seconds_count{stage=\"sync\"} 1",
        "throughline_write_stage_seconds_count{stage=\"apply\"} 1",
        "throughline_write_stage_seconds_count{stage=\"reply\"} 1",
        "throughline_budget_used_bytes{budget=\"pages\"} 0",
        "throughline_budget_used_bytes{budget=\"bodies\"} 0",
        "throughline_budget_used_bytes{budget=\"writes\"} 0",
        "throughline_tails_behind 1",
        "throughline_tail_lag_events_max 1",
        "throughline_tail_lag_events 1",
    ] {
        assert!(text.lines().any(|seen| seen == line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("# EOF") && !text.contains("nowhere"));
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (_, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
}
