//! What a transport is told when it starts, and its fixed ceilings.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tl_types::ids::ClusterId;

use super::hello::{Birth, Seat};
use super::peers::PeersError;
use super::queue::QueueLimits;
use super::tls::{CertificateError, CertificateFiles};
use crate::config::FRAME_BYTES_ACCEPTED_MAX;

/// Connections whose handshake is under way. One past: closed at once, unread.
pub const HANDSHAKES_MAX: usize = 64;
/// How long the last word to a peer may take, and how long its bytes are then passed over so that
/// the word is not lost with them, milliseconds.
pub const FAREWELL_MS: u64 = 1_000;
/// Pause after a failure to accept, which is most often a lack of descriptors, milliseconds.
pub const ACCEPT_PAUSE_MS: u64 = 100;

/// How connections are protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Security {
    /// Not at all: for a cluster on one machine, while developing. Every address must be a
    /// literal loopback one.
    PlaintextForDev,
    /// By certificates on both ends.
    MutualTls(CertificateFiles),
}

/// Whether a life may speak from a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It is the one that it is known by, or needs none.
    Admitted,
    /// It is known by another one: this does not pass.
    Another,
    /// That it comes from this one could not be written down. This may pass.
    NotNow,
}

/// By which directory each life is known.
pub trait Births: std::fmt::Debug + Send + Sync {
    /// What is known already; `None` for a life that is not. Waits for nothing.
    fn known(&self, seat: Seat, birth: Birth) -> Option<Admission>;

    /// The same for a life that was not known: the first directory that it comes from is remembered
    /// for good before this admits it, and no other passes then. May wait for a disk.
    fn admit(&self, seat: Seat, birth: Birth) -> Admission;
}

/// For whoever has nothing to remember it in.
#[derive(Debug)]
struct AnyBirth;

impl Births for AnyBirth {
    fn known(&self, _: Seat, _: Birth) -> Option<Admission> {
        Some(Admission::Admitted)
    }

    fn admit(&self, _: Seat, _: Birth) -> Admission {
        Admission::Admitted
    }
}

/// Settings of one [`Transport`](super::Transport).
#[derive(Debug, Clone)]
pub struct TransportConfig {
    /// The cluster that this node belongs to.
    pub cluster: ClusterId,
    /// This node in this life.
    pub seat: Seat,
    /// What this node's directory drew when its log was made; `None` says nothing of it.
    pub birth: Option<Birth>,
    /// What is known of the directories of others.
    pub births: Arc<dyn Births>,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// How connections are protected.
    pub security: Security,
    /// Names this run of the process and decides waits; draw a new one at every start.
    pub seed: u64,
    /// What may wait for one peer on its main connection.
    pub queue: QueueLimits,
    /// What may wait for one peer on its bulk connection.
    pub bulk_queue: QueueLimits,
    /// Longest time to reach a peer's socket, milliseconds.
    pub connect_ms: u64,
    /// Longest time for TLS and handshake, on either end, milliseconds.
    pub handshake_ms: u64,
    /// A connection on which nothing is acknowledged for so long is given up, milliseconds. Also
    /// how long one write may wait for a peer that reads nothing.
    pub silence_ms: u64,
    /// Shortest wait before a peer is called again, milliseconds.
    pub backoff_min_ms: u64,
    /// Longest wait before a peer is called again, milliseconds.
    pub backoff_max_ms: u64,
    /// A bulk connection with nothing to send for so long is closed, milliseconds.
    pub bulk_idle_ms: u64,
    /// How often the certificate files are read, milliseconds.
    pub certificates_look_ms: u64,
}

impl TransportConfig {
    /// The usual settings.
    #[must_use]
    pub fn new(
        cluster: ClusterId,
        seat: Seat,
        listen: SocketAddr,
        security: Security,
        seed: u64,
    ) -> TransportConfig {
        TransportConfig {
            cluster,
            seat,
            birth: None,
            births: Arc::new(AnyBirth),
            listen,
            security,
            seed,
            queue: QueueLimits { bytes_max: 64 * 1024 * 1024, frames_max: 8_192 },
            bulk_queue: QueueLimits { bytes_max: 8 * 1024 * 1024, frames_max: 64 },
            connect_ms: 1_000,
            handshake_ms: 3_000,
            silence_ms: 5_000,
            backoff_min_ms: 50,
            backoff_max_ms: 2_000,
            bulk_idle_ms: 30_000,
            certificates_look_ms: 5_000,
        }
    }

    pub(super) fn plaintext(&self) -> bool {
        self.security == Security::PlaintextForDev
    }

    pub(super) fn check(&self) -> Result<(), TransportError> {
        let wrong = |why| Err(TransportError::Settings { why });
        if self.seat.peer.0 == 0 {
            return wrong("0 names no peer");
        }
        if self.queue.bytes_max < FRAME_BYTES_ACCEPTED_MAX {
            return wrong("the queue must have room for the largest frame");
        }
        if self.bulk_queue.bytes_max < super::codec::BULK_CHUNK_BYTES_MAX {
            return wrong("the bulk queue must have room for the largest chunk");
        }
        if self.queue.frames_max == 0 || self.bulk_queue.frames_max == 0 {
            return wrong("a queue of no frames sends nothing");
        }
        let times = [
            self.connect_ms,
            self.handshake_ms,
            self.silence_ms,
            self.backoff_min_ms,
            self.bulk_idle_ms,
            self.certificates_look_ms,
        ];
        if times.contains(&0) || self.backoff_max_ms < self.backoff_min_ms {
            return wrong("times are above 0, and the longest wait is not below the shortest");
        }
        if self.plaintext() && !self.listen.ip().is_loopback() {
            let address = self.listen.to_string();
            return Err(TransportError::Peers(PeersError::NotLoopback { address }));
        }
        Ok(())
    }
}

/// Why a transport does not start.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The settings do not fit together.
    #[error("transport settings: {why}")]
    Settings {
        /// What is wrong, in a few fixed words.
        why: &'static str,
    },
    /// The list of peers, or the own address, cannot be used.
    #[error(transparent)]
    Peers(#[from] PeersError),
    /// The certificate cannot be used.
    #[error(transparent)]
    Certificates(#[from] CertificateError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}
