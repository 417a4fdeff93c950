//! Damaged and missing files: the right value or an error that names the file, never a panic,
//! never another value.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tempfile::TempDir;
use tl_store::{GroupWrites, LsmStore, OrderedStore, ScrubReport, StoreError, StoreOptions};
use tl_types::{Generation, GroupId, Index, ResourceNumber, RowKey, Seq, Table, Term};

const GROUP: GroupId = GroupId(2);
const GENERATION: Generation = Generation(1);
const EVENTS: u64 = 240;
const FLUSHES: u64 = 2;

fn options() -> StoreOptions {
    // No block is kept in memory, so that every read is one of the file.
    StoreOptions { block_cache_bytes: 0, cache_bytes: 0, ..StoreOptions::default() }
}

fn value(number: u64, seq: u64) -> Bytes {
    // Every other one is long enough for a blob file.
    let bytes = if seq.is_multiple_of(2) { 40 } else { 700 };
    Bytes::from(format!("{number}/{seq} ").repeat(bytes / 5))
}

/// A store of two flushes, closed.
fn made() -> (TempDir, BTreeMap<RowKey, Bytes>) {
    let dir = tempfile::tempdir().unwrap();
    let store = LsmStore::open(dir.path(), options()).unwrap();
    let mut model = BTreeMap::new();
    for flush in 1..=FLUSHES {
        let number = ResourceNumber(flush);
        let events = (1..=EVENTS).map(|seq| (RowKey::event(number, Seq(seq)), value(flush, seq)));
        let header = (RowKey::session(number), Bytes::from_static(b"header"));
        let rows: Vec<_> = events.chain([header]).collect();
        model.extend(rows.iter().cloned());
        store.write(GroupWrites {
            group: GROUP,
            generation: GENERATION,
            index: Index(flush),
            term: Term(1),
            rows: rows.into_iter().map(|(key, value)| (key, Some(value))).collect(),
        });
        store.rotate();
        store.flush_one().unwrap();
    }
    (dir, model)
}

fn files(dir: &Path, folder: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(dir.join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// The pointer and the one list of files that it points to.
fn lists(dir: &Path) -> Vec<PathBuf> {
    let lists = vec![dir.join("current"), dir.join(format!("v{FLUSHES}"))];
    let found: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(found.iter().filter(|path| path.is_file()).count(), lists.len(), "{found:?}");
    lists
}

fn flip(path: &Path, at: usize, bit: u8) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1 << bit;
    fs::write(path, bytes).unwrap();
}

fn assert_names(error: &StoreError, file: &Path) {
    match error {
        StoreError::Damaged { file: named, .. } => assert_eq!(named, file, "{error}"),
        StoreError::Io { .. } | StoreError::NoRoom { .. } => {
            panic!("damage is not a failure of the system: {error}")
        }
    }
}

fn scrub(store: &LsmStore) -> ScrubReport {
    store.scrub(&mut |_| ControlFlow::Continue(())).unwrap()
}

/// Reads every row both ways and scrubs; returns how many reads failed.
fn check_reads(store: &LsmStore, model: &BTreeMap<RowKey, Bytes>, file: &Path) -> usize {
    let mut failed = 0;
    for (key, expected) in model {
        match store.get(GROUP, GENERATION, key) {
            Ok(found) => assert_eq!(found.as_ref(), Some(expected), "{key:?}"),
            Err(error) => {
                assert_names(&error, file);
                failed += 1;
            }
        }
    }
    for table in [Table::Session, Table::Event] {
        let start = RowKey::table_start(table, ResourceNumber(0));
        let end = RowKey::table_end(table, ResourceNumber(u64::MAX));
        match store.range(GROUP, GENERATION, &start, &end, usize::MAX, usize::MAX) {
            Ok(rows) => {
                let expected = model.range(start..end);
                assert!(rows.iter().map(|(key, value)| (key, value)).eq(expected));
            }
            Err(error) => {
                assert_names(&error, file);
                failed += 1;
            }
        }
    }
    failed
}

/// Flips one bit here and there over a file, each in a store of its own.
fn check_flips(folder: &str, flips: usize) {
    let (dir, model) = made();
    let mut found_by_reads = 0;
    for file in files(dir.path(), folder) {
        let whole = fs::read(&file).unwrap();
        for nth in 0..flips {
            let at = (whole.len() - 1) * nth / (flips - 1);
            flip(&file, at, (nth % 8) as u8);
            match LsmStore::open(dir.path(), options()) {
                Ok(store) => {
                    found_by_reads += usize::from(check_reads(&store, &model, &file) > 0);
                    let report = scrub(&store);
                    assert!(report.complete);
                    assert_eq!(report.damage.len(), 1, "byte {at} of {}", file.display());
                    assert_names(&report.damage[0], &file);
                }
                Err(error) => assert_names(&error, &file),
            }
            fs::write(&file, &whole).unwrap();
        }
    }
    assert!(found_by_reads > 0, "no flip was met by a read");
    let store = LsmStore::open(dir.path(), options()).unwrap();
    assert_eq!(check_reads(&store, &model, dir.path()), 0, "made whole again, all is well");
    assert!(scrub(&store).damage.is_empty());
}

#[test]
fn a_flipped_bit_in_a_table_is_an_error_that_names_it_and_a_scrub_finds_it() {
    check_flips("tables", 200);
}

#[test]
fn a_flipped_bit_in_a_blob_file_is_an_error_that_names_it_and_a_scrub_finds_it() {
    check_flips("blobs", 200);
}

#[test]
fn a_flipped_bit_in_the_lists_of_files_is_found_before_anything_is_opened() {
    let (dir, model) = made();
    for list in lists(dir.path()) {
        let whole = fs::read(&list).unwrap();
        for at in 0..whole.len() {
            flip(&list, at, (at % 8) as u8);
            let error = LsmStore::open(dir.path(), options()).unwrap_err();
            assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
            fs::write(&list, &whole).unwrap();
        }
        for length in 0..whole.len() {
            fs::write(&list, &whole[..length]).unwrap();
            let error = LsmStore::open(dir.path(), options()).unwrap_err();
            assert_names(&error, &list);
        }
        fs::write(&list, &whole).unwrap();
    }
    let store = LsmStore::open(dir.path(), options()).unwrap();
    assert_eq!(check_reads(&store, &model, dir.path()), 0, "nothing was deleted meanwhile");
}

/// The bytes that say how many sections a file has lie 38 bytes of trailer, and the names behind
/// them, from its end: each of the last bytes is damaged in turn.
#[test]
fn a_damaged_table_of_contents_is_named_before_anything_is_opened() {
    let (dir, _) = made();
    for folder in ["tables", "blobs"] {
        let file = files(dir.path(), folder).remove(0);
        let whole = fs::read(&file).unwrap();
        let contents = whole.windows(4).rposition(|bytes| bytes == b"TOC!").unwrap();
        for at in contents..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x80;
            fs::write(&file, &damaged).unwrap();
            let error = LsmStore::open(dir.path(), options()).unwrap_err();
            assert_names(&error, &file);
        }
        fs::write(&file, &whole).unwrap();
        LsmStore::open(dir.path(), options()).unwrap();
    }
}

