//! The short endpoints: submit, look, who leads, is it well.

use std::sync::Arc;

use axum::extract::{Path, State};
use bytes::Bytes;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tl_fleet::{Overview, Pod, RecoveryAsked, Stage, StepState};
use tl_types::UnixMs;

use super::ask::{NewStepBody, body, body_or_default, step_id};
use super::problem::Problem;
use super::shapes::{PodShape, answer, classic_state, ok, raw};
use super::{ROUTES, Reply, Shared};

pub(super) async fn home() -> Reply {
    let endpoints: Vec<_> =
        ROUTES.iter().map(|(method, path)| format!("{method} {path}")).collect();
    ok(&json!({
        "service": "throughline fleet",
        "version": env!("CARGO_PKG_VERSION"),
        "endpoints": endpoints,
    }))
}

/// Alive as long as it answers: an outage of the database must not restart the fleet.
pub(super) async fn live() -> Reply {
    ok(&json!({ "status": "live" }))
}

pub(super) async fn ready(State(face): Shared) -> Reply {
    face.service.ready().await?;
    // Who sends traffic here should stop before the face goes.
    if let Some(pod) = face.service.pod()
        && pod.status().stage != Stage::Running
    {
        return Err(Problem::busy("This pod goes down"));
    }
    ok(&json!({ "status": "ready" }))
}

pub(super) async fn health(State(face): Shared) -> Reply {
    face.service.ready().await?;
    let pod = face.service.pod().map(|pod| (pod.status(), pod.settings().pod.to_string()));
    let (status, pod_id) = match &pod {
        Some((status, pod_id)) => (Some(status), Some(pod_id)),
        None => (None, None),
    };
    ok(&json!({
        "pod_id": pod_id,
        "status": "healthy",
        "uptime_seconds": face.started.elapsed().as_secs(),
        "current_capacity": status.map_or(0, |it| it.capacity.saturating_sub(it.held.running)),
        "max_capacity": status.map_or(0, |it| it.capacity),
        "is_leader": status.is_some_and(|it| it.epoch.is_some()),
        "version": env!("CARGO_PKG_VERSION"),
    }))
}

pub(super) async fn submit(State(face): Shared, bytes: Bytes) -> Reply {
    let step = body::<NewStepBody>(&bytes)?.step()?;
    let submitted = face.service.submit(vec![step]).await?.value;
    let submitted = submitted.first().ok_or_else(|| Problem::conflict("Nothing was submitted"))?;
    let message =
        if submitted.deduped { "Step was submitted before" } else { "Step submitted successfully" };
    answer(
        StatusCode::CREATED,
        &json!({
            "step_id": submitted.id.to_string(), "status": "submitted", "message": message,
        }),
    )
}

pub(super) async fn status(State(face): Shared, Path(id): Path<String>) -> Reply {
    let id = step_id(&id)?;
    let step = face.service.step(id).await?.value.ok_or_else(|| Problem::step_not_found(id))?;
    // The holder is named while it holds.
    let claimed_by = step.claimed_by.as_ref().filter(|_| step.state == StepState::Claimed);
    ok(&StatusShape {
        step_id: id.to_string(),
        status: classic_state(step.state),
        claimed_by: claimed_by.map(ToString::to_string),
        last_update_ts: step.updated_at.to_string(),
        retry_count: step.charged,
        priority: step.priority,
        created_ts: step.created_at.to_string(),
        max_retries: step.attempts_max.saturating_sub(1),
        payload: PayloadShape {
            r#type: step.kind.as_str(),
            args: raw(&step.args),
            metadata: raw(&step.metadata),
        },
    })
}

#[derive(Serialize)]
struct StatusShape<'s> {
    step_id: String,
    status: &'static str,
    claimed_by: Option<String>,
    last_update_ts: String,
    retry_count: u32,
    priority: i32,
    created_ts: String,
    max_retries: u32,
    payload: PayloadShape<'s>,
}

#[derive(Serialize)]
struct PayloadShape<'s> {
    r#type: &'s str,
    args: Box<RawValue>,
    metadata: Box<RawValue>,
}

pub(super) async fn idempotency(State(face): Shared, Path(id): Path<String>) -> Reply {
    let id = step_id(&id)?;
    if face.service.step(id).await?.value.is_none() {
        return Err(Problem::step_not_found(id));
    }
    ok(&json!({ "step_id": id.to_string(), "idempotency_key": format!("idempotent_{id}") }))
}

