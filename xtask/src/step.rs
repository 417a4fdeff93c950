//! A list of named steps, run one after another, each with its time, then one summary line.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::command;

/// One step of a longer check.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// Short name, usable with `--only`.
    pub name: &'static str,
    /// What it does.
    pub action: Action,
}

/// What a step does.
#[derive(Debug, Clone, Copy)]
pub enum Action {
    /// Calls cargo with these words.
    Cargo(&'static str),
    /// Calls the release binary with these words.
    Tl(&'static str),
    /// Calls a function of ours.
    Call(fn() -> Result<()>),
}

impl Step {
    /// The command as shown to a reader.
    pub fn shown(&self) -> String {
        match self.action {
            Action::Cargo(words) => format!("cargo {words}"),
            Action::Tl(words) => format!("target/release/tl {words}"),
            Action::Call(_) => format!("cargo xtask {}", self.name),
        }
    }

    fn act(&self) -> Result<()> {
        match self.action {
            Action::Cargo(words) => command::cargo(words.split(' ')).run(),
            Action::Tl(words) => command::Call::new(crate::tree::tl())
                .args(words.split(' '))
                .dir(crate::tree::root())
                .run(),
            Action::Call(act) => act(),
        }
    }
}

/// Runs every step, also after one has failed: a reader wants all the news at once.
pub fn run_all(steps: &[Step]) -> ExitCode {
    let mut results: Vec<(&Step, Duration, Option<anyhow::Error>)> = Vec::new();
    for step in steps {
        println!("\n=== {}: {}", step.name, step.shown());
        let began = Instant::now();
        let error = step.act().err();
        if let Some(error) = &error {
            eprintln!("{}: {error:#}", step.name);
        }
        results.push((step, began.elapsed(), error));
    }

    println!("\nstep             seconds  result");
    for (step, took, error) in &results {
        let word = if error.is_none() { "passed" } else { "FAILED" };
        println!("{:<16} {:>7.1}  {word}", step.name, took.as_secs_f64());
    }
    for (step, _, error) in &results {
        if let Some(error) = error {
            println!("{}: {error:#}", step.name);
        }
    }
    let failed = results.iter().filter(|(_, _, error)| error.is_some()).count();
    println!("\n{}", summary(results.len() - failed, failed));
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The last line of a run, alone on its line so that scripts can read it.
fn summary(passed: usize, failed: usize) -> String {
    format!("{passed} passed, {failed} failed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;

    #[test]
    fn a_failed_step_fails_the_run_but_does_not_stop_it() {
        use std::sync::atomic::{AtomicU32, Ordering};
        static CALLS: AtomicU32 = AtomicU32::new(0);
        fn bad() -> Result<()> {
            bail!("planned")
        }
        fn good() -> Result<()> {
            CALLS.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
        let steps = [
            Step { name: "bad", action: Action::Call(bad) },
            Step { name: "good", action: Action::Call(good) },
        ];
        assert_eq!(run_all(&steps), ExitCode::FAILURE);
        assert_eq!(CALLS.load(Ordering::SeqCst), 1, "the step behind a failed one still runs");
        assert_eq!(run_all(&steps[1..]), ExitCode::SUCCESS);
        assert_eq!(summary(3, 1), "3 passed, 1 failed");
    }
}
