//! A second process to be killed or watched: this test binary, started again with instructions
//! in its environment.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Signal, getpid, kill_process};
use tl_store::{KillPoints, LsmStore, OrderedStore};

use crate::workload;

const DIR: &str = "TL_STORE_CHILD_DIR";
const ROUNDS: &str = "TL_STORE_CHILD_ROUNDS";
const KILL_AT: &str = "TL_STORE_CHILD_KILL_AT";
const KILL_AFTER: &str = "TL_STORE_CHILD_KILL_AFTER";

/// What a child is to do.
pub struct Child<'a> {
    pub dir: &'a Path,
    /// Rounds of the workload, from the one behind the last durable one.
    pub rounds: u64,
    /// Kill point at which the child kills itself, and how many times it passes it before.
    pub kill_at: Option<(&'static str, u64)>,
    /// A command to run the child under.
    pub under: Vec<String>,
}

impl Child<'_> {
    pub fn run(&self) -> Output {
        let this = std::env::current_exe().unwrap();
        let mut words = self.under.clone();
        words.push(this.to_str().unwrap().to_owned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command.args(["--exact", "child::does_as_its_environment_says", "--nocapture"]);
        command.env(DIR, self.dir).env(ROUNDS, self.rounds.to_string());
        if let Some((point, after)) = self.kill_at {
            command.env(KILL_AT, point).env(KILL_AFTER, after.to_string());
        }
        command.output().unwrap_or_else(|error| panic!("cannot start {}: {error}", words[0]))
    }
}

/// The last round that a child reported as flushed.
pub fn last_flushed(output: &Output) -> u64 {
    let text = String::from_utf8_lossy(&output.stdout);
    let rounds = text.lines().filter_map(|line| line.split("flushed ").nth(1));
    rounds.filter_map(|round| round.trim().parse().ok()).max().unwrap_or(0)
}

/// Not a test of its own: the child's side of the tests that start one.
#[test]
fn does_as_its_environment_says() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let number = |name: &str| std::env::var(name).unwrap().parse::<u64>().unwrap();
    let kill_points = match std::env::var(KILL_AT) {
        Ok(kill_at) => {
            let left = AtomicU64::new(number(KILL_AFTER));
            KillPoints::new(move |point| {
                if point == kill_at && left.fetch_sub(1, Ordering::SeqCst) == 0 {
                    kill_process(getpid(), Signal::KILL).unwrap();
                }
            })
        }
        Err(_) => KillPoints::none(),
    };
    let store = LsmStore::open(dir.as_ref(), workload::options(kill_points)).unwrap();
    let from = workload::durable_round(&store) + 1;
    let say = |what: String| {
        use std::io::Write;
        let mut out = std::io::stdout().lock();
        writeln!(out, "{what}").unwrap();
        out.flush().unwrap();
    };
    let flushed = |round| say(format!("flushed {round}"));
    let no_room = || {
        assert_eq!(files_in(dir.as_ref()), files_of(&store), "nothing half-made is left");
        say("no room".to_owned());
    };
    workload::run(&store, from, from + number(ROUNDS) - 1, flushed, no_room);
}

/// How many tables and blob files lie in a store's directory.
pub fn files_in(dir: &Path) -> (usize, usize) {
    let count = |name: &str| std::fs::read_dir(dir.join(name)).unwrap().count();
    (count("tables"), count("blobs"))
}

/// How many the store knows of.
pub fn files_of(store: &LsmStore) -> (usize, usize) {
    let stats = store.stats();
    (stats.tables, stats.blob_files)
}
