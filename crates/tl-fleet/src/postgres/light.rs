//! Small calls of every sort share transactions.
//!
//! A commit waits for the disk, whatever it holds, and disks sync one thing after the other. So
//! what single steps cost is syncs, and calls of a few steps go together: submissions, reports and
//! claims that wait at the same time are up to three statements of one transaction, sent at once.
//! Nothing is claimed of which the submission is not durable, for all of it is one commit.

use super::claim::{CLAIM, ClaimArrays, claim, give_back, is_worker, may_share};
use super::fault::{done_but, unreadable};
use super::finish::{FinishArrays, finish};
use super::lane::{Freight, Weight};
use super::pool::Pool;
use super::submit::{
    SUBMIT, SUBMIT_FRESH, SubmitArrays, Unsettled, Went, submit, submit_again, submitted,
    submitted_fresh,
};
use crate::claim::{Claim, ClaimRequest, Finish, Finished};
use crate::error::StoreError;
use crate::step::{NewStep, Submitted};
use crate::time::Timed;

/// Steps of a call that goes together with others. Larger ones fill statements of their own.
const STEPS_MAX: usize = 32;

/// A small call.
#[derive(Debug)]
pub(super) enum Light {
    Submit(Vec<NewStep>),
    Finish(Vec<Finish>),
    Claim(ClaimRequest),
}

/// Its answer, of the same sort.
#[derive(Debug)]
pub(super) enum LightReply {
    Submit(Vec<Submitted>),
    Finish(Vec<Finished>),
    Claim(Vec<Claim>),
}

pub(super) fn is_light_submit(steps: &[NewStep]) -> bool {
    steps.len() <= STEPS_MAX
}

pub(super) fn is_light_finish(finishes: &[Finish]) -> bool {
    finishes.len() <= STEPS_MAX
}

/// Claims of pods are looked at for the pod alone.
pub(super) fn is_light_claim(request: &ClaimRequest) -> bool {
    request.steps_max <= STEPS_MAX && is_worker(request)
}

/// Small calls as they share transactions.
#[derive(Debug)]
pub(super) struct Together;

impl Freight for Together {
    type Ask = Light;
    type Reply = LightReply;

    fn weight(ask: &Light) -> Weight {
        match ask {
            Light::Submit(steps) => {
                Weight { items: steps.len(), bytes: steps.iter().map(NewStep::payload_bytes).sum() }
            }
            Light::Finish(finishes) => Weight {
                items: finishes.len(),
                bytes: finishes.iter().map(|finish| finish.outcome.result_bytes()).sum(),
            },
            Light::Claim(request) => Weight { items: request.steps_max, bytes: 0 },
        }
    }

    fn may_join(group: &[Light], next: &Light) -> bool {
        let Light::Claim(next) = next else { return true };
        let first = group.iter().find_map(|ask| match ask {
            Light::Claim(first) => Some(first),
            Light::Submit(_) | Light::Finish(_) => None,
        });
        first.is_none_or(|first| may_share(first, next))
    }

    async fn run(pool: &Pool, asks: &[Light]) -> Result<Timed<Vec<LightReply>>, StoreError> {
        let answer = Sorted::new(asks).run(pool).await?;
        Ok(answer.map(|parts| parts.deal(asks)))
    }

    async fn undo(pool: &Pool, reply: LightReply) {
        match reply {
            LightReply::Claim(claims) => give_back(pool, claims).await,
            // What was submitted stays, and what was reported has happened.
            LightReply::Submit(_) | LightReply::Finish(_) => {}
        }
    }
}

/// Calls by their sort, each sort in the order of the calls.
struct Sorted<'a> {
    submits: Option<Vec<&'a NewStep>>,
    finishes: Option<Vec<&'a Finish>>,
    claims: Vec<&'a ClaimRequest>,
    calls: usize,
}

/// The answers of each sort.
struct Parts {
    submitted: Vec<Submitted>,
    finished: Vec<Finished>,
    claims: Vec<Vec<Claim>>,
}

