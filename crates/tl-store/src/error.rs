//! Why the store could not do what was asked, sorted by what the caller does next.

use std::io;
use std::path::PathBuf;

/// A failure of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Stop the groups that read it: bytes on disk are not what was written. Never retried.
    #[error("damaged store file {} while {doing}: {detail}", file.display())]
    Damaged {
        /// The damaged file; the store's directory when the reader could not tell which.
        file: PathBuf,
        /// What was being read.
        doing: String,
        /// What was found wrong.
        detail: String,
    },

    /// Try again once the disk has room: what was to be written was not, and all is as it was
    /// before.
    #[error("no room on disk at {} for {doing}", file.display())]
    NoRoom {
        /// The directory without room.
        file: PathBuf,
        /// What was being done.
        doing: String,
        /// The operating system's answer.
        source: io::Error,
    },

    /// Stop the node: the operating system refused. After a failed sync nothing on disk may
    /// be trusted to have arrived.
    #[error("store failed at {} while {doing}", file.display())]
    Io {
        /// The file or directory in question.
        file: PathBuf,
        /// What was being done.
        doing: String,
        /// The operating system's answer.
        source: io::Error,
    },
}

impl StoreError {
    /// Whether the same call may succeed later, when there is room.
    #[must_use]
    pub fn is_no_room(&self) -> bool {
        matches!(self, StoreError::NoRoom { .. })
    }
}
