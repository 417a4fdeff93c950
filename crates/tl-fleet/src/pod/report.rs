//! Reports go to the store in batches: what gathers while one batch is under way is the next.
//! While the database is away they wait in the journal.
//!
//! ```text
//!   handlers, give back ──> reports ──> store ──> answered: out of hand
//!                              └── no answer ──> journal ──replay──^
//!                                                   └── no room: let go of, the lease runs out
//! ```
//!
//! When the pod has stopped, whatever has not been answered goes into the journal.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::Receiver;

use super::clock::now_ms;
use super::shared::{Shared, Stage};
use crate::claim::{Claim, ClaimKey, Finish, Finished, Outcome};
use crate::error::StoreError;
use crate::limits::{BATCH_BYTES_MAX, RESULT_BYTES_MAX};
use crate::step::StepState;

/// Reports in one call.
const REPORTS_MAX: usize = 500;
/// Wait between tries to empty the journal.
const REPLAY: Duration = Duration::from_millis(500);

/// Hands over the report of a running step, which is out of running from then on. Waits while
/// as many reports as may be are under way.
pub(super) async fn hand_over(shared: &Arc<Shared>, finish: Finish) {
    let key = finish.key;
    match shared.reports.reserve().await {
        Ok(place) => {
            shared.held.ended(&key, now_ms());
            place.send(finish);
        }
        // The pod has stopped, and nobody delivers any more.
        Err(_) => {
            keep(shared, vec![finish]).await;
            shared.held.ended(&key, now_ms());
        }
    }
}

/// Gives back all that has not started.
pub(super) async fn give_back(shared: &Arc<Shared>) {
    for key in shared.held.take_ready(now_ms()) {
        let finish = Finish { key, outcome: Outcome::Released };
        if let Err(refused) = shared.reports.send(finish).await {
            keep(shared, vec![refused.0]).await;
        }
    }
}

/// Gives claims back that never were in hand.
pub(super) async fn release(shared: &Arc<Shared>, claims: Vec<Claim>) {
    let release = |claim: Claim| Finish { key: claim.key, outcome: Outcome::Released };
    let finishes: Vec<Finish> = claims.into_iter().map(release).collect();
    deliver(shared, &finishes).await;
}

pub(super) async fn run(shared: Arc<Shared>, mut reports: Receiver<Finish>) {
    let mut stage = shared.stage.subscribe();
    let stopped = async {
        // An error means that the pod is gone.
        drop(stage.wait_for(|stage| *stage == Stage::Stopped).await);
    };
    tokio::pin!(stopped);
    loop {
        let first = tokio::select! {
            () = &mut stopped => break,
            first = reports.recv() => first,
        };
        let Some(first) = first else { return };
        let batch = batch(first, &mut reports);
        tokio::select! {
            () = deliver(&shared, &batch) => {}
            // In the middle of a call: it may count or not, and counts once at most.
            () = &mut stopped => {
                keep(&shared, batch).await;
                break;
            }
        }
    }
    reports.close();
    while let Some(first) = reports.recv().await {
        let batch = batch(first, &mut reports);
        keep(&shared, batch).await;
    }
}

/// One report and those that wait behind it, as many as go into one call.
fn batch(first: Finish, reports: &mut Receiver<Finish>) -> Vec<Finish> {
    let mut bytes = first.outcome.result_bytes();
    let mut batch = vec![first];
    while batch.len() < REPORTS_MAX && bytes + RESULT_BYTES_MAX <= BATCH_BYTES_MAX {
        let Ok(next) = reports.try_recv() else { break };
        bytes += next.outcome.result_bytes();
        batch.push(next);
    }
    batch
}

async fn deliver(shared: &Arc<Shared>, batch: &[Finish]) {
    let sent = batch.to_vec();
    match shared.guard.call(|store| store.finish(sent)).await {
        Ok(answers) => {
            for (finish, finished) in batch.iter().zip(answers.value) {
                count(shared, finished);
                shared.held.remove(&finish.key);
            }
            shared.room.notify_one();
        }
        Err(error) => {
            tracing::warn!(%error, reports = batch.len(), "reports go to the journal");
            keep(shared, batch.to_vec()).await;
        }
    }
}

