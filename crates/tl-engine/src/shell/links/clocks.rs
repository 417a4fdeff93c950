//! What the members' clocks say, and so who is there.

use std::time::{Duration, Instant};

use tl_raft::PeerId;

use super::Links;
use crate::node::Now;

/// Clocks that differ by no more than this agree, milliseconds.
pub(super) const CLOCKS_AGREE_MS: u128 = 1_000;
/// What a peer's clock said is forgotten after this.
pub(super) const CLOCK_FRESH: Duration = Duration::from_secs(5);
/// A member that said something this lately is up.
const PRESENT: Duration = Duration::from_secs(2);

/// What is known of a peer's clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    /// How far it is before this node's boot clock, milliseconds. Compared with the boot clock,
    /// since the wall clock of this node may be the one that jumps.
    ahead_ms: i128,
    may_lead: bool,
    at: Instant,
}

impl Links {
    /// A peer's wall clock said so when this node's clocks said `now`.
    pub(crate) fn saw_clock(&self, peer: PeerId, wall_ms: u64, now: Now, may_lead: bool) {
        if !self.is_member(peer) {
            return; // A router has no vote, about the time neither.
        }
        let ahead_ms = i128::from(wall_ms) - i128::from(now.boot_ms);
        let clock = Clock { ahead_ms, may_lead, at: Instant::now() };
        self.clocks.lock().insert(peer, clock);
    }

    /// Whether a majority of the members' clocks, this one's among them, say what it says now.
    pub(crate) fn clocks_agree(&self, now: Now) -> bool {
        let ahead_ms = i128::from(now.wall_ms) - i128::from(now.boot_ms);
        let clocks = self.clocks.lock();
        let agree = |clock: &&Clock| {
            clock.ahead_ms.abs_diff(ahead_ms) <= CLOCKS_AGREE_MS
                && clock.at.elapsed() <= CLOCK_FRESH
        };
        (clocks.values().filter(agree).count() + 1) * 2 > self.names().members.len()
    }

    /// Members whose clock was heard lately and that do not stop: they could lead.
    pub(crate) fn present(&self) -> Vec<PeerId> {
        let clocks = self.clocks.lock();
        let fresh =
            clocks.iter().filter(|(_, clock)| clock.may_lead && clock.at.elapsed() <= PRESENT);
        fresh.map(|(peer, _)| *peer).collect()
    }
}
