use std::time::Duration;

use tl_engine::api::{Append, Freshness, ReadEvents};
use tl_engine::front::Prepared;
use tl_engine::{Engine, EngineSettings, Service};
use tl_types::Seq;

use crate::support::{append, caller, create, event, id, settings, start, stop};

async fn all_seqs(service: &Service, name: &str) -> Vec<u64> {
    let (mut cursor, mut seen) = (Seq(0), Vec::new());
    loop {
        let request = ReadEvents { cursor, limit: 1_000, wait: Duration::ZERO };
        let page = service
            .read_events(&caller(), &id(name), request, Freshness::default())
            .await
            .unwrap()
            .value;
        seen.extend(page.events.iter().map(|line| line.seq.0));
        cursor = page.next_cursor;
        if page.up_to_date {
            return seen;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_finds_everything_in_runs_and_log_tail_together() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path()).await;
    let service = engine.service();
    let text = "x".repeat(40_000);
    for session in 0..4 {
        create(&service, &format!("s{session}")).await;
    }
    for n in 1..=40 {
        for session in 0..4 {
            let name = format!("s{session}");
            append(&service, &name, vec![event("p", n, &text)]).await.unwrap();
        }
    }
    stop(engine).await;

    let engine = start(dir.path()).await;
    let service = engine.service();
    let flushed = engine.report().found.entries < 160;
    assert!(flushed, "6 MiB through a 1 MiB memtable have reached sorted runs");
    for session in 0..4 {
        let name = format!("s{session}");
        assert_eq!(all_seqs(&service, &name).await, (1..=40).collect::<Vec<_>>());
        let again = append(&service, &name, vec![event("p", 40, &text)]).await.unwrap();
        assert!(again.deduped, "a retry across the restart is recognised");
        append(&service, &name, vec![event("p", 41, "live")]).await.unwrap();
    }
    stop(engine).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_on_the_same_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path()).await;
    // What a flush has written and not listed yet; opening the store removes such files.
    let unlisted = dir.path().join("store/tables/999999");
    std::fs::write(&unlisted, b"being written").unwrap();
    let error = Engine::open(&settings(dir.path())).expect_err("the directory is in use");
    assert!(error.to_string().contains("in use by another process"), "{error}");
    assert!(unlisted.exists(), "refused before anything was opened");
    stop(engine).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_smallest_segment_size_allowed_is_one_that_works() {
    let dir = tempfile::tempdir().unwrap();
    let settings = EngineSettings { log_segment_bytes: 24 << 20, ..settings(dir.path()) };
    let engine = Engine::open(&settings).unwrap();
    engine.wait_ready().await.unwrap();
    create(&engine.service(), "chat").await;
    stop(engine).await;
    let smaller = EngineSettings { log_segment_bytes: (24 << 20) - 1, ..settings };
    assert!(Engine::open(&smaller).unwrap_err().to_string().contains("log_segment_bytes"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_was_deleted_before_anything_reached_the_store_is_missed() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path()).await;
    create(&engine.service(), "chat").await;
    append(&engine.service(), "chat", vec![event("p", 1, "kept")]).await.unwrap();
    stop(engine).await;
    let log = dir.path().join("log");
    for whole_directory in [false, true] {
        if whole_directory {
            std::fs::remove_dir_all(&log).unwrap();
        } else {
            for file in std::fs::read_dir(&log).unwrap() {
                std::fs::remove_file(file.unwrap().path()).unwrap();
            }
        }
        let error = Engine::open(&settings(dir.path())).expect_err("its log is gone");
        let error = tl_engine::chain(&error);
        let place = log.display().to_string();
        assert!(error.contains("is gone") && error.contains(&place), "{error}");
    }
    // Without the node's file it is not a data directory; moved away whole, it is a new one.
    std::fs::remove_dir_all(dir.path()).unwrap();
    let engine = start(dir.path()).await;
    create(&engine.service(), "chat").await;
    stop(engine).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_whose_rows_are_on_disk_alone_can_be_prepared_once_they_are_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path()).await;
    let service = engine.service();
    for name in ["quiet", "busy"] {
        create(&service, name).await;
    }
    append(&service, "quiet", vec![event("p", 1, "first")]).await.unwrap();
    let text = "x".repeat(40_000);
    for n in 1..=160 {
        append(&service, "busy", vec![event("p", n, &text)]).await.unwrap();
    }
    stop(engine).await;

    let engine = start(dir.path()).await;
    let service = engine.service();
    assert!(engine.report().found.entries < 160, "the first entries are not in memory any more");
    let request = || Append { events: vec![event("p", 2, "second")], expected_seq: Some(Seq(1)) };
    let prepare = || service.prepare_append(&caller(), &id("quiet"), request()).unwrap();
    let Prepared::Later(later) = prepare() else { panic!("its rows are nowhere in memory") };
    assert!(later.wants_rows());
    service.load_rows(&later).unwrap();
    let again = service.prepare_again(later).unwrap();
    assert!(matches!(again, Prepared::Now(_)), "{again:?}");
    assert!(matches!(prepare(), Prepared::Now(_)), "another one finds them too");
    drop(again);
    let done = service.append(&caller(), &id("quiet"), request()).await.unwrap();
    assert_eq!(done.value.last_seq, Seq(2));
    stop(engine).await;
}
