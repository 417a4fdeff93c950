//! Random jobs, rotations, releases and crashes against a list of what was appended.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use tl_types::{GroupId, Index, Term};
use tl_wal::memdisk::{DiskCounts, MemDisk};
use tl_wal::{Record, Wal, WalError};

use crate::common::{entry, hard_state, open, try_open};

#[derive(Debug, Clone)]
enum Step {
    /// Appends one job of entries of these sizes, to groups chosen by the sizes.
    Append(Vec<u16>),
    /// The same, with indexes that begin so much further back than they would.
    Replace {
        sizes: Vec<u16>,
        back: u64,
    },
    Sync,
    IdleMark,
    Release,
    Prepare,
    /// Process kill; the opening after it may meet a failing sync and a power cut.
    Kill {
        failing_sync: u64,
    },
    /// Power cut; the opening after it may meet a failing sync and another power cut.
    Crash {
        seed: u64,
        failing_sync: u64,
    },
    /// A sync soon fails, in the middle of whatever it is; the power cut follows.
    FailSync(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => prop::collection::vec(0_u16..3_000, 1..6).prop_map(Step::Append),
        2 => prop::collection::vec(8_000_u16..16_000, 1..8).prop_map(Step::Append),
        2 => (prop::collection::vec(0_u16..3_000, 1..6), 0_u64..40)
            .prop_map(|(sizes, back)| Step::Replace { sizes, back }),
        6 => Just(Step::Sync),
        1 => Just(Step::IdleMark),
        2 => Just(Step::Release),
        2 => Just(Step::Prepare),
        2 => (0_u64..6).prop_map(|failing_sync| Step::Kill { failing_sync }),
        2 => (any::<u64>(), 0_u64..12)
            .prop_map(|(seed, failing_sync)| Step::Crash { seed, failing_sync }),
        1 => (0_u64..6).prop_map(Step::FailSync),
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
    /// Rises with each [`Step::Replace`], so that no two entries are alike.
    term: u64,
    /// Entries up to here may be gone.
    applied: Index,
    /// Where the log began when it was opened last, as a length of `records`.
    start: usize,
}

impl Model {
    fn job(&self, sizes: &[u16], first: u64) -> Vec<Record> {
        let job = sizes.iter().zip(first..).map(|(size, index)| {
            let record = entry(size % 3, index, usize::from(*size));
            let Record::Entry { group, index, data, .. } = record else { return record };
            Record::Entry { group, term: Term(self.term), index, data }
        });
        job.collect()
    }

    /// Where the first entry stands that nothing has replaced and that is not applied.
    fn first_needed(&self) -> usize {
        let mut lowest: BTreeMap<GroupId, Index> = BTreeMap::new();
        let mut first = self.records.len();
        for (at, record) in self.records.iter().enumerate().rev() {
            let Record::Entry { group, index, .. } = record else { continue };
            let replaced_from = lowest.entry(*group).or_insert(Index(u64::MAX));
            if index < replaced_from {
                *replaced_from = *index;
                first = if *index > self.applied { at } else { first };
            }
        }
        first
    }

    /// Whether a segment that is gone held something that is not applied.
    fn has_let_go_of_replaced(&self) -> bool {
        let gone = &self.records[..self.start];
        gone.iter()
            .any(|record| matches!(record, Record::Entry { index, .. } if *index > self.applied))
    }

    fn append(&mut self, job: &[Record]) {
        let data = |record: &Record| match record {
            Record::Entry { data, .. } => data.len() + 64,
            _ => 64,
        };
        let bytes: usize = job.iter().map(data).sum();
        let start = self.records.len();
        self.records.extend_from_slice(job);
        if bytes > 50_000 {
            self.ends.extend(start..self.records.len());
        }
        self.ends.push(self.records.len());
    }

