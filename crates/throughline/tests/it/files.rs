//! Stopping, starting again, and looking into the files.

use std::process::Stdio;

use crate::tl::{Node, command, ran};

#[test]
fn what_was_written_is_there_after_a_stop_and_the_files_are_sound() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let node = Node::start(&data);
    node.json("session create s --title kept");
    for n in 1..=20 {
        assert_eq!(node.json(&format!("session append s --text n{n}"))["seq"], n);
    }
    let busy = ran(command("debug run --data").arg(&data));
    assert!(busy.code == 1 && busy.stderr.contains("a node runs on"), "{busy:?}");
    assert_eq!(node.stop(), 0);

    let segments = ran(command("debug log --json --data").arg(&data));
    assert_eq!(segments.code, 0, "{segments:?}");
    let records = ran(command("debug log --records --json --data").arg(&data));
    let entries = records.stdout.lines().filter(|line| line.contains("\"kind\":\"Entry\"")).count();
    assert!(entries >= 21, "{entries}");
    let runs = ran(command("debug run --scrub --json --data").arg(&data));
    assert_eq!(runs.code, 0, "{runs:?}");
    assert_eq!(runs.json()["damage"], serde_json::json!([]));

    let node = Node::start(&data);
    assert_eq!(node.json("session get s")["last_seq"], 20);
    let tail = node.tl("session tail s --last 1 --no-follow --json");
    assert!(tail.stdout.contains("\"text\":\"n20\""), "{tail:?}");
}

#[test]
fn damage_in_the_log_is_found_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let node = Node::start(&data);
    node.json("session create s");
    for n in 1..=20 {
        node.json(&format!("session append s --text n{n}"));
    }
    node.kill();
    // One byte in the middle of a payload, with confirmed records behind it.
    let segment = data.join("log").join("segment-00000000.wal");
    let mut bytes = std::fs::read(&segment).unwrap();
    let at = bytes.windows(3).position(|window| window == b"n10").unwrap();
    bytes[at] ^= 0x20;
    std::fs::write(&segment, bytes).unwrap();

    let looked = ran(command("debug log --data").arg(&data));
    assert_eq!(looked.code, 4, "{looked:?}");
    let started = ran(command("serve --listen 127.0.0.1:0 --data").arg(&data));
    assert_eq!(started.code, 1, "{started:?}");
    assert!(started.stderr.contains("segment-00000000.wal"), "{started:?}");
    for way_on in ["tl debug log", "tl ops replace", "put back a copy"] {
        assert!(started.stderr.contains(way_on), "{started:?}");
    }
}

#[test]
fn a_log_that_was_deleted_is_missed_and_the_way_on_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let node = Node::start(&data);
    node.json("session create s");
    node.kill();
    let log = data.join("log");
    std::fs::rename(&log, folder.path().join("elsewhere")).unwrap();
    let started = ran(command("serve --listen 127.0.0.1:0 --data").arg(&data));
    assert_eq!(started.code, 1, "{started:?}");
    let named = format!("the log in {} is gone", log.display());
    assert!(started.stderr.contains(&named), "{started:?}");
    assert!(started.stderr.contains("move the whole data directory away"), "{started:?}");

    std::fs::remove_dir_all(&log).unwrap();
    std::fs::rename(folder.path().join("elsewhere"), &log).unwrap();
    let node = Node::start(&data);
    assert_eq!(node.json("session get s")["last_seq"], 0);
    node.kill();
    std::fs::remove_dir_all(&data).unwrap();
    let node = Node::start(&data);
    assert_eq!(node.tl("session get s").code, 1, "a new node");
}

#[test]
fn a_segment_that_is_being_prepared_is_no_damage() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let node = Node::start(&data);
    std::fs::write(data.join("log/segment-00000099.wal"), vec![0; 1 << 20]).unwrap();
    let looked = ran(command("debug log --data").arg(&data));
    assert_eq!(looked.code, 0, "{looked:?}");
    assert!(looked.stdout.contains("being prepared"), "{looked:?}");
    assert_eq!(node.stop(), 0);
}

#[test]
fn a_node_whose_log_nobody_reads_serves_on() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut child = command("serve --json --end-with-parent --listen 127.0.0.1:0 --data")
        .arg(&data)
        .env("TL_LOGS__LEVEL", "debug")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Every line that it logs from here on meets a pipe without a reader.
    drop(child.stderr.take());
    let node = Node::ready(child);
    node.json("session create s");
    assert_eq!(node.json("session append s --text n")["seq"], 1);
    assert_eq!(node.stop(), 0);
}
