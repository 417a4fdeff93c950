//! What a database must be able to do for a fleet.
//!
//! ```text
//!   service ── submit, cancel, list … ──┐
//!   pod ───── claim, renew, finish ─────┼──> Store ──> SQLite, in this process
//!   heartbeat ─ its own Store::apart ───┘        └──> Postgres, over a connection
//! ```
//!
//! Every method is a batch and answers with the store's time. Rules that each store keeps, and
//! the conformance suite holds:
//!  - Deadlines are made and compared by the store's clock inside the statement; no caller
//!    sends an instant to be compared with a deadline.
//!  - A method is one transaction: all of it or none. Items of a batch stand alone: one that is
//!    fenced or found does not hinder the others. Answers are in the order of the items.
//!  - F1–F3 of [`crate::step`].
//!  - A repeat of any write is harmless.
//!
//! Absent on purpose: schedules, concurrency keys and dependencies, which add methods and
//! columns and change none of these; anything that reads a pod's clock.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::watch;

use crate::claim::{Claim, ClaimRequest, Finish, Finished, Renewal, Renewed};
use crate::effects::{EffectNoted, NewEffect};
use crate::error::StoreError;
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
use crate::time::Timed;

/// What a store has beyond what all have. The conformance suite asserts what follows from
/// each value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// A caller may put a submission, and a handler its own rows with its completion, into a
    /// transaction of its own.
    pub own_transaction: bool,
    /// Claims of several pods pass each other without waiting; else they queue.
    pub skip_locked: bool,
    /// [`Store::wakes`] also tells of what other processes have submitted.
    pub notify: bool,
    /// The database itself keeps ids and unique keys unique.
    pub enforced_keys: bool,
}

/// What a store's method gives.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<Timed<T>, StoreError>> + Send + 'a>>;

/// What opening a store gives.
pub type Opening<'a> =
    Pin<Box<dyn Future<Output = Result<Arc<dyn Store>, StoreError>> + Send + 'a>>;

