//! The clock a leader stamps entries with: never back, close to wall time, hard to fool.
//!
//! It runs on the boot clock, which nobody sets, continued from the group's last stamp. Wall
//! time only pulls at it: at most one part in twenty faster or slower, so a wall clock that
//! jumps does not expire leases or reorder times. A larger step forward is taken only when the
//! caller says that it may be (a single node at start, or a majority of clocks agree).

use tl_types::UnixMs;

/// One part in this many is how far the clock may run fast or slow.
const SLEW_PARTS: u64 = 20;

/// What the node's clocks say at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Milliseconds since boot; never goes back while the node runs.
    pub boot_ms: u64,
    /// Wall time.
    pub wall: UnixMs,
}

/// A leader's clock for one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StampClock {
    boot_ms: u64,
    stamp: UnixMs,
    /// Boot time passed that has not yet been turned into whole milliseconds of slew.
    slew_credit: u64,
}

impl StampClock {
    /// A clock that goes on from the group's last stamp.
    #[must_use]
    pub fn new(now: Reading, last: UnixMs) -> StampClock {
        StampClock { boot_ms: now.boot_ms, stamp: last, slew_credit: 0 }
    }

    /// Takes a step forward to wall time; never back. Only for a single node at start or when a
    /// majority of the cluster's clocks agree.
    pub fn step(&mut self, now: Reading) {
        self.advance(now);
        self.stamp = self.stamp.max(now.wall);
    }

    /// The stamp for an entry proposed now; never less than one given before, nor than `last`,
    /// the group's last applied stamp.
    pub fn stamp(&mut self, now: Reading, last: UnixMs) -> UnixMs {
        self.advance(now);
        self.stamp = self.stamp.max(last);
        self.stamp
    }

    fn advance(&mut self, now: Reading) {
        let passed = now.boot_ms.saturating_sub(self.boot_ms);
        self.boot_ms = self.boot_ms.max(now.boot_ms);
        self.slew_credit = self.slew_credit.saturating_add(passed);
        let slew = self.slew_credit / SLEW_PARTS;
        self.slew_credit %= SLEW_PARTS;
        let even = self.stamp.0.saturating_add(passed);
        // `slew` is at most the time passed and a little, so a slow clock still never goes back.
        let pulled = if now.wall.0 >= even {
            even.saturating_add(slew.min(now.wall.0 - even))
        } else {
            even - slew.min(even - now.wall.0).min(passed)
        };
        self.stamp = UnixMs(pulled);
    }
}

#[cfg(test)]
mod tests;
