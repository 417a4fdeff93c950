//! One entry of a group's Raft log: an envelope and a list of commands.
//!
//! ```text
//! version u8 = 1 │ rules u16 │ stamp u64 ms │ request flag u8 + id 16 │ principal digest 16
//!       0            1..3         3..11            11..28                  28..44
//! │ count varint │ command …          command = kind u16, length varint, body
//! ```
//!
//! The stamp stands at a fixed place because the leader writes it when it proposes, while the
//! rest is encoded at the edge. A plain append is a list of one command; a commit is a longer
//! list. A later version of the envelope takes version byte 2; this release refuses it loudly.

use bytes::Bytes;
use smallvec::SmallVec;
use tl_types::bytes_codec::{DecodeError, Scan, put_varint};
use tl_types::{RequestId, UnixMs};

pub(crate) use self::codec::{put_path_body, read_path};
pub use self::command::{
    AckArchived, Append, Close, Command, ContentHash, CreateSession, NewEvent, SetListing,
    SetMembers, Tombstone, Trim, UpdateHeader,
};

mod codec;
mod command;

/// The envelope version this release writes and reads.
const VERSION: u8 = 1;
/// The feature level that every cluster is founded with.
pub const LEVEL_FIRST: u16 = 1;
/// The highest feature level whose rules this release speaks: it applies entries of the levels from
/// [`LEVEL_FIRST`] to this one, and writes those of the level that its cluster has committed.
pub const LEVEL_SPOKEN: u16 = 1;

const LEVEL_AT: usize = 1;
const STAMP_AT: usize = 3;
const HEAD_BYTES: usize = 44;

/// A digest of who speaks, made at the edge; all zero for the node's own commands.
pub type PrincipalDigest = [u8; 16];

/// The commands of an entry; nearly always one.
pub type Commands = SmallVec<[Command; 1]>;

/// One entry, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Feature level of the rules that apply it.
    pub rules: u16,
    /// The leader's stamp, not yet clamped to the group's last one.
    pub stamp: UnixMs,
    /// Set when the client gave a request id: the first replies are then remembered.
    pub request: Option<RequestId>,
    /// Who speaks; a remembered reply is given to the same principal only.
    pub principal: PrincipalDigest,
    /// What to do, all or nothing.
    pub commands: Commands,
}

impl Entry {
    /// An entry of the first feature level without a request id, to be stamped by the leader.
    #[must_use]
    pub fn new(commands: impl IntoIterator<Item = Command>) -> Entry {
        Entry::of_level(LEVEL_FIRST, commands)
    }

    /// The same of another level: the one that the cluster has committed.
    #[must_use]
    pub fn of_level(level: u16, commands: impl IntoIterator<Item = Command>) -> Entry {
        Entry {
            rules: level,
            stamp: UnixMs(0),
            request: None,
            principal: [0; 16],
            commands: commands.into_iter().collect(),
        }
    }

    /// The entry's bytes; [`set_stamp`] changes the stamp in place.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD_BYTES + 8 + self.size_hint());
        out.push(VERSION);
        out.extend_from_slice(&self.rules.to_be_bytes());
        out.extend_from_slice(&self.stamp.0.to_be_bytes());
        out.push(u8::from(self.request.is_some()));
        out.extend_from_slice(&self.request.unwrap_or_default().0);
        out.extend_from_slice(&self.principal);
        put_varint(&mut out, self.commands.len() as u64);
        for command in &self.commands {
            codec::put_command(&mut out, command);
        }
        out
    }

    /// Reads an entry of a level that this release speaks; byte strings are slices of `bytes`.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are not an entry that this release can apply.
    pub fn decode(bytes: Bytes) -> Result<Entry, DecodeError> {
        Entry::decode_up_to(LEVEL_SPOKEN, bytes)
    }

    /// The same for a node that speaks another highest level.
    ///
    /// # Errors
    /// As [`Entry::decode`].
    pub fn decode_up_to(spoken: u16, bytes: Bytes) -> Result<Entry, DecodeError> {
        let mut scan = Scan::new(&bytes);
        let version = scan.u8()?;
        if version != VERSION {
            return Err(DecodeError::Unknown { what: "entry version", value: version.into() });
        }
        let rules = scan.u16()?;
        if !(LEVEL_FIRST..=spoken).contains(&rules) {
            return Err(DecodeError::Unknown { what: "rules level", value: rules.into() });
        }
        let stamp = UnixMs(scan.u64()?);
        let flag = scan.u8()?;
        let id = RequestId(scan.array()?);
        let request = match flag {
            0 => None,
            1 => Some(id),
            _ => return Err(DecodeError::Malformed("request flag")),
        };
        let principal = scan.array()?;
        let count = scan.varint()?;
        let mut commands = Commands::new();
        for _ in 0..count {
            commands.push(codec::read_command(&mut scan)?);
        }
        if !scan.is_empty() {
            return Err(DecodeError::Malformed("entry: bytes behind the last command"));
        }
        Ok(Entry { rules, stamp, request, principal, commands })
    }

    fn size_hint(&self) -> usize {
        let of = |command: &Command| match command {
            Command::Append(append) => {
                append.events.iter().map(|event| event.envelope.len() + 96).sum::<usize>() + 128
            }
            Command::CreateSession(create) => create.metadata.encoded().len() + 1_024,
            Command::UpdateHeader(_) => 1_024,
            Command::SetMembers(set) => set.list.len() + 64,
            Command::SetListing(_)
            | Command::Close(_)
            | Command::Tombstone(_)
            | Command::AckArchived(_)
            | Command::Trim(_)
            | Command::Tick => 128,
        };
        self.commands.iter().map(of).sum()
    }
}

/// Writes the stamp into an encoded entry: into its head, and in front of every envelope.
///
/// # Panics
/// When `entry` is shorter than an entry's head: only encoded entries are proposed.
pub fn set_stamp(entry: &mut [u8], stamp: UnixMs) {
    assert!(entry.len() > HEAD_BYTES, "an encoded entry has a head");
    entry[STAMP_AT..STAMP_AT + 8].copy_from_slice(&stamp.0.to_be_bytes());
    codec::stamp_events(&mut entry[HEAD_BYTES..], stamp);
}

/// The feature level of an encoded entry; `None` when it does not begin like one of this release.
#[must_use]
pub fn peek_level(entry: &[u8]) -> Option<u16> {
    let (level, _) = entry.get(LEVEL_AT..)?.split_first_chunk::<2>()?;
    (entry[0] == VERSION).then(|| u16::from_be_bytes(*level))
}

/// The stamp of an encoded entry; `None` when the bytes are too short for one.
#[must_use]
pub fn peek_stamp(entry: &[u8]) -> Option<UnixMs> {
    let (stamp, _) = entry.get(STAMP_AT..)?.split_first_chunk::<8>()?;
    Some(UnixMs(u64::from_be_bytes(*stamp)))
}

#[cfg(test)]
mod tests;
