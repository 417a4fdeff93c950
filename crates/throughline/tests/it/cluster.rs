//! Three processes as one cluster.

use std::hash::{Hash, Hasher};
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use serde_json::Value;
use tl_client::Client;
use tl_client::verify::{Checker, Via, check_via, read_all};
use tl_client::workload::{Workload, WorkloadOptions};
use tl_types::Seq;
use tokio::sync::watch;

use crate::members::Cluster;
use crate::rows::watch::look;
use crate::tl::{command, ran, run};

/// Acknowledged events with all nodes up, and with one down.
const EVENTS_PER_PART: u64 = 150;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_processes_loses_and_doubles_nothing_by_kill_9() {
    let mut cluster = Cluster::start(true);
    let client = Client::new(&cluster.node(0).url).unwrap();
    let options = WorkloadOptions { writers: 8, sessions: 12, ..WorkloadOptions::default() };
    let mut workload = Workload::prepare(&client, options).await.unwrap();
    let mut acked = workload.acked();
    for victim in 0..3 {
        // Whoever is written through stays; about a third of the groups is led by the victim.
        client.set_base(&cluster.node((victim + 1) % 3).url).unwrap();
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
    // The last part was written through the first node, most of it for groups of others.
    let seen = |node| look(cluster.address(node)).expect("it answers");
    let counts = ["http_hot_appends_total", "writes_forwarded_total"].map(|name| seen(0).of(name));
    assert!(counts.iter().all(|count| *count > 0), "the short way, and from there: {counts:?}");
    assert!(seen(1).of("writes_served_total") > 0, "another one's writes, at once");
    let ledger = workload.ledger();
    let mut seen = Vec::new();
    for node in 0..3 {
        let client = Client::new(&cluster.node(node).url).unwrap();
        let report = check_via(&client, &ledger, Via::Pages).await.unwrap();
        assert!(report.is_clean(), "node {node}: {report}");
        assert!(report.acknowledged >= 6 * EVENTS_PER_PART);
        let mut all = Vec::new();
        for session in Checker::new(&ledger).sessions() {
            let reading = read_all(&client, session, Via::Pages).await.unwrap();
            all.push(format!("{reading:?}"));
        }
        seen.push(all);
    }
    assert!(seen[0] == seen[1] && seen[1] == seen[2], "every node answers the same");
}

#[test]
fn commands_that_were_sent_to_a_leader_that_hangs_take_effect_once() {
    /// Many more than groups led by one node, so that some of them go to the one that hangs.
    const SESSIONS: usize = 24;
    let cluster = Cluster::of(16, false);
    kill_process(cluster.node(2).pid(), Signal::STOP).unwrap();
    let url = &cluster.node(0).url;
    let created: Vec<_> = std::thread::scope(|scope| {
        let create = |n| {
            let words = format!("session create s-{n} --title t --json --url {url}");
            scope.spawn(move || run(&words))
        };
        let running: Vec<_> = (0..SESSIONS).map(create).collect();
        running.into_iter().map(|one| one.join().unwrap()).collect()
    });
    for ran in created {
        assert_eq!(ran.code, 0, "{ran:?}");
        assert_eq!(ran.json()["version"], 1, "{ran:?}");
    }
    kill_process(cluster.node(2).pid(), Signal::CONT).unwrap();
    let listed = cluster.node(1).tl("session list --json");
    assert_eq!(listed.stdout.lines().count(), SESSIONS, "{listed:?}");
    let taken = cluster.node(1).tl("session create s-0 --json");
    assert!(taken.code == 1 && taken.stderr.contains("session_exists"), "{taken:?}");
}

#[test]
fn what_is_imported_through_one_node_is_exported_by_every_other() {
    let cluster = Cluster::start(false);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("in.jsonl");
    let mut text = String::new();
    for session in 0..9 {
        text += &format!("{{\"session\":{{\"id\":\"s-{session}\"}}}}\n");
        for n in 0..30 {
            text += &format!(
                "{{\"event\":{{\"type\":\"message\",\"payload\":{{\"n\":{n}}},\"actor\":\"user:u\"}}}}\n"
            );
        }
    }
    std::fs::write(&file, text).unwrap();
    for (node, appended) in [(0, 270), (1, 0), (2, 0)] {
        let url = &cluster.node(node).url;
        let imported = ran(command("session import --json --url").arg(url).arg(&file));
        assert_eq!(imported.code, 0, "{imported:?}");
        assert_eq!(imported.json()["appended"], Value::from(appended), "through node {node}");
    }
    let exports: Vec<String> = (0..3)
        .map(|node| {
            let out = folder.path().join(format!("out-{node}.jsonl"));
            let url = &cluster.node(node).url;
            let exported =
                ran(command("session export --all --url").arg(url).arg("--out").arg(&out));
            assert_eq!(exported.code, 0, "{exported:?}");
            std::fs::read_to_string(out).unwrap()
        })
        .collect();
    assert!(exports[0] == exports[1] && exports[1] == exports[2]);
    assert_eq!(exports[0].lines().count(), 9 * 31);
}

#[test]
fn a_founding_is_refused_where_there_is_one_and_with_too_few_members() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().display();
    assert_eq!(run(&format!("ops found a b --out {out}")).code, 2);
    assert_eq!(run(&format!("ops found a b a --out {out}")).code, 2);
    assert_eq!(run(&format!("ops found a b ../c --out {out}")).code, 2);
    assert_eq!(run(&format!("ops found a b c --out {out}")).code, 0);
    let again = run(&format!("ops found a b c --out {out}"));
    assert_eq!(again.code, 1);
    assert!(again.stderr.contains("has the identity of a node already"), "{again:?}");
    // A member's directory is not a single node's.
    let alone = run(&format!("serve --listen 127.0.0.1:0 --data {out}/a"));
    assert_eq!(alone.code, 1);
    assert!(alone.stderr.contains("cluster.members is not set"), "{alone:?}");
}

