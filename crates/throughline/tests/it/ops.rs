//! Operating three processes: states, drains, restarts in turn, survivors.

mod follow;

use std::time::Duration;

use tl_client::verify::{Checker, Ledger, Via, check_via};
use tl_client::workload::{Workload, WorkloadOptions};
use tl_client::{Client, Front};

use crate::members::{Cluster, GROUPS, NAMES, exists};
use crate::rows;
use crate::tl::ran;

pub use follow::{Followed, Follower, Load, advance};

/// Acknowledged events before and after each step of a restart.
const EVENTS_PER_PART: u64 = 60;

#[test]
fn operators_see_all_members_and_drain_one_through_another() {
    let mut cluster = Cluster::start(true);
    cluster.ops(0, "wait-ready");
    for (node, name) in NAMES.into_iter().enumerate() {
        let waited = cluster.ops(node, "wait-ready");
        assert_eq!((&waited["node"], &waited["local_ready"]), (&name.into(), &true.into()));
        for asked in 0..2 {
            cluster.ops(asked, &format!("wait-ready {name}"));
        }
    }
    let all = serde_json::json!(NAMES);
    let status = cluster.ops_until(1, "status", "/observer/ready_nodes", &all);
    assert_eq!(status["node"], "node-2");
    cluster.ops_until(1, "status", "/not_writable", &serde_json::json!([]));
    let group = cluster.ops(1, "group 7");
    assert_eq!(group["replicas"].as_array().unwrap().len(), 3);
    let text = || ran(crate::tl::command("ops status --url").arg(cluster.url(0))).stdout;
    while !text().contains("All groups take writes") {}

    // Through another member, and remembered over a restart.
    assert_eq!(cluster.ops(0, "drain node-3")["node"], "node-3");
    assert_eq!(cluster.ops(0, "wait-drained node-3")["state"], "drained");
    let others = serde_json::json!(["node-1", "node-2"]);
    cluster.ops_until(0, "ready-nodes", "/ready_nodes", &others);
    assert!(exists(&cluster.data(2).join("drained.json")));
    assert_eq!(cluster.stop(2), 0);
    cluster.restart(2);
    assert_eq!(cluster.ops(2, "wait-drained")["local_drained"], true);
    let drained = cluster.ops(2, "status");
    assert_eq!((&drained["state"], &drained["groups_led"]), (&"drained".into(), &0.into()));
    let late = cluster.try_ops(2, "wait-ready --timeout-ms 0");
    assert_eq!(late.code, 1);
    assert!(late.stderr.contains("wait_timed_out") && late.stderr.contains("draining"), "{late:?}");
    // It goes on to serve.
    let made = cluster.node(2).json("session create chat-42");
    assert_eq!(made["id"], "chat-42");

    assert_eq!(cluster.ops(0, "undrain node-3")["node"], "node-3");
    cluster.ops(2, "wait-ready");
    assert!(!exists(&cluster.data(2).join("drained.json")));
    for group in [0, GROUPS - 1] {
        let led = cluster.ops(1, &format!("transfer {group} node-3"));
        assert_eq!(led["leader"], "node-3", "{led}");
    }

    let repaired = cluster.ops(0, "repair 0 node-3");
    assert_ne!(repaired["leader"], "node-3", "it led the group: {repaired}");
    cluster.ops(0, "wait-ready node-3");
    let metrics = rows::look(cluster.address(2)).unwrap();
    assert_eq!(metrics.of("snapshots_taken_total"), 1, "{metrics:?}");

    for (words, code) in [
        ("repair 32 node-3", "invalid_ops_request"),
        ("repair 0 nobody", "unknown_node"),
        ("drain nobody", "unknown_node"),
        ("group 32", "invalid_ops_request"),
        ("transfer 0 nobody", "unknown_node"),
    ] {
        let refused = cluster.try_ops(0, words);
        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(refused.stderr.contains(code) && refused.stderr.contains("message"), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_drained_and_restarted_in_turn_and_nobody_notices() {
    let mut cluster = Cluster::start(true);
    let urls: Vec<String> = (0..3).map(|node| cluster.url(node)).collect();
    // Writers stay with their member while it is away; tails go to the next one.
    let mut loads = Vec::new();
    let mut followers = Vec::new();
    for node in 0..3 {
        let load = Load::start(&urls[node], node as u64 + 1, 3, 3).await;
        for session in load.sessions() {
            followers.push(Follower::start(session.clone(), urls.clone(), node + 1));
        }
        loads.push(load);
    }
    for victim in 0..3 {
        advance(&loads, EVENTS_PER_PART).await;
        cluster.ops(victim, "drain");
        cluster.ops(victim, "wait-drained");
        let others: Vec<_> = (0..3).filter(|node| *node != victim).collect();
        assert_eq!(cluster.stop(victim), 0);
        advance(others.iter().map(|node| &loads[*node]), EVENTS_PER_PART).await;
        cluster.restart(victim);
        cluster.ops(victim, "wait-drained");
        cluster.ops(victim, "undrain");
        cluster.ops(victim, "wait-ready");
        advance(&loads, EVENTS_PER_PART).await;
    }
    let ledger = settled(loads).await;
    let mut closes = Vec::new();
    let mut checker = Checker::new(&ledger);
    let client = Client::new(&urls[0]).unwrap();
    for follower in followers {
        let Followed { reading, codes } = follower.end(&client).await;
        checker.complete(&reading);
        closes.extend(codes);
    }
    let report = checker.report();
    assert!(report.is_clean(), "{report}");
    assert!(closes.contains(&1012), "drains ended tails: {closes:?}");
    assert!(!closes.contains(&1000), "{closes:?}");
    for url in &urls {
        let report = check_via(&Client::new(url).unwrap(), &ledger, Via::Pages).await.unwrap();
        assert!(report.is_clean(), "{url}: {report}");
        assert!(report.acknowledged >= 3 * 3 * EVENTS_PER_PART);
    }
}

/// Ends the loads; whatever they wrote.
pub async fn settled(loads: Vec<Load>) -> Ledger {
    let mut ledger = Ledger::default();
    for load in loads {
        ledger.merge(load.end().await);
    }
    ledger
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_of_three_gives_what_it_holds_and_claims_nothing_else() {
    let mut cluster = Cluster::start(false);
    let client = Client::new(&cluster.url(0)).unwrap();
    let options = WorkloadOptions { writers: 4, sessions: 4, ..WorkloadOptions::default() };
    let mut workload = Workload::prepare(&client, options).await.unwrap();
    let mut acked = workload.acked();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let running = tokio::spawn(async move {
        workload.run(stopped).await.unwrap();
        // What was under way has an outcome when it was asked for again.
        workload
    });
    acked.wait_for(|acked| *acked >= 200).await.unwrap();
    stop.send_replace(true);
    let ledger = running.await.unwrap().ledger();

    // The survivor has it all, since it says so with the others' consent.
    let survivor = Client::new(&cluster.url(2)).unwrap();
    assert!(check_via(&survivor, &ledger, Via::Pages).await.unwrap().is_clean());
    cluster.kill(0);
    cluster.kill(1);
    let session = Checker::new(&ledger).sessions()[0].clone();
    let mut checker = Checker::new(&ledger);
    for session in checker.sessions() {
        let mut reading = tl_client::verify::Reading::new(session.clone());
        let mut cursor = tl_types::Seq(0);
        let last = loop {
            match survivor.events(&session, cursor, 7, Duration::ZERO).await {
                Ok(page) => {
                    assert!(!page.up_to_date, "an end is an absence");
                    page.events.iter().for_each(|event| reading.saw(event).unwrap());
                    cursor = page.next_cursor;
                }
                Err(error) => break error,
            }
        };
        assert_eq!(last.code(), Some("raft_unavailable"), "{last}");
        checker.complete(&reading);
        let to_its_end = Follower::start(session.clone(), vec![cluster.url(2)], 0);
        let followed = to_its_end.end_at(cursor).await;
        checker.complete(&followed.reading);
    }
    let report = checker.report();
    assert!(report.is_clean(), "{report}");

    // An absence is refused, on every way, and nothing is taken for missing.
    for path in [
        "/v1/sessions/nobody".to_owned(),
        format!("/v1/sessions/{session}"),
        "/v1/sessions/nobody/events?cursor=0&limit=1".to_owned(),
        format!("/v1/sessions/{session}/events?cursor=999999&limit=1"),
        "/v1/sessions".to_owned(),
        "/v1/sessions?archived=all&limit=1".to_owned(),
    ] {
        let refused = survivor.get_raw(&path).await.unwrap_err();
        assert_eq!(refused.code(), Some("raft_unavailable"), "{path}: {refused}");
    }
    let stale = survivor.get_raw(&format!("/v1/sessions/{session}?stale=true")).await;
    assert!(stale.is_ok(), "{stale:?}");
    let event =
        serde_json::json!({"type": "x", "payload": {}, "producer_id": "late", "producer_seq": 1});
    let refused = survivor.post_raw(&format!("/v1/sessions/{session}/append"), &event).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.refusal().map(|refusal| refusal.status), Some(503), "{refused}");

    // The operator is told who is missing.
    let late = cluster.try_ops(2, "wait-ready --timeout-ms 0");
    assert!(late.stderr.contains("quorum_unreachable"), "{late:?}");
    let status = cluster.ops(2, "status");
    let blocked = status["not_writable"].as_array().unwrap();
    assert_eq!(blocked.len(), usize::from(GROUPS));
    for group in blocked {
        assert_eq!(group["reason"], "no_majority", "{group}");
        assert_eq!(group["missing"], serde_json::json!(["node-1", "node-2"]));
    }
    // With one more there is a majority again.
    cluster.restart(0);
    cluster.ops(2, "wait-ready");
    let report = check_via(&survivor, &ledger, Via::Tail(Front::Sse)).await.unwrap();
    assert!(report.is_clean(), "{report}");
}
