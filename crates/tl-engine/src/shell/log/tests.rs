use std::sync::Arc;

use tl_raft::JobId;
use tl_store::{MemStore, StoreOptions};
use tl_types::Term;
use tl_wal::memdisk::MemDisk;
use tl_wal::{Disk, WalOptions};

use super::*;

const GROUP: GroupId = GroupId(0);
const ENTRY_BYTES: usize = 20_000;

const LIMITS: LogLimits = LogLimits { keep_bytes: 0, piece_bytes: 16 * 1024 };

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
        let (shared, inbox) = (Arc::new(Shared::new(store)), Arc::new(LogBox::new(LIMITS)));
        let thread = std::thread::spawn({
            let (shared, inbox) = (Arc::clone(&shared), Arc::clone(&inbox));
            move || run(&shared, &inbox, &Background::default(), &Pulse::default(), wal)
        });
        Bench { disk, shared, inbox, thread, next: 1, done: 0 }
    }

    fn push(&mut self) {
        let (term, index) = (Term(1), Index(self.next));
        let data = vec![1; ENTRY_BYTES].into();
        let records = vec![Record::Entry { group: GROUP, term, index, data }];
        self.inbox.push(LogJob { id: JobId(self.next), records });
        self.next += 1;
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
    while !bench.shared.log_full.load(Ordering::Relaxed) {
        std::thread::yield_now();
    }
    bench.inbox.release([(GROUP, Index(80))].into());
    bench.settle();
    bench.inbox.stop();
    bench.thread.join().expect("no panic");
    assert!(!bench.shared.failed(), "a full disk is no failure");
}

#[test]
fn a_stop_confirms_the_end_of_the_log() {
    let mut bench = Bench::new();
    bench.push();
    bench.settle();
    bench.inbox.stop();
    bench.thread.join().expect("no panic");
    let on: Arc<dyn Disk> = Arc::new(bench.disk.clone());
    let mut damaged = 0;
    for file in on.list().expect("list") {
        let bytes = bench.disk.contents(&file.name).expect("there");
        if let Some(at) = bytes.windows(64).position(|part| part == [1; 64]) {
            assert!(bench.disk.flip(&file.name, at + 100, 1));
            damaged += 1;
        }
    }
    assert_eq!(damaged, 1);
    let opened = Wal::open(on, options(), &mut |_, _| {});
    assert!(matches!(opened, Err(WalError::Corrupt(_))), "not taken for a torn write");
}
