//! Steps whose lease ran out are taken back; finished ones are forgotten.

use rusqlite::{Connection, params};

use super::fault::Fault;
use super::finish::Totals;
use super::pods::is_current;
use super::rows::{count, int, step_id, step_state, uint};
use super::worker::{Done, Tx};
use crate::ids::{Attempt, Epoch, PodId};
use crate::pods::LeaderWrite;
use crate::recover::{DeadReason, Forgotten, RecoverRequest, Recovered, Retention};
use crate::step::{AttemptEnd, StepState};

/// All right-hand sides see the row as it was. `?5` is the list of waits as JSON.
const RECOVER: &str = "
    UPDATE fleet_steps
    SET charged = charged + 1,
        lost = lost + 1,
        state = CASE WHEN cancel_asked THEN 5
                     WHEN charged + 1 >= attempts_max OR lost + 1 >= ?3 THEN 4
                     WHEN json_extract(?5, '$[' || min(charged, ?4) || ']') > 0 THEN 0
                     ELSE 1 END,
        run_at = ?6 + json_extract(?5, '$[' || min(charged, ?4) || ']'),
        rank = ?6 + json_extract(?5, '$[' || min(charged, ?4) || ']') - priority * 60000,
        finished_at = CASE WHEN cancel_asked OR charged + 1 >= attempts_max OR lost + 1 >= ?3
                           THEN ?6 END,
        unique_slot = CASE WHEN unique_until = 0
                            AND (cancel_asked OR charged + 1 >= attempts_max OR lost + 1 >= ?3)
                           THEN NULL ELSE unique_slot END,
        last_error = 'the lease ran out while ' || claimed_by || ' held it',
        token = NULL, lease_until = NULL, progress = NULL, updated_at = ?6
    WHERE seq IN (SELECT seq FROM fleet_steps WHERE state = 2 AND lease_until <= ?1
                  ORDER BY lease_until LIMIT ?2)
    RETURNING seq, id, claimed_by, attempt, charged, attempts_max, claimed_at, state, last_error";

pub(super) fn recover(tx: &Tx<'_>, request: &RecoverRequest) -> Result<Vec<Recovered>, Fault> {
    let waits = serde_json::to_string(&request.retry_in_ms)
        .map_err(|_| Fault::unreadable("the list of waits"))?;
    let mut statement = tx.conn.prepare_cached(RECOVER)?;
    let mut rows = statement.query(params![
        int(tx.at.0),
        count(request.steps_max),
        request.poison_after,
        count(request.retry_in_ms.len() - 1),
        waits,
        int(tx.wall.0),
    ])?;
    let mut totals = Totals::default();
    let mut recovered = Vec::new();
    while let Some(row) = rows.next()? {
        let state = step_state(row.get(7)?)?;
        let (charged, attempts_max) = (row.get(4)?, row.get(5)?);
        let reason = match state {
            StepState::Failed if charged >= attempts_max => Some(DeadReason::RetriesExhausted),
            StepState::Failed => Some(DeadReason::Poison),
            StepState::Scheduled
            | StepState::Pending
            | StepState::Claimed
            | StepState::Completed
            | StepState::Cancelled => None,
        };
        let one = Recovered {
            id: step_id(&row.get::<_, String>(1)?)?,
            claimed_by: PodId::new(row.get::<_, String>(2)?)?,
            attempt: Attempt(uint(row.get(3)?)),
            charged,
            attempts_max,
            claimed_at: super::rows::wall(row.get(6)?),
            state,
            reason,
        };
        totals.add(state, 1);
        keep_trace(tx, row.get(0)?, &one, &row.get::<_, String>(8)?)?;
        recovered.push(one);
    }
    totals.write(tx.conn)?;
    Ok(recovered)
}

fn keep_trace(tx: &Tx<'_>, seq: i64, one: &Recovered, error: &str) -> Result<(), Fault> {
    let attempt = int(one.attempt.0);
    tx.conn
        .prepare_cached(
            "INSERT INTO fleet_attempts (seq, attempt, pod, claimed_at, ended_at, ended)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            seq,
            attempt,
            one.claimed_by.as_str(),
            int(one.claimed_at.0),
            int(tx.wall.0),
            AttemptEnd::LeaseLost.number(),
        ])?;
    if let Some(reason) = one.reason {
        tx.conn
            .prepare_cached(
                "INSERT INTO fleet_dead_letters (seq, attempt, reason, error, pod, died_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                seq,
                attempt,
                reason.number(),
                error,
                one.claimed_by.as_str(),
                int(tx.wall.0),
            ])?;
    }
    Ok(())
}

/// Forgets what has been finished for long enough.
pub(super) fn retain(tx: &Tx<'_>, epoch: Epoch, keep: &Retention) -> Done<LeaderWrite<Forgotten>> {
    if !is_current(tx, epoch)? {
        return Ok(Ok(LeaderWrite::Deposed));
    }
    let before = |ms: u64| int(tx.wall.0.saturating_sub(ms));
    let mut totals = Totals::default();
    let mut left = keep.steps_max;
    let ages = [
        (StepState::Completed, before(keep.finished_ms)),
        (StepState::Cancelled, before(keep.finished_ms)),
        (StepState::Failed, before(keep.dead_ms)),
    ];
    for (state, before) in ages {
        let mut old = tx.conn.prepare_cached(
            "SELECT seq FROM fleet_steps WHERE state = ?1 AND state >= 3 AND finished_at <= ?2
             ORDER BY finished_at LIMIT ?3",
        )?;
        let seqs = old
            .query_map(params![state.number(), before, count(left)], |row| row.get(0))?
            .collect::<Result<Vec<i64>, _>>()?;
        for seq in &seqs {
            forget(tx.conn, *seq)?;
        }
        left -= seqs.len();
        totals.add(state, -i64::try_from(seqs.len()).unwrap_or(i64::MAX));
    }
    totals.write(tx.conn)?;
    let pods = tx
        .conn
        .prepare_cached("DELETE FROM fleet_pods WHERE state = 1 AND heartbeat_wall <= ?1")?
        .execute([before(keep.pods_ms)])?;
    let steps = (keep.steps_max - left) as u64;
    Ok(Ok(LeaderWrite::Done(Forgotten { steps, pods: pods as u64, more: left == 0 })))
}

fn forget(conn: &Connection, seq: i64) -> Result<(), Fault> {
    for statement in [
        "DELETE FROM fleet_dead_letters WHERE seq = ?1",
        "DELETE FROM fleet_effects WHERE seq = ?1",
        "DELETE FROM fleet_attempts WHERE seq = ?1",
        "DELETE FROM fleet_payloads WHERE seq = ?1",
        "DELETE FROM fleet_steps WHERE seq = ?1",
    ] {
        conn.prepare_cached(statement)?.execute([seq])?;
    }
    Ok(())
}
