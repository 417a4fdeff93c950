//! The serious store: one Postgres database, shared by pods anywhere.
//!
//! ```text
//!   calls ──> lanes: what waits together shares a statement ──> a few connections ──> answers
//!   hints ──> a connection of their own: LISTEN, and a debounced NOTIFY
//! ```
//!
//! - Every call is done by one statement and so in one transaction, at READ COMMITTED; an answered
//!   write is as durable as the database's `synchronous_commit` says, which is left alone.
//! - Deadlines are made and compared by the database's `clock_timestamp()` inside the statement.
//! - Claims pass each other: `FOR UPDATE SKIP LOCKED`.
//! - Unfinished steps alone are in the table that claims look at; finished ones are moved away.
//! - Values are bound and never part of a statement's text. The schema's name is, and is held to
//!   plain letters.
//!
//! Absent on purpose: a pooler in transaction mode, which cannot keep prepared statements or
//! LISTEN.

use std::io;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_postgres::{Client, Transaction};

use self::claim::Claims;
use self::fault::{Call, store_error, unreadable};
use self::finish::{FINISH, FinishArrays, Finishes};
use self::lane::Lane;
use self::light::{Light, LightReply, Together, is_light_claim, is_light_finish, is_light_submit};
use self::pool::{Pool, Shared};
use self::submit::{SUBMIT, SUBMITS_MAX, SubmitArrays, Submits, Unsettled, Went};
use self::wake::Hints;
use crate::checks::{
    check_batch, check_finishes, check_lookup, check_submit, check_sweep, check_token,
};
use crate::claim::{Claim, ClaimRequest, Finish, Finished, Renewal, Renewed, check_lease};
use crate::effects::{EffectNoted, NewEffect};
use crate::error::{InvalidInput, StoreError};
use crate::ids::{Epoch, PodId, PodLife, StepId};
use crate::list::{Counts, Page, PageRequest, StepFilter};
use crate::pods::{
    Beat, DrainAsked, Heartbeat, Leader, LeaderWrite, Leadership, Pod, PodInfo, ReapedPod,
    Registered,
};
use crate::recover::{
    Cancelled, DeadLetter, Forgotten, RecoverRequest, Recovered, Redriven, Retention,
};
use crate::step::{AttemptRecord, NewStep, Step, Submitted};
use crate::store::{Answer, Capabilities, Opening, Store};
use crate::time::Timed;

mod claim;
mod fault;
mod finish;
mod lane;
mod light;
mod lives;
mod options;
mod people;
mod pool;
mod rows;
mod schema;
mod submit;
mod tls;
mod wake;
mod work;

pub use options::{CONNECTIONS_DEFAULT, CONNECTIONS_MAX, PostgresOptions};
pub use schema::{SCHEMA_VERSION, grants, migrate};

/// Statements of each sort that one store has under way at once. Claims meet on the same rows, so
/// side by side they would only pass over each other's; of small calls a transaction costs more than
/// what is in it, so those that wait make one.
const SUBMITS_ABREAST: usize = 2;
const CLAIMS_ABREAST: usize = 1;
const FINISHES_ABREAST: usize = 2;
const LIGHT_ABREAST: usize = 1;

/// A store in a Postgres database.
#[derive(Debug)]
pub struct PostgresStore {
    pool: Shared,
    light: Lane<Together>,
    submits: Lane<Submits>,
    claims: Lane<Claims>,
    finishes: Lane<Finishes>,
    wakes: Arc<watch::Sender<u64>>,
    /// Shared with the stores apart from this one, so that one process is one listener.
    hints: Arc<Hints>,
}

impl PostgresStore {
    /// Connects, makes or checks the tables. To be called in the runtime that will use it.
    ///
    /// # Errors
    /// - [`StoreError::Schema`] when the tables are of another version and may not be migrated.
    /// - [`StoreError::Unavailable`] or [`StoreError::Refused`] when the database is away or
    ///   does not let us in.
    pub async fn open(options: PostgresOptions) -> Result<PostgresStore, StoreError> {
        if options.migrate {
            migrate(&options).await?;
        }
        let wakes = Arc::new(watch::Sender::new(0));
        let hints = Arc::new(Hints::start(options.clone(), Arc::clone(&wakes)));
        let store = PostgresStore::over(options, wakes, hints);
        store.ping().await?;
        Ok(store)
    }

    fn over(
        options: PostgresOptions,
        wakes: Arc<watch::Sender<u64>>,
        hints: Arc<Hints>,
    ) -> PostgresStore {
        let pool: Shared = Arc::new(Pool::new(options));
        PostgresStore {
            light: Lane::new(Arc::clone(&pool), LIGHT_ABREAST),
            submits: Lane::new(Arc::clone(&pool), SUBMITS_ABREAST),
            claims: Lane::new(Arc::clone(&pool), CLAIMS_ABREAST),
            finishes: Lane::new(Arc::clone(&pool), FINISHES_ABREAST),
            pool,
            wakes,
            hints,
        }
    }

