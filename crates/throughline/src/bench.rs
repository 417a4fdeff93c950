//! `tl bench`: what this machine can do at all (the ceiling), and how much of it the product
//! reaches, measured in the same seconds.
//!
//! ```text
//!   repetition:  ceiling 1 s │ workload 1 s      order swapped each time; median of the ratios
//!   this process: one load thread (epoll)        servers: child processes of this executable
//! ```
//!
//! | Module | Answers |
//! |---|---|
//! | [`append`] | single appends and batches, beside the ceiling or another server |
//! | [`mixed`] | everything at once |
//! | [`fan`], [`replay`] | live delivery to one and to many readers; sessions read from disk |
//! | [`sessions`] | very many sessions |
//! | [`start`], [`restart`] | a node that starts on nothing, or behind a long log |
//! | [`idle`] | nodes that have nothing to do |
//! | [`failover`], [`catchup`] | writes while nodes of a cluster are killed; a node that was away |
//! | [`ceiling`] | the raw servers |
//! | [`cells`], [`sustained`], [`print`] | slices and the figures drawn from them |
//! | [`load`], [`net`], [`protocol`] | the client: one thread, many sockets |
//! | [`child`], [`cluster`], [`system`], [`scratch`], [`http`], [`ws`] | processes, the kernel's counts, folders, single calls, WebSockets |

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use crate::output::Out;

mod append;
mod catchup;
mod ceiling;
mod cells;
mod child;
mod cluster;
mod failover;
mod fan;
mod http;
mod idle;
mod load;
mod mixed;
mod net;
mod print;
mod protocol;
mod replay;
mod restart;
mod scratch;
mod sessions;
mod start;
mod sustained;
pub mod system;
mod ws;

/// What can be measured.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Raw group commit: append and fdatasync behind a bare TCP server
    Ceiling(CeilingArgs),
    /// Appends over HTTP to a node in a process of its own
    Append(AppendArgs),
    /// Batches over HTTP, an event per line
    Batch(BatchArgs),
    /// Writes, batches, reads, look-ups and creates while tails are open
    Mixed(MixedArgs),
    /// From an append to its arrival at an open tail
    Tail(TailArgs),
    /// One append to very many open tails
    Fanout(FanArgs),
    /// Sessions read whole from disk
    Replay(ReplayArgs),
    /// Very many sessions: memory, cold appends, list
    Sessions(SessionsArgs),
    /// A node's start on an empty directory and on none
    Start(StartArgs),
    /// Nodes that nobody calls
    Idle(IdleArgs),
    /// How long writes wait when a node of a cluster is killed
    Failover(FailoverArgs),
    /// How fast a node that was away gets what was written meanwhile
    Catchup(CatchupArgs),
    /// A node's start behind a log that was not written to sorted runs
    Restart(RestartArgs),
    /// The servers behind the ceilings
    #[command(hide = true)]
    RawServer(ceiling::ServerArgs),
}

/// Which cells to measure, and for how long.
#[derive(Debug, Clone, Args)]
pub struct CellArgs {
    /// Connections; several cells, separated by commas [default: 1,16,64,256; batch: 16, mixed: 64]
    #[arg(long, value_delimiter = ',', hide_default_value = true,
          value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub conns: Vec<u16>,
    /// Bytes of one event or frame [default: 1024; batch: 100]
    #[arg(long, value_parser = clap::value_parser!(u32).range(100..=1_048_576))]
    pub size: Option<u32>,
    #[command(flatten)]
    pub slices: SliceArgs,
    /// Where the servers keep their data; a temporary directory when absent
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// How long each cell is measured.
#[derive(Debug, Clone, Copy, Args)]
pub struct SliceArgs {
    /// Repetitions per cell; the median is shown
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub repetitions: u16,
    /// Length of one slice
    #[arg(long, default_value_t = 1000, value_name = "MS",
          value_parser = clap::value_parser!(u64).range(20..=600_000))]
    pub slice_ms: u64,
}

impl SliceArgs {
    fn plan(&self) -> cells::Plan {
        let length = Duration::from_millis(self.slice_ms);
        cells::Plan { repetitions: self.repetitions, length }
    }
}

impl CellArgs {
    fn conns(&self, default: &[u16]) -> Vec<u32> {
        let chosen = if self.conns.is_empty() { default } else { &self.conns };
        chosen.iter().copied().map(u32::from).collect()
    }

    fn size(&self, default: u32) -> u32 {
        self.size.unwrap_or(default)
    }
}

/// `tl bench ceiling`.
#[derive(Debug, Clone, Args)]
pub struct CeilingArgs {
    #[command(flatten)]
    pub cells: CellArgs,
    /// Frames that each connection keeps on their way
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub depth: u16,
    /// Instead: one writer and so many readers, all written to after each sync
    #[arg(long, value_name = "READERS", conflicts_with_all = ["depth", "replay"],
          value_parser = clap::value_parser!(u16).range(1..=20_000))]
    pub fanout: Option<u16>,
    /// Instead: files sent whole to one reader
    #[arg(long, conflicts_with = "depth")]
    pub replay: bool,
    /// With two followers, of which one must have each request too
    #[arg(long, conflicts_with_all = ["fanout", "replay"])]
    pub replicated: bool,
}

