//! A log in which bytes rot, opened by an owner who goes on behind damage.
//!
//! What must hold, whatever rots: nothing is handed over that was not written, in no other order;
//! what was confirmed and is not handed over is named; and the next opening finds the same. Where
//! only records that were confirmed rot, the opening goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use tl_types::{Generation, GroupId, Index, Term};

use crate::disk::Disk;
use crate::error::{DAMAGES_MAX, Damage, WalError};
use crate::format::{RecordKind, record_bytes};
use crate::inspect::{self, Status};
use crate::memdisk::MemDisk;
use crate::open::Opened;
use crate::options::{OnDamage, SEGMENT_BYTES_MIN, WalOptions};
use crate::record::{Position, Record};
use crate::wal::Wal;

/// Bytes of input that say where something rots.
const EDIT_BYTES: usize = 8;
/// Most places that one input lets rot.
const EDITS_MAX: usize = 100;

/// The input is a list of places in a log that is the same every time: a file, an offset, a length
/// and a seed of noise each.
///
/// # Panics
/// When one of the promises above does not hold.
pub fn log_rot(bytes: &[u8]) {
    static SAMPLE: LazyLock<Sample> = LazyLock::new(|| Sample::new(1));
    let sample = &*SAMPLE;
    let names = sample.names();
    let edits = bytes.chunks_exact(EDIT_BYTES).take(EDITS_MAX).map(|edit| {
        let name = names[usize::from(edit[0]) % names.len()].clone();
        let start = u32::from_be_bytes([0, edit[1], edit[2], edit[3]]) as usize;
        let bytes = 1 + usize::from(u16::from_be_bytes([edit[4], edit[5]])) % 2_048;
        Edit {
            name,
            bytes: start..start + bytes,
            seed: u64::from(edit[6]) << 8 | u64::from(edit[7]),
        }
    });
    judge(sample, &edits.collect::<Vec<_>>());
}

/// A log as it should be.
struct Sample {
    disk: MemDisk,
    /// All that was ever appended.
    appended: Vec<Record>,
    /// What an opening hands over.
    whole: BTreeMap<Position, Record>,
    /// Positions of records that repeat what was before the log's start.
    repeats: BTreeSet<Position>,
    confirmed: Position,
    /// The records that are confirmed.
    records: Vec<(String, Range<usize>)>,
    /// The same without the bounds between them.
    runs: Vec<(String, Range<usize>)>,
}

/// Where noise comes in.
#[derive(Debug, Clone)]
struct Edit {
    name: String,
    bytes: Range<usize>,
    seed: u64,
}

fn options(on_damage: OnDamage) -> WalOptions {
    let segment_bytes = SEGMENT_BYTES_MIN;
    WalOptions { segment_bytes, entry_bytes_max: 16 * 1024, on_damage, ..WalOptions::default() }
}

type Handed = Vec<(Position, Record)>;

fn open(disk: &MemDisk, on_damage: OnDamage) -> Result<(Wal, Opened, Handed), WalError> {
    let mut handed = Vec::new();
    let (wal, opened) =
        Wal::open(Arc::new(disk.clone()), options(on_damage), &mut |position, record| {
            assert!(handed.last().is_none_or(|(last, _)| *last < position), "positions rise");
            handed.push((position, record));
        })?;
    assert_eq!(opened.records, handed.len() as u64);
    Ok((wal, opened, handed))
}

impl Sample {
    /// A log of several segments, some of them used before, with all kinds of records and maybe
    /// a torn end.
    fn new(seed: u64) -> Sample {
        let mut rng = fastrand::Rng::with_seed(seed);
        let disk = MemDisk::new();
        let (mut wal, ..) = open(&disk, OnDamage::GoOn).expect("an empty disk takes a log");
        let mut appended = Vec::new();
        let mut last = [0_u64; 4];
        for round in 0..rng.u64(20..60) {
            let job: Vec<Record> =
                (0..rng.usize(1..6)).map(|_| record(&mut rng, &mut last, round)).collect();
            wal.append(&job).expect("a disk without limits");
            appended.extend(job);
            match rng.u8(..8) {
                0 => drop(wal.idle_mark().expect("no fault is set")),
                1..5 => drop(wal.sync().expect("no fault is set")),
                _ => {}
            }
            if rng.u8(..10) == 0 {
                let done = |group: usize| (GroupId(group as u16), Index(last[group] / 2));
                wal.release(&(0..4).map(done).collect(), 0);
                while wal.preparer().work(&mut |_| {}).expect("a disk without limits") {}
            }
        }
        match rng.u8(..4) {
            0 => drop(wal.idle_mark().expect("no fault is set")),
            1 => drop(wal.sync().expect("no fault is set")),
            // The end may be torn.
            _ => disk.crash(rng.u64(..)),
        }
        drop(wal);
        let places = inspect::confirmed(&disk).expect("memory");
        let repeats = |(_, place): &(String, inspect::RecordInfo)| match &place.status {
            Status::Intact(facts) => facts.repeated.then_some(place.position),
            _ => None,
        };
        let bytes = |(name, place): &(String, inspect::RecordInfo)| match &place.status {
            Status::Intact(facts) => {
                let start = place.at_bytes as usize;
                Some((name.clone(), start..start + record_bytes(facts.data_bytes as usize)))
            }
            _ => None,
        };
        let records: Vec<_> = places.iter().filter_map(bytes).collect();
        let mut runs: Vec<(String, Range<usize>)> = Vec::new();
        for (name, bytes) in &records {
            match runs.last_mut() {
                Some((of, run)) if of == name && run.end == bytes.start => run.end = bytes.end,
                _ => runs.push((name.clone(), bytes.clone())),
            }
        }
        let (_, opened, handed) = open(&disk.copy(), OnDamage::Refuse).expect("nothing is damaged");
        Sample {
            appended,
            whole: handed.into_iter().collect(),
            repeats: places.iter().filter_map(repeats).collect(),
            confirmed: opened.confirmed,
            records,
            runs,
            disk,
        }
    }

