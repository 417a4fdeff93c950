//! The simulator held to its own promises: every seed keeps them all, one seed is one run, and
//! what runs are made of does happen.

#![allow(clippy::unwrap_used)]

use std::num::NonZero;

use tl_sim::{Coverage, Options, Report, run, run_many};

fn keeps_every_promise(seed: u64) -> Report {
    let report = run(seed, &Options::default());
    assert!(
        report.violation.is_none(),
        "{report}\n{}\nagain: tl sim --seed {seed}",
        report.recent.join("\n")
    );
    report
}

/// What does not come up in every fifty seeds, each with a seed in which it does.
const RARE: [(&str, u64); 5] = [
    ("disks_lost_with_no_majority", 4),
    ("former_lives_refused", 1),
    ("full_disks", 10),
    ("rot_not_given", 118),
    ("second_disks_lost", 25),
];

/// Runs fifty seeds, one of full size among them, and checks that trouble of every kind came up.
fn fifty(first: u64) {
    let mut coverage = Coverage::default();
    for seed in first..first + 50 {
        let report = keeps_every_promise(seed);
        // Where disks are lost again and again, logs rot, or whoever takes rows is killed each time,
        // groups wait for long.
        let seen = &report.coverage;
        let waits = seen.disks_lost > 0 || seen.kills_taking > 100;
        let least = match (waits, seen.logs_rotten > 0) {
            (true, _) => 1,
            (false, true) => 500,
            (false, false) => 2_000,
        };
        assert!(report.coverage.operations >= least && report.virtual_ms >= 60_000, "{report}");
        coverage.add(&report.coverage);
    }
    assert!(coverage.operations >= 50_000, "{coverage:?}");
    let is_rare = |name: &&str| RARE.iter().any(|(rare, _)| rare == name);
    let missing: Vec<&str> = coverage.missing().into_iter().filter(|it| !is_rare(it)).collect();
    assert!(missing.is_empty(), "{missing:?} never happened: {coverage:?}");
}

#[test]
fn what_is_rare_happens_too() {
    for (name, seed) in RARE {
        let coverage = keeps_every_promise(seed).coverage;
        assert!(!coverage.missing().contains(&name), "{name} in seed {seed}: {coverage:?}");
    }
}

#[test]
fn seeds_0_to_49_keep_every_promise() {
    fifty(0);
}

#[test]
fn seeds_50_to_99_keep_every_promise() {
    fifty(50);
}

#[test]
fn seeds_100_to_149_keep_every_promise() {
    fifty(100);
}

#[test]
fn seeds_150_to_199_keep_every_promise() {
    fifty(150);
}

#[test]
fn seeds_200_to_249_keep_every_promise() {
    fifty(200);
}

#[test]
fn seeds_250_to_299_keep_every_promise() {
    fifty(250);
}

#[test]
fn seeds_300_to_349_keep_every_promise() {
    fifty(300);
}

#[test]
fn seeds_350_to_399_keep_every_promise() {
    fifty(350);
}

#[test]
fn seeds_that_broke_something_once_keep_every_promise_now() {
    let kept = include_str!("../kept_seeds.txt");
    let lines = kept.lines().filter(|line| !line.starts_with('#'));
    for line in lines {
        let seed = line.split_whitespace().next().expect("a seed begins each line");
        keeps_every_promise(seed.parse().expect("a seed is a number"));
    }
}

#[test]
fn one_seed_is_one_run() {
    for seed in [3, 1_003] {
        let (one, two) = (keeps_every_promise(seed), keeps_every_promise(seed));
        assert_eq!(one.trace, two.trace, "seed {seed}");
        assert_eq!(one.coverage, two.coverage, "seed {seed}");
        assert_eq!(one.recent, two.recent, "seed {seed}");
    }
    assert_ne!(keeps_every_promise(4).trace, keeps_every_promise(5).trace);
}

#[test]
fn many_seeds_say_the_same_on_any_number_of_threads() {
    // A few operations are enough to tell runs apart.
    let options = Options { operations_min: 100, ..Options::default() };
    let said = |threads| {
        let mut said = Vec::new();
        let threads = NonZero::new(threads).unwrap();
        let summary = run_many(40..58, &options, threads, |report| {
            said.push((report.seed, report.trace));
        });
        assert!(summary.broken.is_none(), "{:?}", summary.broken);
        assert_eq!(summary.runs, 18);
        (said, summary.coverage)
    };
    let (one, all) = (said(1), said(3));
    assert!(one.0.iter().map(|(seed, _)| *seed).eq(40..58), "{:?}", one.0);
    assert_eq!(one, all);
}
