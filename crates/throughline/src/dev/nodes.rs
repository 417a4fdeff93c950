//! `tl dev --nodes N`: a cluster of real processes on this computer, under one command.
//!
//! Each member is a `tl serve` of this executable. One that ends by itself, or by somebody's
//! `kill -9`, is started again after a moment; one that keeps ending ends them all.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use serde_json::json;
use tl_engine::memory::{BUDGET_BYTES_MIN, chosen_budget};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::failure::Failure;
use crate::node::stop_signal;
use crate::ops::found_in;
use crate::output::Out;

/// Longest wait for a member to be ready.
const READY_MAX: Duration = Duration::from_secs(60);
/// Longest wait for a member to end after SIGTERM.
const STOP_MAX: Duration = Duration::from_secs(25);
/// A member that has ended is started again after this.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// A member that ends so often within [`RESTARTS_WITHIN`] is not started again.
const RESTARTS_MAX: usize = 10;
/// See [`RESTARTS_MAX`].
const RESTARTS_WITHIN: Duration = Duration::from_secs(60);
/// File of the members' log lines, in each member's directory.
const LOG: &str = "node.log";

/// What every member is started with.
struct Plan {
    folder: PathBuf,
    members: Vec<Member>,
    /// All members and where they listen for one another, as a setting.
    list: String,
    memory_budget_bytes: u64,
    log_level: String,
}

struct Member {
    name: String,
    data: PathBuf,
    listen: String,
}

/// A member's process.
struct Process {
    child: Child,
    ready: ReadyLine,
    starts: Vec<Instant>,
}

#[derive(Debug, Clone, Deserialize)]
struct ReadyLine {
    url: String,
    address: String,
    pid: u32,
}

/// Runs until Ctrl-C or SIGTERM.
pub async fn run(
    data: &Path,
    listen: &str,
    nodes: u16,
    log_level: &str,
    for_programs: bool,
    out: &Out,
) -> anyhow::Result<()> {
    let stop = stop_signal().context("listening for signals")?;
    let plan = plan(data, listen, nodes, log_level)?;
    let mut processes = Vec::new();
    let mut starting = Vec::new();
    for number in 0..plan.members.len() {
        starting.push(spawn(&plan, number, &plan.members[number].listen)?);
    }
    for (number, child) in starting.into_iter().enumerate() {
        processes.push(ready(&plan, number, child, Vec::new()).await?);
    }
    tell(&plan, &processes, for_programs, out)?;
    tokio::pin!(stop);
    let ended = loop {
        tokio::select! {
            () = &mut stop => break Ok(()),
            number = any_ended(&mut processes) => {
                let name = &plan.members[number].name;
                out.note(&format!("{name} has ended; it is started again"));
                tokio::select! {
                    () = &mut stop => break Ok(()),
                    started = again(&plan, number, &processes[number]) => match started {
                        Ok(process) => {
                            processes[number] = process;
                            if for_programs {
                                let back = shown(&plan.members[number], &processes[number]);
                                // Whoever read the first line may have gone.
                                let _ = out.json(&json!({ "restarted": back }));
                            }
                        }
                        Err(error) => break Err(error),
                    }
                }
            }
        }
    };
    for process in &processes {
        signal(process);
    }
    for process in &mut processes {
        if tokio::time::timeout(STOP_MAX, process.child.wait()).await.is_err() {
            process.child.kill().await.context("ending a member")?;
        }
    }
    ended
}

fn plan(data: &Path, listen: &str, nodes: u16, log_level: &str) -> anyhow::Result<Plan> {
    let first: SocketAddr = listen
        .parse()
        .map_err(|_| Failure::Usage(format!("--listen {listen} is not an address and port")))?;
    let names: Vec<String> = (1..=nodes).map(|number| format!("node-{number}")).collect();
    let dirs: Vec<(String, PathBuf)> =
        names.iter().map(|name| (name.clone(), data.join(name))).collect();
    let there = dirs.iter().filter(|(_, dir)| dir.join("node.json").exists()).count();
    if there == 0 {
        if data.join("node.json").exists() {
            return Err(Failure::WithAdvice {
                what: format!("{} is the directory of a single node", data.display()),
                advice: "choose another one with --data".to_owned(),
            }
            .into());
        }
        found_in(data, &names, &[], 256)?;
    } else if there != dirs.len() {
        return Err(Failure::WithAdvice {
            what: format!("{} holds another number of members", data.display()),
            advice: "use as many --nodes as before, or another --data".to_owned(),
        }
        .into());
    }
    // Held until all are known, so that no two are the same.
    let free: Vec<TcpListener> = names
        .iter()
        .map(|_| TcpListener::bind((first.ip(), 0)))
        .collect::<Result<_, _>>()
        .context("looking for free ports")?;
    let mut list = Vec::new();
    for (name, port) in names.iter().zip(&free) {
        list.push(format!("{name}={}", port.local_addr().context("looking for a free port")?));
    }
    let members = (0..nodes).zip(dirs).map(|(number, (name, data))| {
        // Neighbours of the first port; port 0 takes free ones.
        let port = if first.port() == 0 { 0 } else { first.port().saturating_add(number) };
        Member { name, data, listen: SocketAddr::new(first.ip(), port).to_string() }
    });
    Ok(Plan {
        folder: data.to_owned(),
        members: members.collect(),
        list: serde_json::to_string(&list)?,
        memory_budget_bytes: (chosen_budget() / u64::from(nodes)).max(BUDGET_BYTES_MIN),
        log_level: log_level.to_owned(),
    })
}

