//! What a power loss would show and a kill does not: which system calls the store makes, in
//! which order. `kill -9` keeps the page cache, so only the order of syncs tells whether what a
//! pointer names was durable before it.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::child::{Child, last_flushed};
use crate::workload;

const SIGKILL: i32 = 9;
const CALLS: &str = "trace=fsync,fdatasync,rename,renameat,renameat2,openat,unlink,write";

/// Runs rounds of the workload in a traced child.
fn traced(dir: &Path, rounds: u64, more: &[&str]) -> (Output, String) {
    let log = tempfile::NamedTempFile::new().unwrap();
    let log_path = log.path().to_str().unwrap();
    let mut under: Vec<String> =
        ["strace", "-f", "-y", "-s", "64", "-e", CALLS].map(str::to_owned).to_vec();
    under.extend(more.iter().map(|word| (*word).to_owned()));
    under.extend(["-o".to_owned(), log_path.to_owned()]);
    let output = Child { dir, rounds, kill_at: None, under }.run();
    let trace = std::fs::read_to_string(log_path).unwrap();
    assert!(
        trace.contains("openat("),
        "strace saw nothing: is it installed, and is ptrace permitted here? It said: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    (output, trace)
}

/// One line of a trace, as far as it matters here.
#[derive(Debug, PartialEq)]
enum Call {
    Created(PathBuf),
    Synced(PathBuf),
    Renamed { to: PathBuf },
    Removed(PathBuf),
    Flushed,
}

fn calls(trace: &str) -> Vec<Call> {
    trace.lines().filter_map(call).collect()
}

fn call(line: &str) -> Option<Call> {
    assert!(!line.contains("unfinished ..."), "two threads at once, not expected here: {line}");
    let quoted = |nth: usize| line.split('"').nth(nth * 2 + 1).map(PathBuf::from);
    let (name, arguments) = line.split_once(' ')?.1.trim().split_once('(')?;
    let is_done = !line.contains("= -1");
    match name {
        "openat" if is_done && arguments.contains("O_CREAT") => Some(Call::Created(quoted(0)?)),
        "fsync" | "fdatasync" if is_done => {
            let (_, path) = arguments.split_once('<')?;
            Some(Call::Synced(PathBuf::from(path.split_once('>')?.0)))
        }
        "rename" | "renameat" | "renameat2" if is_done => Some(Call::Renamed { to: quoted(1)? }),
        "unlink" if is_done => Some(Call::Removed(quoted(0)?)),
        "write" if arguments.contains("\"flushed ") => Some(Call::Flushed),
        _ => None,
    }
}

/// What a file still lacks before a pointer may name it.
#[derive(Debug, Default)]
struct Lacks {
    contents: bool,
    name: bool,
}

/// Checks the whole order; returns how often the pointer moved and how many blob files were
/// registered by it.
fn check_order(dir: &Path, calls: &[Call]) -> (usize, usize) {
    let current = dir.join("current");
    let mut files: BTreeMap<PathBuf, Lacks> = BTreeMap::new();
    let mut is_pointer_durable = true;
    let (mut moves, mut blobs) = (0, 0);
    for call in calls {
        match call {
            Call::Created(path) if path.starts_with(dir) => {
                files.insert(path.clone(), Lacks { contents: true, name: true });
            }
            Call::Created(_) => {}
            Call::Synced(path) => {
                if let Some(lacks) = files.get_mut(path) {
                    lacks.contents = false;
                }
                for (file, lacks) in &mut files {
                    lacks.name &= file.parent() != Some(path);
                }
                is_pointer_durable |= path == dir;
            }
            Call::Removed(path) => {
                files.remove(path);
            }
            Call::Renamed { to } if *to == current => {
                moves += 1;
                is_pointer_durable = false;
                blobs += files.keys().filter(|file| file.starts_with(dir.join("blobs"))).count();
                for (file, lacks) in std::mem::take(&mut files) {
                    assert!(!lacks.contents, "{} is named before it is synced", file.display());
                    let is_temporary = file.file_name().unwrap().as_encoded_bytes()[0] == b'.';
                    let is_findable = !lacks.name || is_temporary;
                    assert!(is_findable, "{} may be lost: its directory", file.display());
                }
            }
            Call::Renamed { .. } => {}
            Call::Flushed => {
                assert!(is_pointer_durable, "acknowledged before the pointer was durable");
            }
        }
    }
    (moves, blobs)
}

#[test]
fn a_flush_syncs_all_that_the_pointer_names_before_it_moves() {
    let dir = tempfile::tempdir().unwrap();
    // The store is made, and two rounds are behind it, so that the third is one flush alone.
    traced(dir.path(), 2, &[]);
    let (output, trace) = traced(dir.path(), 1, &[]);
    assert_eq!(last_flushed(&output), 3, "{output:?}");
    let calls = calls(&trace);
    let (moves, blobs) = check_order(dir.path(), &calls);
    assert_eq!(moves, 1);
    assert!(blobs > 0, "the flush made no blob file");
    let blobs_dir = dir.path().join("blobs");
    let synced = calls.iter().rposition(|call| *call == Call::Synced(blobs_dir.clone()));
    let moved = calls.iter().position(|call| matches!(call, Call::Renamed { .. }));
    assert!(synced < moved, "blobs/ is synced before the pointer moves");
}

#[test]
fn the_name_of_a_new_store_is_synced_before_anything_is_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let (_, trace) = traced(&dir.path().join("store"), 1, &[]);
    let calls = calls(&trace);
    let synced = calls.iter().position(|call| *call == Call::Synced(dir.path().to_path_buf()));
    let flushed = calls.iter().position(|call| *call == Call::Flushed);
    assert!(synced.is_some() && synced < flushed, "{synced:?} {flushed:?}");
}

