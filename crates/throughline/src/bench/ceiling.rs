//! What a node is held against: the same work with nothing around it, in a process of its own.
//!
//! | server | does |
//! |---|---|
//! | [`commit`] | appends what has arrived to a file, syncs once, answers all; with followers, once one of them has it too |
//! | [`follower`] | the other side of that |
//! | [`fanout`] | appends and syncs what one writer sends, then writes it to all readers |
//! | [`replay`] | sends files |
//! | [`read`](super::restart::read) | reads and checks files, then ends |
//!
//! No HTTP, no JSON, no rules, no store.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

use clap::{Args, Subcommand};

mod commit;
mod fanout;
mod follower;
mod replay;

/// `tl bench raw-server`.
#[derive(Debug, Clone, Args)]
pub struct ServerArgs {
    #[command(subcommand)]
    which: Which,
}

#[derive(Debug, Clone, Subcommand)]
enum Which {
    /// Group commit
    Commit(CommitArgs),
    /// Batches of a group commit elsewhere
    Follow(FolderArgs),
    /// Group commit of one writer, then delivery to all readers
    Fanout(FanoutArgs),
    /// Files sent whole
    Replay(ReplayArgs),
    /// Reads and checks all files of a folder, then ends
    Read(FolderArgs),
}

/// Arguments of the group commit.
#[derive(Debug, Clone, Args)]
struct CommitArgs {
    /// Directory for the segments
    #[arg(long)]
    dir: PathBuf,
    /// Bytes of one request
    #[arg(long)]
    size: usize,
    /// Servers that follow
    #[arg(long, value_delimiter = ',')]
    followers: Vec<SocketAddr>,
}

/// Arguments of the fan-out.
#[derive(Debug, Clone, Args)]
struct FanoutArgs {
    /// Directory for the segments
    #[arg(long)]
    dir: PathBuf,
    /// Bytes of one write
    #[arg(long)]
    size: usize,
    /// Bytes of one delivery
    #[arg(long)]
    deliver: usize,
    /// Readers
    #[arg(long)]
    readers: usize,
}

/// Arguments of the replay.
#[derive(Debug, Clone, Args)]
struct ReplayArgs {
    /// Directory for the files
    #[arg(long)]
    dir: PathBuf,
    /// Number of files
    #[arg(long)]
    files: u64,
    /// Bytes of each
    #[arg(long)]
    bytes: u64,
}

/// A folder.
#[derive(Debug, Clone, Args)]
struct FolderArgs {
    /// Directory of the files
    #[arg(long)]
    dir: PathBuf,
}

/// Serves until the process is killed; prints the address first.
///
/// # Errors
/// What the disk or the network refused.
pub fn serve(args: &ServerArgs) -> io::Result<()> {
    match &args.which {
        Which::Commit(args) => commit::serve(&args.dir, args.size, &args.followers),
        Which::Follow(args) => follower::serve(&args.dir),
        Which::Fanout(FanoutArgs { dir, size, deliver, readers }) => {
            let (size, deliver, readers) = (*size, *deliver, *readers);
            fanout::serve(dir, fanout::Fanout { size, deliver, readers })
        }
        Which::Replay(args) => replay::serve(&args.dir, args.files, args.bytes),
        Which::Read(args) => super::restart::read(&args.dir),
    }
}

/// A listener whose address has been printed.
fn listen() -> io::Result<TcpListener> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    writeln!(io::stdout().lock(), "{}", listener.local_addr()?)?;
    Ok(listener)
}
