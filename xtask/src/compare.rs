//! The same appends to a node and to the servers that people would use instead, in alternating
//! slices on the same disk: the same payload, number of connections, closed loop, and every write
//! synced before its answer.
//!
//! | server | write | set so that |
//! |---|---|---|
//! | redis-server | `XADD` | `appendfsync always`, no rewriting of its file meanwhile |
//! | Postgres | a prepared `INSERT`, one row per commit | as it comes: `fsync` and `synchronous_commit` are on |

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::command::Call;
use crate::figures::{self, Cell};
use crate::{needs, tree};

/// Longest wait for a server to take connections.
const READY_MAX: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Connections that Postgres may be asked for at a time, with some to spare.
const POSTGRES_CONNECTIONS: u32 = 300;
/// The user that Postgres runs as when we are root: it refuses to be root.
const POSTGRES_USER: &str = "postgres";
/// Where Debian keeps the programs of each version.
const POSTGRES_VERSIONS: &str = "/usr/lib/postgresql";

/// What a comparison does.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// The other servers.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Kind::Redis, Kind::Postgres])]
    pub with: Vec<Kind>,
    /// Connections; several cells, separated by commas.
    #[arg(long, default_value = "1,16,64,256")]
    pub conns: String,
    /// Slices of each side per cell.
    #[arg(long, default_value_t = 5)]
    pub repetitions: u16,
    /// Where all data lies; a temporary folder when absent.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Who a node is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// redis-server.
    Redis,
    /// Postgres.
    Postgres,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Redis => "redis",
            Kind::Postgres => "postgres",
        }
    }
}

