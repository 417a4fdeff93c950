//! Planted bugs: patches that break a promise, each with the command that must notice.
//!
//! A check that has never been seen to fail proves little. Every patch in `xtask/planted` is
//! applied to a scratch copy of the committed tree, its finder is run there, and the finder
//! must fail. A patch that no longer applies, or whose finder cannot even be built, is an
//! error: it would prove nothing. So is a finder that fails without any bug. A few patches take
//! away what may be lost, hints for example: there the command must pass. The product itself
//! carries no switches for bugs.
//!
//! All patches of a run take turns in one copy with one build folder: a patch is applied, found
//! and taken back, so that cargo builds anew only what the patch touches.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::command::{Call, last_lines};
use crate::tree;

/// Longest run of one finder, seconds, building included.
const FINDER_SECONDS_MAX: &str = "1800";
/// Settings of cargo in the scratch copy. A finder may be in need of the release binary, but
/// not of its speed, and nobody debugs what is built here.
const BUILD: [(&str, &str); 5] = [
    ("CARGO_PROFILE_DEV_DEBUG", "0"),
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"),
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
    ("CARGO_PROFILE_RELEASE_DEBUG", "0"),
];

/// One planted bug, as its patch describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Planted {
    name: String,
    bug: String,
    /// Builds what the finder runs; must succeed, so that a patch that does not compile is
    /// never taken for a bug that was found.
    build: String,
    /// Must fail, or must pass if the tree outlives the bug.
    finder: String,
    /// The bug takes away only what may be lost: the command must pass all the same.
    is_outlived: bool,
    patch: PathBuf,
}

/// Runs the finders of all planted bugs, or of those named.
pub fn run(names: &[String]) -> Result<ExitCode> {
    let (found, missed) = find(names)?;
    println!("\n{found} found, {missed} missed");
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs all finders; one that misses its bug is an error, and so is a tree without any.
pub fn run_all() -> Result<u32> {
    let (found, missed) = find(&[])?;
    ensure!(missed == 0, "{missed} bugs were missed");
    ensure!(found > 0, "there is no planted bug");
    Ok(found)
}

/// Runs the finders of the bugs whose names begin so; one that misses its bug is an error, and so
/// is a beginning without any.
pub fn run_some(beginning: &str) -> Result<u32> {
    let names = read_all()?.into_iter().map(|bug| bug.name);
    let names: Vec<String> = names.filter(|name| name.starts_with(beginning)).collect();
    ensure!(!names.is_empty(), "no planted bug begins with {beginning}");
    let (found, missed) = find(&names)?;
    ensure!(missed == 0, "{missed} bugs were missed");
    Ok(found)
}

/// How many bugs were found and missed.
fn find(names: &[String]) -> Result<(u32, u32)> {
    let all = read_all()?;
    for name in names {
        ensure!(all.iter().any(|planted| planted.name == *name), "no planted bug is called {name}");
    }
    let is_chosen = |bug: &&Planted| names.is_empty() || names.contains(&bug.name);
    let chosen: Vec<&Planted> = all.iter().filter(is_chosen).collect();
    let copy = tree::target().join("planted");
    scratch_copy(&copy)?;
    check_finders(&copy, &chosen)?;
    let mut found = 0;
    let mut missed = 0;
    for planted in chosen {
        println!("=== {}: {}", planted.name, planted.bug);
        let began = Instant::now();
        let outcome = match apply(&copy, planted, &[]) {
            Ok(()) => {
                let outcome = build_and_find(&copy, planted);
                apply(&copy, planted, &["--reverse"]).context("a patch cannot be taken back")?;
                outcome
            }
            Err(error) => Err(error.context("the patch no longer applies")),
        };
        println!("{:.0} s", began.elapsed().as_secs_f64());
        match outcome {
            Ok(news) => {
                println!("found: {news}");
                found += 1;
            }
            Err(error) => {
                println!("MISSED: {error:#}");
                missed += 1;
            }
        }
    }
    Ok((found, missed))
}

fn read_all() -> Result<Vec<Planted>> {
    let folder = tree::root().join("xtask/planted");
    let mut all = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let patch = entry?.path();
        if patch.extension().is_some_and(|ext| ext == "patch") {
            let text = std::fs::read_to_string(&patch)?;
            let planted = parse(&patch, &text).with_context(|| patch.display().to_string())?;
            all.push(planted);
        }
    }
    all.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(all)
}

