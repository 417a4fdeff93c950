//! Why the log could not do what was asked, sorted by what the caller does next.

use std::collections::BTreeSet;
use std::fmt;
use std::io;

use tl_types::{GroupId, Index, NodeId};

use crate::format::RecordKind;
use crate::record::Position;

/// Why the log could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// Correct the option and start again.
    #[error("log option {name} is {value}; it must be {rule}")]
    Option {
        /// Name of the option.
        name: &'static str,
        /// What was asked for.
        value: u64,
        /// What is allowed.
        rule: String,
    },

    /// Stop the other process first, or look in with `tl debug log`.
    #[error("the log in {place} is in use by another process")]
    Locked {
        /// Where the log lies.
        place: String,
    },

    /// The records were refused whole; nothing was written and the log goes on.
    #[error("record of {bytes} bytes is larger than the log takes ({limit_bytes} bytes)")]
    TooLarge {
        /// Size asked for.
        bytes: u64,
        /// Largest size taken.
        limit_bytes: u64,
    },

    /// Append again once the disk has room; nothing was written and the log goes on.
    #[error("no room on disk for another log segment")]
    Full {
        /// What the file system said.
        source: io::Error,
    },

    /// Stop the node: confirmed records are damaged or gone.
    #[error("{0}")]
    Corrupt(Box<Corruption>),

    /// Stop the node: a log was here, and no segment of it is left.
    #[error("the log in {place} is gone: none of its segments is there")]
    Gone {
        /// Where the log should lie.
        place: String,
    },

    /// Use the release that wrote this log, or a newer one.
    #[error("segment {segment} has {what} {value}, which this release does not know")]
    Unsupported {
        /// File name of the segment.
        segment: String,
        /// What is unknown.
        what: &'static str,
        /// The value found.
        value: u32,
    },

    /// Take the file away: it was written by another node.
    #[error("segment {segment} belongs to node {owner}, not to {expected}")]
    Foreign {
        /// File name of the segment.
        segment: String,
        /// Node named in the segment.
        owner: NodeId,
        /// This node.
        expected: NodeId,
    },

    /// Stop the node: what reached the disk is unknown. Every later call fails too.
    #[error("failed to {deed} {file}")]
    Failed {
        /// What was tried.
        deed: &'static str,
        /// On which file.
        file: String,
        /// What the file system said.
        source: io::Error,
    },

    /// Stop the node: an earlier write or sync failed.
    #[error("the log takes no more calls after an earlier failure")]
    Poisoned,
}

/// Confirmed records that could not be read back: what, where, and whose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Corruption {
    /// The damaged places in log order, never empty, at most [`DAMAGES_MAX`].
    pub damages: Vec<Damage>,
    /// Which groups may have lost something that they had confirmed.
    pub doubt: Doubt,
    /// The log was confirmed up to here when it was last written.
    pub durable: Position,
}

/// Most damaged places that one report names. Where there are more, the last of them takes the
/// place of all that are left out, and names no group.
pub const DAMAGES_MAX: usize = 64;

/// One damaged place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// File name of the segment, or of the segment that should be there.
    pub segment: String,
    /// Byte in the file at which the unreadable part starts.
    pub at_bytes: u64,
    /// The same place in the log.
    pub position: Position,
    /// The record's group, when its header is intact; without one, any group may have lost any
    /// record here, or several.
    pub group: Option<GroupId>,
    /// What the record was, when its header is intact and of a kind that is known.
    pub kind: Option<RecordKind>,
    /// The entry that the record was, if it was one.
    pub entry: Option<Index>,
    /// What is wrong there.
    pub fault: Fault,
}

/// What is wrong at a damaged place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A record's header is intact and its data is not.
    Data,
    /// No intact record header lies where one must be.
    Header,
    /// Neither copy of the segment's header can be read.
    SegmentHeader,
    /// A whole segment is not there.
    MissingSegment,
    /// Intact records or headers contradict each other.
    Order,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::Data => "damaged record data",
            Fault::Header => "damaged record header",
            Fault::SegmentHeader => "damaged segment header",
            Fault::MissingSegment => "missing segment",
            Fault::Order => "records out of order",
        })
    }
}

/// Groups that may have lost confirmed records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doubt {
    /// Only these: every damaged record still names its group.
    Groups(BTreeSet<GroupId>),
    /// Any group of the node: a damaged header hides whose record it was.
    All,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in segment {} at byte {}", self.fault, self.segment, self.at_bytes)?;
        if let Some(group) = self.group {
            write!(f, ", group {group}")?;
        }
        self.entry.map_or(Ok(()), |entry| write!(f, ", entry {entry}"))
    }
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(first) = self.damages.first() {
            first.fmt(f)?;
        }
        if self.damages.len() > 1 {
            write!(f, " (and {} more places)", self.damages.len() - 1)?;
        }
        write!(f, "; the log was confirmed up to position {}", self.durable)?;
        match &self.doubt {
            Doubt::All => write!(f, "; all groups are in doubt"),
            Doubt::Groups(groups) => {
                f.write_str("; groups in doubt:")?;
                groups.iter().try_for_each(|group| write!(f, " {group}"))
            }
        }
    }
}
