//! Brings what a flush writes to the disk while it is being written.
//!
//! A blob file is synced when it is finished, which hands the disk all of it at once, tens of
//! megabytes; syncs of the log then wait behind them for a tenth of a second and longer. Synced
//! in steps, they wait behind one step. Syncing early promises nothing: what is there after a
//! crash counts only from the pointer move on.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Bytes of rows between two syncs.
const STEP_BYTES: u64 = 1024 * 1024;

/// Syncs the newest file of a directory whenever a step of bytes was written.
pub(super) struct Writeback {
    dir: PathBuf,
    /// The file being written, and its number.
    newest: Option<(u64, File)>,
    /// Bytes of rows since the last sync.
    unsynced: u64,
}

impl Writeback {
    pub(super) fn of(dir: &Path) -> Writeback {
        Writeback { dir: dir.to_path_buf(), newest: None, unsynced: 0 }
    }

    /// Counts the bytes of a row.
    pub(super) fn count(&mut self, bytes: usize) -> io::Result<()> {
        self.unsynced += bytes as u64;
        if self.unsynced < STEP_BYTES {
            return Ok(());
        }
        self.unsynced = 0;
        self.look()?;
        match &self.newest {
            Some((_, file)) => file.sync_data(),
            None => Ok(()),
        }
    }

    /// Finds the file with the highest number: the writer makes them in that order.
    fn look(&mut self) -> io::Result<()> {
        let mut newest = None;
        for entry in fs::read_dir(&self.dir)? {
            let number = entry?.file_name().to_str().and_then(|name| name.parse::<u64>().ok());
            newest = newest.max(number);
        }
        if newest != self.newest.as_ref().map(|(number, _)| *number) {
            self.newest = match newest {
                Some(number) => Some((number, File::open(self.dir.join(number.to_string()))?)),
                None => None,
            };
        }
        Ok(())
    }
}
