//! The tour, as its users run it.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use crate::tl::{command, ran, run};

#[test]
fn the_demo_verifies_itself_and_exits() {
    // An empty folder: no fetched data set is near.
    let folder = tempfile::tempdir().unwrap();
    let ran = ran(command("demo --exit --json").current_dir(folder.path()));
    assert_eq!(ran.code, 0, "{ran:?}");
    let result = ran.json();
    assert_eq!(result["verified"], true);
    assert_eq!((&result["lost"], &result["doubled"]), (&0.into(), &0.into()));
    assert_eq!(result["events"], result["present"]);
    assert_eq!(result["events"], result["tail_events"]);
    assert!(result["retries_deduped"].as_u64().unwrap() > 0, "{result}");
}

#[test]
fn the_demo_serves_on_until_it_is_interrupted_and_leaves_nothing_behind() {
    let (folder, temporary) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut demo = command("demo --json")
        .current_dir(folder.path())
        .env("TMPDIR", temporary.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let result: serde_json::Value =
        serde_json::from_str(&lines.next().expect("a result").unwrap()).unwrap();
    let list = format!("session list --json --url {}", result["url"].as_str().unwrap());
    let listed = run(&list);
    assert_eq!(listed.stdout.lines().count() as u64, result["sessions"], "{listed:?}");
    assert!(std::fs::read_dir(temporary.path()).unwrap().next().is_some());

    kill_process(Pid::from_child(&demo), Signal::INT).unwrap();
    assert_eq!(demo.wait().unwrap().code(), Some(0));
    assert!(std::fs::read_dir(temporary.path()).unwrap().next().is_none());
    // Somebody else may have been given its port meanwhile.
    assert_ne!(run(&list).stdout, listed.stdout, "its node has ended too");
}

#[test]
fn a_data_set_is_replayed_up_to_the_number_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("chats.jsonl");
    let mut text = String::new();
    for id in ["a", "b", "c"] {
        text += &format!("{{\"session\":{{\"id\":\"{id}\"}}}}\n");
        text += &"{\"event\":{\"type\":\"m\",\"payload\":{\"text\":\"x\"}}}\n".repeat(30);
    }
    std::fs::write(&file, text).unwrap();
    let ran = ran(command("demo --exit --json --conversations 2 --dataset").arg(&file));
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!((&ran.json()["sessions"], &ran.json()["events"]), (&2.into(), &60.into()));
}