pub(super) async fn queue(State(face): Shared) -> Reply {
    let overview = face.service.overview().await?;
    let counts = &overview.counts;
    let by_priority: Map<String, Value> = counts
        .pending_by_priority
        .iter()
        .map(|(priority, steps)| (priority.to_string(), (*steps).into()))
        .collect();
    let by_type: Map<String, Value> = counts
        .by_kind
        .iter()
        .map(|count| {
            let steps = count.scheduled + count.pending + count.claimed;
            (count.kind.to_string(), steps.into())
        })
        .collect();
    let capacity: Map<String, Value> = overview
        .living()
        .map(|pod| {
            let held = json!({ "current": pod.running, "max": pod.capacity });
            (pod.life.pod.to_string(), held)
        })
        .collect();
    let unserved: Vec<&str> = overview.unserved().map(|count| count.kind.as_str()).collect();
    ok(&json!({
        "pending_steps": counts.pending + counts.scheduled,
        "claimed_steps": counts.claimed,
        "completed_steps": counts.completed,
        "failed_steps": counts.failed + counts.cancelled,
        "active_pods": overview.living().count(),
        "current_leader": overview.leading().map(|leader| leader.life.pod.to_string()),
        "queue_depth_by_priority": by_priority,
        "steps_by_type": by_type,
        "pod_capacity": capacity,
        "unserved_types": unserved,
    }))
}

fn leader_of(overview: &Overview) -> Option<&Pod> {
    let leader = overview.leading()?;
    overview.pods.iter().find(|pod| pod.life == leader.life)
}

pub(super) async fn leader(State(face): Shared) -> Reply {
    let overview: Arc<Overview> = face.service.overview().await?;
    let leads = leader_of(&overview).map(|pod| pod.life.clone());
    let eligible: Vec<Value> = overview
        .living()
        .map(|pod| {
            let shape = PodShape::new(pod, true);
            let mut shape = serde_json::to_value(shape).unwrap_or_default();
            shape["is_leader"] = (leads.as_ref() == Some(&pod.life)).into();
            shape
        })
        .collect();
    ok(&json!({
        "current_leader": overview.leading().map(|leader| leader.life.pod.to_string()),
        "leader_birth_ts": leader_of(&overview).map(|pod| pod.birth_wall.to_string()),
        "epoch": overview.leading().map(|leader| leader.epoch.0),
        "active_pods": overview.living().count(),
        "last_election_check": overview.wall.to_string(),
        "election_details": { "eligible_pods": eligible },
    }))
}

/// What a wish for recovery may say. A forced one is as any other: a cycle is always safe.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RecoveryBody {
    force: bool,
    dry_run: bool,
}

pub(super) async fn recover(State(face): Shared, bytes: Bytes) -> Reply {
    let wish: RecoveryBody = body_or_default(&bytes)?;
    if wish.dry_run {
        return Err(Problem::shape("`dry_run` is not possible: a cycle is one statement"));
    }
    let _ = wish.force;
    let cycle = match face.service.recover_now().await? {
        RecoveryAsked::Done(cycle) => cycle,
        RecoveryAsked::NotLeader => {
            let overview = face.service.overview().await?;
            let leader = overview.leading().map_or("nobody", |leader| leader.life.pod.as_str());
            return Err(Problem::forbidden(format!("Only the leader recovers; {leader} leads")));
        }
        RecoveryAsked::Runs => {
            return Err(Problem::conflict("A recovery that was asked for before still runs"));
        }
    };
    let steps = |finished: bool| -> Vec<String> {
        cycle
            .recovered
            .iter()
            .filter(|one| one.state.is_finished() == finished)
            .map(|one| one.id.to_string())
            .collect()
    };
    let dead: Vec<&str> = cycle.dead_pods.iter().map(|pod| pod.life.pod.as_str()).collect();
    let at: UnixMs = cycle.at;
    ok(&json!({
        "status": "completed",
        "message": format!("Recovery cycle ended at {at}"),
        "recovery_summary": {
            "cycle_id": cycle.cycle_id,
            "dead_pods_found": dead.len(),
            "orphaned_steps_found": cycle.recovered.len(),
            "steps_requeued": cycle.requeued(),
            "steps_marked_terminal": cycle.terminal(),
            "duration_ms": cycle.duration_ms,
            "dead_pods": dead,
            "requeued_steps": steps(false),
            "terminal_steps": steps(true),
        },
    }))
}
