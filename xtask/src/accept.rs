//! Acceptance of one capability: every line that must hold before it counts as done, on the
//! release binary, printed as `line · figure · ok|missed|void`.
//!
//! `void` means that a speed line could not be judged, because the machine was not quiet.

mod bounds;
mod data;
mod export;
mod fleet;
mod following;
mod limits;
mod node;
mod quiet;
mod tails;
mod three_nodes;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::{command, needs, tree};

/// One line of a capability.
#[derive(Debug, Clone, Copy)]
struct Line {
    /// Short name, usable with `--only`.
    name: &'static str,
    /// What is demanded, in a few words.
    demand: &'static str,
    /// Whether it is the one that runs the test command, which may be left out.
    is_test_command: bool,
    run: Run,
}

/// What a line does.
#[derive(Debug, Clone, Copy)]
enum Run {
    /// Always the same.
    Once(fn() -> Result<Verdict>),
    /// For as many minutes as the caller wants, and this many when none are given.
    Minutes(u32, fn(u32) -> Result<Verdict>),
}

/// Which lines are run, and how.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Leave out the line that runs `cargo xtask test` in a clean clone.
    #[arg(long)]
    skip_test_command: bool,
    /// Run only the lines of these names.
    #[arg(long, value_name = "LINE")]
    only: Vec<String>,
    /// Minutes of each line that can be longer or shorter.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    minutes: Option<u32>,
}

/// How a line ended, with its figure. An error counts as missed.
#[derive(Debug)]
enum Verdict {
    Ok(String),
    Void(String),
}

/// Runs the lines of a capability.
pub fn run(name: &str, options: &Options) -> Result<ExitCode> {
    let Options { skip_test_command, only, minutes } = options;
    let lines = match name {
        "node" => node::LINES,
        "limits" => limits::LINES,
        "fleet" => fleet::LINES,
        "three-nodes" => three_nodes::LINES,
        _ => {
            bail!("no capability is called {name}; there are: node, limits, fleet, three-nodes")
        }
    };
    for name in only {
        if !lines.iter().any(|line| line.name == name) {
            bail!("no line is called {name}");
        }
    }
    if let Some(status) = needs::ensure(needs::TEST)? {
        return Ok(status);
    }
    command::cargo(["build", "--release", "--locked", "-p", "throughline"]).run()?;
    let chosen = |line: &&Line| {
        (only.is_empty() || only.iter().any(|name| name == line.name))
            && !(*skip_test_command && line.is_test_command)
    };
    let mut report = Vec::new();
    let mut missed = 0;
    for line in lines.iter().filter(chosen) {
        println!("\n=== {}: {}", line.name, line.demand);
        let outcome = match line.run {
            Run::Once(run) => run(),
            Run::Minutes(usual, run) => run(minutes.unwrap_or(usual)),
        };
        let shown = match outcome {
            Ok(Verdict::Ok(figure)) => format!("{} · {figure} · ok", line.demand),
            Ok(Verdict::Void(figure)) => format!("{} · {figure} · void", line.demand),
            Err(error) => {
                missed += 1;
                format!("{} · {error:#} · missed", line.demand)
            }
        };
        println!("{shown}");
        report.push(shown);
    }
    println!("\n{}", report.join("\n"));
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The verdict over figures: void when the machine was not quiet, missed when something is past
/// its bound.
fn judge(void: Option<String>, figures: &str, missed: &[String]) -> Result<Verdict> {
    match (void, missed) {
        (Some(reason), _) => Ok(Verdict::Void(format!("{figures} ({reason})"))),
        (None, []) => Ok(Verdict::Ok(figures.to_owned())),
        (None, missed) => bail!("{figures}; missed: {}", missed.join(", ")),
    }
}

/// Reads every row of the store's runs and checks the rules of the key space.
fn scrub(data: &Path) -> Result<()> {
    let data = data.to_string_lossy();
    command::Call::new(tree::tl()).args(["debug", "run", "--scrub", "--data", &data]).run()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_machine_voids_what_would_be_missed_or_met() {
        let missed = ["0.4 < 0.5".to_owned()];
        assert!(matches!(judge(None, "f", &[]), Ok(Verdict::Ok(_))));
        assert!(matches!(judge(Some("busy".into()), "f", &missed), Ok(Verdict::Void(_))));
        assert!(judge(None, "f", &missed).unwrap_err().to_string().contains("0.4 < 0.5"));
    }

    #[test]
    fn lines_of_a_capability_have_different_names() {
        for lines in [node::LINES, limits::LINES, fleet::LINES, three_nodes::LINES] {
            let mut names: Vec<&str> = lines.iter().map(|line| line.name).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), lines.len());
        }
    }
}
