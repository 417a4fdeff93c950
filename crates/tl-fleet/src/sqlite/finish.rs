//! Claims end.

use rusqlite::{Connection, OptionalExtension, params};
use tl_core::fleet::{Charge, Verdict, rank, verdict};
use tl_types::UnixMs;

use super::fault::Fault;
use super::rows::{id_text, int, step_state, token_bytes};
use crate::claim::{ClaimKey, Finish, Finished, Outcome, cut_error};
use crate::effects::{EffectNoted, NewEffect};
use crate::json::JsonText;
use crate::limits::EFFECTS_MAX;
use crate::recover::DeadReason;
use crate::step::{AttemptEnd, StepState};

/// Changes of the running totals, to be written once for many steps.
#[derive(Debug, Default)]
pub(super) struct Totals([i64; 3]);

impl Totals {
    pub(super) fn add(&mut self, state: StepState, steps: i64) {
        match state {
            StepState::Completed => self.0[0] += steps,
            StepState::Failed => self.0[1] += steps,
            StepState::Cancelled => self.0[2] += steps,
            StepState::Scheduled | StepState::Pending | StepState::Claimed => {}
        }
    }

    pub(super) fn write(self, conn: &Connection) -> Result<(), Fault> {
        let states = [StepState::Completed, StepState::Failed, StepState::Cancelled];
        for (state, steps) in states.into_iter().zip(self.0) {
            if steps != 0 {
                conn.prepare_cached("UPDATE fleet_totals SET steps = steps + ?2 WHERE state = ?1")?
                    .execute(params![state.number(), steps])?;
            }
        }
        Ok(())
    }
}

/// Ends one claim.
pub(super) fn finish(
    conn: &Connection,
    wall: UnixMs,
    finish: &Finish,
    totals: &mut Totals,
) -> Result<Finished, Fault> {
    let key = &finish.key;
    let ended = match &finish.outcome {
        Outcome::Completed { result } => complete(conn, wall, key, result)?,
        Outcome::Failed { error, retry_in_ms } => {
            failed(conn, wall, key, &cut_error(error), Some(*retry_in_ms))?
        }
        Outcome::Fatal { error } => failed(conn, wall, key, &cut_error(error), None)?,
        Outcome::Cancelled => cancelled(conn, wall, key)?,
        Outcome::Released => released(conn, wall, key)?,
    };
    match ended {
        Some(state) => {
            totals.add(state, 1);
            Ok(Finished::Now(state))
        }
        None => ended_before(conn, key),
    }
}

/// A report that came again is answered as the first time; any other is fenced.
fn ended_before(conn: &Connection, key: &ClaimKey) -> Result<Finished, Fault> {
    let mut found = conn.prepare_cached(
        "SELECT state FROM fleet_steps WHERE id = ?1 AND token = ?2 AND state >= 3",
    )?;
    let state = found
        .query_row(params![id_text(&key.id), token_bytes(&key.token)], |row| row.get(0))
        .optional()?;
    state.map_or(Ok(Finished::Fenced), |state| Ok(Finished::Now(step_state(state)?)))
}

fn complete(
    conn: &Connection,
    wall: UnixMs,
    key: &ClaimKey,
    result: &JsonText,
) -> Result<Option<StepState>, Fault> {
    let mut complete = conn.prepare_cached(
        "UPDATE fleet_steps
         SET state = 3, result = ?3, finished_at = ?4, updated_at = ?4, lease_until = NULL,
             unique_slot = CASE WHEN unique_until = 0 THEN NULL ELSE unique_slot END
         WHERE id = ?1 AND token = ?2 AND state = 2",
    )?;
    let rows = complete.execute(params![
        id_text(&key.id),
        token_bytes(&key.token),
        result.as_str(),
        int(wall.0)
    ])?;
    Ok((rows == 1).then_some(StepState::Completed))
}

/// A claimed step as far as its end depends on it.
pub(super) struct Held {
    pub(super) seq: i64,
    pub(super) attempt: i64,
    pub(super) pod: String,
    pub(super) claimed_at: i64,
    charged: u32,
    lost: u32,
    attempts_max: u32,
    priority: i32,
    cancel_asked: bool,
}

fn held(conn: &Connection, key: &ClaimKey) -> Result<Option<Held>, Fault> {
    let mut found = conn.prepare_cached(
        "SELECT seq, attempt, claimed_by, claimed_at, charged, lost, attempts_max, priority,
                cancel_asked
         FROM fleet_steps WHERE id = ?1 AND token = ?2 AND state = 2",
    )?;
    let held = found.query_row(params![id_text(&key.id), token_bytes(&key.token)], |row| {
        Ok(Held {
            seq: row.get(0)?,
            attempt: row.get(1)?,
            pod: row.get(2)?,
            claimed_at: row.get(3)?,
            charged: row.get(4)?,
            lost: row.get(5)?,
            attempts_max: row.get(6)?,
            priority: row.get(7)?,
            cancel_asked: row.get(8)?,
        })
    });
    Ok(held.optional()?)
}

