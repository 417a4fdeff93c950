use std::sync::Arc;

use tl_raft::JobId;
use tl_store::{MemStore, StoreOptions};
use tl_types::Term;
use tl_wal::memdisk::MemDisk;
use tl_wal::{Disk, WalOptions};

use super::*;

const GROUP: GroupId = GroupId(0);
const ENTRY_BYTES: usize = 20_000;

const LIMITS: LogLimits = LogLimits { keep_bytes: 0, piece_bytes: 16 * 1024, feeds: false };

/// A log thread over a disk in memory.
struct Bench {
    disk: MemDisk,
    shared: Arc<Shared<MemStore>>,
    inbox: Arc<LogBox>,
    thread: std::thread::JoinHandle<()>,
    next: u64,
    done: u64,
}

fn options() -> WalOptions {
    WalOptions { segment_bytes: 64 * 1024, entry_bytes_max: 24 * 1024, ..WalOptions::default() }
}

impl Bench {
    fn new() -> Bench {
        let disk = MemDisk::new();
        let on: Arc<dyn Disk> = Arc::new(disk.clone());
        let (wal, _) = Wal::open(on, options(), &mut |_, _| {}).expect("a new log");
        let store = Arc::new(MemStore::new(StoreOptions::default()));
        let (shared, inbox) = (Arc::new(Shared::new(store)), Arc::new(LogBox::new(wal, LIMITS)));
        let thread = std::thread::spawn({
            let (shared, inbox) = (Arc::clone(&shared), Arc::clone(&inbox));
            move || run(&shared, &inbox, &Background::default(), &Pulse::default())
        });
        Bench { disk, shared, inbox, thread, next: 1, done: 0 }
    }

    fn job(&mut self) -> LogJob {
        let (term, index) = (Term(1), Index(self.next));
        let data = vec![1; ENTRY_BYTES].into();
        let records = vec![Record::Entry { group: GROUP, term, index, data }];
        self.next += 1;
        LogJob { id: JobId(self.next - 1), records }
    }

    fn push(&mut self) {
        let job = self.job();
        self.inbox.push(job);
    }

    /// Ends the thread and lets go of the log.
    fn stop(self) -> (MemDisk, Arc<Shared<MemStore>>) {
        self.inbox.stop();
        self.thread.join().expect("no panic");
        (self.disk, self.shared)
    }

    /// Waits until everything pushed is on disk.
    fn settle(&mut self) {
        let mut mail = Vec::new();
        while self.done + 1 < self.next {
            self.shared.mail.take(&mut mail, Duration::from_secs(60));
            for item in mail.drain(..) {
                assert!(matches!(item, Mail::Input(Input::LogDone(_))), "{item:?}");
                self.done += 1;
            }
        }
    }
}

#[test]
fn a_full_disk_goes_on_as_soon_as_a_flush_lets_segments_go() {
    let mut bench = Bench::new();
    for _ in 0..80 {
        bench.push();
    }
    bench.settle();
    bench.disk.set_free_bytes(Some(0));
    // More than what is left of the segment; the log keeps four files for reuse, three entries each.
    for _ in 0..10 {
        bench.push();
    }
    while !bench.shared.space.is_full() {
        std::thread::yield_now();
    }
    bench.inbox.release([(GROUP, Index(80))].into());
    bench.settle();
    let (_, shared) = bench.stop();
    assert!(!shared.failed(), "a full disk is no failure");
}

#[test]
fn a_stop_confirms_the_end_of_the_log() {
    let mut bench = Bench::new();
    bench.push();
    bench.settle();
    let (disk, _) = bench.stop();
    let on: Arc<dyn Disk> = Arc::new(disk.clone());
    let mut damaged = 0;
    for file in on.list().expect("list") {
        let bytes = disk.contents(&file.name).expect("there");
        if let Some(at) = bytes.windows(64).position(|part| part == [1; 64]) {
            assert!(disk.flip(&file.name, at + 100, 1));
            damaged += 1;
        }
    }
    assert_eq!(damaged, 1);
    let opened = Wal::open(on, options(), &mut |_, _| {});
    assert!(matches!(opened, Err(WalError::Corrupt(_))), "not taken for a torn write");
}

/// Jobs go alternately to the log thread and to the disk on the spot, as the box decides; each is
/// told once, and whoever finds the box empty finds all earlier jobs told.
#[test]
fn jobs_are_told_in_order_whoever_writes_them() {
    const JOBS: u64 = 200;
    let mut bench = Bench::new();
    let (background, pulse) = (Background::default(), Pulse::default());
    let (mut told, mut mail, mut on_the_spot) = (Vec::new(), Vec::new(), 0_u64);
    // Nobody knows how quick the disk is before its first sync.
    bench.push();
    bench.settle();
    pulse.synced(Duration::from_micros(100));
    let shared = Arc::clone(&bench.shared);
    let mut take = |told: &mut Vec<u64>, patience| {
        shared.mail.take(&mut mail, patience);
        told.extend(mail.drain(..).map(|item| match item {
            Mail::Input(Input::LogDone(job)) => job.0,
            other => panic!("{other:?}"),
        }));
    };
    for n in 2..=JOBS {
        let job = bench.job();
        match n % 4 {
            0 => bench.inbox.push(job),
            // Right behind one for the thread, and with nothing under way.
            turn => {
                while turn > 1 && (told.len() as u64) + 2 < n {
                    take(&mut told, Duration::from_secs(60));
                }
                let written = bench.inbox.write_now(job, &bench.shared, &background, &pulse);
                take(&mut told, Duration::ZERO);
                on_the_spot += u64::from(written.is_some());
                told.extend(written.map(|job| job.0));
            }
        }
    }
    while told.len() as u64 + 1 < JOBS {
        take(&mut told, Duration::from_secs(60));
    }
    assert_eq!(told, (2..=JOBS).collect::<Vec<_>>());
    assert!(on_the_spot > 0, "no job was written on the spot");
    pulse.synced(Duration::from_secs(60));
    for _ in 0..200 {
        pulse.synced(Duration::from_secs(60));
    }
    let job = bench.job();
    let written = bench.inbox.write_now(job, &bench.shared, &background, &pulse);
    assert_eq!(written, None, "a slow disk is the log thread's to wait for");
    bench.stop();
}

#[test]
fn pieces_are_as_large_as_they_may_be_and_rows_go_with_their_members() {
    let (group, term, index) = (GROUP, Term(1), Index(9));
    let generation = tl_types::Generation(3);
    let rows = Record::Installed { group, term, index, generation };
    let members = |group| Record::Membership { group, bytes: vec![1; 40].into() };
    let hard = Record::HardState { group, term, vote: 1 };
    let records = [hard.clone(), rows.clone(), members(group), hard, rows, members(GroupId(1))];
    // Each counts as 64 bytes.
    for (bytes_max, pieces) in [
        (0, &[1, 2, 1, 1, 1][..]),
        (64, &[1, 2, 1, 1, 1]),
        (128, &[1, 2, 2, 1]),
        (192, &[3, 3]),
        (256, &[4, 2]),
        (1024, &[6]),
    ] {
        let mut rest = &records[..];
        let mut found = Vec::new();
        while !rest.is_empty() {
            let piece = piece_of(rest, bytes_max);
            found.push(piece);
            rest = &rest[piece..];
        }
        assert_eq!(found, pieces, "at most {bytes_max} bytes");
    }
}
