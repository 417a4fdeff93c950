//! Steps come in, are worked on, and are taken back.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use super::fault::{Call, unreadable};
use super::pool::Pool;
use super::rows::{self, get, int, small, timed, uint};
use crate::claim::{
    Claim, ClaimKey, ClaimRequest, Claimant, Finish, Finished, Outcome, Renewal, Renewed, cut_error,
};
use crate::effects::{EffectNoted, NewEffect};
use crate::error::StoreError;
use crate::ids::{Attempt, ClaimToken, StepId};
use crate::json::JsonText;
use crate::limits::{BATCH_BYTES_MAX, PAYLOAD_BYTES_MAX, PROMOTE_MAX};
use crate::recover::{DeadReason, RecoverRequest, Recovered};
use crate::step::{NewStep, RunAt, StepState, Submitted};
use crate::time::{StoreTime, Timed};

pub(super) const SUBMIT: &str =
    "SELECT * FROM @fleet_submit_many($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";

/// How often a submission comes again because what it met was forgotten in that moment.
const SUBMITS_MAX: usize = 3;

/// The columns of a batch of submissions.
pub(super) struct SubmitArrays<'a> {
    pub(super) ids: Vec<Uuid>,
    pub(super) kinds: Vec<&'a str>,
    pub(super) args: Vec<&'a str>,
    pub(super) metadata: Vec<&'a str>,
    pub(super) priorities: Vec<i32>,
    pub(super) attempts_max: Vec<i32>,
    pub(super) delays_ms: Vec<Option<i64>>,
    pub(super) ats_ms: Vec<Option<i64>>,
    pub(super) timeouts_ms: Vec<Option<i64>>,
    pub(super) keys: Vec<Option<&'a str>>,
    pub(super) untils: Vec<Option<i16>>,
}

impl<'a> SubmitArrays<'a> {
    pub(super) fn new(steps: &'a [NewStep]) -> SubmitArrays<'a> {
        let unique = |step: &'a NewStep| step.unique.as_ref();
        SubmitArrays {
            ids: steps.iter().map(|step| step.id.0).collect(),
            kinds: steps.iter().map(|step| step.kind.as_str()).collect(),
            args: steps.iter().map(|step| step.args.as_str()).collect(),
            metadata: steps.iter().map(|step| step.metadata.as_str()).collect(),
            priorities: steps.iter().map(|step| step.priority).collect(),
            attempts_max: steps.iter().map(|step| small(step.attempts_max as usize)).collect(),
            delays_ms: steps
                .iter()
                .map(|step| match step.run_at {
                    RunAt::InMs(ms) => Some(int(ms)),
                    RunAt::Now | RunAt::At(_) => None,
                })
                .collect(),
            ats_ms: steps
                .iter()
                .map(|step| match step.run_at {
                    RunAt::At(at) => Some(int(at.0)),
                    RunAt::Now | RunAt::InMs(_) => None,
                })
                .collect(),
            timeouts_ms: steps.iter().map(|step| step.timeout_ms.map(int)).collect(),
            keys: steps.iter().map(|step| unique(step).map(|it| it.key.as_str())).collect(),
            untils: steps.iter().map(|step| unique(step).map(|it| it.until.number())).collect(),
        }
    }

    pub(super) fn params(&self) -> [&(dyn tokio_postgres::types::ToSql + Sync); 11] {
        [
            &self.ids,
            &self.kinds,
            &self.args,
            &self.metadata,
            &self.priorities,
            &self.attempts_max,
            &self.delays_ms,
            &self.ats_ms,
            &self.timeouts_ms,
            &self.keys,
            &self.untils,
        ]
    }
}

pub(super) async fn submit(
    pool: &Pool,
    steps: &[NewStep],
) -> Result<Timed<Vec<Submitted>>, StoreError> {
    let arrays = SubmitArrays::new(steps);
    for _ in 0..SUBMITS_MAX {
        let found = pool.rows(Call::Write, SUBMIT, &arrays.params()).await?;
        if let Some(answer) = submitted(steps, &found)? {
            return Ok(answer);
        }
    }
    Err(unreadable("a submission that neither went in nor was there"))
}

/// Nothing when an item was neither new nor found.
pub(super) fn submitted(
    steps: &[NewStep],
    found: &[tokio_postgres::Row],
) -> Result<Option<Timed<Vec<Submitted>>>, StoreError> {
    let answer = timed(found, ())?;
    let new: i64 = get(&found[0], 1)?;
    if uint(new) + (found.len() as u64 - 1) != steps.len() as u64 {
        return Ok(None);
    }
    let mut all: Vec<Submitted> = steps
        .iter()
        .map(|step| {
            let state = match step.run_at {
                RunAt::InMs(ms) if ms > 0 => StepState::Scheduled,
                RunAt::At(at) if at > answer.wall => StepState::Scheduled,
                RunAt::Now | RunAt::InMs(_) | RunAt::At(_) => StepState::Pending,
            };
            Submitted { id: step.id, state, deduped: false, differs: false }
        })
        .collect();
    for row in &found[1..] {
        *item(&mut all, row, 1)? = Submitted {
            id: StepId(get(row, 2)?),
            state: rows::state(row, 3)?,
            deduped: true,
            differs: get(row, 4)?,
        };
    }
    Ok(Some(answer.map(|()| all)))
}

/// The item that a row speaks of; the database counts from 1.
fn item<'a, T>(
    items: &'a mut [T],
    row: &tokio_postgres::Row,
    column: usize,
) -> Result<&'a mut T, StoreError> {
    let number = uint(get(row, column)?);
    let place = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
    place.and_then(|place| items.get_mut(place)).ok_or_else(|| unreadable("the number of an item"))
}