    fn names(&self) -> Vec<String> {
        self.disk.list().expect("memory").into_iter().map(|file| file.name).collect()
    }

    /// Whether all that rots is confirmed.
    fn is_sound(&self, edit: &Edit) -> bool {
        self.runs.iter().any(|(name, run)| {
            *name == edit.name && run.start <= edit.bytes.start && edit.bytes.end <= run.end
        })
    }
}

fn record(rng: &mut fastrand::Rng, last: &mut [u64; 4], round: u64) -> Record {
    let of = rng.usize(..4);
    let group = GroupId(of as u16);
    match rng.u8(..20) {
        0 => Record::HardState { group, term: Term(round + 1), vote: rng.u64(..) },
        1 => Record::Membership { group, bytes: Bytes::from(vec![round as u8; rng.usize(1..80)]) },
        2 => {
            last[of] += 1;
            let generation = Generation(round as u32);
            Record::Installed { group, index: Index(last[of]), term: Term(round), generation }
        }
        _ => {
            last[of] += 1;
            let data = vec![rng.u8(..); rng.usize(..6_000)];
            Record::Entry { group, term: Term(round), index: Index(last[of]), data: data.into() }
        }
    }
}

/// Lets the places rot and judges what opening makes of it; the damage that it named.
fn judge(sample: &Sample, edits: &[Edit]) -> Vec<Damage> {
    let disk = sample.disk.copy();
    for edit in edits {
        disk.rot(&edit.name, edit.bytes.clone(), edit.seed);
    }
    let cut_short = cut_short(&disk, edits);
    let is_sound = edits.iter().all(|edit| sample.is_sound(edit));
    let (wal, opened, handed) = match open(&disk, OnDamage::GoOn) {
        Ok(done) => done,
        Err(WalError::Corrupt(found)) if !is_sound => return found.damages,
        Err(WalError::Gone { .. }) if !is_sound => return Vec::new(),
        Err(error) => panic!("{error}; {edits:?}"),
    };
    assert!(opened.damages.len() <= DAMAGES_MAX);
    assert!(!is_sound || opened.confirmed >= sample.confirmed, "{opened:?}");
    written(sample, &handed);
    named(sample, &opened, &handed, opened.confirmed);
    drop(wal);
    let (_, again, same) = open(&disk, OnDamage::GoOn).expect("it went on before");
    assert!(handed == same, "another opening hands over something else: {edits:?}");
    assert_eq!(opened.damages, again.damages, "{edits:?}");
    assert_eq!(again.cut, None);
    let (_, again, same) = open(&cut_short, OnDamage::GoOn).expect("it went on before");
    written(sample, &same);
    // What was not confirmed may have been cut, and the log written on there.
    named(sample, &again, &same, opened.confirmed.min(again.confirmed));
    // Older segments are read again where the note that released them was cut.
    if again.first == opened.first {
        assert!(handed == same, "a crash while opening changed what is handed over: {edits:?}");
        assert_eq!(opened.damages, again.damages, "{edits:?}");
    }
    opened.damages
}

/// The same disk after an opening that a power cut ended.
fn cut_short(disk: &MemDisk, edits: &[Edit]) -> MemDisk {
    let disk = disk.copy();
    let seed = edits.iter().fold(0, |seed, edit| seed ^ edit.seed ^ edit.bytes.start as u64);
    disk.fail_sync(seed % 8);
    drop(open(&disk, OnDamage::GoOn));
    disk.crash(seed);
    disk
}

/// Nothing was handed over that was not written there.
fn written(sample: &Sample, handed: &[(Position, Record)]) {
    for (position, record) in handed {
        match sample.whole.get(position) {
            Some(known) => assert_eq!(record, known, "at {position}"),
            // What is lost is repeated at the head of a segment, and what is released may come back.
            None => assert!(sample.appended.contains(record), "none was written at {position}"),
        }
    }
}

