//! Steps come in.

use std::collections::BTreeSet;

use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::fault::{Call, unreadable};
use super::lane::{Freight, Weight};
use super::pool::Pool;
use super::rows::{self, get, int, small, timed, uint};
use crate::error::StoreError;
use crate::ids::StepId;
use crate::step::{NewStep, RunAt, StepState, Submitted};
use crate::time::{StoreTime, Timed};

/// For steps that may have been here before, or bear unique keys.
pub(super) const SUBMIT: &str =
    "SELECT * FROM @fleet_submit_many($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
/// For steps without unique keys that nobody has seen: refused whole when one is not so.
pub(super) const SUBMIT_FRESH: &str =
    "SELECT @fleet_submit_fresh($1, $2, $3, $4, $5, $6, $7, $8, $9)";

/// How often a submission comes again because what it met was forgotten in that moment.
pub(super) const SUBMITS_MAX: usize = 3;

/// The columns of a batch of submissions.
pub(super) struct SubmitArrays<'a> {
    ids: Vec<Uuid>,
    kinds: Vec<&'a str>,
    args: Vec<&'a str>,
    metadata: Vec<&'a str>,
    priorities: Vec<i32>,
    attempts_max: Vec<i32>,
    delays_ms: Vec<Option<i64>>,
    ats_ms: Vec<Option<i64>>,
    timeouts_ms: Vec<Option<i64>>,
    keys: Vec<Option<&'a str>>,
    untils: Vec<Option<i16>>,
}

impl<'a> SubmitArrays<'a> {
    pub(super) fn new(steps: &[&'a NewStep]) -> SubmitArrays<'a> {
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
            keys: steps.iter().map(|step| Some(step.unique.as_ref()?.key.as_str())).collect(),
            untils: steps.iter().map(|step| Some(step.unique.as_ref()?.until.number())).collect(),
        }
    }

    pub(super) fn params(&self) -> [&(dyn ToSql + Sync); 11] {
        let [ids, kinds, args, metadata, priorities, attempts_max, delays_ms, ats_ms, timeouts_ms] =
            self.params_without_keys();
        [
            ids,
            kinds,
            args,
            metadata,
            priorities,
            attempts_max,
            delays_ms,
            ats_ms,
            timeouts_ms,
            &self.keys,
            &self.untils,
        ]
    }

    pub(super) fn params_without_keys(&self) -> [&(dyn ToSql + Sync); 9] {
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
        ]
    }

    pub(super) fn has_keys(&self) -> bool {
        self.keys.iter().any(Option::is_some)
    }
}

/// Submissions as they share statements.
#[derive(Debug)]
pub(super) struct Submits;

impl Freight for Submits {
    type Ask = Vec<NewStep>;
    type Reply = Vec<Submitted>;

    fn weight(ask: &Vec<NewStep>) -> Weight {
        Weight { items: ask.len(), bytes: ask.iter().map(NewStep::payload_bytes).sum() }
    }

    fn may_join(_: &[Vec<NewStep>], _: &Vec<NewStep>) -> bool {
        true
    }

    async fn run(
        pool: &Pool,
        asks: &[Vec<NewStep>],
    ) -> Result<Timed<Vec<Vec<Submitted>>>, StoreError> {
        let steps: Vec<&NewStep> = asks.iter().flatten().collect();
        let Timed { value, at, wall } = submit(pool, &steps).await?;
        let mut rest = value.into_iter();
        let value = asks.iter().map(|ask| rest.by_ref().take(ask.len()).collect()).collect();
        Ok(Timed { value, at, wall })
    }

    /// What was submitted stays: its caller will ask again, and be told so.
    async fn undo(_: &Pool, _: Vec<Submitted>) {}
}

