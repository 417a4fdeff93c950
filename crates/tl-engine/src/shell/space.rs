//! Room on disk: how much there is, and whether clients may write into it.
//!
//! ```text
//!   free bytes   0 ....... reserve ........ reserve + an eighth ...............
//!   clients      refused   as before        admitted
//!   the node's   as long as there is any: log segments, flushes, compactions, deletes, trims
//! ```
//!
//! Clients are refused while there is still room, so that what was acknowledged can be written
//! out and what frees space can be done. The thread that watches looks at the file systems every
//! so often; a write looks at a few flags. Beside the reserve, three signs tell that the disk is
//! full all the same, whatever the file system says of itself: the log waits for a segment, none
//! is ready and none could be made, or a flush found no room.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Refused clients are admitted again when the reserve is whole and this share of it more is
/// free, so that one write does not open and close the door.
const RECOVERED_DIVISOR: u64 = 8;
/// With this many reserves free, no second of writes reaches into the last one.
const NEAR_RESERVES: u64 = 8;
/// Between two looks at the file systems.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The same when the disk is full, or could be within a second.
const LOOK_EVERY_WHEN_NEAR: Duration = Duration::from_millis(50);

/// What the parts of the node know about room on disk.
#[derive(Debug)]
pub struct Space {
    /// Directories whose file systems are looked at.
    dirs: Vec<PathBuf>,
    reserve_bytes: u64,
    /// Least free bytes of all file systems at the last look; all ones before the first.
    free_bytes: AtomicU64,
    in_reserve: AtomicBool,
    log_waits: AtomicBool,
    no_spares: AtomicBool,
    flush_waits: AtomicBool,
}

impl Default for Space {
    /// Of a node whose disk is not looked at.
    fn default() -> Space {
        Space::new(Vec::new(), 0)
    }
}

impl Space {
    /// Over the file systems of these directories.
    #[must_use]
    pub fn new(dirs: Vec<PathBuf>, reserve_bytes: u64) -> Space {
        Space {
            dirs,
            reserve_bytes,
            free_bytes: AtomicU64::new(u64::MAX),
            in_reserve: AtomicBool::new(false),
            log_waits: AtomicBool::new(false),
            no_spares: AtomicBool::new(false),
            flush_waits: AtomicBool::new(false),
        }
    }

    /// Looks at the file systems.
    ///
    /// # Errors
    /// What the operating system says; what was known stays.
    pub(crate) fn look(&self) -> io::Result<()> {
        let mut least = u64::MAX;
        for dir in &self.dirs {
            let stat = rustix::fs::statvfs(dir)?;
            least = least.min(stat.f_bavail.saturating_mul(stat.f_frsize));
        }
        self.saw(least);
        Ok(())
    }

    fn saw(&self, free_bytes: u64) {
        self.free_bytes.store(free_bytes, Ordering::Relaxed);
        let (reserve, is_in) = (self.reserve_bytes, self.in_reserve.load(Ordering::Relaxed));
        let more = if is_in { reserve / RECOVERED_DIVISOR } else { 0 };
        let is_in_now = free_bytes < reserve.saturating_add(more);
        self.in_reserve.store(is_in_now, Ordering::Relaxed);
        if is_in_now && !is_in {
            tracing::warn!(free_bytes, reserve, "little room on disk: clients' writes are refused");
        }
        if is_in && !is_in_now {
            tracing::info!(free_bytes, "there is room on disk again: clients' writes are taken");
        }
    }

    /// When to look again.
    pub(crate) fn pause(&self) -> Duration {
        let is_near = self.free_bytes() < self.reserve_bytes.saturating_mul(NEAR_RESERVES);
        if is_near || self.is_full() { LOOK_EVERY_WHEN_NEAR } else { LOOK_EVERY }
    }

    /// Whether clients' writes find no room.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let signs = [&self.in_reserve, &self.log_waits, &self.no_spares, &self.flush_waits];
        signs.iter().any(|sign| sign.load(Ordering::Relaxed))
    }

    /// Free bytes at the last look.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        self.free_bytes.load(Ordering::Relaxed)
    }

    /// Bytes that are not for clients.
    #[must_use]
    pub fn reserve_bytes(&self) -> u64 {
        self.reserve_bytes
    }

    /// Whether so much is free, without the reserve or with it.
    pub(crate) fn has(&self, bytes: u64, with_reserve: bool) -> bool {
        // What is known may be a second old; this is asked rarely.
        drop(self.look());
        let left = if with_reserve { 0 } else { self.reserve_bytes };
        self.free_bytes() >= left.saturating_add(bytes)
    }

    /// The log waits for room for a segment, or no longer does; says what it was before.
    pub(crate) fn log_waits(&self, waits: bool) -> bool {
        self.log_waits.swap(waits, Ordering::Relaxed)
    }

    /// There is neither a segment ready nor room for one, or there is again. What is left of the
    /// current one is for what frees space.
    pub(crate) fn no_spares(&self, none: bool) -> bool {
        self.no_spares.swap(none, Ordering::Relaxed)
    }

    /// A flush found no room, or one was done; says what it was before.
    pub(crate) fn flush_waits(&self, waits: bool) -> bool {
        self.flush_waits.swap(waits, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_closes_the_door_and_a_little_more_opens_it() {
        let space = Space::new(Vec::new(), 800);
        let full_at = |free| {
            space.saw(free);
            space.is_full()
        };
        assert!(!full_at(801) && !full_at(800), "the reserve itself is left");
        assert!(full_at(799) && full_at(850) && full_at(899));
        assert!(!full_at(900) && !full_at(800), "open until it is touched again");
    }

    #[test]
    fn every_sign_of_a_full_disk_counts_alone() {
        let space = Space::default();
        let signs: [fn(&Space, bool) -> bool; 3] =
            [Space::log_waits, Space::no_spares, Space::flush_waits];
        for sign in signs {
            assert!(!space.is_full());
            assert!(!sign(&space, true) && space.is_full());
            assert!(sign(&space, false));
        }
        assert_eq!(space.pause(), LOOK_EVERY);
    }

    #[test]
    fn a_file_system_is_looked_at() {
        let dir = tempfile::tempdir().expect("temp dir");
        let space = Space::new(vec![dir.path().to_owned()], 1);
        assert_eq!(space.free_bytes(), u64::MAX);
        space.look().expect("looked");
        let free = space.free_bytes();
        assert!(free < u64::MAX && space.has(1, false) && !space.has(u64::MAX, true));
        let greedy = Space::new(vec![dir.path().to_owned()], u64::MAX);
        assert!(greedy.has(1, true) && !greedy.has(1, false) && greedy.is_full());
        let gone = Space::new(vec![dir.path().join("gone")], 1);
        assert!(gone.look().is_err() && !gone.is_full());
    }
}
