//! What works, or is refused in plain words, without a node.

use crate::tl::{Node, command, ran, run};

#[test]
fn without_a_node_the_next_step_is_named_and_the_exit_code_tells() {
    // Nothing listens on port 1.
    let ran = run("session list --url http://127.0.0.1:1");
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.stderr.contains("cannot connect to http://127.0.0.1:1"), "{ran:?}");
    assert!(ran.stderr.contains("tl dev"), "{ran:?}");
    let ran = run("session get x --url http://127.0.0.1:1 --json");
    let error: serde_json::Value = serde_json::from_str(ran.stderr.trim()).unwrap();
    assert_eq!((error["error"].as_str(), ran.code), (Some("unreachable"), 3));
}

#[test]
fn an_address_that_is_none_is_a_usage_error() {
    let ran = run("session list --url localhost:4000");
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.stderr.contains("http://127.0.0.1:4000"), "{ran:?}");
    assert_eq!(run("session create --metadata [1]").code, 2);
    assert_eq!(run("no-such-word").code, 2);
}

#[test]
fn settings_are_printed_as_a_file_that_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let printed = ran(command("settings print").env("TL_ENGINE__NODE_NAME", "north"));
    assert_eq!(printed.code, 0, "{printed:?}");
    assert!(printed.stdout.contains("node_name = \"north\""), "{printed:?}");
    let file = folder.path().join("tl.toml");
    std::fs::write(&file, &printed.stdout).unwrap();
    let again = ran(command("settings print --config").arg(&file));
    assert_eq!(again.stdout, printed.stdout);
}

#[test]
fn settings_on_the_page_about_clusters_are_settings() {
    let page = include_str!("../../../../docs/ops/cluster.md");
    let blocks: Vec<&str> = page.split("```toml\n").skip(1).collect();
    assert!(!blocks.is_empty(), "the page shows settings");
    let folder = tempfile::tempdir().unwrap();
    for block in blocks {
        let (text, _) = block.split_once("```").unwrap();
        let file = folder.path().join("tl.toml");
        std::fs::write(&file, text).unwrap();
        let printed = ran(command("settings print --config").arg(&file));
        assert_eq!(printed.code, 0, "{text}{printed:?}");
        assert!(printed.stdout.contains("node-3=10.0.0.3:4100"), "{printed:?}");
    }
}

#[test]
fn a_misspelt_setting_is_refused_with_the_nearest_name() {
    let ran = ran(command("settings print").env("TL_HTTP__LISSTEN", "127.0.0.1:1"));
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.stderr.contains("did you mean `listen`?"), "{ran:?}");
    let ran = run("serve --config /no/such/file.toml");
    assert_eq!(ran.code, 2, "{ran:?}");
}

#[test]
fn an_address_that_is_not_loopback_needs_a_word_of_consent() {
    let folder = tempfile::tempdir().unwrap();
    let ran = ran(command("serve --listen 0.0.0.0:0 --data").arg(folder.path().join("d")));
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.stderr.contains("open_to_network"), "{ran:?}");
}

#[test]
fn completions_exist_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = run(&format!("completions {shell}"));
        assert!(ran.code == 0 && ran.stdout.contains("session"), "{shell}");
    }
}

#[test]
fn the_doctor_looks_at_everything() {
    let folder = tempfile::tempdir().unwrap();
    let ran = ran(command("doctor --json --listen 127.0.0.1:0 --data").arg(folder.path()));
    let checks: Vec<String> = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|finding| finding["check"].as_str().unwrap().to_owned())
        .collect();
    for check in ["clock", "clock reading", "open files", "port", "data directory", "free space"] {
        assert!(checks.iter().any(|found| found == check), "{check} in {checks:?}");
    }
    assert_eq!(checks.last().map(String::as_str), Some("verdict"), "it comes last");
    assert!(ran.code == 0 || ran.code == 4, "{ran:?}");
}

#[test]
fn a_second_node_on_the_same_address_or_directory_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(&folder.path().join("a"));
    let address = node.ready["address"].as_str().unwrap().to_owned();
    let other = folder.path().join("b");
    let same_address = ran(command("serve --listen").arg(&address).arg("--data").arg(&other));
    assert_eq!(same_address.code, 1, "{same_address:?}");
    assert!(same_address.stderr.contains("another program listens on"), "{same_address:?}");
    let same_data = ran(command("serve --listen 127.0.0.1:0 --data").arg(folder.path().join("a")));
    assert_eq!(same_data.code, 1, "{same_data:?}");
    assert!(same_data.stderr.contains("in use by another process"), "{same_data:?}");
    assert!(same_data.stderr.contains("--data"), "{same_data:?}");
    assert_eq!(node.stop(), 0);
}