pub(super) async fn submit(
    pool: &Pool,
    steps: &[&NewStep],
) -> Result<Timed<Vec<Submitted>>, StoreError> {
    let arrays = SubmitArrays::new(steps);
    if !arrays.has_keys() {
        let params = arrays.params_without_keys();
        if let Some(found) = pool.rows_unless_taken(Call::Write, SUBMIT_FRESH, &params).await? {
            return submitted_fresh(steps, &found);
        }
    }
    submit_again(pool, steps, &arrays, Unsettled::default()).await
}

/// Submits what a submission before has left unsettled, if there was one.
pub(super) async fn submit_again(
    pool: &Pool,
    steps: &[&NewStep],
    arrays: &SubmitArrays<'_>,
    mut before: Unsettled,
) -> Result<Timed<Vec<Submitted>>, StoreError> {
    for _ in 0..SUBMITS_MAX {
        let found = pool.rows(Call::Write, SUBMIT, &arrays.params()).await?;
        match submitted(steps, &found, &before)? {
            Went::In(answer) => return Ok(answer),
            Went::Unsettled(places) => before.extend(places),
        }
    }
    Err(unsettled())
}

/// What became of a submission.
pub(super) enum Went {
    /// All its steps are in, or were.
    In(Timed<Vec<Submitted>>),
    /// What one of them met was forgotten in that very moment, so that it is neither. They come
    /// again.
    Unsettled(Unsettled),
}

/// Places of items that were new, as far as can be told, when a submission did not settle all of
/// them: coming again these meet themselves, and are new all the same.
#[derive(Debug, Default)]
pub(super) struct Unsettled(BTreeSet<usize>);

impl Unsettled {
    pub(super) fn extend(&mut self, places: Unsettled) {
        self.0.extend(places.0);
    }
}

/// Of a submission that came again too often.
pub(super) fn unsettled() -> StoreError {
    unreadable("a submission that neither went in nor was there")
}

/// The answer of [`SUBMIT_FRESH`].
pub(super) fn submitted_fresh(
    steps: &[&NewStep],
    found: &[tokio_postgres::Row],
) -> Result<Timed<Vec<Submitted>>, StoreError> {
    let answer = timed(found, ())?;
    Ok(answer.map(|()| all_new(steps, answer.at)))
}

/// The answer of [`SUBMIT`], behind submissions of the same steps that did not settle all of them.
pub(super) fn submitted(
    steps: &[&NewStep],
    found: &[tokio_postgres::Row],
    before: &Unsettled,
) -> Result<Went, StoreError> {
    let answer = timed(found, ())?;
    let new: i64 = get(&found[0], 1)?;
    let mut all = all_new(steps, answer.at);
    let mut named = BTreeSet::new();
    let is_settled = uint(new) + (found.len() as u64 - 1) == steps.len() as u64;
    for row in &found[1..] {
        let place = rows::place(row, 1)?;
        let step = all.get_mut(place).ok_or_else(|| unreadable("the number of an item"))?;
        let id = StepId(get(row, 2)?);
        let is_ours = id == step.id && before.0.contains(&place);
        *step = Submitted {
            id,
            state: rows::state(row, 3)?,
            deduped: !is_ours,
            differs: !is_ours && get(row, 4)?,
        };
        if !is_settled {
            named.insert(place);
        }
    }
    Ok(match is_settled {
        true => Went::In(answer.map(|()| all)),
        false => {
            let silent = (0..steps.len()).filter(|place| !named.contains(place));
            Went::Unsettled(Unsettled(silent.collect()))
        }
    })
}

/// The answer when all are new; the store's clock is the calendar's too.
fn all_new(steps: &[&NewStep], at: StoreTime) -> Vec<Submitted> {
    let state = |step: &NewStep| match step.run_at {
        RunAt::InMs(ms) if ms > 0 => StepState::Scheduled,
        RunAt::At(run_at) if run_at.0 > at.0 => StepState::Scheduled,
        RunAt::Now | RunAt::InMs(_) | RunAt::At(_) => StepState::Pending,
    };
    let new = |step: &&NewStep| Submitted {
        id: step.id,
        state: state(step),
        deduped: false,
        differs: false,
    };
    steps.iter().map(new).collect()
}
