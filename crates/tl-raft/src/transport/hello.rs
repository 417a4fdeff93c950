//! The handshake: who calls whom, and why not.
//!
//! ```text
//!   sealed   = magic (8 bytes) crc (4) length (2) body
//!   hello    = sealed "tl-peer\n": oldest newest lane cluster from.node from.peer to.node to.peer
//!                                  run ordinal [birth]
//!   answer   = sealed "tl-answ\n": 0 version cluster node peer      accepted
//!            |                     reason                           refused, at any later time too
//! ```
//!
//! Little-endian; the checksum is CRC-32 over length and body. The dialler speaks first and sends
//! nothing more until it is accepted. `oldest..=newest` are the versions that it speaks, and the
//! acceptor picks the newest that both do. A later version adds fields behind these, which an
//! older one passes over; it does not leave out the birth then. Reasons and lanes are numbered once
//! and for all.
//!
//! Everything here is a function of bytes and values; sockets are elsewhere.

use std::fmt;

use tl_types::ids::{ClusterId, NodeId};

use crate::deeds::PeerId;

/// The oldest version of the protocol that is spoken here.
pub const VERSION_OLDEST: u8 = 1;
/// The newest version of the protocol that is spoken here.
pub const VERSION_NEWEST: u8 = 1;
/// Longest body of a hello or an answer, bytes.
pub const SEALED_BYTES_MAX: usize = 512;
/// Bytes of a sealed body before the body.
pub const SEAL_BYTES: usize = 14;

const HELLO_MAGIC: [u8; 8] = *b"tl-peer\n";
const ANSWER_MAGIC: [u8; 8] = *b"tl-answ\n";

/// The two connections from one node to another. The numbers are on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Lane {
    /// Frames of the driver, requests and replies; always wanted.
    Main = 1,
    /// Large things; opened when there is one.
    Bulk = 2,
}

/// A node in one of its lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seat {
    /// The node, whose data directory says so and whose certificate proves it.
    pub node: NodeId,
    /// Its life: the number that Raft knows it by.
    pub peer: PeerId,
}

/// What a dialler says first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// The oldest and the newest version that it speaks.
    pub versions: (u8, u8),
    /// What the connection is for.
    pub lane: Lane,
    /// The cluster that it belongs to.
    pub cluster: ClusterId,
    /// Who calls.
    pub from: Seat,
    /// Who is called.
    pub to: Seat,
    /// Drawn when the caller's process started.
    pub run: u64,
    /// Rises with every connection of one run.
    pub ordinal: u64,
    /// What the caller's directory drew when its log was made. Routers do not say it, and releases
    /// before did not.
    pub birth: Option<Birth>,
}

/// Tells the directory of a life from a copy of it that was made before it had a log.
pub type Birth = [u8; 16];

/// What the acceptor says: once after the hello, and once more when it ends the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Frames may come.
    Accepted {
        /// The version that both speak from now on.
        version: u8,
        /// The acceptor's cluster.
        cluster: ClusterId,
        /// The acceptor.
        seat: Seat,
    },
    /// No frame is read, or no further one.
    Refused(Refusal),
}

/// Why a connection was refused or ended. The numbers are on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// There is no version of the protocol that both speak.
    Version,
    /// The caller belongs to another cluster.
    ForeignCluster,
    /// The node that was called is another, or in another life.
    WrongReceiver,
    /// The acceptor does not know this node in this life (yet).
    UnknownLife,
    /// This life of the node was removed from the cluster for good.
    RemovedLife,
    /// The certificate does not name the node that the caller says it is.
    WrongCertificate,
    /// A newer connection of the same node has taken its place.
    Replaced,
    /// A frame was damaged.
    Damaged,
    /// The acceptor stops.
    Stopping,
    /// The first bytes were no hello.
    Malformed,
    /// The directory is another than the one that this life was known by: what it has promised was
    /// in that one's log.
    OtherBirth,
    /// The acceptor could not write down by which directory it knows this life (yet).
    UnwrittenBirth,
    /// A reason of a later version.
    Other(u8),
}

