//! Runs what decodes foreign bytes over a kept corpus and over seeded mutations of it.
//!
//! ```text
//!  encoders ─► seeds ──┐
//!                      ├─► fuzz/corpus/TARGET ─► body(bytes) as they are, then mutated
//!  found by a fuzzer ──┘
//! ```
//!
//! A *body* is a function of bytes that panics when a promise is broken: bytes that decode must
//! come back from their encoding, a checksum must refuse what was changed, output must be
//! bounded by input. Bodies live in the crate whose decoder they try, in its module `fuzzing`;
//! the crate in `fuzz/` gives the same bodies to a fuzzer that is guided by coverage.
//!
//! For tests only: no crate uses this outside its own.

mod mutate;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use mutate::Mutator;

/// Mutations that a test tries of the whole corpus.
const MUTATIONS: u64 = 10_000;
/// The same for a body that takes about a millisecond.
const MUTATIONS_SLOW: u64 = 500;
/// Longest input made by mutation, bytes.
pub const INPUT_BYTES_MAX: usize = 64 * 1024;
/// Goes on mutating for so many seconds: set by `cargo xtask fuzz`.
const SECONDS: &str = "TL_FUZZ_SECONDS";
/// Starts another run of mutations: set by `cargo xtask fuzz --seed`.
const SEED: &str = "TL_FUZZ_SEED";
/// Writes the seeds instead of comparing them: set by `cargo xtask fuzz --write-seeds`.
const WRITE_SEEDS: &str = "TL_FUZZ_WRITE_SEEDS";

/// A named input made by the product's own encoders.
pub type Seed = (&'static str, Vec<u8>);

/// Runs `body` over the corpus of `target` and over mutations of it, the same ones every time.
///
/// The seeds must be in the corpus as they are made today, so that a changed encoding is seen.
///
/// # Panics
/// When the corpus lacks a seed, or `body` panics: the input is then written to a file.
pub fn check(target: &str, seeds: &[Seed], body: impl Fn(&[u8])) {
    over(target, seeds, MUTATIONS, body);
}

/// The same with fewer mutations, for a body that is slow.
///
/// # Panics
/// As [`check`].
pub fn check_slow(target: &str, seeds: &[Seed], body: impl Fn(&[u8])) {
    over(target, seeds, MUTATIONS_SLOW, body);
}

#[allow(clippy::print_stderr)] // a long run says how far it came
fn over(target: &str, seeds: &[Seed], mutations: u64, body: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    keep(&folder, seeds, std::env::var_os(WRITE_SEEDS).is_some());
    let corpus = read(&folder);
    assert!(!corpus.is_empty(), "{} holds no input", folder.display());
    for (name, bytes) in &corpus {
        run(target, name, bytes, &body);
    }
    let seconds = variable(SECONDS);
    let until = Instant::now() + Duration::from_secs(seconds.unwrap_or(0));
    let inputs: Vec<Vec<u8>> = corpus.into_iter().map(|(_, bytes)| bytes).collect();
    let seed = variable(SEED).unwrap_or(0);
    let mut mutator = Mutator::new(seed, inputs);
    let mut done: u64 = 0;
    while done < mutations || (seconds.is_some() && Instant::now() < until) {
        let bytes = mutator.next();
        run(target, &format!("mutation {done} of seed {seed}"), &bytes, &body);
        done += 1;
    }
    eprintln!("fuzz {target}: {done} mutations");
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Holds the corpus against the seeds, or writes them into it.
fn keep(folder: &Path, seeds: &[Seed], write: bool) {
    for (name, bytes) in seeds {
        let file = folder.join(name);
        if write {
            fs::create_dir_all(folder).expect("the folder can be made");
            fs::write(&file, bytes).expect("the seed can be written");
            continue;
        }
        let kept = fs::read(&file).ok();
        assert!(
            kept.as_deref() == Some(bytes),
            "{} is not what the encoder makes: if the change is meant, run \
             `cargo xtask fuzz --write-seeds`",
            file.display()
        );
    }
}

/// The corpus by name, so that the order does not depend on the file system.
fn read(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut corpus: Vec<(String, Vec<u8>)> = files
        .map(|file| {
            let path = file.expect("the folder can be read").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (name, fs::read(&path).expect("the file can be read"))
        })
        .collect();
    corpus.sort();
    corpus
}

fn run(target: &str, name: &str, bytes: &[u8], body: &impl Fn(&[u8])) {
    if catch_unwind(AssertUnwindSafe(|| body(bytes))).is_ok() {
        return;
    }
    let file = failed(target);
    let kept = fs::write(&file, bytes).map_or_else(|e| e.to_string(), |()| "kept".to_owned());
    panic!("{target} breaks on {name}, {} bytes; input {}: {kept}", bytes.len(), file.display());
}

fn failed(target: &str) -> PathBuf {
    std::env::temp_dir().join(format!("tl-fuzz-{target}-{}", std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_promise_names_its_input() {
        let broken = || run("none", "this one", b"abc", &|bytes: &[u8]| assert!(bytes.is_empty()));
        let said = catch_unwind(broken).expect_err("it panics");
        let said = said.downcast_ref::<String>().expect("a message");
        assert!(said.contains("none breaks on this one, 3 bytes"), "{said}");
        assert_eq!(fs::read(failed("none")).expect("kept"), b"abc");
        fs::remove_file(failed("none")).expect("removed");
    }

    #[test]
    fn a_seed_that_is_not_kept_as_it_is_made_is_named() {
        let folder = std::env::temp_dir().join(format!("tl-fuzz-seeds-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("made");
        fs::write(folder.join("one"), b"1").expect("written");
        keep(&folder, &[("one", b"1".to_vec())], false);
        let other = catch_unwind(|| keep(&folder, &[("one", b"2".to_vec())], false));
        let missing = catch_unwind(|| keep(&folder, &[("two", b"2".to_vec())], false));
        fs::remove_dir_all(&folder).expect("removed");
        assert!(other.is_err() && missing.is_err());
    }
}
