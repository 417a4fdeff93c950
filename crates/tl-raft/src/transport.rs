//! The transport: frames between the nodes of a cluster.
//!
//! ```text
//!   send ─► queue ─► dial: connect, hello ═══════════► accept: judge ─► heard(Frame)
//!                      one task per peer and lane        one task per connection
//! ```
//!
//! To each peer there are two connections of this node's own, and from each peer two of its own:
//! *main* for frames of the driver, requests and replies, and *bulk* for what is large, opened
//! when there is some. Who calls sends, who is called receives.
//!
//! Invariants:
//!  - T1 a frame is handed on whole and unharmed or not at all, in the order of its class, at
//!    most once;
//!  - T2 only from a member of this cluster, in its present life, that meant this node in its
//!    present life, and with TLS only from whom the certificate names;
//!  - T3 what waits for one peer is bounded, and waits in nobody else's way;
//!  - T4 [`Transport::send`] never waits;
//!  - T5 after [`Transport::stop`] nothing of it is left running and nothing more is heard.
//!
//! Frames of the driver may be lost, when there is no room and when a connection breaks: Raft
//! repairs. A request that comes back as [`Heard::Unsent`], or was refused by `send`, has not
//! reached anybody; of any other the outcome is unknown. Nothing is sent twice.
//!
//! `codec`, `hello`, `queue`, `batch` and `backoff` are functions of values; sockets are in
//! `dial` and `accept`. Absent: what frames mean, who should be a member, retries of requests.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use crate::deeds::PeerId;

mod accept;
mod backoff;
mod batch;
mod codec;
mod dial;
mod hello;
mod incoming;
mod link;
mod outlet;
mod peers;
mod queue;
mod sealed;
mod settings;
mod status;
mod tls;
mod wire;

pub use self::batch::{BATCH_BYTES_MAX, BATCH_FRAMES_MAX};
pub use self::codec::{BULK_CHUNK_BYTES_MAX, Decoder, FrameKind, HEAD_BYTES};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use self::codec::{Damage, head};
pub use self::hello::{Answer, Birth, Hello, Lane, Refusal, Seat, VERSION_NEWEST, VERSION_OLDEST};
pub use self::peers::{ADDRESS_BYTES_MAX, PEERS_MAX, Peer, Peers, PeersError, REMOVED_MAX};
pub use self::queue::{QueueLimits, URGENT_BYTES_MAX, URGENT_FRAMES_MAX};
pub use self::settings::{
    Admission, Births, HANDSHAKES_MAX, Security, TransportConfig, TransportError,
};
pub use self::status::{
    LaneState, PeerStatus, ReceiveStatus, Refused, SendStatus, TransportStatus, Trouble,
};
pub use self::tls::{CERTIFICATE_BYTES_MAX, CertificateError, CertificateFiles, node_name};

use self::hello::Standing;
use self::incoming::Incoming;
use self::link::Link;
use self::tls::Certificates;

/// What the transport has to say. It is said on the connections' tasks: while a frame is being
/// taken, nothing more is read from that peer. Whoever listens must not block: tasks of other
/// connections may be waiting for that very thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// A frame came.
    Frame {
        /// Who sent it: a member, authenticated.
        from: PeerId,
        /// What it carries.
        kind: FrameKind,
        /// What was given to the sender's [`Transport::send`].
        payload: Bytes,
    },
    /// The main connection to this peer broke: what was sent lately may be lost.
    Lost {
        /// The peer.
        peer: PeerId,
    },
    /// A request that had been taken will not be sent; no byte of it has left.
    Unsent {
        /// For whom it was.
        to: PeerId,
        /// The request.
        payload: Bytes,
    },
    /// A member says that it knows this life by another directory. Said again with every attempt to
    /// call it.
    OtherBirth {
        /// Who says it.
        by: PeerId,
    },
    /// A member says that this life of the node was removed from the cluster for good. Said again
    /// with every attempt to call it.
    Removed {
        /// Who says it.
        by: PeerId,
    },
}

/// Why a frame was not taken. It has not left, and will not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The peer is not on the list.
    #[error("the peer is not known")]
    UnknownPeer,
    /// There is no connection to the peer, and the next attempt has not begun.
    #[error("there is no connection to the peer")]
    NotConnected,
    /// So much waits for the peer already.
    #[error("too much waits for the peer")]
    Full,
    /// No frame may be so long.
    #[error("the frame is too long")]
    TooLong,
}

