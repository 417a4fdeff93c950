//! The tables and functions, how they come to be, and the check that they are ours.
//!
//! Tables change by one script per version, each run once. Functions are made anew by every
//! migration, so there is one text of each. All of it is one transaction.

use tokio_postgres::{Client, Transaction};

use super::fault::{connect_error, unreadable, wrong_type};
use super::options::PostgresOptions;
use super::pool::open;
use crate::error::StoreError;

/// The version of the tables that this program works with.
pub const SCHEMA_VERSION: u64 = VERSIONS.len() as u64;

/// What leads from each version of the tables to the next, from nothing on.
const VERSIONS: [&str; 2] = [include_str!("schema_1.sql"), include_str!("schema_2.sql")];
/// A function stands before those that use it.
const FUNCTIONS: [&str; 9] = [
    include_str!("functions/base.sql"),
    include_str!("functions/submit.sql"),
    include_str!("functions/claim.sql"),
    include_str!("functions/finish.sql"),
    include_str!("functions/recover.sql"),
    include_str!("functions/lead.sql"),
    include_str!("functions/retain.sql"),
    include_str!("functions/effects.sql"),
    include_str!("functions/people.sql"),
];
const AFTER: &str = include_str!("after.sql");
const GRANTS: &str = include_str!("grants.sql");

/// Keeps two migrations apart; beside the schema's name, so that fleets in one database do not
/// wait for each other.
const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtextextended('throughline fleet ' || $1, 0))";

/// What a role needs that works in a fleet and does not make its tables, as a script for psql.
/// The role is the variable `role`.
#[must_use]
pub fn grants(options: &PostgresOptions) -> String {
    options.sql(GRANTS).replace("SCHEMA_NAME", &format!("\"{}\"", options.schema))
}

/// Makes the tables or brings them up to this version. Many pods may do this at once: one does
/// it, the others wait and see it done.
///
/// # Errors
/// - [`StoreError::Schema`] when a newer program made the tables.
/// - [`StoreError::Refused`] when the role may not make tables.
/// - [`StoreError::Unavailable`] when the database is away.
pub async fn migrate(options: &PostgresOptions) -> Result<(), StoreError> {
    let (mut client, driver) = open(options).await?;
    let migrated = migrate_over(&mut client, options).await;
    driver.abort();
    migrated
}

async fn migrate_over(client: &mut Client, options: &PostgresOptions) -> Result<(), StoreError> {
    // No lock and no right to make anything is needed when all is done.
    if version(client, options).await? == SCHEMA_VERSION {
        return Ok(());
    }
    let tx = client.transaction().await.map_err(connect_error)?;
    tx.execute(LOCK, &[&options.schema]).await.map_err(connect_error)?;
    let found = version(tx.client(), options).await?;
    if found > SCHEMA_VERSION {
        return Err(StoreError::Schema { found, wanted: SCHEMA_VERSION });
    }
    if found == 0 {
        make_room(&tx, options).await?;
    }
    if found < SCHEMA_VERSION {
        let missing = VERSIONS.iter().skip(usize::try_from(found).unwrap_or(usize::MAX));
        for script in missing.chain(&FUNCTIONS).chain([&AFTER]) {
            tx.batch_execute(&options.sql(script)).await.map_err(connect_error)?;
        }
    }
    let set = "INSERT INTO @fleet_meta (name, value) VALUES ('schema_version', $1)
               ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    tx.execute(&options.sql(set), &[&SCHEMA_VERSION.to_string()]).await.map_err(connect_error)?;
    tx.commit().await.map_err(connect_error)
}

/// A place for the first tables.
async fn make_room(tx: &Transaction<'_>, options: &PostgresOptions) -> Result<(), StoreError> {
    let encoding = tx.query_one("SHOW server_encoding", &[]).await.map_err(connect_error)?;
    if encoding.try_get::<_, String>(0).map_err(wrong_type)? != "UTF8" {
        return Err(unreadable("the database's encoding, which must be UTF8"));
    }
    let there = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)";
    let there = tx.query_one(there, &[&options.schema]).await.map_err(connect_error)?;
    if !there.try_get::<_, bool>(0).map_err(wrong_type)? {
        let create = format!("CREATE SCHEMA \"{}\"", options.schema);
        tx.batch_execute(&create).await.map_err(connect_error)?;
    }
    Ok(())
}

/// Refuses tables of another version.
pub(super) async fn check(client: &Client, options: &PostgresOptions) -> Result<(), StoreError> {
    let found = version(client, options).await?;
    if found == SCHEMA_VERSION {
        Ok(())
    } else {
        Err(StoreError::Schema { found, wanted: SCHEMA_VERSION })
    }
}

/// The version of the tables that are there; 0 when there are none.
async fn version(client: &Client, options: &PostgresOptions) -> Result<u64, StoreError> {
    let there = "SELECT EXISTS (SELECT FROM pg_catalog.pg_class AS c
                   JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
                   WHERE n.nspname = $1 AND c.relname = 'fleet_meta')";
    let there = client.query_one(there, &[&options.schema]).await.map_err(connect_error)?;
    if !there.try_get::<_, bool>(0).map_err(wrong_type)? {
        return Ok(0);
    }
    let found = options.sql("SELECT value FROM @fleet_meta WHERE name = 'schema_version'");
    let Some(row) = client.query_opt(&found, &[]).await.map_err(connect_error)? else {
        return Ok(0);
    };
    let text: String = row.try_get(0).map_err(wrong_type)?;
    text.parse().map_err(|_| unreadable("fleet_meta.schema_version"))
}
