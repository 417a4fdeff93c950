//! What an owner may choose about its log.

use tl_types::NodeId;
use tl_types::limits::ENTRY_BYTES_MAX;

use crate::error::WalError;
use crate::format::{HEAD_BYTES, RECORD_HEADER_BYTES};

/// Smallest segment.
pub const SEGMENT_BYTES_MIN: u64 = 64 * 1024;
/// Largest segment; a segment is read into memory whole on replay.
pub const SEGMENT_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Segment size unless chosen otherwise.
pub const SEGMENT_BYTES_DEFAULT: u64 = 32 * 1024 * 1024;
/// Size of the very first segment, small so that an empty node starts at once.
pub const FIRST_SEGMENT_BYTES: u64 = 1024 * 1024;
/// Most prepared segments.
pub const SPARES_MAX: usize = 64;
/// Largest encoded membership of a group. One past: the append is refused.
pub const MEMBERSHIP_BYTES_MAX: usize = 4096;

/// What to do about damage to confirmed records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDamage {
    /// Refuse to open and name it: right for a single node, which has no peer to ask.
    #[default]
    Refuse,
    /// Go on behind it, hand over whatever is intact, and report each damaged place: for a member of
    /// a cluster, whose peers have what it lost. The owner must not act for a group that a report
    /// concerns before it has been brought past the damage: see
    /// [`Opened::damages`](crate::Opened::damages) and [`Wal::doubt`](crate::Wal::doubt).
    ///
    /// It refuses all the same where the order of the log is lost: a segment is missing, or has no
    /// head and nothing that tells its place, or intact parts contradict each other.
    GoOn,
}

/// What an owner may choose about its log.
#[derive(Debug, Clone)]
pub struct WalOptions {
    /// The node that writes this log; segments of another node are refused.
    pub owner: NodeId,
    /// Size of a segment file; from [`SEGMENT_BYTES_MIN`] to [`SEGMENT_BYTES_MAX`], and at
    /// least twice the largest entry, so that the groups' state fits beside it.
    pub segment_bytes: u64,
    /// Largest entry taken.
    pub entry_bytes_max: usize,
    /// Empty segments to hold ready; from 1 to [`SPARES_MAX`].
    pub spares: usize,
    /// What to do about damage to confirmed records.
    pub on_damage: OnDamage,
    /// The owner knows that this log was opened before, so finding no segment is a loss and not
    /// a beginning.
    pub must_exist: bool,
}

impl Default for WalOptions {
    fn default() -> Self {
        WalOptions {
            owner: NodeId::default(),
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            entry_bytes_max: ENTRY_BYTES_MAX,
            spares: 2,
            on_damage: OnDamage::Refuse,
            must_exist: false,
        }
    }
}

impl WalOptions {
    pub(crate) fn check(&self) -> Result<(), WalError> {
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&self.segment_bytes) {
            return Err(WalError::Option {
                name: "segment_bytes",
                value: self.segment_bytes,
                rule: format!("from {SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_MAX}"),
            });
        }
        let entry_limit = (self.segment_bytes / 2) as usize - HEAD_BYTES - RECORD_HEADER_BYTES;
        if self.entry_bytes_max > entry_limit {
            return Err(WalError::Option {
                name: "entry_bytes_max",
                value: self.entry_bytes_max as u64,
                rule: format!("at most {entry_limit} with this segment_bytes"),
            });
        }
        if !(1..=SPARES_MAX).contains(&self.spares) {
            return Err(WalError::Option {
                name: "spares",
                value: self.spares as u64,
                rule: format!("from 1 to {SPARES_MAX}"),
            });
        }
        Ok(())
    }
}
