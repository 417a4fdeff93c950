//! The tables and functions, how they come to be, and the check that they are ours.
//!
//! Tables change by one script per version, each run once. Of functions there is one text each,
//! with a number that grows whenever one of them changes: who brings a larger number makes all of
//! them anew, and who brings a smaller one works with those that are there. So within a version a
//! function keeps its name, arguments and answer, and whatever needs others bears another name.
//! All of it is one transaction.

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, Transaction};
use xxhash_rust::xxh3::Xxh3;

use super::fault::{connect_error, may_run_again, unreadable, wrong_type};
use super::options::PostgresOptions;
use super::pool::open;
use crate::error::StoreError;

/// The version of the tables that this program works with.
pub const SCHEMA_VERSION: u64 = VERSIONS.len() as u64;

/// What leads from each version of the tables to the next, from nothing on.
const VERSIONS: [&str; 3] =
    [include_str!("schema_1.sql"), include_str!("schema_2.sql"), include_str!("schema_3.sql")];
/// To be raised with every change of a function.
const FUNCTIONS_NUMBER: u64 = 1;
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
/// Rights, whenever functions were made.
const AFTER: &str = include_str!("after.sql");
const GRANTS: &str = include_str!("grants.sql");
/// The first part of finished steps is an hour long: nobody knows yet how long steps will be kept.
const FIRST_PART: &str = "SELECT @fleet_parts_ahead(3600000)";

/// Keeps two migrations apart; beside the schema's name, so that fleets in one database do not
/// wait for each other.
const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtextextended('throughline fleet ' || $1, 0))";
/// Whoever works with the tables waits behind a migration that waits for one of them, so it does
/// not wait for long, and comes again.
const BRIEFLY: &str = "SET LOCAL lock_timeout = '3s'";
/// How often a migration comes again that met others on its tables.
const AGAIN_MAX: u32 = 5;

/// What a role needs that works in a fleet and does not make its tables, as a script for psql.
/// The role is the variable `role`.
#[must_use]
pub fn grants(options: &PostgresOptions) -> String {
    options.sql(GRANTS).replace("SCHEMA_NAME", &format!("\"{}\"", options.schema))
}

/// Makes the tables or brings them and their functions up to this program. Many pods may do this
/// at once: one does it, the others wait and see it done. A role that may not make functions works
/// with older ones, as long as the tables are of this version.
///
/// # Errors
/// - [`StoreError::Schema`] when a newer program made the tables.
/// - [`StoreError::Refused`] when the role may not make tables.
/// - [`StoreError::Unavailable`] when the database is away, or somebody holds the tables for long.
pub async fn migrate(options: &PostgresOptions) -> Result<(), StoreError> {
    let (mut client, driver) = open(options).await?;
    let migrated = migrate_over(&mut client, options).await;
    driver.abort();
    migrated
}

async fn migrate_over(client: &mut Client, options: &PostgresOptions) -> Result<(), StoreError> {
    // No lock and no right to make anything is needed when all is done.
    let found = version(client, options).await?;
    if found == SCHEMA_VERSION && !functions_are_older(client, options).await? {
        return Ok(());
    }
    let mut again = 0;
    loop {
        match migrate_once(client, options).await {
            Err(Failed::Met(_)) if again < AGAIN_MAX => again += 1,
            Err(Failed::Ended(StoreError::Refused { source })) if found == SCHEMA_VERSION => {
                tracing::warn!(%source, "this role may not make the functions anew; those of an \
                    older program stay until the owner of the tables migrates");
                return Ok(());
            }
            Err(Failed::Met(error) | Failed::Ended(error)) => return Err(error),
            Ok(()) => return Ok(()),
        }
    }
}

/// Why a migration did not happen.
enum Failed {
    /// It met others on its tables: another try may succeed.
    Met(StoreError),
    /// For good.
    Ended(StoreError),
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Failed {
        Failed::Ended(error)
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        let waited = error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE);
        match waited || may_run_again(&error) {
            true => Failed::Met(connect_error(error)),
            false => Failed::Ended(connect_error(error)),
        }
    }
}

async fn migrate_once(client: &mut Client, options: &PostgresOptions) -> Result<(), Failed> {
    let tx = client.transaction().await?;
    tx.execute(LOCK, &[&options.schema]).await?;
    tx.batch_execute(BRIEFLY).await?;
    let found = version(tx.client(), options).await?;
    if found > SCHEMA_VERSION {
        return Err(StoreError::Schema { found, wanted: SCHEMA_VERSION }.into());
    }
    if found == 0 {
        make_room(&tx, options).await?;
    }
    let missing = VERSIONS.iter().skip(usize::try_from(found).unwrap_or(usize::MAX));
    for script in missing {
        tx.batch_execute(&options.sql(script)).await?;
    }
    if found < SCHEMA_VERSION || functions_are_older(tx.client(), options).await? {
        for script in FUNCTIONS.iter().chain([&AFTER]) {
            tx.batch_execute(&options.sql(script)).await?;
        }
        note(&tx, options, "functions", &functions_of_ours()).await?;
    }
    if found < SCHEMA_VERSION {
        tx.batch_execute(&options.sql(FIRST_PART)).await?;
        note(&tx, options, "schema_version", &SCHEMA_VERSION.to_string()).await?;
    }
    Ok(tx.commit().await?)
}

/// Writes one line about the tables.
async fn note(
    tx: &Transaction<'_>,
    options: &PostgresOptions,
    name: &str,
    value: &str,
) -> Result<(), Error> {
    let set = "INSERT INTO @fleet_meta (name, value) VALUES ($1, $2)
               ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    tx.execute(&options.sql(set), &[&name, &value]).await.map(drop)
}

/// The number of this program's functions and what their text comes to.
fn functions_of_ours() -> String {
    let mut hash = Xxh3::new();
    for script in FUNCTIONS.iter().chain([&AFTER]) {
        hash.update(script.as_bytes());
    }
    format!("{FUNCTIONS_NUMBER} {:016x}", hash.digest())
}

/// Whether the functions that are there have a smaller number than ours, or the same and another
/// text, as while somebody works on them.
async fn functions_are_older(
    client: &Client,
    options: &PostgresOptions,
) -> Result<bool, StoreError> {
    let found = options.sql("SELECT value FROM @fleet_meta WHERE name = 'functions'");
    let found = client.query_opt(&found, &[]).await.map_err(connect_error)?;
    let Some(row) = found else { return Ok(true) };
    let text: String = row.try_get(0).map_err(wrong_type)?;
    let number = text.split(' ').next().and_then(|number| number.parse::<u64>().ok());
    Ok(match number {
        Some(number) if number > FUNCTIONS_NUMBER => false,
        Some(FUNCTIONS_NUMBER) => text != functions_of_ours(),
        Some(_) | None => true,
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_of_another_text_bear_another_number() {
        let known = "1 fd658632d2fb9e74";
        assert_eq!(
            functions_of_ours(),
            known,
            "raise FUNCTIONS_NUMBER and write down the new text"
        );
    }
}