impl Refusal {
    /// Its number on the wire; never 0.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Refusal::Version => 1,
            Refusal::ForeignCluster => 2,
            Refusal::WrongReceiver => 3,
            Refusal::UnknownLife => 4,
            Refusal::RemovedLife => 5,
            Refusal::WrongCertificate => 6,
            Refusal::Replaced => 7,
            Refusal::Damaged => 8,
            Refusal::Stopping => 9,
            Refusal::Malformed => 10,
            Refusal::OtherBirth => 11,
            Refusal::UnwrittenBirth => 12,
            Refusal::Other(number) => number,
        }
    }

    fn from_number(number: u8) -> Refusal {
        match number {
            1 => Refusal::Version,
            2 => Refusal::ForeignCluster,
            3 => Refusal::WrongReceiver,
            4 => Refusal::UnknownLife,
            5 => Refusal::RemovedLife,
            6 => Refusal::WrongCertificate,
            7 => Refusal::Replaced,
            8 => Refusal::Damaged,
            9 => Refusal::Stopping,
            10 => Refusal::Malformed,
            11 => Refusal::OtherBirth,
            12 => Refusal::UnwrittenBirth,
            other => Refusal::Other(other),
        }
    }

    /// A stable word for logs and metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Refusal::Version => "version_not_spoken",
            Refusal::ForeignCluster => "foreign_cluster",
            Refusal::WrongReceiver => "wrong_receiver",
            Refusal::UnknownLife => "unknown_life",
            Refusal::RemovedLife => "removed_life",
            Refusal::WrongCertificate => "wrong_certificate",
            Refusal::Replaced => "replaced",
            Refusal::Damaged => "damaged_frame",
            Refusal::Stopping => "stopping",
            Refusal::Malformed => "malformed_hello",
            Refusal::OtherBirth => "other_birth",
            Refusal::UnwrittenBirth => "unwritten_birth",
            Refusal::Other(_) => "other",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Other(number) => write!(f, "other ({number})"),
            known => f.write_str(known.word()),
        }
    }
}

/// What the acceptor knows of the caller's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// A member, under this node.
    Member,
    /// Removed for good.
    Removed,
    /// Never heard of, or heard of under another node.
    Unknown,
}

/// Decides about a hello: the version to be spoken, or why not. What concerns the caller as a
/// whole is looked at before what may be a matter of time.
///
/// # Errors
/// The reason to be told to the caller.
pub fn judge(
    hello: &Hello,
    cluster: ClusterId,
    seat: Seat,
    certified: bool,
    standing: Standing,
) -> Result<u8, Refusal> {
    let newest = hello.versions.1.min(VERSION_NEWEST);
    if newest < hello.versions.0.max(VERSION_OLDEST) {
        return Err(Refusal::Version);
    }
    if hello.cluster != cluster {
        return Err(Refusal::ForeignCluster);
    }
    if !certified {
        return Err(Refusal::WrongCertificate);
    }
    match standing {
        // Whomever it means: a life that is over may know nobody who is still there.
        Standing::Removed => Err(Refusal::RemovedLife),
        Standing::Member | Standing::Unknown if hello.to != seat => Err(Refusal::WrongReceiver),
        Standing::Member => Ok(newest),
        Standing::Unknown => Err(Refusal::UnknownLife),
    }
}

/// Whether a new connection takes the place of one that stands: within one run of the caller's
/// process the later one does, however they were delayed; a new run always does.
#[must_use]
pub fn supersedes(newcomer: (u64, u64), standing: (u64, u64)) -> bool {
    newcomer.0 != standing.0 || newcomer.1 > standing.1
}

/// Why bytes are no hello or answer, in a few fixed words.
pub type Malformed = &'static str;

/// What stands at the front of some bytes and how long it is; nothing while it is not whole.
pub type Decoded<T> = Result<Option<(T, usize)>, Malformed>;

