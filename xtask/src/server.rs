//! A node of the release binary in its own process, for checks that start and kill one.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::tree;

/// Longest wait for a node to say that it is ready.
const READY_MAX: Duration = Duration::from_secs(60);

/// A running node; killed when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// Base address of its HTTP interface.
    pub url: String,
    /// Time from the start of the process to its ready line.
    pub ready_after: Duration,
    /// Log entries that were applied again before that.
    pub entries_replayed: u64,
}

/// What the checks need of a ready line: `{"ready":true,"url":"http://127.0.0.1:41234",…}`.
#[derive(Debug, serde::Deserialize)]
struct ReadyLine {
    url: String,
    entries_replayed: u64,
}

impl Server {
    /// Starts `tl serve` on this data folder and a free port, and waits until it is ready.
    pub fn start(data: &Path) -> Result<Self> {
        let mut command = Command::new(tree::tl());
        command.args(serve_args(data));
        Self::spawn(command)
    }

    /// Starts the node through a command that was prepared by the caller.
    pub fn spawn(command: Command) -> Result<Self> {
        Self::spawn_within(command, READY_MAX)
    }

    /// The same with so much patience.
    pub fn spawn_within(mut command: Command, longest: Duration) -> Result<Self> {
        let began = Instant::now();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let stdout = child.stdout.take().expect("stdout was asked for as a pipe");
        let (sender, lines) = mpsc::channel();
        // The thread ends with the pipe; it also keeps the pipe from filling up.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut server =
            Server { child, url: String::new(), ready_after: Duration::ZERO, entries_replayed: 0 };
        loop {
            let left = longest.saturating_sub(began.elapsed());
            let Ok(line) = lines.recv_timeout(left) else {
                bail!("the node ended or stayed silent for {} s", longest.as_secs());
            };
            if let Ok(ready) = serde_json::from_str::<ReadyLine>(&line) {
                server.url = ready.url;
                server.entries_replayed = ready.entries_replayed;
                server.ready_after = began.elapsed();
                return Ok(server);
            }
        }
    }

    /// Starts a node and kills it after `life`, ready or not: a crash in the middle of recovery.
    pub fn start_and_kill(data: &Path, life: Duration) -> Result<()> {
        let mut child = Command::new(tree::tl())
            .args(serve_args(data))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start tl")?;
        std::thread::sleep(life);
        child.kill().context("cannot kill the node")?;
        child.wait().context("cannot wait for the node")?;
        Ok(())
    }

    /// Number of its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends the process at once, as a crash would: SIGKILL.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill().context("cannot kill the node")?;
        self.child.wait().context("cannot wait for the node")?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already ended after `kill`; then both calls fail harmlessly.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The words that start a node on `data` and a free port, reporting on stdout as JSON.
pub fn serve_args(data: &Path) -> Vec<String> {
    let data = data.to_string_lossy().into_owned();
    ["serve", "--data", &data, "--listen", "127.0.0.1:0", "--json"].map(String::from).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_ends_without_a_ready_line_is_an_error() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo '{\"other\":1}'"]);
        assert!(Server::spawn(command).is_err());
    }

    #[test]
    fn address_and_replayed_entries_are_taken_from_the_ready_line() {
        let mut command = Command::new("sh");
        let line = r#"{"ready":true,"url":"http://127.0.0.1:1","entries_replayed":7}"#;
        command.args(["-c", &format!("echo starting; echo '{line}'; exec sleep 30")]);
        let server = Server::spawn(command).unwrap();
        assert_eq!((&*server.url, server.entries_replayed), ("http://127.0.0.1:1", 7));
        server.kill().unwrap();
    }
}
