//! Processes that share a file take turns at writing.

use std::fs::{File, TryLockError};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::StoreError;

/// Wait between two tries to get a lock that is not waited for without a limit.
const AGAIN: Duration = Duration::from_millis(2);

/// Makes processes that share the file take turns at writing.
///
/// SQLite itself lets who waits for its lock sleep and try again, so a process that writes
/// without a pause keeps all others out. Here who waits holds `next`, and who has just written
/// must get `next` before it may write again.
#[derive(Debug)]
pub(super) struct Turn {
    next: File,
    now: File,
}

impl Turn {
    /// The locks beside a database.
    pub(super) fn open(database: &std::path::Path) -> std::io::Result<Turn> {
        let beside = |ending: &str| {
            let mut name = database.as_os_str().to_owned();
            name.push(ending);
            File::options().create(true).append(true).open(name)
        };
        Ok(Turn { next: beside("-next")?, now: beside("-turn")? })
    }

    /// Waits for this process's turn, for as long as it takes.
    pub(super) fn wait(&self) -> Result<Held<'_>, StoreError> {
        let unavailable =
            |error: std::io::Error| StoreError::Unavailable { source: Arc::new(error) };
        self.next.lock().map_err(unavailable)?;
        let now = self.now.lock();
        let next = self.next.unlock();
        now.map_err(unavailable)?;
        let held = Held(&self.now);
        next.map_err(unavailable)?;
        Ok(held)
    }

    /// Waits for no longer than that. Who waits without a limit is served before: this is for
    /// a file that nobody works with yet.
    pub(super) fn wait_for(&self, limit: Duration) -> Result<Held<'_>, StoreError> {
        let until = Instant::now() + limit;
        lock_until(&self.next, until)?;
        let next = Held(&self.next);
        lock_until(&self.now, until)?;
        drop(next);
        Ok(Held(&self.now))
    }
}

fn lock_until(file: &File, until: Instant) -> Result<(), StoreError> {
    let unavailable = |error: std::io::Error| StoreError::Unavailable { source: Arc::new(error) };
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(AGAIN),
            Err(TryLockError::WouldBlock) => {
                let held = "another process is in the middle of a transaction and does not go on";
                return Err(unavailable(std::io::Error::new(std::io::ErrorKind::TimedOut, held)));
            }
            Err(TryLockError::Error(error)) => return Err(unavailable(error)),
        }
    }
}

/// A turn; over when dropped.
pub(super) struct Held<'t>(&'t File);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // Closing the file at the latest lets it go.
        drop(self.0.unlock());
    }
}
