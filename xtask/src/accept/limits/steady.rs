//! Full load for minutes: flushes, compactions and new segments happen meanwhile, and nobody
//! may notice.

use anyhow::{Context, Result, ensure};

use crate::accept::bounds::Bounds;
use crate::accept::{Verdict, judge, quiet};
use crate::command::Call;
use crate::figures::{self, Cell};

/// Bytes of an event: small, so that many minutes fit on a disk.
const EVENT_BYTES: u64 = 256;
/// Events per second that the disk must have room for, and bytes that each takes at most while
/// old and new runs are both there.
const EVENTS_PER_SECOND_MAX: u64 = 80_000;
const DISK_PER_BODY: u64 = 4;
/// What memory may grow by between the second and the last tenth of the run: less than one
/// table in memory, whose state differs from look to look.
const GROWTH_KIB_MAX: f64 = 24.0 * 1024.0;
/// The slowest second must have this part of the median one.
const SECOND_RATIO_MIN: f64 = 0.5;

/// Runs for so many minutes.
pub fn run(minutes: u32) -> Result<Verdict> {
    let folder = tempfile::tempdir().context("cannot make a folder")?;
    let seconds = u64::from(minutes) * 60;
    let needed = seconds * EVENTS_PER_SECOND_MAX * EVENT_BYTES * DISK_PER_BODY;
    let free = free_bytes(folder.path())?;
    ensure!(free > needed, "{minutes} minutes want {needed} bytes of disk, {free} are free");
    let busy = quiet::wait()?;
    let (seconds, size) = (seconds.to_string(), EVENT_BYTES.to_string());
    let dir = folder.path().to_string_lossy();
    let words = ["append", "--conns", "256", "--size", &size, "--seconds", &seconds, "--dir", &dir];
    let cell: Cell = figures::bench_one(&words)?;
    let run = cell.sustained()?;
    let mut bounds = Bounds::default();
    let growth_kib = run.resident_late_kib - run.resident_early_kib;
    bounds.at_most("growth, KiB", growth_kib, GROWTH_KIB_MAX);
    bounds.at_most("p99.9 by p99", cell.p999_us / cell.p99_us, 5.0);
    bounds.at_least(
        "slowest second by median",
        run.second_min / run.second_median,
        SECOND_RATIO_MIN,
    );
    ensure!(run.flushes > 0 && run.compactions > 0, "nothing was flushed and compacted");
    let figures = format!(
        "{:.0} s at {:.0}/s: resident {:.0} → {:.0} MiB, at most {:.0}; p99 {:.1} ms, p99.9 {:.1} \
         ms, longest {:.0} ms; slowest second {:.0} of {:.0}; {} flushes, {} compactions",
        run.seconds,
        cell.rate,
        run.resident_early_kib / 1024.0,
        run.resident_late_kib / 1024.0,
        run.resident_max_kib / 1024.0,
        cell.p99_us / 1e3,
        cell.p999_us / 1e3,
        cell.max_us / 1e3,
        run.second_min,
        run.second_median,
        run.flushes,
        run.compactions
    );
    judge(busy.map(quiet::stayed_busy), &figures, &bounds.0)
}

/// Bytes that may still be written below a folder.
fn free_bytes(folder: &std::path::Path) -> Result<u64> {
    let printed =
        Call::new("df").args(["--output=avail", "--block-size=1"]).args([folder]).output()?;
    let number = printed.lines().last().context("df printed nothing")?;
    number.trim().parse().with_context(|| format!("df printed {number}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_where_the_tests_run() {
        assert!(free_bytes(std::path::Path::new("/")).is_ok());
        assert!(free_bytes(std::path::Path::new("/no/such/folder")).is_err());
    }
}