/// What all tasks share.
struct Shared {
    config: TransportConfig,
    certificates: Option<Certificates>,
    table: RwLock<Table>,
    incoming: Arc<Incoming>,
    heard: Box<dyn Fn(Heard) + Send + Sync>,
    /// Connections opened by this run.
    ordinals: AtomicU64,
    refused: Mutex<Refused>,
    reloads: AtomicU64,
    certificates_trouble: Mutex<Option<String>>,
}

#[derive(Default)]
struct Table {
    links: BTreeMap<PeerId, Arc<Link>>,
    removed: BTreeSet<PeerId>,
}

impl Table {
    fn standing(&self, seat: Seat) -> Standing {
        match self.links.get(&seat.peer) {
            Some(link) if link.seat == seat => Standing::Member,
            _ if self.removed.contains(&seat.peer) => Standing::Removed,
            _ => Standing::Unknown,
        }
    }
}

impl Shared {
    fn link(&self, peer: PeerId) -> Option<Arc<Link>> {
        self.table.read().links.get(&peer).map(Arc::clone)
    }

    fn standing(&self, seat: Seat) -> Standing {
        self.table.read().standing(seat)
    }

    fn next_ordinal(&self) -> u64 {
        self.ordinals.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn refuse(&self, address: SocketAddr, hello: Option<&Hello>, refusal: Refusal) {
        let mut refused = self.refused.lock();
        *refused.by_reason.entry(refusal).or_default() += 1;
        let last = refused.last.replace((address, refusal));
        drop(refused);
        let news = match hello.and_then(|hello| Some((hello, self.link(hello.from.peer)?))) {
            Some((hello, link)) => link.refused(hello.lane, refusal),
            // Ports differ from call to call; the machine and the reason say whether it is new.
            None => last.is_none_or(|(from, why)| (from.ip(), why) != (address.ip(), refusal)),
        };
        let from = hello.map(|hello| format!("node {} as {}", hello.from.node, hello.from.peer));
        let from = from.unwrap_or_default();
        if news {
            tracing::warn!(%address, from, reason = refusal.word(), "refused a connection");
        } else {
            tracing::debug!(%address, from, reason = refusal.word(), "refused a connection");
        }
    }

    fn refuse_tls(&self, address: SocketAddr, error: &io::Error) {
        let why = error.to_string();
        let mut refused = self.refused.lock();
        refused.tls += 1;
        let news = refused.last_tls.as_ref() != Some(&why);
        refused.last_tls = Some(why);
        drop(refused);
        if news {
            tracing::warn!(%address, %error, "a caller's certificate was not accepted");
        }
    }

    /// Reads the certificate files again.
    fn look_at_certificates(&self) {
        let Some(certificates) = &self.certificates else { return };
        let trouble = match certificates.look() {
            Ok(changed) => {
                if changed {
                    self.reloads.fetch_add(1, Ordering::Relaxed);
                    tracing::info!("changed certificates hold for new connections");
                }
                None
            }
            Err(error) => Some(said_with_sources(&error)),
        };
        let mut last = self.certificates_trouble.lock();
        if let Some(trouble) = &trouble
            && last.as_ref() != Some(trouble)
        {
            tracing::warn!(trouble, "the certificate files cannot be used; the former ones hold");
        }
        *last = trouble;
    }
}

fn said_with_sources(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        said = format!("{said}: {error}");
        source = error.source();
    }
    said
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // That the sender is gone means the same.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Frames between this node and its peers.
pub struct Transport {
    shared: Arc<Shared>,
    address: SocketAddr,
    runtime: Handle,
    stop: watch::Sender<bool>,
    /// A clone with every task: when all are gone, every task has ended. `None` once it stops.
    alive: Mutex<Option<mpsc::Sender<()>>>,
    ended: mpsc::Receiver<()>,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Sends for whoever holds it; may outlive the transport, and then knows no peer.
#[derive(Clone)]
pub struct TransportSender(Arc<Shared>);

impl fmt::Debug for TransportSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TransportSender")
    }
}

