//! People look at steps, call them off and put them back.

use std::collections::HashMap;

use uuid::Uuid;

use super::fault::{Call, unreadable};
use super::pool::Pool;
use super::rows::{self, get, int, small, step_columns, timed, uint, wall};
use crate::error::StoreError;
use crate::ids::StepId;
use crate::limits::{
    ATTEMPTS_SHOWN_MAX, COUNTS_GROUPS_MAX, LIST_ROWS_EXAMINED_MAX, PAGE_BYTES_MAX,
};
use crate::list::{Counts, KindCount, Page, PageRequest, PageToken, StepFilter};
use crate::recover::{Cancelled, DeadLetter, Redriven};
use crate::step::{AttemptRecord, Step, StepState};
use crate::time::Timed;

const STEPS: &str = concat!(
    "SELECT clock.now, s.* FROM (SELECT @fleet_clock() AS now) AS clock LEFT JOIN (
       SELECT ",
    step_columns!(hot),
    " FROM @fleet_steps WHERE id = ANY ($1) UNION ALL SELECT ",
    step_columns!(finished),
    " FROM @fleet_finished WHERE id = ANY ($1)) AS s ON true"
);

pub(super) async fn steps(
    pool: &Pool,
    ids: &[StepId],
) -> Result<Timed<Vec<Option<Step>>>, StoreError> {
    let wanted: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let found = pool.rows(Call::Read, STEPS, &[&wanted]).await?;
    let mut by_id = HashMap::new();
    for row in &found {
        if get::<Option<i64>>(row, 1)?.is_some() {
            let (_, step) = rows::step(row)?;
            by_id.insert(step.id, step);
        }
    }
    timed(&found, ids.iter().map(|id| by_id.get(id).cloned()).collect())
}

/// Attempts that did not complete the step, then the one that is under way or did.
const ATTEMPTS: &str = "
    WITH it AS (
      SELECT seq, attempt, claimed_by, claimed_at, NULL::bigint AS ended_at, 0::smallint AS ended
        FROM @fleet_steps WHERE id = $1 AND state = 2
      UNION ALL
      SELECT seq, attempt, claimed_by, claimed_at, finished_at, 1::smallint
        FROM @fleet_finished WHERE id = $1 AND state = 3),
    its AS (SELECT seq FROM @fleet_steps WHERE id = $1
            UNION ALL SELECT seq FROM @fleet_finished WHERE id = $1)
    SELECT clock.now, a.* FROM (SELECT @fleet_clock() AS now) AS clock LEFT JOIN (
      SELECT attempt, pod, claimed_at, ended_at, ended, error
        FROM @fleet_attempts WHERE seq = (SELECT seq FROM its LIMIT 1)
      UNION ALL
      SELECT attempt, claimed_by, claimed_at, ended_at, ended, NULL FROM it
      ORDER BY attempt DESC LIMIT $2) AS a ON true
    ORDER BY a.attempt";

pub(super) async fn attempts(
    pool: &Pool,
    id: &StepId,
) -> Result<Timed<Vec<AttemptRecord>>, StoreError> {
    let limit = i64::from(small(ATTEMPTS_SHOWN_MAX));
    let found = pool.rows(Call::Read, ATTEMPTS, &[&id.0, &limit]).await?;
    let mut attempts = Vec::new();
    for row in &found {
        if get::<Option<i64>>(row, 1)?.is_some() {
            attempts.push(rows::attempt(row)?);
        }
    }
    timed(&found, attempts)
}

/// A token is the place after the last row looked at.
fn place(page: &PageRequest) -> Option<i64> {
    page.after.as_ref().map_or(Some(i64::MAX), |token| token.0.parse().ok())
}

pub(super) fn is_token(page: &PageRequest) -> bool {
    place(page).is_some_and(|place| place > 0)
}