/// Reads the header lines `Bug:`, `Build:` and `Finder:` (or `Outlives:`) in front of the diff.
fn parse(patch: &Path, text: &str) -> Result<Planted> {
    let header = text.lines().take_while(|line| !line.starts_with("--- "));
    let field = |name: &str| {
        let prefix = format!("{name}: ");
        header.clone().find_map(|line| line.strip_prefix(&prefix)).map(|value| value.trim())
    };
    let need = |name: &str| {
        field(name).map(String::from).with_context(|| format!("the header has no `{name}: …` line"))
    };
    ensure!(text.contains("\n+++ b/"), "there is no diff with paths `a/…` and `b/…`");
    let name = patch.file_stem().context("the patch has no name")?.to_string_lossy().into_owned();
    let is_outlived = field("Outlives").is_some();
    let finder = need(if is_outlived { "Outlives" } else { "Finder" })?;
    let (bug, build) = (need("Bug")?, need("Build")?);
    for line in [&build, &finder] {
        ensure!(line.starts_with("cargo "), "`{line}` is not a cargo command");
    }
    Ok(Planted { name, bug, build, finder, is_outlived, patch: patch.to_path_buf() })
}

/// Runs every finder on the tree as it is: one that fails there would find any bug.
fn check_finders(copy: &Path, chosen: &[&Planted]) -> Result<()> {
    let finders: BTreeSet<[&str; 2]> =
        chosen.iter().map(|planted| [planted.build.as_str(), &planted.finder]).collect();
    for line in finders.iter().flatten() {
        println!("=== without a bug: {line}");
        let (status, printed) = cargo_in(copy, line).verdict()?;
        ensure!(status.success(), "fails without a bug: {}", last_lines(&printed, 20));
    }
    Ok(())
}

/// Applies a patch to the copy. The files it touches become the youngest, also when it is taken
/// back, which is how cargo knows them for changed.
fn apply(copy: &Path, planted: &Planted, options: &[&str]) -> Result<()> {
    Call::new("git")
        .args(["apply", "--whitespace=nowarn"])
        .args(options)
        .args([&planted.patch])
        .dir(copy)
        // Without this git would take the surrounding repository for the one to patch.
        .env("GIT_CEILING_DIRECTORIES", copy.parent().expect("the copy lies in a folder"))
        .output()
        .map(drop)
}

fn build_and_find(copy: &Path, planted: &Planted) -> Result<String> {
    let (status, printed) = cargo_in(copy, &planted.build).verdict()?;
    ensure!(status.success(), "the patched tree does not build: {}", last_lines(&printed, 20));
    let (status, printed) = cargo_in(copy, &planted.finder).verdict()?;
    match status.code() {
        Some(0) if planted.is_outlived => {}
        Some(0) => bail!("`{}` passes although the bug is there", planted.finder),
        _ if planted.is_outlived => {
            bail!("`{}` fails: {}", planted.finder, last_lines(&printed, 20));
        }
        // What `timeout` says when it had to end the finder: nothing was seen either way.
        Some(124) => bail!("`{}` took longer than {FINDER_SECONDS_MAX} s", planted.finder),
        _ => {}
    }
    Ok(last_lines(printed.trim_end(), 6))
}

/// The committed tree in a folder of its own. Its files are as young as the copy: with the
/// commit's times cargo would take a file for unchanged that an earlier run had altered.
fn scratch_copy(copy: &Path) -> Result<()> {
    if copy.exists() {
        std::fs::remove_dir_all(copy).with_context(|| copy.display().to_string())?;
    }
    std::fs::create_dir_all(copy)?;
    let archive = copy.with_extension("tar");
    Call::new("git")
        .args(["archive", "--format=tar", "--output"])
        .args([&archive])
        .args(["HEAD"])
        .dir(tree::root())
        .run()?;
    Call::new("tar").args(["-xmf"]).args([&archive]).args(["-C"]).args([copy]).run()?;
    std::fs::remove_file(&archive)?;
    Ok(())
}

fn cargo_in(copy: &Path, line: &str) -> Call {
    let call = Call::new("timeout")
        .args([FINDER_SECONDS_MAX])
        .args(line.split_whitespace())
        .dir(copy)
        .env("CARGO_TARGET_DIR", tree::target().join("planted-target"));
    BUILD.iter().fold(call, |call, (name, value)| call.env(name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_names_bug_build_and_finder() {
        let text = "Bug: answers too early\nBuild: cargo test --no-run\nFinder: cargo test\n\n\
                    --- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n";
        let planted = parse(Path::new("dir/early-ack.patch"), text).unwrap();
        assert_eq!(planted.name, "early-ack");
        assert_eq!(planted.bug, "answers too early");
        assert_eq!((planted.finder.as_str(), planted.is_outlived), ("cargo test", false));
        let outlived = parse(Path::new("x.patch"), &text.replace("Finder", "Outlives")).unwrap();
        assert_eq!((outlived.finder.as_str(), outlived.is_outlived), ("cargo test", true));
        for broken in [
            text.replace("Bug: ", ""),
            text.replace("Finder: cargo", "Finder: rm"),
            text.replace("+++ b/x", ""),
        ] {
            assert!(parse(Path::new("x.patch"), &broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn every_patch_of_the_tree_has_a_sound_header() {
        read_all().unwrap();
    }
}
