//! What a transport says about itself, for status pages and metrics.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Instant;

use super::hello::{Refusal, Seat};

/// Where the connection to a peer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaneState {
    /// Not wanted: there is nothing to send on it.
    Idle,
    /// Being opened; what is sent waits.
    Connecting,
    /// Open.
    Connected,
    /// The last attempt failed; what is sent is refused until the next one begins.
    Waiting,
    /// Given up: the peer left the list, or the transport stopped.
    Closed,
}

/// Why a connection to a peer is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// Its socket was not reached.
    Unreachable {
        /// What the system said.
        why: String,
    },
    /// It did not answer in time.
    Late {
        /// What it did not answer.
        step: &'static str,
    },
    /// A certificate was not accepted, by either end.
    Tls {
        /// What TLS said.
        why: String,
    },
    /// It answered the handshake with a reason.
    Refused(Refusal),
    /// It ended the open connection with a reason.
    Ended(Refusal),
    /// What answered is not what was called, or speaks another protocol.
    Stranger {
        /// What was wrong with the answer, in a few fixed words.
        why: &'static str,
    },
    /// The open connection broke.
    Broken {
        /// What the system said.
        why: String,
    },
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Unreachable { why } => write!(f, "not reached: {why}"),
            Trouble::Late { step } => write!(f, "no answer to {step} in time"),
            Trouble::Tls { why } => write!(f, "TLS: {why}"),
            Trouble::Refused(refusal) => write!(f, "refused: {refusal}"),
            Trouble::Ended(refusal) => write!(f, "ended by the peer: {refusal}"),
            Trouble::Stranger { why } => write!(f, "somebody else answered: {why}"),
            Trouble::Broken { why } => write!(f, "broken: {why}"),
        }
    }
}

/// The connection to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendStatus {
    /// Where it stands.
    pub state: LaneState,
    /// Since when it is open.
    pub connected_since: Option<Instant>,
    /// How often it was opened; one less is the number of reconnects.
    pub connections: u64,
    /// Frames whose sending began.
    pub frames: u64,
    /// Their payloads, bytes.
    pub bytes: u64,
    /// Frames of the driver that were not sent: no room, or no connection.
    pub dropped_frames: u64,
    /// Their payloads, bytes.
    pub dropped_bytes: u64,
    /// Requests, replies and chunks that were not sent, refused to the caller or given back.
    pub refused_frames: u64,
    /// Frames that wait.
    pub queued_frames: usize,
    /// Their payloads, bytes.
    pub queued_bytes: usize,
    /// Why it was last not there; kept when it is there again.
    pub last_trouble: Option<Trouble>,
}

/// The connection from a peer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReceiveStatus {
    /// Since when it is open.
    pub connected_since: Option<Instant>,
    /// How often it was opened.
    pub connections: u64,
    /// Frames received whole and handed on.
    pub frames: u64,
    /// Their payloads, bytes.
    pub bytes: u64,
    /// Connections ended by a damaged frame.
    pub damaged: u64,
    /// Why one was last refused or ended by this node.
    pub last_refusal: Option<Refusal>,
}

/// One peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerStatus {
    /// The peer.
    pub seat: Seat,
    /// Where it is called.
    pub address: String,
    /// The main connection to it.
    pub to_main: SendStatus,
    /// The bulk connection to it.
    pub to_bulk: SendStatus,
    /// The main connection from it.
    pub from_main: ReceiveStatus,
    /// The bulk connection from it.
    pub from_bulk: ReceiveStatus,
}

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransportStatus {
    /// By peer id.
    pub peers: Vec<PeerStatus>,
    /// Callers that were let in no further, known or not.
    pub refused: Refused,
    /// How often changed certificates were taken up.
    pub certificates_reloaded: u64,
    /// Why the certificate files, as they are now, are not used.
    pub certificates_trouble: Option<String>,
}

/// Callers that were let in no further.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refused {
    /// How many, by reason.
    pub by_reason: BTreeMap<Refusal, u64>,
    /// The last of them.
    pub last: Option<(SocketAddr, Refusal)>,
    /// Callers without an acceptable certificate.
    pub tls: u64,
    /// What TLS said of the last of them.
    pub last_tls: Option<String>,
    /// Callers that said no hello in time, or left before.
    pub late: u64,
    /// Callers closed unread, because too many handshakes were under way.
    pub crowded: u64,
}
