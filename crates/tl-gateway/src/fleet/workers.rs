//! Workers that pull: claim, renew, complete, fail, release. Who has lost a claim is told so
//! with 409 and drops the work.

use axum::extract::{Path, State};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use tl_core::fleet::{Backoff, retry_delay_ms};
use tl_fleet::{
    ClaimKey, ClaimRequest, ClaimToken, Claimant, Finish, Finished, FleetService, JsonText, Kind,
    Outcome, PodId, Renewal, Renewed, StepId,
};

use super::ask::{body, step_id};
use super::problem::Problem;
use super::shapes::{ok, raw};
use super::{Reply, Shared};

/// How long a claim holds when the worker does not say.
const LEASE_MS_DEFAULT: u64 = 30_000;
/// Waits between attempts where no pod is beside the face.
const BACKOFF: Backoff = Backoff { base_ms: 1_000, max_ms: 300_000 };

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClaimBody {
    worker: String,
    types: Vec<String>,
    max: Option<usize>,
    lease_ms: Option<u64>,
}

#[derive(Serialize)]
struct ClaimShape {
    step_id: String,
    claim_token: String,
    attempt: u64,
    retry_count: u32,
    max_retries: u32,
    r#type: String,
    args: Box<RawValue>,
    metadata: Box<RawValue>,
    priority: i32,
    timeout_ms: Option<u64>,
    idempotency_key: String,
    lease_ms: u64,
}

pub(super) async fn claim(State(face): Shared, bytes: Bytes) -> Reply {
    let wish: ClaimBody = body(&bytes)?;
    let lease_ms = wish.lease_ms.unwrap_or(LEASE_MS_DEFAULT);
    let request = ClaimRequest {
        claimant: Claimant::Worker(PodId::new(wish.worker)?),
        kinds: wish.types.into_iter().map(Kind::new).collect::<Result<_, _>>()?,
        steps_max: wish.max.unwrap_or(1),
        lease_ms,
    };
    let claims = face.service.claim(request).await?.value;
    let claims: Vec<ClaimShape> = claims
        .into_iter()
        .map(|claim| ClaimShape {
            step_id: claim.key.id.to_string(),
            claim_token: claim.key.token.0.hyphenated().to_string(),
            attempt: claim.attempt.0,
            retry_count: claim.charged,
            max_retries: claim.attempts_max.saturating_sub(1),
            r#type: claim.kind.to_string(),
            args: raw(&claim.args),
            metadata: raw(&claim.metadata),
            priority: claim.priority,
            timeout_ms: claim.timeout_ms,
            idempotency_key: format!("idempotent_{}", claim.key.id),
            lease_ms,
        })
        .collect();
    #[derive(Serialize)]
    struct Claims {
        claims: Vec<ClaimShape>,
    }
    ok(&Claims { claims })
}

/// A claim as the caller names it. What is not a token is nobody's.
fn key(id: &str, token: &str) -> Result<ClaimKey, Problem> {
    let id = step_id(id)?;
    // A token has the form of a step's id.
    let token: StepId = token.parse().map_err(|_| Problem::fenced())?;
    Ok(ClaimKey { id, token: ClaimToken(token.0) })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RenewBody {
    claim_token: String,
    lease_ms: Option<u64>,
    progress: Option<Box<RawValue>>,
}

pub(super) async fn renew(State(face): Shared, Path(id): Path<String>, bytes: Bytes) -> Reply {
    let wish: RenewBody = body(&bytes)?;
    let progress = wish.progress.map(|json| JsonText::value("progress", json.get())).transpose()?;
    let renewal = Renewal { key: key(&id, &wish.claim_token)?, progress };
    let lease_ms = wish.lease_ms.unwrap_or(LEASE_MS_DEFAULT);
    let renewed = face.service.renew(lease_ms, vec![renewal]).await?.value;
    match renewed.first() {
        Some(Renewed::Held { cancel_asked, .. }) => {
            ok(&json!({ "lease_ms": lease_ms, "cancel_asked": cancel_asked }))
        }
        Some(Renewed::Fenced) | None => Err(Problem::fenced()),
    }
}

async fn finish(service: &FleetService, key: ClaimKey, outcome: Outcome) -> Reply {
    let finished = service.finish(vec![Finish { key, outcome }]).await?.value;
    match finished.first() {
        Some(Finished::Now(state)) => {
            ok(&json!({ "step_id": key.id.to_string(), "state": state.word() }))
        }
        Some(Finished::Fenced) | None => Err(Problem::fenced()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CompleteBody {
    claim_token: String,
    result: Option<Box<RawValue>>,
}

pub(super) async fn complete(State(face): Shared, Path(id): Path<String>, bytes: Bytes) -> Reply {
    let report: CompleteBody = body(&bytes)?;
    let result = match report.result {
        Some(json) => JsonText::value("result", json.get())?,
        None => JsonText::null(),
    };
    finish(&face.service, key(&id, &report.claim_token)?, Outcome::Completed { result }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FailBody {
    claim_token: String,
    error: String,
    #[serde(default)]
    fatal: bool,
    retry_in_ms: Option<u64>,
}

pub(super) async fn fail(State(face): Shared, Path(id): Path<String>, bytes: Bytes) -> Reply {
    let report: FailBody = body(&bytes)?;
    let key = key(&id, &report.claim_token)?;
    let error = report.error;
    let outcome = match (report.fatal, report.retry_in_ms) {
        (true, _) => Outcome::Fatal { error },
        (false, Some(retry_in_ms)) => Outcome::Failed { error, retry_in_ms },
        (false, None) => {
            let step = face.service.step(key.id).await?.value;
            let charged = step.map_or(0, |step| step.charged).saturating_add(1);
            let backoff = face.service.pod().map_or(BACKOFF, |pod| pod.settings().backoff);
            let retry_in_ms = retry_delay_ms(backoff, charged, fastrand::f64());
            Outcome::Failed { error, retry_in_ms }
        }
    };
    finish(&face.service, key, outcome).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReleaseBody {
    claim_token: String,
    #[serde(default)]
    cancelled: bool,
}

/// Gives a step back uncharged; or, when it was called off, says that it has stopped.
pub(super) async fn release(State(face): Shared, Path(id): Path<String>, bytes: Bytes) -> Reply {
    let report: ReleaseBody = body(&bytes)?;
    let outcome = if report.cancelled { Outcome::Cancelled } else { Outcome::Released };
    finish(&face.service, key(&id, &report.claim_token)?, outcome).await
}