fn failed(
    conn: &Connection,
    wall: UnixMs,
    key: &ClaimKey,
    error: &str,
    retry_in_ms: Option<u64>,
) -> Result<Option<StepState>, Fault> {
    let Some(held) = held(conn, key)? else { return Ok(None) };
    note_attempt(conn, wall, &held, AttemptEnd::Failed, Some(error))?;
    let charged = held.charged + 1;
    if held.cancel_asked {
        return end(conn, wall, &held, StepState::Cancelled, charged, Some(error)).map(Some);
    }
    // Lost leases are recovery's to judge: this attempt lost none.
    let charge = Charge {
        charged,
        attempts_max: held.attempts_max,
        lost: held.lost,
        poison_after: u32::MAX,
    };
    let reason = match (retry_in_ms, verdict(charge)) {
        (Some(retry_in_ms), Verdict::Again) => {
            return again(conn, wall, &held, charged, error, retry_in_ms).map(Some);
        }
        (Some(_), Verdict::Exhausted | Verdict::Poison) => DeadReason::RetriesExhausted,
        (None, _) => DeadReason::Fatal,
    };
    bury(conn, wall, &held, reason, Some(error))?;
    end(conn, wall, &held, StepState::Failed, charged, Some(error)).map(Some)
}

fn again(
    conn: &Connection,
    wall: UnixMs,
    held: &Held,
    charged: u32,
    error: &str,
    retry_in_ms: u64,
) -> Result<StepState, Fault> {
    let state = if retry_in_ms > 0 { StepState::Scheduled } else { StepState::Pending };
    let run_at = UnixMs(wall.0.saturating_add(retry_in_ms));
    conn.prepare_cached(
        "UPDATE fleet_steps
         SET state = ?2, charged = ?3, last_error = ?4, run_at = ?5, rank = ?6, updated_at = ?7,
             token = NULL, lease_until = NULL, progress = NULL
         WHERE seq = ?1",
    )?
    .execute(params![
        held.seq,
        state.number(),
        charged,
        error,
        int(run_at.0),
        rank(run_at, held.priority),
        int(wall.0),
    ])?;
    Ok(state)
}

fn end(
    conn: &Connection,
    wall: UnixMs,
    held: &Held,
    state: StepState,
    charged: u32,
    error: Option<&str>,
) -> Result<StepState, Fault> {
    conn.prepare_cached(
        "UPDATE fleet_steps
         SET state = ?2, charged = ?3, last_error = coalesce(?4, last_error), finished_at = ?5,
             updated_at = ?5, lease_until = NULL,
             unique_slot = CASE WHEN unique_until = 0 THEN NULL ELSE unique_slot END
         WHERE seq = ?1",
    )?
    .execute(params![held.seq, state.number(), charged, error, int(wall.0)])?;
    Ok(state)
}

fn cancelled(conn: &Connection, wall: UnixMs, key: &ClaimKey) -> Result<Option<StepState>, Fault> {
    let Some(held) = held(conn, key)? else { return Ok(None) };
    note_attempt(conn, wall, &held, AttemptEnd::Cancelled, None)?;
    end(conn, wall, &held, StepState::Cancelled, held.charged, None).map(Some)
}

/// Back to the place that it had: its rank is left alone.
fn released(conn: &Connection, wall: UnixMs, key: &ClaimKey) -> Result<Option<StepState>, Fault> {
    let Some(held) = held(conn, key)? else { return Ok(None) };
    note_attempt(conn, wall, &held, AttemptEnd::Released, None)?;
    if held.cancel_asked {
        return end(conn, wall, &held, StepState::Cancelled, held.charged, None).map(Some);
    }
    conn.prepare_cached(
        "UPDATE fleet_steps
         SET state = 1, updated_at = ?2, token = NULL, lease_until = NULL, progress = NULL
         WHERE seq = ?1",
    )?
    .execute(params![held.seq, int(wall.0)])?;
    Ok(Some(StepState::Pending))
}

/// Keeps how an attempt ended that did not complete its step.
pub(super) fn note_attempt(
    conn: &Connection,
    wall: UnixMs,
    held: &Held,
    end: AttemptEnd,
    error: Option<&str>,
) -> Result<(), Fault> {
    conn.prepare_cached(
        "INSERT INTO fleet_attempts (seq, attempt, pod, claimed_at, ended_at, ended, error)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![
        held.seq,
        held.attempt,
        held.pod,
        held.claimed_at,
        int(wall.0),
        end.number(),
        error,
    ])?;
    Ok(())
}

/// Puts a step among the dead letters.
pub(super) fn bury(
    conn: &Connection,
    wall: UnixMs,
    held: &Held,
    reason: DeadReason,
    error: Option<&str>,
) -> Result<(), Fault> {
    conn.prepare_cached(
        "INSERT INTO fleet_dead_letters (seq, attempt, reason, error, pod, died_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![
        held.seq,
        held.attempt,
        reason.number(),
        error,
        held.pod,
        int(wall.0)
    ])?;
    Ok(())
}

/// Notes an effect under a claim that is still held.
pub(super) fn note_effect(
    conn: &Connection,
    wall: UnixMs,
    effect: &NewEffect,
) -> Result<EffectNoted, Fault> {
    let Some(held) = held(conn, &effect.claim)? else { return Ok(EffectNoted::Fenced) };
    let noted = conn
        .prepare_cached(
            "INSERT INTO fleet_effects (seq, key, value, noted_at)
             SELECT ?1, ?2, ?3, ?4
             WHERE (SELECT count(*) FROM fleet_effects WHERE seq = ?1) < ?5
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            held.seq,
            effect.key,
            effect.value.as_str(),
            int(wall.0),
            int(EFFECTS_MAX)
        ])?;
    if noted == 1 {
        return Ok(EffectNoted::Now);
    }
    let mut before =
        conn.prepare_cached("SELECT value FROM fleet_effects WHERE seq = ?1 AND key = ?2")?;
    let value: Option<String> =
        before.query_row(params![held.seq, effect.key], |row| row.get(0)).optional()?;
    Ok(match value {
        Some(value) => EffectNoted::Before { value: JsonText::from_store(&value) },
        None => EffectNoted::TooMany,
    })
}
