//! A member that starts with a damaged log, while nobody can mend it.

use tl_engine::ops::Unwritable;
use tl_types::GroupId;

use super::*;

/// Where a segment's records begin, and how long a record's header is.
const HEAD_BYTES: usize = 4096;
const HEADER_BYTES: usize = 56;
/// Where the header says what a record is, and whose.
const KIND_AT: usize = 12;
const GROUP_AT: usize = 14;
/// The kind of an entry, and of a term with a vote.
const ENTRY: u8 = 1;
const STATE: u8 = 2;

/// Turns a bit over in the header of an entry, so that nobody knows whose it was; or, where a group is
/// named, in a term and vote of that group.
fn rot(data: &Path, group: Option<GroupId>) {
    for file in std::fs::read_dir(data.join("log")).unwrap() {
        let path = file.unwrap().path();
        let is_segment = path.extension().is_some_and(|extension| extension == "wal");
        let mut bytes = if is_segment { std::fs::read(&path).unwrap() } else { Vec::new() };
        let mut at = HEAD_BYTES;
        while let Some(header) = bytes.get(at..at + HEADER_BYTES).filter(|it| it[KIND_AT] > 0) {
            let len = u32::from_be_bytes(header[8..12].try_into().unwrap()) as usize;
            let whose = GroupId(u16::from_be_bytes([header[GROUP_AT], header[GROUP_AT + 1]]));
            let hit = match group {
                None if header[KIND_AT] == ENTRY => Some(at + KIND_AT),
                Some(group) if header[KIND_AT] == STATE && whose == group => {
                    Some(at + HEADER_BYTES)
                }
                None | Some(_) => None,
            };
            if let Some(hit) = hit.filter(|_| len > 0) {
                bytes[hit] ^= 1;
                return std::fs::write(&path, bytes).unwrap();
            }
            at += HEADER_BYTES + len.next_multiple_of(8);
        }
    }
    panic!("no segment holds such a record");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_leave_out_nothing_while_a_members_log_is_doubted() {
    let mut cluster = Cluster::of(&NAMES, &["router-1"], 8).await;
    let all: Vec<String> = (0..24).map(|number| format!("s-{number:02}")).collect();
    for name in &all {
        create(&cluster.service(0), name).await;
    }
    cluster.stop(2).await;
    rot(&member_dir(cluster.dir.path(), NAMES[2]), None);
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_is_damaged_elsewhere_keeps_the_last_sound_members_life() {
    const HURT: GroupId = GroupId(3);
    let mut cluster = Cluster::start().await;
    create(&cluster.service(0), "chat").await;
    cluster.stop(2).await;
    rot(&member_dir(cluster.dir.path(), NAMES[2]), Some(HURT));
    // The doubt lasts until this one answers; its disk is sound.
    cluster.stop(1).await;
    cluster.open(2);
    let operator = cluster.service(0);
    let page = loop {
        let page = operator.ops_group(HURT).await.unwrap();
        if page.leader.is_none() && matches!(page.why, Some(Unwritable::NoMajority { .. })) {
            break page;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let missing = vec!["node-2".to_owned()];
    assert_eq!(page.why, Some(Unwritable::NoMajority { missing }), "{page:?}");
    assert_eq!(operator.ops_status().await.not_writable.len(), 1, "the other groups go on");
    // A node that is not ready says the same.
    let readiness = operator.readiness();
    for said in
        [("failing_group_id", "3"), ("probe_result", "quorum_unreachable"), ("missing", "node-2")]
    {
        assert!(readiness.detail.contains(&(said.0, said.1.to_owned())), "{readiness:?}");
    }

    let refused = operator.ops_replace("node-2", false).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::RaftUnavailable, "{refused}");
    assert!(refused.message.contains("for good: 3. Start node-2 again"), "{refused}");
    assert_eq!(operator.ops_status().await.members_number, 0);
    // Who insists is obeyed.
    operator.ops_replace("node-2", true).await.unwrap();
    assert_eq!(operator.ops_status().await.members_number, 1);
    drop(operator);
    cluster.stop_all().await;
}
