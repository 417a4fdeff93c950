//! Rows to values and back. Numbers are unsigned in the program and signed in SQLite; what
//! cannot be in a row is a fault and not a panic.

use rusqlite::Row;
use tl_types::UnixMs;

use super::fault::Fault;
use crate::ids::{Attempt, ClaimToken, Incarnation, PodId, PodLife, StepId};
use crate::json::JsonText;
use crate::pods::{Pod, PodState};
use crate::recover::{DeadLetter, DeadReason};
use crate::step::{AttemptEnd, AttemptRecord, Kind, Step, StepState, Unique, UniqueUntil};
use crate::time::StoreTime;

/// Past the largest signed number an instant or a count stays at it.
pub(super) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A limit as SQLite takes it.
pub(super) fn count(items: usize) -> i64 {
    int(items as u64)
}

/// A negative number was never written; it reads as 0.
pub(super) fn uint(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

pub(super) fn id_text(id: &StepId) -> String {
    id.to_string()
}

pub(super) fn step_id(text: &str) -> Result<StepId, Fault> {
    Ok(text.parse()?)
}

pub(super) fn step_state(number: i64) -> Result<StepState, Fault> {
    StepState::from_number(number).ok_or(Fault::unreadable("fleet_steps.state"))
}

pub(super) fn token_bytes(token: &ClaimToken) -> [u8; 16] {
    *token.0.as_bytes()
}

pub(super) fn wall(value: i64) -> UnixMs {
    UnixMs(uint(value))
}

pub(super) const STEP_COLUMNS: &str = "
    seq, id, kind, state, priority, run_at, attempt, charged, attempts_max, timeout_ms,
    claimed_by, lease_until, cancel_asked, progress, unique_key, unique_until, result, last_error,
    created_at, updated_at, finished_at, args, metadata";

/// A step from [`STEP_COLUMNS`], with its place in the order of submission.
pub(super) fn step(row: &Row<'_>) -> Result<(i64, Step), Fault> {
    let text = |index| row.get::<_, Option<String>>(index);
    let number = |index| row.get::<_, i64>(index);
    let json = |index| Ok::<_, Fault>(text(index)?.as_deref().map(JsonText::from_store));
    let state = step_state(number(3)?)?;
    let unique = match (text(14)?, row.get::<_, Option<i64>>(15)?) {
        (Some(key), Some(until)) => {
            let until = UniqueUntil::from_number(until)
                .ok_or(Fault::unreadable("fleet_steps.unique_until"))?;
            Some(Unique { key, until })
        }
        (None, _) => None,
        (Some(_), None) => return Err(Fault::unreadable("fleet_steps.unique_until")),
    };
    let step = Step {
        id: step_id(&row.get::<_, String>(1)?)?,
        kind: Kind::new(row.get::<_, String>(2)?)?,
        args: JsonText::from_store(row.get_ref(21)?.as_str().map_err(rusqlite::Error::from)?),
        metadata: JsonText::from_store(row.get_ref(22)?.as_str().map_err(rusqlite::Error::from)?),
        state,
        priority: row.get(4)?,
        attempt: Attempt(uint(number(6)?)),
        charged: row.get(7)?,
        attempts_max: row.get(8)?,
        timeout_ms: row.get::<_, Option<i64>>(9)?.map(uint),
        run_at: wall(number(5)?),
        claimed_by: text(10)?.map(PodId::new).transpose()?,
        lease_until: row.get::<_, Option<i64>>(11)?.map(|ms| StoreTime(uint(ms))),
        cancel_asked: row.get(12)?,
        progress: json(13)?,
        unique,
        result: json(16)?,
        last_error: text(17)?,
        created_at: wall(number(18)?),
        updated_at: wall(number(19)?),
        finished_at: row.get::<_, Option<i64>>(20)?.map(wall),
    };
    Ok((number(0)?, step))
}

/// From `attempt, pod, claimed_at, ended_at, ended, error`.
pub(super) fn attempt(row: &Row<'_>) -> Result<AttemptRecord, Fault> {
    Ok(AttemptRecord {
        attempt: Attempt(uint(row.get(0)?)),
        pod: PodId::new(row.get::<_, String>(1)?)?,
        claimed_at: wall(row.get(2)?),
        ended_at: row.get::<_, Option<i64>>(3)?.map(wall),
        end: AttemptEnd::from_number(row.get(4)?)
            .ok_or(Fault::unreadable("fleet_attempts.ended"))?,
        error: row.get(5)?,
    })
}

/// From `number, id, attempt, kind, reason, error, pod, died_at, redriven_at`.
pub(super) fn dead_letter(row: &Row<'_>) -> Result<(i64, DeadLetter), Fault> {
    let letter = DeadLetter {
        id: step_id(&row.get::<_, String>(1)?)?,
        attempt: Attempt(uint(row.get(2)?)),
        kind: Kind::new(row.get::<_, String>(3)?)?,
        reason: DeadReason::from_number(row.get(4)?)
            .ok_or(Fault::unreadable("fleet_dead_letters.reason"))?,
        error: row.get(5)?,
        pod: PodId::new(row.get::<_, String>(6)?)?,
        died_at: wall(row.get(7)?),
        redriven_at: row.get::<_, Option<i64>>(8)?.map(wall),
    };
    Ok((row.get(0)?, letter))
}

pub(super) const POD_COLUMNS: &str = "
    pod, incarnation, birth, birth_wall, heartbeat_wall, lease_until, state, draining, capacity,
    running, prefetched, kinds, meta";

/// A pod from [`POD_COLUMNS`].
pub(super) fn pod(row: &Row<'_>) -> Result<Pod, Fault> {
    let kinds: Vec<String> = serde_json::from_str(&row.get::<_, String>(11)?)
        .map_err(|_| Fault::unreadable("fleet_pods.kinds"))?;
    Ok(Pod {
        life: PodLife {
            pod: PodId::new(row.get::<_, String>(0)?)?,
            incarnation: Incarnation(uint(row.get(1)?)),
        },
        birth: StoreTime(uint(row.get(2)?)),
        birth_wall: wall(row.get(3)?),
        heartbeat_wall: wall(row.get(4)?),
        lease_until: StoreTime(uint(row.get(5)?)),
        state: PodState::from_number(row.get(6)?).ok_or(Fault::unreadable("fleet_pods.state"))?,
        draining: row.get(7)?,
        capacity: row.get(8)?,
        running: row.get(9)?,
        prefetched: row.get(10)?,
        kinds: kinds.into_iter().map(Kind::new).collect::<Result<_, _>>()?,
        meta: JsonText::from_store(&row.get::<_, String>(12)?),
    })
}
