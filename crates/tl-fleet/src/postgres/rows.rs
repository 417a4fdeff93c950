//! Rows to values and back. Numbers are unsigned in the program and signed in Postgres.

use tl_types::UnixMs;
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;
use uuid::Uuid;

use super::fault::{unreadable, wrong_name, wrong_type};
use crate::error::StoreError;
use crate::ids::{Attempt, Incarnation, PodId, PodLife, StepId};
use crate::json::JsonText;
use crate::pods::{Pod, PodState};
use crate::recover::{DeadLetter, DeadReason};
use crate::step::{AttemptEnd, AttemptRecord, Kind, Step, StepState, Unique, UniqueUntil};
use crate::time::{StoreTime, Timed};

/// Furthest instant that is kept, so that what is worked out from it does not overflow.
const INSTANT_MAX: i64 = 1 << 62;

pub(super) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX).min(INSTANT_MAX)
}

/// A number that was held to its limit before.
pub(super) fn small(value: usize) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

pub(super) fn uint(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

pub(super) fn count(value: i32) -> u32 {
    u32::try_from(value).unwrap_or(0)
}

fn count_wide(value: i64) -> u32 {
    u32::try_from(value).unwrap_or(if value < 0 { 0 } else { u32::MAX })
}

pub(super) fn get<'a, T: FromSql<'a>>(row: &'a Row, column: usize) -> Result<T, StoreError> {
    row.try_get(column).map_err(wrong_type)
}

pub(super) fn wall(value: i64) -> UnixMs {
    UnixMs(uint(value))
}

/// Column 0 of every first row is the store's time; it is the calendar's too.
pub(super) fn timed<T>(rows: &[Row], value: T) -> Result<Timed<T>, StoreError> {
    let first = rows.first().ok_or_else(|| unreadable("an answer without its time"))?;
    let at: i64 = get(first, 0)?;
    Ok(Timed { value, at: StoreTime(uint(at)), wall: wall(at) })
}

pub(super) fn kind(row: &Row, column: usize) -> Result<Kind, StoreError> {
    Kind::new(get::<&str>(row, column)?).map_err(wrong_name)
}

pub(super) fn pod_id(row: &Row, column: usize) -> Result<PodId, StoreError> {
    PodId::new(get::<&str>(row, column)?).map_err(wrong_name)
}

pub(super) fn json(row: &Row, column: usize) -> Result<JsonText, StoreError> {
    Ok(JsonText::from_store(get(row, column)?))
}

pub(super) fn state(row: &Row, column: usize) -> Result<StepState, StoreError> {
    StepState::from_number(get::<i16>(row, column)?.into())
        .ok_or_else(|| unreadable("the state of a step"))
}

/// The item that a row speaks of; the database counts from 1.
pub(super) fn item<'a, T>(
    items: &'a mut [T],
    row: &Row,
    column: usize,
) -> Result<&'a mut T, StoreError> {
    let place = place(row, column)?;
    items.get_mut(place).ok_or_else(|| unreadable("the number of an item"))
}

/// The place of the item that a row speaks of; the database counts from 1.
pub(super) fn place(row: &Row, column: usize) -> Result<usize, StoreError> {
    let number = uint(get(row, column)?);
    let place = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
    place.ok_or_else(|| unreadable("the number of an item"))
}

/// The columns of a step, alike for both tables; `@@` are those that only one of them has.
macro_rules! step_columns {
    (hot) => {
        "seq, id, kind, state, priority, run_at, attempt, charged, attempts_max, timeout_ms,
         claimed_by, lease_until, cancel_asked, progress, unique_key, unique_until,
         NULL::text AS result, last_error, created_at, updated_at, NULL::bigint AS finished_at,
         args, metadata"
    };
    (finished) => {
        "seq, id, kind, state, priority, run_at, attempt, charged, attempts_max, timeout_ms,
         claimed_by, NULL::bigint AS lease_until, cancel_asked, progress, unique_key,
         unique_until, result, last_error, created_at, updated_at, finished_at, args, metadata"
    };
}
pub(super) use step_columns;