    /// A connection to the store's database that is the caller's alone, made as the store makes
    /// its own: for transactions with [`PostgresStore::submit_in`] and
    /// [`PostgresStore::finish_in`]. It ends when it is dropped.
    ///
    /// # Errors
    /// As [`PostgresStore::open`].
    pub async fn connection(options: &PostgresOptions) -> Result<Client, StoreError> {
        pool::open(options).await.map(|(client, _)| client)
    }

    /// Submits inside a transaction of the caller, over any connection to the store's database:
    /// the steps are there if and only if the caller commits. Nobody is told; pods find them by
    /// polling.
    ///
    /// # Errors
    /// As [`Store::submit`]. After an error the caller rolls back.
    pub async fn submit_in(
        &self,
        tx: &Transaction<'_>,
        steps: &[NewStep],
    ) -> Result<Vec<Submitted>, StoreError> {
        check_submit(steps)?;
        let steps: Vec<&NewStep> = steps.iter().collect();
        let arrays = SubmitArrays::new(&steps);
        let sql = self.pool.options.sql(SUBMIT);
        let mut before = Unsettled::default();
        for _ in 0..SUBMITS_MAX {
            let found = tx.query(&sql, &arrays.params()).await;
            let found = found.map_err(|error| store_error(Call::Read, error))?;
            match submit::submitted(&steps, &found, &before)? {
                Went::In(answer) => return Ok(answer.value),
                Went::Unsettled(places) => before.extend(places),
            }
        }
        Err(submit::unsettled())
    }

    /// Ends a claim inside a transaction of the caller: a handler's own rows and the completion
    /// of its step are there together or not at all. When the answer is [`Finished::Fenced`] the
    /// caller rolls back.
    ///
    /// # Errors
    /// As [`Store::finish`]. After an error the caller rolls back.
    pub async fn finish_in(
        &self,
        tx: &Transaction<'_>,
        finish: &Finish,
    ) -> Result<Finished, StoreError> {
        check_finishes(std::slice::from_ref(finish))?;
        let arrays = FinishArrays::new(&[finish]);
        let sql = self.pool.options.sql(FINISH);
        let found = tx.query(&sql, &arrays.params()).await;
        let found = found.map_err(|error| store_error(Call::Read, error))?;
        let mut finished = arrays.finished(&found)?.value;
        finished.pop().ok_or_else(|| unreadable("an answer without its item"))
    }

    /// Has a small call done together with others.
    async fn light<T>(
        &self,
        ask: Light,
        pick: impl FnOnce(LightReply) -> Option<T>,
    ) -> Result<Timed<T>, StoreError> {
        let Timed { value, at, wall } = self.light.call(ask).await?;
        let value = pick(value).ok_or_else(|| unreadable("an answer of another sort"))?;
        Ok(Timed { value, at, wall })
    }

    /// Tells those who wait for work, here and elsewhere.
    fn wake(&self) {
        self.wakes.send_modify(|wake| *wake = wake.wrapping_add(1));
        self.hints.send();
    }
}

fn check_page(page: &PageRequest) -> Result<(), InvalidInput> {
    page.check()?;
    check_token(people::is_token(page))
}

