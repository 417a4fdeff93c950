//! Kills, freezes and ends the members of a `tl dev` cluster in turn, under writers through every
//! one of them, and checks what was acknowledged.
//!
//! The cluster is what a newcomer starts: one command, members on loopback, each a process that is
//! started again when it ends. A blow counts once the command says that the member is back, or once
//! the frozen one goes on; meanwhile those who write through the others must get on.
//!
//! Links are not touched here: that takes namespaces of the network, see [`crate::soak`].

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tl_client::Client;
use tl_client::verify::{Ledger, Via};
use tl_client::workload::{Workload, WorkloadOptions};
use tokio::runtime::Runtime;

use crate::crash::{Load, check};
use crate::tree;

/// Longest wait for the cluster, or for a member that has ended, to be ready.
const READY_MAX: Duration = Duration::from_secs(90);
/// Longest wait for writers to get on.
const GET_ON_MAX: Duration = Duration::from_secs(60);
/// Acknowledged events by which writers have got on.
const EVENTS_PER_STEP: u64 = 40;
/// How long a member is frozen at most, milliseconds.
const FROZEN_MS_MAX: u64 = 5_000;

/// What a run does.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Members of the cluster.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(3..=5))]
    pub nodes: u16,
    /// How long blows fall, seconds; the last one is waited for.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: u64,
    /// Concurrent writers through each member.
    #[arg(long, default_value_t = 8)]
    pub writers: usize,
    /// Start of the random choices; a fresh one is drawn and printed when not given.
    #[arg(long)]
    pub seed: Option<u64>,
}

/// What is done to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    /// `kill -9`.
    Kill,
    /// SIGSTOP, and SIGCONT after a while.
    Freeze,
    /// SIGTERM: it drains and ends.
    End,
}

const BLOWS: [Blow; 3] = [Blow::Kill, Blow::Freeze, Blow::End];

/// A member, as the command tells of it.
#[derive(Debug, Clone, Deserialize)]
struct Member {
    name: String,
    url: String,
    pid: i32,
}

/// A line of the command.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Line {
    Ready { nodes: Vec<Member> },
    Restarted { restarted: Member },
}

/// The command and its members; ended when dropped, and they with it.
struct Dev {
    child: Child,
    lines: mpsc::Receiver<String>,
    members: Vec<Member>,
}

/// Runs blows until the time is over; the first damage ends the run and keeps the data folder.
/// Tells how many fell and how many events were acknowledged.
pub fn run(options: &Options) -> Result<(usize, u64)> {
    tree::built_tl()?;
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..));
    println!("seed {seed}, {} members, {} writers each", options.nodes, options.writers);
    let folder = tempfile::tempdir().context("cannot make a data folder")?;
    let outcome = blows(options, seed, folder.path());
    if outcome.is_err() {
        println!("the data folder is kept: {}", folder.keep().display());
    }
    outcome
}

fn blows(options: &Options, seed: u64, data: &Path) -> Result<(usize, u64)> {
    let runtime = Runtime::new().context("cannot start a runtime")?;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut dev = Dev::start(data, options.nodes)?;
    let mut loads = Vec::new();
    for member in &dev.members {
        let client = Client::new(&member.url)?;
        let chosen = WorkloadOptions {
            writers: options.writers,
            seed: random.u64(..),
            ..WorkloadOptions::default()
        };
        let workload = runtime.block_on(Workload::prepare(&client, chosen))?;
        loads.push(Load::start(&runtime, workload));
    }
    let until = Instant::now() + Duration::from_secs(options.seconds);
    let mut fallen = 0;
    while fallen < BLOWS.len() || Instant::now() < until {
        let victim = random.usize(..loads.len());
        // Each kind once, then any.
        let blow = BLOWS.get(fallen).copied().unwrap_or(BLOWS[random.usize(..BLOWS.len())]);
        let others = (0..loads.len()).filter(|number| *number != victim);
        let others: Vec<&Load> = others.map(|number| &loads[number].0).collect();
        let began = Instant::now();
        dev.strike(victim, blow, random.u64(..FROZEN_MS_MAX), || get_on(&runtime, &others))?;
        get_on(&runtime, &loads.iter().map(|(load, _)| load).collect::<Vec<_>>())?;
        fallen += 1;
        let took = began.elapsed().as_secs_f64();
        println!("{blow:?} of {}: all got on after {took:.1} s", dev.members[victim].name);
    }
    let mut ledger = Ledger::default();
    for (load, stop) in loads {
        ledger.merge(load.end(&runtime, stop)?.ledger());
    }
    for member in &dev.members {
        check(&runtime, &Client::new(&member.url)?, &ledger, Via::Pages)
            .with_context(|| format!("as {} shows them", member.name))?;
    }
    let events = ledger.acknowledged_events();
    dev.end()?;
    println!("{fallen} blows, {events} events, none lost");
    Ok((fallen, events))
}

