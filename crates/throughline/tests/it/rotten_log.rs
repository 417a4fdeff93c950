//! Bits that turn over in the log of a member that is down.

use std::path::Path;
use std::time::Duration;

use tl_client::Client;
use tl_client::verify::{Via, check_via};

use crate::members::Cluster;
use crate::ops::{Load, advance, settled};
use crate::rows::watch::{Seen, look};

/// Acknowledged events in each part of the test.
const EVENTS_PER_PART: u64 = 60;
/// Between two looks at what is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Groups of the cluster: enough that most are not concerned by one record.
const GROUPS: u16 = 16;

/// Where a segment's records begin, and how long a record's header is.
const HEAD_BYTES: usize = 4096;
const HEADER_BYTES: usize = 56;
/// The kind of an entry.
const ENTRY: u8 = 1;

/// Which part of an entry's record is hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Its header still says whose it was.
    Data,
    /// Nobody knows.
    Header,
}

/// Turns a bit over in an entry near the end of the last segment that has some.
fn flip(data: &Path, part: Part) {
    let number = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().unwrap());
    let mut last = None;
    for file in std::fs::read_dir(data.join("log")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "wal") {
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        let life = number(&bytes[12..20]);
        let (mut at, mut entries) = (HEAD_BYTES, Vec::new());
        while let Some(header) = bytes.get(at..at + HEADER_BYTES) {
            if number(&header[16..24]) != life {
                break;
            }
            let len = u32::from_be_bytes(header[8..12].try_into().unwrap()) as usize;
            if header[12] == ENTRY && len > 0 {
                entries.push(at);
            }
            at += HEADER_BYTES + len.next_multiple_of(8);
        }
        if life > 0 && !entries.is_empty() {
            last = last.max(Some((life, path, entries)));
        }
    }
    let (_, path, entries) = last.expect("entries were written");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = entries[entries.len() * 9 / 10];
    match part {
        Part::Data => bytes[at + HEADER_BYTES] ^= 1,
        Part::Header => bytes[at + 12] ^= 1,
    }
    std::fs::write(&path, bytes).unwrap();
}

/// Looks at a member until something is so.
async fn until(cluster: &Cluster, node: usize, is_so: impl Fn(&Seen) -> bool) -> Seen {
    loop {
        if let Some(seen) = look(cluster.address(node)).filter(|seen| is_so(seen)) {
            return seen;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_log_is_damaged_starts_and_is_mended_by_its_peers() {
    let mut cluster = Cluster::of(GROUPS, true);
    let mut loads = Vec::new();
    for node in 0..2 {
        loads.push(Load::start(&cluster.url(node), node as u64 + 1, 2, 2).await);
    }
    advance(&loads, EVENTS_PER_PART).await;
    for part in [Part::Data, Part::Header] {
        cluster.kill(2);
        flip(&cluster.data(2), part);
        cluster.restart(2);
        // What is written meanwhile is acknowledged by the other two.
        advance(&loads, EVENTS_PER_PART).await;
        // A group whose rows were given anew before may have all that was hit in these.
        let concerned = match part {
            Part::Data => 1,
            Part::Header => u64::from(GROUPS) - 1,
        };
        let mended = until(&cluster, 2, |seen| {
            seen.of("groups_stopped") == 0 && seen.of("snapshots_taken_total") >= concerned
        });
        let seen = mended.await;
        assert!(seen.of("log_damages_found_total") >= 1, "{part:?}: {seen:?}");
        let is_alone = part == Part::Header || seen.of("snapshots_taken_total") == 1;
        assert!(is_alone, "no other group: {seen:?}");
        assert!(cluster.log(2).contains("the log is damaged"), "{part:?}: {}", cluster.log(2));
        // The damage is still there and doubts nobody twice.
        cluster.kill(2);
        cluster.restart(2);
        cluster.ops(2, "wait-ready node-3 --timeout-ms 180000");
        let again = until(&cluster, 2, |seen| seen.of("groups_stopped") == 0).await;
        assert!(again.of("log_damages_found_total") >= 1, "{part:?}: {again:?}");
        assert_eq!(again.of("snapshots_taken_total"), 0, "{part:?}: {again:?}");
    }
    // It votes and acknowledges again: with another one away it is half of every majority.
    cluster.kill(0);
    advance(&loads[1..], EVENTS_PER_PART).await;
    cluster.restart(0);
    cluster.ops(2, "wait-ready node-1 --timeout-ms 180000");
    let ledger = settled(loads).await;
    for node in 0..3 {
        let client = Client::new(&cluster.url(node)).unwrap();
        let report = check_via(&client, &ledger, Via::Pages).await.unwrap();
        assert!(report.is_clean(), "node {node}: {report}");
    }
}