pub(super) async fn claim(
    pool: &Pool,
    request: &ClaimRequest,
) -> Result<Timed<Vec<Claim>>, StoreError> {
    let life = match &request.claimant {
        Claimant::Pod(life) => Some(int(life.incarnation.0)),
        Claimant::Worker(_) => None,
    };
    let kinds: Vec<&str> = request.kinds.iter().map(crate::step::Kind::as_str).collect();
    let room = int((BATCH_BYTES_MAX - PAYLOAD_BYTES_MAX) as u64);
    let found = pool
        .rows(
            Call::Write,
            "SELECT * FROM @fleet_claim($1, $2, $3, $4, $5, $6, $7)",
            &[
                &request.claimant.name().as_str(),
                &life,
                &kinds,
                &small(request.steps_max),
                &int(request.lease_ms),
                &small(PROMOTE_MAX),
                &room,
            ],
        )
        .await?;
    let answer = timed(&found, ())?;
    let mut claims = BTreeMap::new();
    for row in &found[1..] {
        let place: (i64, i64) = (get(row, 12)?, get(row, 13)?);
        let claim = Claim {
            key: ClaimKey { id: StepId(get(row, 1)?), token: ClaimToken(get(row, 2)?) },
            attempt: Attempt(uint(get(row, 3)?)),
            charged: rows::count(get(row, 4)?),
            attempts_max: rows::count(get(row, 5)?),
            kind: rows::kind(row, 6)?,
            priority: get(row, 7)?,
            timeout_ms: get::<Option<i64>>(row, 8)?.map(uint),
            lease_until: StoreTime(uint(get(row, 9)?)),
            args: rows::json(row, 10)?,
            metadata: rows::json(row, 11)?,
        };
        claims.insert(place, claim);
    }
    Ok(answer.map(|()| claims.into_values().collect()))
}

const RENEW: &str = "
    WITH clock AS MATERIALIZED (SELECT @fleet_clock() AS now),
    renewed AS (
      UPDATE @fleet_steps AS s
      SET lease_until = clock.now + $1, progress = coalesce(i.progress, s.progress)
      FROM clock, unnest($2::uuid[], $3::uuid[], $4::text[]) AS i (id, token, progress)
      WHERE s.id = i.id AND s.token = i.token AND s.state = 2
      RETURNING s.id, s.token, s.lease_until, s.cancel_asked)
    SELECT clock.now, r.id, r.token, r.lease_until, r.cancel_asked
    FROM clock LEFT JOIN renewed AS r ON true";

pub(super) async fn renew(
    pool: &Pool,
    lease_ms: u64,
    renewals: &[Renewal],
) -> Result<Timed<Vec<Renewed>>, StoreError> {
    let ids: Vec<Uuid> = renewals.iter().map(|renewal| renewal.key.id.0).collect();
    let tokens: Vec<Uuid> = renewals.iter().map(|renewal| renewal.key.token.0).collect();
    let progress: Vec<Option<&str>> =
        renewals.iter().map(|renewal| renewal.progress.as_ref().map(JsonText::as_str)).collect();
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

pub(super) const FINISH: &str = "SELECT * FROM @fleet_finish($1, $2, $3, $4, $5)";

/// The columns of a batch of reports.
pub(super) struct FinishArrays {
    ids: Vec<Uuid>,
    tokens: Vec<Uuid>,
    outcomes: Vec<i16>,
    texts: Vec<Option<String>>,
    waits_ms: Vec<i64>,
}

impl FinishArrays {
    pub(super) fn new(finishes: &[Finish]) -> FinishArrays {
        let mut arrays = FinishArrays {
            ids: Vec::with_capacity(finishes.len()),
            tokens: Vec::with_capacity(finishes.len()),
            outcomes: Vec::with_capacity(finishes.len()),
            texts: Vec::with_capacity(finishes.len()),
            waits_ms: Vec::with_capacity(finishes.len()),
        };
        for finish in finishes {
            let (outcome, text, wait_ms) = match &finish.outcome {
                Outcome::Completed { result } => (1, Some(result.as_str().to_owned()), 0),
                Outcome::Failed { error, retry_in_ms } => {
                    (2, Some(cut_error(error)), int(*retry_in_ms))
                }
                Outcome::Fatal { error } => (3, Some(cut_error(error)), 0),
                Outcome::Cancelled => (4, None, 0),
                Outcome::Released => (5, None, 0),
            };
            arrays.ids.push(finish.key.id.0);
            arrays.tokens.push(finish.key.token.0);
            arrays.outcomes.push(outcome);
            arrays.texts.push(text);
            arrays.waits_ms.push(wait_ms);
        }
        arrays
    }

    pub(super) fn params(&self) -> [&(dyn tokio_postgres::types::ToSql + Sync); 5] {
        [&self.ids, &self.tokens, &self.outcomes, &self.texts, &self.waits_ms]
    }
}

pub(super) async fn finish(
    pool: &Pool,
    finishes: &[Finish],
) -> Result<Timed<Vec<Finished>>, StoreError> {
    let arrays = FinishArrays::new(finishes);
    let found = pool.rows(Call::Write, FINISH, &arrays.params()).await?;
    finished(finishes.len(), &found)
}

pub(super) fn finished(
    items: usize,
    found: &[tokio_postgres::Row],
) -> Result<Timed<Vec<Finished>>, StoreError> {
    let answer = timed(found, ())?;
    let mut all = vec![Finished::Fenced; items];
    for row in &found[1..] {
        *item(&mut all, row, 1)? = Finished::Now(rows::state(row, 2)?);
    }
    Ok(answer.map(|()| all))
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
