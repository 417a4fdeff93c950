//! What replies look like.

use axum::body::Body;
use http::{Response, StatusCode};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tl_fleet::{AttemptRecord, DeadLetter, JsonText, Pod, PodState, Step, StepState, Submitted};

use super::problem::Problem;
use crate::reply;

/// A JSON reply.
pub(super) fn answer(status: StatusCode, body: &impl Serialize) -> Result<Response<Body>, Problem> {
    let body = serde_json::to_vec(body).expect("replies are made of text keys and JSON");
    Ok(reply::json(status, body))
}

pub(super) fn ok(body: &impl Serialize) -> Result<Response<Body>, Problem> {
    answer(StatusCode::OK, body)
}

/// JSON that was checked on its way in goes out as it is.
pub(super) fn raw(json: &JsonText) -> Box<RawValue> {
    RawValue::from_string(json.as_str().to_owned()).expect("checked on its way in")
}

/// The four words of the short endpoints.
pub(super) fn classic_state(state: StepState) -> &'static str {
    match state {
        StepState::Scheduled | StepState::Pending => "pending",
        StepState::Claimed => "claimed",
        StepState::Completed => "completed",
        StepState::Failed | StepState::Cancelled => "failed",
    }
}

/// A step as replies and the command line show it.
#[derive(Debug, Serialize)]
pub struct StepShape {
    step_id: String,
    r#type: String,
    args: Box<RawValue>,
    metadata: Box<RawValue>,
    state: &'static str,
    priority: i32,
    attempt: u64,
    retry_count: u32,
    max_retries: u32,
    timeout_ms: Option<u64>,
    run_at: String,
    claimed_by: Option<String>,
    cancel_asked: bool,
    progress: Option<Box<RawValue>>,
    unique_key: Option<String>,
    unique_until: Option<&'static str>,
    result: Option<Box<RawValue>>,
    error: Option<String>,
    created_at: String,
    updated_at: String,
    finished_at: Option<String>,
}

impl StepShape {
    /// Of a step.
    #[must_use]
    pub fn new(step: &Step) -> StepShape {
        StepShape {
            step_id: step.id.to_string(),
            r#type: step.kind.to_string(),
            args: raw(&step.args),
            metadata: raw(&step.metadata),
            state: step.state.word(),
            priority: step.priority,
            attempt: step.attempt.0,
            retry_count: step.charged,
            max_retries: step.attempts_max.saturating_sub(1),
            timeout_ms: step.timeout_ms,
            run_at: step.run_at.to_string(),
            claimed_by: step.claimed_by.as_ref().map(ToString::to_string),
            cancel_asked: step.cancel_asked,
            progress: step.progress.as_ref().map(raw),
            unique_key: step.unique.as_ref().map(|unique| unique.key.clone()),
            unique_until: step.unique.as_ref().map(|unique| unique.until.word()),
            result: step.result.as_ref().map(raw),
            error: step.last_error.clone(),
            created_at: step.created_at.to_string(),
            updated_at: step.updated_at.to_string(),
            finished_at: step.finished_at.map(|at| at.to_string()),
        }
    }
}

/// What became of a submission.
#[must_use]
pub fn submitted(submitted: &Submitted) -> Value {
    json!({
        "step_id": submitted.id.to_string(),
        "state": submitted.state.word(),
        "deduped": submitted.deduped,
        "differs": submitted.differs,
    })
}

/// One attempt.
#[must_use]
pub fn attempt(attempt: &AttemptRecord) -> Value {
    json!({
        "attempt": attempt.attempt.0,
        "pod": attempt.pod.as_str(),
        "claimed_at": attempt.claimed_at.to_string(),
        "ended_at": attempt.ended_at.map(|at| at.to_string()),
        "end": attempt.end.word(),
        "error": attempt.error,
    })
}

/// A step that was given up.
#[must_use]
pub fn dead_letter(letter: &DeadLetter) -> Value {
    json!({
        "step_id": letter.id.to_string(),
        "attempt": letter.attempt.0,
        "type": letter.kind.as_str(),
        "reason": letter.reason.word(),
        "error": letter.error,
        "pod": letter.pod.as_str(),
        "died_at": letter.died_at.to_string(),
        "retried_at": letter.redriven_at.map(|at| at.to_string()),
    })
}

/// A pod as replies and the command line show it.
#[derive(Debug, Serialize)]
pub struct PodShape {
    pod_id: String,
    incarnation: u64,
    birth_ts: String,
    last_heartbeat_ts: String,
    status: &'static str,
    draining: bool,
    capacity: u32,
    running: u32,
    prefetched: u32,
    types: Vec<String>,
    meta: Box<RawValue>,
}

impl PodShape {
    /// `alive` is whether its lease holds.
    #[must_use]
    pub fn new(pod: &Pod, alive: bool) -> PodShape {
        PodShape {
            pod_id: pod.life.pod.to_string(),
            incarnation: pod.life.incarnation.0,
            birth_ts: pod.birth_wall.to_string(),
            last_heartbeat_ts: pod.heartbeat_wall.to_string(),
            status: if alive { PodState::Up.word() } else { PodState::Down.word() },
            draining: pod.draining,
            capacity: pod.capacity,
            running: pod.running,
            prefetched: pod.prefetched,
            types: pod.kinds.iter().map(ToString::to_string).collect(),
            meta: raw(&pod.meta),
        }
    }
}
