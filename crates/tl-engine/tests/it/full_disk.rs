//! A node on a disk that fills up: a small file system in memory, mounted in a namespace of its
//! own, so that nothing of it is left when the child ends.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tl_engine::api::{CreateSession, Freshness, ReadEvents, ServiceError, TailFrom, TailItem};
use tl_engine::{Engine, EngineSettings, Service};
use tl_types::{ErrorCode, Seq};

use crate::support::{append, caller, create, event, id, stop};

const DIR: &str = "TL_ENGINE_FULL_DISK_DIR";
const DISK_BYTES: u64 = 320 << 20;
const RESERVE_BYTES: u64 = 48 << 20;
const SESSIONS: [&str; 4] = ["a", "b", "c", "d"];
const TEXT_BYTES: usize = 256 * 1024;

/// Runs a part of this file as a process of its own, on a disk of its own.
fn on_a_small_disk(part: &str) {
    let temp = tempfile::tempdir().unwrap();
    let script = format!("mount -t tmpfs -o size={DISK_BYTES} tmpfs \"$0\" && exec \"$@\"");
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "sh", "-c", &script]).arg(temp.path());
    command.arg(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("full_disk::{part}"), "--nocapture"]);
    let output = command.env(DIR, temp.path()).output().expect("unshare is installed");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("all was seen"), "{output:?}");
}

#[test]
fn clients_are_refused_while_there_is_room_for_what_frees_space_and_nothing_is_lost() {
    on_a_small_disk("with_a_reserve");
}

#[test]
fn a_flush_without_room_refuses_writes_until_there_is_some_and_nothing_is_lost() {
    on_a_small_disk("without_a_reserve");
}

/// The disk of the child, and what fills it beside the node.
struct Disk(PathBuf);

impl Disk {
    /// `None` unless this process is a child.
    fn of_child() -> Option<Disk> {
        std::env::var(DIR).ok().map(|dir| Disk(dir.into()))
    }

    fn settings(&self, disk_reserve_bytes: u64) -> EngineSettings {
        EngineSettings {
            data_dir: self.0.join("data"),
            groups: 4,
            log_segment_bytes: 24 << 20,
            memtable_bytes: 1 << 20,
            disk_reserve_bytes,
            ..EngineSettings::default()
        }
    }

    fn free_bytes(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.0).unwrap();
        stat.f_bavail * stat.f_frsize
    }

    /// Files of the log that have their full size.
    fn log_segments(&self) -> usize {
        let files = fs::read_dir(self.0.join("data/log")).unwrap();
        // One that is no longer wanted may go between the two looks.
        let bytes = files.filter_map(|file| Some(file.ok()?.metadata().ok()?.len()));
        bytes.filter(|bytes| *bytes == 24 << 20).count()
    }

    /// Another program takes so many bytes, or all there are.
    fn take(&self, name: &str, bytes: u64) {
        let mut file = File::create(self.0.join(name)).unwrap();
        let piece = vec![1; 64 * 1024];
        for _ in 0..bytes / piece.len() as u64 {
            if file.write_all(&piece).is_err() {
                return;
            }
        }
    }

    fn give_back(&self, name: &str) {
        fs::remove_file(self.0.join(name)).unwrap();
    }
}

async fn start(settings: &EngineSettings) -> Engine {
    let engine = Engine::open(settings).expect("the engine opens");
    engine.wait_ready().await.expect("the engine gets ready");
    engine
}

/// Appends acknowledged so far, by session.
#[derive(Default)]
struct Written([u64; SESSIONS.len()]);

impl Written {
    async fn one(&mut self, service: &Service, session: usize) -> Result<(), ServiceError> {
        let n = self.0[session] + 1;
        let text = format!("{n} {}", "x".repeat(TEXT_BYTES));
        let done = append(service, SESSIONS[session], vec![event("p", n, &text)]).await?;
        assert_eq!(done.last_seq, Seq(n));
        self.0[session] = n;
        Ok(())
    }

    /// Appends until the node refuses.
    async fn until_refused(&mut self, service: &Service) -> ServiceError {
        for session in (0..SESSIONS.len()).cycle() {
            match self.one(service, session).await {
                Ok(()) => {}
                // Held back for a while, which is not what is asked for here.
                Err(error) if error.code == ErrorCode::EventStoreBackpressure => {}
                Err(error) => return error,
            }
        }
        unreachable!("a cycle has no end")
    }

    /// Repeats one append until the node takes it.
    async fn until_taken(&mut self, service: &Service, session: usize) {
        while let Err(error) = self.one(service, session).await {
            let codes = [ErrorCode::DiskFull, ErrorCode::EventStoreBackpressure];
            assert!(codes.contains(&error.code), "{error}");
        }
    }

    /// Everything that was acknowledged is there, but for the first events of some sessions.
    async fn check(&self, service: &Service, floors: [u64; SESSIONS.len()]) {
        for (session, name) in SESSIONS.iter().enumerate() {
            let (floor, last) = (floors[session], self.0[session]);
            let (mut cursor, mut seen) = (Seq(floor), Vec::new());
            while cursor < Seq(last) {
                let request = ReadEvents { cursor, limit: 1_000, wait: Duration::ZERO };
                let fresh = Freshness::default();
                let page = service.read_events(&caller(), &id(name), request, fresh).await;
                let page = page.unwrap().value;
                for line in &page.events {
                    let text = format!("\"text\":\"{} xx", line.seq);
                    assert!(line.json.windows(text.len()).any(|part| part == text.as_bytes()));
                    seen.push(line.seq.0);
                }
                assert!(page.next_cursor > cursor, "{name} ends at {cursor} instead of {last}");
                cursor = page.next_cursor;
            }
            assert_eq!(seen, (floor + 1..=last).collect::<Vec<_>>(), "{name}");
        }
    }
}

