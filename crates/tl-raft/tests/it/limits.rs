//! What waits is bounded, and waits in nobody else's way.

use bytes::Bytes;
use tl_raft::PeerId;
use tl_raft::transport::{
    Answer, FrameKind, HANDSHAKES_MAX, Heard, LaneState, Refusal, SendError, Trouble,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::*;

/// A frame of the driver with heartbeats alone.
const BEATS: &[u8] = &[1, 1, 1, 7, 7, 5];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_peer_does_not_answer_as_much_waits_as_the_limit_says() {
    // It takes the connection and never answers the handshake.
    let silent = TcpListener::bind(anywhere()).await.unwrap();
    let mut config = config(1);
    config.queue.frames_max = 10;
    let mut one = Node::start(config, &peers([peer(2, silent.local_addr().unwrap())]));
    let send = |kind, number| one.transport.send(PeerId(2), kind, numbered(number, 100));
    for number in 0..10 {
        assert_eq!(send(FrameKind::Raft, number), Ok(()));
        assert_eq!(send(FrameKind::Request, number), Ok(()));
    }
    assert_eq!(send(FrameKind::Raft, 10), Err(SendError::Full));
    assert_eq!(send(FrameKind::Request, 10), Err(SendError::Full));
    assert_eq!(send(FrameKind::Reply, 10), Err(SendError::Full));
    let status = one.status(2).to_main;
    assert_eq!((status.queued_frames, status.queued_bytes), (20, 2_000));
    assert_eq!((status.dropped_frames, status.dropped_bytes, status.refused_frames), (1, 100, 2));
    assert_eq!((status.frames, status.state), (0, LaneState::Connecting));

    // It goes away: the driver's frames are dropped, the requests come back.
    let (stream, _) = soon(silent.accept()).await.unwrap();
    drop((stream, silent));
    for number in 0..10 {
        let payload = numbered(number, 100);
        assert_eq!(one.hear().await, Heard::Unsent { to: PeerId(2), payload });
    }
    one.until(2, |peer| peer.to_main.dropped_frames >= 11).await;
    assert_eq!(one.status(2).to_main.queued_bytes, 0);
    // Never connected, so nothing was lost.
    assert_eq!(one.heard_so_far(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_reads_nothing_holds_up_nobody_and_grows_nothing() {
    let stuck = TcpListener::bind(anywhere()).await.unwrap();
    let mut two = Node::start(config(2), &peers([]));
    let one = Node::start(
        config(1),
        &peers([peer(2, two.address()), peer(3, stuck.local_addr().unwrap())]),
    );
    two.transport.set_peers(&peers([peer(1, one.address())])).unwrap();
    let (mut stream, _) = accept_by_hand(&stuck).await;
    one.until(3, |peer| peer.to_main.connected_since.is_some()).await;
    one.connected(2).await;

    let limit = config(1).queue.bytes_max;
    let frame = numbered(1, 1 << 20);
    let mut refused = 0;
    for number in 0..200 {
        // More than the limit, the kernel's buffers and a batch can hold.
        match one.transport.send(PeerId(3), FrameKind::Raft, frame.clone()) {
            Ok(()) => {}
            Err(error) => {
                assert_eq!(error, SendError::Full);
                refused += 1;
            }
        }
        one.send(2, numbered(number, 1_000));
        assert_eq!(number_of(&two.payload().await), number);
        assert!(one.status(3).to_main.queued_bytes <= limit);
    }
    let status = one.status(3).to_main;
    assert!(refused > 0);
    assert_eq!((status.dropped_frames, status.dropped_bytes), (refused, refused << 20));
    assert_eq!(one.status(2).to_main.dropped_frames, 0);
    // It wakes up, and gets what waited.
    let frames = read_frames(&mut stream, 200 - usize::try_from(refused).unwrap()).await;
    assert!(frames.iter().all(|(_, payload)| *payload == frame));
    assert_eq!(one.status(3).to_main.queued_frames, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_overtake_what_waits_but_not_what_is_being_sent() {
    let listener = TcpListener::bind(anywhere()).await.unwrap();
    let one = Node::start(config(1), &peers([peer(2, listener.local_addr().unwrap())]));
    let (mut stream, _) = accept_by_hand(&listener).await;
    // Larger than what the kernel takes from a connection that nobody reads.
    one.send(2, numbered(1, 16 << 20));
    one.until(2, |peer| peer.to_main.frames == 1).await;
    one.send(2, numbered(2, 16 << 20));
    one.send(2, BEATS);
    let order: Vec<usize> =
        read_frames(&mut stream, 3).await.iter().map(|(_, payload)| payload.len()).collect();
    assert_eq!(order, [16 << 20, BEATS.len(), 16 << 20]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_writes_beside_the_connection_leaves_nobody_waiting() {
    let listener = TcpListener::bind(anywhere()).await.unwrap();
    let mut config = config(1);
    // What is forgotten stays forgotten.
    config.silence_ms = 3_600_000;
    let one = Node::start(config, &peers([peer(2, listener.local_addr().unwrap())]));
    let sender = one.transport.sender();
    let (mut stream, _) = accept_by_hand(&listener).await;
    for round in 0..10 {
        // Larger than what the kernel takes from a connection that nobody reads: the task waits.
        one.send(2, numbered(round, 16 << 20));
        one.until(2, |peer| peer.to_main.frames == u64::from(round) * 3 + 1).await;
        let small = |number| numbered(number, 100);
        sender.hold(PeerId(2), FrameKind::Request, small(100 + round)).unwrap();
        sender.release(PeerId(2));
        let read = soon(read_frames(&mut stream, 2)).await;
        assert_eq!([number_of(&read[0].1), number_of(&read[1].1)], [round, 100 + round]);
        // Nor is it left with a write that somebody else has done.
        sender.hold(PeerId(2), FrameKind::Request, small(200 + round)).unwrap();
        sender.release(PeerId(2));
        let read = soon(read_frames(&mut stream, 1)).await;
        assert_eq!(number_of(&read[0].1), 200 + round);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_between_attempts_is_refused_at_once() {
    let nobody = TcpListener::bind(anywhere()).await.unwrap().local_addr().unwrap();
    let mut config = config(1);
    (config.backoff_min_ms, config.backoff_max_ms) = (3_600_000, 3_600_000);
    let one = Node::start(config, &peers([peer(2, nobody)]));
    one.until(2, |peer| peer.to_main.state == LaneState::Waiting).await;
    let send = |to, kind| one.transport.send(PeerId(to), kind, Bytes::from_static(b"xyz"));
    assert_eq!(send(2, FrameKind::Raft), Err(SendError::NotConnected));
    assert_eq!(send(2, FrameKind::Request), Err(SendError::NotConnected));
    assert_eq!(send(7, FrameKind::Raft), Err(SendError::UnknownPeer));
    let status = one.status(2).to_main;
    assert!(matches!(status.last_trouble, Some(Trouble::Unreachable { .. })), "{status:?}");
    assert_eq!((status.dropped_frames, status.refused_frames), (1, 1));
    // However long the wait: a peer that calls is called back at once.
    let mut two = Node::start(
        {
            let mut config = crate::support::config(2);
            config.listen = nobody;
            config
        },
        &peers([peer(1, one.address())]),
    );
    two.connected(1).await;
    one.connected(2).await;
    one.send(2, &b"there"[..]);
    assert_eq!(two.payload().await, &b"there"[..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_is_turned_away_and_harms_nobody() {
    let (one, mut two) = pair().await;
    let mut lot = fastrand::Rng::with_seed(5);
    let mut garbage: Vec<Vec<u8>> =
        (0..30).map(|length| (0..length * 7 + 1).map(|_| lot.u8(..)).collect()).collect();
    garbage.push(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec());
    // A good hello with something behind it that nobody has asked for.
    garbage.push([hello(1, 2).encode(), b"more".to_vec()].concat());
    let count = garbage.len() as u64;
    for bytes in garbage {
        let mut stream = TcpStream::connect(two.address()).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let said = answer(&mut stream).await;
        assert_eq!(said, Some(Answer::Refused(Refusal::Malformed)));
    }
    assert_eq!(two.transport.status().refused.by_reason[&Refusal::Malformed], count);
    one.send(2, &b"unharmed"[..]);
    assert_eq!(two.payload().await, &b"unharmed"[..]);
    assert_eq!(one.status(2).to_main.connections, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_limit_of_handshakes_one_more_is_closed_unread() {
    let (one, mut two) = pair().await;
    let mut silent = Vec::new();
    for _ in 0..HANDSHAKES_MAX {
        silent.push(TcpStream::connect(two.address()).await.unwrap());
    }
    let mut past = TcpStream::connect(two.address()).await.unwrap();
    assert_eq!(soon(past.read(&mut [0; 8])).await.unwrap_or(0), 0);
    assert_eq!(two.transport.status().refused.crowded, 1);
    // Who is in is not concerned; and a place that was given back is taken again.
    one.send(2, &b"still here"[..]);
    assert_eq!(two.payload().await, &b"still here"[..]);
    silent.clear();
    until(|| (two.transport.status().refused.late == HANDSHAKES_MAX as u64).then_some(())).await;
    let (_stream, answer) = call(two.address(), &hello(1, 9)).await;
    assert_eq!(answer, Some(Answer::Refused(Refusal::WrongReceiver)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_say_nothing_are_sent_away() {
    let mut config = config(1);
    config.handshake_ms = 20;
    let one = Node::start(config, &peers([]));
    let mut silent = TcpStream::connect(one.address()).await.unwrap();
    assert_eq!(soon(silent.read(&mut [0; 8])).await.unwrap_or(0), 0);
    assert_eq!(one.transport.status().refused.late, 1);
}
