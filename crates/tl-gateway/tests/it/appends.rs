//! Appends: one event, JSON batches, lines, repeats.

use serde_json::json;

use crate::server::{Server, event};

const LINES: [(&str, &str); 1] = [("content-type", "application/x-ndjson")];

#[tokio::test(flavor = "multi_thread")]
async fn an_append_answers_its_position_and_a_repeat_the_same_one() {
    let server = Server::start().await;
    server.session("s").await;
    let first = server.append("s", 1).await;
    assert_eq!(
        first.body,
        br#"{"seq":1,"last_seq":1,"deduped":false,"cursor":1,"committed_cursor":0}"#
    );
    server.append("s", 2).await;
    let again = server.append("s", 1).await;
    assert_eq!(
        again.body,
        br#"{"seq":1,"last_seq":2,"deduped":true,"cursor":1,"committed_cursor":0}"#
    );
    let indexes: Vec<u64> = [&first, &again]
        .map(|reply| reply.header("x-throughline-index").unwrap().parse().unwrap())
        .to_vec();
    assert!(indexes[0] < indexes[1], "{indexes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_come_as_json_or_as_lines_and_count_as_one_write() {
    let server = Server::start().await;
    server.session("s").await;
    let target = "/v1/sessions/s/append";
    let batch = json!({"events": [event("p", 1), event("p", 2)], "expected_seq": 0});
    let reply = server.post(target, &batch).await;
    assert_eq!(
        reply.body,
        br#"{"first_seq":1,"last_seq":2,"count":2,"deduped":false,"cursor":2,"committed_cursor":0}"#
    );
    let lines = format!("{}\n{}\n", event("p", 3), event("p", 4));
    let guarded = format!("{target}?expected_seq=2");
    let reply = server.ask("POST", &guarded, &LINES, Some(lines.as_bytes())).await;
    assert_eq!((reply.status, &reply.json()["first_seq"]), (201, &json!(3)));
    let reply = server.ask("POST", &guarded, &LINES, Some(lines.as_bytes())).await;
    assert_eq!((reply.status, &reply.json()["deduped"]), (201, &json!(true)));

    let bad = format!("{}\n{{\"type\":\"x\"}}", event("p", 5));
    let reply = server.ask("POST", target, &LINES, Some(bad.as_bytes())).await;
    assert_eq!((reply.error(), &reply.json()["index"]), ("invalid_event".into(), &json!(1)));
    let reply = server.ask("POST", target, &LINES, Some(b"")).await;
    assert_eq!(reply.error(), "invalid_event");
    let page = server.get("/v1/sessions/s/events").await.json();
    assert_eq!(page["last_seq"], 4, "a refused batch leaves nothing behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_are_no_body_for_other_operations() {
    let server = Server::start().await;
    let reply = server.ask("POST", "/v1/sessions", &LINES, Some(b"{}")).await;
    assert_eq!(reply.error(), "unsupported_media_type");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guard_counts_wherever_it_stands() {
    let server = Server::start().await;
    server.session("s").await;
    let target = "/v1/sessions/s/append";
    let batch = json!({"events": [event("p", 1)]});
    for body in [&event("p", 1), &batch] {
        let reply = server.post(&format!("{target}?expected_seq=7"), body).await;
        assert_eq!(reply.error(), "expected_seq_conflict", "{body}");
        assert_eq!(reply.json()["current_seq"], 0);
    }
    let mut twice = event("p", 1);
    twice["expected_seq"] = json!(0);
    let reply = server.post(&format!("{target}?expected_seq=7"), &twice).await;
    assert_eq!(reply.error(), "invalid_event", "two guards that differ");
    let reply = server.post(&format!("{target}?expected_seq=0"), &twice).await;
    assert_eq!(reply.status, 201);
    let reply = server.post(target, &json!({"events": [twice]})).await;
    assert_eq!(reply.error(), "invalid_event", "a guard on one event of a batch");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_names_the_event_of_a_batch_only() {
    let server = Server::start().await;
    server.session("s").await;
    let target = "/v1/sessions/s/append";
    let one = server.post(target, &event("p", 5)).await.json();
    assert_eq!((&one["expected_producer_seq"], one.get("index")), (&json!(1), None));
    let batch = json!({"events": [event("p", 1), event("q", 5)]});
    let many = server.post(target, &batch).await.json();
    assert_eq!((&many["expected_producer_seq"], &many["index"]), (&json!(1), &json!(1)));
}
