//! Submit, claim, finish, again and again, by callers that share a store.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tl_fleet::{ClaimRequest, Claimant, Finish, Finished, JsonText, Outcome, PodId, StepState};

use super::{Bench, kind, steps};

/// How long a claim of the cycle holds.
const LEASE_MS: u64 = 60_000;

/// Steps per second that have gone all the way, `batch` in a call.
pub async fn run(bench: &Bench, batch: usize, name: &str) -> anyhow::Result<Value> {
    let store = bench.store().await?;
    let (began, length) = (Instant::now(), Duration::from_secs(bench.args.seconds.into()));
    let mut callers = Vec::new();
    for number in 0..bench.args.connections {
        let store = store.clone();
        callers.push(tokio::spawn(async move {
            let claimant = Claimant::Worker(PodId::new(format!("caller-{number}"))?);
            let mut done = 0_u64;
            while began.elapsed() < length {
                store.submit(steps(batch)).await?;
                let request = ClaimRequest {
                    claimant: claimant.clone(),
                    kinds: vec![kind()],
                    steps_max: batch,
                    lease_ms: LEASE_MS,
                };
                let claims = store.claim(request).await?.value;
                let finish = |claim: &tl_fleet::Claim| Finish {
                    key: claim.key,
                    outcome: Outcome::Completed { result: JsonText::null() },
                };
                let finished = store.finish(claims.iter().map(finish).collect()).await?.value;
                let counts = |it: &&Finished| **it == Finished::Now(StepState::Completed);
                done += finished.iter().filter(counts).count() as u64;
            }
            anyhow::Ok(done)
        }));
    }
    let mut done = 0;
    for caller in callers {
        done += caller.await??;
    }
    let rate = done as f64 / began.elapsed().as_secs_f64();
    Ok(json!({ format!("{name}_steps_per_s"): rate.round(), format!("{name}_size"): batch }))
}