    fn confirm(&mut self) {
        self.confirmed = self.records.len();
    }

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
        let start = start.min(expected);
        prop_assert!(start <= self.first_needed(), "{} of {}", start, self.first_needed());
        self.start = start;
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
    /// Openings of logs from which entries are gone that were replaced before they were applied.
    replaced: usize,
    stops: usize,
    failed_openings: usize,
}

struct World<'a> {
    disk: MemDisk,
    wal: Option<Wal>,
    model: Model,
    seen: &'a mut Seen,
}

impl World<'_> {
    fn wal(&mut self) -> &mut Wal {
        self.wal.as_mut().expect("open between steps")
    }

    /// One step; an error is an injected one and is followed by a power cut.
    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let done = match step {
            Step::Append(sizes) => self.append(sizes, 0),
            Step::Replace { sizes, back } => {
                self.model.term += 1;
                self.append(sizes, *back)
            }
            Step::Sync => self.wal().sync().map(|_| self.model.confirm()),
            Step::IdleMark => self.wal().idle_mark().map(|_| self.model.confirm()),
            Step::Release => {
                let upto = Index(self.model.next_index / 2).max(self.model.applied);
                self.model.applied = upto;
                let applied: BTreeMap<_, _> = (0..3).map(|g| (GroupId(g), upto)).collect();
                self.seen.released += self.wal().release(&applied, 20_000);
                Ok(())
            }
            Step::Prepare => self.wal().preparer().work(&mut |_| {}).map(drop),
            Step::FailSync(after) => {
                self.disk.fail_sync(*after);
                Ok(())
            }
            Step::Kill { failing_sync } => {
                self.end_process();
                self.disk.kill();
                self.disk.fail_sync(*failing_sync);
                return self.reopen(false);
            }
            Step::Crash { seed, failing_sync } => {
                self.end_process();
                self.disk.crash(*seed);
                self.disk.fail_sync(*failing_sync);
                return self.reopen(true);
            }
        };
        if done.is_err() {
            self.end_process();
            self.seen.stops += 1;
            self.disk.crash(self.model.next_index);
            return self.reopen(true);
        }
        Ok(())
    }

    fn append(&mut self, sizes: &[u16], back: u64) -> Result<(), WalError> {
        let first = self.model.next_index.saturating_sub(back).max(1);
        let job = self.model.job(sizes, first);
        self.model.next_index = first + job.len() as u64;
        self.model.append(&job);
        self.wal().append(&job).map(drop)
    }

    fn end_process(&mut self) {
        self.seen.rotations += self.wal().counts().rotations;
        self.wal = None;
    }

    fn reopen(&mut self, lossy: bool) -> Result<(), TestCaseError> {
        let mut lossy = lossy;
        let (wal, opened, back) = loop {
            match try_open(&self.disk) {
                Ok(done) => break done,
                Err(WalError::Failed { .. }) => {
                    self.seen.failed_openings += 1;
                    self.disk.crash(self.model.next_index);
                    lossy = true;
                }
                Err(other) => return Err(TestCaseError::fail(other.to_string())),
            }
        };
        self.disk.fail_sync(u64::MAX);
        prop_assert!(back.contains(&hard_state(1, 1)), "state is never lost");
        self.seen.lost_records += self.model.check(&back, lossy)?;
        self.seen.replaced += usize::from(self.model.has_let_go_of_replaced());
        self.seen.cuts += u64::from(opened.cut.is_some());
        self.wal = Some(wal);
        Ok(())
    }
}

fn run(steps: &[Step], seen: &mut Seen) -> Result<(), TestCaseError> {
    let disk = MemDisk::new();
    let (mut wal, _, _) = open(&disk);
    wal.append(&[hard_state(1, 1)]).unwrap();
    wal.sync().unwrap();
    let model = Model { next_index: 1, term: 1, ..Model::default() };
    let mut world = World { disk, wal: Some(wal), model, seen };
    for step in steps.iter().chain([&Step::Kill { failing_sync: u64::MAX }]) {
        world.step(step)?;
    }
    let counts = world.disk.counts();
    seen.disk.lost_bytes += counts.lost_bytes;
    seen.disk.torn_writes += counts.torn_writes;
    seen.disk.lost_names += counts.lost_names;
    Ok(())
}

