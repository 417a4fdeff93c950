//! Pods as processes over either store: killed, frozen, with other calendars, and a database that
//! stalls.
//!
//! The processes are this test program itself: with [`PLACE`] in its environment, a test of
//! this file becomes a pod instead, and runs until it is killed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tl_core::fleet::Backoff;
use tl_fleet::postgres::{PostgresOptions, PostgresStore};
use tl_fleet::sqlite::{SqliteOptions, SqliteStore};
use tl_fleet::{HandlerError, Handlers, JsonText, PodSettings, RunningPod, Step, StepId, Store};
use tokio::sync::Semaphore;

use super::{handlers, until};
use crate::conformance::pod;
use crate::postgres::server::{self, Server};

mod crowds;
mod deaths;
mod outages;

/// Where the database is; whoever has this in its environment is a pod.
const PLACE: &str = "TL_FLEET_TEST_PLACE";
/// Folder for what is a pod's own.
const FOLDER: &str = "TL_FLEET_TEST_FOLDER";
/// The pod's name.
const NAME: &str = "TL_FLEET_TEST_POD";
/// What its handlers do: see [`be_a_pod`].
const WORK: &str = "TL_FLEET_TEST_WORK";
/// Lease of a life and of a step, milliseconds.
const LEASE_MS: u64 = 1_000;

/// A test over SQLite and the same over Postgres.
macro_rules! on_both {
    ($($scenario:path as $name:ident,)*) => {
        mod sqlite {
            $(#[test]
            fn $name() {
                let test = concat!(module_path!(), "::", stringify!($name));
                super::on(false, test, $scenario);
            })*
        }
        mod postgres {
            $(#[test]
            fn $name() {
                let test = concat!(module_path!(), "::", stringify!($name));
                super::on(true, test, $scenario);
            })*
        }
    };
}

on_both! {
    crate::pod::process::deaths::killed as a_step_of_a_killed_process_is_done_by_another,
    crate::pod::process::deaths::frozen as a_frozen_process_that_wakes_can_do_no_harm_and_leads_no_more,
    crate::pod::process::deaths::leader as a_leader_killed_in_the_middle_of_recovery_strands_nothing,
    crate::pod::process::crowds::thousand as a_thousand_steps_have_a_thousand_effects_whoever_is_killed,
    crate::pod::process::crowds::many as ten_thousand_steps_over_eight_pods_run_once_each,
    crate::pod::process::outages::short as a_stall_shorter_than_the_lease_costs_no_attempt,
    crate::pod::process::outages::long as a_stall_of_three_leases_ends_lives_and_loses_nothing,
}

#[test]
fn pods_whose_calendars_are_ten_minutes_off_reap_nobody_and_lead_nobody_out() {
    let test = concat!(
        module_path!(),
        "::pods_whose_calendars_are_ten_minutes_off_reap_nobody_and_lead_nobody_out"
    );
    on(true, test, deaths::skewed);
}

