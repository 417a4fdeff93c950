//! The lock on a data directory: one process at a time, from before anything in it is opened
//! until the last thread has ended.
//!
//! Opening the store removes files that its list does not name, and another process's flush has
//! written such files; so the lock comes first.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

/// The file that is kept locked. It stays when the process ends; the lock on it does not.
const FILE: &str = "node.lock";

/// Held while the directory is in use.
#[derive(Debug)]
pub struct DirLock(#[expect(dead_code, reason = "held for its drop")] File);

/// Why the directory could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Stop the other process first, or choose another directory.
    #[error("the data directory {} is in use by another process", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// The file system refused.
    #[error("failed to lock {}", path.display())]
    Io {
        /// The lock's file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl DirLock {
    /// Locks `dir`, which is made when missing.
    ///
    /// # Errors
    /// [`LockError`]; nothing was opened then.
    pub fn take(dir: &Path) -> Result<DirLock, LockError> {
        let path = dir.join(FILE);
        let io = |source| LockError::Io { path: path.clone(), source };
        fs::create_dir_all(dir).map_err(io)?;
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).write(true).open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => Ok(DirLock(file)),
            Err(TryLockError::WouldBlock) => Err(LockError::InUse { dir: dir.to_owned() }),
            Err(TryLockError::Error(source)) => Err(io(source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_owner_at_a_time() {
        let dir = tempfile::tempdir().expect("temp dir");
        let first = DirLock::take(dir.path()).expect("free");
        assert!(matches!(DirLock::take(dir.path()), Err(LockError::InUse { .. })));
        drop(first);
        DirLock::take(dir.path()).expect("free again");
    }
}
