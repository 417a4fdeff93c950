//! A cluster of real processes of this executable.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use super::child::{Server, own};

/// Groups of a cluster.
pub const GROUPS: u16 = 256;

/// Members that were founded together, whether they run or not.
#[derive(Debug)]
pub struct Cluster {
    members: Vec<(String, PathBuf)>,
    /// All members and where they listen for one another, as a setting.
    list: String,
}

/// What the member of a place is called, places counted from 0.
pub fn name_of(place: usize) -> String {
    format!("node-{}", place + 1)
}

impl Cluster {
    /// Makes the members' directories below `dir`.
    ///
    /// # Errors
    /// When one cannot be made.
    pub fn found(dir: &Path, nodes: u16) -> anyhow::Result<Cluster> {
        let names: Vec<String> = (0..nodes.into()).map(name_of).collect();
        let members = crate::ops::found_in(dir, &names, GROUPS)?;
        // Held until all are known, so that no two are the same.
        let free: Vec<TcpListener> =
            names.iter().map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
        let mut list = Vec::new();
        for (name, port) in names.iter().zip(free) {
            list.push(format!("{name}={}", port.local_addr()?));
        }
        Ok(Cluster { members, list: serde_json::to_string(&list)? })
    }

    /// Starts every member with the caller's environment and waits until all are ready.
    ///
    /// # Errors
    /// When one does not get ready.
    pub fn start(&self) -> anyhow::Result<Vec<Server>> {
        // A member is ready once it has met others, so all begin before one is waited for.
        let begun: Vec<_> =
            (0..self.members.len()).map(|place| self.begin(place)).collect::<Result<_, _>>()?;
        begun.into_iter().map(Server::node_ready).collect()
    }

    /// Starts one member again.
    ///
    /// # Errors
    /// When it does not get ready.
    pub fn start_one(&self, place: usize) -> anyhow::Result<Server> {
        Server::node_ready(self.begin(place)?)
    }

    fn begin(&self, place: usize) -> anyhow::Result<(std::process::Child, std::time::Instant)> {
        let (name, data) = &self.members[place];
        let mut command = own("serve")?;
        command.arg("--data").arg(data).args(["--listen", "127.0.0.1:0", "--json"]);
        command.arg("--end-with-parent").env("TL_CLUSTER__MEMBERS", &self.list);
        command.env("TL_ENGINE__NODE_NAME", name);
        Server::begin(command)
    }
}
