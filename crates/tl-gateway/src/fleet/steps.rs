//! Steps: submit, look, wait, call off, put back.

use std::time::Duration;

use axum::extract::{Path, State};
use bytes::Bytes;
use http::{StatusCode, Uri};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tl_fleet::{Cancelled, Redriven};

use super::ask::{self, FILTERS, NewStepBody, body, last, last_number, query, step_id};
use super::problem::Problem;
use super::shapes::{self, StepShape, answer, ok, raw};
use super::{Reply, Shared};

/// Longest wait for a result in one request.
const WAIT_MS_MAX: u64 = 30_000;

/// 201 for a new step, 200 for one that stood before.
pub(super) async fn submit(State(face): Shared, bytes: Bytes) -> Reply {
    let step = body::<NewStepBody>(&bytes)?.step()?;
    let submitted = face.service.submit(vec![step]).await?.value;
    let submitted = submitted.first().ok_or_else(|| Problem::conflict("Nothing was submitted"))?;
    let status = if submitted.deduped { StatusCode::OK } else { StatusCode::CREATED };
    answer(status, &shapes::submitted(submitted))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchBody {
    steps: Vec<NewStepBody>,
}

/// All or none; in the order of the request.
pub(super) async fn batch(State(face): Shared, bytes: Bytes) -> Reply {
    let batch: BatchBody = body(&bytes)?;
    let steps = batch.steps.into_iter().map(NewStepBody::step).collect::<Result<_, _>>()?;
    let submitted = face.service.submit(steps).await?.value;
    let steps: Vec<Value> = submitted.iter().map(shapes::submitted).collect();
    ok(&json!({ "steps": steps }))
}

#[derive(Serialize)]
struct PageShape {
    steps: Vec<StepShape>,
    next_page: Option<String>,
}

pub(super) async fn list(State(face): Shared, uri: Uri) -> Reply {
    let pairs = query(&uri, FILTERS)?;
    let page = face.service.list(ask::filter(&pairs)?, ask::page(&pairs)?).await?.value;
    ok(&PageShape {
        steps: page.items.iter().map(StepShape::new).collect(),
        next_page: page.next.map(|token| token.0),
    })
}

pub(super) async fn get(State(face): Shared, Path(id): Path<String>) -> Reply {
    let id = step_id(&id)?;
    match face.service.step(id).await?.value {
        Some(step) => ok(&StepShape::new(&step)),
        None => Err(Problem::step_not_found(id)),
    }
}

pub(super) async fn attempts(State(face): Shared, Path(id): Path<String>) -> Reply {
    let id = step_id(&id)?;
    let attempts = face.service.attempts(id).await?.value;
    if attempts.is_empty() && face.service.step(id).await?.value.is_none() {
        return Err(Problem::step_not_found(id));
    }
    let attempts: Vec<Value> = attempts.iter().map(shapes::attempt).collect();
    ok(&json!({ "attempts": attempts }))
}

/// 200 when the step is finished, 202 when it is not within `wait_ms`.
pub(super) async fn result(State(face): Shared, Path(id): Path<String>, uri: Uri) -> Reply {
    let id = step_id(&id)?;
    let wait_ms = last_number(&query(&uri, &["wait_ms"])?, "wait_ms")?.unwrap_or(0);
    if wait_ms > WAIT_MS_MAX {
        return Err(Problem::shape(format!("`wait_ms` must be at most {WAIT_MS_MAX}")));
    }
    let found = face.service.wait(id, Duration::from_millis(wait_ms)).await?.value;
    let step = found.ok_or_else(|| Problem::step_not_found(id))?;
    let status = if step.state.is_finished() { StatusCode::OK } else { StatusCode::ACCEPTED };
    answer(
        status,
        &ResultShape {
            step_id: id.to_string(),
            state: step.state.word(),
            attempt: step.attempt.0,
            result: step.result.as_ref().map(raw),
            error: step.last_error,
        },
    )
}

#[derive(Serialize)]
struct ResultShape {
    step_id: String,
    state: &'static str,
    attempt: u64,
    result: Option<Box<RawValue>>,
    error: Option<String>,
}

pub(super) async fn cancel(State(face): Shared, Path(id): Path<String>) -> Reply {
    let id = step_id(&id)?;
    let cancelled = face.service.cancel(vec![id]).await?.value;
    let said = |cancel: &str| ok(&json!({ "step_id": id.to_string(), "cancel": cancel }));
    match cancelled.first() {
        Some(Cancelled::Now) => said("now"),
        Some(Cancelled::Asked) => said("asked"),
        Some(Cancelled::Finished(state)) => {
            Err(Problem::conflict(format!("Step {id} is finished: {state}")))
        }
        Some(Cancelled::NotFound) | None => Err(Problem::step_not_found(id)),
    }
}

/// Also for a scheduled step, which then runs at once.
pub(super) async fn retry(State(face): Shared, Path(id): Path<String>) -> Reply {
    let id = step_id(&id)?;
    let redriven = face.service.redrive(vec![id]).await?.value;
    match redriven.first() {
        Some(Redriven::Now) => ok(&json!({ "step_id": id.to_string(), "state": "pending" })),
        Some(Redriven::NotNow(state)) => Err(Problem::conflict(format!(
            "Step {id} is {state}; only failed, cancelled and scheduled ones are put back"
        ))),
        Some(Redriven::KeyTaken(holder)) => {
            Err(Problem::conflict(format!("The unique key of step {id} is now held by {holder}")))
        }
        Some(Redriven::NotFound) | None => Err(Problem::step_not_found(id)),
    }
}

pub(super) async fn dead_letters(State(face): Shared, uri: Uri) -> Reply {
    let pairs = query(&uri, &["retried", "limit", "page"])?;
    let retried = match last(&pairs, "retried") {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(Problem::shape("`retried` must be true or false")),
    };
    let page = face.service.dead_letters(retried, ask::page(&pairs)?).await?.value;
    let letters: Vec<Value> = page.items.iter().map(shapes::dead_letter).collect();
    ok(&json!({ "dead_letters": letters, "next_page": page.next.map(|token| token.0) }))
}
