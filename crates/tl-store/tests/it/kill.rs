//! Killed at every interesting moment, the store comes back as some completed flush left it.

use std::os::unix::process::ExitStatusExt;

use crate::child::{Child, last_flushed};
use crate::workload;

const SIGKILL: i32 = 9;
const ROUNDS: u64 = 12;

/// Kills a child at the point's first and some later pass, each time going on from what the
/// child before it left, and checks what is found.
fn check(point: &'static str) {
    check_passes(point, &[0, 1, 3]);
}

fn check_passes(point: &'static str, passes: &[u64]) {
    let dir = tempfile::tempdir().unwrap();
    for &passes in passes {
        let before = workload::check(dir.path());
        let output = Child {
            dir: dir.path(),
            rounds: ROUNDS,
            kill_at: Some((point, passes)),
            under: Vec::new(),
        }
        .run();
        assert_eq!(output.status.signal(), Some(SIGKILL), "{point} was not reached: {output:?}");
        let acknowledged = last_flushed(&output).max(before);
        let found = workload::check(dir.path());
        assert!(
            found == acknowledged || found == acknowledged + 1,
            "{point}: round {acknowledged} was acknowledged, found {found}"
        );
        if point == "flush-before-pointer-move" {
            assert_eq!(found, acknowledged, "nothing counts before the pointer moves");
        }
        if point == "flush-pointer-moved" {
            assert_eq!(found, acknowledged + 1, "what the pointer names is durable");
        }
    }
}

#[test]
fn killed_as_a_flush_begins() {
    check("flush-begin");
}

#[test]
fn killed_when_a_flush_has_written_its_rows() {
    check("flush-rows-written");
}

#[test]
fn killed_before_a_flush_moves_the_pointer() {
    check("flush-before-pointer-move");
}

#[test]
fn killed_right_after_a_flush_moved_the_pointer() {
    check("flush-pointer-moved");
}

#[test]
fn killed_as_a_flush_ends() {
    check("flush-end");
}

#[test]
fn killed_as_a_compaction_begins() {
    check("compaction-begin");
}

#[test]
fn killed_when_a_compaction_has_written_its_rows() {
    check("compaction-rows-written");
}

#[test]
fn killed_before_a_compaction_moves_the_pointer() {
    check("compaction-before-pointer-move");
}

#[test]
fn killed_as_a_compaction_ends() {
    check("compaction-end");
}

#[test]
fn killed_around_a_purge() {
    check_passes("purge-begin", &[0]);
    check_passes("purge-end", &[0]);
}
