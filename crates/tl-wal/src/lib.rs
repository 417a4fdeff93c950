//! The node's one log on disk, shared by all groups.

pub mod disk;
pub mod error;
mod format;
pub mod options;
pub mod record;

pub use disk::{Disk, DiskFile, FileInfo};
pub use error::{Corruption, Damage, Doubt, Fault, WalError};
pub use options::{MEMBERSHIP_BYTES_MAX, OnDamage, WalOptions};
pub use record::{Position, Record};
