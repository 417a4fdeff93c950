//! Pods as processes: killed, frozen, and killed again and again.
//!
//! The processes are this test program itself: with [`FOLDER`] in its environment, a test of
//! this file becomes a pod instead, and runs until it is killed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tl_core::fleet::Backoff;
use tl_fleet::sqlite::{SqliteOptions, SqliteStore};
use tl_fleet::{HandlerError, Handlers, JsonText, NewStep, PodSettings, RunningPod, StepState};
use tokio::sync::Semaphore;

use super::{Fleet, handlers, until};
use crate::conformance::{numbered, pod};

/// Where the database is; whoever has this in its environment is a pod.
const FOLDER: &str = "TL_FLEET_TEST_FOLDER";
/// The pod's name.
const NAME: &str = "TL_FLEET_TEST_POD";
/// What its handlers do: see [`be_a_pod`].
const WORK: &str = "TL_FLEET_TEST_WORK";

/// A pod in a process of its own; killed when dropped.
struct Process {
    child: Child,
}

impl Process {
    fn start(test: &str, folder: &Path, name: &str, work: &str) -> Process {
        let child = Command::new(std::env::current_exe().unwrap())
            .args([test, "--exact", "--nocapture"])
            .env(FOLDER, folder)
            .env(NAME, name)
            .env(WORK, work)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Process { child }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Stops it, but not in the middle of a transaction: then nobody could write.
    async fn freeze(&self, folder: &Path) {
        until("it is frozen between transactions", async || {
            self.signal(Signal::STOP);
            let free = ["fleet.db-next", "fleet.db-turn"]
                .iter()
                .all(|name| File::open(folder.join(name)).unwrap().try_lock().is_ok());
            if !free {
                self.signal(Signal::CONT);
            }
            free
        })
        .await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Also a frozen one; one that is dead already is as good.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Becomes a pod when that is asked for; never comes back then.
fn be_a_pod() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let name = std::env::var(NAME).unwrap();
    let work = std::env::var(WORK).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async move {
        let options = SqliteOptions::new(folder.join("fleet.db"));
        let store = Arc::new(SqliteStore::open(options).unwrap());
        let settings = PodSettings {
            heartbeat_ms: 100,
            pod_lease_ms: 1_000,
            step_lease_ms: 1_000,
            recovery_ms: 50,
            backoff: Backoff { base_ms: 1, max_ms: 20 },
            poison_after: 11,
            heed_pressure: false,
            ..PodSettings::new(pod(&name), folder.join(&name))
        };
        let handlers = match work.as_str() {
            "for-ever" => for_ever(),
            "effects" => effects(),
            _ => super::handlers(move |_, _| std::future::ready(Ok(work.clone().into()))),
        };
        let _pod = RunningPod::start(settings, store, handlers).unwrap();
        std::future::pending::<()>().await;
    });
}

fn for_ever() -> Handlers {
    let never = Arc::new(Semaphore::new(0));
    handlers(move |_, _| {
        let never = never.clone();
        async move {
            drop(never.acquire().await);
            Ok(serde_json::Value::Null)
        }
    })
}

/// Each step has one effect, noted before it is completed; work takes a few milliseconds.
fn effects() -> Handlers {
    handlers(|_, run| async move {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..10))).await;
        let value = JsonText::of("value", &run.claim.attempt.0).unwrap();
        run.note_effect("done", value).await.map_err(HandlerError::retry)?;
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..10))).await;
        Ok(serde_json::Value::Null)
    })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn a_step_of_a_killed_process_is_done_by_another() {
    be_a_pod();
    runtime().block_on(async {
        let this = "pod::process::a_step_of_a_killed_process_is_done_by_another";
        let fleet = Fleet::new();
        let folder = fleet.folder.path();
        let id = fleet.submit(1).await[0];
        let mut doomed = Process::start(this, folder, "doomed", "for-ever");
        until("it works and leads", async || {
            fleet.step(id).await.state == StepState::Claimed
                && fleet.store.leader().await.unwrap().value.is_some()
        })
        .await;
        let epoch = fleet.store.leader().await.unwrap().value.unwrap().epoch;
        let _next = Process::start(this, folder, "next", "done by next");
        until("both live", async || fleet.store.pods().await.unwrap().value.len() == 2).await;
        doomed.kill();
        until("it is done", async || fleet.step(id).await.state == StepState::Completed).await;
        let step = fleet.step(id).await;
        assert_eq!((step.attempt.0, step.charged), (2, 1));
        assert_eq!(step.result.unwrap().as_str(), r#""done by next""#);
        let leader = fleet.store.leader().await.unwrap().value.unwrap();
        assert_eq!((leader.life.pod.as_str(), leader.epoch.0), ("next", epoch.0 + 1));
        assert_eq!(fleet.store.counts().await.unwrap().value.claimed, 0);
    });
}

#[test]
fn a_frozen_process_that_wakes_can_do_no_harm_and_leads_no_more() {
    be_a_pod();
    runtime().block_on(async {
        let this = "pod::process::a_frozen_process_that_wakes_can_do_no_harm_and_leads_no_more";
        let fleet = Fleet::new();
        let folder = fleet.folder.path();
        let id = fleet.submit(1).await[0];
        let frozen = Process::start(this, folder, "frozen", "for-ever");
        until("it works and leads", async || {
            fleet.step(id).await.state == StepState::Claimed
                && fleet.store.leader().await.unwrap().value.is_some()
        })
        .await;
        let life = fleet.store.leader().await.unwrap().value.unwrap().life;
        frozen.freeze(folder).await;
        let _next = Process::start(this, folder, "next", "done by next");
        until("it is done", async || fleet.step(id).await.state == StepState::Completed).await;
        until("the other leads", async || {
            let leader = fleet.store.leader().await.unwrap().value;
            leader.is_some_and(|leader| leader.life.pod.as_str() == "next")
        })
        .await;
        let epoch = fleet.store.leader().await.unwrap().value.unwrap().epoch;
        frozen.signal(Signal::CONT);
        until("it begins another life", async || {
            let pods = fleet.store.pods().await.unwrap().value;
            pods.iter()
                .any(|pod| pod.life.pod == life.pod && pod.life.incarnation > life.incarnation)
        })
        .await;
        let pods = fleet.store.pods().await.unwrap().value;
        assert_eq!(pods[0].life.pod.as_str(), "next", "it is the younger now");
        let leader = fleet.store.leader().await.unwrap().value.unwrap();
        assert_eq!((leader.life.pod.as_str(), leader.epoch), ("next", epoch));
        let step = fleet.step(id).await;
        assert_eq!((step.state, step.attempt.0), (StepState::Completed, 2));
        assert_eq!(step.result.unwrap().as_str(), r#""done by next""#);
    });
}

#[test]
fn a_thousand_steps_have_a_thousand_effects_whoever_is_killed() {
    const STEPS: usize = 1_000;
    be_a_pod();
    runtime().block_on(async {
        let this = "pod::process::a_thousand_steps_have_a_thousand_effects_whoever_is_killed";
        let fleet = Fleet::new();
        let folder = fleet.folder.path();
        let steps = (0..STEPS).map(|n| NewStep { attempts_max: 11, ..numbered(n) }).collect();
        fleet.store.submit(steps).await.unwrap();
        let start = |number: usize| Process::start(this, folder, &format!("p{number}"), "effects");
        let mut pods: Vec<Process> = (0..4).map(start).collect();
        for round in 1..=8 {
            until("some more are done", async || {
                fleet.store.counts().await.unwrap().value.completed >= round * 100
            })
            .await;
            let unlucky = fastrand::usize(..pods.len());
            pods[unlucky].kill();
            pods[unlucky] = start(unlucky);
        }
        until("all are done", async || {
            fleet.store.counts().await.unwrap().value.completed == STEPS as u64
        })
        .await;
        let conn = rusqlite::Connection::open(fleet.path()).unwrap();
        let effects: usize = conn
            .query_row("SELECT count(*) FROM fleet_effects", [], |row| row.get::<_, i64>(0))
            .unwrap()
            .unsigned_abs() as usize;
        assert_eq!(effects, STEPS);
        let counts = fleet.store.counts().await.unwrap().value;
        assert_eq!((counts.failed, counts.claimed, counts.pending), (0, 0, 0));
    });
}
