//! What starting, starting again, and very many sessions cost.

use anyhow::{Result, ensure};
use serde::Deserialize;

use crate::accept::bounds::Bounds;
use crate::accept::{Verdict, judge, quiet};
use crate::figures;

#[derive(Debug, Deserialize)]
struct Start {
    directory: String,
    p50_us: f64,
    resident_kib: f64,
}

/// A start on nothing.
pub fn start() -> Result<Verdict> {
    let busy = quiet::wait()?;
    let starts: Vec<Start> = figures::bench(&["start"])?;
    ensure!(starts.len() == 2, "expected two kinds of starts, got {}", starts.len());
    let (mut bounds, mut figures) = (Bounds::default(), Vec::new());
    for Start { directory, p50_us, resident_kib } in starts {
        let (ms, mib) = (p50_us / 1e3, resident_kib / 1024.0);
        bounds.at_most(&format!("{directory}, ms"), ms, 50.0);
        bounds.at_most(&format!("{directory}, MiB"), mib, 30.0);
        figures.push(format!("{directory} directory: p50 {ms:.1} ms, at most {mib:.1} MiB"));
    }
    judge(busy.map(quiet::stayed_busy), &figures.join("; "), &bounds.0)
}

#[derive(Debug, Deserialize)]
struct Restart {
    cache: String,
    log_bytes: f64,
    ready_ms: f64,
    against_ms: f64,
    ratio: f64,
}

/// A start behind a long log.
pub fn restart() -> Result<Verdict> {
    let busy = quiet::wait()?;
    let restarts: Vec<Restart> = figures::bench(&["restart", "--tail", "1GiB"])?;
    ensure!(restarts.len() == 2, "expected two states of the cache, got {}", restarts.len());
    let (mut bounds, mut figures) = (Bounds::default(), Vec::new());
    for Restart { cache, log_bytes, ready_ms, against_ms, ratio } in restarts {
        bounds.at_most(&cache, ratio, 1.5);
        let mib = log_bytes / f64::from(1 << 20);
        figures.push(format!(
            "{cache}: {ready_ms:.0} ms of {against_ms:.0} ms = {ratio:.2} for {mib:.0} MiB"
        ));
    }
    judge(busy.map(quiet::stayed_busy), &figures.join("; "), &bounds.0)
}

#[derive(Debug, Deserialize)]
struct Sessions {
    sessions: u64,
    create_rate: f64,
    each_bytes: f64,
    hot_p50_us: f64,
    cold_p50_us: f64,
    cold_ratio: f64,
    list_p99_us: f64,
}

/// A million sessions.
pub fn sessions() -> Result<Verdict> {
    let busy = quiet::wait()?;
    let found: Sessions = figures::bench_one(&["sessions", "--sessions", "1000000"])?;
    let mut bounds = Bounds::default();
    bounds.at_most("bytes each", found.each_bytes, 512.0);
    bounds.at_most("cold by hot", found.cold_ratio, 2.0);
    let figures = format!(
        "{} sessions at {:.0}/s, {:.0} B each; cold p50 {:.0} of hot {:.0} µs = {:.2}; list page \
         p99 {:.1} ms",
        found.sessions,
        found.create_rate,
        found.each_bytes,
        found.cold_p50_us,
        found.hot_p50_us,
        found.cold_ratio,
        found.list_p99_us / 1e3
    );
    judge(busy.map(quiet::stayed_busy), &figures, &bounds.0)
}
