//! A disk that is really full: a small file system in memory, filled to every byte count that
//! lets another step of a flush or compaction fail.
//!
//! It is mounted in a namespace of its own, so nothing of it is left when the child ends.

use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use rustix::fs::statvfs;
use tl_store::{GroupWrites, LsmStore, OrderedStore, StoreError, StoreOptions};
use tl_types::{Generation, GroupId, Index, ResourceNumber, RowKey, Seq, Term};

use crate::child::{files_in, files_of};

const DIR: &str = "TL_STORE_FULL_DISK_DIR";
const DISK_BYTES: u64 = 16 << 20;
const GROUP: GroupId = GroupId(1);
const GENERATION: Generation = Generation(1);
const EVENTS_PER_ROUND: u64 = 100;
const EVENT_BYTES: usize = 1_000;
/// Rounds, and so amounts of room left that are tried.
const ROUNDS: u64 = 40;

#[test]
fn a_full_disk_refuses_flush_and_compaction_and_takes_them_later() {
    let temp = tempfile::tempdir().unwrap();
    let script = format!("mount -t tmpfs -o size={DISK_BYTES} tmpfs \"$0\" && exec \"$@\"");
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "sh", "-c", &script]).arg(temp.path());
    command.arg(std::env::current_exe().unwrap());
    command.args(["--exact", "full_disk::does_as_its_environment_says", "--nocapture"]);
    let output = command.env(DIR, temp.path()).output().expect("unshare is installed");
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("all was tried"), "{output:?}");
}

fn number_of(round: u64) -> ResourceNumber {
    ResourceNumber(1 + round % 3)
}

fn write_round(store: &LsmStore, round: u64) {
    for n in 0..EVENTS_PER_ROUND {
        let index = Index(round * EVENTS_PER_ROUND + n + 1);
        let value = Bytes::from(vec![index.0 as u8; EVENT_BYTES]);
        let row = (RowKey::event(number_of(round), Seq(index.0)), Some(value));
        let (generation, term) = (GENERATION, Term(1));
        store.write(GroupWrites { group: GROUP, generation, index, term, rows: vec![row] });
    }
    assert!(store.rotate());
}

/// Every row of every round up to this one, as it was written.
fn check(store: &LsmStore, rounds: u64) {
    for index in 1..=rounds * EVENTS_PER_ROUND {
        let key = RowKey::event(number_of((index - 1) / EVENTS_PER_ROUND), Seq(index));
        let value = store.get(GROUP, GENERATION, &key).unwrap().unwrap_or_default();
        assert!(value.len() == EVENT_BYTES && value[0] == index as u8, "event {index}");
    }
}

/// Fills the disk until about so many bytes are left, does it, and takes the filling away.
fn with_room<T>(dir: &Path, bytes: u64, call: impl FnOnce() -> T) -> T {
    let stat = statvfs(dir).unwrap();
    let filling = dir.join("filling");
    let fill = (stat.f_bfree * stat.f_frsize).saturating_sub(bytes);
    std::fs::write(&filling, vec![1; fill as usize]).unwrap();
    let done = call();
    std::fs::remove_file(&filling).unwrap();
    done
}

/// Not a test of its own: the child's side of the test above.
#[test]
fn does_as_its_environment_says() {
    let Ok(disk) = std::env::var(DIR) else { return };
    let disk: &Path = disk.as_ref();
    let dir = disk.join("store");
    let options = || StoreOptions { blob_file_bytes: 256 * 1024, ..StoreOptions::default() };
    let store = LsmStore::open(&dir, options()).unwrap();
    let (mut full_flushes, mut full_compactions) = (0, 0);
    for round in 0..ROUNDS {
        write_round(&store, round);
        let before = (store.durable_applied(), files_in(&dir));
        let room = round * 4_096;
        match with_room(disk, room, || store.flush_one()) {
            Ok(flushed) => assert!(flushed),
            Err(error) => {
                assert!(matches!(error, StoreError::NoRoom { .. }), "{room} bytes: {error:?}");
                assert_eq!(before, (store.durable_applied(), files_in(&dir)), "{room} bytes");
                assert_eq!(files_in(&dir), files_of(&store));
                check(&store, round + 1);
                full_flushes += 1;
                assert!(store.flush_one().unwrap(), "there is room again");
            }
        }
        let compacted = with_room(disk, room, || {
            loop {
                match store.compact_step() {
                    Ok(true) => {}
                    other => break other,
                }
            }
        });
        if let Err(error) = compacted {
            assert!(matches!(error, StoreError::NoRoom { .. }), "{room} bytes: {error:?}");
            assert_eq!(files_in(&dir), files_of(&store));
            full_compactions += 1;
        }
        check(&store, round + 1);
    }
    while store.compact_step().unwrap() {}
    drop(store);
    let store = LsmStore::open(&dir, options()).unwrap();
    check(&store, ROUNDS);
    let report = store.scrub(&mut |_| ControlFlow::Continue(())).unwrap();
    assert!(report.complete && report.damage.is_empty(), "{report:?}");
    assert!(full_flushes > 10, "{full_flushes}");
    println!("all was tried: {full_flushes} full flushes, {full_compactions} full compactions");
}