/// What an append run is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AgainstKind {
    /// Raw group commit
    Ceiling,
    /// XADD to a running redis-server
    Redis,
    /// INSERT to a running Postgres that lets the user postgres in without a password
    Postgres,
}

/// What a run is compared with where nothing else is comparable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Ceiling {
    /// The same work with nothing around it
    Ceiling,
}

/// `tl bench append`.
#[derive(Debug, Clone, Args)]
pub struct AppendArgs {
    #[command(flatten)]
    pub cells: CellArgs,
    /// Alternate with this and print the ratio
    #[arg(long, value_enum)]
    pub against: Option<AgainstKind>,
    /// Where the other server listens
    #[arg(long, value_name = "ADDRESS")]
    pub other: Option<SocketAddr>,
    /// Sessions that the appends are spread over
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub sessions: u32,
    /// One run of this length without a break instead of slices
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: Option<u64>,
    /// A cluster of three nodes instead of one, and connections to each of them in turn
    #[arg(long)]
    pub cluster: bool,
}

/// `tl bench batch`.
#[derive(Debug, Clone, Args)]
pub struct BatchArgs {
    #[command(flatten)]
    pub cells: CellArgs,
    /// Events of one request
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub events: u16,
    /// Alternate with raw group commit of single events and print the ratio
    #[arg(long, value_enum)]
    pub against: Option<Ceiling>,
    /// Frames that each connection of the ceiling keeps on their way
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub depth: u16,
    /// Sessions that the batches are spread over
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub sessions: u32,
}

/// `tl bench mixed`.
#[derive(Debug, Clone, Args)]
pub struct MixedArgs {
    #[command(flatten)]
    pub cells: CellArgs,
    /// Tails open meanwhile
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(0..=20_000))]
    pub tails: u16,
    /// Sessions that the requests are spread over
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub sessions: u32,
    /// One run of this length without a break instead of slices
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: Option<u64>,
}

/// `tl bench tail`.
#[derive(Debug, Clone, Args)]
pub struct TailArgs {
    /// Bytes of one event [default: 256]
    #[arg(long, value_parser = clap::value_parser!(u32).range(100..=1_048_576))]
    pub size: Option<u32>,
    #[command(flatten)]
    pub slices: SliceArgs,
    /// Where the node keeps its data; a temporary directory when absent
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// `tl bench fanout`.
#[derive(Debug, Clone, Args)]
pub struct FanArgs {
    /// Open tails; several cells, separated by commas
    #[arg(long, value_delimiter = ',', default_values_t = [1000],
          value_parser = clap::value_parser!(u16).range(1..=20_000))]
    pub readers: Vec<u16>,
    /// Bytes of one event [default: 256]
    #[arg(long, value_parser = clap::value_parser!(u32).range(100..=1_048_576))]
    pub size: Option<u32>,
    /// Alternate with raw fan-out and print the ratio
    #[arg(long, value_enum)]
    pub against: Option<Ceiling>,
    #[command(flatten)]
    pub slices: SliceArgs,
    /// Where the servers keep their data; a temporary directory when absent
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Sessions of a replay, and events of each, when not given.
const REPLAY_SESSIONS: u32 = 32;
const REPLAY_EVENTS: u32 = 8192;