impl<'a> Sorted<'a> {
    fn new(asks: &'a [Light]) -> Sorted<'a> {
        let mut sorted =
            Sorted { submits: None, finishes: None, claims: Vec::new(), calls: asks.len() };
        for ask in asks {
            match ask {
                Light::Submit(steps) => sorted.submits.get_or_insert_default().extend(steps),
                Light::Finish(reports) => sorted.finishes.get_or_insert_default().extend(reports),
                Light::Claim(request) => sorted.claims.push(request),
            }
        }
        sorted
    }

    async fn run(&self, pool: &Pool) -> Result<Timed<Parts>, StoreError> {
        match self.calls {
            1 => self.alone(pool).await,
            _ => self.together(pool).await,
        }
    }

    /// One call is one statement.
    async fn alone(&self, pool: &Pool) -> Result<Timed<Parts>, StoreError> {
        let mut parts = Parts { submitted: Vec::new(), finished: Vec::new(), claims: Vec::new() };
        if let Some(steps) = &self.submits {
            let answer = submit(pool, steps).await?;
            Ok(answer.map(|submitted| Parts { submitted, ..parts }))
        } else if let Some(finishes) = &self.finishes {
            let answer = finish(pool, finishes).await?;
            Ok(answer.map(|finished| Parts { finished, ..parts }))
        } else {
            let answer = claim(pool, &self.claims).await?;
            Ok(answer.map(|claims| {
                parts.claims = claims;
                parts
            }))
        }
    }

    async fn together(&self, pool: &Pool) -> Result<Timed<Parts>, StoreError> {
        let steps = self.submits.as_deref().unwrap_or_default();
        let submits = SubmitArrays::new(steps);
        let finishes = FinishArrays::new(self.finishes.as_deref().unwrap_or_default());
        let claims = (!self.claims.is_empty()).then(|| ClaimArrays::new(&self.claims));
        let mut statements = Vec::with_capacity(3);
        if self.finishes.is_some() {
            statements.push(finishes.statement());
        }
        if self.submits.is_some() {
            statements.push(match submits.has_keys() {
                false => (SUBMIT_FRESH, submits.params_without_keys().to_vec()),
                true => (SUBMIT, submits.params().to_vec()),
            });
        }
        // Last, so that it finds what was just submitted.
        if let Some(claims) = &claims {
            statements.push((CLAIM, claims.params().to_vec()));
        }
        // All of it is committed now: whatever is amiss with an answer, nobody may do it again.
        let found = pool.rows_together(&statements).await?;
        if found.iter().any(Option::is_none) {
            // Some were done and some refused. Nobody hears of what was claimed.
            if let (Some(claims), Some(Some(rows))) = (&claims, found.last()) {
                let shares = claims.shares(rows).map_err(done_but)?;
                give_back(pool, shares.value.into_iter().flatten().collect()).await;
            }
            return Err(done_but(unreadable("a transaction that did not begin")));
        }
        let mut found = found.into_iter().flatten();
        let mut next = || found.next().ok_or_else(|| done_but(unreadable("a missing answer")));
        let mut parts = Parts { submitted: Vec::new(), finished: Vec::new(), claims: Vec::new() };
        let mut at = None;
        if self.finishes.is_some() {
            let answer = finishes.answer(&next()?).map_err(done_but)?;
            at = Some(answer.map(|finished| parts.finished = finished));
        }
        if self.submits.is_some() {
            let rows = next()?;
            let answer = match submits.has_keys() {
                false => submitted_fresh(steps, &rows).map_err(done_but)?,
                // What one met was forgotten in that moment. They may come again, by their ids;
                // the reports and claims beside them may not.
                true => match submitted(steps, &rows, &Unsettled::default()).map_err(done_but)? {
                    Went::In(answer) => answer,
                    Went::Unsettled(places) => {
                        Box::pin(submit_again(pool, steps, &submits, places))
                            .await
                            .map_err(done_but)?
                    }
                },
            };
            at = Some(answer.map(|submitted| parts.submitted = submitted));
        }
        if let Some(claims) = &claims {
            let answer = claims.shares(&next()?).map_err(done_but)?;
            at = Some(answer.map(|shares| parts.claims = shares));
        }
        let at = at.ok_or_else(|| unreadable("an answer to no call"))?;
        Ok(at.map(|()| parts))
    }
}

impl Parts {
    /// To each call its own.
    fn deal(self, asks: &[Light]) -> Vec<LightReply> {
        let mut submitted = self.submitted.into_iter();
        let mut finished = self.finished.into_iter();
        let mut claims = self.claims.into_iter();
        let deal = |ask: &Light| match ask {
            Light::Submit(steps) => {
                LightReply::Submit(submitted.by_ref().take(steps.len()).collect())
            }
            Light::Finish(reports) => {
                LightReply::Finish(finished.by_ref().take(reports.len()).collect())
            }
            Light::Claim(_) => LightReply::Claim(claims.next().unwrap_or_default()),
        };
        asks.iter().map(deal).collect()
    }
}
