//! Whether this machine is quiet enough to judge speed.
//!
//! A figure from a busy machine says nothing. Before a speed line the load must fall; after it
//! the ceilings that were measured beside it must be near those of the quiet machine.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Load average over one minute below which the machine counts as quiet.
const LOAD_MAX: f64 = 0.3;
/// Longest wait for that.
const WAIT_MAX: Duration = Duration::from_secs(600);
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A ceiling below this part of the quiet one voids the line.
const CEILING_RATIO_MIN: f64 = 0.85;
/// Raw group commits per second of the quiet reference machine, by number of clients.
const CEILINGS: Rates = [(1, 6_700.0), (16, 53_000.0), (64, 110_000.0), (256, 132_000.0)];
/// The same with two followers.
const REPLICATED: Rates = [(1, 4_000.0), (16, 35_000.0), (64, 71_000.0), (256, 95_000.0)];

type Rates = [(u64, f64); 4];

/// Waits until the load has fallen; `Some(load)` when it has not.
pub fn wait() -> Result<Option<f64>> {
    let began = Instant::now();
    loop {
        let load = load()?;
        if load < LOAD_MAX {
            return Ok(None);
        }
        if began.elapsed() > WAIT_MAX {
            return Ok(Some(load));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn load() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/loadavg").context("cannot read the load")?;
    let first = text.split_whitespace().next().context("the load is empty")?;
    first.parse().with_context(|| format!("the load {first} is no number"))
}

/// Why a load that has not fallen voids the run.
pub fn stayed_busy(load: f64) -> String {
    format!("the load stayed at {load}")
}

/// Why a ceiling measured with this many clients voids the run, if it does.
pub fn too_slow(clients: u64, per_second: f64) -> Option<String> {
    below(&CEILINGS, clients, per_second)
}

/// The same for the ceiling with two followers.
pub fn too_slow_replicated(clients: u64, per_second: f64) -> Option<String> {
    below(&REPLICATED, clients, per_second)
}

fn below(rates: &Rates, clients: u64, per_second: f64) -> Option<String> {
    let (_, quiet) = rates.iter().find(|(known, _)| *known == clients)?;
    (per_second < quiet * CEILING_RATIO_MIN).then(|| {
        let percent = per_second / quiet * 100.0;
        format!("the ceiling at {clients} clients is {percent:.0} % of the quiet one")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ceiling_under_85_percent_voids_the_run() {
        assert!(too_slow(256, 112_000.0).is_some());
        assert!(too_slow(256, 112_300.0).is_none());
        assert!(too_slow(3, 1.0).is_none(), "no quiet figure is known");
    }
}