/// Compares with each server and prints the table.
pub fn run(options: &Options) -> Result<ExitCode> {
    if let Some(status) = needs::ensure(needs::COMPARE)? {
        return Ok(status);
    }
    tree::built_tl()?;
    println!("{:<9} {:>7} {:>10} {:>10} {:>7}", "with", "clients", "tl/s", "other/s", "ratio");
    for &kind in &options.with {
        for cell in cells(kind, &options.conns, options.repetitions, options.dir.as_deref())? {
            println!(
                "{:<9} {:>7} {:>10.0} {:>10.0} {:>7.2}",
                kind.word(),
                cell.conns,
                cell.rate,
                cell.against()?.against_rate,
                cell.against()?.ratio
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// One cell per number of connections.
pub fn cells(kind: Kind, conns: &str, repetitions: u16, dir: Option<&Path>) -> Result<Vec<Cell>> {
    let folder = match dir {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir(),
    }
    .context("cannot make a folder")?;
    // Postgres, which runs as another user, must get through to its own folder.
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
    let other = match kind {
        Kind::Redis => Other::redis(&folder.path().join("redis"))?,
        Kind::Postgres => Other::postgres(&folder.path().join("postgres"))?,
    };
    let (address, repetitions) = (other.address.to_string(), repetitions.to_string());
    let node = folder.path().join("node");
    let words = ["append", "--against", kind.word(), "--other", &address, "--conns", conns];
    let rest = ["--repetitions", &repetitions, "--dir", &node.to_string_lossy()];
    let cells = figures::bench(&[&words[..], &rest[..]].concat())?;
    other.stop()?;
    Ok(cells)
}

/// A server that is no node; ended when dropped.
#[derive(Debug)]
pub struct Other {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Other {
    fn redis(folder: &Path) -> Result<Other> {
        std::fs::create_dir(folder).context("cannot make Redis' folder")?;
        let address = free_address()?;
        let mut command = Command::new("redis-server");
        command
            .args(["--port", &address.port().to_string(), "--bind", "127.0.0.1", "--dir"])
            .arg(folder)
            .args(["--appendonly", "yes", "--appendfsync", "always", "--save", ""])
            .args(["--auto-aof-rewrite-percentage", "0", "--daemonize", "no"]);
        let other = Other::start(command, address)?;
        other.wait(|| TcpStream::connect(address).is_ok())?;
        Ok(other)
    }

    /// Postgres as it comes, with its files in this folder.
    pub fn postgres(folder: &Path) -> Result<Other> {
        let programs = postgres_programs()?;
        std::fs::create_dir(folder).context("cannot make Postgres' folder")?;
        let data = folder.join("data");
        let user = needs::is_root().then(postgres_user).transpose()?;
        if let Some((uid, gid)) = user {
            std::os::unix::fs::chown(folder, Some(uid), Some(gid))?;
        }
        let command = |name: &str| {
            let mut command = Command::new(programs.join(name));
            command.current_dir(folder);
            if let Some((uid, gid)) = user {
                command.uid(uid).gid(gid);
            }
            command
        };
        let made = command("initdb")
            .args(["--auth", "trust", "--username", POSTGRES_USER, "--pgdata"])
            .arg(&data)
            .stdin(Stdio::null())
            .output()
            .context("cannot run initdb")?;
        ensure!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let address = free_address()?;
        let port = address.port().to_string();
        let mut server = command("postgres");
        server.arg("-D").arg(&data).args(["-p", &port, "-c", "listen_addresses=127.0.0.1", "-c"]);
        server.arg(format!("unix_socket_directories={}", folder.display()));
        server.args(["-c", &format!("max_connections={POSTGRES_CONNECTIONS}")]);
        let other = Other::start(server, address)?;
        other.wait(|| {
            let mut look = command("pg_isready");
            look.args(["--quiet", "--host", "127.0.0.1", "--port", &port]);
            look.status().is_ok_and(|status| status.success())
        })?;
        Ok(other)
    }

    /// Number of its first process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn start(mut command: Command, address: SocketAddr) -> Result<Other> {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        Ok(Other { child, address })
    }

    fn wait(&self, ready: impl Fn() -> bool) -> Result<()> {
        let began = Instant::now();
        while !ready() {
            ensure!(began.elapsed() < READY_MAX, "no server listens on {}", self.address);
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// Ends it in its own way: Postgres takes its helpers with it only then.
    pub fn stop(mut self) -> Result<()> {
        let number = self.child.id().to_string();
        Call::new("kill").args(["-INT", &number]).run()?;
        self.child.wait().context("cannot wait for a server")?;
        Ok(())
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // Already ended after `stop`; then both calls fail harmlessly.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address on which nobody listens right now.
fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?)
}

/// The folder with the programs of the newest version that is installed.
pub fn postgres_programs() -> Result<PathBuf> {
    let versions = std::fs::read_dir(POSTGRES_VERSIONS).context("Postgres is not installed")?;
    versions
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join("bin/postgres").is_file())
        .max_by_key(|path| number_at_the_end(path))
        .map(|path| path.join("bin"))
        .context("Postgres is not installed")
}

fn number_at_the_end(path: &Path) -> u32 {
    path.file_name().and_then(|name| name.to_str()?.parse().ok()).unwrap_or(0)
}

fn postgres_user() -> Result<(u32, u32)> {
    let number = |flag: &str| -> Result<u32> {
        let printed = Call::new("id").args([flag, POSTGRES_USER]).output()?;
        printed.trim().parse().with_context(|| format!("id printed {printed}"))
    };
    match (number("-u")?, number("-g")?) {
        (0, _) => bail!("the user {POSTGRES_USER} is root"),
        numbers => Ok(numbers),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_has_the_greatest_number() {
        let number = |path: &str| number_at_the_end(Path::new(path));
        assert!(number("/usr/lib/postgresql/15") > number("/usr/lib/postgresql/9"));
        assert_eq!(number("/usr/lib/postgresql/x"), 0);
    }

    #[test]
    fn a_free_address_can_be_listened_on() {
        // Others may take it in between, but not every time.
        assert!((0..10).any(|_| TcpListener::bind(free_address().unwrap()).is_ok()));
    }
}
