//! Claims end.

use std::borrow::Cow;

use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::fault::{Call, unreadable};
use super::lane::{Freight, Weight};
use super::pool::Pool;
use super::rows::{self, get, int, timed, uint};
use crate::claim::{Finish, Finished, Outcome, cut_error};
use crate::error::StoreError;
use crate::step::StepState;
use crate::time::Timed;

/// For reports that all say that it went well.
const COMPLETE: &str = "SELECT * FROM @fleet_complete($1, $2, $3)";
/// For all others.
pub(super) const FINISH: &str = "SELECT * FROM @fleet_finish($1, $2, $3, $4, $5)";

/// The columns of a batch of reports, in the order of their ids: two batches that meet wait for
/// each other on one side only.
pub(super) struct FinishArrays<'a> {
    /// Where each stands in what the caller gave.
    places: Vec<usize>,
    ids: Vec<Uuid>,
    tokens: Vec<Uuid>,
    outcomes: Vec<i16>,
    texts: Vec<Option<Cow<'a, str>>>,
    waits_ms: Vec<i64>,
}

impl<'a> FinishArrays<'a> {
    pub(super) fn new(finishes: &[&'a Finish]) -> FinishArrays<'a> {
        let mut places: Vec<usize> = (0..finishes.len()).collect();
        // Stable: of two reports of one claim the first counts.
        places.sort_by_key(|place| finishes[*place].key.id);
        let mut arrays = FinishArrays {
            ids: Vec::with_capacity(finishes.len()),
            tokens: Vec::with_capacity(finishes.len()),
            outcomes: Vec::with_capacity(finishes.len()),
            texts: Vec::with_capacity(finishes.len()),
            waits_ms: Vec::with_capacity(finishes.len()),
            places: Vec::new(),
        };
        for finish in places.iter().map(|place| finishes[*place]) {
            let (outcome, text, wait_ms) = match &finish.outcome {
                Outcome::Completed { result } => (1, Some(Cow::Borrowed(result.as_str())), 0),
                Outcome::Failed { error, retry_in_ms } => {
                    (2, Some(Cow::Owned(cut_error(error))), int(*retry_in_ms))
                }
                Outcome::Fatal { error } => (3, Some(Cow::Owned(cut_error(error))), 0),
                Outcome::Cancelled => (4, None, 0),
                Outcome::Released => (5, None, 0),
            };
            arrays.ids.push(finish.key.id.0);
            arrays.tokens.push(finish.key.token.0);
            arrays.outcomes.push(outcome);
            arrays.texts.push(text);
            arrays.waits_ms.push(wait_ms);
        }
        FinishArrays { places, ..arrays }
    }

    pub(super) fn params(&self) -> [&(dyn ToSql + Sync); 5] {
        [&self.ids, &self.tokens, &self.outcomes, &self.texts, &self.waits_ms]
    }

    /// The statement that suits them.
    pub(super) fn statement(&self) -> (&'static str, Vec<&(dyn ToSql + Sync)>) {
        let [ids, tokens, _, results, _] = self.params();
        match self.are_all_well() {
            true => (COMPLETE, vec![ids, tokens, results]),
            false => (FINISH, self.params().to_vec()),
        }
    }

    /// Whether all say that it went well, each of another step.
    fn are_all_well(&self) -> bool {
        self.outcomes.iter().all(|outcome| *outcome == 1)
            && self.ids.windows(2).all(|pair| pair[0] != pair[1])
    }

    /// What that statement answered.
    pub(super) fn answer(
        &self,
        found: &[tokio_postgres::Row],
    ) -> Result<Timed<Vec<Finished>>, StoreError> {
        let answer = timed(found, ())?;
        let completed: Option<i64> = get(&found[0], 1)?;
        if completed.is_some_and(|completed| uint(completed) == self.ids.len() as u64) {
            let all = vec![Finished::Now(StepState::Completed); self.ids.len()];
            return Ok(answer.map(|()| all));
        }
        self.finished(found)
    }

    /// The answers in the order of the caller.
    pub(super) fn finished(
        &self,
        found: &[tokio_postgres::Row],
    ) -> Result<Timed<Vec<Finished>>, StoreError> {
        let answer = timed(found, ())?;
        let mut all = vec![Finished::Fenced; self.places.len()];
        for row in &found[1..] {
            // The database counts from 1.
            let number = usize::try_from(uint(get(row, 1)?)).unwrap_or(0);
            let place = number.checked_sub(1).and_then(|number| self.places.get(number));
            let place = place.ok_or_else(|| unreadable("the number of an item"))?;
            all[*place] = Finished::Now(rows::state(row, 2)?);
        }
        Ok(answer.map(|()| all))
    }
}

/// Reports as they share statements.
#[derive(Debug)]
pub(super) struct Finishes;

impl Freight for Finishes {
    type Ask = Vec<Finish>;
    type Reply = Vec<Finished>;

    fn weight(ask: &Vec<Finish>) -> Weight {
        let bytes = ask.iter().map(|finish| finish.outcome.result_bytes()).sum();
        Weight { items: ask.len(), bytes }
    }

    fn may_join(_: &[Vec<Finish>], _: &Vec<Finish>) -> bool {
        true
    }

    async fn run(
        pool: &Pool,
        asks: &[Vec<Finish>],
    ) -> Result<Timed<Vec<Vec<Finished>>>, StoreError> {
        let finishes: Vec<&Finish> = asks.iter().flatten().collect();
        let Timed { value, at, wall } = finish(pool, &finishes).await?;
        let mut rest = value.into_iter();
        let value = asks.iter().map(|ask| rest.by_ref().take(ask.len()).collect()).collect();
        Ok(Timed { value, at, wall })
    }

    /// What was reported has happened.
    async fn undo(_: &Pool, _: Vec<Finished>) {}
}

pub(super) async fn finish(
    pool: &Pool,
    finishes: &[&Finish],
) -> Result<Timed<Vec<Finished>>, StoreError> {
    let arrays = FinishArrays::new(finishes);
    let (sql, params) = arrays.statement();
    let found = pool.rows(Call::Write, sql, &params).await?;
    arrays.answer(&found)
}
