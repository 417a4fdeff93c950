//! Faults between real processes for longer than the test command has time for.
//!
//! The faults, the writers and the oracle are those of the tests: namespaces of the network are
//! made, members killed, frozen, cut off in both directions or one, and slowed, for a minute each
//! and in turn. For the last quarter of the time members are killed while they give or take the
//! rows of whole groups.

use std::process::ExitCode;

use anyhow::Result;

use crate::{faces, needs};

/// Tests that go on for as long as their environment says.
const FAULTS: &str = "faults::killed_frozen_cut_off_and_slow_members_cost_no_event";
const ROWS: &str = "rows::members_killed_while_rows_are_given_lose_nothing";
/// Names the minutes to them.
const MINUTES: &str = "TL_FAULTS_MINUTES";
/// This part of the time is for the second one.
const ROWS_PART: u32 = 4;

/// How long.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Minutes; every fault comes once in any case, which takes about eight.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub minutes: u32,
}

/// Runs the faults.
pub fn run(options: &Options) -> Result<ExitCode> {
    if let Some(status) = needs::ensure(needs::TEST)? {
        return Ok(status);
    }
    for_minutes(options.minutes)?;
    Ok(ExitCode::SUCCESS)
}

/// The same for a line of the acceptance.
pub fn for_minutes(minutes: u32) -> Result<()> {
    let rows = (minutes / ROWS_PART).max(1);
    for (test, minutes) in [(FAULTS, minutes.saturating_sub(rows).max(1)), (ROWS, rows)] {
        // The profile of tests is optimised.
        faces::tests_of("throughline")?
            .args([test, "--exact", "--nocapture"])
            .env(MINUTES, minutes.to_string())
            .run()?;
    }
    Ok(())
}
