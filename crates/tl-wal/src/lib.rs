//! The node's one log on disk, shared by all groups.

pub mod counters;
pub mod disk;
pub mod error;
mod format;
pub mod memdisk;
pub mod open;
pub mod options;
pub mod pool;
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
pub use record::{Position, Record};
pub use std_disk::StdDisk;
pub use wal::Wal;
