//! What a fleet must bear: the suites, and faults that take longer than a test may.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::postgres::Postgres;
use crate::accept::Verdict;
use crate::command::Call;
use crate::{faces, planted as bugs, tree};

/// Longest wait for something that must happen.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long the database is away.
const AWAY: Duration = Duration::from_secs(20);
/// The leader's lease and heartbeat, milliseconds.
const POD_LEASE_MS: u64 = 3_000;
const HEARTBEAT_MS: u64 = 500;

/// Runs tests of a crate by the beginnings of their paths; gives how many passed. None is an
/// error.
fn tests(package: &str, filters: &[&str]) -> Result<u32> {
    let mut passed = 0;
    for filter in filters {
        passed += faces::passed(package, &[filter])?;
    }
    Ok(passed)
}

fn passed(package: &str, filters: &[&str]) -> Result<Verdict> {
    Ok(Verdict::Ok(format!("{} tests pass", tests(package, filters)?)))
}

pub fn conformance() -> Result<Verdict> {
    passed("tl-fleet", &["sqlite::suite::", "postgres::suite::"])
}

pub fn processes() -> Result<Verdict> {
    passed("tl-fleet", &["pod::process::"])
}

pub fn signals() -> Result<Verdict> {
    passed("throughline", &["told_to_stop"])
}

pub fn handlers() -> Result<Verdict> {
    passed("tl-fleet", &["a_hung_step_is_taken_back", "the_last_retry_really_runs"])
}

/// The planted bugs of a fleet, each found by its test.
pub fn planted() -> Result<Verdict> {
    let found = bugs::run_some("fleet-")?;
    Ok(Verdict::Ok(format!("{found} bugs were found")))
}

/// A process that is killed when dropped.
#[derive(Debug)]
pub struct Child<'c>(&'c mut std::process::Child);

