//! Acceptance of one capability: every line that must hold before it counts as done, on the
//! release binary, printed as `line · figure · ok|missed|void`.
//!
//! `void` means that a speed line could not be judged, because the machine was not quiet.

mod data;
mod export;
mod following;
mod node;
mod quiet;
mod tails;

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
    run: fn() -> Result<Verdict>,
}

/// How a line ended, with its figure. An error counts as missed.
#[derive(Debug)]
enum Verdict {
    Ok(String),
    Void(String),
}

/// Runs the lines of a capability.
pub fn run(name: &str, skip_test_command: bool, only: &[String]) -> Result<ExitCode> {
    let lines = match name {
        "node" => node::LINES,
        _ => bail!("no capability is called {name}; there is: node"),
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
            && !(skip_test_command && line.is_test_command)
    };
    let mut report = Vec::new();
    let mut missed = 0;
    for line in lines.iter().filter(chosen) {
        println!("\n=== {}: {}", line.name, line.demand);
        let shown = match (line.run)() {
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

/// Reads every row of the store's runs and checks the rules of the key space.
fn scrub(data: &Path) -> Result<()> {
    let data = data.to_string_lossy();
    command::Call::new(tree::tl()).args(["debug", "run", "--scrub", "--data", &data]).run()
}
