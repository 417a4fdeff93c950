//! The session words against one node.

use crate::tl::{Node, command, ran, run_with_input};

#[test]
fn create_append_tail_and_the_rest_of_a_session_s_life() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(&folder.path().join("data"));
    let row = node.json("session create chat-42 --title First --metadata {\"team\":\"blue\"}");
    assert_eq!((row["id"].as_str(), row["last_seq"].as_u64()), (Some("chat-42"), Some(0)));
    assert_eq!(node.tl("session create chat-42").code, 1);
    let made = node.json("session create");
    assert!(made["id"].as_str().unwrap().starts_with("ses_"), "{made}");

    let words = "session append chat-42 --text hello --actor user:ann";
    assert_eq!(node.json(words)["seq"], 1);
    let again = "session append chat-42 --text two --producer p --producer-seq 1";
    assert_eq!((&node.json(again)["seq"], &node.json(again)["deduped"]), (&2.into(), &true.into()));
    let lines = "{\"type\":\"a\",\"payload\":{}}\n{\"type\":\"b\",\"payload\":{\"x\":1}}\n";
    let batch = run_with_input(
        &format!("session append chat-42 --lines - --expected-seq 2 --json --url {}", node.url),
        lines,
    );
    assert_eq!((&batch.json()["first_seq"], &batch.json()["last_seq"]), (&3.into(), &4.into()));
    let stale = node.tl("session append chat-42 --text x --expected-seq 2 --json");
    let error: serde_json::Value = serde_json::from_str(stale.stderr.trim()).unwrap();
    assert_eq!(error["error"], "expected_seq_conflict");
    assert_eq!(error["current_seq"], 4);

    for front in ["ws", "sse", "poll"] {
        let tail = node.tl(&format!("session tail chat-42 --no-follow --json --front {front}"));
        let seqs: Vec<u64> = tail
            .stdout
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["seq"].as_u64())
            .map(Option::unwrap)
            .collect();
        assert_eq!(seqs, [1, 2, 3, 4], "{front}");
    }
    let shown = node.tl("session tail chat-42 --last 4 --no-follow");
    assert!(shown.stdout.contains("user:ann: hello"), "{shown:?}");

    let row = node.json("session update chat-42 --no-title --metadata {\"more\":2}");
    assert_eq!(
        (&row["title"], &row["metadata"]["team"]),
        (&serde_json::Value::Null, &"blue".into())
    );
    assert_eq!(row["version"], 2);
    assert_eq!(node.tl("session update chat-42 --title x --expected-version 1").code, 1);

    assert_eq!(node.json("session archive chat-42")["archived"], true);
    let listed = node.tl("session list --json");
    assert!(!listed.stdout.contains("chat-42"), "{listed:?}");
    assert!(node.tl("session list --archived all").stdout.contains("chat-42"));
    assert_eq!(node.json("session unarchive chat-42")["archived"], false);

    assert_eq!(node.json("session close chat-42")["state"], "closed");
    let closed = node.tl("session append chat-42 --text late");
    assert!(closed.code == 1 && closed.stderr.contains("session_closed"), "{closed:?}");
    // A tail of a closed session ends by itself on every front.
    for front in ["ws", "sse", "poll"] {
        let tail = node.tl(&format!("session tail chat-42 --cursor 3 --json --front {front}"));
        assert_eq!((tail.code, tail.stdout.lines().count()), (0, 1), "{front}: {tail:?}");
    }
    assert_eq!(node.json("session delete chat-42")["deleted"], true);
    let gone = node.tl("session get chat-42");
    assert!(gone.code == 1 && gone.stderr.contains("session_tombstoned"), "{gone:?}");
    assert!(node.tl("session get nobody").stderr.contains("session_not_found"));
}

#[test]
fn a_payload_may_come_from_stdin_and_must_be_an_object() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(&folder.path().join("data"));
    node.json("session create s");
    let words = format!("session append s --type note --payload - --json --url {}", node.url);
    assert_eq!(run_with_input(&words, "{\"a\": [1, 2]}").json()["seq"], 1);
    assert_eq!(run_with_input(&words, "[1]").code, 2);
    let tail = node.tl("session tail s --no-follow --json");
    assert!(tail.stdout.contains(r#""payload":{"a":[1,2]}"#), "{tail:?}");
}

#[test]
fn lists_are_filtered_and_paged() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(&folder.path().join("data"));
    for id in ["a", "b", "c"] {
        let team = if id == "b" { "red" } else { "blue" };
        let metadata = format!("{{\"team\":\"{team}\"}}");
        let made =
            ran(command("session create").args([id, "--metadata", &metadata, "--url", &node.url]));
        assert_eq!(made.code, 0, "{made:?}");
    }
    let ids = |words: &str| -> Vec<String> {
        let listed = node.tl(&format!("session list --json {words}"));
        let rows = listed.stdout.lines().map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_str().unwrap().into()
        });
        rows.collect()
    };
    assert_eq!(ids(""), ["a", "b", "c"]);
    assert_eq!(ids("--limit 2"), ["a", "b"]);
    assert_eq!(ids("--cursor b"), ["c"]);
    assert_eq!(ids("--metadata team=blue"), ["a", "c"]);
}
