//! A cluster of real processes of this executable.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde::Deserialize;

use super::child::{Server, own};
use super::http;

/// Groups of a cluster.
pub const GROUPS: u16 = 256;
/// A node leads its share once it leads this part of what an equal share would be.
const SHARE_PART_MIN: f64 = 0.8;
/// Longest wait for groups to be writable, and for leadership to be shared out.
const SETTLE_MAX: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

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
        let (members, _) = crate::ops::found_in(dir, &names, &[], GROUPS)?;
        // Held until all are known, so that no two are the same.
        let free: Vec<TcpListener> =
            names.iter().map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
        let mut list = Vec::new();
        for (name, port) in names.iter().zip(free) {
            list.push(format!("{name}={}", port.local_addr()?));
        }
        Ok(Cluster { members, list: serde_json::to_string(&list)? })
    }

    /// Starts every member with the caller's environment, and waits until all are ready, every
    /// group takes writes, and leadership is shared out.
    ///
    /// # Errors
    /// When one does not get ready, or leadership is not shared out in time.
    pub fn start(&self) -> anyhow::Result<Vec<Server>> {
        // A member is ready once it has met others, so all begin before one is waited for.
        let begun: Vec<_> =
            (0..self.members.len()).map(|place| self.begin(place)).collect::<Result<_, _>>()?;
        let nodes = begun.into_iter().map(Server::node_ready).collect::<Result<Vec<_>, _>>()?;
        until_writable(&nodes)?;
        let began = Instant::now();
        for node in &nodes {
            while !is_a_share(&led_by(node)?, nodes.len()) {
                ensure!(began.elapsed() < SETTLE_MAX, "leadership is not shared out");
                std::thread::sleep(LOOK_EVERY);
            }
        }
        Ok(nodes)
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

/// Waits until every group takes writes, as these nodes see it.
///
/// # Errors
/// When one does not in time.
pub fn until_writable(nodes: &[Server]) -> anyhow::Result<()> {
    let began = Instant::now();
    for node in nodes {
        while !groups(node)?.iter().all(|group| group.writable) {
            ensure!(began.elapsed() < SETTLE_MAX, "not all groups take writes");
            std::thread::sleep(LOOK_EVERY);
        }
    }
    Ok(())
}

/// The groups that a node leads.
///
/// # Errors
/// When it does not say.
pub fn led_by(node: &Server) -> anyhow::Result<Vec<u16>> {
    let led = groups(node)?.into_iter().filter(|group| group.role == "leader");
    Ok(led.map(|group| group.group).collect())
}

/// Whether these are about what one of so many nodes should lead.
pub fn is_a_share(led: &[u16], nodes: usize) -> bool {
    led.len() as f64 * nodes as f64 >= SHARE_PART_MIN * f64::from(GROUPS)
}

/// What a node says of a group.
#[derive(Debug, Deserialize)]
struct GroupLine {
    group: u16,
    role: String,
    writable: bool,
}

#[derive(Debug, Deserialize)]
struct Groups {
    groups: Vec<GroupLine>,
}

fn groups(node: &Server) -> anyhow::Result<Vec<GroupLine>> {
    let text = http::get(node.address, "/v1/ops/groups")?;
    let Groups { groups } = serde_json::from_str(&text).context("/v1/ops/groups")?;
    Ok(groups)
}