#[test]
fn compactions_that_move_blobs_sync_them_before_the_pointer_moves() {
    let dir = tempfile::tempdir().unwrap();
    let (output, trace) = traced(dir.path(), 12, &[]);
    assert_eq!(last_flushed(&output), 12, "{output:?}");
    let calls = calls(&trace);
    let (moves, _) = check_order(dir.path(), &calls);
    assert!(moves > 12, "no compaction happened");
    let blobs_dir = dir.path().join("blobs");
    // A compaction that moves blobs makes files in both directories before its pointer moves
    // and is not followed by an acknowledgement.
    let pieces = calls.split(|call| matches!(call, Call::Renamed { .. })).collect::<Vec<_>>();
    let moved_blobs = pieces.windows(2).any(|pieces| {
        let makes_blobs = pieces[0]
            .iter()
            .any(|call| matches!(call, Call::Created(path) if path.starts_with(&blobs_dir)));
        makes_blobs && !pieces[1].contains(&Call::Flushed)
    });
    assert!(moved_blobs, "no compaction moved blobs: the workload is too tame");
    workload::check(dir.path());
}

#[test]
fn killed_at_any_sync_rename_or_removal_the_store_falls_back_to_a_flush() {
    // The rounds behind these have all of it: flushes, a compaction that moves blobs, removals.
    const BEFORE: u64 = 3;
    const ROUNDS: u64 = 5;
    let base = tempfile::tempdir().unwrap();
    let output = Child { dir: base.path(), rounds: BEFORE, kill_at: None, under: Vec::new() }.run();
    assert_eq!(last_flushed(&output), BEFORE, "{output:?}");
    for nth in 1.. {
        let dir = tempfile::tempdir().unwrap();
        copy(base.path(), dir.path());
        let inject = format!("inject=fsync,rename,unlink:signal=SIGKILL:when={nth}");
        let (output, trace) = traced(dir.path(), ROUNDS, &["-e", &inject]);
        let acknowledged = last_flushed(&output).max(BEFORE);
        let found = workload::check(dir.path());
        assert!(
            found == acknowledged || found == acknowledged + 1,
            "call {nth}: round {acknowledged} was acknowledged, found {found}"
        );
        if output.status.signal() != Some(SIGKILL) {
            assert_eq!(acknowledged, BEFORE + ROUNDS);
            let (moves, blobs) = check_order(dir.path(), &calls(&trace));
            assert!(moves as u64 > ROUNDS && blobs as u64 > ROUNDS, "{moves} moves, {blobs} blobs");
            break;
        }
    }
}

#[test]
fn a_disk_that_has_no_room_once_costs_nothing_or_stops_the_store() {
    const BEFORE: u64 = 3;
    const ROUNDS: u64 = 3;
    let base = tempfile::tempdir().unwrap();
    let output = Child { dir: base.path(), rounds: BEFORE, kill_at: None, under: Vec::new() }.run();
    assert_eq!(last_flushed(&output), BEFORE, "{output:?}");
    let (mut tried_again, mut stopped) = (0, 0);
    for nth in 1.. {
        let dir = tempfile::tempdir().unwrap();
        copy(base.path(), dir.path());
        let inject = format!("inject=fsync,rename:error=ENOSPC:when={nth}");
        let (output, trace) = traced(dir.path(), ROUNDS, &["-e", &inject]);
        let acknowledged = last_flushed(&output).max(BEFORE);
        let found = workload::check(dir.path());
        if output.status.success() {
            assert_eq!((acknowledged, found), (BEFORE + ROUNDS, BEFORE + ROUNDS), "call {nth}");
            if !trace.contains("INJECTED") {
                break;
            }
            assert!(String::from_utf8_lossy(&output.stdout).contains("no room"), "call {nth}");
            tried_again += 1;
        } else {
            // The pointer may have moved: only a start can tell.
            assert!(
                found == acknowledged || found == acknowledged + 1,
                "call {nth}: round {acknowledged} was acknowledged, found {found}"
            );
            stopped += 1;
        }
    }
    assert!(tried_again > 10 && stopped > 5, "{tried_again}, {stopped}");
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
