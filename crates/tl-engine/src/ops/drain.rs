//! The file that remembers over restarts that a node shall be drained.
//!
//! `drained.json` in the data directory: present means that a drain was asked for and not taken
//! back. It stands apart from the node's identity, which is written once and whose loss would be
//! fatal; the loss of this file only takes the drain back.
//!
//! Format 1 is an object with `format` and `since_ms`. A file of another format, or one that
//! cannot be read as one, means "drained" all the same: somebody wanted it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tl_types::UnixMs;

const FILE: &str = "drained.json";
const FORMAT: u32 = 1;

/// The file system refused.
#[derive(Debug, thiserror::Error)]
#[error("failed to {what} {}", path.display())]
pub struct DrainError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
    stands: bool,
}

impl DrainError {
    /// Whether the file is as was wanted all the same, so that a start would find it so, and only
    /// a loss of power may undo it. Else it is as it was before.
    #[must_use]
    pub fn stands(&self) -> bool {
        self.stands
    }
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
    /// Makes what was done in the folder outlive a loss of power.
    sync_dir: fn(&Path) -> io::Result<()>,
}

impl DrainFile {
    /// The file of a data directory, whether it is there or not.
    #[must_use]
    pub fn in_dir(dir: &Path) -> DrainFile {
        DrainFile { dir: dir.to_owned(), sync_dir: crate::durable::sync_dir }
    }

    /// The same on a disk that does not sync folders.
    #[cfg(test)]
    pub(crate) fn on_bad_disk(dir: &Path) -> DrainFile {
        let sync_dir = |_: &Path| Err(io::Error::other("this folder is not synced"));
        DrainFile { dir: dir.to_owned(), sync_dir }
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
        path.try_exists().map_err(self.failed("look for", false))
    }

    /// Remembers for good that the node shall be drained.
    ///
    /// # Errors
    /// [`DrainError`], which says whether it is remembered.
    pub fn put(&self, since: UnixMs) -> Result<(), DrainError> {
        let place = || {
            let temporary = self.dir.join("drained.json.new");
            let mut file = File::create(&temporary)?;
            serde_json::to_writer(&mut file, &Content { format: FORMAT, since_ms: since.0 })?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            fs::rename(&temporary, self.path())
        };
        place().map_err(self.failed("write", false))?;
        self.make_last()
    }

    /// Forgets it for good.
    ///
    /// # Errors
    /// [`DrainError`], which says whether it is forgotten.
    pub fn take_away(&self) -> Result<(), DrainError> {
        match fs::remove_file(self.path()) {
            // An earlier attempt may have taken it away without being sure that it lasts.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => done.map_err(self.failed("remove", false))?,
        }
        self.make_last()
    }

    fn make_last(&self) -> Result<(), DrainError> {
        (self.sync_dir)(&self.dir).map_err(self.failed("sync the folder of", true))
    }

    fn failed(&self, what: &'static str, stands: bool) -> impl FnOnce(io::Error) -> DrainError {
        let path = self.path();
        move |source| DrainError { what, path, source, stands }
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
        assert!(!error.stands() && !gone.is_there().expect("looked"));
    }

    #[test]
    fn a_change_whose_folder_is_not_synced_stands_and_says_so() {
        let dir = tempfile::tempdir().expect("temp dir");
        let file = DrainFile::on_bad_disk(dir.path());
        let error = file.put(UnixMs(1)).expect_err("not synced");
        assert!(error.stands() && file.is_there().expect("looked"), "{error}");
        // The second time there is nothing left to remove, and still nobody knows that it lasts.
        for _ in 0..2 {
            let error = file.take_away().expect_err("not synced");
            assert!(error.stands() && !file.is_there().expect("looked"), "{error}");
        }
    }
}
