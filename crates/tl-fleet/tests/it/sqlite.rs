//! The embedded store: the conformance suite by a clock that is moved by hand, and what is
//! its own.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tempfile::TempDir;
use tl_fleet::Store;
use tl_fleet::sqlite::{Clock, ManualClock, SqliteOptions, SqliteStore};

use crate::conformance::World;

mod clock;
mod disk;
mod file;
mod own_transaction;

/// A file of its own and a clock that stands still.
pub struct SqliteWorld {
    pub folder: TempDir,
    pub clock: ManualClock,
    pub store: Arc<dyn Store>,
}

impl SqliteWorld {
    pub fn options(&self) -> SqliteOptions {
        let path = self.folder.path().join("fleet.db");
        SqliteOptions { path, clock: Clock::Manual(self.clock.clone()) }
    }

    /// What another process, or this one after a restart, would have.
    pub fn open_again(&self) -> Arc<dyn Store> {
        Arc::new(SqliteStore::open(self.options()).unwrap())
    }
}

pub async fn world() -> SqliteWorld {
    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::default();
    let path = folder.path().join("fleet.db");
    let options = SqliteOptions { path, clock: Clock::Manual(clock.clone()) };
    let store = Arc::new(SqliteStore::open(options).unwrap());
    SqliteWorld { folder, clock, store }
}

impl World for SqliteWorld {
    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    fn pass(&self, ms: u64) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        self.clock.advance(ms);
        Box::pin(std::future::ready(()))
    }
}

mod suite {
    crate::conformance!(crate::sqlite::world);
}
