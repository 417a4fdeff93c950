//! The tables, how they come to be, and the check that they are ours.
//!
//! All names begin with `fleet_`, so that they fit into a file with an application's own tables:
//! one transaction can then hold the application's rows and a submission.
//!
//! A step's row is kept small, for it is written several times; what it is given lies in
//! `fleet_payloads`, written once. Its last attempt is in its row; `fleet_attempts` has the ones
//! that did not complete it. Finished steps leave every index that claims look at.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::clock::Clock;
use super::fault::{Fault, store_error};
use crate::error::StoreError;

/// The version of the tables that this program works with.
pub const SCHEMA_VERSION: u64 = 1;

const VERSION_1: &str = include_str!("schema_1.sql");

/// Makes the tables or checks them, and declares all leases of an earlier start of the machine
/// as run out. Many processes may do this at once: one does it, the others see it done.
pub(super) fn migrate(conn: &mut Connection, clock: &Clock) -> Result<(), StoreError> {
    let boot_id =
        clock.boot_id().map_err(|error| StoreError::Unavailable { source: Arc::new(error) })?;
    let mut work = || -> Result<Result<(), StoreError>, Fault> {
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let found = version(&tx)?;
        if found > SCHEMA_VERSION {
            return Ok(Err(StoreError::Schema { found, wanted: SCHEMA_VERSION }));
        }
        if found < 1 {
            tx.execute_batch(VERSION_1)?;
        }
        set(&tx, "schema_version", &SCHEMA_VERSION.to_string())?;
        if get(&tx, "boot_id")?.as_deref() != Some(&boot_id) {
            tx.execute("UPDATE fleet_steps SET lease_until = 0 WHERE state = 2", [])?;
            tx.execute("UPDATE fleet_pods SET lease_until = 0, birth = 0", [])?;
            tx.execute("UPDATE fleet_leader SET lease_until = 0", [])?;
            set(&tx, "boot_id", &boot_id)?;
        }
        tx.commit()?;
        Ok(Ok(()))
    };
    work().map_err(store_error)?
}

/// Whether the tables are those of this program and were used since the machine started, so
/// that [`migrate`] would change nothing.
pub(super) fn is_current(conn: &Connection, clock: &Clock) -> Result<bool, Fault> {
    // What does not say of which start it is, is looked at by who may wait.
    let Ok(boot_id) = clock.boot_id() else { return Ok(false) };
    Ok(version(conn)? == SCHEMA_VERSION && get(conn, "boot_id")?.as_deref() == Some(&boot_id))
}

/// The version of the tables in the file; 0 when there are none.
pub(super) fn version(conn: &Connection) -> Result<u64, Fault> {
    let there: bool = conn.query_row(
        "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'fleet_meta')",
        [],
        |row| row.get(0),
    )?;
    if !there {
        return Ok(0);
    }
    let text = get(conn, "schema_version")?.unwrap_or_default();
    text.parse().map_err(|_| Fault::unreadable("fleet_meta.schema_version"))
}

fn get(conn: &Connection, name: &str) -> Result<Option<String>, Fault> {
    let mut found = conn.prepare_cached("SELECT value FROM fleet_meta WHERE name = ?1")?;
    Ok(found.query_row([name], |row| row.get(0)).optional()?)
}

fn set(conn: &Connection, name: &str, value: &str) -> Result<(), Fault> {
    conn.execute(
        "INSERT INTO fleet_meta (name, value) VALUES (?1, ?2)
         ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        params![name, value],
    )?;
    Ok(())
}
