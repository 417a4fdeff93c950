//! The store's clock.

use tl_types::UnixMs;

/// An instant of the store's own clock, milliseconds. It means something only beside other
/// instants of the same store: Postgres counts from 1970, SQLite from the start of the machine,
/// because that clock cannot be set. Deadlines are of this kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreTime(pub u64);

impl StoreTime {
    /// Milliseconds from `earlier` until this instant; 0 when it is not after it.
    #[must_use]
    pub fn since_ms(self, earlier: StoreTime) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// What the store answered, and when by its clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timed<T> {
    /// The answer.
    pub value: T,
    /// When, by the clock that deadlines are compared with.
    pub at: StoreTime,
    /// The calendar's time at the store, for showing and for `run_at`. It may jump.
    pub wall: UnixMs,
}

impl<T> Timed<T> {
    /// The same instant with another answer.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Timed<U> {
        Timed { value: change(self.value), at: self.at, wall: self.wall }
    }
}
