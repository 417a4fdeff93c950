//! What a cluster's writes cost beside the replicated ceiling, how long they wait when a leader
//! dies, and what a cluster costs that nobody calls.

use anyhow::{Result, ensure};
use serde::Deserialize;

use crate::accept::bounds::Bounds;
use crate::accept::{Verdict, judge, quiet};
use crate::figures::{self, Cell};

/// Part of the ceiling's rate that 256 clients must reach.
const MANY_RATIO: f64 = 0.4;
/// Longest median of one client, by the ceiling's.
const ONE_CLIENT_RATIO: f64 = 1.5;

/// Appends to three nodes beside the replicated ceiling.
pub fn append() -> Result<Verdict> {
    let busy = quiet::wait()?;
    let words = ["append", "--cluster", "--against", "ceiling", "--conns", "1,16,64,256"];
    let cells: Vec<Cell> = figures::bench(&words)?;
    ensure!(cells.len() == 4, "expected four cells, got {}", cells.len());
    let (mut bounds, mut figures) = (Bounds::default(), Vec::new());
    let mut void = busy.map(quiet::stayed_busy);
    for cell in &cells {
        let other = cell.against()?;
        match cell.conns {
            1 => {
                let ratio = cell.p50_us / other.against_p50_us;
                bounds.at_most("p50 of 1 client by the ceiling's", ratio, ONE_CLIENT_RATIO);
            }
            256 => bounds.at_least("256 clients", other.ratio, MANY_RATIO),
            _ => {}
        }
        void = void.or_else(|| quiet::too_slow_replicated(cell.conns, other.against_rate));
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
    judge(void, &figures.join("; "), &bounds.0)
}

#[derive(Debug, Deserialize)]
struct Failover {
    kills: u64,
    samples: u64,
    p50_us: f64,
    p99_us: f64,
    max_us: f64,
}

/// The first write after a leader's death.
pub fn failover() -> Result<Verdict> {
    let busy = quiet::wait()?;
    let Failover { kills, samples, p50_us, p99_us, max_us } =
        figures::bench_one(&["failover", "--kills", "20"])?;
    ensure!(kills == 20 && samples > 256, "{kills} kills gave {samples} samples");
    let mut bounds = Bounds::default();
    bounds.at_most("p99, ms", p99_us / 1e3, 1_500.0);
    let figures = format!(
        "{kills} kills, {samples} groups lost their leader: p50 {:.0} ms, p99 {:.0} ms, worst \
         {:.0} ms",
        p50_us / 1e3,
        p99_us / 1e3,
        max_us / 1e3
    );
    judge(busy.map(quiet::stayed_busy), &figures, &bounds.0)
}

#[derive(Debug, Deserialize)]
struct Idle {
    cpu_percent: f64,
    rss_mib: f64,
}

/// Three nodes that nobody calls, all of them and with one killed.
pub fn idle() -> Result<Verdict> {
    let busy = quiet::wait()?;
    let (mut bounds, mut figures) = (Bounds::default(), Vec::new());
    for down in ["0", "1"] {
        let words = ["idle", "--nodes", "3", "--rest", "60", "--seconds", "60", "--down", down];
        let Idle { cpu_percent, rss_mib } = figures::bench_one(&words)?;
        bounds.at_most(&format!("{down} down, % of a core"), cpu_percent, 3.0);
        bounds.at_most(&format!("{down} down, MiB"), rss_mib, 120.0);
        figures.push(format!("{down} down: {cpu_percent:.2} % of a core, {rss_mib:.1} MiB"));
    }
    judge(busy.map(quiet::stayed_busy), &figures.join("; "), &bounds.0)
}
