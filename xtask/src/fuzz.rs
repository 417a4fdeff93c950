//! Fuzzing for as long as one likes, guided by coverage where that can be had.
//!
//! The bodies are the same that the tests run over the kept corpus (see `tl-fuzz`). Those of
//! library crates are built into `fuzz/` with LLVM's counters, which the pinned toolchain has,
//! and libFuzzer looks for inputs that reach new code. Those of the binary go through the seeded
//! mutator of their own test, for as long.
//!
//! Inputs that were found are left in `target/fuzz/found/TARGET`; one that breaks a promise
//! belongs into `fuzz/corpus/TARGET`, with the repair.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::command::{Call, cargo, last_lines};
use crate::tree;

/// Targets of the binary: the package's own test mutates them.
const SEEDED: [(&str, &str); 2] =
    [("import", "imports_over_the_corpus"), ("settings", "settings_over_the_corpus")];
/// Packages whose tests make the seeds.
const SEEDING: [&str; 9] = [
    "tl-types",
    "tl-core",
    "tl-wal",
    "tl-store",
    "tl-wire",
    "tl-raft",
    "tl-client",
    "tl-gateway",
    "throughline",
];
/// Counters for libFuzzer, on code of the target only: build scripts go without.
const INSTRUMENT: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares";
/// Longest input, bytes.
const INPUT_BYTES_MAX: u32 = 65_536;
/// Memory at which a target has failed, MiB.
const MEMORY_MIB_MAX: u32 = 2_048;

/// What a fuzzing run does.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// How long each target runs.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// Only these targets; all when none is given.
    #[arg(long, value_name = "TARGET")]
    target: Vec<String>,
    /// Start of the random choices.
    #[arg(long, default_value_t = 1)]
    seed: u32,
    /// Write the seeds that the encoders make today into the corpus, and stop.
    #[arg(long)]
    write_seeds: bool,
}

/// Runs the targets; the first broken promise ends the run.
pub fn run(options: &Options) -> Result<()> {
    if options.write_seeds {
        return write_seeds();
    }
    let guided = guided_targets()?;
    let known = || guided.iter().map(String::as_str).chain(SEEDED.map(|(name, _)| name));
    for name in &options.target {
        let all: Vec<_> = known().collect();
        ensure!(all.contains(&name.as_str()), "no target {name}; there are {}", all.join(", "));
    }
    let wanted = |name: &str| options.target.is_empty() || options.target.iter().any(|t| t == name);
    let guided: Vec<_> = guided.into_iter().filter(|name| wanted(name)).collect();
    let folder = if guided.is_empty() { PathBuf::new() } else { build()? };
    let seconds = (options.minutes * 60.0).ceil().max(1.0) as u64;
    for name in &guided {
        report(name, || guide(&folder.join(name), name, seconds, options.seed))?;
    }
    for (name, test) in SEEDED.into_iter().filter(|(name, _)| wanted(name)) {
        report(name, || mutate(test, seconds, options.seed))?;
    }
    Ok(())
}

fn report(name: &str, work: impl FnOnce() -> Result<String>) -> Result<()> {
    let started = Instant::now();
    let executions = work().with_context(|| format!("target {name}"))?;
    let minutes = started.elapsed().as_secs_f64() / 60.0;
    println!("{name} · {executions} executions · {minutes:.2} min · ok");
    Ok(())
}

fn write_seeds() -> Result<()> {
    for package in SEEDING {
        cargo(["test", "--package", package, "over_the_corpus"])
            .env("TL_FUZZ_WRITE_SEEDS", "1")
            .output()?;
    }
    Ok(())
}

/// The targets of the crate in `fuzz/`: one file each.
fn guided_targets() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for file in fs::read_dir(tree::root().join("fuzz/targets"))? {
        let path = file?.path();
        names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

/// Builds all targets; the folder with the programs.
fn build() -> Result<PathBuf> {
    let version = Call::new("rustc").args(["-vV"]).dir(tree::root()).output()?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("rustc does not name its host")?;
    let target = tree::root().join("target/fuzz/build");
    let folder = target.to_string_lossy().into_owned();
    // The versions that are fuzzed are those that are shipped.
    let lock = |folder: &str| tree::root().join(folder).join("Cargo.lock");
    fs::copy(lock(""), lock("fuzz")).context("Cargo.lock cannot be copied")?;
    cargo(["build", "--release", "--target", host, "--target-dir", &folder])
        .dir(&tree::root().join("fuzz"))
        .env("RUSTFLAGS", INSTRUMENT)
        .run()?;
    Ok(target.join(host).join("release"))
}

fn guide(program: &Path, name: &str, seconds: u64, seed: u32) -> Result<String> {
    let found = tree::root().join("target/fuzz/found").join(name);
    fs::create_dir_all(&found)?;
    let kept = tree::root().join("fuzz/corpus").join(name);
    let flags = [
        format!("-max_total_time={seconds}"),
        format!("-max_len={INPUT_BYTES_MAX}"),
        format!("-rss_limit_mb={MEMORY_MIB_MAX}"),
        format!("-malloc_limit_mb={MEMORY_MIB_MAX}"),
        format!("-seed={seed}"),
        format!("-artifact_prefix={}/broken-", found.display()),
        "-print_final_stats=1".to_owned(),
        "-timeout=10".to_owned(),
    ];
    let (status, printed) =
        Call::new(program).args([&found, &kept]).args(flags).dir(tree::root()).verdict()?;
    if !status.success() {
        bail!("ended with {status}:\n{}", last_lines(&printed, 40));
    }
    let line =
        printed.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    Ok(line.context("libFuzzer told no figures")?.trim().to_owned())
}

fn mutate(test: &str, seconds: u64, seed: u32) -> Result<String> {
    let (status, printed) = cargo(["test", "--package", "throughline", "--bin", "tl", test])
        .args(["--", "--nocapture"])
        .env("TL_FUZZ_SECONDS", seconds.to_string())
        .env("TL_FUZZ_SEED", seed.to_string())
        .verdict()?;
    ensure!(status.success(), "ended with {status}:\n{}", last_lines(&printed, 40));
    let line = printed.lines().find_map(|line| line.strip_prefix("fuzz "));
    let count = line.and_then(|line| line.split(' ').nth(1));
    Ok(count.context("the test told no figures")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_kept_corpus_has_a_target_and_every_target_a_corpus() {
        let corpora: BTreeSet<String> = fs::read_dir(tree::root().join("fuzz/corpus"))
            .unwrap()
            .map(|folder| folder.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        let seeded = SEEDED.map(|(name, _)| name.to_owned());
        let targets: BTreeSet<_> = guided_targets().unwrap().into_iter().chain(seeded).collect();
        assert_eq!(corpora, targets);
        let manifest = fs::read_to_string(tree::root().join("fuzz/Cargo.toml")).unwrap();
        for name in guided_targets().unwrap() {
            assert!(manifest.contains(&format!("path = \"targets/{name}.rs\"")), "{name}");
        }
    }
}
