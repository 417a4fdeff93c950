//! The integration tests of single crates, run by the programs that the test command builds.
//!
//! Built alone, by `cargo test -p`, they would be other programs: of what lies below them other
//! features would be on, and all of it would be compiled once more.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::command::{Call, cargo, last_lines};
use crate::tree;

/// The integration tests of a crate, built; to be given words and run.
pub fn tests_of(package: &str) -> Result<Call> {
    let words = "test --workspace --locked --no-run --message-format json";
    let built = cargo(words.split(' ')).output()?;
    let manifest = format!("crates/{package}/Cargo.toml");
    let is_its = |artifact: &Value| {
        let path = artifact["manifest_path"].as_str().unwrap_or_default();
        path.ends_with(&manifest) && artifact["target"]["name"] == "it"
    };
    let artifacts = built.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let program = artifacts
        .filter(is_its)
        .find_map(|artifact| artifact["executable"].as_str().map(str::to_owned))
        .with_context(|| format!("the integration tests of {package} were not built"))?;
    Ok(Call::new(program).dir(&tree::root().join("crates").join(package)))
}

/// Runs tests of a crate with these words, the beginning of their names first; gives how many
/// passed. None is an error: a name that is nobody's would pass as well. A failure carries what
/// the tests printed, for the one time that it happens.
pub fn passed(package: &str, words: &[&str]) -> Result<u32> {
    let (status, printed) = tests_of(package)?.env("RUST_BACKTRACE", "0").args(words).verdict()?;
    ensure!(status.success(), "{words:?} ended with {status}: {}", last_lines(&printed, 60));
    let line = printed.lines().find_map(|line| line.strip_prefix("test result: ok. "));
    let line = line.with_context(|| format!("{words:?}: {printed}"))?;
    let count = line.split_whitespace().next().and_then(|count| count.parse().ok());
    let count: u32 = count.with_context(|| format!("no count in {line}"))?;
    ensure!(count > 0, "no test is called {words:?}");
    Ok(count)
}
