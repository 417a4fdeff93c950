//! Reports go to the store in batches: what gathers while one batch is under way is the next.
//! While the database is away they wait in the journal.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::Receiver;

use super::shared::{Shared, Stage};
use crate::claim::{Finish, Finished};
use crate::error::StoreError;
use crate::limits::{BATCH_BYTES_MAX, RESULT_BYTES_MAX};
use crate::step::StepState;

/// Reports in one call.
const REPORTS_MAX: usize = 500;
/// Wait between tries to empty the journal.
const REPLAY: Duration = Duration::from_millis(500);

pub(super) async fn run(shared: Arc<Shared>, mut reports: Receiver<Finish>) {
    while let Some(first) = reports.recv().await {
        let mut bytes = first.outcome.result_bytes();
        let mut batch = vec![first];
        while batch.len() < REPORTS_MAX && bytes + RESULT_BYTES_MAX <= BATCH_BYTES_MAX {
            let Ok(next) = reports.try_recv() else { break };
            bytes += next.outcome.result_bytes();
            batch.push(next);
        }
        deliver(&shared, batch).await;
    }
}

async fn deliver(shared: &Arc<Shared>, batch: Vec<Finish>) {
    let sent = batch.clone();
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
            keep(shared, batch).await;
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
/// before their lease has run out.
async fn keep(shared: &Arc<Shared>, batch: Vec<Finish>) {
    let (local, reports) = (Arc::clone(&shared.local), batch.len());
    let kept = tokio::task::spawn_blocking(move || local.journal(&batch)).await;
    match kept {
        Ok(Ok(dropped)) => {
            shared.counters.journaled.add(reports - dropped);
            shared.counters.journal_full.add(dropped);
        }
        Ok(Err(error)) => {
            shared.counters.journal_full.add(reports);
            tracing::error!(%error, reports, "the journal takes nothing; the steps will run again");
        }
        // The runtime is going down.
        Err(_) => shared.counters.journal_full.add(reports),
    }
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
    let sent = finishes.clone();
    let answers = shared.guard.call(|store| store.finish(sent)).await?;
    for (finish, finished) in finishes.iter().zip(answers.value) {
        count(shared, finished);
        shared.held.remove(&finish.key);
    }
    shared.counters.replayed.add(finishes.len());
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
