//! The Service: every operation of the node, typed, for any face.
//!
//! ```text
//!   write:  encode entry ─ admit ─ (warm rows) ─ mailbox ─► driver … reply
//!   read:   presence from what is applied here; every absence after a read-index round
//! ```
//!
//! In a cluster of several nodes a write goes to whoever leads its group, see `forward`, and what is
//! read of a group that has no copy here is asked of a member that has one, see `elsewhere`.
use std::sync::Arc;
use std::time::{Duration, Instant};

use tl_core::{Command, Refusal, Reply};
use tl_store::{LsmStore, OrderedStore};
use tl_types::limits::REQUEST_MS_DEFAULT;
use tl_types::{ErrorCode, GroupId, UnixMs};
use tokio::sync::{oneshot, watch};

use crate::api::{NodeInfo, ServiceError};
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::node::Failure;
use crate::ops::Ops;
use crate::shell::admission::Admission;
use crate::shell::answers::Answer;
use crate::shell::links::Links;
use crate::shell::{Ask, Background, FailureWatch, Mail, Mailer};

mod append;
mod elsewhere;
mod events;
mod follow;
pub(crate) mod forward;
mod fresh;
mod lags;
mod list;
mod maintenance;
mod members;
mod operate;
mod propose;
mod read;
mod recent;
mod relay;
mod sessions;
mod tail;

pub(crate) use propose::Applied;
use propose::{applied, encoded, only_reply, principal_digest};

pub use append::{Later, Prepared, Proposal};
pub(crate) use elsewhere::served_until;
pub(crate) use follow::Follows;
pub use forward::Route;
pub(crate) use lags::Lags;
pub use list::LISTS_AT_ONCE_MAX;
pub use operate::{Awaited, WAIT_MAX};
pub use tail::Tail;
pub(crate) use tail::TailRoom;

pub(crate) use recent::Recent;

/// Work on other threads at a time.
pub(crate) const BESIDE_AT_ONCE_MAX: usize = 16;
/// Longest time that a write is held back while flushes are behind.
const FLUSH_WAIT_MAX: Duration = Duration::from_secs(2);
/// Between two looks for groups with due work.
const TICK_EVERY: Duration = Duration::from_secs(1);
/// A group whose tick found nothing to do is not asked again for so long, milliseconds.
const TICK_AGAIN_MS: u64 = 10_000;
/// Longest wait of a read for a group to have a leader again.
const READ_WAIT_MAX: Duration = Duration::from_secs(3);
/// Between two questions to a group that does not lead yet.
const PROBE_AGAIN: Duration = Duration::from_millis(5);

/// Every operation of the node. Cheap to clone.
#[derive(Debug)]
pub struct Service<S = LsmStore> {
    inner: Arc<Inner<S>>,
}

impl<S> Clone for Service<S> {
    fn clone(&self) -> Self {
        Service { inner: Arc::clone(&self.inner) }
    }
}

#[derive(Debug)]
pub(crate) struct Inner<S> {
    pub(crate) groups: u16,
    /// The highest feature level of entries that this node applies.
    pub(crate) level_spoken: u16,
    pub(crate) store: Arc<S>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) mailer: Mailer<S>,
    /// The other nodes; `None` for a node that is a cluster of its own.
    pub(crate) links: Option<Arc<Links>>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) background: Arc<Background>,
    pub(crate) failure: FailureWatch,
    pub(crate) draining: watch::Sender<bool>,
    pub(crate) ready: watch::Receiver<bool>,
    pub(crate) info: NodeInfo,
    /// What is kept for the operator.
    pub(crate) ops: Ops,
    /// What the log has done since it was opened.
    pub(crate) log: Arc<tl_wal::Counters>,
    /// Open tails and how far behind they are.
    pub(crate) lags: Arc<Lags>,
    /// Sessions that were just written to.
    pub(crate) recent: Recent,
    /// Turns for lists, which look into every group.
    pub(crate) lists: tokio::sync::Semaphore,
    /// Turns for work on other threads.
    pub(crate) beside: Arc<tokio::sync::Semaphore>,
    /// KiB of events that tails may have read and not given out.
    pub(crate) tail_room: TailRoom,
    /// Sessions of other members that tails here hang on.
    pub(crate) follows: Follows,
}

