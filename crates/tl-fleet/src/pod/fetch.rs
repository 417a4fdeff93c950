//! The one fetcher of a pod: asks for as many steps as there is room for.

use std::sync::Arc;
use std::time::Duration;

use tl_core::fleet::{POLL_MS_MIN, next_poll_ms, wanted};

use super::execute::dispatch;
use super::report::{give_back, release};
use super::shared::{Shared, Stage};
use crate::claim::{Claim, ClaimRequest, Claimant};
use crate::error::StoreError;
use crate::limits::BATCH_MAX;

/// Wait while the pod may not claim, unless something changes.
const IDLE: Duration = Duration::from_millis(250);

pub(super) async fn run(shared: Arc<Shared>) {
    let mut stage = shared.stage.subscribe();
    let mut wakes = shared.guard.store().wakes();
    let mut wait_ms = POLL_MS_MIN;
    while shared.stage() == Stage::Running {
        let pause = match room(&shared) {
            Some(steps_max) => match claim(&shared, steps_max, wait_ms).await {
                Next::At(ms) => {
                    wait_ms = ms;
                    Duration::from_millis(ms)
                }
                Next::Later(pause) => pause,
            },
            // Until a step ends; a timer beside it, for leases that run out free room too.
            None => IDLE,
        };
        if pause.is_zero() {
            continue;
        }
        let full = room(&shared).is_none();
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shared.room.notified(), if full => {}
            _ = wakes.changed(), if !full && shared.may_claim() => wait_ms = POLL_MS_MIN,
            _ = stage.changed() => {}
        }
    }
}

/// How many to ask for; nothing while less than half of the room is free and nobody is idle, so
/// that claims stay batches.
fn room(shared: &Shared) -> Option<u32> {
    let (counts, capacity) = (shared.held.counts(), shared.capacity());
    let prefetch_max = shared.prefetch_max(capacity);
    let want = wanted(capacity, prefetch_max, counts.ready + counts.running);
    let idle = counts.ready == 0 && counts.running < capacity;
    let half = want.saturating_mul(2) >= capacity.saturating_add(prefetch_max);
    (want > 0 && (idle || half)).then_some(want)
}

enum Next {
    /// The adaptive wait.
    At(u64),
    /// Something is wrong; the adaptive wait is left as it is.
    Later(Duration),
}

async fn claim(shared: &Arc<Shared>, want: u32, wait_ms: u64) -> Next {
    let kinds = shared.handlers.kinds();
    let Some(life) = shared.life().filter(|_| shared.may_claim() && !kinds.is_empty()) else {
        return Next::Later(IDLE);
    };
    let steps_max = (want as usize).min(BATCH_MAX);
    let most = most(shared);
    let lease_ms = shared.settings.step_lease_ms;
    let request = ClaimRequest { claimant: Claimant::Pod(life), kinds, steps_max, lease_ms };
    let late = Arc::clone(shared);
    let asked = shared.guard.claim(request, move |claims, sent_ms| async move {
        take_late(&late, claims, sent_ms).await;
    });
    match asked.await {
        Ok((claims, sent_ms)) => {
            let claims = claims.value;
            let claimed = claims.len();
            shared.counters.claims_empty.add(usize::from(claimed == 0));
            take_in(shared, claims, sent_ms, most).await;
            let want = u32::try_from(steps_max).unwrap_or(u32::MAX);
            Next::At(next_poll_ms(wait_ms, want, u32::try_from(claimed).unwrap_or(u32::MAX)))
        }
        Err(StoreError::Reaped) => {
            // The keeper finds it out and begins a new life.
            shared.beat_now.notify_one();
            Next::Later(IDLE)
        }
        Err(error) => {
            tracing::debug!(%error, "claim failed");
            let spread = fastrand::u64(50..150);
            Next::Later(Duration::from_millis(shared.guard.wait_ms() + spread))
        }
    }
}

/// Steps that may be ready or run.
fn most(shared: &Shared) -> u32 {
    let capacity = shared.capacity();
    capacity.saturating_add(shared.prefetch_max(capacity))
}

/// Takes steps in while fewer than `most` are in hand, and gives back the rest.
async fn take_in(shared: &Arc<Shared>, claims: Vec<Claim>, sent_ms: u64, most: u32) {
    shared.counters.claimed.add(claims.len());
    let over = shared.held.insert(claims, sent_ms, shared.settings.step_lease_ms, most);
    if !over.is_empty() {
        release(shared, over).await;
    }
    if shared.stage() == Stage::Running {
        dispatch(shared);
    } else {
        // The pod goes down, and may have given back before these were in hand.
        give_back(shared).await;
    }
}

/// Steps that were claimed though the guard had given up waiting. Others may have taken their
/// room meanwhile.
async fn take_late(shared: &Arc<Shared>, claims: Vec<Claim>, sent_ms: u64) {
    take_in(shared, claims, sent_ms, most(shared)).await;
}