#[test]
fn one_command_runs_a_cluster_for_trying_things_out() {
    let folder = tempfile::tempdir().unwrap();
    let mut dev = command("dev --json --nodes 3 --listen 127.0.0.1:0 --data")
        .arg(folder.path())
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut stdout = std::io::BufReader::new(dev.stdout.take().unwrap());
    let mut said = || -> Value {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    };
    let ready = said();
    let url = |node: usize| ready["nodes"][node]["url"].as_str().unwrap().to_owned();
    let created = run(&format!("session create chat-42 --json --url {}", url(0)));
    assert_eq!(created.code, 0, "{created:?}");
    let words = "session append chat-42 --text hello --actor user:ann --json --url";
    let appended = run(&format!("{words} {}", url(1)));
    assert_eq!(appended.code, 0, "{appended:?}");
    let shown = run(&format!("session get chat-42 --json --url {}", url(2)));
    assert_eq!(shown.json()["last_seq"], Value::from(1), "{shown:?}");
    // One that is killed is started again, at its address and with what it had.
    let killed = ready["nodes"][2]["pid"].as_i64().unwrap();
    let killed = rustix::process::Pid::from_raw(killed.try_into().unwrap()).unwrap();
    kill_process(killed, Signal::KILL).unwrap();
    let restarted = &said()["restarted"];
    assert_eq!(restarted["name"], "node-3", "{restarted}");
    assert_ne!(restarted["pid"], ready["nodes"][2]["pid"], "{restarted}");
    let shown = run(&format!("session get chat-42 --json --url {}", url(2)));
    assert_eq!(shown.json()["last_seq"], Value::from(1), "{shown:?}");
    let pid = rustix::process::Pid::from_child(&dev);
    kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(dev.wait().unwrap().code(), Some(0));
}

/// A hash of the first `count` events of a session as a node shows them.
async fn shown(client: &Client, session: &str, count: usize) -> u64 {
    let (mut cursor, mut seen) = (Seq(0), 0);
    let mut hash = std::hash::DefaultHasher::new();
    while seen < count {
        let page = client.events(session, cursor, 1_000, Duration::ZERO).await.unwrap();
        assert!(!page.events.is_empty(), "nothing behind {cursor}");
        for event in &page.events {
            format!("{event:?}").hash(&mut hash);
        }
        seen += page.events.len();
        cursor = page.next_cursor;
    }
    assert_eq!(seen, count);
    hash.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_away_for_long_answers_alone_what_it_missed() {
    /// More than a leader keeps of one group for a follower that is away.
    const LARGE: usize = 42;
    let mut cluster = Cluster::start(true);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("large.jsonl");
    let mut lines = "{\"session\":{\"id\":\"large\"}}\n".to_owned();
    let text = "x".repeat(900_000);
    for n in 0..LARGE {
        lines += &format!(
            "{{\"event\":{{\"type\":\"message\",\"payload\":{{\"n\":{n},\"text\":\"{text}\"}},\"actor\":\"user:u\"}}}}\n"
        );
    }
    std::fs::write(&file, lines).unwrap();
    cluster.kill(2);
    let url = cluster.node(0).url.clone();
    let imported = ran(command("session import --json --url").arg(&url).arg(&file));
    assert_eq!(imported.code, 0, "{imported:?}");
    // Whoever leads now kept less of it in memory than it had before.
    cluster.kill(1);
    cluster.restart(1);
    cluster.restart(2);
    let first = shown(&Client::new(&cluster.node(0).url).unwrap(), "large", LARGE).await;
    cluster.kill(0);
    cluster.kill(1);
    let alone = Client::new(&cluster.node(2).url).unwrap();
    assert_eq!(shown(&alone, "large", LARGE).await, first);
    // And from its own disk, by its own log.
    cluster.kill(2);
    cluster.restart_together(&[2, 0]);
    let back = Client::new(&cluster.node(2).url).unwrap();
    assert_eq!(shown(&back, "large", LARGE).await, first);
}
