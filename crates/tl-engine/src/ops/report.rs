//! What a node says of itself when another member asks, and of the asker's replicas.
//!
//! ```text
//!   standing (1) disk full (1) groups led (2) tails open (4)
//!   stopped groups: count (2) group (2)*
//!   asker behind:   groups (2), and if any: worst group (2) entries (8) cut off (1)
//!   reason:         length, text
//!   fields:         tag (1) length, bytes; those of unknown tags are skipped
//!     tag 1: highest feature level (2); absent for the first one, as before there were levels
//! ```
//!
//! Numbers are big-endian. Decoding takes any bytes. Only a leader knows how far its followers
//! are, so it tells each of them: a replica that was left behind could not know by itself.

use tl_core::entry::LEVEL_FIRST;
use tl_raft::PeerId;
use tl_types::GroupId;
use tl_types::bytes_codec::{DecodeError, Reader, put_bytes, put_field};

use super::look::GroupLook;
use super::states::Standing;

/// A replica that lacks more entries than this is behind: more than a follower under load, which
/// lacks what is under way.
pub const BEHIND_ENTRIES: u64 = 10_000;
/// Longest reason, bytes; what is longer is cut.
const REASON_BYTES_MAX: usize = 512;
/// Most stopped groups that are named.
const STOPPED_MAX: usize = 4_096;

mod tag {
    pub const LEVEL_SPOKEN: u8 = 1;
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// How the node is.
    pub standing: Standing,
    /// Whether its disk has no room for clients' writes.
    pub is_disk_full: bool,
    /// Groups that it leads.
    pub groups_led: u16,
    /// Tails that are open there.
    pub tails_open: u32,
    /// Groups that it stopped because of damage, in order.
    pub stopped: Vec<GroupId>,
    /// What the asker's replicas lack of the groups led there; `None` when they keep up.
    pub asker: Option<Lag>,
    /// Why it is not ready; empty when it is.
    pub reason: String,
    /// The highest feature level that it speaks.
    pub level_spoken: u16,
}

/// What a node's replicas lack, of the groups that one other node leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lag {
    /// Groups in which the replica is behind.
    pub groups: u16,
    /// The one that is furthest behind.
    pub worst: GroupId,
    /// Entries that it lacks there.
    pub entries: u64,
    /// Whether any of them lacks what its leader no longer has in memory.
    pub is_cut_off: bool,
}

/// What `peer` lacks of the groups in `look`.
#[must_use]
pub fn lag_of(peer: PeerId, look: &[GroupLook]) -> Option<Lag> {
    let mut lag: Option<Lag> = None;
    for group in look {
        let replicas = group.followers.iter().filter(|replica| replica.peer == peer);
        for replica in replicas {
            let entries = replica.lag_entries;
            if !replica.is_cut_off && entries <= BEHIND_ENTRIES {
                continue;
            }
            let worst = group.group;
            let lag = lag.get_or_insert(Lag { groups: 0, worst, entries, is_cut_off: false });
            lag.groups = lag.groups.saturating_add(1);
            lag.is_cut_off |= replica.is_cut_off;
            if entries > lag.entries {
                (lag.worst, lag.entries) = (worst, entries);
            }
        }
    }
    lag
}

