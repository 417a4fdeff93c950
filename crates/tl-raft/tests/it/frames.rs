//! What is sent arrives.

use bytes::Bytes;
use tl_raft::PeerId;
use tl_raft::config::FRAME_BYTES_ACCEPTED_MAX;
use tl_raft::transport::{BULK_CHUNK_BYTES_MAX, FrameKind, LaneState, Peers, SendError};

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_arrive_whole_and_in_order_both_ways() {
    let (mut one, mut two) = pair().await;
    // Frames of every size around what is read and written at once.
    let sizes = [4, 40, 9_000, 65_000, 65_536, 66_000, 262_144, 300_000];
    let frames: Vec<Bytes> =
        (0..800).map(|number| numbered(number, sizes[number as usize % sizes.len()] / 8)).collect();
    for frame in &frames {
        one.send(2, frame.clone());
        two.send(1, frame.clone());
    }
    for frame in &frames {
        assert_eq!(two.frame().await, (PeerId(1), FrameKind::Raft, frame.clone()));
        assert_eq!(one.frame().await, (PeerId(2), FrameKind::Raft, frame.clone()));
    }
    let bytes: usize = frames.iter().map(Bytes::len).sum();
    let (sent, received) = (one.status(2).to_main, two.status(1).from_main);
    assert_eq!((sent.frames, sent.bytes), (800, bytes as u64));
    assert_eq!((received.frames, received.bytes, received.damaged), (800, bytes as u64, 0));
    assert_eq!((sent.dropped_frames, sent.connections, received.connections), (0, 1, 1));
    assert_eq!((sent.queued_frames, sent.queued_bytes), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_frame_arrives_and_one_past_it_is_refused() {
    let (one, mut two) = pair().await;
    let largest = numbered(9, FRAME_BYTES_ACCEPTED_MAX);
    one.send(2, largest.clone());
    one.send(2, &b"behind it"[..]);
    assert!(two.payload().await == largest);
    assert_eq!(two.payload().await, &b"behind it"[..]);
    for kind in [FrameKind::Raft, FrameKind::Request, FrameKind::Reply] {
        let past = Bytes::from(vec![0; FRAME_BYTES_ACCEPTED_MAX + 1]);
        assert_eq!(one.transport.send(PeerId(2), kind, past), Err(SendError::TooLong));
    }
    let past = Bytes::from(vec![0; BULK_CHUNK_BYTES_MAX + 1]);
    assert_eq!(one.transport.send(PeerId(2), FrameKind::Bulk, past), Err(SendError::TooLong));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_and_replies_go_beside_frames_of_the_driver() {
    let (mut one, mut two) = pair().await;
    one.transport.send(PeerId(2), FrameKind::Request, Bytes::from_static(b"what")).unwrap();
    assert_eq!(two.frame().await, (PeerId(1), FrameKind::Request, Bytes::from_static(b"what")));
    two.transport.send(PeerId(1), FrameKind::Reply, Bytes::from_static(b"that")).unwrap();
    assert_eq!(one.frame().await, (PeerId(2), FrameKind::Reply, Bytes::from_static(b"that")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_has_a_connection_of_its_own_while_there_is_some() {
    let one = {
        let mut config = config(1);
        config.bulk_idle_ms = 1;
        Node::start(config, &Peers::default())
    };
    let mut two = Node::start(config(2), &peers([peer(1, one.address())]));
    one.transport.set_peers(&peers([peer(2, two.address())])).unwrap();
    one.connected(2).await;
    assert_eq!(one.status(2).to_bulk.state, LaneState::Idle);
    assert_eq!(one.status(2).to_bulk.connections, 0);

    let chunk = numbered(1, BULK_CHUNK_BYTES_MAX);
    for times in 1..=3 {
        one.transport.send(PeerId(2), FrameKind::Bulk, chunk.clone()).unwrap();
        assert!(two.frame().await == (PeerId(1), FrameKind::Bulk, chunk.clone()));
        // It rests when nothing more comes, and is opened again when something does.
        one.until(2, |peer| peer.to_bulk.state == LaneState::Idle).await;
        two.until(1, |peer| peer.from_bulk.connected_since.is_none()).await;
        assert_eq!(one.status(2).to_bulk.connections, times);
    }
    assert_eq!(one.status(2).to_main.connections, 1);
    assert_eq!(two.status(1).from_bulk.frames, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_chunks_wait_for_room_and_arrive_in_order() {
    let (one, mut two) = pair().await;
    let sender = one.transport.sender();
    let sending = tokio::spawn(async move {
        for number in 0..40 {
            let chunk = numbered(number, 1 << 20);
            loop {
                sender.wait_for_room(PeerId(2), FrameKind::Bulk, chunk.len()).await.unwrap();
                match sender.send(PeerId(2), FrameKind::Bulk, chunk.clone()) {
                    Ok(()) => break,
                    Err(error) => assert_eq!(error, SendError::Full),
                }
            }
        }
    });
    for number in 0..40 {
        assert_eq!(number_of(&two.payload().await), number);
    }
    soon(sending).await.unwrap();
    assert_eq!(one.status(2).to_bulk.refused_frames, 0);
}
