//! Appends over HTTP, single and in batches, beside the ceiling or another server; and the
//! ceiling alone.

use std::time::Duration;

use anyhow::Context;

use super::cells::{Cell, Plan, Side, Taken, Title, cell, measure, settle};
use super::child::Server;
use super::cluster::Cluster;
use super::load::{Load, Shape};
use super::protocol::append::Appends;
use super::protocol::postgres::Rows;
use super::protocol::raw::Raw;
use super::protocol::redis::Additions;
use super::protocol::writers::Writers;
use super::scratch::Scratch;
use super::{
    AgainstKind, AppendArgs, BatchArgs, Ceiling, CeilingArgs, CellArgs, http, print, sustained,
};
use crate::output::Out;

/// Nodes of a cluster.
const NODES: u16 = 3;
/// Followers of the ceiling that a cluster is held against.
const FOLLOWERS: usize = NODES as usize - 1;
/// What sessions of a run are called, before their number.
const PREFIX: &str = "bench-";
/// Connections of a cell, when none are given.
const CONNS: [u16; 4] = [1, 16, 64, 256];
/// The same for batches.
const BATCH_CONNS: [u16; 1] = [16];
/// Bytes of an event, when not given.
const SIZE: u32 = 1024;
/// Bytes of an event in a batch, when not given.
const BATCH_SIZE: u32 = 100;

/// `tl bench ceiling` without a choice of its own: raw group commit.
pub fn ceiling(args: &CeilingArgs, out: &Out) -> anyhow::Result<()> {
    let cells = &args.cells;
    let size = cells.size(SIZE);
    let dir = Scratch::new(cells.dir.as_deref())?;
    let followers = if args.replicated { FOLLOWERS } else { 0 };
    let servers = Server::commit(size, followers, dir.path())?;
    let workload = if args.replicated { "replicated" } else { "ceiling" };
    print::head(out)?;
    for conns in cells.conns(&CONNS) {
        let mut load = raw(&servers[0], conns, args.depth, size)?;
        settle(&mut load)?;
        let title = Title { workload, unit: "requests", conns, size_bytes: size };
        print::cell(out, &measure(title, cells.slices.plan(), &mut load, None)?)?;
    }
    Ok(())
}

/// `tl bench append`.
pub fn append(args: &AppendArgs, out: &Out) -> anyhow::Result<()> {
    let size = args.cells.size(SIZE);
    let run = Run {
        title: Title { workload: "append", unit: "events", conns: 0, size_bytes: size },
        cells: &args.cells,
        against: args.against.as_ref().map(|kind| (*kind, args.other)),
        sessions: args.sessions,
        batch: 0,
        depth: 1,
        sustained: args.seconds.map(Duration::from_secs),
        cluster: args.cluster,
    };
    run.cells(&CONNS, out)
}

/// `tl bench batch`.
pub fn batch(args: &BatchArgs, out: &Out) -> anyhow::Result<()> {
    let size = args.cells.size(BATCH_SIZE);
    let run = Run {
        title: Title { workload: "batch", unit: "events", conns: 0, size_bytes: size },
        cells: &args.cells,
        against: args.against.map(|Ceiling::Ceiling| (AgainstKind::Ceiling, None)),
        sessions: args.sessions,
        batch: args.events,
        depth: args.depth,
        sustained: None,
        cluster: false,
    };
    run.cells(&BATCH_CONNS, out)
}

struct Run<'a> {
    title: Title,
    cells: &'a CellArgs,
    against: Option<(AgainstKind, Option<std::net::SocketAddr>)>,
    sessions: u32,
    /// Events per request; 0 sends single ones as JSON.
    batch: u16,
    /// Requests that the ceiling's connections keep on their way.
    depth: u16,
    sustained: Option<Duration>,
    /// Three nodes, and connections to each in turn.
    cluster: bool,
}

