//! A member that hears the others and is heard, and does not get the entries that it lacks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tl_engine::api::Append;
use tl_types::Index;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::*;

/// Frames of Raft that are longer do not arrive while large ones are lost, bytes.
const LOST_BYTES: usize = 100_000;
/// Bytes of a hello before its body, the last two of which are the body's length.
const SEAL_BYTES: usize = 14;
/// Bytes of a frame before its payload: length, checksum, kind.
const HEAD_BYTES: usize = 9;
const KIND_RAFT: u8 = 1;

/// Where to call instead of `to`, so that large frames of Raft are lost on the way while it is said.
async fn lossy_way(to: SocketAddr, loses: Arc<AtomicBool>) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((caller, _)) = listener.accept().await {
            let loses = Arc::clone(&loses);
            tokio::spawn(async move {
                let Ok(called) = TcpStream::connect(to).await else { return };
                let (mut back, out) = called.into_split();
                let (from, mut answers) = caller.into_split();
                tokio::select! {
                    _ = pass(from, out, &loses) => {}
                    _ = tokio::io::copy(&mut back, &mut answers) => {}
                }
            });
        }
    });
    address
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    loses: &AtomicBool,
) -> std::io::Result<()> {
    let mut hello = vec![0; SEAL_BYTES];
    from.read_exact(&mut hello).await?;
    let body = u16::from_le_bytes([hello[SEAL_BYTES - 2], hello[SEAL_BYTES - 1]]);
    hello.resize(SEAL_BYTES + usize::from(body), 0);
    from.read_exact(&mut hello[SEAL_BYTES..]).await?;
    to.write_all(&hello).await?;
    loop {
        let mut frame = vec![0; HEAD_BYTES];
        from.read_exact(&mut frame).await?;
        let payload = u32::from_le_bytes([frame[0], frame[1], frame[2], frame[3]]) as usize;
        let is_large = frame[HEAD_BYTES - 1] == KIND_RAFT && payload > LOST_BYTES;
        frame.resize(HEAD_BYTES + payload, 0);
        from.read_exact(&mut frame[HEAD_BYTES..]).await?;
        if !(is_large && loses.load(Ordering::Relaxed)) {
            to.write_all(&frame).await?;
        }
    }
}

async fn last_seq(service: &Service, session: &str, stale: bool) -> u64 {
    let fresh = Freshness { stale, ..Freshness::default() };
    let found = service.get_session(&caller(), &id(session), fresh).await;
    found.unwrap().value.0.header.last_seq.0
}

/// A session, the last member's way to whom large frames of Raft are lost while it is said, and where
/// that is said. The first member leads the session's group.
struct Behind {
    cluster: Cluster,
    session: String,
    loses: Arc<AtomicBool>,
}

impl Behind {
    async fn start() -> Behind {
        let mut cluster = Cluster::start().await;
        // In its turn the first member leads it.
        let is_led_by_first =
            |name: &String| caller().session(&id(name)).group(8).0.is_multiple_of(3);
        let session = (0..).map(|number| format!("s-{number}")).find(is_led_by_first).unwrap();
        create(&cluster.service(0), &session).await;
        for node in 0..3 {
            cluster.stop(node).await;
        }
        let (_, straight) = cluster.settings.members[2].split_once('=').unwrap();
        let straight: SocketAddr = straight.parse().unwrap();
        let loses = Arc::new(AtomicBool::new(false));
        let way = lossy_way(straight, Arc::clone(&loses)).await;
        cluster.settings.members[2] = format!("{}={way}", NAMES[2]);
        for node in 0..2 {
            cluster.open(node);
        }
        for node in 0..2 {
            cluster.engines[node].as_ref().unwrap().wait_ready().await.expect("two of three");
        }
        cluster.settings.members[2] = format!("{}={straight}", NAMES[2]);
        cluster.open(2);
        cluster.engines[2].as_ref().unwrap().wait_ready().await.expect("it catches up");
        append_through(&cluster.service(0), &session, 1).await;
        assert_eq!(last_seq(&cluster.service(2), &session, false).await, 1);
        Behind { cluster, session, loses }
    }

