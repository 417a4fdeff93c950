//! The file that remembers over restarts that a node shall be drained.
//!
//! `drained.json` in the data directory: present means that a drain was asked for and not taken
//! back. It stands apart from the node's identity, which is written once and whose loss would be
//! fatal; the loss of this file only takes the drain back.
//!
//! Format 1 is an object with `format` and `since_ms`. A file of another format, or one that
//! cannot be read as one, means "drained" all the same: somebody wanted it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tl_types::UnixMs;

use crate::durable;

const FILE: &str = "drained.json";
const FORMAT: u32 = 1;

/// The file system refused; the drain is as it was before.
#[derive(Debug, thiserror::Error)]
#[error("failed to {what} {}", path.display())]
pub struct DrainError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

#[derive(Debug, Serialize, Deserialize)]
struct Content {
    format: u32,
    /// Wall time at which the drain was asked for.
    since_ms: u64,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct DrainFile {
    dir: PathBuf,
}

impl DrainFile {
    /// The file of a data directory, whether it is there or not.
    #[must_use]
    pub fn in_dir(dir: &Path) -> DrainFile {
        DrainFile { dir: dir.to_owned() }
    }

    /// The data directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn path(&self) -> PathBuf {
        self.dir.join(FILE)
    }

    /// Whether the node shall be drained.
    ///
    /// # Errors
    /// The file system does not say.
    pub fn is_there(&self) -> Result<bool, DrainError> {
        let path = self.path();
        path.try_exists().map_err(|source| DrainError { what: "look for", path, source })
    }

    /// Remembers for good that the node shall be drained.
    ///
    /// # Errors
    /// [`DrainError`]; nothing is remembered then.
    pub fn put(&self, since: UnixMs) -> Result<(), DrainError> {
        let path = self.path();
        let written = || -> io::Result<()> {
            let content = Content { format: FORMAT, since_ms: since.0 };
            let mut bytes = serde_json::to_vec(&content)?;
            bytes.push(b'\n');
            durable::put(&self.dir, FILE, &bytes)
        };
        written().map_err(|source| DrainError { what: "write", path: path.clone(), source })
    }

    /// Forgets it for good; does nothing when there is nothing to forget.
    ///
    /// # Errors
    /// [`DrainError`]; it is remembered then as before.
    pub fn take_away(&self) -> Result<(), DrainError> {
        let path = self.path();
        match fs::remove_file(&path).and_then(|()| durable::sync_dir(&self.dir)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done.map_err(|source| DrainError { what: "remove", path, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_is_remembered_until_it_is_taken_back() {
        let dir = tempfile::tempdir().expect("temp dir");
        let file = DrainFile::in_dir(dir.path());
        assert!(!file.is_there().expect("looked"));
        file.take_away().expect("nothing to forget");
        for _ in 0..2 {
            file.put(UnixMs(1_700_000_000_000)).expect("written");
            assert!(DrainFile::in_dir(dir.path()).is_there().expect("looked"));
        }
        let text = fs::read_to_string(dir.path().join(FILE)).expect("read");
        assert_eq!(text, "{\"format\":1,\"since_ms\":1700000000000}\n");
        file.take_away().expect("removed");
        assert!(!file.is_there().expect("looked"));
    }

    #[test]
    fn a_file_that_cannot_be_read_means_drained() {
        let dir = tempfile::tempdir().expect("temp dir");
        fs::write(dir.path().join(FILE), b"\xff").expect("write");
        assert!(DrainFile::in_dir(dir.path()).is_there().expect("looked"));
    }

    #[test]
    fn what_the_file_system_refuses_changes_nothing() {
        let dir = tempfile::tempdir().expect("temp dir");
        let gone = DrainFile::in_dir(&dir.path().join("gone"));
        let error = gone.put(UnixMs(1)).expect_err("no directory");
        assert!(error.to_string().starts_with("failed to write"), "{error}");
        assert!(!gone.is_there().expect("looked"));
    }
}