impl<'c> Child<'c> {
    /// Waits until it says that it is ready.
    pub fn ready(child: &'c mut std::process::Child) -> Result<Child<'c>> {
        let stdout = child.stdout.take().context("its output")?;
        let child = Child(child);
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let ready: Value = serde_json::from_str(&line).with_context(|| format!("said {line:?}"))?;
        ensure!(ready["ready"] == true, "it said {ready}");
        Ok(child)
    }
}

impl Drop for Child<'_> {
    fn drop(&mut self) {
        // Already ended is as good.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A fleet of the binary, over one store.
struct Fleet {
    folder: tempfile::TempDir,
    postgres: Option<Postgres>,
}

impl Fleet {
    fn new(is_postgres: bool) -> Result<Fleet> {
        let postgres = is_postgres.then(Postgres::start).transpose()?;
        Ok(Fleet { folder: tempfile::tempdir()?, postgres })
    }

    fn name(&self) -> &'static str {
        if self.postgres.is_some() { "Postgres" } else { "SQLite" }
    }

    fn db(&self) -> std::path::PathBuf {
        self.folder.path().join("fleet.db")
    }

    fn flags(&self) -> Vec<String> {
        match &self.postgres {
            Some(server) => vec!["--url".to_owned(), server.url()],
            None => vec!["--db".to_owned(), self.db().display().to_string()],
        }
    }

    fn pod(&self, name: &str, kinds: &[&str]) -> Result<std::process::Child> {
        let mut command = Command::new(tree::built_tl()?);
        command.args(["fleet", "run", "--no-http", "--json", "--pod", name]).args(self.flags());
        for kind in kinds {
            command.args(["--kind", kind]);
        }
        command
            .env("TL_FLEET_LOCAL_DIR", self.folder.path().join("pods"))
            .env("TL_FLEET_POD_LEASE_MS", POD_LEASE_MS.to_string())
            .env("TL_FLEET_HEARTBEAT_MS", HEARTBEAT_MS.to_string())
            .env("TL_FLEET_CALL_MS", "1000")
            .env("TL_FLEET_BREAKER_OPEN_MS_MAX", "1000")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        command.spawn().context("cannot start a pod")
    }

    fn tl(&self, words: &[&str]) -> Result<Vec<Value>> {
        let call = Call::new(tree::built_tl()?).args(["fleet"]).args(words).args(["--json"]);
        let printed = call.args(self.flags()).output()?;
        printed.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    fn one(&self, words: &[&str]) -> Result<Value> {
        self.tl(words)?.pop().with_context(|| format!("{words:?} printed nothing"))
    }

    /// Waits until a word's answer is as it should be.
    fn until(&self, words: &[&str], is_so: impl Fn(&Value) -> bool) -> Result<Value> {
        let began = Instant::now();
        loop {
            let seen = self.one(words);
            match seen {
                Ok(seen) if is_so(&seen) => return Ok(seen),
                seen => ensure!(began.elapsed() < PATIENCE, "{words:?} stayed at {seen:?}"),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn stop(self) -> Result<()> {
        self.postgres.map_or(Ok(()), Postgres::stop)
    }
}

fn on_both(scenario: fn(&Fleet) -> Result<String>) -> Result<Verdict> {
    let mut said = Vec::new();
    for is_postgres in [false, true] {
        let fleet = Fleet::new(is_postgres)?;
        let figure = scenario(&fleet).with_context(|| fleet.name())?;
        said.push(format!("{} {figure}", fleet.name()));
        fleet.stop()?;
    }
    Ok(Verdict::Ok(said.join("; ")))
}

/// Signals every process of the server.
fn signal(server: &Postgres, signal: &str) -> Result<()> {
    for pid in server.processes()? {
        Call::new("kill").args([signal, &pid.to_string()]).run()?;
    }
    Ok(())
}

/// Away for 20 s, while steps run whose lease is longer: their reports wait and count.
pub fn outage() -> Result<Verdict> {
    on_both(|fleet| {
        const STEPS: usize = 4;
        let folder = fleet.folder.path();
        let script = folder.join("wait.sh");
        let (begun, go) = (folder.join("begun"), folder.join("go"));
        std::fs::create_dir(&begun)?;
        let wait = format!(
            "touch {0}/$$; until [ -e {1} ]; do sleep 0.1; done",
            begun.display(),
            go.display()
        );
        std::fs::write(&script, wait)?;
        let kind = format!("wait=exec:sh {}", script.display());
        let mut child = fleet.pod("holds", &[&kind])?;
        let pod = Child::ready(&mut child)?;
        let mut ids = Vec::new();
        for _ in 0..STEPS {
            let submitted = fleet.one(&["submit", "wait"])?;
            ids.push(submitted["step_id"].as_str().context("an id")?.to_owned());
        }
        let began = Instant::now();
        while std::fs::read_dir(&begun)?.count() < STEPS {
            ensure!(began.elapsed() < PATIENCE, "the steps did not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        away(fleet, &go)?;
        fleet.until(&["status"], |seen| seen["completed"] == STEPS)?;
        for id in &ids {
            let step = fleet.one(&["status", id])?;
            ensure!(step["attempt"] == 1 && step["retry_count"] == 0, "{step}");
        }
        drop(pod);
        Ok(format!("{STEPS} steps with one attempt each"))
    })
}

/// Takes the database away for [`AWAY`]; in the middle, the steps end.
fn away(fleet: &Fleet, go: &Path) -> Result<()> {
    let lock = match &fleet.postgres {
        Some(server) => {
            signal(server, "-STOP")?;
            None
        }
        None => {
            let lock = rusqlite::Connection::open(fleet.db())?;
            lock.busy_timeout(PATIENCE)?;
            lock.execute_batch("BEGIN IMMEDIATE")?;
            Some(lock)
        }
    };
    std::thread::sleep(AWAY / 4);
    std::fs::write(go, "")?;
    std::thread::sleep(AWAY - AWAY / 4);
    drop(lock);
    match &fleet.postgres {
        Some(server) => signal(server, "-CONT"),
        None => Ok(()),
    }
}

/// From the kill of a leader until the next one leads.
pub fn takeover() -> Result<Verdict> {
    on_both(|fleet| {
        let mut first = fleet.pod("first", &[])?;
        let first = Child::ready(&mut first)?;
        let led = fleet.until(&["leader"], |seen| seen["leader"] == "first")?;
        let mut second = fleet.pod("second", &[])?;
        let _second = Child::ready(&mut second)?;
        fleet.until(&["status"], |seen| seen["pods"] == 2)?;
        drop(first);
        let killed = Instant::now();
        let next = fleet.until(&["leader"], |seen| seen["leader"] == "second")?;
        let took_ms = killed.elapsed().as_millis();
        // A look takes a process of its own, and one round of it passes in between.
        const LOOK_MS: u64 = 500;
        let most_ms = POD_LEASE_MS + HEARTBEAT_MS + LOOK_MS;
        ensure!(took_ms <= most_ms.into(), "{took_ms} ms > {most_ms} ms");
        ensure!(next["epoch"].as_u64() > led["epoch"].as_u64(), "the epoch stayed");
        Ok(format!("{took_ms} ms"))
    })
}
