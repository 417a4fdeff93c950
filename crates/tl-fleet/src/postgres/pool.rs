//! A few connections, each used by one call at a time.
//!
//! Every call is one statement, and so one transaction and one round trip. A connection that has
//! failed in any way is thrown away; the next call makes a new one.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row, Statement};

use super::fault::{Call, connect_error, may_run_again, store_error, timed_out, unreadable};
use super::options::PostgresOptions;
use super::schema;
use crate::error::StoreError;

/// Calls that may wait for a connection.
const WAITING_MAX: usize = 1_000;
/// How long a call may take at the database, connecting included.
pub(super) const CALL: Duration = Duration::from_secs(15);
/// How often a call is run again that the database ended because of another.
const AGAIN_MAX: u32 = 5;

const NEVER_CLOSED: &str = "the semaphore is never closed";

/// What a session is told before it is used. The tables are queues, whose statistics are always
/// old: plans are made once, by index, and kept. The limits on time are below [`CALL`], so that
/// the database gives up first and says so.
const SESSION: &str = "
    SET plan_cache_mode = force_generic_plan;
    SET enable_seqscan = off;
    SET enable_hashjoin = off;
    SET enable_mergejoin = off;
    SET enable_bitmapscan = off;
    SET jit = off;
    SET statement_timeout = '12s';
    SET lock_timeout = '8s';
    SET default_transaction_isolation = 'read committed'";

/// Calls that go together wait no longer than this for what somebody else holds.
const BEGIN: &str = "BEGIN; SET LOCAL lock_timeout = '250ms'";

type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

#[derive(Debug)]
pub(super) struct Pool {
    pub(super) options: PostgresOptions,
    idle: Mutex<Vec<Link>>,
    room: Semaphore,
    /// Those who only look get no more than half of it, so that work goes on beside them.
    looking: Semaphore,
    waiting: AtomicUsize,
}

/// One connection with its prepared statements.
struct Link {
    client: Client,
    statements: HashMap<&'static str, Statement>,
    driver: AbortHandle,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("statements", &self.statements.len()).finish_non_exhaustive()
    }
}

/// Ends the connection unless the call came to its end: a caller that goes away in the middle
/// leaves nothing half read behind.
struct Lent {
    link: Option<Link>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(link) = &self.link {
            link.driver.abort();
        }
    }
}

/// Counts one that waits, for as long as it does.
struct Waits<'a>(&'a AtomicUsize);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pool {
    pub(super) fn new(options: PostgresOptions) -> Pool {
        let room = Semaphore::new(options.connections);
        let looking = Semaphore::new((options.connections / 2).max(1));
        Pool { options, idle: Mutex::new(Vec::new()), room, looking, waiting: AtomicUsize::new(0) }
    }

    /// Runs one statement, as one transaction.
    pub(super) async fn rows(
        &self,
        call: Call,
        sql: &'static str,
        params: Params<'_>,
    ) -> Result<Vec<Row>, StoreError> {
        let found = self.rows_unless_taken(call, sql, params).await?;
        found.ok_or_else(|| unreadable("a key that was free is taken"))
    }

    /// The same; nothing when a key was taken, and then nothing was written.
    pub(super) async fn rows_unless_taken(
        &self,
        call: Call,
        sql: &'static str,
        params: Params<'_>,
    ) -> Result<Option<Vec<Row>>, StoreError> {
        self.admitted(call, self.run(call, sql, params)).await
    }

