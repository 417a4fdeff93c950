//! What operators see of three engines, and what they may do.

use tl_engine::ops::{NodeState, Unwritable};
use tl_engine::service::Awaited;
use tl_types::GroupId;

use super::*;

const LONG: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_member_leads_nothing_until_it_is_undrained_also_over_a_restart() {
    let mut cluster = Cluster::start().await;
    create(&cluster.service(0), "chat").await;
    let (follows, session, from) = (cluster.service(1), id("chat"), TailFrom::After(Seq(0)));
    let tail = follows.open_tail(&caller(), &session, from, Freshness::default()).await;
    let mut tail = tail.unwrap();
    let asked = cluster.service(0).ops_drain(Some("node-2"), true).await.unwrap();
    assert_eq!(asked.node, "node-2");
    assert!(matches!(tail.next(10).await.unwrap(), TailItem::End(TailEnd::Shutdown)));
    drop(tail);
    let page = cluster.service(0).ops_wait(Some("node-2"), Awaited::Drained, LONG).await.unwrap();
    assert_eq!(
        (page.state, page.groups_led, page.tails_open),
        (NodeState::Drained, Some(0), Some(0))
    );
    let seen = cluster.service(2).ops_wait(Some("node-2"), Awaited::Drained, LONG).await.unwrap();
    assert_eq!(seen.state, NodeState::Drained, "every member sees it");

    cluster.stop(1).await;
    append_through(&cluster.service(0), "chat", 1).await;
    cluster.open(1);
    cluster.engines[1].as_ref().unwrap().wait_ready().await.expect("it catches up");
    let drained = cluster.service(1);
    let readiness = drained.readiness();
    assert_eq!((readiness.ready, readiness.reason), (false, Some("draining")));
    drained.ops_wait(None, Awaited::Drained, LONG).await.unwrap();
    // It goes on to serve, and to vote: without it there would be no majority here.
    append_through(&drained, "chat", 2).await;
    cluster.stop(2).await;
    append_through(&cluster.service(0), "chat", 3).await;
    append_through(&drained, "chat", 4).await;
    let refused = drained.ops_transfer(GroupId(0), "node-2").await.unwrap_err();
    assert!(refused.to_string().contains("drain"), "{refused}");

    drained.ops_drain(None, false).await.unwrap();
    drained.ops_wait(None, Awaited::Ready, LONG).await.unwrap();
    for group in (0..8).map(GroupId) {
        let page = cluster.service(0).ops_transfer(group, "node-2").await.unwrap();
        assert_eq!(page.leader.as_deref(), Some("node-2"));
    }
    assert_eq!(drained.ops_status().await.groups_led, 8);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_survivor_says_of_each_group_why_it_takes_no_writes() {
    let mut cluster = Cluster::start().await;
    for name in NAMES {
        cluster.service(2).ops_wait(Some(name), Awaited::Ready, LONG).await.unwrap();
    }
    let healthy = cluster.service(2).ops_status().await;
    assert!(healthy.not_writable.is_empty(), "{healthy:?}");
    assert_eq!(healthy.observer.ready_nodes, NAMES);
    cluster.stop(0).await;
    cluster.stop(1).await;
    let survivor = cluster.service(2);
    let blocked = loop {
        // Silence is noticed after two seconds.
        let status = survivor.ops_status().await;
        if status.observer.visible_nodes == ["node-3"] {
            break status.not_writable;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(blocked.len(), 8);
    for group in &blocked {
        let missing = vec!["node-1".to_owned(), "node-2".to_owned()];
        assert_eq!(group.why, Unwritable::NoMajority { missing });
    }
    let late = survivor.ops_wait(None, Awaited::Ready, Duration::ZERO).await.unwrap_err();
    assert_eq!(late.code, ErrorCode::WaitTimedOut);
    let unknown = survivor.ops_drain(Some("node-9"), true).await.unwrap_err();
    assert_eq!(unknown.code, ErrorCode::UnknownNode);
    let silent = survivor.ops_drain(Some("node-1"), true).await.unwrap_err();
    let either = [ErrorCode::RaftUnavailable, ErrorCode::RaftTimeout];
    assert!(either.contains(&silent.code), "{silent}");
    cluster.open(0);
    survivor.ops_wait(None, Awaited::Ready, LONG).await.unwrap();
    assert!(survivor.ops_status().await.not_writable.is_empty());
    let text = survivor.metrics_text();
    assert!(text.contains("throughline_replica_lag_entries_max{member=\"node-1\"}"), "{text}");
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_takes_the_rows_of_a_group_anew_while_writes_go_on() {
    let mut cluster = Cluster::start().await;
    let operator = cluster.service(0);
    for name in NAMES {
        operator.ops_wait(Some(name), Awaited::Ready, LONG).await.unwrap();
    }
    create(&operator, "chat").await;
    append_through(&operator, "chat", 1).await;
    let all = (0..8).map(GroupId);
    for (group, seq) in all.clone().zip(2..) {
        if group.0 < 2 {
            // Whoever leads a group gives it away first, also when it is asked itself.
            operator.ops_transfer(group, "node-2").await.unwrap();
        }
        let (asked, node) = if group.0 == 0 { (1, None) } else { (0, Some("node-2")) };
        let page = cluster.service(asked).ops_repair(group, node).await.unwrap();
        assert!(page.leader.as_deref().is_some_and(|leader| leader != "node-2"), "{page:?}");
        append_through(&operator, "chat", seq).await;
        operator.ops_wait(Some("node-2"), Awaited::Ready, LONG).await.unwrap();
    }
    let metrics = cluster.service(1).metrics_text();
    assert!(metrics.contains("throughline_snapshots_taken_total 8\n"), "{metrics}");
    let whole = seqs(&operator, "chat").await;
    assert_eq!(whole.len(), 9);
    assert_eq!(seqs(&cluster.service(1), "chat").await, whole);
    assert_eq!(seqs(&cluster.service(2), "chat").await, whole);

    let refused = operator.ops_repair(GroupId(8), None).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::InvalidOpsRequest);
    let refused = operator.ops_repair(GroupId(0), Some("node-9")).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::UnknownNode);
    cluster.stop(2).await;
    while operator.ops_status().await.observer.visible_nodes.len() == 3 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for node in [None, Some("node-2"), Some("node-3")] {
        let refused = operator.ops_repair(GroupId(0), node).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::RaftUnavailable, "{node:?}");
        assert!(refused.message.contains("node-3"), "{refused}");
    }
    assert!(operator.ops_nodes().await.iter().all(|node| node.groups_stopped.is_empty()));
    cluster.stop_all().await;
}
