use std::time::Duration;

use tl_client::{
    Backoff, BatchEncoding, Client, ClientError, ClientOptions, NewEvent, Producer, RetryPolicy,
};
use tl_types::Seq;

use crate::peer::{Answer, Peer};

const QUICK: Backoff =
    Backoff { first: Duration::from_millis(1), max: Duration::from_millis(1), jitter_ratio: 0.0 };

fn created(seq: u64, deduped: bool) -> Answer {
    let body = format!(r#"{{"seq":{seq},"last_seq":{seq},"deduped":{deduped},"cursor":{seq}}}"#);
    Answer::Reply(201, "content-type: application/json\r\n", body)
}

fn producer(peer: &Peer) -> Producer {
    let client = Client::new(&peer.url).unwrap();
    Producer::new(client, "s/1", "p").with_policy(RetryPolicy::until_dropped(QUICK))
}

fn event(text: &str) -> NewEvent {
    NewEvent::new("note", &serde_json::json!({ "text": text })).unwrap()
}

#[tokio::test]
async fn an_append_without_an_answer_is_sent_again_byte_for_byte() {
    let busy = Answer::Reply(503, "retry-after: 0\r\n", r#"{"error":"raft_timeout"}"#.into());
    let mut peer =
        Peer::with(vec![Answer::HangUp, busy, created(7, true), created(8, false)]).await;
    let mut producer = producer(&peer);
    let first = producer.append(&event("a"), None).await.unwrap();
    assert_eq!((first.seq, first.deduped), (Seq(7), true));
    let second = producer.append(&event("b"), None).await.unwrap();
    assert_eq!((second.seq, second.deduped), (Seq(8), false));

    let asked = peer.asked().await;
    assert_eq!(asked.target, "/v1/sessions/s%2f1/append");
    assert!(asked.body.contains(r#""producer_seq":1"#), "{}", asked.body);
    assert_eq!(peer.asked().await, asked);
    assert_eq!(peer.asked().await, asked);
    assert!(peer.asked().await.body.contains(r#""producer_seq":2"#));
}

#[tokio::test]
async fn a_refused_append_leaves_its_position_free() {
    let refused = r#"{"error":"expected_seq_conflict","message":"Expected seq 3, current seq is 9","expected_seq":3,"current_seq":9}"#;
    let mut peer =
        Peer::with(vec![Answer::Reply(409, "", refused.into()), created(10, false)]).await;
    let mut producer = producer(&peer);
    let error = producer.append(&event("a"), Some(Seq(3))).await.unwrap_err();
    let refusal = error.refusal().unwrap();
    assert_eq!(refusal.code, "expected_seq_conflict");
    assert_eq!(refusal.number("current_seq"), Some(9));
    assert!(!producer.is_unsettled());
    producer.append(&event("b"), Some(Seq(9))).await.unwrap();

    assert!(peer.asked().await.body.contains(r#""producer_seq":1,"expected_seq":3"#));
    assert!(peer.asked().await.body.contains(r#""producer_seq":1,"expected_seq":9"#));
}

#[tokio::test]
async fn a_dropped_append_is_settled_before_the_next_one() {
    let mut peer = Peer::with(vec![Answer::Silence, created(1, true), created(2, false)]).await;
    let mut producer = producer(&peer);
    let lost = event("a");
    let first = tokio::select! {
        _ = producer.append(&lost, None) => unreachable!("nobody answers"),
        asked = peer.asked() => asked,
    };
    assert!(producer.is_unsettled());
    let early = producer.append(&event("b"), None).await.unwrap_err();
    assert!(matches!(early, ClientError::Unsettled { .. }));

    assert!(producer.settle().await.unwrap().deduped);
    assert_eq!(peer.asked().await, first);
    assert_eq!(producer.append(&event("b"), None).await.unwrap().seq, Seq(2));
}

#[tokio::test]
async fn attempts_are_bounded_by_the_caller_and_the_write_is_kept() {
    let peer = Peer::with(vec![Answer::HangUp, Answer::HangUp, created(1, false)]).await;
    let policy = RetryPolicy { attempts_max: Some(2), ..RetryPolicy::until_dropped(QUICK) };
    let mut producer = producer(&peer).with_policy(policy);
    let error = producer.append(&event("a"), None).await.unwrap_err();
    assert!(matches!(error, ClientError::GaveUp { attempts: 2, .. }), "{error}");
    assert_eq!(producer.settle().await.unwrap().first_seq, Seq(1));
    assert_eq!(producer.next_seq(), 2);
}

#[tokio::test]
async fn a_reply_that_never_comes_is_not_waited_for() {
    let peer = Peer::with(vec![Answer::Silence]).await;
    let options =
        ClientOptions { request_timeout: Duration::from_millis(20), ..Default::default() };
    let client = Client::with_options(&peer.url, options).unwrap();
    let error = client.get("s").await.unwrap_err();
    assert!(matches!(error, ClientError::Broken { .. }), "{error}");
    assert!(error.is_retryable() && !error.changed_nothing());
}

#[tokio::test]
async fn batches_are_lines_or_one_object() {
    let reply = r#"{"first_seq":4,"last_seq":5,"count":2,"deduped":false}"#;
    let batch = || Answer::Reply(201, "", reply.into());
    let mut peer = Peer::with(vec![batch(), batch()]).await;
    let mut producer = producer(&peer);
    let events = [event("a"), event("b")];
    let lines = producer.append_batch(&events, Some(Seq(3)), BatchEncoding::Ndjson).await.unwrap();
    assert_eq!((lines.first_seq, lines.last_seq), (Seq(4), Seq(5)));
    producer.append_batch(&events, Some(Seq(3)), BatchEncoding::Json).await.unwrap();

    let asked = peer.asked().await;
    assert_eq!(asked.target, "/v1/sessions/s%2f1/append?expected_seq=3");
    let lines: Vec<&str> = asked.body.lines().collect();
    assert!(
        lines[0].ends_with(r#""producer_seq":1}"#) && lines[1].ends_with(r#""producer_seq":2}"#)
    );
    let asked = peer.asked().await;
    let body: serde_json::Value = serde_json::from_str(&asked.body).unwrap();
    assert_eq!(body["expected_seq"], 3);
    assert_eq!(body["events"][1]["producer_seq"], 4);
}

#[tokio::test]
async fn nobody_listening_is_said_so() {
    // The script is empty: the peer closes its door at once.
    let peer = Peer::with(vec![created(1, false)]).await;
    let client = Client::new(&peer.url).unwrap();
    let _ = client.get("s").await;
    let error = loop {
        match client.get("s").await.unwrap_err() {
            ClientError::Broken { .. } => {}
            other => break other,
        }
    };
    assert!(error.is_unreachable(), "{error}");
}
