//! Servers as child processes of this executable, ended when dropped.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};

/// A running server.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    /// Time from the start of its process to the line that says where it listens.
    pub ready_after: Duration,
}

impl Server {
    /// One of the ceiling's servers: `words` choose which, with its arguments.
    ///
    /// # Errors
    /// When it does not start.
    pub fn raw(words: &[&str], dir: &Path) -> anyhow::Result<Server> {
        let mut command = own("bench")?;
        command.arg("raw-server").args(words).arg("--dir").arg(dir);
        Server::start(command, |line| line.trim().parse().ok())
    }

    /// The ceiling's group commit over requests of `size` bytes, with so many followers; the first
    /// takes requests.
    ///
    /// # Errors
    /// When one does not start.
    pub fn commit(size: u32, followers: usize, dir: &Path) -> anyhow::Result<Vec<Server>> {
        let mut servers = Vec::with_capacity(followers + 1);
        for number in 1..=followers {
            let dir = dir.join(format!("follower-{number}"));
            std::fs::create_dir_all(&dir)?;
            servers.push(Server::raw(&["follow"], &dir)?);
        }
        let addresses: Vec<_> = servers.iter().map(|each| each.address.to_string()).collect();
        let (size, addresses) = (size.to_string(), addresses.join(","));
        let mut words = vec!["commit", "--size", &size];
        if followers > 0 {
            words.extend(["--followers", &addresses]);
        }
        servers.insert(0, Server::raw(&words, dir)?);
        Ok(servers)
    }

    /// A node on this directory, with the caller's environment and these settings.
    ///
    /// # Errors
    /// When it does not get ready.
    pub fn node(dir: &Path, settings: &[(&str, String)]) -> anyhow::Result<Server> {
        let mut command = own("serve")?;
        command.arg("--data").arg(dir).args(["--listen", "127.0.0.1:0", "--json"]);
        command.arg("--end-with-parent").envs(settings.iter().map(|(key, value)| (key, value)));
        Server::start(command, node_address)
    }

    fn start(
        command: Command,
        address: impl Fn(&str) -> Option<SocketAddr>,
    ) -> anyhow::Result<Server> {
        let (child, began) = Server::begin(command)?;
        Server::ready(child, began, address)
    }

    /// Starts a process whose address nobody knows yet.
    pub(super) fn begin(mut command: Command) -> anyhow::Result<(Child, Instant)> {
        let began = Instant::now();
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        Ok((child.context("starting a server of this executable")?, began))
    }

    /// Waits for the line that says where a node listens.
    pub(super) fn node_ready((child, began): (Child, Instant)) -> anyhow::Result<Server> {
        Server::ready(child, began, node_address)
    }

    fn ready(
        mut child: Child,
        began: Instant,
        address: impl Fn(&str) -> Option<SocketAddr>,
    ) -> anyhow::Result<Server> {
        let stdout = child.stdout.take().expect("stdout is piped");
        let mut lines = BufReader::new(stdout).lines();
        let found = lines.by_ref().map_while(Result::ok).find_map(|line| address(&line));
        let ready_after = began.elapsed();
        // The rest is read and thrown away, so that the server never waits for its reader.
        std::thread::spawn(move || lines.for_each(drop));
        match found {
            Some(address) => Ok(Server { child, address, ready_after }),
            None => {
                let status = child.wait()?;
                Err(anyhow!("the server ended with {status} before it was ready"))
            }
        }
    }

    /// Number of its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends the process at once, as a crash would.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill().context("killing a server")?;
        self.child.wait().context("waiting for a server")?;
        Ok(())
    }

    /// Tells the process to end and waits for it.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn stop(mut self) -> anyhow::Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        self.child.wait().context("waiting for a server")?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; there is nobody to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn node_address(line: &str) -> Option<SocketAddr> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    line.get("url")?.as_str()?.strip_prefix("http://")?.parse().ok()
}

/// This executable, called with a subcommand; what a node logs below a warning is left out.
///
/// # Errors
/// When the executable cannot be found.
pub fn own(subcommand: &str) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("finding this executable")?);
    command.arg(subcommand).env("TL_LOGS__LEVEL", "warn");
    Ok(command)
}
