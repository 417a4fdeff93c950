//! Engines as one cluster, over sockets on this machine: three, or five and a router.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tl_engine::api::{
    Caller, Freshness, ListSessions, ReadEvents, ServiceError, TailEnd, TailFrom, TailItem,
};
use tl_engine::{ClusterSettings, Engine, EngineSettings, Service};
use tl_types::{ErrorCode, Seq, UnixMs};

use crate::support::{append, caller, create, event, id, settings, stop};

mod behind;
mod five;
mod level;
mod ops;
mod replace;
mod rotten;

const NAMES: [&str; 3] = ["node-1", "node-2", "node-3"];
const FIVE: [&str; 5] = ["node-1", "node-2", "node-3", "node-4", "node-5"];

/// A founded cluster, whose nodes may be stopped and started: members, and routers behind them.
struct Cluster {
    dir: tempfile::TempDir,
    settings: ClusterSettings,
    names: Vec<&'static str>,
    log_keep_bytes: u64,
    engines: Vec<Option<Engine>>,
}

fn member_dir(dir: &Path, name: &str) -> PathBuf {
    dir.join(name)
}

impl Cluster {
    async fn start() -> Cluster {
        Cluster::of(&NAMES, &[], 8).await
    }

    async fn of(members: &[&'static str], routers: &[&'static str], groups: u16) -> Cluster {
        let log_keep_bytes = EngineSettings::default().log_keep_bytes;
        Cluster::keeping(log_keep_bytes, members, routers, groups).await
    }

