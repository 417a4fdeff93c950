//! The file: made, shared, damaged, foreign, locked.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use tl_fleet::sqlite::{SCHEMA_VERSION, SqliteOptions, SqliteStore};
use tl_fleet::{JsonText, NewStep, StepState, Store, StoreError};

use super::world;
use crate::conformance::{World, claim_one, completed, finish, numbered, state, submit};

#[tokio::test]
async fn what_was_answered_is_there_after_the_file_is_opened_again() {
    let world = world().await;
    let id = submit(&world.store(), numbered(1)).await;
    let again = world.open_again();
    let claim = claim_one(&again).await;
    finish(&world.store(), claim.key, completed("1")).await;
    drop(again);
    assert_eq!(state(&world.open_again(), id).await, StepState::Completed);
}

#[tokio::test]
async fn many_may_make_the_tables_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fleet.db");
    let openers: Vec<_> = (0..8)
        .map(|_| {
            let path = path.clone();
            std::thread::spawn(move || SqliteStore::open(SqliteOptions::new(path)))
        })
        .collect();
    for opener in openers {
        let store: Arc<dyn Store> = Arc::new(opener.join().unwrap().unwrap());
        submit(&store, numbered(1)).await;
    }
    let store = SqliteStore::open(SqliteOptions::new(path)).unwrap();
    assert_eq!(store.counts().await.unwrap().value.pending, 8);
}

#[tokio::test]
async fn tables_of_a_newer_program_are_left_alone() {
    let world = world().await;
    let conn = rusqlite::Connection::open(world.options().path).unwrap();
    let newer = SCHEMA_VERSION + 1;
    let set = "UPDATE fleet_meta SET value = ?1 WHERE name = 'schema_version'";
    conn.execute(set, [newer.to_string()]).unwrap();
    let refused = SqliteStore::open(world.options());
    let expected = (newer, SCHEMA_VERSION);
    match refused {
        Err(StoreError::Schema { found, wanted }) => assert_eq!((found, wanted), expected),
        other => panic!("{other:?}"),
    }
    conn.execute(set, ["no number"]).unwrap();
    assert!(matches!(SqliteStore::open(world.options()), Err(StoreError::Corrupt { .. })));
}

#[tokio::test]
async fn an_application_may_have_its_tables_in_the_same_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let app = rusqlite::Connection::open(&path).unwrap();
    app.execute_batch("PRAGMA user_version = 42; CREATE TABLE steps (mine TEXT);").unwrap();
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(SqliteOptions::new(path)).unwrap());
    submit(&store, numbered(1)).await;
    let version: i64 = app.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    assert_eq!(version, 42);
}

#[tokio::test]
async fn a_file_that_is_not_sqlites_is_named_and_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.txt");
    let text = "these are my notes and not a database\n".repeat(100);
    std::fs::write(&path, &text).unwrap();
    let refused = SqliteStore::open(SqliteOptions::new(&path));
    assert!(matches!(refused, Err(StoreError::Corrupt { .. })), "{refused:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    let nowhere = SqliteStore::open(SqliteOptions::new(folder.path().join("no/such/fleet.db")));
    assert!(matches!(nowhere, Err(StoreError::Unavailable { .. })), "{nowhere:?}");
}

#[tokio::test]
async fn a_row_that_nobody_wrote_is_an_error_and_no_panic() {
    let world = world().await;
    let store = world.store();
    let id = submit(&store, numbered(1)).await;
    let conn = rusqlite::Connection::open(world.options().path).unwrap();
    for damage in ["kind = ''", "unique_key = 'k', kind = 'work'", "unique_until = 9"] {
        conn.execute(&format!("UPDATE fleet_steps SET {damage}"), []).unwrap();
        let answer = store.steps(vec![id]).await;
        assert!(matches!(answer, Err(StoreError::Corrupt { .. })), "{damage}: {answer:?}");
    }
    conn.execute("UPDATE fleet_steps SET state = 77", []).unwrap();
    assert!(matches!(store.steps(vec![id]).await, Err(StoreError::Corrupt { .. })));
    assert!(matches!(store.cancel(vec![id]).await, Err(StoreError::Corrupt { .. })));
    submit(&store, numbered(2)).await;
}

#[tokio::test]
async fn a_step_that_cannot_be_read_does_not_take_others_calls_with_it() {
    let world = world().await;
    let store = world.store();
    let bad = submit(&store, numbered(1)).await;
    let conn = rusqlite::Connection::open(world.options().path).unwrap();
    conn.execute("UPDATE fleet_steps SET state = 77", []).unwrap();
    let calls: Vec<_> = (0..20)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move {
                if number % 5 == 0 {
                    store.cancel(vec![bad]).await.is_ok()
                } else {
                    store.submit(vec![numbered(number)]).await.is_ok()
                }
            })
        })
        .collect();
    let mut fine = 0;
    for call in calls {
        fine += usize::from(call.await.unwrap());
    }
    assert_eq!((fine, store.counts().await.unwrap().value.pending), (16, 16));
}

