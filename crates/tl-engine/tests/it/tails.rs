use tl_engine::api::{Freshness, ReadEvents, TailEnd, TailFrom, TailItem};
use tl_engine::{Service, Tail};
use tl_types::{ErrorCode, Seq};

use crate::support::{append, caller, create, event, id, start, stop};

async fn open(service: &Service, name: &str, from: TailFrom) -> Tail {
    service.open_tail(&caller(), &id(name), from, Freshness::default()).await.unwrap()
}

async fn seqs(tail: &mut Tail, until: u64) -> Vec<u64> {
    let mut seen = Vec::new();
    while seen.last() != Some(&until) {
        match tail.next(100).await.unwrap() {
            TailItem::Events(lines) => seen.extend(lines.iter().map(|line| line.seq.0)),
            other => panic!("{other:?}"),
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replay_and_live_are_one_run_without_gap_or_double() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path()).await;
    let service = engine.service();
    create(&service, "chat").await;
    let total = 600u64;
    let writer = {
        let service = service.clone();
        tokio::spawn(async move {
            for n in 1..=total {
                append(&service, "chat", vec![event("p", n, "hello")]).await.unwrap();
            }
        })
    };
    let readers: Vec<_> = [0u64, 100, 300, 599]
        .into_iter()
        .map(|cursor| {
            let service = service.clone();
            tokio::spawn(async move {
                let mut tail = open(&service, "chat", TailFrom::After(Seq(cursor))).await;
                let expected: Vec<u64> = (cursor + 1..=total).collect();
                assert_eq!(seqs(&mut tail, total).await, expected);
            })
        })
        .collect();
    writer.await.unwrap();
    for reader in readers {
        reader.await.unwrap();
    }
    let mut last = open(&service, "chat", TailFrom::Last(3)).await;
    assert_eq!(seqs(&mut last, total).await, [598, 599, 600]);
    stop(engine).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_is_not_shown_before_its_reply_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path()).await;
    let service = engine.service();
    create(&service, "chat").await;
    let mut tail = open(&service, "chat", TailFrom::Latest).await;
    let appended = append(&service, "chat", vec![event("p", 1, "a")]).await.unwrap();
    assert_eq!(tail.last_seq(), Seq(0), "the reply is not written yet");
    drop(appended.reply_written);
    assert_eq!(seqs(&mut tail, 1).await, [1]);
    stop(engine).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_ends_after_the_last_event_of_a_closed_session() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path()).await;
    let service = engine.service();
    create(&service, "chat").await;
    let mut live = open(&service, "chat", TailFrom::After(Seq(0))).await;
    append(&service, "chat", vec![event("p", 1, "a")]).await.unwrap();
    service.close_session(&caller(), &id("chat")).await.unwrap();
    let mut late = open(&service, "chat", TailFrom::After(Seq(0))).await;
    for tail in [&mut live, &mut late] {
        assert_eq!(seqs(tail, 1).await, [1]);
        assert!(matches!(tail.next(1).await.unwrap(), TailItem::End(TailEnd::Closed)));
    }
    service.delete_session(&caller(), &id("chat")).await.unwrap();
    let refused =
        service.open_tail(&caller(), &id("chat"), TailFrom::Latest, Freshness::default()).await;
    assert_eq!(refused.unwrap_err().code, ErrorCode::SessionTombstoned);
    stop(engine).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trimmed_events_are_a_gap_and_never_passed_over_in_silence() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path()).await;
    let service = engine.service();
    create(&service, "chat").await;
    for n in 1..=4 {
        append(&service, "chat", vec![event("p", n, "a")]).await.unwrap();
    }
    let (path, deadline) = (caller().session(&id("chat")), caller().deadline);
    service.trim(&path, Seq(3), deadline).await.unwrap();
    let mut whole = open(&service, "chat", TailFrom::After(Seq(0))).await;
    assert_eq!(seqs(&mut whole, 4).await, [1, 2, 3, 4], "nothing goes that is not archived");
    // While it is open its recent events stay at hand for others; they are no less true.
    drop(whole);

    service.ack_archived(&path, Seq(3), deadline).await.unwrap();
    service.trim(&path, Seq(9), deadline).await.unwrap();
    let mut late = open(&service, "chat", TailFrom::After(Seq(1))).await;
    match late.next(1).await.unwrap() {
        TailItem::Gap(gap) => {
            assert_eq!((gap.from_cursor, gap.next_cursor), (Seq(1), Seq(3)));
            assert_eq!((gap.committed_cursor, gap.earliest_available_cursor), (Seq(3), Seq(3)));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(seqs(&mut late, 4).await, [4]);
    let request = ReadEvents { cursor: Seq(0), limit: 10, wait: std::time::Duration::ZERO };
    let page = service.read_events(&caller(), &id("chat"), request, Freshness::default()).await;
    assert_eq!(page.unwrap_err().code, ErrorCode::EventGapDetected);
    stop(engine).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_event_is_serialised_once_for_all_its_readers() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path()).await;
    let service = engine.service();
    create(&service, "chat").await;
    let mut one = open(&service, "chat", TailFrom::Latest).await;
    let mut two = open(&service, "chat", TailFrom::Latest).await;
    append(&service, "chat", vec![event("p", 1, "a")]).await.unwrap();
    let mut places = Vec::new();
    for tail in [&mut one, &mut two] {
        match tail.next(1).await.unwrap() {
            TailItem::Events(lines) => places.push(lines[0].json.as_ptr()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(places[0], places[1]);
    stop(engine).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_ends_tails_resumably() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path()).await;
    let service = engine.service();
    create(&service, "chat").await;
    let mut tail = open(&service, "chat", TailFrom::Latest).await;
    let waiting = tokio::spawn(async move { tail.next(1).await });
    engine.begin_drain();
    assert!(matches!(waiting.await.unwrap().unwrap(), TailItem::End(TailEnd::Shutdown)));
    assert_eq!(service.readiness().reason, Some("draining"));
    stop(engine).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_does_not_wait_for_a_tail_to_catch_up() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path()).await;
    let service = engine.service();
    create(&service, "chat").await;
    append(&service, "chat", vec![event("p", 1, "a")]).await.unwrap();
    let mut tail = open(&service, "chat", TailFrom::After(Seq(0))).await;
    engine.begin_drain();
    assert!(matches!(tail.next(1).await.unwrap(), TailItem::End(TailEnd::Shutdown)));
    assert_eq!(tail.cursor(), Seq(0), "the event is behind the place to resume from");
    stop(engine).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_ahead_of_the_session_is_a_gap_for_those_who_ask() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path()).await;
    let service = engine.service();
    create(&service, "chat").await;
    append(&service, "chat", vec![event("p", 1, "a")]).await.unwrap();
    let mut tail = open(&service, "chat", TailFrom::After(Seq(7))).await;
    tail.report_gaps(true);
    match tail.next(1).await.unwrap() {
        TailItem::Gap(gap) => assert_eq!((gap.from_cursor, gap.next_cursor), (Seq(7), Seq(1))),
        other => panic!("{other:?}"),
    }
    append(&service, "chat", vec![event("p", 2, "b")]).await.unwrap();
    assert_eq!(seqs(&mut tail, 2).await, [2]);
    stop(engine).await;
}
