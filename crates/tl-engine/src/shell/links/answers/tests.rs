use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tl_raft::transport::{Heard, Peer, Peers, Seat, Security, Transport, TransportConfig};
use tl_types::ids::ClusterId;
use tl_types::{Index, NodeId};
use tokio::runtime::Handle;

use super::super::tests::links;
use super::*;
use crate::peer::Found;

const PEER: PeerId = PeerId(2);
const FAR: Duration = Duration::from_secs(3_600);

fn seat(peer: PeerId) -> Seat {
    Seat { peer, node: NodeId([peer.0 as u8; 16]) }
}

fn transport(
    me: PeerId,
    listen: SocketAddr,
    peer: (PeerId, SocketAddr),
    heard: impl Fn(Heard) + Send + Sync + 'static,
) -> Transport {
    let security = Security::PlaintextForDev;
    let config = TransportConfig::new(ClusterId([9; 16]), seat(me), listen, security, me.0);
    let far_ms = FAR.as_millis() as u64;
    let config = TransportConfig { handshake_ms: far_ms, silence_ms: far_ms, ..config };
    let (peer, address) = peer;
    let member = Peer { peer, node: seat(peer).node, address: address.to_string() };
    let peers = Peers { members: vec![member], removed: Default::default() };
    Transport::start(config, &peers, &Handle::current(), heard).expect("it starts")
}

fn any() -> SocketAddr {
    "127.0.0.1:0".parse().expect("an address")
}

fn page(bytes: usize) -> Answer {
    Answer::Found(Found::Lines(vec![vec![b'x'; bytes].into()]))
}

/// Frames that wait for the peer, and those that found no room.
fn waiting(transport: &Transport) -> (usize, u64) {
    let status = transport.status();
    let main = &status.peers[0].to_main;
    (main.queued_frames, main.refused_frames)
}

#[tokio::test]
async fn pages_wait_for_room_and_leave_some_to_what_is_small() {
    // A peer that takes the call and says nothing: what is sent waits in the queue.
    let silent = TcpListener::bind(any()).expect("a port");
    let address = silent.local_addr().expect("bound");
    let transport = transport(PeerId(1), any(), (PEER, address), |_| {});
    let links = Arc::new(links());
    links.open(transport.sender());
    let page_bytes = 4 * 1024 * 1024;
    let until = Instant::now() + FAR;
    let mut pages = tokio::task::JoinSet::new();
    for id in 0..32 {
        let links = Arc::clone(&links);
        pages.spawn(async move {
            links.answer_in_turn(PEER, id, &page(page_bytes), until).await;
        });
    }
    let fit = (64 * 1024 * 1024 - RESERVE_BYTES) / page_bytes - 1;
    while pages.len() > 32 - fit {
        pages.join_next().await.expect("some are sent").expect("ran");
    }
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
    assert_eq!((waiting(&transport), pages.len()), ((fit, 0), 32 - fit), "the others wait");
    let taken = Answer::Taken { index: Index(1), replies: Vec::new() };
    for id in 0..1_000 {
        links.answer(PEER, id, &taken);
    }
    assert_eq!(waiting(&transport), (fit + 1_000, 0), "none is dropped");
    // Whoever asked for it waits no more.
    links.answer_in_turn(PEER, 99, &page(page_bytes), Instant::now()).await;
    assert_eq!(waiting(&transport), (fit + 1_000, 0));
    pages.shutdown().await;
    links.close();
    transport.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_answers_of_a_turn_are_sent_however_many_they_are() {
    // A few more than a peer's queue has room for.
    const ANSWERS: usize = 8_192 + 300;
    let count = Arc::new(AtomicUsize::new(0));
    let (heard, all) = (Arc::clone(&count), Arc::new(tokio::sync::Notify::new()));
    let last = Arc::clone(&all);
    // It need not call back: answers go one way.
    let nowhere = TcpListener::bind(any()).expect("a port");
    let me = (PeerId(1), nowhere.local_addr().expect("bound"));
    let peer = transport(PEER, any(), me, move |what| {
        if let Heard::Frame { kind: FrameKind::Reply, .. } = what
            && heard.fetch_add(1, Ordering::Relaxed) + 1 == ANSWERS
        {
            last.notify_one();
        }
    });
    let mine = transport(PeerId(1), any(), (PEER, peer.address()), |_| {});
    let links = links();
    links.open(mine.sender());
    while mine.status().peers[0].to_main.connected_since.is_none() {
        tokio::task::yield_now().await;
    }
    let taken = Answer::Taken { index: Index(1), replies: Vec::new() };
    for id in 0..ANSWERS as u64 {
        links.answer_later(PEER, id, &taken);
    }
    links.release();
    tokio::time::timeout(Duration::from_secs(60), all.notified()).await.expect("all are heard");
    links.close();
    mine.stop().await;
    peer.stop().await;
}
