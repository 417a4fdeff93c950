//! The feature level of a cluster: raised by an operator when every member speaks more, and kept.

use std::sync::Arc;

use tl_core::entry::peek_level;
use tl_engine::cluster::MembersFile;
use tl_engine::identity::Identity;
use tl_types::NodeId;
use tl_wal::{Record, StdDisk, Wal, WalOptions};

use super::*;

/// What the release of before speaks, and what the next one does.
const OLD: u16 = 1;
const NEW: u16 = 2;

impl Cluster {
    fn try_speaking(&self, node: usize, spoken: u16) -> Result<Engine, tl_engine::EngineError> {
        Engine::open_speaking(&self.engine_settings(node), &self.settings, spoken)
    }

    /// Ends a member's process and starts it with another release.
    async fn upgrade(&mut self, node: usize, spoken: u16) {
        self.stop(node).await;
        self.open_speaking(node, spoken).await;
    }

    async fn open_speaking(&mut self, node: usize, spoken: u16) {
        let engine = self.try_speaking(node, spoken).expect("a member opens");
        engine.wait_ready().await.expect("a member gets ready");
        self.engines[node] = Some(engine);
    }
}

/// Waits until every member has heard of a level.
async fn until_level(cluster: &Cluster, level: u16) {
    for node in 0..NAMES.len() {
        while cluster.service(node).ops_status().await.feature_level != level {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The level of the last entry of a session's group as it stands in a stopped member's log, of which
/// a copy is read.
fn last_level(cluster: &Cluster, node: usize, session: &str) -> u16 {
    let dir = member_dir(cluster.dir.path(), NAMES[node]);
    let (copy, group) = (tempfile::tempdir().unwrap(), caller().session(&id(session)).group(8));
    for file in std::fs::read_dir(dir.join("log")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    let identity = Identity::open(&dir).unwrap().expect("a member's directory");
    let options = WalOptions {
        owner: NodeId(identity.node_id_bytes()),
        segment_bytes: cluster.engine_settings(node).log_segment_bytes,
        must_exist: true,
        ..WalOptions::default()
    };
    let mut last = None;
    let disk = Arc::new(StdDisk::create(copy.path()).unwrap());
    Wal::open(disk, options, &mut |_, record| {
        if let Record::Entry { group: of, data, .. } = record
            && of == group
            && !data.is_empty()
        {
            last = peek_level(&data);
        }
    })
    .unwrap();
    last.expect("an entry of the group")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_level_is_raised_when_every_member_speaks_it_and_stays() {
    let mut cluster = Cluster::start().await;
    create(&cluster.service(0), "chat").await;
    append_through(&cluster.service(0), "chat", 1).await;
    let refused = cluster.service(0).ops_raise_level().await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::LevelNotRaised);
    assert!(refused.message.contains("nothing to raise"), "{refused}");

    // One after the other gets the next release. As long as one has not, nothing changes.
    cluster.upgrade(0, NEW).await;
    cluster.upgrade(1, NEW).await;
    for node in 0..3 {
        let refused = cluster.service(node).ops_raise_level().await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::LevelNotRaised);
        assert!(refused.message.contains("node-3 speaks no higher level than 1"), "{refused}");
    }
    append_through(&cluster.service(1), "chat", 2).await;
    let page = cluster.service(0).ops_nodes().await;
    let spoken: Vec<_> = page.iter().map(|node| node.feature_level_max).collect();
    assert_eq!(spoken, [Some(NEW), Some(NEW), Some(OLD)]);
    cluster.stop(2).await;
    assert_eq!(last_level(&cluster, 2, "chat"), OLD);
    let silent = cluster.service(1).ops_raise_level().await.unwrap_err();
    assert_eq!(silent.code, ErrorCode::LevelNotRaised);
    assert!(silent.message.contains("nothing is heard of node-3"), "{silent}");

    cluster.open_speaking(2, NEW).await;
    let raised = cluster.service(1).ops_raise_level().await.unwrap();
    assert_eq!((raised.feature_level, raised.members_number), (NEW, 1));
    until_level(&cluster, NEW).await;
    let again = cluster.service(0).ops_raise_level().await.unwrap_err();
    assert!(again.message.contains("level 2 is committed"), "{again}");
    for seq in 3..=5 {
        append_through(&cluster.service(seq as usize % 3), "chat", seq).await;
    }
    let all = seqs(&cluster.service(0), "chat").await;
    assert_eq!(all.len(), 5);
    for node in 1..3 {
        assert_eq!(seqs(&cluster.service(node), "chat").await, all, "it has them as well");
    }

    // It outlives all processes, and entries follow it.
    for node in 0..3 {
        cluster.stop(node).await;
        assert_eq!(last_level(&cluster, node, "chat"), NEW);
    }
    for node in 0..3 {
        cluster.engines[node] = Some(cluster.try_speaking(node, NEW).expect("it opens"));
    }
    for engine in cluster.engines.iter().flatten() {
        engine.wait_ready().await.expect("a member gets ready");
        assert_eq!(engine.service().ops_status().await.feature_level, NEW);
    }
    append_through(&cluster.service(2), "chat", 6).await;
    assert_eq!(seqs(&cluster.service(0), "chat").await[..5], all);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_below_the_level_takes_no_part_and_loses_nothing() {
    let mut cluster = Cluster::start().await;
    for node in 0..3 {
        cluster.upgrade(node, NEW).await;
    }
    create(&cluster.service(0), "chat").await;
    append_through(&cluster.service(0), "chat", 1).await;
    cluster.service(0).ops_raise_level().await.unwrap();
    until_level(&cluster, NEW).await;
    append_through(&cluster.service(1), "chat", 2).await;
    let all = seqs(&cluster.service(2), "chat").await;
    assert_eq!(all.len(), 2);

    // It does not start with the release of before.
    let why = "the cluster has committed feature level 2 and this release speaks 1 at most: start \
               this node with a newer release";
    cluster.stop(2).await;
    let refused = cluster.try_speaking(2, OLD).unwrap_err();
    assert_eq!(refused.to_string(), why);
    append_through(&cluster.service(0), "chat", 3).await;

    // Nor does it go on when it hears of the level only from the others.
    let file = member_dir(cluster.dir.path(), NAMES[2]).join("members.json");
    std::fs::remove_file(&file).unwrap();
    let old = cluster.try_speaking(2, OLD).expect("it knows nothing of the level yet");
    let mut failure = old.failure();
    let ended = failure.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    assert_eq!(&*ended, why);
    stop(old).await;
    let list = MembersFile::in_dir(file.parent().unwrap()).read().unwrap();
    assert_eq!(list.expect("it remembers").level, NEW);
    assert_eq!(cluster.try_speaking(2, OLD).unwrap_err().to_string(), why);

    // With the newer one it has everything, and counts.
    cluster.open_speaking(2, NEW).await;
    cluster.stop(1).await;
    append_through(&cluster.service(2), "chat", 4).await;
    let after = seqs(&cluster.service(2), "chat").await;
    assert_eq!((after.len(), &after[..2]), (4, &all[..]));
    cluster.stop_all().await;
}