impl TransportSender {
    /// As [`Transport::send`].
    ///
    /// # Errors
    /// As there.
    pub fn send(&self, to: PeerId, kind: FrameKind, payload: Bytes) -> Result<(), SendError> {
        if payload.len() > kind.payload_bytes_max() {
            return Err(SendError::TooLong);
        }
        let link = self.0.link(to).ok_or(SendError::UnknownPeer)?;
        link.outlet(kind.lane()).push(kind, payload)
    }

    /// As [`TransportSender::send`], but the frame may wait until [`TransportSender::release`].
    ///
    /// # Errors
    /// As there.
    pub fn hold(&self, to: PeerId, kind: FrameKind, payload: Bytes) -> Result<(), SendError> {
        if payload.len() > kind.payload_bytes_max() {
            return Err(SendError::TooLong);
        }
        let link = self.0.link(to).ok_or(SendError::UnknownPeer)?;
        link.outlet(kind.lane()).hold(kind, payload)
    }

    /// Sends what waits for a peer on the main connection: on this thread as far as the socket
    /// takes it at once. Never waits.
    pub fn release(&self, to: PeerId) {
        if let Some(link) = self.0.link(to) {
            link.outlet(Lane::Main).release();
        }
    }

    /// Waits until a request, reply or chunk of so many bytes would be taken; it may have to be
    /// waited for again, since others send too.
    ///
    /// # Errors
    /// As for sending, except that there is no room.
    pub async fn wait_for_room(
        &self,
        to: PeerId,
        kind: FrameKind,
        payload_bytes: usize,
    ) -> Result<(), SendError> {
        if payload_bytes > kind.payload_bytes_max() {
            return Err(SendError::TooLong);
        }
        let link = self.0.link(to).ok_or(SendError::UnknownPeer)?;
        link.outlet(kind.lane()).wait_for_room(payload_bytes).await
    }
}

impl Transport {
    /// Listens, and calls every peer. The tasks run on `runtime`; `heard` is called on them.
    ///
    /// # Errors
    /// When settings, peers or certificates cannot be used, or the address cannot be listened on.
    pub fn start(
        config: TransportConfig,
        peers: &Peers,
        runtime: &Handle,
        heard: impl Fn(Heard) + Send + Sync + 'static,
    ) -> Result<Transport, TransportError> {
        config.check()?;
        peers.check(config.seat, config.plaintext())?;
        let certificates = match &config.security {
            Security::PlaintextForDev => None,
            Security::MutualTls(files) => {
                Some(Certificates::load(files.clone(), config.seat.node)?)
            }
        };
        let (listener, address) = listen(config.listen, runtime)
            .map_err(|source| TransportError::Listen { address: config.listen, source })?;
        let look_every = Duration::from_millis(config.certificates_look_ms);
        let shared = Arc::new(Shared {
            config,
            certificates,
            table: RwLock::default(),
            incoming: Arc::default(),
            heard: Box::new(heard),
            ordinals: AtomicU64::new(0),
            refused: Mutex::default(),
            reloads: AtomicU64::new(0),
            certificates_trouble: Mutex::default(),
        });
        let (alive, ended) = mpsc::channel(1);
        let stop = watch::Sender::new(false);
        let transport = Transport {
            shared: Arc::clone(&shared),
            address,
            runtime: runtime.clone(),
            stop,
            alive: Mutex::new(Some(alive.clone())),
            ended,
        };
        transport.apply(peers, &alive);
        transport.spawn(&alive, accept::run(shared, listener, transport.stop.subscribe()));
        if transport.shared.certificates.is_some() {
            let shared = Arc::clone(&transport.shared);
            let watch = watch_certificates(shared, look_every, transport.stop.subscribe());
            transport.spawn(&alive, watch);
        }
        Ok(transport)
    }

    fn spawn(&self, alive: &mpsc::Sender<()>, task: impl Future<Output = ()> + Send + 'static) {
        let alive = alive.clone();
        self.runtime.spawn(async move {
            task.await;
            drop(alive);
        });
    }

    /// Where this node listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Something that sends, for other threads.
    #[must_use]
    pub fn sender(&self) -> TransportSender {
        TransportSender(Arc::clone(&self.shared))
    }

    /// Takes a frame to be sent, without waiting. That it was taken does not mean that it
    /// arrives.
    ///
    /// # Errors
    /// When it was not taken; it is counted.
    pub fn send(&self, to: PeerId, kind: FrameKind, payload: Bytes) -> Result<(), SendError> {
        self.sender().send(to, kind, payload)
    }

