//! What an entry may ask for. Values here have been checked at the edge; the rules check again
//! what would hurt the state.

use bytes::Bytes;
use smallvec::SmallVec;
use tl_types::{Incarnation, ResourcePath, Seq};

use crate::metadata::Metadata;
use crate::session::Listing;
use crate::text::Text;

/// One command. Kind numbers live in the codec and are never reused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Make a session.
    CreateSession(CreateSession),
    /// Add events to a session.
    Append(Append),
    /// Change title or metadata.
    UpdateHeader(UpdateHeader),
    /// Show or hide a session in default lists.
    SetListing(SetListing),
    /// Take no more events.
    Close(Close),
    /// Delete: the name is kept, the session is gone.
    Tombstone(Tombstone),
    /// Events up to here are durable in the archive tier.
    AckArchived(AckArchived),
    /// Forget archived events up to here.
    Trim(Trim),
    /// Do the group's due work, a bounded amount.
    Tick,
    /// Put another list of the cluster's members in the place of the present one.
    SetMembers(SetMembers),
}

/// Makes a session; refused when the name was ever used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateSession {
    /// Its name.
    pub path: ResourcePath,
    /// Minted by the edge; names this life of the name.
    pub incarnation: Incarnation,
    /// Title, if given; may be empty.
    pub title: Option<Text>,
    /// Metadata.
    pub metadata: Metadata,
    /// Who made it: `<user|agent|service>:<id>`.
    pub creator: Text,
}

/// Adds one event or a batch, all or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    /// Which session.
    pub path: ResourcePath,
    /// Where the session must end before this write, if the caller cares.
    pub expected_seq: Option<Seq>,
    /// At least one event, in order.
    pub events: SmallVec<[NewEvent; 1]>,
}

/// An event before it has a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// Who numbers these writes.
    pub producer_id: Text,
    /// The producer's own position, from 1.
    pub producer_seq: u64,
    /// What a retry is recognised by.
    pub hash: ContentHash,
    /// Encoded [`tl_types::Envelope`]; opaque to the rules.
    pub envelope: Bytes,
}

/// A 128-bit content hash and the algorithm that made it; hashes of different algorithms are
/// never equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentHash {
    /// Which algorithm.
    pub algorithm: u8,
    /// The hash.
    pub value: u128,
}

/// Changes what a session says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdateHeader {
    /// Which session.
    pub path: ResourcePath,
    /// Which header version the caller saw, if it cares.
    pub expected_version: Option<u64>,
    /// `None` leaves the title, `Some(None)` removes it.
    pub title: Option<Option<Text>>,
    /// Members to set, shallowly; nothing is ever removed, and `null` is a value.
    pub metadata: Option<Metadata>,
}

/// Shows or hides a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetListing {
    /// Which session.
    pub path: ResourcePath,
    /// What it becomes.
    pub listing: Listing,
}

/// Closes a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    /// Which session.
    pub path: ResourcePath,
}

/// Deletes a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tombstone {
    /// Which session.
    pub path: ResourcePath,
}

/// Says how far a session is archived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AckArchived {
    /// Which session.
    pub path: ResourcePath,
    /// Up to and including; past the end is clamped.
    pub upto: Seq,
}

/// Lets archived events go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trim {
    /// Which session.
    pub path: ResourcePath,
    /// Up to and including; past what is archived is clamped.
    pub upto: Seq,
}

/// Changes who the cluster's members are; for the one group that keeps the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetMembers {
    /// Number of the list that the caller saw; 0 before the first. The new one has the next.
    pub expected: u64,
    /// The list; opaque to the rules.
    pub list: Bytes,
}

impl Command {
    /// The session a command speaks of; `None` for the group's own work.
    #[must_use]
    pub fn path(&self) -> Option<&ResourcePath> {
        match self {
            Command::CreateSession(create) => Some(&create.path),
            Command::Append(append) => Some(&append.path),
            Command::UpdateHeader(update) => Some(&update.path),
            Command::SetListing(set) => Some(&set.path),
            Command::Close(close) => Some(&close.path),
            Command::Tombstone(tombstone) => Some(&tombstone.path),
            Command::AckArchived(ack) => Some(&ack.path),
            Command::Trim(trim) => Some(&trim.path),
            Command::Tick | Command::SetMembers(_) => None,
        }
    }
}
