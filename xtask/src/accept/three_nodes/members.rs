//! Three founded members of the release binary, started one by one.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use crate::command::Call;
use crate::server::{Server, serve_args};
use crate::tree;

pub const NAMES: [&str; 3] = ["node-1", "node-2", "node-3"];
/// Longest wait for a member to be ready: it may be given everything first.
const READY_MAX: Duration = Duration::from_secs(1_800);

/// A founded cluster in a folder.
pub struct Cluster {
    folder: PathBuf,
    /// All members and where they listen for one another, as a setting.
    list: String,
}

impl Cluster {
    /// With further words for the founding.
    pub fn found(folder: &Path, further: &[&str]) -> Result<Cluster> {
        let folder = folder.join("founding");
        let words = ["ops", "found"].into_iter().chain(NAMES).chain(further.iter().copied());
        Call::new(tree::tl()).args(words).args(["--out"]).args([&folder]).output()?;
        // Held until all are known, so that no two are the same.
        let free = NAMES.map(|_| TcpListener::bind("127.0.0.1:0"));
        let mut list = Vec::new();
        for (name, port) in NAMES.iter().zip(free) {
            list.push(format!("{name}={}", port?.local_addr()?));
        }
        Ok(Cluster { folder, list: serde_json::to_string(&list)? })
    }

    /// Starts a member, behind words that a command begins with and with further settings; it is
    /// ready once it has met another one.
    pub fn begin(
        &self,
        name: &'static str,
        prefix: &[String],
        settings: &[(&str, String)],
    ) -> JoinHandle<Result<Server>> {
        let command = self.command(name, prefix, settings);
        std::thread::spawn(move || Server::spawn_within(command, READY_MAX).context(name))
    }

    /// The same, to be started.
    pub fn command(
        &self,
        name: &'static str,
        prefix: &[String],
        settings: &[(&str, String)],
    ) -> Command {
        let tl = tree::tl();
        let mut command = match prefix.split_first() {
            Some((program, words)) => {
                let mut command = Command::new(program);
                command.args(words).arg(tl);
                command
            }
            None => Command::new(tl),
        };
        command.args(serve_args(&self.folder.join(name)));
        command.env("TL_CLUSTER__MEMBERS", &self.list).env("TL_ENGINE__NODE_NAME", name);
        command.envs(settings.iter().map(|(name, value)| (*name, value)));
        command
    }
}

pub fn joined<T>(thread: JoinHandle<Result<T>>) -> Result<T> {
    thread.join().map_err(|_| anyhow!("a thread of the check panicked"))?
}
