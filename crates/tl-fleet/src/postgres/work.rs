//! Steps are worked on, and taken back.

use std::collections::HashMap;

use uuid::Uuid;

use super::fault::Call;
use super::pool::Pool;
use super::rows::{self, get, int, item, small, timed, uint};
use crate::claim::{Renewal, Renewed};
use crate::effects::{EffectNoted, NewEffect};
use crate::error::StoreError;
use crate::ids::{Attempt, StepId};
use crate::json::JsonText;
use crate::recover::{DeadReason, RecoverRequest, Recovered};
use crate::step::StepState;
use crate::time::{StoreTime, Timed};

/// Looked up one by one and not joined, as when claims end.
const RENEW: &str = "
    WITH clock AS MATERIALIZED (SELECT @fleet_clock() AS now),
    held AS MATERIALIZED (
      SELECT array_agg(s.seq) AS seqs, array_agg(i.progress) AS notes
      FROM unnest($2::uuid[], $3::uuid[], $4::text[]) AS i (id, token, progress),
           LATERAL (SELECT s.seq FROM @fleet_steps AS s
                    WHERE s.id = i.id AND s.token = i.token AND s.state + 0 = 2 FOR UPDATE) AS s),
    renewed AS (
      UPDATE @fleet_steps AS s
      SET lease_until = clock.now + $1,
          progress = coalesce(held.notes[array_position(held.seqs, s.seq)], s.progress)
      FROM clock, held WHERE s.seq = ANY ((SELECT seqs FROM held)::bigint[])
      RETURNING s.id, s.token, s.lease_until, s.cancel_asked)
    SELECT clock.now, r.id, r.token, r.lease_until, r.cancel_asked
    FROM clock LEFT JOIN renewed AS r ON true";

pub(super) async fn renew(
    pool: &Pool,
    lease_ms: u64,
    renewals: &[Renewal],
) -> Result<Timed<Vec<Renewed>>, StoreError> {
    // In the order of ids, as reports: two batches that meet wait for each other on one side only.
    let mut sorted: Vec<&Renewal> = renewals.iter().collect();
    sorted.sort_by_key(|renewal| renewal.key.id);
    let ids: Vec<Uuid> = sorted.iter().map(|renewal| renewal.key.id.0).collect();
    let tokens: Vec<Uuid> = sorted.iter().map(|renewal| renewal.key.token.0).collect();
    let progress: Vec<Option<&str>> =
        sorted.iter().map(|renewal| renewal.progress.as_ref().map(JsonText::as_str)).collect();
    let lease_ms = int(lease_ms);
    let found = pool.rows(Call::Write, RENEW, &[&lease_ms, &ids, &tokens, &progress]).await?;
    let mut held = HashMap::new();
    for row in &found {
        let (Some(id), Some(token)) = (get::<Option<Uuid>>(row, 1)?, get::<Option<Uuid>>(row, 2)?)
        else {
            continue;
        };
        let renewed = Renewed::Held {
            lease_until: StoreTime(uint(get(row, 3)?)),
            cancel_asked: get(row, 4)?,
        };
        held.insert((id, token), renewed);
    }
    let answer = |renewal: &Renewal| {
        held.get(&(renewal.key.id.0, renewal.key.token.0)).copied().unwrap_or(Renewed::Fenced)
    };
    timed(&found, renewals.iter().map(answer).collect())
}

pub(super) async fn note_effects(
    pool: &Pool,
    effects: &[NewEffect],
) -> Result<Timed<Vec<EffectNoted>>, StoreError> {
    let ids: Vec<Uuid> = effects.iter().map(|effect| effect.claim.id.0).collect();
    let tokens: Vec<Uuid> = effects.iter().map(|effect| effect.claim.token.0).collect();
    let keys: Vec<&str> = effects.iter().map(|effect| effect.key.as_str()).collect();
    let values: Vec<&str> = effects.iter().map(|effect| effect.value.as_str()).collect();
    let sql = "SELECT * FROM @fleet_note_effects($1, $2, $3, $4)";
    let found = pool.rows(Call::Write, sql, &[&ids, &tokens, &keys, &values]).await?;
    let answer = timed(&found, ())?;
    let mut all = vec![EffectNoted::Fenced; effects.len()];
    for row in &found[1..] {
        *item(&mut all, row, 1)? = match get::<i16>(row, 2)? {
            1 => EffectNoted::Now,
            2 => EffectNoted::Before { value: rows::json(row, 3)? },
            4 => EffectNoted::TooMany,
            _ => EffectNoted::Fenced,
        };
    }
    Ok(answer.map(|()| all))
}

pub(super) async fn recover(
    pool: &Pool,
    request: &RecoverRequest,
) -> Result<Timed<Vec<Recovered>>, StoreError> {
    let waits: Vec<i64> = request.retry_in_ms.iter().map(|ms| int(*ms)).collect();
    let poison_after = i32::try_from(request.poison_after).unwrap_or(i32::MAX);
    let found = pool
        .rows(
            Call::Write,
            "SELECT * FROM @fleet_recover($1, $2, $3)",
            &[&small(request.steps_max), &poison_after, &waits],
        )
        .await?;
    let answer = timed(&found, ())?;
    let mut recovered = Vec::with_capacity(found.len() - 1);
    for row in &found[1..] {
        let state = rows::state(row, 7)?;
        let (charged, attempts_max) = (rows::count(get(row, 4)?), rows::count(get(row, 5)?));
        let reason = match state {
            StepState::Failed if charged >= attempts_max => Some(DeadReason::RetriesExhausted),
            StepState::Failed => Some(DeadReason::Poison),
            StepState::Scheduled
            | StepState::Pending
            | StepState::Claimed
            | StepState::Completed
            | StepState::Cancelled => None,
        };
        recovered.push(Recovered {
            id: StepId(get(row, 1)?),
            claimed_by: rows::pod_id(row, 2)?,
            attempt: Attempt(uint(get(row, 3)?)),
            charged,
            attempts_max,
            claimed_at: rows::wall(get(row, 6)?),
            state,
            reason,
        });
    }
    Ok(answer.map(|()| recovered))
}
