//! Connections that are damaged, cut, moved and stopped.

use std::collections::BTreeSet;

use tl_raft::PeerId;
use tl_raft::transport::{
    FrameKind, HEAD_BYTES, Heard, LaneState, Peers, Refusal, SendError, Trouble,
};
use tokio::net::TcpListener;
use tokio::runtime::Handle;

use crate::support::*;

/// Bytes of a hello, which comes before the first frame.
fn hello_bytes() -> usize {
    hello(1, 2).encode().len()
}

/// Node 1 calls node 2 through a relay with these faults.
async fn through_relay(faults: impl IntoIterator<Item = Fault>) -> (Node, Node, Relay) {
    let two = Node::start(config(2), &peers([peer(1, "127.0.0.1:9".parse().unwrap())]));
    let relay = Relay::start(two.address(), faults).await;
    let one = Node::start(config(1), &peers([peer(2, relay.address)]));
    one.connected(2).await;
    (one, two, relay)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_frame_ends_the_connection_and_is_never_handed_on() {
    // In the length, the checksum, the kind and the payload of the third of equal frames.
    let frame_bytes = HEAD_BYTES + 100;
    for (damaged, place) in [0, 3, 5, 8, HEAD_BYTES, HEAD_BYTES + 99].into_iter().enumerate() {
        let at = hello_bytes() + 2 * frame_bytes + place;
        let (mut one, mut two, _relay) = through_relay([Fault::Flip(at)]).await;
        for number in 0..3 {
            one.send(2, numbered(number, 100));
        }
        if damaged == 0 {
            // The length now promises four bytes more: they must come for it to be found out.
            one.send(2, numbered(3, 100));
        }
        assert_eq!(two.payload().await, numbered(0, 100));
        assert_eq!(two.payload().await, numbered(1, 100));
        assert_eq!(one.hear().await, Heard::Lost { peer: PeerId(2) });
        two.until(1, |peer| peer.from_main.damaged == 1).await;
        assert_eq!(two.status(1).from_main.last_refusal, Some(Refusal::Damaged));
        let trouble = one.status(2).to_main.last_trouble;
        assert_eq!(trouble, Some(Trouble::Ended(Refusal::Damaged)), "place {place}");
        // The next connection is sound.
        one.until(2, |peer| peer.to_main.connections == 2).await;
        one.send(2, numbered(9, 100));
        assert_eq!(two.payload().await, numbered(9, 100));
        assert_eq!(two.status(1).from_main.frames, 3);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_cut_anywhere_hands_on_whole_frames_and_comes_back() {
    let frame_bytes = HEAD_BYTES + 50;
    let places = [0, 1, HEAD_BYTES, HEAD_BYTES + 1, frame_bytes - 1, frame_bytes];
    let cuts: Vec<usize> =
        places.iter().map(|place| hello_bytes() + 5 * frame_bytes + place).collect();
    let (mut one, mut two, _relay) = through_relay(cuts.iter().map(|at| Fault::Cut(*at))).await;
    for (cut, at) in cuts.into_iter().enumerate() {
        let whole = u32::try_from((at - hello_bytes()) / frame_bytes).unwrap();
        for number in 0..8 {
            // The cut may come while there is more to send.
            let _ = one.transport.send(PeerId(2), FrameKind::Raft, numbered(number, 50));
        }
        for number in 0..whole {
            assert_eq!(two.payload().await, numbered(number, 50), "cut {cut}");
        }
        assert_eq!(one.hear().await, Heard::Lost { peer: PeerId(2) });
        one.until(2, |peer| peer.to_main.connections == cut as u64 + 2).await;
    }
    one.send(2, numbered(99, 50));
    assert_eq!(two.payload().await, numbered(99, 50));
    assert_eq!(two.status(1).from_main.damaged, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_breaks_frames_come_whole_in_order_and_at_most_once() {
    let mut lot = fastrand::Rng::with_seed(11);
    let faults: Vec<Fault> = (0..60)
        .map(|_| {
            // Somewhere behind the hello, most often soon.
            let most = 1 << lot.u32(4..18);
            let at = hello_bytes() + lot.usize(..most);
            if lot.bool() { Fault::Flip(at) } else { Fault::Cut(at) }
        })
        .collect();
    let count = faults.len() as u64;
    let (one, mut two, _relay) = through_relay(faults).await;
    let sender = one.transport.sender();
    let sending = tokio::spawn(async move {
        let mut lot = fastrand::Rng::with_seed(12);
        for number in 0.. {
            let most = 1 << lot.u32(2..15);
            let payload = numbered(number, lot.usize(..most));
            match sender.send(PeerId(2), FrameKind::Raft, payload) {
                Ok(()) | Err(SendError::NotConnected | SendError::Full) => {}
                // The node is gone: everything has been seen.
                Err(SendError::UnknownPeer) => return,
                Err(error) => panic!("{error}"),
            }
            tokio::task::yield_now().await;
        }
    });
    one.until(2, |peer| peer.to_main.connections > count).await;
    one.transport.stop().await;
    soon(sending).await.unwrap();
    two.until(1, |peer| peer.from_main.connected_since.is_none()).await;
    let mut before = None;
    let mut frames = 0;
    for heard in two.heard_so_far() {
        if let Heard::Frame { payload, .. } = heard {
            let number = number_of(&payload);
            assert!(before < Some(number), "{number} came behind {before:?}");
            assert_eq!(payload, numbered(number, payload.len()), "{number} was changed");
            before = Some(number);
            frames += 1;
        }
    }
    let status = two.status(1).from_main;
    assert_eq!(status.frames, frames);
    assert!(frames > 0 && status.damaged > 0, "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_restarts_is_found_again() {
    let (mut one, two) = pair().await;
    let address = two.address();
    two.transport.stop().await;
    assert_eq!(one.hear().await, Heard::Lost { peer: PeerId(2) });
    one.until(2, |peer| peer.from_main.connected_since.is_none()).await;
    let mut config = config(2);
    config.listen = address;
    let mut two = Node::start(config, &peers([peer(1, one.address())]));
    one.connected(2).await;
    two.connected(1).await;
    one.send(2, &b"welcome"[..]);
    assert_eq!(two.payload().await, &b"welcome"[..]);
    two.send(1, &b"thanks"[..]);
    assert_eq!(one.payload().await, &b"thanks"[..]);
    let status = one.status(2);
    assert_eq!((status.to_main.connections, status.from_main.connections), (2, 2));
    assert!(status.to_main.last_trouble.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_moves_is_called_at_its_new_address() {
    let (one, two) = pair().await;
    two.transport.stop().await;
    let mut two = Node::start(config(2), &peers([peer(1, one.address())]));
    one.transport.set_peers(&peers([peer(2, two.address())])).unwrap();
    one.until(2, |peer| peer.to_main.connections == 2).await;
    assert_eq!(one.status(2).address, two.address().to_string());
    one.send(2, &b"found"[..]);
    assert_eq!(two.payload().await, &b"found"[..]);
    // The same list again changes nothing.
    one.transport.set_peers(&peers([peer(2, two.address())])).unwrap();
    one.send(2, &b"again"[..]);
    assert_eq!(two.payload().await, &b"again"[..]);
    assert_eq!(one.status(2).to_main.connections, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_leaves_nothing_behind() {
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let (one, two) = pair().await;
    let silent = TcpListener::bind(anywhere()).await.unwrap();
    let list = peers([peer(2, two.address()), peer(3, silent.local_addr().unwrap())]);
    one.transport.set_peers(&list).unwrap();
    let address = one.address();
    let sender = one.transport.sender();
    let payload = numbered(1, 10);
    sender.send(PeerId(3), FrameKind::Request, payload.clone()).unwrap();
    let (transport, mut heard) = one.into_parts();
    transport.stop().await;
    // The request comes back before the end, and behind the end there is nothing.
    let mut last = Vec::new();
    while let Some(said) = soon(heard.recv()).await {
        last.push(said);
        if heard.is_empty() {
            break;
        }
    }
    assert!(last.contains(&Heard::Unsent { to: PeerId(3), payload: payload.clone() }), "{last:?}");
    let unknown = Err(SendError::UnknownPeer);
    assert_eq!(sender.send(PeerId(3), FrameKind::Raft, payload), unknown);
    drop(TcpListener::bind(address).await.expect("the address is free again"));
    two.transport.stop().await;
    until(|| (tasks() == before).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transport_that_is_dropped_ends_too() {
    let (one, two) = pair().await;
    drop(one);
    two.until(1, |peer| peer.from_main.connected_since.is_none()).await;
    two.until(1, |peer| peer.to_main.state == LaneState::Waiting).await;
    let nobody = Peers { members: vec![], removed: BTreeSet::new() };
    two.transport.set_peers(&nobody).unwrap();
    assert!(two.transport.status().peers.is_empty());
}
