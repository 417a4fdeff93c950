//! The node's one log on disk, shared by all groups.
//!
//! A record that [`Wal::sync`] has confirmed is handed over at every later opening, in order,
//! until [`Wal::release`] lets it go. What a crash may take is what was never confirmed.
//!
//! ```text
//!   file 7, life 41      file 2, life 42      file 9, life 43           file 4, spare
//!   head state job job   head state job job   head state job | zeros    head zeros
//!                      '-> next 42          '-> next 43      ^ end
//!   first -------------------- position ------------------->
//! ```
//!
//! The log is a chain of *segments*, files of a fixed size that are made ahead and used again.
//! A *job* is what one [`Wal::append`] wrote: records that are found whole or not at all. A
//! segment begins with the state of every group, so the one before it is not needed for that.
//!
//! Invariants:
//!  - W1 A record counts only with the life of its segment, at its position, with both of its
//!    checksums; so bytes of an earlier life, or of a write that was cut, never come back.
//!  - W2 Every record states what was durable before it was written (its *mark*), and an idle
//!    log adds such a mark. What is unreadable below the highest mark is corruption, and is
//!    named; above it, it is the torn end of the last write, and is cut and reported. What is
//!    done about corruption the owner chooses ([`OnDamage`]); it is never passed over in silence.
//!  - W3 A segment's head is durable before its first record is written, everything in earlier
//!    segments before that, and the full segment names its successor: a missing or headless
//!    segment is found out.
//!  - W4 A released segment is used again only after the log durably says that it is not needed.
//!  - W5 After a failed write or sync nothing more is written: the node must stop.
//!
//! What W2 cannot see: damage to confirmed records that no mark follows yet, at most for the
//! 50 ms before an idle log is marked. It is cut and reported like a torn write.
//!
//! Entries that somebody else lacks are read back from the segments while the log goes on: [`Reader`].
//! The owner keeps what it still needs itself in memory.
//!
//! Absent on purpose: threads, clocks, and what Raft means by the records.

pub mod counters;
pub mod disk;
pub mod error;
mod format;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod inspect;
pub mod memdisk;
pub mod open;
pub mod options;
pub mod pool;
pub mod read;
pub mod record;
mod scan;
mod states;
mod std_disk;
mod wal;

pub use counters::{Counters, Counts};
pub use disk::{Disk, DiskFile, FileInfo};
pub use error::{Corruption, Damage, Doubt, Fault, WalError};
pub use open::{Cut, Opened};
pub use options::{MEMBERSHIP_BYTES_MAX, OnDamage, WalOptions};
pub use pool::Preparer;
pub use read::{ReadBack, Reader, Segments, Want};
pub use record::{Position, Record};
pub use std_disk::StdDisk;
pub use wal::Wal;