    /// From now on these are the peers: new ones are called, those that are gone are neither
    /// spoken to nor listened to, and those that have moved are called at their new address.
    ///
    /// # Errors
    /// When the list cannot be used; nothing has changed then.
    pub fn set_peers(&self, peers: &Peers) -> Result<(), PeersError> {
        let config = &self.shared.config;
        peers.check(config.seat, config.plaintext())?;
        if let Some(alive) = &*self.alive.lock() {
            self.apply(peers, alive);
        }
        Ok(())
    }

    fn apply(&self, peers: &Peers, alive: &mpsc::Sender<()>) {
        let mut links = BTreeMap::new();
        let mut new = Vec::new();
        let mut table = self.shared.table.write();
        for peer in &peers.members {
            let standing = table.links.get(&peer.peer).filter(|link| link.seat == peer.seat());
            let link = match standing {
                Some(link) => {
                    link.move_to(&peer.address);
                    Arc::clone(link)
                }
                None => {
                    let address = peer.address.clone();
                    let link = Arc::new(Link::new(peer.seat(), address, &self.shared.config));
                    new.push(Arc::clone(&link));
                    link
                }
            };
            links.insert(peer.peer, link);
        }
        let removed = peers.removed.clone();
        let former = std::mem::replace(&mut *table, Table { links, removed });
        let mut gone = BTreeMap::new();
        for (peer, link) in former.links {
            if table.standing(link.seat) != Standing::Member {
                link.stop();
                let refusal = match table.removed.contains(&peer) {
                    true => Refusal::RemovedLife,
                    false => Refusal::UnknownLife,
                };
                gone.insert(peer, refusal);
            }
        }
        drop(table);
        self.shared.incoming.end(|peer| gone.get(&peer).copied());
        for link in new {
            for lane in [Lane::Main, Lane::Bulk] {
                let shared = Arc::clone(&self.shared);
                let control = link.control();
                self.spawn(alive, dial::run(shared, Arc::clone(&link), lane, control));
            }
        }
    }

    /// Reads the certificate files now, as is done every so often anyway.
    pub fn look_at_certificates(&self) {
        self.shared.look_at_certificates();
    }

    /// Where everything stands.
    #[must_use]
    pub fn status(&self) -> TransportStatus {
        let links: Vec<_> = self.shared.table.read().links.values().map(Arc::clone).collect();
        TransportStatus {
            peers: links.iter().map(|link| link.status()).collect(),
            refused: self.shared.refused.lock().clone(),
            certificates_reloaded: self.shared.reloads.load(Ordering::Relaxed),
            certificates_trouble: self.shared.certificates_trouble.lock().clone(),
        }
    }

    /// Ends every connection and waits until the last task is gone. What waits is not sent.
    pub async fn stop(mut self) {
        self.tell_to_stop();
        // Nothing is ever sent: it ends when the last sender is dropped.
        let _ = self.ended.recv().await;
    }

    fn tell_to_stop(&self) {
        self.alive.lock().take();
        self.stop.send_replace(true);
        let former = std::mem::take(&mut *self.shared.table.write());
        for link in former.links.values() {
            link.stop();
        }
    }
}

/// Dropped without [`Transport::stop`], the tasks end all the same, a little later.
impl Drop for Transport {
    fn drop(&mut self) {
        self.tell_to_stop();
    }
}

fn listen(
    address: SocketAddr,
    runtime: &Handle,
) -> io::Result<(tokio::net::TcpListener, SocketAddr)> {
    // A node that comes back listens where it did, also while old connections are dying there.
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(128)?;
    socket.set_nonblocking(true)?;
    let _context = runtime.enter();
    let listener = tokio::net::TcpListener::from_std(socket.into())?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

async fn watch_certificates(shared: Arc<Shared>, every: Duration, stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = stopped(stop.clone()) => return,
            () = tokio::time::sleep(every) => {}
        }
        // Files may be slow. Waited for also when stopping, so that nothing is left running.
        let shared = Arc::clone(&shared);
        let look = tokio::task::spawn_blocking(move || shared.look_at_certificates());
        if let Err(error) = look.await {
            tracing::error!(%error, "the certificate files could not be looked at");
        }
    }
}