/// `$1` place, `$2` rows looked at, `$3` rows wished for and one, `$4` bytes of a page, then the
/// filter. `edge` is the first row that is not looked at; a search looks at no more bytes than a
/// page has. Both tables are read by `seq`, newest
/// first, and no further than needed; a row is fetched whole only when it is on the page.
/// `$narrow` is what an index tells.
macro_rules! list_sql {
    ($narrow:literal) => {
        concat!(
            "WITH clock AS MATERIALIZED (SELECT @fleet_clock() AS now),
             edge AS MATERIALIZED (
               SELECT CASE WHEN $10::text IS NULL THEN (
                 SELECT seq FROM (
                   SELECT seq FROM @fleet_steps WHERE seq < $1",
            $narrow,
            "      UNION ALL
                   SELECT seq FROM @fleet_finished WHERE seq < $1",
            $narrow,
            "    ) AS u ORDER BY seq DESC OFFSET $2 LIMIT 1)
               ELSE (
                 SELECT max(seq) FROM (
                   SELECT seq, row_number() OVER (ORDER BY seq DESC) AS nth,
                          sum(bytes) OVER (ORDER BY seq DESC) - bytes AS before
                   FROM (SELECT * FROM (
                     SELECT seq, octet_length(args) + octet_length(metadata) AS bytes
                       FROM @fleet_steps WHERE seq < $1",
            $narrow,
            "        UNION ALL
                     SELECT seq, octet_length(args) + octet_length(metadata)
                       FROM @fleet_finished WHERE seq < $1",
            $narrow,
            "      ) AS u ORDER BY seq DESC LIMIT $2 + 1) AS l) AS w
                 WHERE nth > $2 OR before >= $4)
               END AS seq),
             picked AS MATERIALIZED (
               SELECT u.seq, octet_length(u.args) + octet_length(u.metadata)
                             + coalesce(octet_length(u.result), 0) AS bytes
               FROM (
                 SELECT ",
            step_columns!(hot),
            "    FROM @fleet_steps WHERE seq < $1",
            $narrow,
            "    UNION ALL SELECT ",
            step_columns!(finished),
            "    FROM @fleet_finished WHERE seq < $1",
            $narrow,
            "  ) AS u
               WHERE u.seq > coalesce((SELECT edge.seq FROM edge), 0)
                 AND ($5::smallint[] IS NULL OR u.state = ANY ($5))
                 AND ($6::text IS NULL OR u.kind = $6)
                 AND ($7::text IS NULL OR u.claimed_by = $7)
                 AND ($8::bigint IS NULL OR u.created_at >= $8)
                 AND ($9::bigint IS NULL OR u.created_at < $9)
                 AND ($10::text IS NULL OR strpos(u.args, $10) > 0 OR strpos(u.metadata, $10) > 0)
               ORDER BY u.seq DESC LIMIT $3),
             kept AS (
               SELECT array_agg(p.seq) AS seqs FROM (
                 SELECT seq, sum(bytes) OVER (ORDER BY seq DESC) - bytes AS before,
                        row_number() OVER (ORDER BY seq DESC) AS nth FROM picked) AS p
               WHERE p.nth < $3 AND p.before < $4)
             SELECT clock.now, s.*, edge.seq, (SELECT count(*) FROM picked)
             FROM clock CROSS JOIN edge LEFT JOIN (
               SELECT ",
            step_columns!(hot),
            "  FROM @fleet_steps WHERE seq = ANY ((SELECT seqs FROM kept)::bigint[])
               UNION ALL SELECT ",
            step_columns!(finished),
            "  FROM @fleet_finished WHERE seq = ANY ((SELECT seqs FROM kept)::bigint[])
             ) AS s ON true
             ORDER BY s.seq DESC"
        )
    };
}
const LIST: &str = list_sql!("");
const LIST_NAMED: &str = list_sql!(" AND unique_key = $11");

pub(super) async fn list(
    pool: &Pool,
    filter: &StepFilter,
    page: &PageRequest,
) -> Result<Timed<Page<Step>>, StoreError> {
    let before = place(page).unwrap_or(i64::MAX);
    let examined = int(LIST_ROWS_EXAMINED_MAX as u64);
    let (wished, bytes) = (int(page.limit as u64 + 1), int(PAGE_BYTES_MAX as u64));
    let states: Vec<i16> = filter.states.iter().map(|state| state.number()).collect();
    let states = (!states.is_empty()).then_some(states);
    let kind = filter.kind.as_ref().map(crate::step::Kind::as_str);
    let pod = filter.pod.as_ref().map(crate::ids::PodId::as_str);
    let (from, until) =
        (filter.created_from.map(|at| int(at.0)), filter.created_before.map(|at| int(at.0)));
    // Postgres' text has no zero byte; neither has valid JSON, nor any other control character,
    // so this finds as little.
    let contains = filter.contains.as_ref().map(|text| text.replace('\0', "\u{1}"));
    // No key is empty.
    let key = filter.unique_key.as_deref().map(|key| if key.contains('\0') { "" } else { key });
    let mut params: Vec<&(dyn tokio_postgres::types::ToSql + Sync)> =
        vec![&before, &examined, &wished, &bytes, &states, &kind, &pod, &from, &until, &contains];
    let found = match &key {
        None => pool.rows(Call::Read, LIST, &params).await?,
        Some(key) => {
            params.push(key);
            pool.rows(Call::Read, LIST_NAMED, &params).await?
        }
    };
    let (mut items, mut last) = (Vec::new(), 0);
    for row in &found {
        if get::<Option<i64>>(row, 1)?.is_some() {
            let (seq, step) = rows::step(row)?;
            last = seq;
            items.push(step);
        }
    }
    let first = found.first().ok_or_else(|| unreadable("a page without its edge"))?;
    let (edge, picked) = (get::<Option<i64>>(first, 24)?, uint(get(first, 25)?));
    let next = if picked > items.len() as u64 {
        Some(PageToken(i64::to_string(&last)))
    } else {
        edge.map(|edge| PageToken((edge + 1).to_string()))
    };
    timed(&found, Page { items, next })
}

const DEAD_LETTERS: &str = "
    SELECT clock.now, d.* FROM (SELECT @fleet_clock() AS now) AS clock LEFT JOIN (
      SELECT number, id, attempt, kind, reason, error, pod, died_at, redriven_at
      FROM @fleet_dead_letters WHERE number < $1 AND ($2 OR redriven_at IS NULL)
      ORDER BY number DESC LIMIT $3) AS d ON true
    ORDER BY d.number DESC";

pub(super) async fn dead_letters(
    pool: &Pool,
    redriven: bool,
    page: &PageRequest,
) -> Result<Timed<Page<DeadLetter>>, StoreError> {
    let before = place(page).unwrap_or(i64::MAX);
    let wished = int(page.limit as u64 + 1);
    let found = pool.rows(Call::Read, DEAD_LETTERS, &[&before, &redriven, &wished]).await?;
    let (mut items, mut last, mut next) = (Vec::new(), 0, None);
    for row in &found {
        if get::<Option<i64>>(row, 1)?.is_none() {
            continue;
        }
        if items.len() == page.limit {
            next = Some(PageToken(i64::to_string(&last)));
            break;
        }
        let (number, letter) = rows::dead_letter(row)?;
        last = number;
        items.push(letter);
    }
    timed(&found, Page { items, next })
}

/// Rows of three sorts: totals of finished ones, unfinished ones by kind and state, pending ones
/// by priority. A rank tells since when a step is ready.
const COUNTS: &str = "
    SELECT @fleet_clock(), t.* FROM (
      SELECT 0 AS sort, NULL::text AS kind, NULL::bigint AS word, 0::bigint AS steps,
             NULL::bigint AS since
      UNION ALL
      SELECT 1, NULL, state, sum(steps)::bigint, NULL FROM @fleet_totals GROUP BY state
      UNION ALL
      SELECT 2, kind, state, count(*), min(rank + priority::bigint * 60000)
        FROM @fleet_steps GROUP BY kind, state
      UNION ALL
      (SELECT 3, NULL, priority, count(*), NULL FROM @fleet_steps WHERE state = 1
       GROUP BY priority ORDER BY priority DESC LIMIT $1)
    ) AS t ORDER BY t.sort, t.kind COLLATE \"C\", t.word DESC";

pub(super) async fn counts(pool: &Pool) -> Result<Timed<Counts>, StoreError> {
    let groups = int(COUNTS_GROUPS_MAX as u64);
    let found = pool.rows(Call::Read, COUNTS, &[&groups]).await?;
    let mut counts = Counts::default();
    for row in &found {
        let steps = uint(get(row, 4)?);
        match get::<i32>(row, 1)? {
            1 => match StepState::from_number(get(row, 3)?) {
                Some(StepState::Completed) => counts.completed = steps,
                Some(StepState::Failed) => counts.failed = steps,
                Some(StepState::Cancelled) => counts.cancelled = steps,
                Some(StepState::Scheduled | StepState::Pending | StepState::Claimed) | None => {
                    return Err(unreadable("fleet_totals.state"));
                }
            },
            2 => count_unfinished(&mut counts, row, steps)?,
            3 => {
                let priority = i32::try_from(get::<i64>(row, 3)?).unwrap_or(0);
                counts.pending_by_priority.push((priority, steps));
            }
            _ => {}
        }
    }
    counts.by_kind.truncate(COUNTS_GROUPS_MAX);
    timed(&found, counts)
}

/// Rows come by kind, so the kind is the last one or a new one.
fn count_unfinished(
    counts: &mut Counts,
    row: &tokio_postgres::Row,
    steps: u64,
) -> Result<(), StoreError> {
    let kind = rows::kind(row, 2)?;
    if counts.by_kind.last().is_none_or(|last| last.kind != kind) {
        counts.by_kind.push(KindCount {
            kind,
            scheduled: 0,
            pending: 0,
            claimed: 0,
            oldest_pending: None,
        });
    }
    let of_kind = counts.by_kind.last_mut().expect("just pushed if it was not there");
    match StepState::from_number(get(row, 3)?) {
        Some(StepState::Scheduled) => {
            of_kind.scheduled = steps;
            counts.scheduled += steps;
        }
        Some(StepState::Pending) => {
            of_kind.pending = steps;
            of_kind.oldest_pending = get::<Option<i64>>(row, 5)?.map(wall);
            counts.pending += steps;
        }
        Some(StepState::Claimed) => {
            of_kind.claimed = steps;
            counts.claimed += steps;
        }
        Some(StepState::Completed | StepState::Failed | StepState::Cancelled) | None => {
            return Err(unreadable("fleet_steps.state"));
        }
    }
    Ok(())
}

/// The item that a row speaks of; the database counts from 1.
fn put<T>(items: &mut [T], row: &tokio_postgres::Row, value: T) -> Result<(), StoreError> {
    let number = uint(get(row, 1)?);
    let place = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
    let place = place
        .and_then(|place| items.get_mut(place))
        .ok_or_else(|| unreadable("the number of an item"))?;
    *place = value;
    Ok(())
}

pub(super) async fn cancel(
    pool: &Pool,
    ids: &[StepId],
) -> Result<Timed<Vec<Cancelled>>, StoreError> {
    let wanted: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let found = pool.rows(Call::Write, "SELECT * FROM @fleet_cancel($1)", &[&wanted]).await?;
    let answer = timed(&found, ())?;
    let mut all = vec![Cancelled::NotFound; ids.len()];
    for row in &found[1..] {
        let cancelled = match get::<i16>(row, 2)? {
            1 => Cancelled::Now,
            2 => Cancelled::Asked,
            3 => Cancelled::Finished(rows::state(row, 3)?),
            _ => Cancelled::NotFound,
        };
        put(&mut all, row, cancelled)?;
    }
    Ok(answer.map(|()| all))
}

pub(super) async fn redrive(
    pool: &Pool,
    ids: &[StepId],
) -> Result<Timed<Vec<Redriven>>, StoreError> {
    let wanted: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let found = pool.rows(Call::Write, "SELECT * FROM @fleet_redrive($1)", &[&wanted]).await?;
    let answer = timed(&found, ())?;
    let mut all = vec![Redriven::NotFound; ids.len()];
    for row in &found[1..] {
        let redriven = match get::<i16>(row, 2)? {
            1 => Redriven::Now,
            2 => Redriven::NotNow(rows::state(row, 3)?),
            3 => Redriven::KeyTaken(StepId(get(row, 4)?)),
            _ => Redriven::NotFound,
        };
        put(&mut all, row, redriven)?;
    }
    Ok(answer.map(|()| all))
}
