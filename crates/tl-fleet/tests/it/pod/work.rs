//! What a pod runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tl_fleet::{
    AttemptEnd, EffectNoted, FleetService, HandlerError, Handlers, JsonText, NewStep, PodError,
    PodSettings, Run, RunningPod, StepState,
};

use super::{Fleet, Gate, counted, echo, finished, handlers, until};
use crate::conformance::{json, kind, numbered, submit};

#[tokio::test]
async fn a_pod_runs_what_it_can_and_says_what_nobody_can() {
    let fleet = Fleet::new();
    let pod = fleet.start(fleet.settings("p"), echo());
    let known = fleet.submit(1).await[0];
    let unknown = submit(&fleet.store, NewStep::new(kind("nobody-runs-this"))).await;
    let step = finished(&pod, known).await;
    assert_eq!((step.state, step.result), (StepState::Completed, Some(json(r#"{"n":0}"#))));
    assert_eq!(fleet.step(unknown).await.state, StepState::Pending);
    let overview = FleetService::beside(pod.handle()).overview().await.unwrap();
    let unserved: Vec<_> = overview.unserved().map(|count| count.kind.to_string()).collect();
    assert_eq!(unserved, ["nobody-runs-this"]);
    assert_eq!(overview.living().count(), 1);
    assert_eq!(overview.leading().unwrap().life.pod.as_str(), "p");
}

#[tokio::test]
async fn an_error_is_tried_again_with_backoff_until_it_is_a_dead_letter() {
    let fleet = Fleet::new();
    let failing = handlers(|_, run| async move {
        Err(HandlerError::retry(format!("attempt {} failed", run.claim.attempt)))
    });
    let pod = fleet.start(fleet.settings("p"), failing);
    let id = submit(&fleet.store, NewStep { attempts_max: 3, ..numbered(1) }).await;
    let step = finished(&pod, id).await;
    assert_eq!((step.state, step.charged), (StepState::Failed, 3));
    assert_eq!(step.last_error.as_deref(), Some("attempt 3 failed"));
    let attempts = fleet.store.attempts(id).await.unwrap().value;
    let errors: Vec<_> = attempts.iter().filter_map(|attempt| attempt.error.clone()).collect();
    assert_eq!(errors, ["attempt 1 failed", "attempt 2 failed", "attempt 3 failed"]);
}

#[tokio::test]
async fn panics_and_wrong_arguments_are_errors_of_the_step_alone() {
    let fleet = Fleet::new();
    let mut handlers = echo();
    handlers.typed(kind("number"), |n: BTreeMap<String, u8>, _| async move { Ok(n) }).unwrap();
    let wrong = NewStep { args: json(r#"{"n":300}"#), ..NewStep::new(kind("number")) };
    let wrong = submit(&fleet.store, wrong).await;
    handlers
        .typed(kind("shaky"), |_: serde_json::Value, run: Run| async move {
            assert!(run.claim.attempt.0 > 1, "at the disco");
            Ok("fine")
        })
        .unwrap();
    let shaky = submit(&fleet.store, NewStep::new(kind("shaky"))).await;
    let pod = fleet.start(fleet.settings("p"), handlers);
    let step = finished(&pod, wrong).await;
    assert_eq!((step.state, step.attempt.0), (StepState::Failed, 1));
    assert!(step.last_error.unwrap().starts_with("the arguments do not fit"));
    let step = finished(&pod, shaky).await;
    assert_eq!((step.state, step.attempt.0), (StepState::Completed, 2));
    let attempts = fleet.store.attempts(shaky).await.unwrap().value;
    let error = attempts[0].error.as_deref();
    assert_eq!(error, Some("the handler panicked: at the disco"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_steps_over_several_pods_run_once_each() {
    const STEPS: usize = 2_000;
    let fleet = Fleet::new();
    let seen: Arc<Mutex<BTreeMap<String, usize>>> = Arc::default();
    let counting = || {
        let seen = Arc::clone(&seen);
        handlers(move |args, run| {
            *seen.lock().entry(run.claim.key.id.to_string()).or_default() += 1;
            assert_eq!(run.claim.attempt.0, 1);
            std::future::ready(Ok(args))
        })
    };
    for _ in 0..STEPS / 500 {
        fleet.submit(500).await;
    }
    let pods: Vec<_> =
        (0..4).map(|n| fleet.start(fleet.settings(&format!("p{n}")), counting())).collect();
    until("all are completed", async || {
        fleet.store.counts().await.unwrap().value.completed == STEPS as u64
    })
    .await;
    assert_eq!(seen.lock().len(), STEPS);
    assert!(seen.lock().values().all(|times| *times == 1));
    for pod in pods {
        let counted = pod.drain().await.counted;
        assert_eq!((counted.fenced, counted.lost, counted.failed), (0, 0, 0));
        assert_eq!(counted.claimed, counted.completed);
    }
}

#[tokio::test]
async fn a_pod_holds_no_more_than_capacity_and_prefetch() {
    let fleet = Fleet::new();
    fleet.submit(100).await;
    let gate = Gate::shut();
    let settings = PodSettings {
        max_parallelism: 5,
        capacity_threshold: 0.8,
        prefetch_max: 3,
        ..fleet.settings("p")
    };
    let pod = fleet.start(settings, gate.handlers());
    let handle = pod.handle();
    until("it runs what it may", async || gate.running() == 4).await;
    until("it holds some ready", async || handle.status().held.ready == 3).await;
    let counts = fleet.store.counts().await.unwrap().value;
    assert_eq!((counts.claimed, counts.pending), (7, 93));
    gate.open(100);
    counted(&handle, "all are done", |counted| counted.completed == 100).await;
}

#[tokio::test]
async fn an_attempt_that_runs_out_of_time_is_stopped_and_tried_again() {
    let fleet = Fleet::new();
    let gate = Gate::shut();
    let pod = fleet.start(fleet.settings("p"), gate.handlers());
    let hung = NewStep { timeout_ms: Some(20), attempts_max: 2, ..numbered(1) };
    let id = submit(&fleet.store, hung).await;
    let step = finished(&pod, id).await;
    assert_eq!((step.state, step.attempt.0), (StepState::Failed, 2));
    assert_eq!(step.last_error.as_deref(), Some("the attempt ran longer than 20 ms"));
    until("its handlers are dropped", async || gate.dropped() == 2).await;
    assert_eq!(pod.handle().status().counted.timed_out, 2);
}

#[tokio::test]
async fn who_runs_a_step_that_is_called_off_is_stopped() {
    let fleet = Fleet::new();
    let gate = Gate::shut();
    // Long enough that a busy machine does not let it end first.
    let settings = PodSettings { step_lease_ms: 10_000, ..fleet.settings("p") };
    let pod = fleet.start(settings, gate.handlers());
    let id = fleet.submit(1).await[0];
    until("it runs", async || gate.running() == 1).await;
    fleet.store.cancel(vec![id]).await.unwrap();
    let step = finished(&pod, id).await;
    assert_eq!(step.state, StepState::Cancelled);
    until("its handler is dropped", async || gate.dropped() == 1).await;
    let attempts = fleet.store.attempts(id).await.unwrap().value;
    assert_eq!(attempts[0].end, AttemptEnd::Cancelled);
}

#[tokio::test]
async fn a_handler_may_note_effects_and_show_progress() {
    let fleet = Fleet::new();
    let gate = Gate::shut();
    let inside = gate.clone();
    let noting = handlers(move |_, run| {
        let gate = inside.clone();
        async move {
            run.progress(JsonText::of("progress", &"half").unwrap()).unwrap();
            let value = JsonText::of("value", &run.claim.attempt.0).unwrap();
            let noted = run.note_effect("mail", value).await.map_err(HandlerError::retry)?;
            gate.permits.acquire().await.unwrap().forget();
            match noted {
                EffectNoted::Now => Err(HandlerError::retry("sent, then died")),
                EffectNoted::Before { value } => Ok(serde_json::json!({
                    "sent_by_attempt": value.as_str(), "key": run.idempotency_key(),
                })),
                EffectNoted::Fenced | EffectNoted::TooMany => Err(HandlerError::fatal("not noted")),
            }
        }
    });
    let settings = PodSettings { step_lease_ms: 300, ..fleet.settings("p") };
    let pod = fleet.start(settings, noting);
    let id = fleet.submit(1).await[0];
    until("progress is shown", async || fleet.step(id).await.progress == Some(json(r#""half""#)))
        .await;
    gate.open(2);
    let step = finished(&pod, id).await;
    let expected = format!(r#"{{"key":"idempotent_{id}","sent_by_attempt":"1"}}"#);
    assert_eq!(step.result, Some(json(&expected)));
}

#[tokio::test]
async fn a_result_past_its_limit_is_an_error_of_its_step_alone() {
    let fleet = Fleet::new();
    let large = handlers(|args, _| async move {
        let bytes = if args["n"] == 1 { 2_000_000 } else { 1 };
        Ok(serde_json::Value::String("x".repeat(bytes)))
    });
    let ids = fleet.submit(3).await;
    let pod = fleet.start(fleet.settings("p"), large);
    let mut states = Vec::new();
    for id in ids {
        states.push(finished(&pod, id).await.state);
    }
    assert_eq!(states, [StepState::Completed, StepState::Failed, StepState::Completed]);
}

#[tokio::test]
async fn a_pod_with_wrong_settings_or_a_used_folder_does_not_start() {
    let fleet = Fleet::new();
    let store = || fleet.store.clone();
    let wrong = PodSettings { max_parallelism: 0, grace_ms: u64::MAX, ..fleet.settings("p") };
    match RunningPod::start(wrong, store(), Handlers::new()) {
        Err(PodError::Settings(invalid)) => {
            assert!(invalid.problem.contains("max_parallelism"));
            assert!(invalid.problem.contains("grace_ms"));
        }
        other => panic!("{other:?}"),
    }
    let pod = fleet.start(fleet.settings("p"), Handlers::new());
    let second = RunningPod::start(fleet.settings("p"), store(), Handlers::new());
    assert!(matches!(second, Err(PodError::Local(_))), "{second:?}");
    pod.drain().await;
}
