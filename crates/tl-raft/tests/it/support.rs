//! Nodes with nothing but a transport, hand-made ends of connections, and a relay between nodes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use tl_raft::PeerId;
use tl_raft::transport::{
    Answer, Decoder, FrameKind, Heard, Hello, Lane, Peer, PeerStatus, Peers, Seat, Security,
    Transport, TransportConfig, VERSION_NEWEST, VERSION_OLDEST,
};
use tl_types::ids::{ClusterId, NodeId};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub const CLUSTER: ClusterId = ClusterId([0xc1; 16]);
/// No test takes so long; one that hangs ends.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn seat(number: u8) -> Seat {
    Seat { node: NodeId([number; 16]), peer: PeerId(u64::from(number)) }
}

pub fn peer(number: u8, address: SocketAddr) -> Peer {
    Peer { peer: seat(number).peer, node: seat(number).node, address: address.to_string() }
}

pub fn peers(members: impl IntoIterator<Item = Peer>) -> Peers {
    Peers { members: members.into_iter().collect(), removed: [].into() }
}

pub fn anywhere() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

pub fn config(number: u8) -> TransportConfig {
    let security = Security::PlaintextForDev;
    let seed = fastrand::u64(..);
    let mut config = TransportConfig::new(CLUSTER, seat(number), anywhere(), security, seed);
    // Short, so that tests of reconnecting are; nothing depends on how short.
    (config.backoff_min_ms, config.backoff_max_ms) = (5, 50);
    // Long, so that a busy machine changes nothing.
    (config.connect_ms, config.handshake_ms, config.silence_ms) = (30_000, 30_000, 30_000);
    config
}

/// A transport and what it says.
pub struct Node {
    pub transport: Transport,
    heard: mpsc::UnboundedReceiver<Heard>,
}

impl Node {
    pub fn start(config: TransportConfig, peers: &Peers) -> Node {
        let (to, heard) = mpsc::unbounded_channel();
        let say = move |what| drop(to.send(what));
        let transport = Transport::start(config, peers, &Handle::current(), say).unwrap();
        Node { transport, heard }
    }

    pub fn address(&self) -> SocketAddr {
        self.transport.address()
    }

    pub fn send(&self, to: u8, payload: impl Into<Bytes>) {
        self.transport.send(seat(to).peer, FrameKind::Raft, payload.into()).unwrap();
    }

    pub fn into_parts(self) -> (Transport, mpsc::UnboundedReceiver<Heard>) {
        (self.transport, self.heard)
    }

    pub async fn hear(&mut self) -> Heard {
        soon(self.heard.recv()).await.expect("the transport lives")
    }

    /// The next frame, whatever else is heard.
    pub async fn frame(&mut self) -> (PeerId, FrameKind, Bytes) {
        loop {
            if let Heard::Frame { from, kind, payload } = self.hear().await {
                return (from, kind, payload);
            }
        }
    }

    pub async fn payload(&mut self) -> Bytes {
        self.frame().await.2
    }

    /// What was heard and not yet taken.
    pub fn heard_so_far(&mut self) -> Vec<Heard> {
        std::iter::from_fn(|| self.heard.try_recv().ok()).collect()
    }

    pub fn status(&self, of: u8) -> PeerStatus {
        let peers = self.transport.status().peers;
        peers.into_iter().find(|peer| peer.seat.peer == seat(of).peer).expect("a peer")
    }

    /// Waits until the status of a peer is as wanted.
    pub async fn until(&self, of: u8, wanted: impl Fn(&PeerStatus) -> bool) -> PeerStatus {
        until(|| Some(self.status(of)).filter(&wanted)).await
    }

    pub async fn connected(&self, to: u8) {
        self.until(to, |peer| peer.to_main.connected_since.is_some()).await;
    }
}

/// Nodes 1 and 2, connected both ways.
pub async fn pair() -> (Node, Node) {
    let one = Node::start(config(1), &Peers::default());
    let two = Node::start(config(2), &peers([peer(1, one.address())]));
    one.transport.set_peers(&peers([peer(2, two.address())])).unwrap();
    one.connected(2).await;
    two.connected(1).await;
    (one, two)
}

/// Guards against a test that hangs; nothing is concluded from how long it took.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it never came")
}

