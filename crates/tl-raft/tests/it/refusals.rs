//! Who is let in, and what the others are told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use tl_raft::PeerId;
use tl_raft::transport::{
    Admission, Answer, Birth, Births, Heard, Hello, Lane, Peers, PeersError, Refusal, Seat,
    Security, Transport, TransportError, Trouble, VERSION_NEWEST,
};
use tl_types::ids::{ClusterId, NodeId};
use tokio::runtime::Handle;

use crate::support::*;

const REFUSED: fn(Refusal) -> Option<Answer> = |refusal| Some(Answer::Refused(refusal));

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_is_told_why_it_is_not_let_in() {
    let known = Peers {
        members: vec![peer(2, "127.0.0.1:9".parse().unwrap())],
        removed: BTreeSet::from([PeerId(3)]),
    };
    let mut one = Node::start(config(1), &known);
    let change = |change: &dyn Fn(&mut Hello)| {
        let mut hello = hello(2, 1);
        change(&mut hello);
        hello
    };
    let wrong: [(Hello, Refusal); 7] = [
        (change(&|hello| hello.versions = (9, 12)), Refusal::Version),
        (change(&|hello| hello.cluster = ClusterId([7; 16])), Refusal::ForeignCluster),
        (change(&|hello| hello.to = seat(5)), Refusal::WrongReceiver),
        (change(&|hello| hello.to.peer = PeerId(11)), Refusal::WrongReceiver),
        (change(&|hello| hello.from = seat(4)), Refusal::UnknownLife),
        (change(&|hello| hello.from.node = NodeId([9; 16])), Refusal::UnknownLife),
        (change(&|hello| hello.from = seat(3)), Refusal::RemovedLife),
    ];
    for (hello, refusal) in wrong {
        let (mut stream, said) = call(one.address(), &hello).await;
        assert_eq!(said, REFUSED(refusal));
        assert_eq!(answer(&mut stream).await, None, "then it ends");
        let refused = one.transport.status().refused;
        assert_eq!(refused.last.map(|(_, refusal)| refusal), Some(refusal));
    }
    let counted = one.transport.status().refused.by_reason;
    assert_eq!(counted[&Refusal::WrongReceiver], 2);
    assert_eq!(counted.values().sum::<u64>(), 7);
    assert_eq!(one.status(2).from_main.last_refusal, Some(Refusal::UnknownLife));
    assert_eq!(one.status(2).from_main.connections, 0);

    // Newer versions than ours are no reason, as long as one is common.
    let (_stream, said) = call(one.address(), &change(&|hello| hello.versions.1 = 200)).await;
    let accepted = Answer::Accepted { version: VERSION_NEWEST, cluster: CLUSTER, seat: seat(1) };
    assert_eq!(said, Some(accepted));
    assert_eq!(one.heard_so_far(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_one_that_calls_says_why_it_was_not_let_in() {
    let target = Node::start(config(1), &Peers::default());
    let caller = Node::start(config(2), &peers([peer(1, target.address())]));
    let is = |refusal| move |trouble: &Option<Trouble>| *trouble == Some(Trouble::Refused(refusal));
    let unknown = is(Refusal::UnknownLife);
    caller.until(1, |peer| unknown(&peer.to_main.last_trouble)).await;

    let elsewhere = Node::start(config(2), &peers([peer(3, target.address())]));
    let wrong = is(Refusal::WrongReceiver);
    elsewhere.until(3, |peer| wrong(&peer.to_main.last_trouble)).await;

    let mut config = config(2);
    config.cluster = ClusterId([7; 16]);
    let foreign = Node::start(config, &peers([peer(1, target.address())]));
    let other = is(Refusal::ForeignCluster);
    foreign.until(1, |peer| other(&peer.to_main.last_trouble)).await;

    // As soon as it is known, it is let in.
    target.transport.set_peers(&peers([peer(2, caller.address())])).unwrap();
    caller.connected(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_connections_of_one_peer_the_newer_wins() {
    let mut one = Node::start(config(1), &peers([peer(2, "127.0.0.1:9".parse().unwrap())]));
    let at = |run, ordinal| Hello { run, ordinal, ..hello(2, 1) };
    let accepted =
        Some(Answer::Accepted { version: VERSION_NEWEST, cluster: CLUSTER, seat: seat(1) });
    let (mut first, said) = call(one.address(), &at(77, 5)).await;
    assert_eq!(said, accepted);
    let (mut second, said) = call(one.address(), &at(77, 6)).await;
    assert_eq!(said, accepted);
    assert_eq!(answer(&mut first).await, REFUSED(Refusal::Replaced));
    // One that was made before and comes later has lost already.
    let (_late, said) = call(one.address(), &at(77, 4)).await;
    assert_eq!(said, REFUSED(Refusal::Replaced));
    // Bulk is another matter.
    let (mut bulk, said) = call(one.address(), &Hello { lane: Lane::Bulk, ..at(77, 7) }).await;
    assert_eq!(said, accepted);
    // A new run of the process is always the newer.
    let (third, said) = call(one.address(), &at(78, 1)).await;
    assert_eq!(said, accepted);
    assert_eq!(answer(&mut second).await, REFUSED(Refusal::Replaced));
    drop(third);
    one.until(2, |peer| peer.from_main.connected_since.is_none()).await;
    let status = one.status(2);
    assert_eq!((status.from_main.connections, status.from_bulk.connections), (3, 1));
    assert!(status.from_bulk.connected_since.is_some());
    assert_eq!(one.heard_so_far(), []);
    one.transport.stop().await;
    assert_eq!(answer(&mut bulk).await, REFUSED(Refusal::Stopping));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_is_removed_is_cut_off_at_once() {
    let (mut one, mut two) = pair().await;
    two.send(1, &b"before"[..]);
    assert_eq!(one.payload().await, &b"before"[..]);
    let removed = Peers { members: vec![], removed: BTreeSet::from([PeerId(2)]) };
    one.transport.set_peers(&removed).unwrap();
    let told = [Trouble::Ended(Refusal::RemovedLife), Trouble::Refused(Refusal::RemovedLife)];
    two.until(1, |peer| peer.to_main.last_trouble.as_ref().is_some_and(|t| told.contains(t))).await;
    two.until(1, |peer| peer.to_main.last_trouble == Some(Trouble::Refused(Refusal::RemovedLife)))
        .await;
    two.until(1, |peer| peer.from_main.connected_since.is_none()).await;
    assert!(one.transport.status().peers.is_empty());
    hear_until(&mut two, &Heard::Removed { by: PeerId(1) }).await;
    let frames = one.heard_so_far();
    assert!(!frames.iter().any(|heard| matches!(heard, Heard::Frame { .. })), "{frames:?}");
    // The node comes back in a new life.
    let address = two.address();
    two.transport.stop().await;
    let mut config = config(2);
    config.seat = Seat { node: seat(2).node, peer: PeerId(12) };
    config.listen = address;
    let two = Node::start(config, &peers([peer(1, one.address())]));
    let mut again = peer(2, address);
    again.peer = PeerId(12);
    one.transport.set_peers(&Peers { members: vec![again], ..removed }).unwrap();
    two.connected(1).await;
    two.send(1, &b"after"[..]);
    let (from, _, payload) = one.frame().await;
    assert_eq!((from, payload.as_ref()), (PeerId(12), &b"after"[..]));
}

#[tokio::test]
async fn without_certificates_nothing_but_loopback_is_touched() {
    let start = |listen: &str, peer_address: &str| {
        let mut config = config(1);
        config.listen = listen.parse().unwrap();
        let peers = peers([peer(2, peer_address.parse().unwrap())]);
        Transport::start(config, &peers, &Handle::current(), drop).map(drop)
    };
    assert!(start("127.0.0.1:0", "127.0.0.1:9").is_ok());
    for (listen, peer) in [("0.0.0.0:0", "127.0.0.1:9"), ("127.0.0.1:0", "192.0.2.1:9")] {
        let refused = start(listen, peer).unwrap_err();
        let loopback = matches!(&refused, TransportError::Peers(PeersError::NotLoopback { .. }));
        assert!(loopback, "{refused}");
    }
    let one = Node::start(config(1), &Peers::default());
    let far = peers([peer(2, "192.0.2.1:9".parse().unwrap())]);
    assert!(matches!(one.transport.set_peers(&far), Err(PeersError::NotLoopback { .. })));
    assert!(one.transport.status().peers.is_empty());
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused() {
    let refused = |change: &dyn Fn(&mut tl_raft::transport::TransportConfig)| {
        let mut config = config(1);
        change(&mut config);
        let started = Transport::start(config, &Peers::default(), &Handle::current(), drop);
        matches!(started, Err(TransportError::Settings { .. }))
    };
    assert!(!refused(&|_| ()));
    assert!(refused(&|config| config.seat.peer = PeerId(0)));
    assert!(refused(&|config| config.queue.bytes_max = 1));
    assert!(refused(&|config| config.bulk_queue.bytes_max = 1));
    assert!(refused(&|config| config.queue.frames_max = 0));
    assert!(refused(&|config| config.connect_ms = 0));
    assert!(refused(&|config| config.backoff_max_ms = config.backoff_min_ms - 1));
    let one = Node::start(config(1), &Peers::default());
    let mut taken = config(2);
    taken.listen = one.address();
    let started = Transport::start(taken, &Peers::default(), &Handle::current(), drop);
    assert!(matches!(started, Err(TransportError::Listen { .. })));
    assert_eq!(config(1).security, Security::PlaintextForDev);
}

/// How a book is written.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Disk {
    #[default]
    Works,
    Full,
    Broken,
}

/// Remembers the first directory of each life.
#[derive(Debug, Default)]
struct Book {
    lives: Mutex<BTreeMap<PeerId, Birth>>,
    disk: Mutex<Disk>,
}

impl Births for Book {
    fn known(&self, seat: Seat, birth: Birth) -> Option<Admission> {
        let first = *self.lives.lock().unwrap().get(&seat.peer)?;
        Some(if first == birth { Admission::Admitted } else { Admission::Another })
    }

    fn admit(&self, seat: Seat, birth: Birth) -> Admission {
        let disk = *self.disk.lock().unwrap();
        assert_ne!(disk, Disk::Broken, "a book that breaks");
        if disk == Disk::Full {
            return Admission::NotNow;
        }
        assert_eq!(self.lives.lock().unwrap().insert(seat.peer, birth), None, "it was known");
        Admission::Admitted
    }
}

/// Passes over what a node hears before.
async fn hear_until(node: &mut Node, wanted: &Heard) {
    soon(async { while node.hear().await != *wanted {} }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_life_from_another_directory_is_refused_and_told_so() {
    let mut with_book = config(1);
    with_book.births = Arc::new(Book::default());
    let one = Node::start(with_book, &peers([peer(2, "127.0.0.1:9".parse().unwrap())]));
    let born = |ordinal, birth| Hello { ordinal, birth, ..hello(2, 1) };
    for (ordinal, birth) in (1..).zip([Some([1; 16]), Some([1; 16]), None]) {
        let (_stream, said) = call(one.address(), &born(ordinal, birth)).await;
        assert!(matches!(said, Some(Answer::Accepted { .. })), "{birth:?}: {said:?}");
    }
    let (_stream, said) = call(one.address(), &born(9, Some([2; 16]))).await;
    assert_eq!(said, REFUSED(Refusal::OtherBirth));
    assert_eq!(one.transport.status().refused.by_reason[&Refusal::OtherBirth], 1);
    // The caller hears it.
    let mut other = config(2);
    other.birth = Some([2; 16]);
    let mut two = Node::start(other, &peers([peer(1, one.address())]));
    hear_until(&mut two, &Heard::OtherBirth { by: PeerId(1) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_birth_that_cannot_be_written_down_keeps_the_caller_out_until_it_can() {
    let book = Arc::new(Book::default());
    let mut with_book = config(1);
    with_book.births = Arc::<Book>::clone(&book);
    let one = Node::start(with_book, &peers([peer(2, "127.0.0.1:9".parse().unwrap())]));
    let mut born = config(2);
    born.birth = Some([1; 16]);
    let mut two = Node::start(born, &peers([peer(1, one.address())]));
    two.connected(1).await;
    // Who is known already needs no disk, and who is not waits for it; also if the book breaks.
    let other = |ordinal, birth| Hello { ordinal, birth: Some(birth), ..hello(3, 1) };
    let mut known = peers([peer(2, two.address()), peer(3, "127.0.0.1:9".parse().unwrap())]);
    one.transport.set_peers(&known).unwrap();
    for (disk, ordinal) in [(Disk::Full, 1), (Disk::Broken, 2)] {
        *book.disk.lock().unwrap() = disk;
        let (_stream, said) = call(one.address(), &other(ordinal, [3; 16])).await;
        assert_eq!(said, REFUSED(Refusal::UnwrittenBirth));
        let (_stream, said) =
            call(one.address(), &Hello { ordinal, birth: Some([1; 16]), ..hello(2, 1) }).await;
        assert!(matches!(said, Some(Answer::Accepted { .. })), "{said:?}");
    }
    let kept_out = Some(Trouble::Refused(Refusal::UnwrittenBirth));
    let mut born = config(3);
    born.birth = Some([4; 16]);
    let mut three = Node::start(born, &peers([peer(1, one.address())]));
    three.until(1, |peer| peer.to_main.last_trouble == kept_out).await;
    *book.disk.lock().unwrap() = Disk::Works;
    known.members[1].address = three.address().to_string();
    one.transport.set_peers(&known).unwrap();
    three.connected(1).await;
    for node in [&mut two, &mut three] {
        let heard = node.heard_so_far();
        assert!(!heard.iter().any(|heard| matches!(heard, Heard::OtherBirth { .. })), "{heard:?}");
    }
    assert!(!one.transport.status().refused.by_reason.contains_key(&Refusal::OtherBirth));
}
