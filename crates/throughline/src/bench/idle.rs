//! Nodes that have nothing to do.

use std::time::Duration;

use anyhow::ensure;
use serde::Serialize;

use super::child::Server;
use super::cluster::Cluster;
use super::scratch::Scratch;
use super::{IdleArgs, http, system};
use crate::output::Out;

/// What nodes cost that nobody calls, all of them together.
#[derive(Debug, Serialize)]
struct Idle {
    workload: &'static str,
    nodes: u16,
    /// Members that were killed before.
    down: u16,
    seconds: u64,
    /// Processor time that they used, in hundredths of one processor.
    cpu_percent: f64,
    /// Resident memory at the end, MiB.
    rss_mib: f64,
    /// Syncs of their logs meanwhile.
    syncs: u64,
}

/// `tl bench idle`.
pub fn idle(args: &IdleArgs, out: &Out) -> anyhow::Result<()> {
    ensure!(args.down * 2 < args.nodes, "--down must leave more than half of the nodes");
    let dir = Scratch::new(args.dir.as_deref())?;
    let mut nodes = match args.nodes {
        1 => vec![Server::node(&dir.path().join("node"), &[])?],
        nodes => Cluster::found(&dir.path().join("cluster"), nodes)?.start()?,
    };
    for _ in 0..args.down {
        nodes.pop().expect("fewer than half are taken").kill()?;
    }
    std::thread::sleep(Duration::from_secs(args.rest));
    let before = Counts::of(&nodes)?;
    std::thread::sleep(Duration::from_secs(args.seconds));
    let after = Counts::of(&nodes)?;
    let used_us = after.cpu_us.saturating_sub(before.cpu_us);
    let idle = Idle {
        workload: "idle",
        nodes: args.nodes,
        down: args.down,
        seconds: args.seconds,
        cpu_percent: used_us as f64 / (args.seconds as f64 * 1e4),
        rss_mib: after.resident_kib as f64 / 1024.0,
        syncs: after.syncs - before.syncs,
    };
    let Idle { nodes, down, seconds, cpu_percent, rss_mib, syncs, .. } = &idle;
    let who = match (nodes, down) {
        (1, _) => "one node".to_owned(),
        (nodes, 0) => format!("{nodes} nodes"),
        (nodes, down) => format!("{nodes} nodes, {down} of them killed"),
    };
    let text = format!(
        "idle for {seconds} s, {who}: {cpu_percent:.2} % of a processor, resident {rss_mib:.1} MiB, \
         {syncs} syncs"
    );
    out.either(&idle, &text)
}

/// What some nodes have used so far, in all.
struct Counts {
    cpu_us: u64,
    resident_kib: u64,
    syncs: u64,
}

impl Counts {
    fn of(nodes: &[Server]) -> anyhow::Result<Counts> {
        let mut all = Counts { cpu_us: 0, resident_kib: 0, syncs: 0 };
        for node in nodes {
            all.syncs += http::metric(node.address, "log_syncs_total")?;
            all.cpu_us += system::cpu_us(node.pid())?;
            all.resident_kib += system::resident_kib(node.pid())?;
        }
        Ok(all)
    }
}
