//! `kill -9` under load.

use tl_client::verify::{Checker, Reading, Via, check_via, read_all};
use tl_client::workload::{Workload, WorkloadOptions};
use tl_client::{Client, Front, TailItem, TailOptions};
use tl_types::Seq;
use tokio::sync::watch;

use crate::tl::Node;

/// Acknowledged events before each kill.
const EVENTS_PER_ROUND: u64 = 400;
const ROUNDS: u64 = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_or_doubled_by_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut node = Node::start(&data);
    let client = Client::new(&node.url).unwrap();
    let options = WorkloadOptions { writers: 8, sessions: 6, ..WorkloadOptions::default() };
    let mut workload = Workload::prepare(&client, options).await.unwrap();

    // A tail that lives through all of it.
    let followed = workload.sessions()[0].clone();
    let session = followed.clone();
    let backoff = WorkloadOptions::default().backoff;
    let tail_options = TailOptions { backoff, ..TailOptions::default() };
    let mut tail = client.tail(&session, Seq(0), tail_options);
    let (until, mut last) = watch::channel(None);
    let (progress, mut tailed) = watch::channel(Seq(0));
    let watcher = tokio::spawn(async move {
        let mut reading = Reading::new(session);
        loop {
            progress.send_replace(tail.cursor());
            if last.borrow().is_some_and(|last| tail.cursor() >= last) {
                assert_eq!(tail.repeats(), 0);
                return (reading, tail.connects());
            }
            tokio::select! {
                item = tail.next() => match item.unwrap() {
                    Some(TailItem::Event(event)) => reading.saw(&event).unwrap(),
                    other => panic!("{other:?}"),
                },
                _ = last.changed() => {}
            }
        }
    });

    let mut acked = workload.acked();
    for round in 1..=ROUNDS {
        let (stop, stopped) = watch::channel(false);
        let running = tokio::spawn(async move {
            let outcome = workload.run(stopped).await;
            (workload, outcome)
        });
        acked.wait_for(|acked| *acked >= round * EVENTS_PER_ROUND).await.unwrap();
        let start = *tailed.borrow();
        tailed.wait_for(|cursor| *cursor > start).await.unwrap();
        node.kill();
        node = Node::start(&data);
        client.set_base(&node.url).unwrap();
        // Writers and tail go on by themselves: what is behind this seq came from the new node.
        let at_restart = client.get(&followed).await.unwrap().last_seq;
        tailed.wait_for(|cursor| cursor.0 > at_restart).await.unwrap();
        stop.send_replace(true);
        let (back, outcome) = running.await.unwrap();
        outcome.unwrap();
        workload = back;
    }
    let ledger = workload.ledger();
    let last = client.get(&followed).await.unwrap().last_seq;
    until.send_replace(Some(Seq(last)));
    let (watched, connects) = watcher.await.unwrap();
    assert!(connects > ROUNDS, "the tail reconnected after each kill");

    for via in [Via::Pages, Via::Tail(Front::WebSocket), Via::Tail(Front::Sse)] {
        let report = check_via(&client, &ledger, via).await.unwrap();
        assert!(report.is_clean(), "{via:?}: {report}");
        assert!(report.acknowledged >= ROUNDS * EVENTS_PER_ROUND);
    }
    let mut checker = Checker::new(&ledger);
    checker.partial(&watched);
    for session in checker.sessions() {
        checker.complete(&read_all(&client, session, Via::Tail(Front::LongPoll)).await.unwrap());
    }
    let report = checker.report();
    assert!(report.is_clean(), "{report}");
}
