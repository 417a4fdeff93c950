use std::time::Duration;

use tl_client::{Backoff, Client, ClientError, EndReason, Front, Tail, TailItem, TailOptions};
use tl_types::Seq;

use crate::peer::{Answer, Peer};

fn event(seq: u64) -> String {
    format!(r#"{{"seq":{seq},"type":"t","payload":{{}},"producer_id":"p","producer_seq":{seq}}}"#)
}

fn sse(seq: u64) -> String {
    format!("id: {seq}\nevent: event\ndata: {}\n\n", event(seq))
}

fn page(seqs: &[u64], next: u64) -> Answer {
    let events: Vec<String> = seqs.iter().map(|seq| event(*seq)).collect();
    let events = events.join(",");
    let body = format!(
        r#"{{"events":[{events}],"next_cursor":{next},"last_seq":{next},"up_to_date":true}}"#
    );
    Answer::Reply(200, "", body)
}

fn refused(status: u16, code: &str) -> Answer {
    Answer::Reply(status, "", format!(r#"{{"error":"{code}","message":"m"}}"#))
}

fn tail(peer: &Peer, front: Front) -> Tail {
    let backoff = Backoff {
        first: Duration::from_millis(1),
        max: Duration::from_millis(1),
        jitter_ratio: 0.0,
    };
    let options = TailOptions { front, backoff, batch_size: 2, ..TailOptions::default() };
    Client::new(&peer.url).unwrap().tail("s", Seq(0), options)
}

/// Everything up to the end, as numbers; gaps as `-next`.
async fn drain(tail: &mut Tail) -> Vec<i64> {
    let mut seen = Vec::new();
    while let Some(item) = tail.next().await.unwrap() {
        seen.push(match item {
            TailItem::Event(event) => event.seq.0 as i64,
            TailItem::Gap(gap) => -(gap.next_cursor as i64),
        });
    }
    seen
}

#[tokio::test]
async fn server_sent_events_resume_where_they_were_cut() {
    let cut = sse(3);
    let mut peer = Peer::with(vec![
        Answer::Stream(format!(": 0\n\n{}{}{}", sse(1), sse(2), &cut[..cut.len() - 4])),
        refused(503, "raft_unavailable"),
        Answer::Stream(format!("{}{}{}event: end\ndata: {{}}\n\n", sse(2), sse(3), sse(4))),
    ])
    .await;
    let mut tail = tail(&peer, Front::Sse);
    assert_eq!(drain(&mut tail).await, [1, 2, 3, 4]);
    assert_eq!((tail.ended(), tail.repeats()), (Some(EndReason::Closed), 1));
    for cursor in [0, 2, 2] {
        assert_eq!(peer.asked().await.target, format!("/v1/sessions/s/tail?cursor={cursor}"));
    }
}

#[tokio::test]
async fn web_sockets_resume_after_any_close_but_the_last() {
    let mut peer = Peer::with(vec![
        Answer::Socket(vec![format!("[{},{}]", event(1), event(2)), event(3)], 1012),
        Answer::HangUp,
        Answer::Socket(vec![format!("[{},{}]", event(3), event(4))], 1000),
        Answer::Socket(vec![format!("[{}]", event(5))], 4410),
    ])
    .await;
    let mut tail = tail(&peer, Front::WebSocket);
    assert_eq!(drain(&mut tail).await, [1, 2, 3, 4, 5]);
    assert_eq!((tail.cursor(), tail.repeats(), tail.connects()), (Seq(5), 1, 3));
    for cursor in [0, 3, 3, 4] {
        let target = format!("/v1/sessions/s/tail?cursor={cursor}&batch_size=2");
        assert_eq!(peer.asked().await.target, target);
    }
}

#[tokio::test]
async fn long_polls_go_on_after_faults_and_end_with_the_session() {
    let closed = r#"{"id":"s","title":null,"metadata":{},"created_at":"","updated_at":"","state":"closed","last_seq":3}"#;
    let mut peer = Peer::with(vec![
        page(&[1, 2], 2),
        Answer::HangUp,
        refused(500, "internal_error"),
        page(&[3], 3),
        page(&[], 3),
        Answer::Reply(200, "", closed.into()),
    ])
    .await;
    let mut tail = tail(&peer, Front::LongPoll);
    assert_eq!(drain(&mut tail).await, [1, 2, 3]);
    for cursor in [0, 2, 2, 2, 3] {
        let target = format!("/v1/sessions/s/events?cursor={cursor}&limit=2&wait_ms=20000");
        assert_eq!(peer.asked().await.target, target);
    }
}

#[tokio::test]
async fn a_refusal_that_no_wait_changes_ends_the_tail_with_its_code() {
    for front in [Front::Sse, Front::WebSocket, Front::LongPoll] {
        let peer = Peer::with(vec![refused(404, "session_not_found")]).await;
        let error = tail(&peer, front).next().await.unwrap_err();
        assert_eq!(error.code(), Some("session_not_found"), "{front:?}: {error}");
    }
}

#[tokio::test]
async fn a_session_deleted_while_following_is_an_end() {
    let peer = Peer::with(vec![Answer::Stream(sse(1)), refused(410, "session_tombstoned")]).await;
    let mut tail = tail(&peer, Front::Sse);
    assert_eq!(drain(&mut tail).await, [1]);
    assert_eq!(tail.ended(), Some(EndReason::Deleted));
}

#[tokio::test]
async fn a_gap_is_handed_out_and_the_tail_goes_on_behind_it() {
    let gap = r#"{"type":"gap","reason":"cursor_expired","from_cursor":1,"next_cursor":5}"#;
    let stream = format!("{}event: gap\ndata: {gap}\n\n{}event: end\ndata: \n\n", sse(1), sse(6));
    let peer = Peer::with(vec![Answer::Stream(stream)]).await;
    assert_eq!(drain(&mut tail(&peer, Front::Sse)).await, [1, -5, 6]);
    let frames = vec![event(1), gap.to_owned(), event(6)];
    let peer = Peer::with(vec![Answer::Socket(frames, 4410)]).await;
    assert_eq!(drain(&mut tail(&peer, Front::WebSocket)).await, [1, -5, 6]);
}

#[tokio::test]
async fn a_hole_is_asked_for_again_and_never_passed_over() {
    let holed = || Answer::Stream(format!("{}{}", sse(1), sse(3)));
    let whole = Answer::Stream(format!("{}{}event: end\ndata: \n\n", sse(2), sse(3)));
    let peer = Peer::with(vec![holed(), whole]).await;
    assert_eq!(drain(&mut tail(&peer, Front::Sse)).await, [1, 2, 3]);

    let peer = Peer::with(vec![holed(), holed(), holed()]).await;
    let mut tail = tail(&peer, Front::Sse);
    assert!(tail.next().await.unwrap().is_some());
    let error = tail.next().await.unwrap_err();
    assert!(matches!(error, ClientError::Hole { cursor: 1, got: 3, .. }), "{error}");
}

#[tokio::test]
async fn failures_in_a_row_are_bounded_when_asked_for() {
    let peer = Peer::with(vec![Answer::HangUp, Answer::HangUp]).await;
    let backoff = Backoff { first: Duration::ZERO, max: Duration::ZERO, jitter_ratio: 0.0 };
    let options =
        TailOptions { front: Front::Sse, backoff, failures_max: Some(2), ..TailOptions::default() };
    let mut tail = Client::new(&peer.url).unwrap().tail("s", Seq(0), options);
    let error = tail.next().await.unwrap_err();
    assert!(matches!(error, ClientError::GaveUp { attempts: 2, .. }), "{error}");
}