fn spawn(plan: &Plan, number: usize, listen: &str) -> anyhow::Result<Child> {
    let member = &plan.members[number];
    let program = std::env::current_exe().context("finding this program")?;
    let log_path = member.data.join(LOG);
    let log = std::fs::OpenOptions::new().create(true).append(true).open(&log_path);
    let log = log.with_context(|| format!("opening {}", log_path.display()))?;
    // A group of its own: Ctrl-C reaches this command, which then ends the members.
    Command::new(program)
        .args(["serve", "--json", "--end-with-parent", "--listen", listen, "--data"])
        .arg(&member.data)
        .env_clear()
        .env("TL_ENGINE__NODE_NAME", &member.name)
        .env("TL_ENGINE__MEMORY_BUDGET_BYTES", plan.memory_budget_bytes.to_string())
        .env("TL_CLUSTER__MEMBERS", &plan.list)
        .env("TL_LOGS__LEVEL", &plan.log_level)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("starting {}", member.name))
}

async fn ready(
    plan: &Plan,
    number: usize,
    mut child: Child,
    mut starts: Vec<Instant>,
) -> anyhow::Result<Process> {
    let member = &plan.members[number];
    let stdout = child.stdout.take().expect("stdout was asked for as a pipe");
    let mut lines = BufReader::new(stdout).lines();
    let line = match tokio::time::timeout(READY_MAX, lines.next_line()).await {
        Ok(line) => line.with_context(|| format!("reading from {}", member.name))?,
        Err(_) => bail!("{} was not ready within {} s", member.name, READY_MAX.as_secs()),
    };
    let Some(line) = line else {
        let log = std::fs::read_to_string(member.data.join(LOG)).unwrap_or_default();
        let last: Vec<&str> = log.lines().rev().take(5).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        bail!("{} ended before it was ready:\n{}", member.name, last.join("\n"));
    };
    let ready: ReadyLine = serde_json::from_str(&line)
        .with_context(|| format!("the first line of {} is {line:?}", member.name))?;
    starts.push(Instant::now());
    Ok(Process { child, ready, starts })
}

/// The number of a member that has ended.
async fn any_ended(processes: &mut [Process]) -> usize {
    /// Between two looks.
    const LOOK_EVERY: Duration = Duration::from_millis(100);
    loop {
        for (number, process) in processes.iter_mut().enumerate() {
            if !matches!(process.child.try_wait(), Ok(None)) {
                return number;
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn again(plan: &Plan, number: usize, before: &Process) -> anyhow::Result<Process> {
    let mut starts = before.starts.clone();
    starts.retain(|start| start.elapsed() < RESTARTS_WITHIN);
    if starts.len() >= RESTARTS_MAX {
        let log = plan.members[number].data.join(LOG);
        bail!("{} keeps ending; {} may say why", plan.members[number].name, log.display());
    }
    tokio::time::sleep(AGAIN_AFTER).await;
    let child = spawn(plan, number, &before.ready.address)?;
    ready(plan, number, child, starts).await
}

fn signal(process: &Process) {
    let pid = process.child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    if let Some(pid) = pid {
        // It may have ended just now.
        let _ = kill_process(pid, Signal::TERM);
    }
}

/// A member, for programs.
fn shown(member: &Member, process: &Process) -> serde_json::Value {
    json!({
        "name": member.name,
        "url": process.ready.url,
        "pid": process.ready.pid,
        "data_dir": member.data.display().to_string(),
    })
}

fn tell(plan: &Plan, processes: &[Process], for_programs: bool, out: &Out) -> anyhow::Result<()> {
    let members = plan.members.iter().zip(processes);
    if for_programs {
        let nodes: Vec<_> = members.map(|(member, process)| shown(member, process)).collect();
        return out.json(&json!({ "ready": true, "nodes": nodes }));
    }
    let mut text = format!(
        "Throughline {} is ready: {} nodes, one cluster. Any of them takes any request.\n\n",
        env!("CARGO_PKG_VERSION"),
        processes.len()
    );
    for (member, process) in members {
        let (name, ready) = (&member.name, &process.ready);
        text.push_str(&format!("  {name:<10} {}   process {}\n", ready.url, ready.pid));
    }
    text.push_str(&format!(
        "  data       {}\n\n  No access control: everybody on this computer may read and write. \
         Not for production.\n\nTry it: write through one node, follow through another, and end a \
         third with kill -9.\n\n  tl session create chat-42 --url {first}\n  tl session append \
         chat-42 --text hello --actor user:ann --url {first}\n  tl session tail chat-42 --url \
         {last}\n\nCtrl-C stops all nodes; their data stays.",
        plan.folder.display(),
        first = processes[0].ready.url,
        last = processes[processes.len() - 1].ready.url,
    ));
    out.line(&text)
}