impl Run<'_> {
    fn cells(&self, default: &[u16], out: &Out) -> anyhow::Result<()> {
        let size = self.title.size_bytes;
        let dir = Scratch::new(self.cells.dir.as_deref())?;
        let nodes = match self.cluster {
            true => Cluster::found(&dir.path().join("cluster"), NODES)?.start()?,
            false => vec![Server::node(&dir.path().join("node"), &[])?],
        };
        // Counts are those of the first node.
        let node = &nodes[0];
        let other = self.other(&dir)?;
        http::create_sessions(node.address, PREFIX, self.sessions)?;
        print::head(out)?;
        for conns in self.cells.conns(default) {
            let mut load = self.load(&nodes, conns)?;
            let mut theirs = match &other {
                Some(other) => Some((other.name(), other.load(conns, self, size)?)),
                None => None,
            };
            settle(&mut load)?;
            if let Some((_, theirs)) = &mut theirs {
                settle(theirs)?;
            }
            let before = Counts::of(node)?;
            let title = Title { conns, ..self.title };
            let mut cell = match self.sustained {
                Some(length) => {
                    self.without_a_break(title, length, node, &dir, &mut load, theirs)?
                }
                None => {
                    let theirs = theirs.as_mut().map(|(name, load)| (*name, load as &mut dyn Side));
                    measure(title, self.cells.slices.plan(), &mut load, theirs)?
                }
            };
            let after = Counts::of(node)?;
            cell.syncs = Some(after.syncs - before.syncs);
            if let Some(sustained) = &mut cell.sustained {
                sustained.flushes = after.flushes - before.flushes;
                sustained.compactions = after.compactions - before.compactions;
            }
            print::cell(out, &cell)?;
        }
        Ok(())
    }

    /// The workload at a stretch; the other side in slices, half of them before and half after.
    fn without_a_break(
        &self,
        title: Title,
        length: Duration,
        node: &Server,
        dir: &Scratch<'_>,
        load: &mut Load,
        theirs: Option<(&'static str, Load)>,
    ) -> anyhow::Result<Cell> {
        let Plan { repetitions, length: slice } = self.cells.slices.plan();
        let (mut ours, mut others) = (Taken::new()?, Taken::new()?);
        let mut theirs = theirs;
        let before = repetitions / 2;
        if let Some((_, theirs)) = &mut theirs {
            for _ in 0..before {
                others.take(&theirs.slice(slice)?)?;
            }
        }
        let unit_bytes = u64::from(title.size_bytes);
        let (slice_of_ours, run) =
            sustained::run(load, length, node.pid(), dir.path(), unit_bytes)?;
        if let Some((_, theirs)) = &mut theirs {
            for _ in before..repetitions {
                others.take(&theirs.slice(slice)?)?;
            }
        }
        // The one rate stands beside each of the other side's slices.
        ours.take(&slice_of_ours)?;
        ours.repeat_rate(usize::from(repetitions));
        let mut cell = cell(title, &ours, theirs.map(|(name, _)| (name, &others)));
        cell.sustained = Some(run);
        Ok(cell)
    }

    fn load(&self, nodes: &[Server], conns: u32) -> anyhow::Result<Load> {
        let addresses: Vec<_> = nodes.iter().map(|node| node.address).collect();
        let size = self.title.size_bytes as usize;
        let run = format!("b{conns}");
        let writers = Writers::new(PREFIX, 0, self.sessions, run, conns as usize);
        let host = addresses[0].to_string();
        let appends = match self.batch {
            0 => Appends::single(&host, writers, size),
            events => Appends::batch(&host, writers, size, events.into()),
        };
        let shape = Shape { units: self.batch.max(1).into(), ..Shape::conns(conns as usize) };
        Load::connect_to(&addresses, shape, Box::new(appends))
    }

    fn other(&self, dir: &Scratch<'_>) -> anyhow::Result<Option<Other>> {
        let given = |name| {
            let address = self.against.and_then(|(_, address)| address);
            address.with_context(|| format!("--against {name} needs --other ADDRESS"))
        };
        Ok(match self.against {
            None => None,
            Some((AgainstKind::Ceiling, _)) => {
                let followers = if self.cluster { FOLLOWERS } else { 0 };
                let servers = Server::commit(self.title.size_bytes, followers, dir.path())?;
                Some(Other::Ceiling(servers))
            }
            Some((AgainstKind::Redis, _)) => Some(Other::Redis(given("redis")?)),
            Some((AgainstKind::Postgres, _)) => Some(Other::Postgres(given("postgres")?)),
        })
    }
}

/// The side that a node is held against.
enum Other {
    /// Requests go to the first; the others follow it.
    Ceiling(Vec<Server>),
    Redis(std::net::SocketAddr),
    Postgres(std::net::SocketAddr),
}

/// Who logs in to Postgres, and where.
const POSTGRES_USER: &str = "postgres";

impl Other {
    fn name(&self) -> &'static str {
        match self {
            Other::Ceiling(_) => "ceiling",
            Other::Redis(_) => "redis",
            Other::Postgres(_) => "postgres",
        }
    }

    fn load(&self, conns: u32, run: &Run<'_>, size: u32) -> anyhow::Result<Load> {
        let (sessions, bytes) = (run.sessions, size as usize);
        let shape = Shape::conns(conns as usize);
        match self {
            Other::Ceiling(servers) => raw(&servers[0], conns, run.depth, size),
            Other::Redis(address) => {
                Load::connect(*address, shape, Box::new(Additions::new(sessions, bytes)))
            }
            Other::Postgres(address) => {
                let rows = Rows::new(POSTGRES_USER, POSTGRES_USER, sessions, bytes);
                Load::connect(*address, shape, Box::new(rows))
            }
        }
    }
}

fn raw(server: &Server, conns: u32, depth: u16, size: u32) -> anyhow::Result<Load> {
    let shape = Shape { conns: conns as usize, depth: depth.into(), units: 1 };
    Load::connect(server.address, shape, Box::new(Raw { size: size as usize }))
}

/// What a node has done so far.
struct Counts {
    syncs: u64,
    flushes: u64,
    compactions: u64,
}

impl Counts {
    fn of(node: &Server) -> anyhow::Result<Counts> {
        let count = |name| http::metric(node.address, name);
        Ok(Counts {
            syncs: count("log_syncs_total")?,
            flushes: count("flushes_total")?,
            compactions: count("compactions_total")?,
        })
    }
}