/// `tl bench replay`.
#[derive(Debug, Clone, Args)]
pub struct ReplayArgs {
    /// Sessions that are read in turns
    #[arg(long, default_value_t = REPLAY_SESSIONS,
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub sessions: u32,
    /// Events of each
    #[arg(long, default_value_t = REPLAY_EVENTS,
          value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub events: u32,
    /// Bytes of one event [default: 1024]
    #[arg(long, value_parser = clap::value_parser!(u32).range(100..=65_536))]
    pub size: Option<u32>,
    /// Alternate with files sent raw and print the ratio
    #[arg(long, value_enum)]
    pub against: Option<Ceiling>,
    #[command(flatten)]
    pub slices: SliceArgs,
    /// Where the servers keep their data; a temporary directory when absent
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// `tl bench sessions`.
#[derive(Debug, Clone, Args)]
pub struct SessionsArgs {
    /// Sessions to create
    #[arg(long, default_value_t = 1_000_000,
          value_parser = clap::value_parser!(u32).range(10..=100_000_000))]
    pub sessions: u32,
    /// Rest before memory is looked at
    #[arg(long, default_value_t = 10_000, value_name = "MS",
          value_parser = clap::value_parser!(u64).range(0..=600_000))]
    pub rest_ms: u64,
    /// Connections of the appends
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub conns: u16,
    /// Pages of the list that are read
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub pages: u32,
    #[command(flatten)]
    pub slices: SliceArgs,
    /// Where the nodes keep their data; a temporary directory when absent
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// `tl bench start`.
#[derive(Debug, Clone, Args)]
pub struct StartArgs {
    /// Starts of each kind
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub repetitions: u16,
    /// Where the nodes keep their data; a temporary directory when absent
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// `tl bench idle`.
#[derive(Debug, Clone, Args)]
pub struct IdleArgs {
    /// How long the nodes are watched
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: u64,
    /// Rest before that, after they are ready
    #[arg(long, default_value_t = 2, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub rest: u64,
    /// Nodes: one, or a cluster of three to five
    #[arg(long, default_value_t = 1, value_parser = node_count)]
    pub nodes: u16,
    /// Kill so many of them before the rest; a cluster stays writable with fewer than half
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=2))]
    pub down: u16,
    /// Where the nodes keep their data; a temporary directory when absent
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// `tl bench failover`.
#[derive(Debug, Clone, Args)]
pub struct FailoverArgs {
    /// Nodes killed, one after another
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub kills: u16,
    /// Pause of each writer between two of its writes
    #[arg(long, default_value_t = 100, value_name = "MS",
          value_parser = clap::value_parser!(u64).range(10..=10_000))]
    pub pause_ms: u64,
    /// Where the nodes keep their data; a temporary directory when absent
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// `tl bench catchup`.
#[derive(Debug, Clone, Args)]
pub struct CatchupArgs {
    /// Bytes of events that are written while a node is away: a number, or with KiB, MiB or GiB
    #[arg(long, default_value = "512MiB", value_parser = bytes)]
    pub missed: u64,
    /// Sessions that they are spread over
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub sessions: u32,
    /// Where the nodes keep their data; a temporary directory when absent
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// One node, or as many as a cluster may have.
fn node_count(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(count @ (1 | 3..=5)) => Ok(count),
        _ => Err(format!("{text} is not 1, 3, 4 or 5")),
    }
}

/// `tl bench restart`.
#[derive(Debug, Clone, Args)]
pub struct RestartArgs {
    /// Bytes of log to start behind: 1073741824, or with KiB, MiB or GiB
    #[arg(long, default_value = "1GiB", value_parser = bytes)]
    pub tail: u64,
    /// Starts in each state of the page cache
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub repetitions: u16,
    /// Where the node keeps its data; a temporary directory when absent
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// A number of bytes as it is typed.
fn bytes(text: &str) -> Result<u64, String> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30)];
    let (number, shift) = units
        .iter()
        .find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift)))
        .unwrap_or((text, 0));
    let number: u64 = number.trim().parse().map_err(|_| format!("{text} is no number of bytes"))?;
    let bytes = number.checked_mul(1 << shift).filter(|bytes| (1..=1 << 40).contains(bytes));
    bytes.ok_or_else(|| format!("{text} is not from 1 to 1 TiB"))
}

/// Runs a measurement.
///
/// # Errors
/// What could not be started or answered wrongly.
pub fn run(command: BenchCommand, out: &Out) -> anyhow::Result<()> {
    raise_file_limit()?;
    match command {
        BenchCommand::Ceiling(args) => match (args.fanout, args.replay) {
            (Some(readers), _) => fan::ceiling(&args, readers, out),
            (None, true) => replay::ceiling(&args, REPLAY_SESSIONS, out),
            (None, false) => append::ceiling(&args, out),
        },
        BenchCommand::Append(args) => append::append(&args, out),
        BenchCommand::Batch(args) => append::batch(&args, out),
        BenchCommand::Mixed(args) => mixed::mixed(&args, out),
        BenchCommand::Tail(args) => fan::tail(&args, out),
        BenchCommand::Fanout(args) => fan::fanout(&args, out),
        BenchCommand::Replay(args) => replay::replay(&args, out),
        BenchCommand::Sessions(args) => sessions::sessions(&args, out),
        BenchCommand::Start(args) => start::start(&args, out),
        BenchCommand::Idle(args) => idle::idle(&args, out),
        BenchCommand::Failover(args) => failover::failover(&args, out),
        BenchCommand::Catchup(args) => catchup::catchup(&args, out),
        BenchCommand::Restart(args) => restart::restart(&args, out),
        BenchCommand::RawServer(args) => ceiling::serve(&args).map_err(Into::into),
    }
}

/// Raises the limit of open files as far as it goes: a cell of 4,096 connections needs twice
/// that many.
pub(crate) fn raise_file_limit() -> io::Result<()> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_has_three_to_five_nodes() {
        for (text, known) in [("1", true), ("2", false), ("3", true), ("5", true), ("6", false)] {
            assert_eq!(node_count(text).is_ok(), known, "{text}");
        }
    }

    #[test]
    fn bytes_may_have_a_unit() {
        assert_eq!((bytes("7"), bytes("64KiB"), bytes("1GiB")), (Ok(7), Ok(65_536), Ok(1 << 30)));
        for bad in ["", "KiB", "-1", "1.5GiB", "0", "99999999GiB"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }
}
