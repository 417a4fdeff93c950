//! Writes that change a session as a whole: one key for all attempts, and none too many.

use std::time::Duration;

use tl_client::{
    Backoff, Client, ClientError, ClientOptions, CreateSession, PatchSession, RetryPolicy,
};

use crate::peer::{Answer, Peer};

const QUICK: Backoff =
    Backoff { first: Duration::from_millis(1), max: Duration::from_millis(1), jitter_ratio: 0.0 };

fn client(peer: &Peer) -> Client {
    let write_retry = RetryPolicy { attempts_max: Some(3), ..RetryPolicy::until_dropped(QUICK) };
    Client::with_options(&peer.url, ClientOptions { write_retry, ..Default::default() }).unwrap()
}

fn row(status: u16) -> Answer {
    let body = r#"{"id":"s","title":null,"metadata":{},"created_at":"2026-01-01T00:00:00Z","updated_at":"2026-01-01T00:00:00Z","version":1,"last_seq":0,"archived":false,"state":"open"}"#;
    Answer::Reply(status, "content-type: application/json\r\n", body.into())
}

fn refused(status: u16, code: &str) -> Answer {
    Answer::Reply(status, "retry-after: 0\r\n", format!(r#"{{"error":"{code}","message":"m"}}"#))
}

#[tokio::test]
async fn a_write_without_an_answer_is_sent_again_under_the_same_key() {
    let script = vec![Answer::HangUp, refused(503, "raft_timeout"), row(201), row(200)];
    let mut peer = Peer::with(script).await;
    let client = client(&peer);
    assert_eq!(client.create(&CreateSession::with_id("s")).await.unwrap().id, "s");
    client.close("s").await.unwrap();

    let first = peer.asked().await;
    assert_eq!((first.target.as_str(), first.body.as_str()), ("/v1/sessions", r#"{"id":"s"}"#));
    assert!(first.key.as_ref().is_some_and(|key| key.len() == 32), "{first:?}");
    assert_eq!(peer.asked().await, first);
    assert_eq!(peer.asked().await, first);
    let next = peer.asked().await;
    assert_eq!(next.target, "/v1/sessions/s/close");
    assert!(next.key.is_some() && next.key != first.key, "another write, another key");
}

#[tokio::test]
async fn every_changing_word_carries_a_key_and_joining_carries_none() {
    let script =
        vec![row(200), row(200), row(200), Answer::Reply(204, "", String::new()), row(200)];
    let mut peer = Peer::with(script).await;
    let client = client(&peer);
    client.patch("s", &PatchSession::default()).await.unwrap();
    client.archive("s").await.unwrap();
    client.unarchive("s").await.unwrap();
    client.delete("s").await.unwrap();
    assert!(client.create_or_bind(&CreateSession::with_id("s")).await.unwrap().1);
    for _ in 0..4 {
        assert!(peer.asked().await.key.is_some());
    }
    assert_eq!(peer.asked().await.key, None);
}

#[tokio::test]
async fn a_final_answer_and_a_peer_that_is_not_there_end_a_write_at_once() {
    let peer = Peer::with(vec![refused(409, "session_exists")]).await;
    let client = client(&peer);
    let taken = client.create(&CreateSession::with_id("s")).await.unwrap_err();
    assert_eq!(taken.code(), Some("session_exists"), "{taken}");
    // The script is over: nobody listens any more.
    let nobody = client.create(&CreateSession::with_id("s")).await.unwrap_err();
    assert!(matches!(nobody, ClientError::Unreachable { .. }), "{nobody}");
}

#[tokio::test]
async fn attempts_of_a_write_are_bounded_also_when_the_peer_goes_away_meanwhile() {
    let peer = Peer::with(vec![Answer::HangUp]).await;
    let error = client(&peer).delete("s").await.unwrap_err();
    assert!(matches!(error, ClientError::GaveUp { attempts: 3, .. }), "{error}");
    assert!(!error.changed_nothing(), "the first attempt may have taken effect");
    assert!(!error.is_unreachable(), "that nobody is there now says nothing about it: {error}");
}

#[tokio::test]
async fn what_is_said_in_the_end_is_that_the_outcome_is_open() {
    let script = vec![refused(503, "raft_timeout"), refused(503, "raft_unavailable"), row(201)];
    let mut peer = Peer::with(script).await;
    let write_retry = RetryPolicy { attempts_max: Some(2), ..RetryPolicy::until_dropped(QUICK) };
    let options = ClientOptions { write_retry, ..Default::default() };
    let client = Client::with_options(&peer.url, options).unwrap();
    let error = client.create(&CreateSession::with_id("s")).await.unwrap_err();
    assert_eq!(error.code(), Some("raft_timeout"), "{error}");
    // A write of which it is known says so.
    let script = vec![refused(503, "raft_unavailable"), refused(503, "raft_unavailable")];
    peer = Peer::with(script).await;
    client.set_base(&peer.url).unwrap();
    let error = client.create(&CreateSession::with_id("s")).await.unwrap_err();
    assert_eq!(error.code(), Some("raft_unavailable"), "{error}");
}

#[tokio::test]
async fn a_peer_that_takes_a_write_and_hangs_leaves_time_for_another_attempt() {
    let mut peer = Peer::with(vec![Answer::Silence, row(201)]).await;
    let deadline = Some(Duration::from_millis(2_000));
    let write_retry = RetryPolicy { deadline, ..RetryPolicy::until_dropped(QUICK) };
    let options = ClientOptions { write_retry, ..Default::default() };
    let client = Client::with_options(&peer.url, options).unwrap();
    assert_eq!(client.create(&CreateSession::with_id("s")).await.unwrap().id, "s");
    let first = peer.asked().await;
    assert_eq!(peer.asked().await, first);
}
