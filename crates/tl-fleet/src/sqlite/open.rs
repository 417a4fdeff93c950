//! Connections to the file, and how a new one comes to be.
//!
//! A file that is set up is opened without a lock: who wants to look is not held up by a process
//! that stands still in the middle of a transaction. A new one is set up in turn.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::SqliteOptions;
use super::fault::{Fault, io_error, store_error};
use super::schema;
use super::turn::Turn;
use crate::error::StoreError;

/// How long a statement waits for the lock of another program.
const BUSY_MS: u64 = 5_000;
/// How long the opening of a new file waits for others that are at it.
const TURN: Duration = Duration::from_secs(5);
/// Memory that the writer's pages may take, KiB.
const WRITER_CACHE_KIB: u32 = 16 * 1024;
/// Memory that the reader's pages may take, KiB.
const READER_CACHE_KIB: u32 = 4 * 1024;
/// Pages in the write-ahead log at which they are moved into the file; 4 KiB each.
const CHECKPOINT_PAGES: u32 = 4_000;

/// The connection that writes, and the locks by which it takes turns with others.
pub(super) fn writer(options: &SqliteOptions) -> Result<(Connection, Turn), StoreError> {
    let turn = Turn::open(&options.path).map_err(io_error)?;
    if let Some(conn) = set_up_already(options)? {
        return Ok((conn, turn));
    }
    // Two that switch a new file to its log at once do not wait for each other: one would be told
    // that the file is busy.
    let held = turn.wait_for(TURN)?;
    let mut conn = connect(&options.path, WRITER_CACHE_KIB).map_err(store_error)?;
    schema::migrate(&mut conn, &options.clock)?;
    drop(held);
    Ok((conn, turn))
}

/// A connection that looks.
pub(super) fn reader(path: &Path) -> Result<Connection, StoreError> {
    connect(path, READER_CACHE_KIB).map_err(store_error)
}

/// A connection to a file that needs nothing done before it is worked with: it has its log, these
/// tables, and was used since the machine started. No lock is waited for.
fn set_up_already(options: &SqliteOptions) -> Result<Option<Connection>, StoreError> {
    let look = || -> Result<Option<Connection>, Fault> {
        let conn = bare(&options.path)?;
        let mode: String = conn.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
        if mode != "wal" || !schema::is_current(&conn, &options.clock)? {
            return Ok(None);
        }
        set(&conn, WRITER_CACHE_KIB)?;
        Ok(Some(conn))
    };
    match look() {
        Ok(conn) => Ok(conn),
        // Somebody sets it up just now, or left it half done: that is looked at in turn.
        Err(Fault::Sql(error)) if is_passing(&error) => Ok(None),
        Err(fault) => Err(store_error(fault)),
    }
}

fn is_passing(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked, FileLockingProtocolFailed};
    matches!(
        error.sqlite_error_code(),
        Some(DatabaseBusy | DatabaseLocked | FileLockingProtocolFailed)
    )
}

fn bare(path: &Path) -> Result<Connection, Fault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(Duration::from_millis(BUSY_MS))?;
    conn.set_prepared_statement_cache_capacity(64);
    Ok(conn)
}

fn connect(path: &Path, cache_kib: u32) -> Result<Connection, Fault> {
    let conn = bare(path)?;
    // The mode is asked for and not assumed: on some file systems it cannot be had.
    let mode: String = conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(Fault::unreadable("a file system without shared memory for the log"));
    }
    set(&conn, cache_kib)?;
    Ok(conn)
}

fn set(conn: &Connection, cache_kib: u32) -> Result<(), Fault> {
    conn.execute_batch(&format!(
        "PRAGMA synchronous = FULL;
         PRAGMA cache_size = -{cache_kib};
         PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES};
         PRAGMA temp_store = MEMORY;"
    ))?;
    Ok(())
}
