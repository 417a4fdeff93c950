//! A node that was away: how long until it has what was written meanwhile.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use super::cells::rounded;
use super::child::Server;
use super::cluster::{self, Cluster};
use super::load::{Load, Shape};
use super::protocol::append::Appends;
use super::protocol::writers::Writers;
use super::scratch::Scratch;
use super::{CatchupArgs, http};
use crate::output::Out;

/// Nodes of the cluster; the last one goes away.
const NODES: u16 = 3;
/// What sessions are called, before their number.
const PREFIX: &str = "catchup-";
/// Bytes of an event, and events of a request.
const SIZE: usize = 1024;
const EVENTS: u64 = 64;
/// Connections that write.
const CONNS: usize = 16;
/// Between two looks at how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Longest wait for that.
const CATCHUP_MAX: Duration = Duration::from_secs(600);

/// A return and what it took.
#[derive(Debug, Serialize)]
struct Catchup {
    workload: &'static str,
    nodes: u16,
    /// Bytes of the events that it missed.
    missed_bytes: u64,
    /// From the start of its process until it was ready.
    ready_ms: u64,
    /// From the same moment until no group lacked an entry there.
    caught_up_ms: u64,
    /// The former by the latter, MiB a second.
    mib_per_s: f64,
}

/// `tl bench catchup`.
pub fn catchup(args: &CatchupArgs, out: &Out) -> anyhow::Result<()> {
    let dir = Scratch::new(args.dir.as_deref())?;
    let cluster = Cluster::found(&dir.path().join("cluster"), NODES)?;
    let mut nodes = cluster.start()?;
    http::create_sessions(nodes[0].address, PREFIX, args.sessions)?;
    let place = nodes.len() - 1;
    nodes.pop().expect("a cluster has nodes").kill()?;
    let requests = args.missed.div_ceil(SIZE as u64 * EVENTS);
    write(&nodes, args.sessions, requests)?;
    let began = Instant::now();
    let back = cluster.start_one(place)?;
    let ready_ms = back.ready_after.as_millis() as u64;
    while !has_all(&nodes, place)? {
        ensure!(began.elapsed() < CATCHUP_MAX, "not there after {} s", CATCHUP_MAX.as_secs());
        std::thread::sleep(LOOK_EVERY);
    }
    let took = began.elapsed();
    let missed_bytes = requests * EVENTS * SIZE as u64;
    let mib = missed_bytes as f64 / f64::from(1 << 20);
    let catchup = Catchup {
        workload: "catchup",
        nodes: NODES,
        missed_bytes,
        ready_ms,
        caught_up_ms: took.as_millis() as u64,
        mib_per_s: rounded(mib / took.as_secs_f64()),
    };
    let Catchup { ready_ms, caught_up_ms, mib_per_s, .. } = &catchup;
    let text = format!(
        "catchup: {mib:.0} MiB of events missed; ready after {ready_ms} ms, all there after \
         {caught_up_ms} ms, {mib_per_s:.0} MiB a second"
    );
    out.either(&catchup, &text)
}

fn write(nodes: &[Server], sessions: u32, requests: u64) -> anyhow::Result<()> {
    let addresses: Vec<_> = nodes.iter().map(|node| node.address).collect();
    let writers = Writers::new(PREFIX, 0, sessions, "c".to_owned(), CONNS);
    let appends = Appends::batch(&addresses[0].to_string(), writers, SIZE, EVENTS);
    let shape = Shape { units: EVENTS, ..Shape::conns(CONNS) };
    // A third of the groups elect; a write that is refused meanwhile would end the load.
    cluster::until_writable(nodes)?;
    Load::connect_to(&addresses, shape, Box::new(appends))?.requests(requests)?;
    Ok(())
}

/// What a node says of another.
#[derive(Debug, Deserialize)]
struct NodeLine {
    node: String,
    state: String,
    lag_entries_max: u64,
}

#[derive(Debug, Deserialize)]
struct Nodes {
    nodes: Vec<NodeLine>,
}

/// Whether the node of this place is ready and lacks nothing of any group that the others lead.
fn has_all(others: &[Server], place: usize) -> anyhow::Result<bool> {
    let name = cluster::name_of(place);
    for other in others {
        let text = http::get(other.address, "/v1/ops/nodes")?;
        let Nodes { nodes } = serde_json::from_str(&text).context("/v1/ops/nodes")?;
        let line = nodes.iter().find(|line| line.node == name).context("a member is not named")?;
        if line.state != "ready" || line.lag_entries_max > 0 {
            return Ok(false);
        }
    }
    Ok(true)
}