/// A database that holds a fleet.
///
/// # Errors
/// Every method gives [`StoreError`]; `Invalid` when a limit of [`crate::limits`] is passed,
/// before anything is written.
pub trait Store: Debug + Send + Sync + 'static {
    /// What it is called: `sqlite`, `postgres`.
    fn name(&self) -> &'static str;

    /// What it has beyond what all have.
    fn capabilities(&self) -> Capabilities;

    /// Changes whenever there may be something new to claim. A hint, which may be lost or come
    /// for nothing; polling is the truth.
    fn wakes(&self) -> watch::Receiver<u64>;

    /// The same database over a connection and, where it needs one, a thread of its own, so
    /// that nothing waits behind what waits here. To be called in the runtime that will use it.
    fn apart(&self) -> Opening<'_>;

    /// The store's time and nothing else: is it there?
    fn ping(&self) -> Answer<'_, ()>;

    // Steps come in.

    /// Stores steps. One whose id or unique key is held already changes nothing and is
    /// answered with the one that stands; so is a second one of the same batch.
    fn submit(&self, steps: Vec<NewStep>) -> Answer<'_, Vec<Submitted>>;

    // Steps are worked on.

    /// Takes pending steps of the given kinds, in the order of `tl_core::fleet::rank`, after
    /// making those pending whose time has come. Each gets a fresh token, `attempt` + 1 and a
    /// lease from now. Rows that others are just taking are passed over, never waited for
    /// where the database can.
    fn claim(&self, request: ClaimRequest) -> Answer<'_, Vec<Claim>>;

    /// Sets the leases of claims to `lease_ms` from now.
    fn renew(&self, lease_ms: u64, renewals: Vec<Renewal>) -> Answer<'_, Vec<Renewed>>;

    /// Ends claims. `Failed` goes to pending, scheduled, or dead letters by what is charged;
    /// to cancelled when that was asked. `Released` goes to pending with nothing charged, to
    /// the place it had.
    fn finish(&self, finishes: Vec<Finish>) -> Answer<'_, Vec<Finished>>;

    /// Notes effects under claims that are still held.
    fn note_effects(&self, effects: Vec<NewEffect>) -> Answer<'_, Vec<EffectNoted>>;

    // Steps are taken back.

    /// Takes steps from holders whose lease has run out, in one conditional statement: safe
    /// beside itself and beside late reports. Charges one attempt; with none left, or after
    /// as many lost leases as said, the step becomes a dead letter in the same transaction.
    fn recover(&self, request: RecoverRequest) -> Answer<'_, Vec<Recovered>>;

    // Pods live and die.

    /// Begins a new life of a pod. An earlier life of the same name ends.
    fn register(&self, info: PodInfo, lease_ms: u64) -> Answer<'_, Registered>;

    /// Keeps a life going, while it is up and its lease has not run out.
    fn heartbeat(&self, beat: Heartbeat) -> Answer<'_, Beat>;

    /// Ends a life in good order: the pod is down, and leads no more.
    fn leave(&self, life: PodLife) -> Answer<'_, ()>;

    /// Asks living pods to go down in good order; each is told with its next heartbeat. The
    /// wish ends with the life.
    fn ask_drain(&self, pods: Vec<PodId>) -> Answer<'_, Vec<DrainAsked>>;

    /// Pods that are known, eldest first, at most [`crate::limits::PODS_MAX`]: whoever lives is
    /// among them before those that are gone.
    fn pods(&self) -> Answer<'_, Vec<Pod>>;

    /// Leads, or goes on leading: granted to the holder while its lease holds, and to any pod
    /// that lives when nobody's lease holds. Whether a pod should ask is for
    /// `tl_core::fleet::may_lead`.
    fn lead(&self, life: PodLife, lease_ms: u64) -> Answer<'_, Leadership>;

    /// Who led last; its lease may have run out.
    fn leader(&self) -> Answer<'_, Option<Leader>>;

    /// Ends, as leader, the lives whose lease has run out.
    fn reap(&self, epoch: Epoch, pods_max: usize) -> Answer<'_, LeaderWrite<Vec<ReapedPod>>>;

    /// Forgets, as leader, what has been finished for long enough.
    fn retain(&self, epoch: Epoch, keep: Retention) -> Answer<'_, LeaderWrite<Forgotten>>;

    // People look and step in.

    /// Steps by id, at most [`crate::limits::LOOKUP_MAX`].
    fn steps(&self, ids: Vec<StepId>) -> Answer<'_, Vec<Option<Step>>>;

    /// Attempts at a step, first to last, the newest [`crate::limits::ATTEMPTS_SHOWN_MAX`]; empty
    /// for an unknown one.
    fn attempts(&self, id: StepId) -> Answer<'_, Vec<AttemptRecord>>;

    /// Steps that pass a filter, newest submissions first, looking at no more than
    /// [`crate::limits::LIST_ROWS_EXAMINED_MAX`] rows and
    /// [`crate::limits::PAGE_BYTES_MAX`] bytes.
    fn list(&self, filter: StepFilter, page: PageRequest) -> Answer<'_, Page<Step>>;

    /// How many steps stand where.
    fn counts(&self) -> Answer<'_, Counts>;

    /// Calls steps off.
    fn cancel(&self, ids: Vec<StepId>) -> Answer<'_, Vec<Cancelled>>;

    /// Puts failed and cancelled steps back with all their attempts before them, and lets
    /// scheduled ones run at once. The dead letter of a failed one is marked as redriven.
    fn redrive(&self, ids: Vec<StepId>) -> Answer<'_, Vec<Redriven>>;

    /// Dead letters, newest first; with or without those that were redriven.
    fn dead_letters(&self, redriven: bool, page: PageRequest) -> Answer<'_, Page<DeadLetter>>;
}
