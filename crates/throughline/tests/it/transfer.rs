//! Import and export of files.

use std::path::Path;

use crate::tl::{Node, Ran, command, ran};

fn import(node: &Node, file: &Path) -> Ran {
    ran(command("session import --json --url").arg(&node.url).arg(file))
}

fn export(node: &Node, file: &Path, words: &str) {
    let ran = ran(command(&format!("session export {words} --url {} --out", node.url)).arg(file));
    assert_eq!(ran.code, 0, "{ran:?}");
}

/// Sessions with one to 2,500 events, so that one takes several batches.
fn sessions() -> String {
    let mut text = String::new();
    for (id, events) in [("one", 1), ("täglich/2", 40), ("none", 0), ("long", 2_500)] {
        text += &format!(
            "{{\"session\":{{\"id\":\"{id}\",\"title\":\"T {id}\",\"metadata\":{{\"n\":{events}}}}}}}\n"
        );
        for n in 0..events {
            text += &format!(
                "{{\"event\":{{\"type\":\"message\",\"payload\":{{\"text\":\"ü {n}\"}},\"actor\":\"user:u\",\"event_time\":\"2018-05-02T19:38:15Z\"}}}}\n"
            );
        }
    }
    text
}

fn by_session(text: &str) -> Vec<Vec<&str>> {
    let mut parts: Vec<Vec<&str>> = Vec::new();
    for line in text.lines() {
        if line.starts_with("{\"session\"") {
            parts.push(Vec::new());
        }
        parts.last_mut().expect("a session first").push(line);
    }
    parts.sort();
    parts
}

#[test]
fn a_second_import_adds_nothing_and_a_lean_export_is_the_file_again() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(&folder.path().join("data"));
    let file = folder.path().join("in.jsonl");
    std::fs::write(&file, sessions()).unwrap();
    let first = import(&node, &file);
    assert_eq!(first.code, 0, "{first:?}");
    assert_eq!(
        first.json(),
        serde_json::json!({"sessions": 4, "events": 2541, "appended": 2541, "already_there": 0})
    );
    let second = import(&node, &file).json();
    assert_eq!((&second["appended"], &second["already_there"]), (&0.into(), &2541.into()));

    let lean = folder.path().join("lean.jsonl");
    export(&node, &lean, "--all --lean");
    let lean = std::fs::read_to_string(&lean).unwrap();
    assert_eq!(by_session(&lean), by_session(&sessions()));

    // A full export is the same bytes each time, and can be imported elsewhere.
    let (full, again) = (folder.path().join("full.jsonl"), folder.path().join("again.jsonl"));
    export(&node, &full, "--all");
    export(&node, &again, "--all");
    assert_eq!(std::fs::read(&full).unwrap(), std::fs::read(&again).unwrap());
    let other = Node::start(&folder.path().join("other"));
    assert_eq!(import(&other, &full).json()["appended"], 2541);
    assert_eq!(import(&other, &full).json()["appended"], 0);
    export(&other, &again, "--all --lean");
    assert_eq!(std::fs::read_to_string(&again).unwrap(), lean);
}

#[test]
fn an_import_goes_on_behind_what_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(&folder.path().join("data"));
    let (whole, part) = (folder.path().join("whole.jsonl"), folder.path().join("part.jsonl"));
    let text = sessions();
    std::fs::write(&whole, &text).unwrap();
    let cut: Vec<&str> = text.lines().take(1_600).collect();
    std::fs::write(&part, cut.join("\n")).unwrap();
    let first = import(&node, &part).json();
    assert_eq!(first["appended"], first["events"]);
    // Somebody else's event in between changes nothing about the import's own order.
    node.json("session append long --text between");
    let rest = import(&node, &whole);
    assert_eq!(rest.code, 0, "{rest:?}");
    assert_eq!(rest.json()["already_there"], first["appended"]);
    assert_eq!(
        rest.json()["appended"].as_u64().unwrap() + first["appended"].as_u64().unwrap(),
        2541
    );
    assert_eq!(node.json("session get long")["last_seq"], 2501);
}

#[test]
fn a_difference_names_session_seq_and_member() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(&folder.path().join("data"));
    let file = folder.path().join("in.jsonl");
    std::fs::write(&file, sessions()).unwrap();
    import(&node, &file);
    let changed = sessions().replacen("\"ü 7\"", "\"something else\"", 1);
    std::fs::write(&file, changed).unwrap();
    let ran = import(&node, &file);
    assert_eq!(ran.code, 4, "{ran:?}");
    let error: serde_json::Value = serde_json::from_str(ran.stderr.trim()).unwrap();
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("täglich/2") && message.contains("seq 8"), "{message}");
    assert!(message.contains("payload"), "{message}");
    assert_eq!(ran.json()["appended"], 0);
}

#[test]
fn a_line_that_is_none_is_named_and_what_stood_before_it_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(&folder.path().join("data"));
    let file = folder.path().join("in.jsonl");
    std::fs::write(&file, "{\"session\":{\"id\":\"a\"}}\n{\"event\":7}\n").unwrap();
    let bad = import(&node, &file);
    assert!(bad.code == 1 && bad.stderr.contains("line 2"), "{bad:?}");
    let missing = import(&node, Path::new("/no/such/file"));
    assert!(missing.code == 1 && missing.stderr.contains("/no/such/file"), "{missing:?}");
}

#[test]
fn chosen_sessions_are_exported_to_stdout() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(&folder.path().join("data"));
    let file = folder.path().join("in.jsonl");
    std::fs::write(&file, sessions()).unwrap();
    import(&node, &file);
    let ran = node.tl("session export one none");
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{ran:?}");
    assert!(lines[1].contains("\"seq\":1") && lines[1].contains("\"inserted_at\""), "{}", lines[1]);
    assert_eq!(node.tl("session export").code, 2);
}