/// What was confirmed and is missing is named.
fn named(sample: &Sample, opened: &Opened, handed: &[(Position, Record)], confirmed: Position) {
    let there: BTreeMap<Position, &Record> =
        handed.iter().map(|(position, record)| (*position, record)).collect();
    for (position, record) in sample.whole.range(opened.first.min(confirmed)..confirmed) {
        if there.contains_key(position) {
            continue;
        }
        // An older segment may have been read too, and have the record that is repeated; or it was
        // rows that were put in place somewhere in damage.
        let is_behind_damage = opened.damages.iter().any(|damage| {
            let concerns = damage.group.is_none_or(|group| group == record.group());
            damage.position < *position && concerns
        });
        let is_told = is_behind_damage && matches!(record, Record::Installed { .. })
            || there.range(..*position).any(|(_, before)| *before == record);
        if is_told && sample.repeats.contains(position) {
            continue;
        }
        let is_here = |damage: &Damage| match damage.group {
            Some(group) => damage.position == *position && group == record.group(),
            // Unreadable up to what was handed over next.
            None => {
                damage.position <= *position
                    && there.range(damage.position..*position).next().is_none()
            }
        };
        let last = opened.damages.last();
        let stands_for_it = last.is_some_and(|damage| {
            opened.damages.len() == DAMAGES_MAX
                && damage.position >= *position
                && damage.group.is_none()
        });
        assert!(
            stands_for_it || opened.damages.iter().any(is_here),
            "what was at {position} is missing: {opened:?}"
        );
    }
    for damage in &opened.damages {
        let Some(record) = sample.whole.get(&damage.position).filter(|_| damage.group.is_some())
        else {
            continue;
        };
        let (kind, entry) = match record {
            Record::Entry { index, .. } => (RecordKind::Entry, Some(*index)),
            Record::HardState { .. } => (RecordKind::HardState, None),
            Record::Membership { .. } => (RecordKind::Membership, None),
            Record::Installed { .. } => (RecordKind::Installed, None),
        };
        let told = (damage.group, damage.kind, damage.entry);
        assert_eq!(told, (Some(record.group()), Some(kind), entry));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Fault;

    fn place(rng: &mut fastrand::Rng, sample: &Sample) -> Edit {
        let (name, bytes) = &sample.records[rng.usize(..sample.records.len())];
        let start = rng.usize(bytes.clone());
        let longest = if rng.bool() { 1 } else { bytes.end - start };
        let bytes = start..start + rng.usize(1..=longest);
        Edit { name: name.clone(), bytes, seed: rng.u64(..) }
    }

    #[test]
    fn whatever_is_confirmed_and_rots_is_named_and_the_log_goes_on() {
        let (mut data, mut headers, mut full) = (0, 0, 0);
        for seed in 0..60 {
            let sample = Sample::new(seed);
            let mut rng = fastrand::Rng::with_seed(seed);
            for many in [1, 1, 1, 2, 3, 5, 300] {
                let edits: Vec<Edit> = (0..many).map(|_| place(&mut rng, &sample)).collect();
                let damages = judge(&sample, &edits);
                data += damages.iter().filter(|damage| damage.fault == Fault::Data).count();
                headers += damages.iter().filter(|damage| damage.fault == Fault::Header).count();
                full += usize::from(damages.len() == DAMAGES_MAX);
            }
        }
        assert!(data > 300 && headers > 300 && full > 0, "{data}, {headers}, {full}");
    }

    #[test]
    fn rot_anywhere_is_named_refused_or_of_no_matter() {
        let mut named = 0;
        for seed in 100..140 {
            let sample = Sample::new(seed);
            let names = sample.names();
            let mut rng = fastrand::Rng::with_seed(seed);
            for _ in 0..10 {
                let edits: Vec<Edit> = (0..rng.usize(1..4))
                    .map(|_| {
                        let name = names[rng.usize(..names.len())].clone();
                        let start = rng.usize(..SEGMENT_BYTES_MIN as usize);
                        let bytes = start..start + rng.usize(1..20_000);
                        Edit { name, bytes, seed: rng.u64(..) }
                    })
                    .collect();
                named += judge(&sample, &edits).len();
            }
        }
        assert!(named > 200, "{named}");
    }

    #[test]
    fn rot_in_a_log_over_the_corpus() {
        let edit = |file: u8, start: u32, bytes: u16| {
            let [_, a, b, c] = start.to_be_bytes();
            let [d, e] = (bytes - 1).to_be_bytes();
            [file, a, b, c, d, e, 7, 7]
        };
        let seeds = [
            ("byte", edit(1, 9_000, 1).to_vec()),
            ("head", edit(0, 0, 64).to_vec()),
            ("heads", [edit(1, 0, 64), edit(1, 2_048, 64)].concat()),
            ("sector", edit(0, 8_192, 512).to_vec()),
            ("state", edit(1, 4_096, 300).to_vec()),
            ("tail", edit(0, 60_000, 2_048).to_vec()),
            ("many", (0_u8..90).flat_map(|n| edit(n % 3, 5_000 + 600 * u32::from(n), 9)).collect()),
        ];
        tl_fuzz::check_slow("log_rot", &seeds, log_rot);
    }
}
