//! How long a command waits for the outcome of a write, and what it says meanwhile.

use std::time::Duration;

use tl_client::RetryPolicy;

use crate::output::Out;

/// How long a command repeats a write that nobody answers.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// How long it waits before it says that it waits.
const QUIET_FOR: Duration = Duration::from_secs(1);

/// The bound on repeats of one command's write.
pub fn write_retry() -> RetryPolicy {
    RetryPolicy { deadline: Some(ANSWER_WITHIN), ..RetryPolicy::default() }
}

/// Waits for the outcome of a write and says so when there is none for a while.
pub async fn told<T>(out: &Out, outcome: impl Future<Output = T>) -> T {
    tokio::pin!(outcome);
    tokio::select! {
        outcome = &mut outcome => return outcome,
        () = tokio::time::sleep(QUIET_FOR) => {}
    }
    let seconds = ANSWER_WITHIN.as_secs();
    out.note(&format!("no answer yet: repeating the same write for up to {seconds} s"));
    outcome.await
}
