//! `tl sim`: the simulator that the product is tested with, for whoever wants to see it.

use std::io::IsTerminal;
use std::num::NonZero;
use std::ops::Range;

use clap::Args;
use serde_json::json;
use tl_sim::{Coverage, Options, Report};

use crate::failure::Failure;
use crate::output::Out;

/// Most seeds in one command.
const SEEDS_MAX: u64 = 1_000_000;

/// Arguments of `tl sim`.
#[derive(Debug, Args)]
pub struct SimArgs {
    /// Run this seed and tell how it went
    #[arg(long, value_name = "N", conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Run many seeds: a number of them from 0 on, or a range without its end
    #[arg(long, value_name = "N|A..B", value_parser = seeds)]
    seeds: Option<Range<u64>>,
    /// Least operations of clients per seed, 1 to 1,000,000
    #[arg(long, value_name = "N", default_value_t = 2_000,
        value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    operations: u64,
    /// Seeds that run at the same time, each on a thread of its own; as many as processors when
    /// absent
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1_024))]
    threads: Option<u16>,
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text}: {error}"));
    let range = match text.split_once("..") {
        Some((from, to)) => number(from)?..number(to)?,
        None => 0..number(text)?,
    };
    if range.is_empty() || range.end - range.start > SEEDS_MAX {
        return Err(format!("from 1 to {SEEDS_MAX} seeds"));
    }
    Ok(range)
}

/// Runs seeds until one breaks a promise or all have kept them.
pub fn run(args: &SimArgs, out: &Out) -> anyhow::Result<()> {
    let options = Options { operations_min: args.operations, ..Options::default() };
    let one = args.seed.is_some() || args.seeds.is_none();
    let seed = args.seed.unwrap_or(0);
    let seeds = args.seeds.clone().unwrap_or(seed..seed.saturating_add(1));
    let total = seeds.end - seeds.start;
    let mut said = Ok(());
    let summary = tl_sim::run_many(seeds, &options, threads(args.threads), |report| {
        if said.is_ok() {
            said = tell(report, one, out);
        }
    });
    said?;
    if let Some(broken) = &summary.broken {
        return Err(Failure::WithAdvice {
            what: format!("seed {} broke a promise", broken.seed),
            advice: format!("see it again with `tl sim --seed {}`", broken.seed),
        }
        .into());
    }
    if out.is_json() {
        if !one {
            out.json(&json!({"seeds": summary.runs, "coverage": summary.coverage}))?;
        }
        return Ok(());
    }
    out.line(&covered(&summary.coverage))?;
    out.line(&format!("{} of {total} seeds kept every promise", summary.runs))
}

/// As many as asked for, else as many as there are processors.
fn threads(asked: Option<u16>) -> NonZero<u16> {
    let processors = || {
        let there = std::thread::available_parallelism().map_or(1, NonZero::get);
        u16::try_from(there).unwrap_or(u16::MAX)
    };
    NonZero::new(asked.unwrap_or_else(processors)).unwrap_or(NonZero::<u16>::MIN)
}

/// One run: a line, and when it is the only one or broke something, what happened in it.
fn tell(report: &Report, one: bool, out: &Out) -> anyhow::Result<()> {
    if out.is_json() {
        return out.json(report);
    }
    if one || report.violation.is_some() {
        for line in &report.recent {
            out.line(line)?;
        }
    } else if !std::io::stdout().is_terminal() && report.seed % 10 != 9 {
        return Ok(());
    }
    out.line(&report.to_string())
}

/// What runs went through, a line each.
fn covered(coverage: &Coverage) -> String {
    let counts = coverage.counts();
    let lines =
        counts.iter().map(|(name, count)| format!("{count:>12}  {}", name.replace('_', " ")));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_a_number_or_a_range() {
        assert_eq!(seeds("8"), Ok(0..8));
        assert_eq!(seeds("40..50"), Ok(40..50));
        for wrong in ["0", "5..5", "9..3", "0..2000000", "x", "1..", "-1"] {
            assert!(seeds(wrong).is_err(), "{wrong}");
        }
    }
}
