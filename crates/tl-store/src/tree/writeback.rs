//! Brings what a flush writes to the disk while it is being written.
//!
//! A blob file is synced when it is finished, which hands the disk all of it at once, tens of
//! megabytes; syncs of the log then wait behind them for a tenth of a second and longer. Synced
//! in steps, they wait behind one step. Syncing early promises nothing: what is there after a
//! crash counts only from the pointer move on.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::leftovers::highest_number;

/// Bytes of rows between two syncs.
const STEP_BYTES: u64 = 1024 * 1024;

/// Syncs the file that is being written in a directory whenever a step of bytes was written.
pub(super) struct Writeback {
    dir: PathBuf,
    /// Files up to this number are others'.
    others: Option<u64>,
    /// The file being written, and its number.
    newest: Option<(u64, File)>,
    /// Bytes of rows since the last sync.
    unsynced: u64,
}

impl Writeback {
    /// For files that are begun from now on.
    pub(super) fn of(dir: &Path) -> Writeback {
        // Syncing a file of others costs a moment and harms nobody.
        let others = highest_number(dir).unwrap_or(None);
        Writeback { dir: dir.to_path_buf(), others, newest: None, unsynced: 0 }
    }

    /// Counts the bytes of a row.
    pub(super) fn count(&mut self, bytes: usize) -> io::Result<()> {
        self.unsynced += bytes as u64;
        if self.unsynced < STEP_BYTES {
            return Ok(());
        }
        self.unsynced = 0;
        let number = highest_number(&self.dir)?.filter(|number| Some(*number) > self.others);
        if number != self.newest.as_ref().map(|(number, _)| *number) {
            self.newest = match number {
                Some(number) => Some((number, File::open(self.dir.join(number.to_string()))?)),
                None => None,
            };
        }
        self.newest.as_ref().map_or(Ok(()), |(_, file)| file.sync_data())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_files_begun_since_are_taken_and_the_newest_of_them() {
        let dir = tempfile::tempdir().expect("a folder");
        let make = |name: &str| fs::write(dir.path().join(name), [0; 8]).expect("a file");
        make("7");
        make("other");
        let mut writeback = Writeback::of(dir.path());
        let step = STEP_BYTES as usize;
        let mut taken = |bytes: usize| {
            writeback.count(bytes).expect("synced");
            writeback.newest.as_ref().map(|(number, _)| *number)
        };
        assert_eq!(taken(step), None, "7 is another's");
        make("8");
        assert_eq!(taken(step - 1), None, "no step yet");
        assert_eq!(taken(1), Some(8));
        make("10");
        assert_eq!(taken(step), Some(10), "numbers, not letters");
        fs::remove_dir_all(dir.path()).expect("removed");
        assert!(writeback.count(step).is_err(), "a disk that fails is not kept quiet");
    }
}
