//! What the leader does for all: takes lost steps back, ends dead lives, forgets old steps.
//!
//! All of it over a connection that is made when a pod first leads: heartbeats do not wait behind
//! a sweep, and a sweep that fails opens no breaker but its own. Forgetting has a pace of its own:
//! without a pause while there is more, so that it keeps up with any speed, and between two
//! calls as long as the last one took, so that others get their turn.

use std::sync::Arc;
use std::time::Duration;

use tl_core::fleet::{Portion, retry_delay_ms};
use tl_types::UnixMs;
use tokio::sync::mpsc::{Receiver, error::TrySendError};
use tokio::sync::oneshot;

use super::guard::Guard;
use super::local::Local;
use super::settings::PodSettings;
use super::shared::{Shared, Stage};
use crate::error::StoreError;
use crate::ids::Epoch;
use crate::limits::{RETRIES_MAX, SWEEP_MAX};
use crate::pods::{LeaderWrite, ReapedPod};
use crate::recover::{RecoverRequest, Recovered, Retention};
use crate::step::StepState;

/// Between two looks for what may be forgotten.
const RETAIN: Duration = Duration::from_secs(10);
/// Wait before another try to get a connection, or another look at who leads.
const RETRY: Duration = Duration::from_secs(1);
/// Calls of one cycle at most; what is left is found by the next.
const SWEEPS_MAX: usize = 100;
/// Steps of one call: few enough that others get their turn in between. Fewer after one that
/// failed, lest what takes longer than a call may is tried for ever.
const SWEEP: usize = 1_000;

/// Somebody asks for a recovery cycle.
pub(super) type Ask = oneshot::Sender<Result<Option<Cycle>, StoreError>>;

/// What became of a wish for a recovery cycle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecoveryAsked {
    /// It was made.
    Done(Cycle),
    /// This pod does not lead.
    NotLeader,
    /// One that was asked for before still runs.
    Runs,
}

/// What one recovery cycle found and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cycle {
    /// Its name, also in the ledger.
    pub cycle_id: String,
    /// The store's calendar at its end.
    pub at: UnixMs,
    /// How long it took, milliseconds.
    pub duration_ms: u64,
    /// Lives that it ended.
    pub dead_pods: Vec<ReapedPod>,
    /// Steps that it took back.
    pub recovered: Vec<Recovered>,
}

impl Cycle {
    /// Steps that will run again.
    #[must_use]
    pub fn requeued(&self) -> usize {
        let again = |one: &&Recovered| !one.state.is_finished();
        self.recovered.iter().filter(again).count()
    }

    /// Steps that became dead letters.
    #[must_use]
    pub fn terminal(&self) -> usize {
        self.recovered.iter().filter(|one| one.state == StepState::Failed).count()
    }
}

/// Asks the leader's task for a cycle, and waits for it.
pub(super) async fn asked(shared: &Shared) -> Result<RecoveryAsked, StoreError> {
    // Held until the answer is there.
    let Ok(asks) = shared.asks.try_lock() else { return Ok(RecoveryAsked::Runs) };
    if shared.epoch().is_none() {
        return Ok(RecoveryAsked::NotLeader);
    }
    let (ask, answer) = oneshot::channel();
    match asks.try_send(ask) {
        Ok(()) => {}
        // Who asked before has gone away, and its cycle still waits for its turn.
        Err(TrySendError::Full(_)) => return Ok(RecoveryAsked::Runs),
        Err(TrySendError::Closed(_)) => return Ok(RecoveryAsked::NotLeader),
    }
    match answer.await {
        Ok(cycle) => Ok(cycle?.map_or(RecoveryAsked::NotLeader, RecoveryAsked::Done)),
        // The pod has stopped.
        Err(_) => Ok(RecoveryAsked::NotLeader),
    }
}

pub(super) async fn run(shared: &Shared, mut asks: Receiver<Ask>) {
    // Kept when this pod leads no more: to close it may take a while, and heartbeats run on this
    // thread.
    let mut guard: Option<Guard> = None;
    let mut ask: Option<Ask> = None;
    let mut recovers = Portion::new(SWEEP);
    let mut forgets = Portion::new(shared.settings.retention.steps_max);
    while shared.stage() != Stage::Stopped {
        match &guard {
            _ if shared.epoch().is_none() => answer(ask.take(), Ok(None)),
            Some(guard) => {
                tokio::select! {
                    () = recover(shared, guard, &mut recovers, &mut asks, ask.take()) => {}
                    () = retain(shared, guard, &mut forgets) => {}
                }
            }
            None => match shared.guard.apart().await {
                Ok(apart) => {
                    guard = Some(apart);
                    continue;
                }
                Err(error) => {
                    tracing::warn!(%error, "no connection for what the leader does yet");
                    answer(ask.take(), Err(error));
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            },
        }
        tokio::select! {
            () = shared.leads_now.notified() => {}
            asked = asks.recv() => ask = asked,
        }
    }
}

/// Who asked may have gone.
fn answer(ask: Option<Ask>, cycle: Result<Option<Cycle>, StoreError>) {
    if let Some(ask) = ask {
        drop(ask.send(cycle));
    }
}

/// Recovers as often as the settings say, and whenever asked, for as long as this pod leads.
async fn recover(
    shared: &Shared,
    guard: &Guard,
    portion: &mut Portion,
    asks: &mut Receiver<Ask>,
    mut ask: Option<Ask>,
) {
    while let Some(epoch) = shared.epoch() {
        let cycle = cycle(guard, &shared.settings, &shared.local, portion, epoch).await;
        match &cycle {
            Ok(Some(cycle)) => shared.counters.recovered.add(cycle.recovered.len()),
            Ok(None) => shared.lead_is_over(),
            Err(error) => tracing::debug!(%error, "recovery has to wait"),
        }
        answer(ask.take(), cycle);
        let pause = Duration::from_millis(shared.settings.recovery_ms);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            asked = asks.recv() => ask = asked,
        }
    }
    answer(ask, Ok(None));
}

