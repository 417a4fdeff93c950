//! What finished steps cost a claim.

use std::time::Instant;

use serde_json::{Value, json};
use tl_fleet::{ClaimRequest, Claimant, Finish, Outcome, PodId, Store};

use super::{Bench, histogram, kind, steps};

/// Pending steps while claims are timed.
const PENDING: usize = 1_000;
/// Claims in a round, and steps in each.
const CLAIMS: usize = 200;
const STEPS_MAX: usize = 10;
/// Rounds; the halves are far apart in time, so each has several.
const ROUNDS: usize = 3;

/// The median claim with an empty past and with a long one.
pub async fn run(bench: &Bench) -> anyhow::Result<Value> {
    let store = bench.store().await?;
    store.submit(steps(PENDING)).await?;
    let empty_us = median(&*store).await?;
    let rows = bench.args.finished;
    let began = Instant::now();
    bench.sql(&in_postgres(rows), &in_sqlite(rows)).await?;
    let load_s = began.elapsed().as_secs_f64();
    let full_us = median(&*store).await?;
    Ok(json!({
        "claim_empty_p50_ms": empty_us as f64 / 1e3,
        "claim_full_p50_ms": full_us as f64 / 1e3,
        "claim_ratio": full_us as f64 / empty_us as f64,
        "claim_finished_rows": rows,
        "claim_load_s": load_s.round(),
    }))
}

async fn median(store: &dyn Store) -> anyhow::Result<u64> {
    let mut times = histogram();
    for _ in 0..ROUNDS {
        for _ in 0..CLAIMS {
            let request = ClaimRequest {
                claimant: Claimant::Worker(PodId::new("claimer")?),
                kinds: vec![kind()],
                steps_max: STEPS_MAX,
                lease_ms: 60_000,
            };
            let began = Instant::now();
            let claims = store.claim(request).await?.value;
            times.record(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX))?;
            anyhow::ensure!(claims.len() == STEPS_MAX, "steps ran out");
            let release =
                |claim: &tl_fleet::Claim| Finish { key: claim.key, outcome: Outcome::Released };
            store.finish(claims.iter().map(release).collect()).await?;
        }
    }
    Ok(times.value_at_quantile(0.5))
}

/// Completed steps with small arguments, as if they had been worked off over the last days.
fn in_postgres(rows: u64) -> String {
    format!(
        "INSERT INTO fleet_finished (seq, id, kind, state, priority, run_at, attempt, charged,
             attempts_max, claimed_by, claimed_at, cancel_asked, result, created_at, updated_at,
             finished_at, args, metadata)
         SELECT nextval('fleet_seq'), gen_random_uuid(), 'bench', 3, 0, at, 1, 0, 4, 'loader', at,
                false, 'null', at, at, at, '{{\"n\":1}}', '{{}}'
         FROM (SELECT fleet_clock() - n AS at FROM generate_series(1, {rows}) AS n) AS times;
         INSERT INTO fleet_totals (state, steps) VALUES (3, {rows});
         VACUUM ANALYZE fleet_finished"
    )
}

fn in_sqlite(rows: u64) -> String {
    format!(
        "BEGIN IMMEDIATE;
         WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {rows})
         INSERT INTO fleet_steps (id, kind, state, priority, rank, run_at, attempt, attempts_max,
             claimed_by, claimed_at, result, created_at, updated_at, finished_at)
         SELECT lower(printf('%s-%s-7%s-8%s-%s', hex(randomblob(4)), hex(randomblob(2)),
                             substr(hex(randomblob(2)), 2), substr(hex(randomblob(2)), 2),
                             hex(randomblob(6)))),
                'bench', 3, 0, 0, now - n, 1, 4, 'loader', now - n, 'null', now - n, now - n,
                now - n
         FROM n, (SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER) AS now);
         INSERT INTO fleet_payloads (seq, args, metadata)
         SELECT seq, '{{\"n\":1}}', '{{}}' FROM fleet_steps WHERE state = 3;
         UPDATE fleet_totals SET steps = steps + {rows} WHERE state = 3;
         COMMIT;
         PRAGMA wal_checkpoint(TRUNCATE)"
    )
}
