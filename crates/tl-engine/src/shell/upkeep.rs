//! The thread that looks after what is on disk, slowly: it tells the store which events were
//! trimmed, which the store does not remember across a start, and then reads all files again and
//! again to find damage before a reader does.

use std::convert::Infallible;
use std::ops::ControlFlow;
use std::time::Duration;

use tl_store::{OrderedStore, StoreError, Work};
use tl_types::{GroupId, ResourceNumber, RowKey, Table};

use super::Shared;
use super::flush::Background;
use super::pulse::Pulse;
use crate::node::floor_of;

/// From the start to the first scrub; a start has other work to do.
const FIRST_SCRUB_AFTER: Duration = Duration::from_secs(15 * 60);
/// Between the end of one scrub and the next.
const SCRUB_EVERY: Duration = Duration::from_secs(24 * 60 * 60);
/// Bytes that a scrub reads in a second, about.
const SCRUB_BYTES_PER_SECOND: u64 = 16 * 1024 * 1024;
/// Headers read at a time.
const PAGE_ROWS: usize = 256;
/// Bytes of headers read at a time (one always goes).
const PAGE_BYTES: usize = 1024 * 1024;
/// Between two pages of headers.
const PAGE_PAUSE: Duration = Duration::from_millis(5);

pub(crate) fn run<S: OrderedStore>(
    shared: &Shared<S>,
    background: &Background,
    pulse: &Pulse,
    groups: u16,
) {
    yield_to_others();
    let mut rest = |pause| if background.rest_for(pause) { Ok(()) } else { Err(Stopped) };
    let mut keep_up = || -> Result<Infallible, Stopped> {
        for group in (0..groups).map(GroupId) {
            floors_of_group(shared, group, &mut rest)?;
        }
        rest(FIRST_SCRUB_AFTER)?;
        loop {
            scrub(shared, pulse, &mut rest)?;
            rest(SCRUB_EVERY)?;
        }
    };
    // Stopping is the only way out.
    let Err(Stopped) = keep_up();
}

/// Lets every other thread go first; a hint that may be refused.
fn yield_to_others() {
    /// The lowest priority is 19.
    #[cfg(target_os = "linux")]
    const NICE: i32 = 15;
    // Linux takes this for the calling thread, others for the whole process.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "the upkeep thread keeps its priority");
    }
}

/// The node ends.
struct Stopped;

/// Waits for so long, or says that the node ends.
type Rest<'a> = &'a mut dyn FnMut(Duration) -> Result<(), Stopped>;

/// Tells the store the floors of a group's sessions. Trims applied meanwhile tell theirs
/// themselves, and a floor never goes back.
fn floors_of_group<S: OrderedStore>(
    shared: &Shared<S>,
    group: GroupId,
    rest: Rest<'_>,
) -> Result<(), Stopped> {
    let store = &shared.store;
    let generation = store.applied(group).generation;
    let mut start = RowKey::table_start(Table::Session, ResourceNumber(0));
    let end = RowKey::table_end(Table::Session, ResourceNumber(u64::MAX));
    loop {
        let rows = match store.range(group, generation, &start, &end, PAGE_ROWS, PAGE_BYTES) {
            Ok(rows) => rows,
            Err(error) => {
                // Less is forgotten than could be, which harms nobody; reads tell of the damage.
                tracing::warn!(group = group.0, error = %crate::chain(&error), "floors unknown");
                return Ok(());
            }
        };
        let Some((last, _)) = rows.last() else { return Ok(()) };
        start = last.with(&[0]);
        for (key, header) in rows {
            if let Some(floor) = floor_of(header) {
                store.set_floor(group, generation, key.number(), floor);
            }
        }
        rest(PAGE_PAUSE)?;
    }
}