/// Forgets what may be forgotten while this pod leads. Never ends.
async fn retain(shared: &Shared, guard: &Guard, portion: &mut Portion) {
    loop {
        let Some(epoch) = shared.epoch() else {
            tokio::time::sleep(RETRY).await;
            continue;
        };
        let began = std::time::Instant::now();
        let pause = match forget(shared, guard, portion, epoch).await {
            Ok(true) => began.elapsed(),
            Ok(false) => RETAIN,
            Err(error) => {
                tracing::debug!(%error, "retention has to wait");
                RETRY
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// One recovery cycle; nothing when the epoch is over. Recovery itself is safe whoever does it;
/// ending lives is the leader's.
pub(super) async fn cycle(
    guard: &Guard,
    settings: &PodSettings,
    local: &Arc<Local>,
    portion: &mut Portion,
    epoch: Epoch,
) -> Result<Option<Cycle>, StoreError> {
    let started = std::time::Instant::now();
    let reaped = guard.call(|store| store.reap(epoch, SWEEP_MAX)).await?;
    let LeaderWrite::Done(dead_pods) = reaped.value else { return Ok(None) };
    let mut cycle = Cycle {
        cycle_id: format!("recovery_{}_{}", reaped.wall.0, epoch),
        at: reaped.wall,
        duration_ms: 0,
        dead_pods,
        recovered: Vec::new(),
    };
    for _ in 0..SWEEPS_MAX {
        let waits = (1..=RETRIES_MAX + 1)
            .map(|charged| retry_delay_ms(settings.backoff, charged, fastrand::f64()))
            .collect();
        let request = RecoverRequest {
            steps_max: portion.size(),
            retry_in_ms: waits,
            poison_after: settings.poison_after,
        };
        let recovered = match guard.call(|store| store.recover(request)).await {
            Ok(recovered) => recovered,
            Err(error) => {
                portion.failed();
                if cycle.recovered.is_empty() {
                    return Err(error);
                }
                // What was taken back is told; the next cycle goes on.
                tracing::debug!(%error, "recovery has to wait");
                break;
            }
        };
        let more = recovered.value.len() == portion.size();
        portion.went_well();
        if !recovered.value.is_empty() {
            note(local, &cycle.cycle_id, recovered.wall, recovered.value.clone()).await;
        }
        cycle.at = recovered.wall;
        cycle.recovered.extend(recovered.value);
        if !more {
            break;
        }
    }
    cycle.duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    if !cycle.recovered.is_empty() || !cycle.dead_pods.is_empty() {
        tracing::info!(
            cycle = cycle.cycle_id,
            dead_pods = cycle.dead_pods.len(),
            requeued = cycle.requeued(),
            terminal = cycle.terminal(),
            duration_ms = cycle.duration_ms,
            "recovered"
        );
    }
    Ok(Some(cycle))
}

/// The ledger is for people: when it cannot be written, recovery goes on.
async fn note(local: &Arc<Local>, cycle_id: &str, at: UnixMs, recovered: Vec<Recovered>) {
    let (local, cycle_id) = (Arc::clone(local), cycle_id.to_owned());
    let written =
        tokio::task::spawn_blocking(move || local.ledger(&cycle_id, at.0, &recovered)).await;
    if let Ok(Err(error)) = written {
        tracing::warn!(%error, "the recovery ledger cannot be written");
    }
}

/// Whether there is more to forget.
async fn forget(
    shared: &Shared,
    guard: &Guard,
    portion: &mut Portion,
    epoch: Epoch,
) -> Result<bool, StoreError> {
    let keep = Retention { steps_max: portion.size(), ..shared.settings.retention };
    match guard.call(|store| store.retain(epoch, keep)).await {
        Ok(answer) => {
            portion.went_well();
            Ok(match answer.value {
                LeaderWrite::Done(forgotten) => {
                    shared.counters.forgotten.add(forgotten.steps as usize);
                    forgotten.more
                }
                LeaderWrite::Deposed => {
                    shared.lead_is_over();
                    false
                }
            })
        }
        Err(error) => {
            portion.failed();
            Err(error)
        }
    }
}
