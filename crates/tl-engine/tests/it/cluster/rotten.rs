//! A member that starts with a damaged log, while nobody can mend it.

use super::*;

/// Where a segment's records begin, and how long a record's header is.
const HEAD_BYTES: usize = 4096;
const HEADER_BYTES: usize = 56;
/// Of the header, where the length of the data is, the kind, the position in the log, and the life.
const KIND_AT: usize = 12;
/// The kind of an entry.
const ENTRY: u8 = 1;

/// Turns a bit over in the header of an entry, so that nobody knows whose it was.
fn rot(data: &Path) {
    for file in std::fs::read_dir(data.join("log")).unwrap() {
        let path = file.unwrap().path();
        let is_segment = path.extension().is_some_and(|extension| extension == "wal");
        let mut bytes = if is_segment { std::fs::read(&path).unwrap() } else { Vec::new() };
        let mut at = HEAD_BYTES;
        while let Some(header) = bytes.get(at..at + HEADER_BYTES).filter(|it| it[KIND_AT] > 0) {
            let len = u32::from_be_bytes(header[8..12].try_into().unwrap()) as usize;
            if header[KIND_AT] == ENTRY && len > 0 {
                bytes[at + KIND_AT] ^= 1;
                return std::fs::write(&path, bytes).unwrap();
            }
            at += HEADER_BYTES + len.next_multiple_of(8);
        }
    }
    panic!("no segment holds an entry");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_leave_out_nothing_while_a_members_log_is_doubted() {
    let mut cluster = Cluster::of(&NAMES, &["router-1"], 8).await;
    let all: Vec<String> = (0..24).map(|number| format!("s-{number:02}")).collect();
    for name in &all {
        create(&cluster.service(0), name).await;
    }
    cluster.stop(2).await;
    rot(&member_dir(cluster.dir.path(), NAMES[2]));
    // The doubt lasts until this one answers.
    cluster.stop(1).await;
    cluster.open(2);
    let (doubted, router) = (cluster.service(2), cluster.service(3));
    for service in [&doubted, &router] {
        match listed(service, "").await {
            Ok(given) => assert_eq!(given, all, "of the first one, as long as it leads"),
            Err(refused) => assert_eq!(refused.code, ErrorCode::RaftUnavailable, "{refused}"),
        }
    }
    let refused = listed(&doubted, "consistent=true").await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::RaftUnavailable, "there is no majority");
    cluster.stop(0).await;
    for service in [&doubted, &router] {
        let refused = listed(service, "").await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::RaftUnavailable, "nobody else has the rows");
    }
    for node in 0..2 {
        cluster.open(node);
    }
    for node in 0..3 {
        cluster.engines[node].as_ref().unwrap().wait_ready().await.expect("it is mended");
        assert_eq!(listed(&cluster.service(node), "").await.unwrap(), all, "node {node}");
    }
    assert!(metric(&doubted, "log_damages_found_total") >= 1);
    drop((doubted, router));
    cluster.stop_all().await;
}
