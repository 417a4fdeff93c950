//! The demo's node: `tl serve` of this executable in a process of its own.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

/// Longest wait for a node to be ready.
const READY_MAX: Duration = Duration::from_secs(20);
/// Longest wait for a node to end after SIGTERM.
const STOP_MAX: Duration = Duration::from_secs(5);
/// A free port.
const ANY_PORT: &str = "127.0.0.1:0";

/// A node process, killed when dropped.
#[derive(Debug)]
pub struct Child {
    process: tokio::process::Child,
    pub id: u32,
    pub url: String,
    pub took_ms: u64,
    pub entries_replayed: u64,
    address: String,
}

#[derive(Deserialize)]
struct ReadyLine {
    url: String,
    address: String,
    took_ms: u64,
    entries_replayed: u64,
}

impl Child {
    /// Starts a node on a folder, at an address or a free port, and waits until it is ready.
    pub async fn start(folder: &Path, address: Option<&str>) -> anyhow::Result<Child> {
        let program = std::env::current_exe().context("finding this program")?;
        let log_path = folder.join("node.log");
        let log = std::fs::File::create(&log_path).context("making the node's log")?;
        // A group of its own: Ctrl-C reaches the demo, which then ends the node.
        let mut process = Command::new(program)
            .args(["serve", "--json", "--end-with-parent", "--listen"])
            .arg(address.unwrap_or(ANY_PORT))
            .arg("--data")
            .arg(folder.join("data"))
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .context("starting a node")?;
        let id = process.id().context("the node ended at once")?;
        let stdout = process.stdout.take().expect("stdout was asked for as a pipe");
        let mut lines = BufReader::new(stdout).lines();
        let line = match tokio::time::timeout(READY_MAX, lines.next_line()).await {
            Ok(line) => line.context("reading from the node")?,
            Err(_) => bail!("the node was not ready within {} s", READY_MAX.as_secs()),
        };
        let Some(line) = line else {
            let log = std::fs::read_to_string(&log_path).unwrap_or_default();
            bail!("the node ended before it was ready:\n{}", log.trim_end());
        };
        let ready: ReadyLine = serde_json::from_str(&line)
            .with_context(|| format!("the node's first line is {line:?}"))?;
        Ok(Child {
            process,
            id,
            url: ready.url,
            took_ms: ready.took_ms,
            entries_replayed: ready.entries_replayed,
            address: ready.address,
        })
    }

    /// Starts a node where a killed one was: at its address, or at a free port when somebody has
    /// taken that. The flag tells whether the address is a new one.
    pub async fn restart(folder: &Path, old: &Child) -> anyhow::Result<(Child, bool)> {
        match Child::start(folder, Some(&old.address)).await {
            Ok(child) => Ok((child, false)),
            Err(_) => Ok((Child::start(folder, None).await?, true)),
        }
    }

    /// SIGKILL, as `kill -9` sends it. Answers the process id that is gone.
    pub async fn kill(&mut self) -> anyhow::Result<u32> {
        self.process.kill().await.context("killing the node")?;
        Ok(self.id)
    }

    /// SIGTERM, and SIGKILL when that takes too long.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        let pid = self.process.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        if let Some(pid) = pid {
            kill_process(pid, Signal::TERM).context("stopping the node")?;
        }
        if tokio::time::timeout(STOP_MAX, self.process.wait()).await.is_err() {
            self.process.kill().await.context("killing the node")?;
        }
        Ok(())
    }

    /// Waits until the process ends by itself.
    pub async fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        self.process.wait().await.context("waiting for the node")
    }
}