impl<S: OrderedStore + 'static> Service<S> {
    pub(crate) fn new(inner: Inner<S>) -> Service<S> {
        Service { inner: Arc::new(inner) }
    }

    /// When and as what this node started.
    #[must_use]
    pub fn info(&self) -> &NodeInfo {
        &self.inner.info
    }

    /// All metrics as text.
    #[must_use]
    pub fn metrics_text(&self) -> String {
        let (bytes, requests) = self.inner.admission.inflight();
        let log = self.inner.log.read();
        self.inner.metrics.log_counts(log.syncs, log.written_bytes);
        self.inner.metrics.inflight_bytes.set(bytes as i64);
        self.inner.metrics.inflight_requests.set(requests as i64);
        if let Some(links) = &self.inner.links {
            self.inner.metrics.groups_led.set(links.led() as i64);
        }
        self.inner.metrics.sessions_followed.set(self.inner.follows.count() as i64);
        let lag = self.inner.lags.look();
        self.inner.metrics.tails_behind.set(lag.behind as i64);
        self.inner.metrics.tail_lag_events_max.set(lag.events_max as i64);
        self.inner.metrics.tail_lag_events.set(lag.events as i64);
        let store = self.inner.store.stats();
        let rows = (store.active_bytes + store.sealed_bytes) as u64;
        self.say_budget("writes", bytes as u64, None);
        self.say_budget("memtables", rows, None);
        self.say_budget("row_cache", store.cache_bytes, None);
        let windows = self.inner.hub.recent_bytes() as u64;
        self.say_budget("recent_events", windows, None);
        self.inner.metrics.text()
    }

    /// Sets what a metric says of a shared amount of memory: what is used of it, and its limit
    /// where it has one of its own.
    pub fn say_budget(&self, budget: &'static str, used: u64, limit: Option<u64>) {
        self.inner.metrics.budget(budget, used, limit);
    }

    /// Lets a face register its own metrics.
    pub fn register_metrics(&self, add: impl FnOnce(&mut prometheus_client::registry::Registry)) {
        self.inner.metrics.register(add);
    }

    /// Becomes `Some` when the node stopped by itself; the process should end then.
    #[must_use]
    pub fn failure(&self) -> FailureWatch {
        self.inner.failure.clone()
    }

    /// Waits until every group with a copy here has a leader, and what was acknowledged before is
    /// applied here.
    pub(crate) async fn confirm_all_groups(&self, deadline: Instant) -> Result<(), ServiceError> {
        for (confirmed, group) in (1..).zip(self.groups_here()) {
            while let Err(error) = self.read_index(deadline, group).await {
                if Instant::now() >= deadline || self.inner.failure.borrow().is_some() {
                    return Err(error);
                }
                tokio::time::sleep(PROBE_AGAIN).await;
            }
            self.inner.ops.confirmed(confirmed);
        }
        Ok(())
    }

    /// Proposes a tick to groups that have work due, until the node ends.
    pub(crate) async fn tick_when_due(self) {
        let mut failure = self.inner.failure.clone();
        // Effects tell of work that is new, also while the log is applied again; what was left
        // before is found in the rows.
        for group in self.groups_here() {
            self.find_due(group, UnixMs(0)).await;
        }
        let mut rest = tokio::time::interval(TICK_EVERY);
        loop {
            tokio::select! {
                _ = rest.tick() => {}
                ended = failure.wait_for(Option::is_some) => {
                    drop(ended);
                    return;
                }
            }
            let now = UnixMs(crate::shell::time::now().wall_ms);
            for group in self.inner.background.take_due(now) {
                if self.is_elsewhere(group) {
                    // Its leader sees to it; this node may lead next time.
                    self.inner.background.due(group, now);
                    continue;
                }
                let entry = self.entry([Command::Tick]).encode();
                let deadline = Instant::now() + Duration::from_millis(REQUEST_MS_DEFAULT);
                match self.ask(deadline, Ask::Propose(group, entry), None).await {
                    Ok(Answer::Applied { replies, .. }) => {
                        if matches!(replies.first(), Some(Reply::Ticked { more_due: true })) {
                            self.inner.background.due(group, now);
                        } else {
                            // Only the earliest instant was remembered.
                            self.find_due(group, UnixMs(now.0 + TICK_AGAIN_MS)).await;
                        }
                    }
                    Ok(_) | Err(_) => self.inner.background.due(group, now),
                }
            }
        }
    }

    /// Looks when a group has work next, and remembers it, not before `earliest`: the group's
    /// own time may lag behind the wall's.
    async fn find_due(&self, group: GroupId, earliest: UnixMs) {
        match self.read(group, |rows| tl_core::due_work(rows)).await {
            Ok(Some(at)) => self.inner.background.due(group, at.max(earliest)),
            Ok(None) => {}
            // Named by the read; the next write of the group tells of its work again.
            Err(error) => tracing::warn!(group = group.0, %error, "due work unknown"),
        }
    }

    /// Whether this node is one of several.
    pub(crate) fn has_others(&self) -> bool {
        self.inner.links.is_some()
    }

    /// Whether nothing has ended this node.
    pub(crate) fn is_running(&self) -> bool {
        self.inner.failure.borrow().is_none()
    }

    /// Refuses what this node cannot serve.
    fn check_running(&self) -> Result<(), ServiceError> {
        if self.inner.failure.borrow().is_some() {
            return Err(ServiceError::new(
                ErrorCode::RaftUnavailable,
                "This node stopped after a failure of its disk; see its log",
            ));
        }
        Ok(())
    }

    async fn ask(
        &self,
        deadline: Instant,
        ask: Ask,
        permit: Option<crate::shell::admission::Permit>,
    ) -> Result<Answer, ServiceError> {
        self.check_running()?;
        let (sender, receiver) = oneshot::channel();
        self.inner.mailer.send(Mail::Ask { ask, answer: sender, permit });
        match tokio::time::timeout_at(deadline.into(), receiver).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) | Err(_) => Err(ServiceError::of(ErrorCode::RaftTimeout)),
        }
    }
}

