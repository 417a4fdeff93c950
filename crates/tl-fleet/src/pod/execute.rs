//! One attempt: run the handler until it ends, is stopped or runs out of time.

use std::sync::Arc;
use std::time::Duration;

use tl_core::fleet::retry_delay_ms;
use tokio::task::JoinHandle;

use super::clock::now_ms;
use super::held::Start;
use super::report::hand_over;
use super::shared::{Shared, Stage};
use crate::claim::{Claim, Finish, Outcome};
use crate::json::JsonText;
use crate::limits::DELAY_MS_MAX;
use crate::run::{HandlerError, Run, Stop};

/// Starts what there is room for; nothing once the pod goes down.
pub(super) fn dispatch(shared: &Arc<Shared>) {
    if shared.stage() != Stage::Running {
        return;
    }
    while let Some(start) =
        shared.held.start(shared.capacity(), now_ms(), shared.settings.timeout_ms)
    {
        let shared = Arc::clone(shared);
        tokio::spawn(async move { attempt(shared, start).await });
    }
}

async fn attempt(shared: Arc<Shared>, start: Start) {
    let key = start.claim.key;
    let started_ms = now_ms();
    let outcome = run(&shared, start).await;
    shared.ran_for(now_ms().saturating_sub(started_ms));
    match outcome {
        // It makes room for another only when its report has found a place.
        Some(outcome) => hand_over(&shared, checked(Finish { key, outcome })).await,
        None => {
            shared.counters.lost.add(1);
            shared.held.remove(&key);
        }
    }
    dispatch(&shared);
    shared.room.notify_one();
}

/// Nothing when the claim is lost: then there is nothing to report.
async fn run(shared: &Shared, start: Start) -> Option<Outcome> {
    let Start { claim, mut stop, progress, timeout_ms } = start;
    let Some(handler) = shared.handlers.get(&claim.kind) else {
        // Claims name the kinds that there are handlers for; give back what is not ours.
        return Some(Outcome::Released);
    };
    let run = Run {
        claim: Arc::clone(&claim),
        guard: Arc::clone(&shared.guard),
        stop: stop.clone(),
        progress,
    };
    // In a task of its own: a panic there is an error of the step and not of the pod.
    let mut work = Abort(tokio::spawn(async move { handler.run(run).await }));
    let timeout = tokio::time::sleep(Duration::from_millis(timeout_ms));
    tokio::select! {
        // What has been achieved counts, also when it is to stop.
        biased;
        ended = &mut work.0 => Some(match ended {
            Ok(Ok(result)) => Outcome::Completed { result },
            Ok(Err(error)) => failure(shared, &claim, error),
            Err(error) if error.is_panic() => {
                let text = panic_text(error.into_panic());
                failure(shared, &claim, HandlerError::retry(format!("the handler panicked: {text}")))
            }
            // Only shutting down the runtime cancels it besides us.
            Err(_) => Outcome::Released,
        }),
        stopped = stop.wait_for(|stop| *stop != Stop::Go) => match stopped.map(|stop| *stop) {
            Ok(Stop::CalledOff) => Some(Outcome::Cancelled),
            Ok(Stop::Drained) => Some(Outcome::Released),
            Ok(Stop::Lost | Stop::Go) | Err(_) => None,
        },
        () = timeout => {
            shared.counters.timed_out.add(1);
            let error = format!("the attempt ran longer than {timeout_ms} ms");
            Some(failure(shared, &claim, HandlerError::retry(error)))
        }
    }
}

fn failure(shared: &Shared, claim: &Claim, error: HandlerError) -> Outcome {
    if error.fatal {
        return Outcome::Fatal { error: error.error };
    }
    let wait = || retry_delay_ms(shared.settings.backoff, claim.charged + 1, fastrand::f64());
    let retry_in_ms = error.retry_in_ms.map_or_else(wait, |ms| ms.min(DELAY_MS_MAX));
    Outcome::Failed { error: error.error, retry_in_ms }
}

/// A result past its limit would be refused with the whole batch that it is in.
fn checked(finish: Finish) -> Finish {
    match finish.check() {
        Ok(()) => finish,
        Err(error) => Finish { outcome: Outcome::Fatal { error: error.to_string() }, ..finish },
    }
}

fn panic_text(panic: Box<dyn std::any::Any + Send>) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a text".to_owned())
}

/// Ends the task when the attempt ends first.
struct Abort(JoinHandle<Result<JsonText, HandlerError>>);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}