/// Waits for something that can only be looked at.
pub async fn until<T>(look: impl Fn() -> Option<T>) -> T {
    soon(async {
        loop {
            match look() {
                Some(seen) => return seen,
                None => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
    })
    .await
}

pub fn hello(from: u8, to: u8) -> Hello {
    Hello {
        versions: (VERSION_OLDEST, VERSION_NEWEST),
        lane: Lane::Main,
        cluster: CLUSTER,
        from: seat(from),
        to: seat(to),
        run: 77,
        ordinal: 1,
        birth: None,
    }
}

/// Reads one answer, and nothing past it; `None` at the end of the connection.
pub async fn answer(read: &mut (impl AsyncRead + Unpin)) -> Option<Answer> {
    let mut bytes = Vec::new();
    loop {
        if let Some((answer, _)) = Answer::decode(&bytes).unwrap() {
            return Some(answer);
        }
        match soon(read.read_u8()).await {
            Ok(byte) => bytes.push(byte),
            Err(_) => return None,
        }
    }
}

/// Calls as a node would, by hand.
pub async fn call(address: SocketAddr, hello: &Hello) -> (TcpStream, Option<Answer>) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&hello.encode()).await.unwrap();
    let answer = answer(&mut stream).await;
    (stream, answer)
}

/// A peer by hand: accepts one connection and its hello, and reads nothing more until told.
pub async fn accept_by_hand(listener: &TcpListener) -> (TcpStream, Hello) {
    let (mut stream, _) = soon(listener.accept()).await.unwrap();
    let hello = read_hello(&mut stream).await;
    let accepted = Answer::Accepted { version: VERSION_NEWEST, cluster: CLUSTER, seat: hello.to };
    stream.write_all(&accepted.encode()).await.unwrap();
    (stream, hello)
}

async fn read_hello(stream: &mut TcpStream) -> Hello {
    let mut bytes = Vec::new();
    loop {
        if let Some((hello, _)) = Hello::decode(&bytes).unwrap() {
            return hello;
        }
        bytes.push(soon(stream.read_u8()).await.unwrap());
    }
}

/// Reads so many frames off a connection accepted by hand.
pub async fn read_frames(stream: &mut TcpStream, count: usize) -> Vec<(FrameKind, Bytes)> {
    let mut decoder = Decoder::new(Lane::Main);
    let mut frames = Vec::new();
    while frames.len() < count {
        if let Some(frame) = decoder.frame().unwrap() {
            frames.push(frame);
        } else {
            assert_ne!(soon(stream.read_buf(&mut decoder.room())).await.unwrap(), 0);
        }
    }
    frames
}

/// What a relay does to one connection, towards the node that was called.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// Flips a bit of the byte at this place.
    Flip(usize),
    /// Cuts both ways after so many bytes.
    Cut(usize),
}

/// Stands between two nodes and hands bytes on; each connection suffers the next fault of a list.
pub struct Relay {
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Relay {
    pub async fn start(to: SocketAddr, faults: impl IntoIterator<Item = Fault>) -> Relay {
        let listener = TcpListener::bind(anywhere()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let faults = Arc::new(Mutex::new(faults.into_iter().collect::<Vec<_>>().into_iter()));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let fault = faults.lock().next();
                tokio::spawn(relay(stream, to, fault));
            }
        });
        Relay { address, task }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn relay(from: TcpStream, to: SocketAddr, fault: Option<Fault>) {
    let Ok(to) = TcpStream::connect(to).await else { return };
    let (mut from_read, mut from_write) = from.into_split();
    let (mut to_read, mut to_write) = to.into_split();
    let forth = async {
        hand_on(&mut from_read, &mut to_write, fault).await;
        drop(to_write);
    };
    let back = async {
        let _ = tokio::io::copy(&mut to_read, &mut from_write).await;
    };
    // Whichever way ends, the other is cut too.
    tokio::select! {
        () = forth => {}
        () = back => {}
    }
}

async fn hand_on(
    read: &mut (impl AsyncRead + Unpin),
    write: &mut (impl AsyncWrite + Unpin),
    fault: Option<Fault>,
) {
    let mut passed = 0;
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = read.read(&mut buffer).await {
        let mut bytes = &mut buffer[..count];
        match fault {
            Some(Fault::Flip(at)) if (passed..passed + count).contains(&at) => {
                bytes[at - passed] ^= 4;
            }
            Some(Fault::Cut(at)) if passed + count >= at => {
                bytes = &mut bytes[..at - passed];
                let _ = write.write_all(bytes).await;
                return;
            }
            Some(_) | None => {}
        }
        if write.write_all(bytes).await.is_err() {
            return;
        }
        passed += count;
    }
}

/// A payload whose bytes say which one it is.
pub fn numbered(number: u32, payload_bytes: usize) -> Bytes {
    let mut payload = number.to_be_bytes().to_vec();
    payload.resize(payload_bytes.max(4), (number % 251) as u8);
    payload.into()
}

pub fn number_of(payload: &Bytes) -> u32 {
    payload.clone().get_u32()
}
