//! People look at steps.

use rusqlite::{OptionalExtension, Row, params};
use tl_core::fleet::PRIORITY_AGEING_MS;

use super::fault::Fault;
use super::rows::{self, STEP_COLUMNS, uint, wall};
use super::worker::Tx;
use crate::ids::StepId;
use crate::json::JsonText;
use crate::limits::{
    ATTEMPTS_SHOWN_MAX, COUNTS_GROUPS_MAX, LIST_ROWS_EXAMINED_MAX, PAGE_BYTES_MAX,
};
use crate::list::{Counts, KindCount, Page, PageRequest, PageToken, StepFilter};
use crate::recover::DeadLetter;
use crate::step::{AttemptEnd, AttemptRecord, Kind, Step, StepState};

pub(super) fn step(tx: &Tx<'_>, id: &StepId) -> Result<Option<Step>, Fault> {
    let mut found = tx.conn.prepare_cached(&format!(
        "SELECT {STEP_COLUMNS} FROM fleet_steps JOIN fleet_payloads USING (seq) WHERE id = ?1"
    ))?;
    let mut found = found.query([rows::id_text(id)])?;
    match found.next()? {
        Some(row) => Ok(Some(rows::step(row)?.1)),
        None => Ok(None),
    }
}

/// Attempts that did not complete the step, then the one that is under way or did.
pub(super) fn attempts(tx: &Tx<'_>, id: &StepId) -> Result<Vec<AttemptRecord>, Fault> {
    let mut ended = tx.conn.prepare_cached(
        "SELECT attempt, pod, claimed_at, ended_at, ended, error FROM fleet_attempts
         WHERE seq = (SELECT seq FROM fleet_steps WHERE id = ?1) ORDER BY attempt DESC LIMIT ?2",
    )?;
    let mut found = ended.query(params![rows::id_text(id), rows::count(ATTEMPTS_SHOWN_MAX)])?;
    let mut attempts = Vec::new();
    while let Some(row) = found.next()? {
        attempts.push(rows::attempt(row)?);
    }
    attempts.reverse();
    let mut last = tx.conn.prepare_cached(&format!(
        "SELECT attempt, claimed_by, claimed_at, finished_at,
                CASE state WHEN 2 THEN {} ELSE {} END, NULL
         FROM fleet_steps WHERE id = ?1 AND state IN (2, 3)",
        AttemptEnd::Open.number(),
        AttemptEnd::Completed.number(),
    ))?;
    let mut found = last.query([rows::id_text(id)])?;
    if let Some(row) = found.next()? {
        attempts.push(rows::attempt(row)?);
    }
    let over = attempts.len().saturating_sub(ATTEMPTS_SHOWN_MAX);
    attempts.drain(..over);
    Ok(attempts)
}

/// A token is the place after the last row looked at.
fn place(page: &PageRequest) -> Option<i64> {
    page.after.as_ref().map_or(Some(i64::MAX), |token| token.0.parse().ok())
}

pub(super) fn is_token(page: &PageRequest) -> bool {
    place(page).is_some_and(|place| place > 0)
}

/// Looks at small rows first, and into payloads only of those that pass so far.
pub(super) fn list(
    tx: &Tx<'_>,
    filter: &StepFilter,
    page: &PageRequest,
) -> Result<Page<Step>, Fault> {
    let named = if filter.unique_key.is_some() { "unique_key = ?2" } else { "?2 IS NULL" };
    let mut rows = tx.conn.prepare_cached(&format!(
        "SELECT seq, state, kind, claimed_by, created_at FROM fleet_steps
         WHERE seq < ?1 AND {named} ORDER BY seq DESC LIMIT ?3"
    ))?;
    let before = place(page).unwrap_or(i64::MAX);
    let examined_max = rows::count(LIST_ROWS_EXAMINED_MAX + 1);
    let mut rows = rows.query(params![before, filter.unique_key, examined_max])?;
    let (mut items, mut bytes, mut examined, mut last) = (Vec::new(), 0, 0, before);
    while let Some(row) = rows.next()? {
        let full = items.len() == page.limit || bytes >= PAGE_BYTES_MAX;
        if full || examined == LIST_ROWS_EXAMINED_MAX {
            return Ok(Page { items, next: Some(PageToken(last.to_string())) });
        }
        examined += 1;
        last = row.get(0)?;
        if passes_small(filter, row)?
            && let Some(step) = step_at(tx, last)?
        {
            bytes += step_bytes(&step);
            if filter.passes(&step) {
                items.push(step);
            }
        }
    }
    Ok(Page { items, next: None })
}

/// What the columns of the small row can tell.
fn passes_small(filter: &StepFilter, row: &Row<'_>) -> Result<bool, Fault> {
    let text = |index| -> Result<Option<&str>, Fault> {
        Ok(row.get_ref(index)?.as_str_or_null().map_err(rusqlite::Error::from)?)
    };
    let state = rows::step_state(row.get(1)?)?;
    let created_at = wall(row.get(4)?);
    Ok((filter.states.is_empty() || filter.states.contains(&state))
        && filter.created_from.is_none_or(|from| created_at >= from)
        && filter.created_before.is_none_or(|before| created_at < before)
        && match &filter.kind {
            Some(kind) => text(2)? == Some(kind.as_str()),
            None => true,
        }
        && match &filter.pod {
            Some(pod) => text(3)? == Some(pod.as_str()),
            None => true,
        })
}