#[test]
fn a_missing_file_is_named_and_nothing_is_deleted_because_of_it() {
    let (dir, model) = made();
    let all = [files(dir.path(), "tables"), files(dir.path(), "blobs"), lists(dir.path())];
    for file in all.concat() {
        let whole = fs::read(&file).unwrap();
        fs::remove_file(&file).unwrap();
        let error = LsmStore::open(dir.path(), options()).unwrap_err();
        assert_names(&error, &file);
        fs::write(&file, whole).unwrap();
    }
    let store = LsmStore::open(dir.path(), options()).unwrap();
    assert_eq!(check_reads(&store, &model, dir.path()), 0);
}

#[test]
fn a_file_that_goes_missing_while_the_store_is_open_is_named_by_the_scrub() {
    let (dir, _) = made();
    let store = LsmStore::open(dir.path(), options()).unwrap();
    let file = files(dir.path(), "blobs").remove(0);
    fs::remove_file(&file).unwrap();
    let report = scrub(&store);
    assert!(report.complete);
    assert!(!report.damage.is_empty());
    report.damage.iter().for_each(|error| assert_names(error, &file));
}

#[test]
fn a_scrub_stops_when_told_and_says_that_it_is_not_complete() {
    let (dir, _) = made();
    let store = LsmStore::open(dir.path(), options()).unwrap();
    let mut calls = 0;
    let report = store.scrub(&mut |progress| {
        assert_eq!(progress.files_total, 4);
        calls += 1;
        if calls > 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let report = report.unwrap();
    assert!(!report.complete);
    assert!(report.files < 4);
}

#[test]
fn damage_met_by_a_compaction_leaves_the_runs_as_they_were() {
    let (dir, model) = made();
    let table = files(dir.path(), "tables").remove(0);
    let whole = fs::read(&table).unwrap();
    let options = StoreOptions { purge_rows_min: 1, ..options() };
    // Not in the first block: opening the store reads that one.
    flip(&table, whole.len() * 3 / 8, 3);
    let store = LsmStore::open(dir.path(), options.clone()).unwrap();
    store.set_floor(GROUP, GENERATION, ResourceNumber(1), Seq(EVENTS));
    let error = loop {
        match store.compact_step() {
            Ok(true) => {}
            Ok(false) => panic!("the compaction did not meet the damage"),
            Err(error) => break error,
        }
    };
    assert_names(&error, &table);
    drop(store);
    fs::write(&table, whole).unwrap();
    let store = LsmStore::open(dir.path(), options).unwrap();
    assert_eq!(check_reads(&store, &model, dir.path()), 0);
}

#[test]
fn after_a_failed_flush_none_succeeds_and_nothing_more_counts_as_durable() {
    let (dir, model) = made();
    let store = LsmStore::open(dir.path(), options()).unwrap();
    let durable = store.durable_applied();
    let key = RowKey::session(ResourceNumber(9));
    let rows = vec![(key.clone(), Some(Bytes::from_static(b"header")))];
    let (index, term) = (Index(FLUSHES + 1), Term(1));
    store.write(GroupWrites { group: GROUP, generation: GENERATION, index, term, rows });
    store.rotate();
    fs::rename(dir.path().join("tables"), dir.path().join("elsewhere")).unwrap();
    store.flush_one().unwrap_err();
    fs::rename(dir.path().join("elsewhere"), dir.path().join("tables")).unwrap();
    store.flush_one().unwrap_err();
    assert_eq!(store.durable_applied(), durable);
    assert!(store.get(GROUP, GENERATION, &key).unwrap().is_some(), "still readable");
    drop(store);
    let store = LsmStore::open(dir.path(), options()).unwrap();
    assert_eq!(store.durable_applied(), durable);
    assert_eq!(check_reads(&store, &model, dir.path()), 0);
}
