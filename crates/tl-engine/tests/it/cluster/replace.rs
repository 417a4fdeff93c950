//! A member whose disk is lost, and the life that takes the place of the lost one.

use tl_engine::ops::NodeState;
use tl_engine::service::Awaited;
use tl_types::GroupId;

use super::*;

const LONG: Duration = Duration::from_secs(60);

/// Waits until a member is silent for another one.
async fn until_silent(service: &Service, name: &str) {
    loop {
        let nodes = service.ops_nodes().await;
        let node = nodes.iter().find(|node| node.node == name).unwrap();
        if matches!(node.state, NodeState::Suspect | NodeState::Lost) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_disk_is_lost_gets_a_new_life_that_votes() {
    let mut cluster = Cluster::start().await;
    create(&cluster.service(0), "chat").await;
    for seq in 1..=5 {
        append_through(&cluster.service(0), "chat", seq).await;
    }
    // Whoever is heard keeps its life, and so does who answers.
    for (name, force) in [("node-2", false), ("node-1", true)] {
        let refused = cluster.service(0).ops_replace(name, force).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::MemberPresent, "{refused}");
    }
    let unknown = cluster.service(0).ops_replace("node-9", true).await.unwrap_err();
    assert_eq!(unknown.code, ErrorCode::UnknownNode);

    cluster.stop(1).await;
    let lost = member_dir(cluster.dir.path(), NAMES[1]);
    let kept = member_dir(cluster.dir.path(), "kept");
    std::fs::rename(&lost, &kept).unwrap();
    until_silent(&cluster.service(0), "node-2").await;
    let life = cluster.service(0).ops_replace("node-2", false).await.unwrap();
    life.make_directory(&lost).unwrap();
    let status = cluster.service(0).ops_status().await;
    assert_eq!(status.members_number, 1);
    // One at a time, also when somebody insists.
    let second = cluster.service(0).ops_replace("node-3", true).await.unwrap_err();
    assert_eq!(second.code, ErrorCode::ReplacementUnderWay, "{second}");
    append_through(&cluster.service(2), "chat", 6).await;

    cluster.open(1);
    let replaced = cluster.service(0).ops_wait(Some("node-2"), Awaited::Ready, LONG).await;
    assert_eq!(replaced.unwrap().state, NodeState::Ready);
    for node in [0, 1, 2] {
        let service = cluster.service(node);
        while service.ops_status().await.replacing.is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for group in (0..8).map(GroupId) {
            let page = service.ops_group(group).await.unwrap();
            assert_eq!(page.replicas.len(), 3, "{page:?}");
            assert!(page.replicas.iter().all(|replica| replica.role == "voter"), "{page:?}");
        }
    }
    // Its vote counts: with another one away it is half of the majority.
    cluster.stop(2).await;
    append_through(&cluster.service(0), "chat", 7).await;
    append_through(&cluster.service(1), "chat", 8).await;
    let first = seqs(&cluster.service(0), "chat").await;
    assert_eq!(first.len(), 8);
    assert_eq!(seqs(&cluster.service(1), "chat").await, first);

    // The former life is over, though its directory is whole and knows nothing of that.
    cluster.stop(1).await;
    std::fs::rename(&lost, member_dir(cluster.dir.path(), "new")).unwrap();
    std::fs::rename(&kept, &lost).unwrap();
    cluster.open(1);
    let mut failure = cluster.engines[1].as_ref().unwrap().failure();
    let why = failure.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    assert!(why.contains("former life of node-2"), "{why}");
    cluster.stop(1).await;
    std::fs::remove_dir_all(&lost).unwrap();
    std::fs::rename(member_dir(cluster.dir.path(), "new"), &lost).unwrap();
    cluster.open(1);
    cluster.open(2);
    for seq in 9..=10 {
        append_through(&cluster.service(seq as usize % 2 + 1), "chat", seq).await;
    }
    assert_eq!(seqs(&cluster.service(2), "chat").await.len(), 10);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_life_that_is_lost_before_it_began_is_replaced_as_well() {
    let mut cluster = Cluster::start().await;
    create(&cluster.service(0), "chat").await;
    append_through(&cluster.service(0), "chat", 1).await;
    cluster.stop(2).await;
    let lost = member_dir(cluster.dir.path(), NAMES[2]);
    std::fs::remove_dir_all(&lost).unwrap();
    until_silent(&cluster.service(1), "node-3").await;
    cluster.service(1).ops_replace("node-3", false).await.unwrap();
    // Of this life nothing is ever heard, and every member learns of it.
    while cluster.service(0).ops_status().await.members_number == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    until_silent(&cluster.service(0), "node-3").await;
    let life = cluster.service(0).ops_replace("node-3", false).await.unwrap();
    assert_eq!((life.list.number, life.list.next_peer), (2, 6));
    life.make_directory(&lost).unwrap();
    cluster.open(2);
    cluster.service(1).ops_wait(Some("node-3"), Awaited::Ready, LONG).await.unwrap();
    cluster.stop(0).await;
    append_through(&cluster.service(2), "chat", 2).await;
    append_through(&cluster.service(1), "chat", 3).await;
    assert_eq!(seqs(&cluster.service(2), "chat").await.len(), 3);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_nobody_gets_a_new_life() {
    let mut cluster = Cluster::start().await;
    create(&cluster.service(0), "chat").await;
    append_through(&cluster.service(0), "chat", 1).await;
    assert_eq!(seqs(&cluster.service(2), "chat").await.len(), 1);
    cluster.stop(0).await;
    cluster.stop(1).await;
    until_silent(&cluster.service(2), "node-2").await;
    let refused = cluster.service(2).ops_replace("node-2", false).await.unwrap_err();
    let either = [ErrorCode::RaftUnavailable, ErrorCode::RaftTimeout];
    assert!(either.contains(&refused.code), "{refused}");
    assert_eq!(cluster.service(2).ops_status().await.members_number, 0);
    cluster.open(0);
    append_through(&cluster.service(0), "chat", 2).await;
    cluster.stop_all().await;
}
