//! Servers as child processes of this executable, ended when dropped.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, anyhow};

/// A running server.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Server {
    /// The ceiling's server.
    ///
    /// # Errors
    /// When it does not start.
    pub fn ceiling(dir: &Path, size: usize) -> anyhow::Result<Server> {
        let mut command = own("bench")?;
        command.arg("ceiling-server").arg("--dir").arg(dir).arg("--size").arg(size.to_string());
        Server::start(command, |line| line.trim().parse().ok())
    }

    /// A node on a fresh directory.
    ///
    /// # Errors
    /// When it does not get ready.
    pub fn node(dir: &Path) -> anyhow::Result<Server> {
        let mut command = own("serve")?;
        command.arg("--data").arg(dir).args(["--listen", "127.0.0.1:0", "--json"]);
        Server::start(command, |line| {
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            line.get("url")?.as_str()?.strip_prefix("http://")?.parse().ok()
        })
    }

    fn start(
        mut command: Command,
        address: impl Fn(&str) -> Option<SocketAddr>,
    ) -> anyhow::Result<Server> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting a server of this executable")?;
        let stdout = child.stdout.take().expect("stdout is piped");
        let mut lines = BufReader::new(stdout).lines();
        let found = lines.by_ref().map_while(Result::ok).find_map(|line| address(&line));
        // The rest is read and thrown away, so that the server never waits for its reader.
        std::thread::spawn(move || lines.for_each(drop));
        match found {
            Some(address) => Ok(Server { child, address }),
            None => {
                let status = child.wait()?;
                Err(anyhow!("the server ended with {status} before it was ready"))
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; there is nobody to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn own(subcommand: &str) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("finding this executable")?);
    command.arg(subcommand).env("TL_LOGS__LEVEL", "warn");
    Ok(command)
}
