//! Speed beside the ceilings, and beside other servers.

use anyhow::{Context, Result, ensure};

use crate::accept::bounds::Bounds;
use crate::accept::{Verdict, judge, quiet};
use crate::compare::{self, Kind};
use crate::figures::{self, Cell};
use crate::needs;

/// Part of the ceiling's rate that appends must reach, by number of clients.
const APPEND_RATIOS: [(u64, f64); 3] = [(16, 0.6), (64, 0.5), (256, 0.5)];
/// What one client's p50 may be above the ceiling's, microseconds.
const ONE_CLIENT_US: f64 = 100.0;
/// Slices of each side.
const REPETITIONS: &str = "7";

/// Appends of 1 KiB beside raw group commit.
pub fn append() -> Result<Verdict> {
    let busy = quiet::wait()?;
    let conns = ["--conns", "1,16,64,256", "--repetitions", REPETITIONS];
    let cells: Vec<Cell> =
        figures::bench(&[&["append", "--against", "ceiling"], &conns[..]].concat())?;
    ensure!(cells.len() == 4, "expected four cells, got {}", cells.len());
    let (mut bounds, mut figures) = (Bounds::default(), Vec::new());
    for cell in &cells {
        let other = cell.against()?;
        match APPEND_RATIOS.iter().find(|(conns, _)| *conns == cell.conns) {
            Some((conns, bound)) => {
                bounds.at_least(&format!("{conns} clients"), other.ratio, *bound);
            }
            None => {
                let above_us = cell.p50_us - other.against_p50_us;
                bounds.at_most("1 client above the ceiling, µs", above_us, ONE_CLIENT_US);
            }
        }
        figures.push(format!(
            "{} clients {:.0}/s of {:.0}/s = {:.2}, p50 {:.0} of {:.0} µs",
            cell.conns,
            cell.rate,
            other.against_rate,
            other.ratio,
            cell.p50_us,
            other.against_p50_us
        ));
    }
    judge(void(busy, &cells)?, &figures.join("; "), &bounds.0)
}

/// Why the run cannot be judged: the load before it, or a ceiling far below its quiet self.
fn void(busy: Option<f64>, cells: &[Cell]) -> Result<Option<String>> {
    let mut reason = busy.map(quiet::stayed_busy);
    for cell in cells {
        let rate = cell.against()?.against_rate;
        reason = reason.or_else(|| quiet::too_slow(cell.conns, rate));
    }
    Ok(reason)
}

/// A minute at a stretch.
pub fn sustained() -> Result<Verdict> {
    let busy = quiet::wait()?;
    let words = ["append", "--against", "ceiling", "--conns", "256", "--seconds", "60"];
    let cell: Cell = figures::bench_one(&[&words[..], &["--repetitions", "10"]].concat())?;
    let (other, run) = (cell.against()?, cell.sustained()?);
    let p999_ms = cell.p999_us / 1e3;
    let mut bounds = Bounds::default();
    bounds.at_least("of the ceiling", other.ratio, 0.45);
    bounds.at_most("device bytes by bodies", run.device_ratio, 2.5);
    bounds.at_most("p99.9, ms", p999_ms, 30.0);
    ensure!(run.device_ratio > 0.0, "the device below the folder counts no bytes");
    let figures = format!(
        "{:.0}/s of {:.0}/s = {:.2}; device {:.2} × bodies; p99.9 {p999_ms:.1} ms; slowest second \
         {:.0}; {} flushes, {} compactions",
        cell.rate,
        other.against_rate,
        other.ratio,
        run.device_ratio,
        run.second_min,
        run.flushes,
        run.compactions
    );
    judge(void(busy, std::slice::from_ref(&cell))?, &figures, &bounds.0)
}

/// Redis and Postgres in turns with a node.
pub fn compare() -> Result<Verdict> {
    ensure!(needs::ensure(needs::COMPARE)?.is_none(), "redis-server or Postgres is missing");
    let busy = quiet::wait()?;
    let (mut bounds, mut figures) = (Bounds::default(), Vec::new());
    for (kind, name, conns, bound) in
        [(Kind::Redis, "Redis", "16,64,256", 1.0), (Kind::Postgres, "Postgres", "64,256", 3.0)]
    {
        let cells = compare::cells(kind, conns, 5, None)?;
        ensure!(!cells.is_empty(), "no cell beside {name}");
        for cell in cells {
            let other = cell.against()?;
            bounds.at_least(&format!("{name} at {} clients", cell.conns), other.ratio, bound);
            let (conns, rate, against) = (cell.conns, cell.rate, other.against_rate);
            figures.push(format!(
                "{name} at {conns}: {rate:.0}/s of {against:.0}/s = {:.2}",
                other.ratio
            ));
        }
    }
    judge(busy.map(quiet::stayed_busy), &figures.join("; "), &bounds.0)
}

/// Batches beside pipelined frames of one event.
pub fn batch() -> Result<Verdict> {
    ratio(&["batch", "--against", "ceiling", "--repetitions", REPETITIONS], "events", 0.3)
}

/// Whole sessions read from disk beside files sent raw.
pub fn replay() -> Result<Verdict> {
    ratio(&["replay", "--against", "ceiling", "--repetitions", REPETITIONS], "bytes", 0.25)
}

fn ratio(words: &[&str], unit: &str, bound: f64) -> Result<Verdict> {
    let busy = quiet::wait()?;
    let cell: Cell = figures::bench_one(words)?;
    let other = cell.against()?;
    let mut bounds = Bounds::default();
    bounds.at_least("of the ceiling", other.ratio, bound);
    let figures =
        format!("{:.0} {unit}/s of {:.0}/s = {:.2}", cell.rate, other.against_rate, other.ratio);
    judge(busy.map(quiet::stayed_busy), &figures, &bounds.0)
}

/// One event to a thousand sockets.
pub fn fanout() -> Result<Verdict> {
    let busy = quiet::wait()?;
    let words = ["fanout", "--readers", "1000", "--against", "ceiling", "--repetitions"];
    let cell: Cell = figures::bench_one(&[&words[..], &[REPETITIONS]].concat())?;
    let other = cell.against()?;
    let mut bounds = Bounds::default();
    let times = cell.p99_us / other.against_p99_us;
    bounds.at_most("p99 by raw p99", times, 1.5);
    let figures = format!(
        "last delivery p99 {:.1} ms of {:.1} ms = {times:.2} (p50 {:.1} of {:.1} ms)",
        cell.p99_us / 1e3,
        other.against_p99_us / 1e3,
        cell.p50_us / 1e3,
        other.against_p50_us / 1e3
    );
    judge(busy.map(quiet::stayed_busy), &figures, &bounds.0)
}

/// From the answer to the tail.
pub fn tail() -> Result<Verdict> {
    let busy = quiet::wait()?;
    let cell: Cell = figures::bench_one(&["tail", "--repetitions", REPETITIONS])?;
    let after_us = cell.after_ack_p50_us.context("the cell tells no delivery after an answer")?;
    let mut bounds = Bounds::default();
    bounds.at_most("p50, µs", after_us, 100.0);
    let figures =
        format!("p50 {after_us:.0} µs after the answer, {:.0} µs after the request", cell.p50_us);
    judge(busy.map(quiet::stayed_busy), &figures, &bounds.0)
}