fn failed(group: GroupId, failure: Failure) -> ServiceError {
    match failure {
        Failure::NotLeader(_) => ServiceError::of(ErrorCode::RaftUnavailable),
        Failure::Lost => ServiceError::new(
            ErrorCode::RaftUnavailable,
            "The write was overtaken by a change of leader and did not take effect; repeat it",
        ),
        Failure::Busy => ServiceError::of(ErrorCode::EventStoreBackpressure),
        Failure::Stopped => ServiceError::new(
            ErrorCode::RaftUnavailable,
            format!("Group {group} is stopped on this node because of damage; see `/health/ready`"),
        )
        .with("group", u64::from(group.0)),
        Failure::Unknown => ServiceError::of(ErrorCode::RaftTimeout),
        Failure::ChangeRefused(_) => unexpected("a refused change of members for a write"),
    }
}

fn refused(refusal: &Refusal) -> ServiceError {
    let mut error = ServiceError::new(refusal.code(), refusal.reason.message());
    for (name, value) in refusal.reason.facts() {
        error = error.with(name, value);
    }
    match refusal.event {
        Some(index) => error.with("index", index),
        None => error,
    }
}

fn damaged(error: &tl_store::StoreError) -> ServiceError {
    damage(&crate::chain(error))
}

/// Damage is named in the log; the client learns that it is the server's fault and no more.
fn damage(what: &str) -> ServiceError {
    tracing::error!(damage = what, "a read met damaged data");
    ServiceError::new(
        ErrorCode::InternalError,
        "Stored data could not be read back intact; the node's log names the damage",
    )
}

fn unexpected(what: &'static str) -> ServiceError {
    tracing::error!(what, "the engine contradicted itself");
    ServiceError::of(ErrorCode::InternalError)
}
