//! A disk that is lost at the worst time, and the new life of the member that had it.

use std::path::Path;
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};
use tl_client::Client;
use tl_client::verify::{Checker, Via, check_via, read_all};

use crate::members::{Cluster, Founding, GROUPS, NAMES};
use crate::ops::{Load, advance, settled};

/// Acknowledged events in each part of the test.
const EVENTS_PER_PART: u64 = 60;
/// Between two looks at what is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Waits until a member is silent for another one.
async fn until_silent(cluster: &Cluster, asked: usize, node: usize) {
    loop {
        let nodes = cluster.ops(asked, "nodes");
        let nodes = nodes["nodes"].as_array().unwrap();
        let seen = nodes.iter().find(|seen| seen["node"] == NAMES[node]).unwrap();
        if seen["state"] == "suspect" || seen["state"] == "lost" {
            return;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_disk_while_a_second_node_lags_and_the_third_is_killed_costs_no_event() {
    let mut cluster = Cluster::start(true);
    let mut loads = Vec::new();
    for node in 0..3 {
        loads.push(Load::start(&cluster.url(node), node as u64 + 1, 2, 2).await);
    }
    advance(&loads, EVENTS_PER_PART).await;

    // The third one hangs: what follows is acknowledged by the first two.
    kill_process(cluster.node(2).pid(), Signal::STOP).unwrap();
    advance(&loads[..2], EVENTS_PER_PART).await;
    assert_eq!(cluster.node(0).json("session create late")["id"], "late");
    // The second one's disk is lost, and the first is killed: only the one that lags is left.
    cluster.kill(1);
    std::fs::remove_dir_all(cluster.data(1)).unwrap();
    cluster.kill(0);
    kill_process(cluster.node(2).pid(), Signal::CONT).unwrap();

    // Groups wait rather than forget: nothing is taken, and nothing is said to be missing.
    let survivor = Client::new(&cluster.url(2)).unwrap();
    for path in [
        "/v1/sessions/late",
        "/v1/sessions/late/events?cursor=0&limit=1",
        // A list without it would say the same.
        "/v1/sessions",
    ] {
        let refused = survivor.get_raw(path).await.unwrap_err();
        assert_eq!(refused.code(), Some("raft_unavailable"), "{path}: {refused}");
    }
    let event = json!({"type": "x", "payload": {}, "producer_id": "late", "producer_seq": 1});
    let refused = survivor.post_raw("/v1/sessions/late/append", &event).await.unwrap_err();
    assert_eq!(refused.refusal().map(|refusal| refusal.status), Some(503), "{refused}");
    // An empty directory does not vote, and without a majority nobody gets a new life.
    assert_eq!(cluster.start_in_vain(1), Some(1));
    assert!(cluster.log(1).contains("is not a member's data directory"), "{}", cluster.log(1));
    std::fs::remove_dir_all(cluster.data(1)).unwrap();
    until_silent(&cluster, 2, 1).await;
    let refused = cluster.try_replace(1, 2);
    assert_eq!(refused.code, 1, "{refused:?}");
    let waits =
        ["raft_unavailable", "raft_timeout"].iter().any(|code| refused.stderr.contains(code));
    assert!(waits, "{refused:?}");

    // With the first one back there is everything that was acknowledged, and a new life begins.
    cluster.restart(0);
    advance([&loads[0], &loads[2]], EVENTS_PER_PART).await;
    until_silent(&cluster, 0, 1).await;
    cluster.replace(1, 0);
    cluster.restart(1);
    cluster.ops(0, "wait-ready node-2 --timeout-ms 180000");
    for node in 0..3 {
        while !cluster.ops(node, "status")["replacing"].is_null() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        assert_eq!(cluster.ops(node, "status")["members_number"], 1);
    }
    advance(&loads, EVENTS_PER_PART).await;

    // The new life really votes: with another one away it is half of every majority.
    cluster.kill(2);
    advance(&loads[..2], EVENTS_PER_PART).await;
    cluster.restart(2);
    cluster.ops(0, "wait-ready node-3 --timeout-ms 180000");
    cluster.ops_until(1, "status", "/not_writable", &json!([]));
    let ledger = settled(loads).await;
    let mut seen = Vec::new();
    for node in 0..3 {
        let client = Client::new(&cluster.url(node)).unwrap();
        let report = check_via(&client, &ledger, Via::Pages).await.unwrap();
        assert!(report.is_clean(), "node {node}: {report}");
        let mut all = vec![cluster.node(node).json("session get late")["id"].to_string()];
        for session in Checker::new(&ledger).sessions() {
            all.push(format!("{:?}", read_all(&client, session, Via::Pages).await.unwrap()));
        }
        seen.push(all);
    }
    assert!(seen[0] == seen[1] && seen[1] == seen[2], "every node answers the same");
}

/// Copies the files of a directory that has no others below it.
fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_founding_s_directory_in_the_place_of_a_lost_disk_is_refused_by_the_others() {
    let founding = Founding::new(true);
    // Somebody kept what the founding made.
    let kept = founding.data(1).with_extension("kept");
    copy_files(&founding.data(1), &kept);
    let mut cluster = Cluster::founded(founding);
    assert_eq!(cluster.node(0).json("session create one")["id"], "one");
    cluster.kill(1);
    cluster.restart(1);
    assert_eq!(cluster.node(1).json("session get one")["id"], "one", "its own directory passes");
    cluster.kill(1);
    std::fs::remove_dir_all(cluster.data(1)).unwrap();
    std::fs::rename(&kept, cluster.data(1)).unwrap();
    assert_eq!(cluster.start_in_vain(1), Some(1));
    assert!(cluster.log(1).contains("the others know node-2 by another directory"));
    // It ends when the first of the others has refused it.
    let refused = [0, 2].map(|node| cluster.log(node));
    let said = "calls from another directory than before";
    assert!(refused.iter().any(|log| log.contains(said)), "{refused:?}");
    // The two others go on, and the member gets a new life.
    assert_eq!(cluster.node(0).json("session append one --text x")["seq"], 1);
    std::fs::remove_dir_all(cluster.data(1)).unwrap();
    until_silent(&cluster, 0, 1).await;
    cluster.replace(1, 0);
    cluster.restart(1);
    cluster.ops(0, "wait-ready node-2 --timeout-ms 180000");
    assert_eq!(cluster.node(1).json("session get one")["last_seq"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_whose_directory_is_lost_goes_on_with_a_copy_of_the_founding_s() {
    const ROUTER: usize = 3;
    let founding = Founding::named(&NAMES, &["router-1"], GROUPS, true);
    let kept = founding.data(ROUTER).with_extension("kept");
    copy_files(&founding.data(ROUTER), &kept);
    let mut cluster = Cluster::founded(founding);
    assert_eq!(cluster.node(ROUTER).json("session create one")["id"], "one");
    cluster.kill(ROUTER);
    std::fs::remove_dir_all(cluster.data(ROUTER)).unwrap();
    std::fs::rename(&kept, cluster.data(ROUTER)).unwrap();
    cluster.restart(ROUTER);
    assert_eq!(cluster.node(ROUTER).json("session append one --text x")["seq"], 1);
    assert_eq!(cluster.node(0).json("session get one")["last_seq"], 1);
    // Each member has taken it in: none has refused it, and all of them hear it.
    for node in 0..NAMES.len() {
        let heard = |seen: &Value| seen["node"] == "router-1" && seen["state"] == "ready";
        while !cluster.ops(node, "nodes")["nodes"].as_array().unwrap().iter().any(heard) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        assert!(!cluster.log(node).contains("calls from another directory than before"));
    }
}