/// Runs a scenario in a world of its own, or becomes a pod of one.
fn on<W: Future<Output = ()>>(
    is_postgres: bool,
    test: &'static str,
    scenario: impl FnOnce(World) -> W,
) {
    be_a_pod();
    runtime().block_on(async {
        let world = World::new(is_postgres, test).await;
        scenario(world).await;
    });
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// A database, and what this process sees of it.
struct World {
    /// The test that its pods become, as this program is told.
    test: &'static str,
    folder: TempDir,
    place: String,
    store: Arc<dyn Store>,
    /// Of its own, for it is made to stall.
    server: Option<Server>,
}

async fn open(place: &str) -> Arc<dyn Store> {
    match place.strip_prefix("file ") {
        Some(path) => Arc::new(SqliteStore::open(SqliteOptions::new(path)).unwrap()),
        None => {
            let options = PostgresOptions::parse(place).unwrap();
            Arc::new(PostgresStore::open(options).await.unwrap())
        }
    }
}

impl World {
    async fn new(is_postgres: bool, test: &'static str) -> World {
        let folder = tempfile::tempdir().unwrap();
        let server = is_postgres.then(server::start);
        let place = match &server {
            Some(server) => server.url(),
            None => format!("file {}", folder.path().join("fleet.db").display()),
        };
        let store = open(&place).await;
        // Of "it::pod::…" this program knows "pod::…".
        let test = test.split_once("::").unwrap().1;
        World { test, folder, place, store, server }
    }

    fn start(&self, name: &str, work: &str) -> Process {
        self.start_with(name, work, &[])
    }

    fn start_with(&self, name: &str, work: &str, environment: &[(&str, &str)]) -> Process {
        let child = Command::new(std::env::current_exe().unwrap())
            .args([self.test, "--exact", "--nocapture"])
            .env(PLACE, &self.place)
            .env(FOLDER, self.folder.path())
            .env(NAME, name)
            .env(WORK, work)
            .envs(environment.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Process { child }
    }

    /// A pod in this process, over connections of its own.
    async fn start_here(&self, settings: PodSettings, handlers: Handlers) -> RunningPod {
        RunningPod::start(settings, open(&self.place).await, handlers).unwrap()
    }

    fn settings(&self, name: &str) -> PodSettings {
        settings(name, self.folder.path())
    }

    async fn submit(&self, steps: usize) -> Vec<StepId> {
        let mut ids = Vec::new();
        for first in (0..steps).step_by(1_000) {
            let count = (steps - first).min(1_000);
            let batch = (first..first + count).map(crate::conformance::numbered);
            let batch = batch.map(|step| tl_fleet::NewStep { attempts_max: 11, ..step }).collect();
            let submitted = self.store.submit(batch).await.unwrap().value;
            ids.extend(submitted.iter().map(|submitted| submitted.id));
        }
        ids
    }

    async fn step(&self, id: StepId) -> Step {
        crate::conformance::step(&self.store, id).await
    }

    /// One number from the database.
    async fn number(&self, sql: &str) -> i64 {
        match &self.server {
            Some(server) => {
                let (client, connection) =
                    tokio_postgres::connect(&server.url(), tokio_postgres::NoTls).await.unwrap();
                tokio::spawn(connection);
                client.query_one(sql, &[]).await.unwrap().get(0)
            }
            None => {
                Connection::open(self.path()).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
            }
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("fleet.db")
    }

    /// Freezes a pod, but over SQLite not in the middle of a transaction: then nobody could
    /// write.
    async fn freeze(&self, process: &Process) {
        if self.server.is_some() {
            return process.signal(Signal::STOP);
        }
        until("it is frozen between transactions", async || {
            process.signal(Signal::STOP);
            let free = ["fleet.db-next", "fleet.db-turn"]
                .iter()
                .all(|name| File::open(self.folder.path().join(name)).unwrap().try_lock().is_ok());
            if !free {
                process.signal(Signal::CONT);
            }
            free
        })
        .await;
    }

    /// The database answers nobody until the stall is over: another program holds the file's
    /// lock, or every process of the server stands still in the middle of whatever it does.
    fn stall(&self) -> Stall {
        match &self.server {
            Some(server) => {
                let pids = processes(server);
                pids.iter().for_each(|pid| kill_process(*pid, Signal::STOP).unwrap());
                Stall { pids, _lock: None }
            }
            None => {
                let lock = Connection::open(self.path()).unwrap();
                lock.busy_timeout(super::PATIENCE).unwrap();
                lock.execute_batch("BEGIN IMMEDIATE").unwrap();
                Stall { pids: Vec::new(), _lock: Some(lock) }
            }
        }
    }
}

/// The processes of a server: the first, and those that it started.
fn processes(server: &Server) -> Vec<Pid> {
    let written = std::fs::read_to_string(server.folder.join("data/postmaster.pid")).unwrap();
    let first: i32 = written.lines().next().unwrap().parse().unwrap();
    let number = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.ok()?.file_name().to_str()?.parse::<i32>().ok()
    };
    let parent = |pid: i32| {
        // The name before the state may hold anything, but the last parenthesis ends it.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<i32>().ok()
    };
    let all = std::fs::read_dir("/proc").unwrap().filter_map(number);
    let ours = all.filter(|pid| *pid == first || parent(*pid) == Some(first));
    ours.filter_map(Pid::from_raw).collect()
}

/// Over when dropped.
struct Stall {
    pids: Vec<Pid>,
    _lock: Option<Connection>,
}

impl Drop for Stall {
    fn drop(&mut self) {
        for pid in &self.pids {
            // One that has ended meanwhile is as good.
            let _ = kill_process(*pid, Signal::CONT);
        }
    }
}

/// A pod in a process of its own; killed when dropped.
struct Process {
    child: Child,
}

impl Process {
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Also a frozen one; one that is dead already is as good.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn settings(name: &str, folder: &Path) -> PodSettings {
    PodSettings {
        heartbeat_ms: 100,
        pod_lease_ms: LEASE_MS,
        step_lease_ms: LEASE_MS,
        recovery_ms: 50,
        backoff: Backoff { base_ms: 1, max_ms: 20 },
        poison_after: 11,
        heed_pressure: false,
        ..PodSettings::new(pod(name), folder.join(name))
    }
}

/// Becomes a pod when that is asked for; never comes back then.
fn be_a_pod() {
    let Some(place) = std::env::var_os(PLACE) else { return };
    let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
    let name = std::env::var(NAME).unwrap();
    let work = std::env::var(WORK).unwrap();
    runtime().block_on(async move {
        let store = open(place.to_str().unwrap()).await;
        let handlers = match work.as_str() {
            "nothing" => Handlers::new(),
            "for-ever" => for_ever(),
            "effects" => effects(),
            _ => handlers(move |_, _| std::future::ready(Ok(work.clone().into()))),
        };
        let _pod = RunningPod::start(settings(&name, &folder), store, handlers).unwrap();
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