/// Waits until each of these writers has more acknowledged.
fn get_on(runtime: &Runtime, loads: &[&Load]) -> Result<()> {
    let goals: Vec<u64> = loads.iter().map(|load| load.acked_events() + EVENTS_PER_STEP).collect();
    for (load, goal) in loads.iter().zip(goals) {
        load.acked_past(runtime, goal, GET_ON_MAX)?;
    }
    Ok(())
}

impl Dev {
    fn start(data: &Path, nodes: u16) -> Result<Dev> {
        let mut child = Command::new(tree::tl())
            .args(["dev", "--json", "--listen", "127.0.0.1:0", "--nodes", &nodes.to_string()])
            .arg("--data")
            .arg(data)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start `tl dev`")?;
        let stdout = child.stdout.take().expect("stdout was asked for as a pipe");
        let (sender, lines) = mpsc::channel();
        // The thread ends with the pipe; a line comes once per start of a member.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut dev = Dev { child, lines, members: Vec::new() };
        match dev.line()? {
            Line::Ready { nodes } => dev.members = nodes,
            Line::Restarted { restarted } => bail!("{} ended at once", restarted.name),
        }
        Ok(dev)
    }

    fn line(&self) -> Result<Line> {
        let line = self.lines.recv_timeout(READY_MAX);
        let line = line.context("`tl dev` ended, or a member was not ready in time")?;
        serde_json::from_str(&line).with_context(|| format!("`tl dev` said {line:?}"))
    }

    /// Does it, has the others get on meanwhile, and waits until the member is there again.
    fn strike(
        &mut self,
        victim: usize,
        blow: Blow,
        frozen_ms: u64,
        meanwhile: impl Fn() -> Result<()>,
    ) -> Result<()> {
        let signal = match blow {
            Blow::Kill => Signal::KILL,
            Blow::Freeze => Signal::STOP,
            Blow::End => Signal::TERM,
        };
        let pid = Pid::from_raw(self.members[victim].pid).context("a process has a number")?;
        kill_process(pid, signal).context("striking a member")?;
        let outcome = meanwhile();
        if blow == Blow::Freeze {
            std::thread::sleep(Duration::from_millis(frozen_ms));
            kill_process(pid, Signal::CONT).context("letting a member go on")?;
            return outcome;
        }
        outcome?;
        let Line::Restarted { restarted } = self.line()? else { bail!("it was ready before") };
        ensure!(restarted.name == self.members[victim].name, "{} ended too", restarted.name);
        ensure!(restarted.pid != self.members[victim].pid, "{} did not end", restarted.name);
        self.members[victim] = restarted;
        Ok(())
    }

    /// SIGTERM ends the command and all members, in good order.
    fn end(mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).context("ending `tl dev`")?;
        let status = self.child.wait().context("waiting for `tl dev`")?;
        ensure!(status.success(), "`tl dev` ended with {status}");
        Ok(())
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // Both fail harmlessly when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