/// A step from the columns above, behind the store's time, with its place in the order of
/// submission.
pub(super) fn step(row: &Row) -> Result<(i64, Step), StoreError> {
    let unique = match (get::<Option<String>>(row, 15)?, get::<Option<i16>>(row, 16)?) {
        (Some(key), Some(until)) => {
            let until = UniqueUntil::from_number(until.into())
                .ok_or_else(|| unreadable("fleet_steps.unique_until"))?;
            Some(Unique { key, until })
        }
        (None, _) => None,
        (Some(_), None) => return Err(unreadable("fleet_steps.unique_until")),
    };
    let json_or =
        |column| Ok::<_, StoreError>(get::<Option<&str>>(row, column)?.map(JsonText::from_store));
    let step = Step {
        id: StepId(get::<Uuid>(row, 2)?),
        kind: kind(row, 3)?,
        state: state(row, 4)?,
        priority: get(row, 5)?,
        run_at: wall(get(row, 6)?),
        attempt: Attempt(uint(get(row, 7)?)),
        charged: count(get(row, 8)?),
        attempts_max: count(get(row, 9)?),
        timeout_ms: get::<Option<i64>>(row, 10)?.map(uint),
        claimed_by: match get::<Option<&str>>(row, 11)? {
            Some(name) => Some(PodId::new(name).map_err(wrong_name)?),
            None => None,
        },
        lease_until: get::<Option<i64>>(row, 12)?.map(|ms| StoreTime(uint(ms))),
        cancel_asked: get(row, 13)?,
        progress: json_or(14)?,
        unique,
        result: json_or(17)?,
        last_error: get(row, 18)?,
        created_at: wall(get(row, 19)?),
        updated_at: wall(get(row, 20)?),
        finished_at: get::<Option<i64>>(row, 21)?.map(wall),
        args: json(row, 22)?,
        metadata: json(row, 23)?,
    };
    Ok((get(row, 1)?, step))
}

/// From `at, attempt, pod, claimed_at, ended_at, ended, error`.
pub(super) fn attempt(row: &Row) -> Result<AttemptRecord, StoreError> {
    Ok(AttemptRecord {
        attempt: Attempt(uint(get(row, 1)?)),
        pod: pod_id(row, 2)?,
        claimed_at: wall(get(row, 3)?),
        ended_at: get::<Option<i64>>(row, 4)?.map(wall),
        end: AttemptEnd::from_number(get::<i16>(row, 5)?.into())
            .ok_or_else(|| unreadable("fleet_attempts.ended"))?,
        error: get(row, 6)?,
    })
}

/// From `at, number, id, attempt, kind, reason, error, pod, died_at, redriven_at`.
pub(super) fn dead_letter(row: &Row) -> Result<(i64, DeadLetter), StoreError> {
    let letter = DeadLetter {
        id: StepId(get(row, 2)?),
        attempt: Attempt(uint(get(row, 3)?)),
        kind: kind(row, 4)?,
        reason: DeadReason::from_number(get::<i16>(row, 5)?.into())
            .ok_or_else(|| unreadable("fleet_dead_letters.reason"))?,
        error: get(row, 6)?,
        pod: pod_id(row, 7)?,
        died_at: wall(get(row, 8)?),
        redriven_at: get::<Option<i64>>(row, 9)?.map(wall),
    };
    Ok((get(row, 1)?, letter))
}

/// A life from two columns.
pub(super) fn life(row: &Row, pod: usize, incarnation: usize) -> Result<PodLife, StoreError> {
    Ok(PodLife { pod: pod_id(row, pod)?, incarnation: Incarnation(uint(get(row, incarnation)?)) })
}

/// From `at, pod, incarnation, birth, heartbeat, lease_until, state, draining, capacity,
/// running, prefetched, kinds, meta`.
pub(super) fn pod(row: &Row) -> Result<Pod, StoreError> {
    let birth: i64 = get(row, 3)?;
    let kinds: Vec<String> = get(row, 11)?;
    Ok(Pod {
        life: life(row, 1, 2)?,
        birth: StoreTime(uint(birth)),
        birth_wall: wall(birth),
        heartbeat_wall: wall(get(row, 4)?),
        lease_until: StoreTime(uint(get(row, 5)?)),
        state: PodState::from_number(get::<i16>(row, 6)?.into())
            .ok_or_else(|| unreadable("fleet_pods.state"))?,
        draining: get(row, 7)?,
        capacity: count_wide(get(row, 8)?),
        running: count_wide(get(row, 9)?),
        prefetched: count_wide(get(row, 10)?),
        kinds: kinds.into_iter().map(Kind::new).collect::<Result<_, _>>().map_err(wrong_name)?,
        meta: json(row, 12)?,
    })
}
