//! How the log's syncs are doing, and background work that waits while they take long.
//!
//! Flushes, compaction and scrubbing share the disk with the log. A sync that takes several times
//! the usual is taken as a sign that they crowd it out; they then pause between their steps for
//! a moment. A flush pauses shortly, and not at all when sealed memtables pile up; a compaction
//! does not pause while a flush waits for its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tl_store::{Pacing, Work};

/// A sync this many times as long as the usual one is slow.
const SLOW_TIMES: u64 = 4;
/// A sync that is shorter is never slow.
const SLOW_MIN: Duration = Duration::from_millis(2);
/// Background work is held back for this long after a slow sync.
const SLOW_LASTS: Duration = Duration::from_millis(100);
/// One part in this many of a sync goes into the usual one.
const USUAL_PARTS: u64 = 64;
/// Pause of a flush between two steps.
const FLUSH_PAUSE: Duration = Duration::from_millis(1);
/// Pause of a compaction between two steps.
const COMPACTION_PAUSE: Duration = Duration::from_millis(20);

/// Told by the log thread, asked by the others.
#[derive(Debug)]
pub(crate) struct Pulse {
    born: Instant,
    /// What a sync usually takes, microseconds; 0 before the first.
    usual_us: AtomicU64,
    /// Until when background work is held back, microseconds after `born`.
    slow_until_us: AtomicU64,
    /// Sealed memtables pile up: flushing comes first.
    pressed: AtomicBool,
    /// A memtable was sealed and its flush has not begun.
    flush_waits: AtomicBool,
    stopping: AtomicBool,
}

impl Default for Pulse {
    fn default() -> Self {
        Pulse {
            born: Instant::now(),
            usual_us: AtomicU64::new(0),
            slow_until_us: AtomicU64::new(0),
            pressed: AtomicBool::new(false),
            flush_waits: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        }
    }
}

impl Pulse {
    /// A write and sync of the log took this long. Called by whoever has the log.
    pub(crate) fn synced(&self, took: Duration) {
        self.synced_at(self.now_us(), took);
    }

    fn synced_at(&self, now_us: u64, took: Duration) {
        let usual_us = self.usual_us.load(Ordering::Relaxed);
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if usual_us == 0 {
            return self.usual_us.store(took_us.max(1), Ordering::Relaxed);
        }
        let slow_us = usual_us.saturating_mul(SLOW_TIMES).max(SLOW_MIN.as_micros() as u64);
        if took_us > slow_us {
            let until_us = now_us + SLOW_LASTS.as_micros() as u64;
            self.slow_until_us.store(until_us, Ordering::Relaxed);
        }
        // One long stall is no new usual.
        let counted_us = took_us.min(slow_us);
        let next_us = (usual_us * (USUAL_PARTS - 1) + counted_us).div_ceil(USUAL_PARTS);
        self.usual_us.store(next_us.max(1), Ordering::Relaxed);
    }

    /// Whether a sync usually takes no longer than this; not before the first.
    pub(crate) fn is_quick(&self, limit: Duration) -> bool {
        let usual_us = self.usual_us.load(Ordering::Relaxed);
        usual_us > 0 && u128::from(usual_us) <= limit.as_micros()
    }

    /// Whether so many sealed memtables wait that flushing must not be slowed.
    pub(crate) fn press(&self, pressed: bool) {
        self.pressed.store(pressed, Ordering::Relaxed);
    }

    /// A memtable was sealed, or flushes begin: no flush begins while a compaction runs, so one
    /// that dallied would hold the flush up, and in the end the writers.
    pub(crate) fn flush_waits(&self, waits: bool) {
        self.flush_waits.store(waits, Ordering::Relaxed);
    }

    /// Nobody waits any more.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// How long background work should pause now.
    pub(crate) fn pause(&self, work: Work) -> Duration {
        self.pause_at(self.now_us(), work)
    }

    fn pause_at(&self, now_us: u64, work: Work) -> Duration {
        let is_slow = now_us < self.slow_until_us.load(Ordering::Relaxed);
        if !is_slow || self.stopping.load(Ordering::Relaxed) {
            return Duration::ZERO;
        }
        match work {
            Work::Flush if self.pressed.load(Ordering::Relaxed) => Duration::ZERO,
            Work::Flush => FLUSH_PAUSE,
            Work::Compaction if self.flush_waits.load(Ordering::Relaxed) => Duration::ZERO,
            Work::Compaction => COMPACTION_PAUSE,
        }
    }

    /// The hook for the store.
    pub(crate) fn pacing(self: &Arc<Self>) -> Pacing {
        let pulse = Arc::clone(self);
        Pacing::new(move |work, _bytes| {
            let pause = pulse.pause(work);
            if !pause.is_zero() {
                std::thread::sleep(pause);
            }
        })
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_slow_sync_holds_background_work_back_for_a_while() {
        let pulse = Pulse::default();
        for _ in 0..10 {
            pulse.synced_at(1_000, ms(1));
        }
        assert_eq!(pulse.pause_at(1_001, Work::Compaction), Duration::ZERO);
        pulse.synced_at(2_000, ms(20));
        assert_eq!(pulse.pause_at(2_001, Work::Compaction), COMPACTION_PAUSE);
        assert_eq!(pulse.pause_at(2_001, Work::Flush), FLUSH_PAUSE);
        pulse.flush_waits(true);
        assert_eq!(pulse.pause_at(2_001, Work::Compaction), Duration::ZERO, "a flush waits for it");
        pulse.flush_waits(false);
        pulse.press(true);
        assert_eq!(pulse.pause_at(2_001, Work::Flush), Duration::ZERO, "memory comes first");
        assert_eq!(pulse.pause_at(102_001, Work::Compaction), Duration::ZERO, "it is over");
    }

    #[test]
    fn a_disk_that_is_always_slow_is_not_taken_for_a_crowded_one() {
        let pulse = Pulse::default();
        for _ in 0..10 {
            pulse.synced_at(1_000, ms(12));
        }
        assert_eq!(pulse.pause_at(1_001, Work::Compaction), Duration::ZERO);
    }

    #[test]
    fn nobody_pauses_while_the_node_stops() {
        let pulse = Pulse::default();
        pulse.synced_at(0, ms(1));
        pulse.synced_at(0, ms(500));
        pulse.stop();
        assert_eq!(pulse.pause_at(1, Work::Compaction), Duration::ZERO);
    }
}