fn step_at(tx: &Tx<'_>, seq: i64) -> Result<Option<Step>, Fault> {
    let mut found = tx.conn.prepare_cached(&format!(
        "SELECT {STEP_COLUMNS} FROM fleet_steps JOIN fleet_payloads USING (seq) WHERE seq = ?1"
    ))?;
    let mut found = found.query([seq])?;
    match found.next()? {
        Some(row) => Ok(Some(rows::step(row)?.1)),
        None => Ok(None),
    }
}

fn step_bytes(step: &Step) -> usize {
    let result = step.result.as_ref().map_or(0, JsonText::len_bytes);
    step.args.len_bytes() + step.metadata.len_bytes() + result
}

pub(super) fn dead_letters(
    tx: &Tx<'_>,
    redriven: bool,
    page: &PageRequest,
) -> Result<Page<DeadLetter>, Fault> {
    let mut statement = tx.conn.prepare_cached(
        "SELECT number, id, dead.attempt, kind, reason, error, pod, died_at, redriven_at
         FROM fleet_dead_letters AS dead JOIN fleet_steps USING (seq)
         WHERE number < ?1 AND (?2 OR redriven_at IS NULL)
         ORDER BY number DESC LIMIT ?3",
    )?;
    let before = place(page).unwrap_or(i64::MAX);
    let mut found = statement.query(params![before, redriven, rows::count(page.limit + 1)])?;
    let (mut items, mut last) = (Vec::new(), 0);
    while let Some(row) = found.next()? {
        if items.len() == page.limit {
            return Ok(Page { items, next: Some(PageToken(last.to_string())) });
        }
        let (number, letter) = rows::dead_letter(row)?;
        last = number;
        items.push(letter);
    }
    Ok(Page { items, next: None })
}

pub(super) fn counts(tx: &Tx<'_>) -> Result<Counts, Fault> {
    let mut counts = Counts::default();
    let total = |state: StepState| -> Result<u64, Fault> {
        let mut found =
            tx.conn.prepare_cached("SELECT steps FROM fleet_totals WHERE state = ?1")?;
        let steps: Option<i64> = found.query_row([state.number()], |row| row.get(0)).optional()?;
        Ok(uint(steps.unwrap_or(0)))
    };
    counts.completed = total(StepState::Completed)?;
    counts.failed = total(StepState::Failed)?;
    counts.cancelled = total(StepState::Cancelled)?;
    count_pending(tx, &mut counts)?;
    count_others(tx, &mut counts)?;
    counts.by_kind.sort_by(|one, other| one.kind.cmp(&other.kind));
    Ok(counts)
}

/// From the index alone: it holds the priority, and the rank tells since when a step is ready.
fn count_pending(tx: &Tx<'_>, counts: &mut Counts) -> Result<(), Fault> {
    let mut by_kind = tx.conn.prepare_cached(&format!(
        "SELECT kind, count(*), min(rank + priority * {PRIORITY_AGEING_MS}) FROM fleet_steps
         WHERE state = 1 GROUP BY kind"
    ))?;
    let mut found = by_kind.query([])?;
    while let Some(row) = found.next()? {
        let pending = uint(row.get(1)?);
        counts.pending += pending;
        if counts.by_kind.len() == COUNTS_GROUPS_MAX {
            continue;
        }
        counts.by_kind.push(KindCount {
            kind: Kind::new(row.get::<_, String>(0)?)?,
            scheduled: 0,
            pending,
            claimed: 0,
            oldest_pending: Some(wall(row.get(2)?)),
        });
    }
    let mut by_priority = tx.conn.prepare_cached(
        "SELECT priority, count(*) FROM fleet_steps WHERE state = 1
         GROUP BY priority ORDER BY priority DESC LIMIT ?1",
    )?;
    let rows = by_priority.query_map([rows::count(COUNTS_GROUPS_MAX)], |row| {
        Ok((row.get(0)?, row.get::<_, i64>(1)?))
    })?;
    for row in rows {
        let (priority, steps) = row?;
        counts.pending_by_priority.push((priority, uint(steps)));
    }
    Ok(())
}

fn count_others(tx: &Tx<'_>, counts: &mut Counts) -> Result<(), Fault> {
    by_kind(
        tx,
        "SELECT kind, count(*) FROM fleet_steps WHERE state = 0 GROUP BY kind",
        |kind, steps| {
            counts.scheduled += steps;
            if let Some(count) = count_of(&mut counts.by_kind, kind) {
                count.scheduled = steps;
            }
        },
    )?;
    by_kind(
        tx,
        "SELECT kind, count(*) FROM fleet_steps WHERE state = 2 GROUP BY kind",
        |kind, steps| {
            counts.claimed += steps;
            if let Some(count) = count_of(&mut counts.by_kind, kind) {
                count.claimed = steps;
            }
        },
    )
}

/// Gives row by row, for there may be any number of kinds.
fn by_kind(tx: &Tx<'_>, sql: &str, mut count: impl FnMut(Kind, u64)) -> Result<(), Fault> {
    let mut found = tx.conn.prepare_cached(sql)?;
    let mut found = found.query([])?;
    while let Some(row) = found.next()? {
        count(Kind::new(row.get::<_, String>(0)?)?, uint(row.get(1)?));
    }
    Ok(())
}

/// The count of a kind, new when it is not there; nothing past the limit.
fn count_of(counts: &mut Vec<KindCount>, kind: Kind) -> Option<&mut KindCount> {
    if let Some(place) = counts.iter().position(|count| count.kind == kind) {
        return counts.get_mut(place);
    }
    if counts.len() == COUNTS_GROUPS_MAX {
        return None;
    }
    counts.push(KindCount { kind, scheduled: 0, pending: 0, claimed: 0, oldest_pending: None });
    counts.last_mut()
}
