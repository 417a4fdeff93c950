//! Five processes of which three have each group, and a router that has none.

use serde_json::Value;
use tl_client::verify::{Checker, Reading, Via, check_via, read_all};
use tl_client::workload::{Workload, WorkloadOptions};
use tl_client::{Client, Front, TailItem, TailOptions};
use tl_types::Seq;
use tokio::sync::watch;

use crate::members::{Cluster, Founding, GROUPS};
use crate::tl::run;

const FIVE: [&str; 5] = ["node-1", "node-2", "node-3", "node-4", "node-5"];
const ROUTER: usize = 5;
/// Acknowledged events with all nodes up, and with one down.
const EVENTS_PER_PART: u64 = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_processes_and_a_router_lose_and_double_nothing_by_kill_9() {
    let mut cluster = Cluster::founded(Founding::named(&FIVE, &["router-1"], GROUPS, true));
    cluster.ops(ROUTER, "wait-ready");
    let client = Client::new(&cluster.node(ROUTER).url).unwrap();
    let options = WorkloadOptions { writers: 8, sessions: 12, ..WorkloadOptions::default() };
    let mut workload = Workload::prepare(&client, options).await.unwrap();

    // Tails through the router that stay open through all of it.
    let backoff = WorkloadOptions::default().backoff;
    let (until, last) = watch::channel(None);
    let mut watchers = Vec::new();
    for session in workload.sessions().iter().take(4).cloned() {
        let tail_options = TailOptions { backoff, ..TailOptions::default() };
        let mut tail = client.tail(&session, Seq(0), tail_options);
        let mut last: watch::Receiver<Option<Vec<u64>>> = last.clone();
        let at = watchers.len();
        watchers.push(tokio::spawn(async move {
            let mut reading = Reading::new(session);
            loop {
                let end = last.borrow().as_ref().map(|ends| Seq(ends[at]));
                if end.is_some_and(|end| tail.cursor() >= end) {
                    assert_eq!((tail.repeats(), tail.connects()), (0, 1), "on one connection");
                    return reading;
                }
                tokio::select! {
                    item = tail.next() => match item.unwrap() {
                        Some(TailItem::Event(event)) => reading.saw(&event).unwrap(),
                        other => panic!("{other:?}"),
                    },
                    _ = last.changed() => {}
                }
            }
        }));
    }

    let mut acked = workload.acked();
    for victim in 0..FIVE.len() {
        let (stop, stopped) = watch::channel(false);
        let running = tokio::spawn(async move {
            let outcome = workload.run(stopped).await;
            (workload, outcome)
        });
        let reached = *acked.borrow() + EVENTS_PER_PART;
        acked.wait_for(|acked| *acked >= reached).await.unwrap();
        cluster.kill(victim);
        let reached = *acked.borrow() + EVENTS_PER_PART;
        acked.wait_for(|acked| *acked >= reached).await.unwrap();
        cluster.restart(victim);
        stop.send_replace(true);
        let (back, outcome) = running.await.unwrap();
        outcome.unwrap();
        workload = back;
    }
    let ledger = workload.ledger();
    let mut ends = Vec::new();
    for session in workload.sessions().iter().take(watchers.len()) {
        ends.push(client.get(session).await.unwrap().last_seq);
    }
    until.send_replace(Some(ends));
    let mut checker = Checker::new(&ledger);
    for watcher in watchers {
        checker.partial(&watcher.await.unwrap());
    }
    let mut seen = Vec::new();
    for node in 0..=ROUTER {
        let client = Client::new(&cluster.node(node).url).unwrap();
        let fronts = [Via::Pages, Via::Tail(Front::WebSocket), Via::Tail(Front::LongPoll)];
        let report = check_via(&client, &ledger, fronts[node % 3]).await.unwrap();
        assert!(report.is_clean(), "node {node}: {report}");
        assert!(report.acknowledged >= 10 * EVENTS_PER_PART);
        let mut all = Vec::new();
        for session in checker.sessions() {
            let reading = read_all(&client, session, Via::Pages).await.unwrap();
            all.push(format!("{reading:?}"));
        }
        seen.push(all);
    }
    assert!(seen.windows(2).all(|two| two[0] == two[1]), "every node answers the same");
    for reading in checker.sessions() {
        checker.complete(&read_all(&client, reading, Via::Tail(Front::Sse)).await.unwrap());
    }
    let report = checker.report();
    assert!(report.is_clean(), "{report}");

    // What operators see of it, through the router too.
    let status = cluster.ops(ROUTER, "status");
    assert_eq!(
        (&status["local_mode"], &status["local_groups"], &status["write_replication_factor"]),
        (&"router_node".into(), &0.into(), &3.into())
    );
    assert_eq!(status["nodes"].as_array().map(Vec::len), Some(6));
    let here = |node: usize| cluster.ops(node, "status")["local_groups"].as_u64().unwrap();
    let copies: u64 = (0..FIVE.len()).map(here).sum();
    assert_eq!(copies, 3 * u64::from(GROUPS) + 2, "the first group is on all five");
    let group = cluster.ops(ROUTER, "group 7");
    assert_eq!(group["replicas"].as_array().map(Vec::len), Some(3));
    let ready = client.get_raw("/health/ready").await.unwrap();
    let ready: Value = serde_json::from_slice(&ready).unwrap();
    assert_eq!(ready["mode"], "router_node");
}

#[test]
fn routers_are_named_once_and_apart_from_members() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().display();
    assert_eq!(run(&format!("ops found a b c --routers c --out {out}")).code, 2);
    assert_eq!(run(&format!("ops found a b c --routers r,r --out {out}")).code, 2);
    let many: Vec<String> = (0..17).map(|number| format!("r{number}")).collect();
    let many = many.join(",");
    assert_eq!(run(&format!("ops found a b c --routers {many} --out {out}")).code, 2);
    let found = run(&format!("ops found a b c --routers r1,r2 --json --out {out}"));
    assert_eq!(found.code, 0, "{found:?}");
    assert_eq!(found.json()["routers"][1]["name"], "r2");
    // The founding's routers and no others.
    let serve = |settings: &str| {
        let mut command = crate::tl::command("serve --listen 127.0.0.1:0 --data");
        command.arg(folder.path().join("r1"));
        command.env("TL_ENGINE__NODE_NAME", "r1");
        command.env("TL_CLUSTER__MEMBERS", r#"["a=127.0.0.1:1","b=127.0.0.1:2","c=127.0.0.1:3"]"#);
        command.env("TL_CLUSTER__ROUTERS", settings);
        crate::tl::ran(&mut command)
    };
    let refused = serve(r#"["r1=127.0.0.1:4"]"#);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("cluster.routers names r1"), "{refused:?}");
    let refused = serve(r#"["r2=127.0.0.1:4"]"#);
    assert!(refused.stderr.contains("neither members nor routers name this node"), "{refused:?}");
}