fn count(shared: &Shared, finished: Finished) {
    let counters = &shared.counters;
    match finished {
        Finished::Fenced => counters.fenced.add(1),
        Finished::Now(StepState::Completed) => counters.completed.add(1),
        Finished::Now(StepState::Cancelled) => counters.cancelled.add(1),
        Finished::Now(StepState::Pending) => counters.released.add(1),
        Finished::Now(StepState::Failed | StepState::Scheduled | StepState::Claimed) => {
            counters.failed.add(1);
        }
    }
}

/// Into the journal. The claims stay in hand, so they are renewed when the database is back
/// before their lease has run out. What the journal has no room for is let go of: nobody will
/// report it, so its lease must run out.
async fn keep(shared: &Arc<Shared>, batch: Vec<Finish>) {
    let keys: Vec<ClaimKey> = batch.iter().map(|finish| finish.key).collect();
    let local = Arc::clone(&shared.local);
    let kept = tokio::task::spawn_blocking(move || local.journal(&batch)).await;
    let dropped = match kept {
        Ok(Ok(dropped)) => dropped,
        Ok(Err(error)) => {
            let reports = keys.len();
            tracing::error!(%error, reports, "the journal takes nothing; the steps will run again");
            keys.clone()
        }
        // The runtime is going down.
        Err(_) => keys.clone(),
    };
    shared.counters.journaled.add(keys.len() - dropped.len());
    shared.counters.journal_full.add(dropped.len());
    for key in &dropped {
        shared.held.remove(key);
    }
    shared.room.notify_one();
    shared.replay.notify_one();
}

/// Empties the journal while the database answers.
pub(super) async fn replay(shared: Arc<Shared>) {
    loop {
        match replay_some(&shared).await {
            Ok(true) => {}
            Ok(false) if shared.stage() == Stage::Stopped => return,
            Ok(false) => shared.replay.notified().await,
            Err(error) => {
                tracing::debug!(%error, "the journal has to wait");
                let wait = Duration::from_millis(shared.guard.wait_ms());
                tokio::time::sleep(wait.max(REPLAY)).await;
            }
        }
    }
}

/// Delivers reports of which one is about a row that cannot be read: that one is dropped.
async fn one_by_one(
    shared: &Arc<Shared>,
    finishes: &[Finish],
) -> Result<Vec<Finished>, StoreError> {
    let mut answers = Vec::with_capacity(finishes.len());
    for finish in finishes {
        let sent = vec![finish.clone()];
        match shared.guard.call(|store| store.finish(sent)).await {
            Ok(answer) => answers.extend(answer.value),
            Err(error @ StoreError::Corrupt { .. }) => {
                tracing::error!(%error, step = %finish.key.id, "its report is dropped");
                answers.push(Finished::Fenced);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(answers)
}

/// Whether there was anything to deliver.
pub(super) async fn replay_some(shared: &Arc<Shared>) -> Result<bool, StoreError> {
    let local = Arc::clone(&shared.local);
    let oldest = tokio::task::spawn_blocking(move || local.oldest()).await;
    let (upto, finishes) = match oldest {
        Ok(Ok(Some(oldest))) => oldest,
        Ok(Ok(None)) | Err(_) => return Ok(false),
        Ok(Err(error)) => {
            tracing::error!(%error, "the journal cannot be read; its steps will run again");
            return Ok(false);
        }
    };
    // What no store would take is let go of: behind it all others would wait for ever.
    let (sound, unsound): (Vec<_>, Vec<_>) =
        finishes.into_iter().partition(|finish| finish.check().is_ok());
    for finish in &unsound {
        tracing::error!(step = %finish.key.id, "a report in the journal is past its limits");
        shared.counters.journal_full.add(1);
        shared.held.remove(&finish.key);
    }
    let sent = sound.clone();
    let answers = match shared.guard.call(|store| store.finish(sent)).await {
        Ok(answers) => answers.value,
        Err(StoreError::Corrupt { .. }) => one_by_one(shared, &sound).await?,
        Err(error) => return Err(error),
    };
    for (finish, finished) in sound.iter().zip(answers) {
        count(shared, finished);
        shared.held.remove(&finish.key);
    }
    shared.room.notify_one();
    shared.counters.replayed.add(sound.len());
    let local = Arc::clone(&shared.local);
    match tokio::task::spawn_blocking(move || local.delivered(upto)).await {
        Ok(Ok(())) => Ok(true),
        // They will be delivered again, and be fenced or answered alike.
        Ok(Err(error)) => {
            tracing::error!(%error, "the journal cannot be written");
            Ok(false)
        }
        Err(_) => Ok(false),
    }
}
