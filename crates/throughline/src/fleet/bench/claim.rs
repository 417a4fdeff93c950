//! What finished steps cost a claim.

use std::time::Instant;

use serde_json::{Value, json};
use tl_fleet::{ClaimRequest, Claimant, Finish, Outcome, PodId, Store};

use super::{Bench, histogram, kind, steps};

/// Pending steps while claims are timed.
const PENDING: usize = 1_000;
/// Claims of either database, and steps in each.
const CLAIMS: usize = 500;
const STEPS_MAX: usize = 10;
/// Claims before those that count.
const WARM_UP: usize = 50;

/// The median claim with an empty past and with a long one: two databases, by turns, so that
/// whatever else the machine does meets both.
pub async fn run(bench: &Bench) -> anyhow::Result<Value> {
    let (empty, full) = (bench.store().await?, bench.store_with_a_past().await?);
    let rows = bench.args.finished;
    let began = Instant::now();
    bench.load(&in_postgres(rows), &in_sqlite(rows)).await?;
    let load_s = began.elapsed().as_secs_f64();
    empty.submit(steps(PENDING)).await?;
    full.submit(steps(PENDING)).await?;
    let (mut of_empty, mut of_full) = (histogram(), histogram());
    for number in 0..WARM_UP + CLAIMS {
        for (store, times) in [(&empty, &mut of_empty), (&full, &mut of_full)] {
            let us = claim(&**store).await?;
            if number >= WARM_UP {
                times.record(us)?;
            }
        }
    }
    let (empty_us, full_us) = (of_empty.value_at_quantile(0.5), of_full.value_at_quantile(0.5));
    Ok(json!({
        "claim_empty_p50_ms": empty_us as f64 / 1e3,
        "claim_full_p50_ms": full_us as f64 / 1e3,
        "claim_ratio": full_us as f64 / empty_us as f64,
        "claim_finished_rows": rows,
        "claim_load_s": load_s.round(),
    }))
}

/// One claim, in microseconds; what it took is given back.
async fn claim(store: &dyn Store) -> anyhow::Result<u64> {
    let request = ClaimRequest {
        claimant: Claimant::Worker(PodId::new("claimer")?),
        kinds: vec![kind()],
        steps_max: STEPS_MAX,
        lease_ms: 60_000,
    };
    let began = Instant::now();
    let claims = store.claim(request).await?.value;
    let us = u64::try_from(began.elapsed().as_micros())?;
    anyhow::ensure!(claims.len() == STEPS_MAX, "steps ran out");
    let release = |claim: &tl_fleet::Claim| Finish { key: claim.key, outcome: Outcome::Released };
    store.finish(claims.iter().map(release).collect()).await?;
    Ok(us.max(1))
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
         INSERT INTO fleet_totals (state, steps) VALUES (3, {rows})"
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
