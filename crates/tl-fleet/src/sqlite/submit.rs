//! Steps come in.

use rusqlite::{Connection, OptionalExtension, params};
use tl_core::fleet::rank;
use tl_types::UnixMs;

use super::fault::Fault;
use super::rows::{self, int, step_id, step_state};
use crate::ids::StepId;
use crate::step::{NewStep, RunAt, StepState, Submitted};

const INSERT: &str = "
    INSERT INTO fleet_steps (id, kind, state, priority, rank, run_at, attempts_max, timeout_ms,
        unique_key, unique_until, unique_slot, created_at, updated_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?9, ?11, ?11)
    ON CONFLICT DO NOTHING";

/// Stores one step, or finds the one that stands in its place.
pub(super) fn submit(conn: &Connection, wall: UnixMs, step: &NewStep) -> Result<Submitted, Fault> {
    let (state, run_at) = match step.run_at {
        RunAt::InMs(ms) if ms > 0 => (StepState::Scheduled, UnixMs(wall.0.saturating_add(ms))),
        RunAt::At(at) if at > wall => (StepState::Scheduled, at),
        RunAt::Now | RunAt::InMs(_) | RunAt::At(_) => (StepState::Pending, wall),
    };
    let inserted = conn.prepare_cached(INSERT)?.execute(params![
        rows::id_text(&step.id),
        step.kind.as_str(),
        state.number(),
        step.priority,
        rank(run_at, step.priority),
        int(run_at.0),
        step.attempts_max,
        step.timeout_ms.map(int),
        step.unique.as_ref().map(|unique| unique.key.as_str()),
        step.unique.as_ref().map(|unique| unique.until.number()),
        int(wall.0),
    ])?;
    if inserted == 0 {
        return standing(conn, step);
    }
    let seq = conn.last_insert_rowid();
    conn.prepare_cached("INSERT INTO fleet_payloads (seq, args, metadata) VALUES (?1, ?2, ?3)")?
        .execute(params![seq, step.args.as_str(), step.metadata.as_str()])?;
    Ok(Submitted { id: step.id, state, deduped: false, differs: false })
}

const STANDING: &str = "
    SELECT id, state, kind = ?1 AND args = ?2
    FROM fleet_steps JOIN fleet_payloads USING (seq)";

/// The step that holds the id, or else the unique key.
fn standing(conn: &Connection, step: &NewStep) -> Result<Submitted, Fault> {
    let find = |condition: &str, key: &str| -> Result<Option<Submitted>, Fault> {
        let mut found = conn.prepare_cached(&format!("{STANDING} WHERE {condition}"))?;
        let row = found
            .query_row(params![step.kind.as_str(), step.args.as_str(), key], |row| {
                Ok((row.get::<_, String>(0)?, row.get(1)?, row.get::<_, bool>(2)?))
            })
            .optional()?;
        row.map(|(id, state, alike)| {
            let (id, state) = (step_id(&id)?, step_state(state)?);
            Ok(Submitted { id, state, deduped: true, differs: !alike })
        })
        .transpose()
    };
    if let Some(found) = find("id = ?3", &rows::id_text(&step.id))? {
        return Ok(found);
    }
    let key = step.unique.as_ref().map(|unique| unique.key.as_str());
    match find("unique_slot = ?3", key.unwrap_or(""))? {
        Some(found) => Ok(found),
        None => Err(Fault::unreadable("a submission that neither went in nor was there")),
    }
}

/// Who holds a unique key now.
pub(super) fn holder_of(conn: &Connection, key: &str) -> Result<Option<StepId>, Fault> {
    let mut found = conn.prepare_cached("SELECT id FROM fleet_steps WHERE unique_slot = ?1")?;
    let id: Option<String> = found.query_row([key], |row| row.get(0)).optional()?;
    id.as_deref().map(step_id).transpose()
}