async fn tail_gives(service: &Service, session: usize, written: &Written) {
    let after = Seq(written.0[session] - 1);
    let from = TailFrom::After(after);
    let (name, fresh) = (id(SESSIONS[session]), Freshness::default());
    let mut tail = service.open_tail(&caller(), &name, from, fresh).await.unwrap();
    let item = tail.next(10).await.unwrap();
    assert!(matches!(&item, TailItem::Events(events) if events[0].seq == after.next()), "{item:?}");
}

/// What frees space, on a disk that takes nothing else.
async fn free_space(service: &Service, written: &Written) -> [u64; SESSIONS.len()] {
    let path = caller().session(&id(SESSIONS[0]));
    let last = written.0[0];
    for upto in 1..last {
        service.ack_archived(&path, Seq(upto), caller().deadline).await.unwrap();
        service.trim(&path, Seq(upto), caller().deadline).await.unwrap();
    }
    create_is_refused(service).await;
    service.delete_session(&caller(), &id("doomed")).await.unwrap();
    let gone = service.get_session(&caller(), &id("doomed"), Freshness::default()).await;
    assert_eq!(gone.unwrap_err().code, ErrorCode::SessionTombstoned);
    [last - 1, 0, 0, 0]
}

async fn create_is_refused(service: &Service) {
    let request = CreateSession { id: Some(id("one-more")), ..CreateSession::default() };
    let refused = service.create_session(&caller(), request).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::DiskFull);
}

fn metric(service: &Service, name: &str) -> u64 {
    let text = service.metrics_text();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("throughline_{name} ")));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

async fn sessions(service: &Service) {
    for name in SESSIONS.iter().chain(&["doomed"]) {
        create(service, name).await;
    }
}

async fn ends_well(engine: Engine, settings: &EngineSettings, written: &Written, floors: [u64; 4]) {
    assert!(engine.failure().borrow().is_none(), "a full disk is no failure");
    stop(engine).await;
    let engine = start(settings).await;
    written.check(&engine.service(), floors).await;
    stop(engine).await;
    let mut out = std::io::stdout().lock();
    writeln!(out, "all was seen: {:?} appends", written.0).unwrap();
}

/// Not a test of its own: a child's side.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_reserve() {
    let Some(disk) = Disk::of_child() else { return };
    disk.take("other", 64 << 20);
    let settings = disk.settings(RESERVE_BYTES);
    let engine = start(&settings).await;
    let service = engine.service();
    sessions(&service).await;
    let mut written = Written::default();
    let refused = written.until_refused(&service).await;
    assert_eq!(refused.code, ErrorCode::DiskFull, "{refused}");
    assert!(disk.free_bytes() > RESERVE_BYTES / 2, "{} bytes are free", disk.free_bytes());
    assert!(metric(&service, "writes_not_admitted_total{reason=\"disk_full\"}") > 0);
    assert_eq!(metric(&service, "disk_reserve_bytes"), RESERVE_BYTES);
    written.check(&service, [0; 4]).await;
    tail_gives(&service, 1, &written).await;

    // Somebody else takes what was left for the node itself, but for a segment of its log.
    while metric(&service, "log_segments_ready") == 0 {}
    disk.take("filling", u64::MAX);
    assert!(disk.free_bytes() < 1 << 20);
    let floors = free_space(&service, &written).await;
    written.check(&service, floors).await;
    tail_gives(&service, 1, &written).await;
    let refused = written.one(&service, 1).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::DiskFull);

    disk.give_back("filling");
    disk.give_back("other");
    for session in 0..SESSIONS.len() {
        written.until_taken(&service, session).await;
    }
    ends_well(engine, &settings, &written, floors).await;
}

/// Not a test of its own: a child's side.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_reserve() {
    let Some(disk) = Disk::of_child() else { return };
    let settings = disk.settings(0);
    let engine = start(&settings).await;
    let service = engine.service();
    sessions(&service).await;
    let mut written = Written::default();
    for n in 0..2 * SESSIONS.len() {
        written.one(&service, n % SESSIONS.len()).await.unwrap();
    }
    // The log is past its small first segment and has its spare ones; what memtables will hold
    // has nowhere to go.
    while disk.log_segments() < 3 {}
    disk.take("filling", u64::MAX);
    let refused = written.until_refused(&service).await;
    assert_eq!(refused.code, ErrorCode::DiskFull, "{refused}");
    assert!(metric(&service, "no_room_total") > 0, "a flush found no room");
    written.check(&service, [0; 4]).await;
    let floors = free_space(&service, &written).await;
    tail_gives(&service, 1, &written).await;
    assert!(written.one(&service, 1).await.is_err());

    disk.give_back("filling");
    for session in 0..SESSIONS.len() {
        written.until_taken(&service, session).await;
    }
    written.check(&service, floors).await;
    ends_well(engine, &settings, &written, floors).await;
}
