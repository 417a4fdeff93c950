//! Random jobs, rotations, releases and crashes against a list of what was appended.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tl_types::{GroupId, Index};
use tl_wal::memdisk::{DiskCounts, MemDisk};
use tl_wal::{Record, Wal};

use crate::common::{entry, hard_state, open};

#[derive(Debug, Clone)]
enum Step {
    /// Appends one job of entries of these sizes, to groups chosen by the sizes.
    Append(Vec<u16>),
    Sync,
    IdleMark,
    Release,
    Prepare,
    Kill,
    Crash(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => prop::collection::vec(0_u16..3_000, 1..6).prop_map(Step::Append),
        2 => prop::collection::vec(8_000_u16..16_000, 1..8).prop_map(Step::Append),
        6 => Just(Step::Sync),
        1 => Just(Step::IdleMark),
        2 => Just(Step::Release),
        2 => Just(Step::Prepare),
        1 => Just(Step::Kill),
        2 => any::<u64>().prop_map(Step::Crash),
    ];
    prop::collection::vec(step, 1..60)
}

/// What should be in the log.
#[derive(Default)]
struct Model {
    /// Every record that may still be there, oldest first.
    records: Vec<Record>,
    /// Ends of jobs, as lengths of `records`. A job that needs more than a segment may be cut
    /// anywhere within, and says so by an end after each of its records.
    ends: Vec<usize>,
    /// Records before this were confirmed durable.
    confirmed: usize,
    next_index: u64,
}

impl Model {
    /// Compares what came back after a crash, and forgets what was allowed to be lost.
    fn check(&mut self, back: &[Record], lossy: bool) -> Result<usize, TestCaseError> {
        // Released records are missing at the front; repeated state stands there instead.
        let first = back.iter().position(|r| matches!(r, Record::Entry { .. }));
        let start = match first {
            Some(at) => self.records.iter().position(|r| *r == back[at]),
            None => Some(self.records.len()),
        };
        let Some(start) = start else {
            return Err(TestCaseError::fail("a record came back that was never written"));
        };
        let mut expected = start;
        for record in &back[first.unwrap_or(back.len())..] {
            prop_assert_eq!(Some(record), self.records.get(expected), "at {}", expected);
            expected += 1;
        }
        if first.is_none() {
            // Everything was lost or released; at most the state is left.
            expected = self.confirmed;
        }
        prop_assert!(expected >= self.confirmed, "{} of {}", expected, self.confirmed);
        if lossy {
            prop_assert!(expected == self.confirmed || self.ends.contains(&expected), "half a job");
        } else {
            prop_assert_eq!(expected, self.records.len(), "a kill loses nothing");
        }
        let lost = self.records.len() - expected;
        self.records.truncate(expected);
        self.ends.retain(|end| *end <= expected);
        self.confirmed = expected;
        Ok(lost)
    }
}

#[derive(Default)]
struct Seen {
    disk: DiskCounts,
    cuts: u64,
    lost_records: usize,
    rotations: u64,
    released: usize,
}

fn run(steps: &[Step], seen: &mut Seen) -> Result<(), TestCaseError> {
    let disk = MemDisk::new();
    let (mut wal, _, _) = open(&disk);
    let mut model = Model { next_index: 1, ..Model::default() };
    append(&mut wal, &mut model, vec![hard_state(1, 1)]);
    model.records.clear();
    model.ends.clear();
    wal.sync().unwrap();
    for step in steps.iter().chain([&Step::Kill]) {
        match step {
            Step::Append(sizes) => {
                let job = sizes.iter().enumerate().map(|(at, bytes)| {
                    entry(bytes % 3, model.next_index + at as u64, usize::from(*bytes))
                });
                let job: Vec<Record> = job.collect();
                model.next_index += job.len() as u64;
                append(&mut wal, &mut model, job);
            }
            Step::Sync => {
                prop_assert_eq!(wal.sync().unwrap(), wal.end());
                model.confirmed = model.records.len();
            }
            Step::IdleMark => {
                wal.idle_mark().unwrap();
                model.confirmed = model.records.len();
            }
            Step::Release => {
                let upto = Index(model.next_index / 2);
                let applied: BTreeMap<_, _> = (0..3).map(|g| (GroupId(g), upto)).collect();
                seen.released += wal.release(&applied, 20_000);
            }
            Step::Prepare => drop(wal.preparer().work(&mut |_| {}).unwrap()),
            Step::Kill | Step::Crash(_) => {
                seen.rotations += wal.counts().rotations;
                drop(wal);
                match step {
                    Step::Crash(seed) => disk.crash(*seed),
                    _ => disk.kill(),
                }
                let (again, opened, back) = open(&disk);
                prop_assert!(back.contains(&hard_state(1, 1)), "state is never lost");
                seen.lost_records += model.check(&back, matches!(step, Step::Crash(_)))?;
                seen.cuts += u64::from(opened.cut.is_some());
                wal = again;
            }
        }
    }
    let counts = disk.counts();
    seen.disk.lost_bytes += counts.lost_bytes;
    seen.disk.torn_writes += counts.torn_writes;
    seen.disk.lost_names += counts.lost_names;
    Ok(())
}

fn append(wal: &mut Wal, model: &mut Model, job: Vec<Record>) {
    wal.append(&job).unwrap();
    let bytes: usize = job
        .iter()
        .map(|r| match r {
            Record::Entry { data, .. } => data.len() + 64,
            _ => 64,
        })
        .sum();
    let start = model.records.len();
    model.records.extend(job);
    if bytes > 50_000 {
        model.ends.extend(start..model.records.len());
    }
    model.ends.push(model.records.len());
}

#[test]
fn confirmed_records_survive_and_unconfirmed_jobs_stay_whole_or_vanish() {
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let seen = std::cell::RefCell::new(Seen::default());
    runner.run(&steps(), |steps| run(&steps, &mut seen.borrow_mut())).unwrap();
    let seen = seen.into_inner();
    assert!(seen.disk.torn_writes > 20, "torn {}", seen.disk.torn_writes);
    assert!(seen.disk.lost_bytes > 100_000, "lost {}", seen.disk.lost_bytes);
    assert!(seen.cuts > 20, "cuts {}", seen.cuts);
    assert!(seen.lost_records > 50, "lost records {}", seen.lost_records);
    assert!(seen.rotations > 100, "rotations {}", seen.rotations);
    assert!(seen.released > 20, "released {}", seen.released);
}
