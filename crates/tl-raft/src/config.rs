//! The driver's settings and fixed ceilings.

use crate::deeds::PeerId;

/// A frame is closed once it has grown to this, bytes; the rest goes into a second one. With the
/// largest message on top it stays below 27 MiB.
pub const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Largest frame taken in, bytes. One past: the frame is refused.
pub const FRAME_BYTES_ACCEPTED_MAX: usize = 32 * 1024 * 1024;
/// Upper bound of [`DriverConfig::message_bytes_max`], bytes.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Frames waiting for a turn, bytes. One past: the new frame is dropped, which Raft repairs.
pub const FRAME_BACKLOG_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Ticks made up for in one turn. A node that slept longer reads its inbox before it loses
/// patience with a leader.
pub const TICKS_PER_TURN_MAX: u64 = 2;
/// Read rounds of one group on their way at a time; further reads join the next round.
pub const READ_ROUNDS_MAX: usize = 8;
/// Ticks after which an unanswered read round is asked again.
pub const READ_RETRY_TICKS: u32 = 4;

/// Entries that are read back from the log in one go for one follower, bytes (one entry always
/// goes). Each such reading is in memory until it is sent.
pub const FETCH_BYTES_MAX: usize = 512 * 1024;
/// Beats after which a follower that was sent such entries and did not confirm them gives its place
/// to others.
pub const FETCH_SILENT_BEATS: u32 = 10;

/// Settings of one [`Driver`](crate::Driver). Sizes are per node unless they say otherwise.
#[derive(Debug, Clone)]
pub struct DriverConfig {
    /// This node's number, the same in every group.
    pub peer: PeerId,
    /// Seeds election jitter and names this start's reads; draw a new one at every start.
    pub seed: u64,
    /// How often followers look at their election clock, milliseconds.
    pub tick_ms: u64,
    /// A leader's beat, milliseconds; a multiple of `tick_ms`.
    pub heartbeat_ms: u64,
    /// Shortest patience with a silent leader, milliseconds; a multiple of `tick_ms`.
    pub election_min_ms: u64,
    /// Patience stays below this, milliseconds; a multiple of `tick_ms`.
    pub election_max_ms: u64,
    /// Most proposals, reads and frames taken in one turn.
    pub turn_items_max: usize,
    /// Turn stops taking more once this many bytes of proposals and frames are in.
    pub turn_bytes_max: usize,
    /// Most bytes proposed and not yet committed per group. One past: [`Outcome::Busy`](crate::Outcome::Busy).
    pub uncommitted_bytes_max: usize,
    /// Most committed bytes handed out per group and turn (one entry always goes).
    pub committed_bytes_max: usize,
    /// Most entry bytes in one append message (one entry always goes).
    pub message_bytes_max: usize,
    /// Append messages on their way per group and follower.
    pub inflight_messages_max: usize,
    /// Applied entries kept in memory for followers that lag, bytes, all groups together.
    pub entry_cache_bytes: usize,
    /// Applied entries that one leader keeps for its slowest follower, bytes per group, while the
    /// whole cache has room.
    pub follower_lag_bytes: usize,
    /// Entries taken from leaders that are not on disk here, or committed and not applied, bytes,
    /// all groups together. Once there are as many, further ones are passed over as if they were
    /// lost: their leaders send them again.
    pub followed_bytes_max: usize,
    /// Followers that are sent entries from the log on disk at a time, all groups together; each
    /// holds [`FETCH_BYTES_MAX`] bytes. 0: nobody reads the log, and who lacks more than memory has
    /// is given rows.
    pub fetches_max: usize,
}

impl DriverConfig {
    /// The usual settings.
    #[must_use]
    pub fn new(peer: PeerId, seed: u64) -> DriverConfig {
        DriverConfig {
            peer,
            seed,
            tick_ms: 50,
            heartbeat_ms: 100,
            election_min_ms: 500,
            election_max_ms: 1_000,
            turn_items_max: 4_096,
            turn_bytes_max: 16 * 1024 * 1024,
            uncommitted_bytes_max: 32 * 1024 * 1024,
            committed_bytes_max: 4 * 1024 * 1024,
            message_bytes_max: 256 * 1024,
            inflight_messages_max: 32,
            entry_cache_bytes: 128 * 1024 * 1024,
            follower_lag_bytes: 32 * 1024 * 1024,
            followed_bytes_max: 64 * 1024 * 1024,
            fetches_max: 0,
        }
    }

    pub(crate) fn election_ticks_min(&self) -> usize {
        usize::try_from(self.election_min_ms / self.tick_ms).expect("an election time-out is short")
    }

    pub(crate) fn election_ticks_max(&self) -> usize {
        usize::try_from(self.election_max_ms / self.tick_ms).expect("an election time-out is short")
    }

    /// Ticks between two beats.
    pub(crate) fn beat_ticks(&self) -> u64 {
        self.heartbeat_ms / self.tick_ms
    }

    /// Panics unless the settings fit together; they come from code or from checked settings.
    pub(crate) fn check(&self) {
        assert!(self.peer.0 != 0, "0 names no peer");
        assert!(self.tick_ms > 0, "a tick takes time");
        let times = [self.heartbeat_ms, self.election_min_ms, self.election_max_ms];
        assert!(times.iter().all(|ms| ms % self.tick_ms == 0), "time-outs are whole ticks");
        assert!(self.heartbeat_ms >= self.tick_ms, "a beat takes at least a tick");
        assert!(
            self.election_min_ms >= 2 * self.heartbeat_ms
                && self.election_max_ms > self.election_min_ms,
            "an election waits for more than one lost beat and leaves room for jitter"
        );
        assert!(
            self.turn_items_max > 0
                && self.inflight_messages_max > 0
                && self.followed_bytes_max > 0,
            "a limit of 0 stops all work"
        );
        assert!(
            self.message_bytes_max <= MESSAGE_BYTES_MAX,
            "a message on top of a full frame is still accepted"
        );
        assert!(
            self.uncommitted_bytes_max >= self.message_bytes_max,
            "a full message fits the uncommitted budget"
        );
    }
}
