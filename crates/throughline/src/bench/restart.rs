//! A node that starts again behind a log that was not written to sorted runs, beside reading and
//! checking the same files.
//!
//! Both are timed as processes, from their start to the line that says they are done, with the
//! files in the page cache (`warm`) and with them dropped from it (`cold`).

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::fs::{Advice, fadvise};
use serde::Serialize;

use super::cells::{median, rounded};
use super::child::{Server, own};
use super::load::{Load, Shape};
use super::protocol::append::Appends;
use super::protocol::writers::Writers;
use super::scratch::Scratch;
use super::{RestartArgs, http};
use crate::output::Out;

const PREFIX: &str = "restart-";
const SESSIONS: u32 = 1024;
/// Events and connections of the load that writes the log.
const BATCH_EVENTS: u64 = 64;
const EVENT_BYTES: usize = 1024;
const CONNS: usize = 16;
/// Bytes of log between two looks at how much there is.
const STEP_BYTES: u64 = 32 << 20;
/// Memory for rows beside the bytes of the log that they came in: what each costs at most.
const ROWS_PER_LOG: u64 = 3;
/// A budget in which as many tables find room as a node may have; only one is ever filled.
const BUDGET_PER_MEMTABLE: u64 = 32;
/// Bytes read at a time.
const READ_BYTES: usize = 1 << 20;

/// Restarts in one state of the page cache.
#[derive(Debug, Serialize)]
struct Restarts {
    workload: &'static str,
    /// `warm` or `cold`.
    cache: &'static str,
    repetitions: u16,
    /// Bytes of the log's files.
    log_bytes: u64,
    /// From the start of the process to the line that says it is ready, median.
    ready_ms: f64,
    /// Reading and checking the same files, median.
    against_ms: f64,
    /// Median of the repetitions' ratios.
    ratio: f64,
    ratio_min: f64,
    ratio_max: f64,
}

/// `tl bench restart`.
pub fn restart(args: &RestartArgs, out: &Out) -> anyhow::Result<()> {
    let dir = Scratch::new(args.dir.as_deref())?;
    let data = dir.path().join("node");
    // Everything stays in the table in memory, however long it is.
    let memtable_bytes = (args.tail * ROWS_PER_LOG).max(16 << 20);
    let settings = [
        ("TL_ENGINE__MEMTABLE_BYTES", memtable_bytes.to_string()),
        ("TL_ENGINE__MEMORY_BUDGET_BYTES", (memtable_bytes * BUDGET_PER_MEMTABLE).to_string()),
        ("TL_ENGINE__CACHE_BYTES", (64 << 20).to_string()),
    ];
    fill(&data, &settings, args.tail)?;
    let log = data.join("log");
    for cache in ["warm", "cold"] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for repetition in 0..args.repetitions {
            for node_turn in [repetition % 2 == 0, repetition % 2 != 0] {
                match cache {
                    "warm" => drop(check(&log)?),
                    _ => forget(&data)?,
                }
                if node_turn {
                    let node = Server::node(&data, &settings)?;
                    ours.push(node.ready_after);
                    ensure!(
                        http::metric(node.address, "flushes_total")? == 0,
                        "rows were flushed: the next start would find less to do"
                    );
                    node.kill()?;
                } else {
                    theirs.push(time_check(&log)?);
                }
            }
        }
        print(cache, args.repetitions, &log, &ours, &theirs, out)?;
    }
    Ok(())
}

fn print(
    cache: &'static str,
    repetitions: u16,
    log: &Path,
    ours: &[Duration],
    theirs: &[Duration],
    out: &Out,
) -> anyhow::Result<()> {
    let ms = |times: &[Duration]| -> Vec<f64> {
        times.iter().map(|time| time.as_secs_f64() * 1e3).collect()
    };
    let (ours, theirs) = (ms(ours), ms(theirs));
    let mut ratios: Vec<f64> =
        ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs).collect();
    ratios.sort_by(f64::total_cmp);
    let mut log_bytes = 0;
    for file in files(log)? {
        log_bytes += file.metadata()?.len();
    }
    let restarts = Restarts {
        workload: "restart",
        cache,
        repetitions,
        log_bytes,
        ready_ms: rounded(median(&ours)),
        against_ms: rounded(median(&theirs)),
        ratio: rounded(median(&ratios)),
        ratio_min: rounded(ratios.first().copied().unwrap_or_default()),
        ratio_max: rounded(ratios.last().copied().unwrap_or_default()),
    };
    let text = format!(
        "restart, {cache} cache, log of {} MiB: ready after {:.0} ms; reading and checking it \
         {:.0} ms; ratio {:.2} ({:.2}..{:.2})",
        log_bytes >> 20,
        restarts.ready_ms,
        restarts.against_ms,
        restarts.ratio,
        restarts.ratio_min,
        restarts.ratio_max
    );
    out.either(&restarts, &text)
}

/// Writes `tail` bytes of log and kills the node.
fn fill(data: &Path, settings: &[(&str, String)], tail: u64) -> anyhow::Result<()> {
    let node = Server::node(data, settings)?;
    http::create_sessions(node.address, PREFIX, SESSIONS)?;
    let writers = Writers::new(PREFIX, 0, SESSIONS, "r".to_owned(), CONNS);
    let host = node.address.to_string();
    let appends = Appends::batch(&host, writers, EVENT_BYTES, BATCH_EVENTS);
    let shape = Shape { units: BATCH_EVENTS, ..Shape::conns(CONNS) };
    let mut load = Load::connect(node.address, shape, Box::new(appends))?;
    let batch_bytes = EVENT_BYTES as u64 * BATCH_EVENTS;
    loop {
        let written = http::metric(node.address, "log_bytes_total")?;
        if written >= tail {
            break;
        }
        let step = STEP_BYTES.min(tail - written);
        load.requests((step / batch_bytes).max(1))?;
    }
    let flushes = http::metric(node.address, "flushes_total")?;
    ensure!(flushes == 0, "{flushes} flushes: the log behind them would not be read again");
    node.kill()
}

/// The files directly in a folder.
fn files(folder: &Path) -> anyhow::Result<Vec<File>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            files.push(File::open(entry.path())?);
        }
    }
    Ok(files)
}

/// Drops everything below a folder from the page cache.
fn forget(folder: &Path) -> anyhow::Result<()> {
    for file in files(folder)? {
        // Only what is on disk can be dropped.
        file.sync_all()?;
        fadvise(&file, 0, None, Advice::DontNeed)?;
    }
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            forget(&entry.path())?;
        }
    }
    Ok(())
}

fn time_check(log: &Path) -> anyhow::Result<Duration> {
    let mut command = own("bench")?;
    command.args(["raw-server", "read", "--dir"]).arg(log).stdin(Stdio::null());
    let began = Instant::now();
    let output = command.output().context("starting the reader")?;
    let took = began.elapsed();
    ensure!(output.status.success(), "the reader ended with {}", output.status);
    Ok(took)
}

/// `tl bench raw-server read`: reads every file of a folder and prints its checksum.
///
/// # Errors
/// What the disk refused.
pub fn read(dir: &Path) -> io::Result<()> {
    let sum = check(dir).map_err(io::Error::other)?;
    writeln!(io::stdout().lock(), "{sum:08x}")
}

/// The checksum over all files, in the order of the folder.
fn check(folder: &Path) -> anyhow::Result<u32> {
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = vec![0; READ_BYTES];
    for mut file in files(folder)? {
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                bytes => hasher.update(&buffer[..bytes]),
            }
        }
    }
    Ok(hasher.finalize())
}
