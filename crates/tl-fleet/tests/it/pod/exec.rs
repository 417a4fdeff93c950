//! Steps as processes.

use std::ffi::OsString;

use tl_fleet::{Exec, Handlers, NewStep, RunningPod, Step, StepState};

use super::{Fleet, finished, until};
use crate::conformance::{json, kind, numbered, submit};

fn shell(script: &str) -> Handlers {
    let mut handlers = Handlers::new();
    let args = vec![OsString::from("-c"), OsString::from(script)];
    handlers.add(kind("work"), Exec { program: "sh".into(), args }).unwrap();
    handlers
}

async fn run(script: &str, step: NewStep) -> Step {
    let fleet = Fleet::new();
    let pod: RunningPod = fleet.start(fleet.settings("p"), shell(script));
    let id = submit(&fleet.store, step).await;
    finished(&pod, id).await
}

fn once() -> NewStep {
    NewStep { attempts_max: 1, ..numbered(7) }
}

#[tokio::test]
async fn a_program_reads_its_step_and_writes_its_result() {
    let fleet = Fleet::new();
    let mut handlers = Handlers::new();
    handlers.add(kind("work"), Exec::from_line("cat").unwrap()).unwrap();
    let pod = fleet.start(fleet.settings("p"), handlers);
    let step = NewStep { metadata: json(r#"{"m":1}"#), ..numbered(7) };
    let id = submit(&fleet.store, step).await;
    let step = finished(&pod, id).await;
    let result: serde_json::Value = serde_json::from_str(step.result.unwrap().as_str()).unwrap();
    let expected = serde_json::json!({
        "step_id": id.to_string(), "type": "work", "attempt": 1, "args": {"n": 7},
        "metadata": {"m": 1}, "idempotency_key": format!("idempotent_{id}"),
    });
    assert_eq!(result, expected);
    assert!(Exec::from_line("  ").is_err());
}

#[tokio::test]
async fn nothing_written_is_null_and_input_need_not_be_read() {
    let step = run("exit 0", once()).await;
    assert_eq!((step.state, step.result), (StepState::Completed, Some(json("null"))));
}

#[tokio::test]
async fn exit_codes_say_whether_to_try_again() {
    let step = run("echo why >&2; exit 3", NewStep { attempts_max: 2, ..numbered(1) }).await;
    assert_eq!((step.state, step.attempt.0), (StepState::Failed, 2));
    assert_eq!(step.last_error.as_deref(), Some("sh ended with exit status: 3: why"));
    let step = run("echo never >&2; exit 65", NewStep { attempts_max: 2, ..numbered(1) }).await;
    assert_eq!((step.state, step.attempt.0), (StepState::Failed, 1));
    let step = run("kill -9 $$", once()).await;
    assert!(step.last_error.unwrap().contains("signal: 9"));
}

#[tokio::test]
async fn bad_output_is_an_error_that_says_so() {
    for (script, expected) in [
        ("echo '{'", "is not valid JSON"),
        ("echo 1 2", "is not valid JSON"),
        ("printf '\\377'", "is not UTF-8"),
        ("head -c 1048577 /dev/zero", "has 1048577 bytes, more than 1048576"),
    ] {
        let step = run(script, once()).await;
        let error = step.last_error.unwrap();
        assert!(step.state == StepState::Failed && error.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn a_megabyte_goes_in_and_out_and_much_noise_hinders_nothing() {
    let noise = "head -c 300000 /dev/zero >&2; head -c 1048574 /dev/zero | tr '\\0' x | \
                 sed 's/^/\"/; s/$/\"/' | tr -d '\\n'; cat > /dev/null";
    let args = json(&format!(r#"{{"a":"{}"}}"#, "x".repeat(1_000_000)));
    let step = run(noise, NewStep { args, ..once() }).await;
    assert_eq!(step.state, StepState::Completed, "{:?}", step.last_error);
    assert_eq!(step.result.unwrap().len_bytes(), 1_048_576);
}

#[tokio::test]
async fn a_program_that_is_not_there_is_an_error() {
    let fleet = Fleet::new();
    let mut handlers = Handlers::new();
    handlers.add(kind("work"), Exec::from_line("/no/such/program --x").unwrap()).unwrap();
    let pod = fleet.start(fleet.settings("p"), handlers);
    let id = submit(&fleet.store, once()).await;
    let error = finished(&pod, id).await.last_error.unwrap();
    assert!(error.starts_with("/no/such/program cannot be started"), "{error}");
}

/// Whether a process is there and not only waiting to be collected.
fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
    state.is_some_and(|state| state != 'Z' && state != 'X')
}

#[tokio::test]
async fn out_of_time_the_whole_process_group_is_killed() {
    let fleet = Fleet::new();
    let pids = fleet.folder.path().join("pids");
    let script = format!("sleep 1000 & echo $! $$ > {}; wait", pids.display());
    let pod = fleet.start(fleet.settings("p"), shell(&script));
    let step = NewStep { timeout_ms: Some(500), ..once() };
    let id = submit(&fleet.store, step).await;
    let step = finished(&pod, id).await;
    assert_eq!(step.last_error.as_deref(), Some("the attempt ran longer than 500 ms"));
    let text = std::fs::read_to_string(&pids).unwrap();
    let pids: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(pids.len(), 2);
    until("both are gone", async || !pids.iter().any(|pid| is_alive(pid))).await;
}

#[tokio::test]
async fn what_a_program_leaves_behind_is_killed_and_does_not_hold_its_step() {
    let fleet = Fleet::new();
    let pids = fleet.folder.path().join("pids");
    let script = format!("sleep 1000 & echo $! > {}; echo 1", pids.display());
    let pod = fleet.start(fleet.settings("p"), shell(&script));
    let id = submit(&fleet.store, once()).await;
    let step = finished(&pod, id).await;
    assert_eq!((step.state, step.result), (StepState::Completed, Some(json("1"))));
    let pid = std::fs::read_to_string(&pids).unwrap();
    until("it is gone", async || !is_alive(pid.trim())).await;
}

#[tokio::test]
async fn who_holds_the_output_open_outside_the_group_does_not_hold_the_step() {
    let fleet = Fleet::new();
    let pids = fleet.folder.path().join("pids");
    let script = format!(
        "setsid sh -c 'echo $$ > {0}; exec sleep 1000' & until [ -s {0} ]; do sleep 0.01; done; echo 1",
        pids.display()
    );
    let pod = fleet.start(fleet.settings("p"), shell(&script));
    let id = submit(&fleet.store, once()).await;
    let step = finished(&pod, id).await;
    assert_eq!((step.state, step.result), (StepState::Completed, Some(json("1"))));
    // It left its group, and this process has not taken charge of such.
    let pid = std::fs::read_to_string(&pids).unwrap();
    assert!(is_alive(pid.trim()));
    let pid = rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}