impl Hello {
    /// The bytes to send.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut body = vec![self.versions.0, self.versions.1, self.lane as u8];
        body.extend_from_slice(&self.cluster.0);
        put_seat(&mut body, self.from);
        put_seat(&mut body, self.to);
        body.extend_from_slice(&self.run.to_le_bytes());
        body.extend_from_slice(&self.ordinal.to_le_bytes());
        body.extend_from_slice(self.birth.as_ref().map_or(&[], |birth| &birth[..]));
        seal(HELLO_MAGIC, &body)
    }

    /// The hello at the front of `bytes` and its length; `None` while it is not whole.
    ///
    /// # Errors
    /// When no further bytes could make it a hello.
    pub fn decode(bytes: &[u8]) -> Decoded<Hello> {
        let Some((body, length)) = open(HELLO_MAGIC, bytes)? else { return Ok(None) };
        let mut fields = Fields(body);
        let versions = (fields.byte()?, fields.byte()?);
        let lane = match fields.byte()? {
            1 => Lane::Main,
            2 => Lane::Bulk,
            _ => return Err("unknown lane"),
        };
        let hello = Hello {
            versions,
            lane,
            cluster: ClusterId(fields.array()?),
            from: fields.seat()?,
            to: fields.seat()?,
            run: fields.number()?,
            ordinal: fields.number()?,
            birth: fields.birth()?,
        };
        Ok(Some((hello, length)))
    }
}

impl Answer {
    /// The bytes to send.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        match self {
            Answer::Accepted { version, cluster, seat } => {
                body.extend_from_slice(&[0, *version]);
                body.extend_from_slice(&cluster.0);
                put_seat(&mut body, *seat);
            }
            Answer::Refused(refusal) => body.push(refusal.number()),
        }
        seal(ANSWER_MAGIC, &body)
    }

    /// The answer at the front of `bytes` and its length; `None` while it is not whole.
    ///
    /// # Errors
    /// When no further bytes could make it an answer.
    pub fn decode(bytes: &[u8]) -> Decoded<Answer> {
        let Some((body, length)) = open(ANSWER_MAGIC, bytes)? else { return Ok(None) };
        let mut fields = Fields(body);
        let answer = match fields.byte()? {
            0 => Answer::Accepted {
                version: fields.byte()?,
                cluster: ClusterId(fields.array()?),
                seat: fields.seat()?,
            },
            reason => Answer::Refused(Refusal::from_number(reason)),
        };
        Ok(Some((answer, length)))
    }
}

fn put_seat(body: &mut Vec<u8>, seat: Seat) {
    body.extend_from_slice(&seat.node.0);
    body.extend_from_slice(&seat.peer.0.to_le_bytes());
}

fn seal(magic: [u8; 8], body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).expect("a body is below its limit").to_le_bytes();
    let mut bytes = magic.to_vec();
    bytes.extend_from_slice(&checksum(length, body).to_le_bytes());
    bytes.extend_from_slice(&length);
    bytes.extend_from_slice(body);
    bytes
}

fn checksum(length: [u8; 2], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(body);
    hasher.finalize()
}

/// The body at the front of `bytes` and the length of the whole; `None` while it is not whole.
fn open(magic: [u8; 8], bytes: &[u8]) -> Result<Option<(&[u8], usize)>, Malformed> {
    // Refused as early as possible: somebody else's protocol may never send as much as ours.
    let begun = bytes.len().min(magic.len());
    if bytes[..begun] != magic[..begun] {
        return Err("not this protocol");
    }
    let Some(seal) = bytes.first_chunk::<SEAL_BYTES>() else { return Ok(None) };
    let [.., c0, c1, c2, c3, l0, l1] = *seal;
    let body_bytes = usize::from(u16::from_le_bytes([l0, l1]));
    if body_bytes > SEALED_BYTES_MAX {
        return Err("too long");
    }
    let whole = SEAL_BYTES + body_bytes;
    let Some(body) = bytes.get(SEAL_BYTES..whole) else { return Ok(None) };
    if checksum([l0, l1], body) != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Err("checksum does not match");
    }
    Ok(Some((body, whole)))
}

/// Reads fields off the front; what is left over belongs to a later version.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (field, rest) = self.0.split_first_chunk::<N>().ok_or("ends early")?;
        self.0 = rest;
        Ok(*field)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn number(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    /// Whole or not at all.
    fn birth(&mut self) -> Result<Option<Birth>, Malformed> {
        match self.0 {
            [] => Ok(None),
            _ => self.array().map(Some),
        }
    }

    fn seat(&mut self) -> Result<Seat, Malformed> {
        let node = NodeId(self.array()?);
        match self.number()? {
            0 => Err("0 names no peer"),
            peer => Ok(Seat { node, peer: PeerId(peer) }),
        }
    }
}

#[cfg(test)]
mod tests;