#[tokio::test]
async fn calls_that_bring_too_many_bytes_at_once_are_refused_and_later_ones_are_not() {
    let world = world().await;
    let store = world.store();
    // Nothing is written while another program has the file.
    let away = rusqlite::Connection::open(world.options().path).unwrap();
    away.execute_batch("BEGIN IMMEDIATE").unwrap();
    let args = JsonText::of("args", &BTreeMap::from([("a", "x".repeat(1_000_000))])).unwrap();
    let heavy = || {
        let step = || NewStep { args: args.clone(), ..numbered(1) };
        store.submit((0..15).map(|_| step()).collect())
    };
    // Four batches of fifteen megabytes fit, not five.
    let waiting: Vec<_> = (0..4).map(|_| heavy()).collect();
    assert!(matches!(heavy().await, Err(StoreError::Busy { .. })));
    let light = store.submit(vec![numbered(2)]);
    drop(away);
    for answer in waiting {
        assert_eq!(answer.await.unwrap().value.len(), 15);
    }
    light.await.unwrap();
    heavy().await.unwrap();
}

/// Longest wait for something that must happen; reached only when it does not.
const PATIENCE: Duration = Duration::from_secs(30);

/// The locks by which processes take turns, held as by one that was stopped in the middle of a
/// transaction.
fn hold_turns(path: &std::path::Path) -> [File; 2] {
    ["-next", "-turn"].map(|ending| {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        let file = File::options().create(true).append(true).open(name).unwrap();
        file.lock().unwrap();
        file
    })
}

fn opens(options: &SqliteOptions) -> Result<SqliteStore, StoreError> {
    let (reply, opened) = mpsc::channel();
    let options = options.clone();
    std::thread::spawn(move || drop(reply.send(SqliteStore::open(options))));
    opened.recv_timeout(PATIENCE).expect("it does not wait for ever")
}

#[tokio::test]
async fn a_file_is_opened_and_looked_at_while_another_process_stands_still_in_a_transaction() {
    let world = world().await;
    let id = submit(&world.store(), numbered(1)).await;
    let stopped = hold_turns(&world.options().path);
    let store: Arc<dyn Store> = Arc::new(opens(&world.options()).unwrap());
    assert_eq!(state(&store, id).await, StepState::Pending);
    let apart = store.apart().await.unwrap();
    // Writes wait, and who goes away in the middle of one is not held up.
    let (reply, closed) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let short = Duration::from_millis(100);
        let waited = runtime.block_on(async { tokio::time::timeout(short, apart.ping()).await });
        drop(apart);
        reply.send(waited.is_err())
    });
    assert!(closed.recv_timeout(PATIENCE).expect("it closes all the same"), "a write waits");
    drop(stopped);
    submit(&store, numbered(2)).await;
}

#[tokio::test]
async fn a_new_file_that_cannot_be_set_up_is_said_so_and_holds_up_nobody() {
    let world = world().await;
    let options = SqliteOptions { path: world.folder.path().join("new.db"), ..world.options() };
    let stopped = hold_turns(&options.path);
    let mut opening = Box::pin(SqliteStore::open_aside(options.clone()));
    tokio::select! {
        biased;
        opened = &mut opening => panic!("it did not wait: {opened:?}"),
        () = std::future::ready(()) => {}
    }
    match opens(&options) {
        Err(StoreError::Unavailable { source }) => {
            assert!(source.to_string().contains("in the middle of a transaction"), "{source}");
        }
        other => panic!("{other:?}"),
    }
    assert!(opening.await.is_err());
    drop(stopped);
    opens(&options).unwrap();
}

#[tokio::test]
async fn those_that_live_are_listed_however_many_are_gone() {
    let world = world().await;
    let store = world.store();
    let living = crate::conformance::register(&store, "living").await;
    let conn = rusqlite::Connection::open(world.options().path).unwrap();
    // Older and younger ones, more than a list has.
    let gone = "INSERT INTO fleet_pods (pod, incarnation, birth, birth_wall, heartbeat_wall,
                    lease_until, state, draining, capacity, running, prefetched, kinds, meta)
                WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 11000)
                SELECT 'gone-' || n, n, 995000 + n, 0, 0, 0, 1, 0, 1, 0, 0, '[]', '{}' FROM n";
    conn.execute(gone, []).unwrap();
    let pods = store.pods().await.unwrap().value;
    assert_eq!(pods.len(), tl_fleet::limits::PODS_MAX);
    assert!(pods.iter().any(|pod| pod.life == living));
    assert!(pods.is_sorted_by_key(|pod| pod.birth), "eldest first");
    assert_eq!(pods.last().unwrap().life.pod.as_str(), "gone-11000");
}