    /// From now on the last member lacks the session's second event, whose index is given.
    async fn lose(&self) -> Index {
        self.loses.store(true, Ordering::Relaxed);
        let large = event("p", 2, &"x".repeat(2 * LOST_BYTES));
        let request = Append { events: vec![large], expected_seq: None };
        self.cluster.service(0).append(&caller(), &id(&self.session), request).await.unwrap().index
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_behind_has_a_session_shown_by_others() {
    let behind = Behind::start().await;
    behind.lose().await;
    let Behind { cluster, session, loses } = behind;
    let behind = cluster.service(2);
    assert_eq!(last_seq(&behind, &session, false).await, 2);
    assert_eq!(last_seq(&behind, &session, true).await, 1, "its own row is behind");
    assert!(metric(&behind, "reads_forwarded_total") > 0);
    loses.store(false, Ordering::Relaxed);
    assert_eq!(seqs(&behind, &session).await.len(), 2, "it catches up");
    drop(behind);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_behind_has_its_part_of_a_list_read_by_others() {
    let behind = Behind::start().await;
    behind.lose().await;
    let Behind { cluster, session, loses } = behind;
    // In the same group, and so behind what is lost.
    let group = caller().session(&id(&session)).group(8);
    let is_in_group = |name: &String| caller().session(&id(name)).group(8) == group;
    let late = (0..).map(|number| format!("t-{number}")).find(is_in_group).unwrap();
    create(&cluster.service(0), &late).await;
    let behind = cluster.service(2);
    assert_eq!(listed(&behind, "").await.unwrap(), [session.clone(), late.clone()]);
    assert!(metric(&behind, "reads_forwarded_total") > 0, "its own rows do not show it");
    assert_eq!(last_seq(&behind, &session, true).await, 1, "it is still behind");
    loses.store(false, Ordering::Relaxed);
    assert_eq!(seqs(&behind, &session).await.len(), 2, "it catches up");
    assert_eq!(listed(&behind, "consistent=true").await.unwrap(), [session, late]);
    drop(behind);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_with_min_index_waits_until_that_is_applied_and_is_refused_if_it_never_is() {
    let behind = Behind::start().await;
    let index = behind.lose().await;
    let Behind { cluster, session, loses } = behind;
    let behind = cluster.service(2);
    let from = |min_index| Freshness { min_index: Some(min_index), ..Freshness::default() };
    // A row may come from whoever has it.
    let stale = Freshness { stale: true, ..from(index) };
    let row = behind.get_session(&caller(), &id(&session), stale).await.unwrap();
    assert_eq!(row.value.0.header.last_seq, Seq(2));
    assert!(row.index >= index);
    assert_eq!(last_seq(&behind, &session, true).await, 1, "its own row is behind");

    // Events are read here, and wait.
    let page = ReadEvents { cursor: Seq(0), limit: 10, wait: Duration::ZERO };
    let (service, named) = (behind.clone(), id(&session));
    let waits = tokio::spawn(async move {
        let read = service.read_events(&caller(), &named, page, from(index)).await;
        read.unwrap().value.events.len()
    });
    let soon = || Caller { deadline: Instant::now() + Duration::from_secs(2), ..caller() };
    for min_index in [index, Index(index.0 + 1_000)] {
        let read = behind.read_events(&soon(), &id(&session), page, from(min_index)).await;
        assert_eq!(read.unwrap_err().code, ErrorCode::RaftUnavailable, "not as long as it is lost");
    }
    assert!(!waits.is_finished());
    loses.store(false, Ordering::Relaxed);
    assert_eq!(waits.await.unwrap(), 2);

    // No member has what was never written, and none says that it has.
    for node in 0..3 {
        let service = cluster.service(node);
        let never = from(Index(index.0 + 1_000_000));
        let refused = service.get_session(&soon(), &id(&session), never).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::RaftUnavailable, "node {node}");
    }
    drop(behind);
    cluster.stop_all().await;
}