impl Report {
    /// Appends the report's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let standing = match self.standing {
            Standing::Ready => 0,
            Standing::Starting => 1,
            Standing::Draining => 2,
            Standing::Drained => 3,
        };
        out.extend_from_slice(&[standing, u8::from(self.is_disk_full)]);
        out.extend_from_slice(&self.groups_led.to_be_bytes());
        out.extend_from_slice(&self.tails_open.to_be_bytes());
        let stopped = &self.stopped[..self.stopped.len().min(STOPPED_MAX)];
        out.extend_from_slice(&(stopped.len() as u16).to_be_bytes());
        for group in stopped {
            out.extend_from_slice(&group.0.to_be_bytes());
        }
        match &self.asker {
            None => out.extend_from_slice(&[0, 0]),
            Some(Lag { groups, worst, entries, is_cut_off }) => {
                out.extend_from_slice(&groups.to_be_bytes());
                out.extend_from_slice(&worst.0.to_be_bytes());
                out.extend_from_slice(&entries.to_be_bytes());
                out.push(u8::from(*is_cut_off));
            }
        }
        let mut end = self.reason.len().min(REASON_BYTES_MAX);
        while !self.reason.is_char_boundary(end) {
            end -= 1;
        }
        put_bytes(out, &self.reason.as_bytes()[..end]);
        // Who is of the first level says what a release without levels can read.
        if self.level_spoken > LEVEL_FIRST {
            put_field(out, tag::LEVEL_SPOKEN, &self.level_spoken.to_be_bytes());
        }
    }

    /// Reads what [`Report::encode`] wrote.
    ///
    /// # Errors
    /// The bytes are something else.
    pub fn decode(reader: &mut Reader) -> Result<Report, DecodeError> {
        let standing = match reader.u8()? {
            0 => Standing::Ready,
            1 => Standing::Starting,
            2 => Standing::Draining,
            3 => Standing::Drained,
            other => return Err(DecodeError::Unknown { what: "standing", value: other.into() }),
        };
        let is_disk_full = flag(reader)?;
        let (groups_led, tails_open) = (reader.u16()?, reader.u32()?);
        let count = usize::from(reader.u16()?);
        if count > STOPPED_MAX {
            return Err(DecodeError::Malformed("number of stopped groups"));
        }
        let stopped = (0..count).map(|_| reader.u16().map(GroupId)).collect::<Result<_, _>>()?;
        let asker = match reader.u16()? {
            0 => None,
            groups => Some(Lag {
                groups,
                worst: GroupId(reader.u16()?),
                entries: reader.u64()?,
                is_cut_off: flag(reader)?,
            }),
        };
        let reason = reader.text()?;
        if reason.len() > REASON_BYTES_MAX {
            return Err(DecodeError::Malformed("length of a reason"));
        }
        let mut level_spoken = LEVEL_FIRST;
        while let Some((tag, bytes)) = reader.field()? {
            if tag == tag::LEVEL_SPOKEN {
                level_spoken = level(&bytes)?;
            }
        }
        Ok(Report {
            standing,
            is_disk_full,
            groups_led,
            tails_open,
            stopped,
            asker,
            reason,
            level_spoken,
        })
    }
}

fn level(bytes: &[u8]) -> Result<u16, DecodeError> {
    let bytes = bytes.try_into().map_err(|_| DecodeError::Malformed("feature level"))?;
    match u16::from_be_bytes(bytes) {
        level if level >= LEVEL_FIRST => Ok(level),
        _ => Err(DecodeError::Malformed("feature level")),
    }
}

fn flag(reader: &mut Reader) -> Result<bool, DecodeError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::Malformed("flag")),
    }
}

#[cfg(test)]
mod tests {
    use tl_raft::Role;
    use tl_types::{Index, Term};

    use super::*;
    use crate::ops::look::Replica;

    fn look(group: u16, peer: u64, lag: u64, is_cut_off: bool) -> GroupLook {
        let replica = Replica { peer: PeerId(peer), matched: None, lag_entries: lag, is_cut_off };
        GroupLook {
            group: GroupId(group),
            role: Role::Leader,
            term: Term(1),
            leader: None,
            last: Index(0),
            committed: Index(0),
            applied: Index(0),
            members: tl_raft::Members::founding(&[]),
            followers: vec![replica],
        }
    }

    #[test]
    fn a_replica_is_behind_past_the_limit_or_when_its_leader_cannot_feed_it() {
        let two = PeerId(2);
        assert_eq!(lag_of(two, &[look(0, 2, BEHIND_ENTRIES, false)]), None);
        assert_eq!(lag_of(two, &[look(0, 2, 0, false), look(1, 3, 99_999, true)]), None);
        let seen = [
            look(4, 2, BEHIND_ENTRIES + 1, false),
            look(5, 2, BEHIND_ENTRIES + 7, false),
            look(6, 2, 3, true),
        ];
        let lag =
            Lag { groups: 3, worst: GroupId(5), entries: BEHIND_ENTRIES + 7, is_cut_off: true };
        assert_eq!(lag_of(two, &seen), Some(lag));
    }
}
