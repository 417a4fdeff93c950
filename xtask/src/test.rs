//! The one test command: every check of the tree, as a list of steps.
//!
//! It only looks; it changes no file outside the build folder. It never leaves a check out
//! because something is missing: see [`crate::needs`].

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::step::{Action, Step, run_all};
use crate::{crash, docs_run, faces, needs, sync_order};

/// Every step, cheapest first. The ones behind `release` use the release binary.
pub const STEPS: &[Step] = &[
    Step { name: "format", action: Action::Cargo("fmt --all --check") },
    Step {
        name: "clippy",
        action: Action::Cargo("clippy --workspace --all-targets --locked -- -D warnings"),
    },
    Step { name: "tests", action: Action::Cargo("test --workspace --locked") },
    Step { name: "general-way", action: Action::Call(general_way) },
    Step { name: "release", action: Action::Cargo("build --release --locked -p throughline") },
    Step { name: "sync-order", action: Action::Call(sync_order::run) },
    Step { name: "crash", action: Action::Call(crash::gate) },
    // The tests run the seeds before these; with them it is a thousand.
    Step { name: "simulation", action: Action::Tl("sim --seeds 400..1000") },
    Step { name: "docs-run", action: Action::Call(docs_run::run) },
];

/// The tests of the HTTP face once more, with appends on the general way.
fn general_way() -> Result<()> {
    faces::tests_of("tl-gateway")?.env("TL_TEST_GENERAL_WAY", "1").run()
}

/// Runs all steps, or those named by `only`.
pub fn run(list: bool, only: &[String]) -> Result<ExitCode> {
    if list {
        for step in STEPS {
            println!("{:<16} {}", step.name, step.shown());
        }
        return Ok(ExitCode::SUCCESS);
    }
    for name in only {
        if !STEPS.iter().any(|step| step.name == name) {
            bail!("no step is called {name}; see `cargo xtask test --list`");
        }
    }
    if let Some(status) = needs::ensure(needs::TEST)? {
        return Ok(status);
    }
    let chosen: Vec<Step> = STEPS
        .iter()
        .filter(|step| only.is_empty() || only.iter().any(|name| name == step.name))
        .copied()
        .collect();
    crate::lengths::print_report()?;
    Ok(run_all(&chosen))
}