/// Reads everything on disk once, and reports what is damaged.
fn scrub<S: OrderedStore>(
    shared: &Shared<S>,
    pulse: &Pulse,
    rest: Rest<'_>,
) -> Result<(), Stopped> {
    let mut stopped = Ok(());
    let mut bytes_before = 0;
    let mut pace = |progress: &tl_store::ScrubProgress| {
        let bytes = progress.bytes_done.saturating_sub(bytes_before);
        bytes_before = progress.bytes_done;
        let pause = Duration::from_micros(bytes * 1_000_000 / SCRUB_BYTES_PER_SECOND);
        match rest(pause + pulse.pause(Work::Compaction)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(stop) => {
                stopped = Err(stop);
                ControlFlow::Break(())
            }
        }
    };
    match shared.store.scrub(&mut pace) {
        Ok(report) if report.complete => {
            let damaged = report.damage.len();
            tracing::info!(files = report.files, bytes = report.bytes, damaged, "scrub finished");
            shared.metrics.scrubs.inc();
            shared.metrics.scrub_damaged_files.set(damaged as i64);
            report.damage.iter().for_each(tell);
        }
        Ok(report) => report.damage.iter().for_each(tell),
        Err(error) => tell(&error),
    }
    stopped
}

fn tell(damage: &StoreError) {
    tracing::error!(damage = %crate::chain(damage), "scrub");
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tl_core::{SessionHeader, SessionState};
    use tl_store::{GroupWrites, LsmStore, MemStore, StoreOptions};
    use tl_types::{Generation, Index, Seq, Term};

    use super::*;

    const GROUP: GroupId = GroupId(2);
    const GENERATION: Generation = Generation(0);

    fn written<S: OrderedStore>(store: &S, rows: Vec<(RowKey, bytes::Bytes)>) {
        let rows = rows.into_iter().map(|(key, row)| (key, Some(row))).collect();
        let (index, term) = (Index(1), Term(1));
        store.write(GroupWrites { group: GROUP, generation: GENERATION, index, term, rows });
        assert!(store.rotate() && store.flush_one().expect("flushed"));
    }

    fn go_on(_: Duration) -> Result<(), Stopped> {
        Ok(())
    }

    #[test]
    fn floors_are_found_again_after_a_start() {
        let header = SessionHeader {
            last_seq: Seq(4),
            archived_seq: Seq(3),
            floor_seq: Seq(2),
            state: SessionState::Active,
            ..SessionHeader::default()
        };
        let store = Arc::new(MemStore::new(StoreOptions::default()));
        // More sessions than a page holds; only the last one was trimmed.
        let mut rows: Vec<_> = (1..=PAGE_ROWS as u64 + 10)
            .map(|number| {
                (RowKey::session(ResourceNumber(number)), SessionHeader::default().encode())
            })
            .collect();
        let number = ResourceNumber(PAGE_ROWS as u64 + 11);
        rows.push((RowKey::session(number), header.encode()));
        for seq in 1..=4 {
            rows.push((RowKey::event(number, Seq(seq)), bytes::Bytes::from_static(b"e")));
        }
        written(&*store, rows);
        let shared = Shared::new(Arc::clone(&store));
        assert!(floors_of_group(&shared, GROUP, &mut go_on).is_ok());
        while store.compact_step().expect("compacted") {}
        let event = |seq| store.get(GROUP, GENERATION, &RowKey::event(number, Seq(seq)));
        assert!(event(2).expect("read").is_none(), "below the floor");
        assert!(event(3).expect("read").is_some());
    }

    #[test]
    fn damage_on_disk_is_counted() {
        let dir = tempfile::tempdir().expect("temp dir");
        let store = Arc::new(LsmStore::open(dir.path(), StoreOptions::default()).expect("open"));
        let row = bytes::Bytes::from(vec![7; 4_096]);
        written(&*store, vec![(RowKey::session(ResourceNumber(1)), row)]);
        let (shared, pulse) = (Shared::new(store), Pulse::default());
        assert!(scrub(&shared, &pulse, &mut go_on).is_ok());
        assert_eq!(shared.metrics.scrub_damaged_files.get(), 0);
        let blobs = std::fs::read_dir(dir.path().join("blobs")).expect("blobs");
        let blob = blobs.last().expect("one").expect("entry").path();
        let mut bytes = std::fs::read(&blob).expect("read");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&blob, bytes).expect("write");
        assert!(scrub(&shared, &pulse, &mut go_on).is_ok());
        assert_eq!(shared.metrics.scrub_damaged_files.get(), 1);
        assert_eq!(shared.metrics.scrubs.get(), 2);
        assert!(scrub(&shared, &pulse, &mut |_| Err(Stopped)).is_err(), "it ends with the node");
    }
}