    /// Runs up to three statements in one transaction, all sent before anything is answered, and
    /// gives the rows of each. They give up soon when somebody else's transaction is in their way,
    /// for they are several callers'; like any error of one of them this is
    /// [`StoreError::Corrupt`] then, and each should be tried alone. Where the transaction did not
    /// begin, so that some were done by themselves, one that was refused has nothing.
    pub(super) async fn rows_together(
        &self,
        statements: &[(&'static str, Vec<&(dyn ToSql + Sync)>)],
    ) -> Result<Vec<Option<Vec<Row>>>, StoreError> {
        self.admitted(Call::Write, self.run_together(statements)).await
    }

    /// Waits for room, for no longer than a call may take.
    async fn admitted<T>(
        &self,
        call: Call,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let waiting = self.waiting.fetch_add(1, Ordering::Relaxed);
        let waits = Waits(&self.waiting);
        if waiting >= WAITING_MAX {
            return Err(StoreError::Busy { waiting });
        }
        let worked = async {
            let _looks = match call {
                Call::Read => Some(self.looking.acquire().await.expect(NEVER_CLOSED)),
                Call::Write => None,
            };
            let _permit = self.room.acquire().await.expect(NEVER_CLOSED);
            drop(waits);
            work.await
        };
        match tokio::time::timeout(CALL, worked).await {
            Ok(done) => done,
            Err(_) => Err(timed_out(call)),
        }
    }

    async fn run_together(
        &self,
        statements: &[(&'static str, Vec<&(dyn ToSql + Sync)>)],
    ) -> Result<Vec<Option<Vec<Row>>>, StoreError> {
        let mut lent = Lent { link: Some(self.link().await?) };
        let mut again = 0;
        loop {
            let link = lent.link.as_mut().expect("it is given back below");
            let mut prepared = Vec::with_capacity(statements.len());
            for (sql, _) in statements {
                let statement = link.prepared(&self.options, sql).await;
                // Nothing but a look at the catalogue has happened.
                prepared.push(statement.map_err(|error| store_error(Call::Read, error))?);
            }
            let done = Box::pin(together(&link.client, &prepared, statements)).await;
            let error = match done {
                Ok(rows) => {
                    self.idle.lock().extend(lent.link.take());
                    return Ok(rows);
                }
                Err(error) => error,
            };
            if may_run_again(&error) && again < AGAIN_MAX {
                again += 1;
                continue;
            }
            // A refusal by the database leaves the session as good as new.
            if error.as_db_error().is_some() && !link.client.is_closed() {
                self.idle.lock().extend(lent.link.take());
            }
            let one_stands_alone = [SqlState::UNIQUE_VIOLATION, SqlState::LOCK_NOT_AVAILABLE];
            return Err(match error.code() {
                Some(code) if one_stands_alone.contains(code) => {
                    unreadable("what stands in the way of one of several calls")
                }
                _ => store_error(Call::Write, error),
            });
        }
    }

    async fn run(
        &self,
        call: Call,
        sql: &'static str,
        params: Params<'_>,
    ) -> Result<Option<Vec<Row>>, StoreError> {
        let mut lent = Lent { link: Some(self.link().await?) };
        let mut again = 0;
        loop {
            let link = lent.link.as_mut().expect("it is given back below");
            let rows = match link.prepared(&self.options, sql).await {
                Ok(statement) => link.client.query(&statement, params).await,
                // Nothing but a look at the catalogue has happened.
                Err(error) => return Err(store_error(Call::Read, error)),
            };
            match rows {
                Err(error) if may_run_again(&error) && again < AGAIN_MAX => again += 1,
                Err(error) => {
                    // A refusal by the database leaves the session as good as new.
                    if error.as_db_error().is_some() && !link.client.is_closed() {
                        self.idle.lock().extend(lent.link.take());
                    }
                    if error.code() == Some(&SqlState::UNIQUE_VIOLATION) {
                        return Ok(None);
                    }
                    return Err(store_error(call, error));
                }
                Ok(rows) => {
                    self.idle.lock().extend(lent.link.take());
                    return Ok(Some(rows));
                }
            }
        }
    }

    async fn link(&self) -> Result<Link, StoreError> {
        loop {
            // Taken out first, so that the lock is not held while it is looked at.
            let idle = self.idle.lock().pop();
            match idle {
                Some(link) if link.client.is_closed() => {}
                Some(link) => return Ok(link),
                None => return self.connect().await,
            }
        }
    }

    async fn connect(&self) -> Result<Link, StoreError> {
        let (client, driver) = open(&self.options).await?;
        let link = Lent { link: Some(Link { client, statements: HashMap::new(), driver }) };
        let client = &link.link.as_ref().expect("just put there").client;
        client.batch_execute(SESSION).await.map_err(connect_error)?;
        // Each time, for the database may have been restored or migrated in between.
        schema::check(client, &self.options).await?;
        let mut link = link;
        Ok(link.link.take().expect("just put there"))
    }
}

impl Link {
    async fn prepared(
        &mut self,
        options: &PostgresOptions,
        sql: &'static str,
    ) -> Result<Statement, Error> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(&options.sql(sql)).await?;
        self.statements.insert(sql, statement.clone());
        Ok(statement)
    }
}

/// All of it is sent before anything is answered. When one fails the rest does nothing, and what
/// it says comes first. When only the beginning fails, each is a transaction of its own: nobody may
/// take it that nothing was done when some was.
async fn together(
    client: &Client,
    prepared: &[Statement],
    statements: &[(&'static str, Vec<&(dyn ToSql + Sync)>)],
) -> Result<Vec<Option<Vec<Row>>>, Error> {
    let mut queries = prepared
        .iter()
        .zip(statements)
        .map(|(statement, (_, params))| client.query(statement, params.as_slice()));
    let (first, second, third) = (queries.next(), queries.next(), queries.next());
    let (begun, first, second, third, ended) = tokio::join!(
        client.batch_execute(BEGIN),
        if_any(first),
        if_any(second),
        if_any(third),
        client.batch_execute("COMMIT"),
    );
    let (mut rows, mut failed) = (Vec::with_capacity(statements.len()), Vec::new());
    for found in [first, second, third].into_iter().take(statements.len()) {
        match found {
            Ok(found) => rows.push(found),
            Err(error) => {
                rows.push(None);
                failed.push(error);
            }
        }
    }
    match begun {
        Ok(()) => match failed.into_iter().next() {
            Some(error) => Err(error),
            None => ended.map(|()| rows),
        },
        Err(_) if rows.iter().any(Option::is_some) => Ok(rows),
        // Not a word of the database to one of them: that one may have been done.
        Err(error) => {
            let unheard = failed.into_iter().find(|error| error.code().is_none());
            Err(unheard.unwrap_or(error))
        }
    }
}

async fn if_any<T, E>(query: Option<impl Future<Output = Result<T, E>>>) -> Result<Option<T>, E> {
    match query {
        Some(query) => query.await.map(Some),
        None => Ok(None),
    }
}

/// A bare connection, driven by a task of this runtime.
pub(super) async fn open(options: &PostgresOptions) -> Result<(Client, AbortHandle), StoreError> {
    let tls = options.tls.clone();
    let (client, connection) = options.config.connect(tls).await.map_err(connect_error)?;
    // How it ends is told to those who call through it.
    let driver = tokio::spawn(async move { drop(connection.await) });
    Ok((client, driver.abort_handle()))
}

/// A pool as a shared thing, for tasks beside the store.
pub(super) type Shared = Arc<Pool>;