    /// Members that keep so much log for others.
    async fn keeping(
        log_keep_bytes: u64,
        members: &[&'static str],
        routers: &[&'static str],
        groups: u16,
    ) -> Cluster {
        let dir = tempfile::tempdir().unwrap();
        let now_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let fresh = || {
            let mut id = [0; 16];
            getrandom::fill(&mut id).unwrap();
            id
        };
        let dirs = |names: &[&'static str]| -> Vec<(String, PathBuf)> {
            let dir_of = |name: &&'static str| ((*name).to_owned(), member_dir(dir.path(), name));
            names.iter().map(dir_of).collect()
        };
        let founded_at = UnixMs(now_ms.as_millis() as u64);
        let (member_dirs, router_dirs) = (dirs(members), dirs(routers));
        tl_engine::cluster::found_with(&member_dirs, &router_dirs, groups, founded_at, fresh)
            .unwrap();
        let names: Vec<&'static str> = members.iter().chain(routers).copied().collect();
        // Held until all are known, so that no two are the same.
        let bind = |_: &&str| TcpListener::bind("127.0.0.1:0").unwrap();
        let ports: Vec<TcpListener> = names.iter().map(bind).collect();
        let listed = names.iter().zip(&ports);
        let mut listed: Vec<String> =
            listed.map(|(name, port)| format!("{name}={}", port.local_addr().unwrap())).collect();
        let settings = ClusterSettings {
            routers: listed.split_off(members.len()),
            members: listed,
            // The machine of a test may stand still for a moment.
            suspect_after_ms: 2_000,
            ..Default::default()
        };
        drop(ports);
        let engines = names.iter().map(|_| None).collect();
        let mut cluster = Cluster { dir, settings, names, log_keep_bytes, engines };
        for node in 0..cluster.names.len() {
            cluster.open(node);
        }
        for engine in cluster.engines.iter().flatten() {
            engine.wait_ready().await.expect("a member gets ready");
        }
        cluster
    }

    fn engine_settings(&self, node: usize) -> EngineSettings {
        EngineSettings {
            node_name: self.names[node].to_owned(),
            log_keep_bytes: self.log_keep_bytes,
            ..settings(&member_dir(self.dir.path(), self.names[node]))
        }
    }

    fn open(&mut self, node: usize) {
        let settings = self.engine_settings(node);
        let engine = Engine::open_in(&settings, &self.settings).expect("a member opens");
        self.engines[node] = Some(engine);
    }

    async fn stop(&mut self, node: usize) {
        stop(self.engines[node].take().unwrap()).await;
    }

    fn service(&self, node: usize) -> Service {
        self.engines[node].as_ref().unwrap().service()
    }

    async fn stop_all(mut self) {
        for node in 0..self.names.len() {
            if self.engines[node].is_some() {
                self.stop(node).await;
            }
        }
    }
}

/// Appends until it is taken: only an outcome that is not known is asked for again.
async fn append_through(service: &Service, session: &str, seq: u64) {
    for _ in 0..20 {
        match append(service, session, vec![event("p", seq, "hello")]).await {
            Ok(appended) => return assert_eq!(appended.first_seq, Seq(seq)),
            Err(error) if error.code == ErrorCode::RaftTimeout => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("event {seq} was never taken");
}

/// The ids of all sessions as a node lists them.
async fn listed(service: &Service, query: &str) -> Result<Vec<String>, ServiceError> {
    let mut query = ListSessions::parse(query).unwrap();
    query.limit = 100;
    let page = service.list_sessions(&caller(), query).await?;
    assert_eq!(page.next_cursor, None);
    Ok(page.sessions.iter().map(|session| session.0.path.name.to_string()).collect())
}

async fn seqs(service: &Service, session: &str) -> Vec<(u64, Vec<u8>)> {
    let all = ReadEvents { cursor: Seq(0), limit: 1_000, wait: Duration::ZERO };
    let read = service.read_events(&caller(), &id(session), all, Freshness::default()).await;
    let lines = read.unwrap().value.events;
    lines.into_iter().map(|line| (line.seq.0, line.json.to_vec())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_member_takes_writes_and_all_of_them_answer_the_same() {
    let cluster = Cluster::start().await;
    for node in 0..3 {
        // Eight sessions over eight groups: some are led here, others elsewhere.
        for number in 0..8 {
            create(&cluster.service(node), &format!("s-{node}-{number}")).await;
        }
    }
    let mut tails = Vec::new();
    for node in 0..3 {
        let (session, from) = (id("s-0-0"), TailFrom::After(Seq(0)));
        let service = cluster.service(node);
        tails.push(service.open_tail(&caller(), &session, from, Freshness::default()).await);
    }
    for seq in 1..=60 {
        append_through(&cluster.service(seq as usize % 3), "s-0-0", seq).await;
    }
    let first = seqs(&cluster.service(0), "s-0-0").await;
    assert_eq!(first.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), (1..=60).collect::<Vec<_>>());
    for node in 1..3 {
        assert_eq!(seqs(&cluster.service(node), "s-0-0").await, first, "node {node}");
    }
    for tail in tails {
        let (mut tail, mut seen) = (tail.unwrap(), Vec::new());
        while seen.len() < 60 {
            match tail.next(100).await.unwrap() {
                TailItem::Events(lines) => {
                    seen.extend(lines.into_iter().map(|line| (line.seq.0, line.json.to_vec())));
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(seen, first);
    }
    // A refusal by the leader comes back in its own words through any node.
    for node in 0..3 {
        let again = event("p", 60, "another text");
        let refused = append(&cluster.service(node), "s-0-0", vec![again]).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::ProducerReplayConflict);
        let missing = append(&cluster.service(node), "none", vec![event("p", 1, "x")]).await;
        assert_eq!(missing.unwrap_err().code, ErrorCode::SessionNotFound);
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_come_and_go_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::start().await;
    create(&cluster.service(0), "chat").await;
    let mut seq = 0;
    for gone in 0..3 {
        cluster.stop(gone).await;
        for node in (0..3).filter(|node| *node != gone) {
            for _ in 0..5 {
                seq += 1;
                append_through(&cluster.service(node), "chat", seq).await;
            }
        }
        cluster.open(gone);
        cluster.engines[gone].as_ref().unwrap().wait_ready().await.expect("ready again");
        // What it missed is there before an absence is told.
        assert_eq!(seqs(&cluster.service(gone), "chat").await.len() as u64, seq);
    }
    let first = seqs(&cluster.service(0), "chat").await;
    assert_eq!(first.len() as u64, seq);
    for node in 1..3 {
        assert_eq!(seqs(&cluster.service(node), "chat").await, first);
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_replay_goes_on_and_writes_and_absences_are_refused() {
    let mut cluster = Cluster::start().await;
    create(&cluster.service(0), "chat").await;
    for seq in 1..=5 {
        append_through(&cluster.service(0), "chat", seq).await;
    }
    // So that the survivor has it all.
    assert_eq!(seqs(&cluster.service(2), "chat").await.len(), 5);
    cluster.stop(0).await;
    cluster.stop(1).await;
    let survivor = cluster.service(2);
    let soon = Caller { deadline: Instant::now() + Duration::from_secs(4), ..caller() };
    let page = ReadEvents { cursor: Seq(0), limit: 100, wait: Duration::ZERO };
    let read = survivor.read_events(&soon, &id("chat"), page, Freshness::default()).await;
    let read = read.unwrap().value;
    assert_eq!(read.events.len(), 5, "what is here is shown");
    assert!(!read.up_to_date, "and that nothing follows is not claimed");
    let end = ReadEvents { cursor: Seq(5), ..page };
    let refused = survivor.read_events(&soon, &id("chat"), end, Freshness::default()).await;
    assert_eq!(refused.unwrap_err().code, ErrorCode::RaftUnavailable, "an end is an absence");
    let soon = Caller { deadline: Instant::now() + Duration::from_secs(3), ..caller() };
    let request = tl_engine::api::Append { events: vec![event("p", 6, "x")], expected_seq: None };
    let refused = survivor.append(&soon, &id("chat"), request).await.unwrap_err();
    let either = [ErrorCode::RaftUnavailable, ErrorCode::RaftTimeout];
    assert!(either.contains(&refused.code), "{refused}");
    assert!(!survivor.readiness().ready);
    // What a list leaves out is an absence too.
    let refused = listed(&survivor, "").await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::RaftUnavailable, "{refused}");
    // With one more there is a majority again, and the write may be repeated.
    cluster.open(0);
    append_through(&cluster.service(2), "chat", 6).await;
    assert_eq!(seqs(&cluster.service(0), "chat").await.len(), 6);
    assert_eq!(listed(&survivor, "").await.unwrap(), ["chat"]);
    drop(survivor);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_keep_up_list_what_others_took_from_their_own_rows() {
    let mut cluster = Cluster::start().await;
    let mut all: Vec<String> = Vec::new();
    for number in 0..24 {
        all.push(format!("s-{number:02}"));
        create(&cluster.service(number % 3), &all[number]).await;
        for node in 0..3 {
            assert_eq!(listed(&cluster.service(node), "").await.unwrap(), all, "node {node}");
        }
    }
    for node in 0..3 {
        // Until every group is led by whose turn it is, one may be without a leader for a moment.
        let (service, asked) = (cluster.service(node), "reads_forwarded_total");
        loop {
            let before = metric(&service, asked);
            assert_eq!(listed(&service, "").await.unwrap(), all, "node {node}");
            if metric(&service, asked) == before {
                break;
            }
        }
    }
    // Also while one is away, and behind its start.
    cluster.stop(0).await;
    create(&cluster.service(1), "t").await;
    all.push("t".to_owned());
    for node in 1..3 {
        assert_eq!(listed(&cluster.service(node), "").await.unwrap(), all, "node {node}");
    }
    cluster.open(0);
    match listed(&cluster.service(0), "").await {
        Ok(given) => assert_eq!(given, all, "whatever it has applied so far"),
        Err(refused) => assert_eq!(refused.code, ErrorCode::RaftUnavailable, "{refused}"),
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_directory_is_gone_does_not_vote_again() {
    let mut cluster = Cluster::start().await;
    create(&cluster.service(0), "chat").await;
    cluster.stop(1).await;
    let dir = member_dir(cluster.dir.path(), NAMES[1]);
    std::fs::remove_dir_all(&dir).unwrap();
    let error = Engine::open_in(&cluster.engine_settings(1), &cluster.settings).unwrap_err();
    assert!(error.to_string().contains("is not a member's data directory"), "{error}");
    append_through(&cluster.service(2), "chat", 1).await;
    cluster.stop_all().await;
}

/// The first `count` events of a session as a node shows them, page by page: what is there needs
/// nobody else.
async fn shown(service: &Service, session: &str, count: usize) -> Vec<(u64, Vec<u8>)> {
    let mut shown: Vec<(u64, Vec<u8>)> = Vec::new();
    while shown.len() < count {
        let cursor = Seq(shown.last().map_or(0, |(seq, _)| *seq));
        let page = ReadEvents { cursor, limit: 1_000, wait: Duration::ZERO };
        let read = service.read_events(&caller(), &id(session), page, Freshness::default()).await;
        let lines = read.unwrap().value.events;
        assert!(!lines.is_empty(), "nothing behind {cursor}");
        shown.extend(lines.into_iter().map(|line| (line.seq.0, line.json.to_vec())));
    }
    shown
}

/// Writes large events until there are so many.
async fn append_large(service: &Service, seqs: std::ops::RangeInclusive<u64>) {
    let text = "x".repeat(900_000);
    for seq in seqs {
        loop {
            match append(service, "chat", vec![event("p", seq, &text)]).await {
                Ok(_) => break,
                Err(error) if error.code == ErrorCode::RaftTimeout => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn metric(service: &Service, name: &str) -> u64 {
    let (name, text) = (format!("throughline_{name} "), service.metrics_text());
    let line = text.lines().find_map(|line| line.strip_prefix(&name));
    line.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_missed_more_than_memory_holds_is_sent_it_from_the_log() {
    /// Three times what a leader holds of one group in memory for a follower that is away.
    const LARGE: u64 = 112;
    let mut cluster = Cluster::start().await;
    create(&cluster.service(0), "chat").await;
    append_through(&cluster.service(0), "chat", 1).await;
    cluster.stop(2).await;
    append_large(&cluster.service(0), 2..=LARGE).await;
    cluster.open(2);
    cluster.engines[2].as_ref().unwrap().wait_ready().await.expect("it catches up");
    assert_eq!(metric(&cluster.service(2), "snapshots_taken_total"), 0, "no rows");
    let fed = |name: &str| metric(&cluster.service(0), name) + metric(&cluster.service(1), name);
    assert!(fed("log_fed_bytes_total") > 60_000_000, "{}", fed("log_fed_bytes_total"));
    assert_eq!((fed("snapshots_given_total"), fed("log_feeds_missed_total")), (0, 0));
    append_through(&cluster.service(2), "chat", LARGE + 1).await;
    let count = LARGE as usize + 1;
    let first = shown(&cluster.service(0), "chat", count).await;
    assert_eq!(shown(&cluster.service(2), "chat", count).await, first);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_missed_more_than_the_others_keep_is_given_all_rows() {
    /// More than a leader keeps of one group for a follower that is away, in memory and, where it
    /// is told to keep none, in the one or two segments that the log always has.
    const LARGE: u64 = 90;
    let mut cluster = Cluster::keeping(0, &NAMES, &[], 8).await;
    create(&cluster.service(0), "chat").await;
    append_through(&cluster.service(0), "chat", 1).await;
    cluster.stop(2).await;
    append_large(&cluster.service(0), 2..=LARGE).await;
    cluster.open(2);
    cluster.engines[2].as_ref().unwrap().wait_ready().await.expect("it catches up");
    let taken = metric(&cluster.service(2), "snapshots_taken_total");
    assert_eq!(taken, 1, "the log could not have it");
    // What follows comes by the log again, and the producer's positions came along.
    append_through(&cluster.service(2), "chat", LARGE + 1).await;
    append_through(&cluster.service(0), "chat", LARGE + 1).await;
    let count = LARGE as usize + 1;
    let first = shown(&cluster.service(0), "chat", count).await;
    assert_eq!(shown(&cluster.service(2), "chat", count).await, first);
    cluster.stop(0).await;
    cluster.stop(1).await;
    assert_eq!(shown(&cluster.service(2), "chat", count).await, first, "alone");
    // Also behind a restart, from its own disk and log; another one only says what is committed.
    cluster.stop(2).await;
    cluster.open(2);
    cluster.open(0);
    cluster.engines[2].as_ref().unwrap().wait_ready().await.expect("two of three");
    assert_eq!(shown(&cluster.service(2), "chat", count).await, first);
    cluster.stop_all().await;
}