impl Store for PostgresStore {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { own_transaction: true, skip_locked: true, notify: true, enforced_keys: true }
    }

    fn wakes(&self) -> watch::Receiver<u64> {
        self.wakes.subscribe()
    }

    fn apart(&self) -> Opening<'_> {
        // One call at a time, as a heartbeat makes them.
        let options = PostgresOptions { connections: 1, ..self.pool.options.clone() };
        let store = PostgresStore::over(options, Arc::clone(&self.wakes), Arc::clone(&self.hints));
        Box::pin(async move {
            store.ping().await?;
            let store: Arc<dyn Store> = Arc::new(store);
            Ok(store)
        })
    }

    fn ping(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            let sql = "SELECT @fleet_clock(), current_setting('transaction_read_only') = 'on'";
            let found = self.pool.rows(Call::Read, sql, &[]).await?;
            let answer = rows::timed(&found, ())?;
            // A database that takes no writes is not ready.
            if rows::get(&found[0], 1)? {
                let source = Arc::new(io::Error::from(io::ErrorKind::ReadOnlyFilesystem));
                return Err(StoreError::Refused { source });
            }
            Ok(answer)
        })
    }

    fn submit(&self, steps: Vec<NewStep>) -> Answer<'_, Vec<Submitted>> {
        Box::pin(async move {
            check_submit(&steps)?;
            let answer = match is_light_submit(&steps) {
                false => self.submits.call(steps).await?,
                true => {
                    let pick = |reply| match reply {
                        LightReply::Submit(submitted) => Some(submitted),
                        LightReply::Finish(_) | LightReply::Claim(_) => None,
                    };
                    self.light(Light::Submit(steps), pick).await?
                }
            };
            self.wake();
            Ok(answer)
        })
    }

    fn claim(&self, request: ClaimRequest) -> Answer<'_, Vec<Claim>> {
        Box::pin(async move {
            request.check()?;
            if !is_light_claim(&request) {
                return self.claims.call(request).await;
            }
            let pick = |reply| match reply {
                LightReply::Claim(claims) => Some(claims),
                LightReply::Submit(_) | LightReply::Finish(_) => None,
            };
            self.light(Light::Claim(request), pick).await
        })
    }

    fn renew(&self, lease_ms: u64, renewals: Vec<Renewal>) -> Answer<'_, Vec<Renewed>> {
        Box::pin(async move {
            check_lease(lease_ms)?;
            check_batch("renewals", renewals.len())?;
            renewals.iter().try_for_each(Renewal::check)?;
            work::renew(&self.pool, lease_ms, &renewals).await
        })
    }

    fn finish(&self, finishes: Vec<Finish>) -> Answer<'_, Vec<Finished>> {
        Box::pin(async move {
            check_finishes(&finishes)?;
            if !is_light_finish(&finishes) {
                return self.finishes.call(finishes).await;
            }
            let pick = |reply| match reply {
                LightReply::Finish(finished) => Some(finished),
                LightReply::Submit(_) | LightReply::Claim(_) => None,
            };
            self.light(Light::Finish(finishes), pick).await
        })
    }

    fn note_effects(&self, effects: Vec<NewEffect>) -> Answer<'_, Vec<EffectNoted>> {
        Box::pin(async move {
            check_batch("effects", effects.len())?;
            effects.iter().try_for_each(NewEffect::check)?;
            work::note_effects(&self.pool, &effects).await
        })
    }

    fn recover(&self, request: RecoverRequest) -> Answer<'_, Vec<Recovered>> {
        Box::pin(async move {
            request.check()?;
            let answer = work::recover(&self.pool, &request).await?;
            if !answer.value.is_empty() {
                self.wake();
            }
            Ok(answer)
        })
    }

    fn register(&self, info: PodInfo, lease_ms: u64) -> Answer<'_, Registered> {
        Box::pin(async move {
            info.check()?;
            check_lease(lease_ms)?;
            lives::register(&self.pool, &info, lease_ms).await
        })
    }

    fn heartbeat(&self, beat: Heartbeat) -> Answer<'_, Beat> {
        Box::pin(async move {
            check_lease(beat.lease_ms)?;
            lives::heartbeat(&self.pool, &beat).await
        })
    }

    fn leave(&self, life: PodLife) -> Answer<'_, ()> {
        Box::pin(async move { lives::leave(&self.pool, &life).await })
    }

    fn ask_drain(&self, pods: Vec<PodId>) -> Answer<'_, Vec<DrainAsked>> {
        Box::pin(async move {
            check_batch("pods", pods.len())?;
            lives::ask_drain(&self.pool, &pods).await
        })
    }

    fn pods(&self) -> Answer<'_, Vec<Pod>> {
        Box::pin(lives::pods(&self.pool))
    }

    fn lead(&self, life: PodLife, lease_ms: u64) -> Answer<'_, Leadership> {
        Box::pin(async move {
            check_lease(lease_ms)?;
            lives::lead(&self.pool, &life, lease_ms).await
        })
    }

    fn leader(&self) -> Answer<'_, Option<Leader>> {
        Box::pin(lives::leader(&self.pool))
    }

    fn reap(&self, epoch: Epoch, pods_max: usize) -> Answer<'_, LeaderWrite<Vec<ReapedPod>>> {
        Box::pin(async move {
            check_sweep("pods_max", pods_max)?;
            lives::reap(&self.pool, epoch, pods_max).await
        })
    }

    fn retain(&self, epoch: Epoch, keep: Retention) -> Answer<'_, LeaderWrite<Forgotten>> {
        Box::pin(async move {
            check_sweep("steps_max", keep.steps_max)?;
            lives::retain(&self.pool, epoch, &keep).await
        })
    }

    fn steps(&self, ids: Vec<StepId>) -> Answer<'_, Vec<Option<Step>>> {
        Box::pin(async move {
            check_lookup(ids.len())?;
            people::steps(&self.pool, &ids).await
        })
    }

    fn attempts(&self, id: StepId) -> Answer<'_, Vec<AttemptRecord>> {
        Box::pin(async move { people::attempts(&self.pool, &id).await })
    }

    fn list(&self, filter: StepFilter, page: PageRequest) -> Answer<'_, Page<Step>> {
        Box::pin(async move {
            filter.check()?;
            check_page(&page)?;
            people::list(&self.pool, &filter, &page).await
        })
    }

    fn counts(&self) -> Answer<'_, Counts> {
        Box::pin(people::counts(&self.pool))
    }

    fn cancel(&self, ids: Vec<StepId>) -> Answer<'_, Vec<Cancelled>> {
        Box::pin(async move {
            check_batch("ids", ids.len())?;
            people::cancel(&self.pool, &ids).await
        })
    }

    fn redrive(&self, ids: Vec<StepId>) -> Answer<'_, Vec<Redriven>> {
        Box::pin(async move {
            check_batch("ids", ids.len())?;
            let answer = people::redrive(&self.pool, &ids).await?;
            self.wake();
            Ok(answer)
        })
    }

    fn dead_letters(&self, redriven: bool, page: PageRequest) -> Answer<'_, Page<DeadLetter>> {
        Box::pin(async move {
            check_page(&page)?;
            people::dead_letters(&self.pool, redriven, &page).await
        })
    }
}
