//! What the leader does for all: takes lost steps back, ends dead lives, forgets old steps.

use std::sync::Arc;
use std::time::Duration;

use tl_core::fleet::retry_delay_ms;
use tl_types::UnixMs;

use super::guard::Guard;
use super::local::Local;
use super::settings::PodSettings;
use super::shared::{Shared, Stage};
use crate::error::StoreError;
use crate::ids::Epoch;
use crate::limits::{RETRIES_MAX, SWEEP_MAX};
use crate::pods::{LeaderWrite, ReapedPod};
use crate::recover::{RecoverRequest, Recovered};
use crate::step::StepState;

/// Recovery cycles between two looks for what may be forgotten.
const RETAIN_EVERY: u32 = 60;
/// Calls of one cycle at most; what is left is found by the next.
const SWEEPS_MAX: usize = 100;
/// Steps of one call: few enough that heartbeats on the same connection get through.
const SWEEP: usize = 1_000;

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

pub(super) async fn run(shared: &Shared, guard: &Guard) {
    let mut stage = shared.stage.subscribe();
    let mut cycles = 0_u32;
    while shared.stage() != Stage::Stopped {
        if let Some(epoch) = shared.epoch() {
            match cycle(guard, &shared.settings, &shared.local, epoch).await {
                Ok(Some(cycle)) => shared.counters.recovered.add(cycle.recovered.len()),
                Ok(None) => shared.lead_is_over(),
                Err(error) => tracing::debug!(%error, "recovery has to wait"),
            }
            if cycles.is_multiple_of(RETAIN_EVERY) {
                retain(shared, guard, epoch).await;
            }
            cycles = cycles.wrapping_add(1);
        }
        let pause = Duration::from_millis(shared.settings.recovery_ms);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stage.changed() => {}
        }
    }
}

/// One recovery cycle; nothing when the epoch is over. Recovery itself is safe whoever does it;
/// ending lives is the leader's.
pub(super) async fn cycle(
    guard: &Guard,
    settings: &PodSettings,
    local: &Arc<Local>,
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
            steps_max: SWEEP,
            retry_in_ms: waits,
            poison_after: settings.poison_after,
        };
        let recovered = guard.call(|store| store.recover(request)).await?;
        let more = recovered.value.len() == SWEEP;
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

async fn retain(shared: &Shared, guard: &Guard, epoch: Epoch) {
    for _ in 0..SWEEPS_MAX {
        let keep = shared.settings.retention;
        match guard.call(|store| store.retain(epoch, keep)).await {
            Ok(answer) => match answer.value {
                LeaderWrite::Done(forgotten) => {
                    shared.counters.forgotten.add(forgotten.steps as usize);
                    if !forgotten.more {
                        return;
                    }
                }
                LeaderWrite::Deposed => return shared.lead_is_over(),
            },
            Err(error) => return tracing::debug!(%error, "retention has to wait"),
        }
    }
}