/// The sync of a reused segment's head fails and the power goes, after zeros already lie where
/// the released segment's first record was: the one script of many in which that happened.
#[test]
fn a_segment_whose_reuse_was_cut_short_by_a_crash_is_not_missed() {
    use Step::{Append, FailSync, IdleMark, Release, Sync};
    let before = [
        vec![0],
        vec![0, 0, 0, 0, 0],
        vec![0],
        vec![0, 0],
        vec![0, 0, 0, 0],
        vec![0, 0, 0, 0, 0],
        vec![0],
        vec![1689, 1217, 2353],
        vec![8329, 12673, 12993, 12881],
        vec![1673, 137, 2369, 1825, 1313],
        vec![0, 0, 0],
        vec![0, 1617, 1105, 233],
        vec![2737, 25],
        vec![1009],
        vec![12337, 9985, 13105, 10633, 13521, 9145],
        vec![12953, 14705, 12313, 13873, 11521, 8545],
    ];
    let mut steps: Vec<Step> = before.into_iter().map(Append).collect();
    steps.extend([FailSync(3), Release, Append(vec![8_000, 8_000]), Sync, Append(vec![0; 5])]);
    steps.extend([IdleMark, Append(vec![11_777, 10_537, 13_657])]);
    run(&steps, &mut Seen::default()).unwrap();
}

/// A note that releases segments is read in a job that is then cut: it must be written again
/// before the segments go.
#[test]
fn a_release_whose_note_was_cut_loses_no_segment_that_the_log_still_asks_for() {
    use Step::{Append, Kill, Prepare, Release, Sync};
    let before = [
        vec![8_000, 8_000, 8_000, 8_000, 8_000, 8_000, 12_873],
        vec![0],
        vec![889, 1_625],
        vec![817, 2_217],
        vec![8_000, 8_000, 8_000, 8_841, 9_345],
        vec![0],
        vec![8_000, 8_000, 8_000, 9_625, 10_865, 8_801, 15_313],
        vec![1_289, 2_065, 2_177, 2_577],
        vec![0],
        vec![0; 5],
        vec![0; 5],
        vec![8_217, 12_105, 9_113, 13_497, 10_793],
        vec![2_233, 1_993],
        vec![993],
        vec![1_641, 57],
    ];
    let mut steps: Vec<Step> = before.into_iter().map(Append).collect();
    steps.extend([Prepare, Append(vec![0; 3]), Append(vec![0]), Append(vec![0]), Release, Sync]);
    steps.extend([Append(vec![8_000; 3]), Append(vec![0; 2]), Kill { failing_sync: 0 }, Prepare]);
    run(&steps, &mut Seen::default()).unwrap();
}

#[test]
fn confirmed_records_survive_and_unconfirmed_jobs_stay_whole_or_vanish() {
    let config =
        ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() };
    // The same cases each time, so that what they must have met can be asserted.
    let mut runner =
        TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let seen = std::cell::RefCell::new(Seen::default());
    runner.run(&steps(), |steps| run(&steps, &mut seen.borrow_mut())).unwrap();
    let seen = seen.into_inner();
    assert!(seen.disk.torn_writes > 20, "torn {}", seen.disk.torn_writes);
    assert!(seen.disk.lost_bytes > 100_000, "lost {}", seen.disk.lost_bytes);
    assert!(seen.cuts > 20, "cuts {}", seen.cuts);
    assert!(seen.lost_records > 50, "lost records {}", seen.lost_records);
    assert!(seen.rotations > 100, "rotations {}", seen.rotations);
    assert!(seen.released > 20, "released {}", seen.released);
    assert!(seen.replaced > 20, "replaced {}", seen.replaced);
    assert!(seen.disk.lost_names > 20, "lost names {}", seen.disk.lost_names);
    assert!(seen.stops > 50, "stops {}", seen.stops);
    assert!(seen.failed_openings > 50, "failed openings {}", seen.failed_openings);
}
