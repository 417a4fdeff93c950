//! People step in: calling off and putting back.

use rusqlite::{OptionalExtension, params};
use tl_core::fleet::rank;

use super::fault::Fault;
use super::finish::Totals;
use super::rows::{id_text, int, step_state};
use super::submit::holder_of;
use super::worker::Tx;
use crate::ids::StepId;
use crate::recover::{Cancelled, Redriven};
use crate::step::StepState;

pub(super) fn cancel(tx: &Tx<'_>, id: &StepId, totals: &mut Totals) -> Result<Cancelled, Fault> {
    let mut found = tx.conn.prepare_cached("SELECT seq, state FROM fleet_steps WHERE id = ?1")?;
    let row: Option<(i64, i64)> =
        found.query_row([id_text(id)], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let Some((seq, state)) = row else { return Ok(Cancelled::NotFound) };
    match step_state(state)? {
        StepState::Scheduled | StepState::Pending => {
            tx.conn
                .prepare_cached(
                    "UPDATE fleet_steps
                     SET state = 5, finished_at = ?2, updated_at = ?2,
                         unique_slot = CASE WHEN unique_until = 0 THEN NULL ELSE unique_slot END
                     WHERE seq = ?1",
                )?
                .execute(params![seq, int(tx.wall.0)])?;
            totals.add(StepState::Cancelled, 1);
            Ok(Cancelled::Now)
        }
        StepState::Claimed => {
            tx.conn
                .prepare_cached("UPDATE fleet_steps SET cancel_asked = 1 WHERE seq = ?1")?
                .execute([seq])?;
            Ok(Cancelled::Asked)
        }
        state @ (StepState::Completed | StepState::Failed | StepState::Cancelled) => {
            Ok(Cancelled::Finished(state))
        }
    }
}

pub(super) fn redrive(tx: &Tx<'_>, id: &StepId, totals: &mut Totals) -> Result<Redriven, Fault> {
    let mut found = tx
        .conn
        .prepare_cached("SELECT seq, state, priority, unique_key FROM fleet_steps WHERE id = ?1")?;
    let row: Option<(i64, i64, i32, Option<String>)> = found
        .query_row([id_text(id)], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
        .optional()?;
    let Some((seq, state, priority, key)) = row else { return Ok(Redriven::NotFound) };
    let state = step_state(state)?;
    match state {
        StepState::Failed | StepState::Cancelled | StepState::Scheduled => {}
        StepState::Pending | StepState::Claimed | StepState::Completed => {
            return Ok(Redriven::NotNow(state));
        }
    }
    if let Some(key) = &key
        && let Some(holder) = holder_of(tx.conn, key)?
        && holder != *id
    {
        return Ok(Redriven::KeyTaken(holder));
    }
    if state == StepState::Scheduled {
        tx.conn
            .prepare_cached(
                "UPDATE fleet_steps SET state = 1, run_at = ?2, rank = ?3, updated_at = ?2
                 WHERE seq = ?1",
            )?
            .execute(params![seq, int(tx.wall.0), rank(tx.wall, priority)])?;
        return Ok(Redriven::Now);
    }
    tx.conn
        .prepare_cached(
            "UPDATE fleet_steps
             SET state = 1, charged = 0, lost = 0, cancel_asked = 0, run_at = ?2, rank = ?3,
                 updated_at = ?2, finished_at = NULL, token = NULL, lease_until = NULL,
                 progress = NULL, unique_slot = unique_key
             WHERE seq = ?1",
        )?
        .execute(params![seq, int(tx.wall.0), rank(tx.wall, priority)])?;
    tx.conn
        .prepare_cached(
            "UPDATE fleet_dead_letters SET redriven_at = ?2
             WHERE seq = ?1 AND redriven_at IS NULL",
        )?
        .execute(params![seq, int(tx.wall.0)])?;
    totals.add(state, -1);
    Ok(Redriven::Now)
}
