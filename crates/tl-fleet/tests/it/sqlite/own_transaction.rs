//! The caller's own transaction: submissions and completions beside rows of an application.

use rusqlite::Connection;
use tl_fleet::sqlite::{finish_in, submit_in};
use tl_fleet::{
    Finish, Finished, NewStep, PageRequest, StepFilter, StepState, Unique, UniqueUntil,
};

use super::{SqliteWorld, world};
use crate::conformance::{World, claim_one, completed, kind, numbered, state, step};

fn application(world: &SqliteWorld) -> Connection {
    let conn = Connection::open(world.options().path).unwrap();
    conn.execute("CREATE TABLE IF NOT EXISTS orders (n INTEGER)", []).unwrap();
    conn
}

#[tokio::test]
async fn a_submission_is_there_if_and_only_if_its_transaction_is() {
    let world = world().await;
    let mut app = application(&world);
    for commits in [false, true] {
        let tx = app.transaction().unwrap();
        tx.execute("INSERT INTO orders VALUES (1)", []).unwrap();
        let submitted = submit_in(&tx, &[numbered(1)]).unwrap();
        if commits {
            tx.commit().unwrap()
        } else {
            tx.rollback().unwrap()
        }
        let found = world.store().steps(vec![submitted[0].id]).await.unwrap().value;
        assert_eq!(found[0].is_some(), commits);
    }
}

#[tokio::test]
async fn a_handlers_rows_and_its_completion_are_one_transaction() {
    let world = world().await;
    let store = world.store();
    crate::conformance::submit(&store, numbered(1)).await;
    let claim = claim_one(&store).await;
    let mut app = application(&world);
    let finish = Finish { key: claim.key, outcome: completed("1") };
    let tx = app.transaction().unwrap();
    tx.execute("INSERT INTO orders VALUES (1)", []).unwrap();
    assert_eq!(finish_in(&tx, &finish).unwrap(), Finished::Now(StepState::Completed));
    tx.rollback().unwrap();
    assert_eq!(state(&store, claim.key.id).await, StepState::Claimed);
    let tx = app.transaction().unwrap();
    finish_in(&tx, &finish).unwrap();
    tx.commit().unwrap();
    assert_eq!(state(&store, claim.key.id).await, StepState::Completed);
    assert_eq!(store.counts().await.unwrap().value.completed, 1);
}

#[tokio::test]
async fn an_insert_into_the_view_is_a_submission() {
    let world = world().await;
    let store = world.store();
    let app = application(&world);
    app.execute("INSERT INTO fleet_submit (kind) VALUES ('work')", []).unwrap();
    app.execute(
        "INSERT INTO fleet_submit (id, kind, args, metadata, priority, max_retries, delay_ms,
             timeout_ms, unique_key, unique_until)
         VALUES ('0190f3a8-0000-7000-8000-000000000001', 'mail', ' {\"to\": 1} ', '{\"a\":2}', 3, 5,
             1000, 2000, 'k', 0)",
        [],
    )
    .unwrap();
    let page = store.list(StepFilter::default(), PageRequest::first(10)).await.unwrap().value;
    let (full, plain) = (&page.items[0], &page.items[1]);
    assert_eq!(plain.id.0.get_version_num(), 7);
    assert_eq!((plain.args.as_str(), plain.metadata.as_str()), ("{}", "{}"));
    assert_eq!((plain.state, plain.attempts_max, plain.priority), (StepState::Pending, 4, 0));
    assert_eq!(full.id.to_string(), "0190f3a8-0000-7000-8000-000000000001");
    assert_eq!((full.args.as_str(), full.metadata.as_str()), ("{\"to\": 1}", "{\"a\":2}"));
    assert_eq!((full.state, full.priority, full.attempts_max), (StepState::Scheduled, 3, 6));
    assert_eq!((full.kind.as_str(), full.timeout_ms), ("mail", Some(2_000)));
    let unique = Unique { key: "k".to_owned(), until: UniqueUntil::Finished };
    assert_eq!(full.unique, Some(unique.clone()));
    assert_eq!(full.run_at.0 - full.created_at.0, 1_000);

    // What is held already is left out, whoever submitted it, and no payload strays.
    app.execute("INSERT INTO fleet_submit (kind, unique_key) VALUES ('other', 'k')", []).unwrap();
    app.execute("INSERT INTO fleet_submit (id, kind) VALUES (?1, 'other')", [plain.id.to_string()])
        .unwrap();
    let new = NewStep { unique: Some(unique), ..NewStep::new(kind("other")) };
    assert!(store.submit(vec![new]).await.unwrap().value[0].deduped);
    let strays: i64 =
        app.query_row("SELECT count(*) FROM fleet_payloads", [], |row| row.get(0)).unwrap();
    assert_eq!(strays, 2);
    let claim = claim_one(&store).await;
    assert_eq!(claim.key.id, plain.id);
    assert_eq!(step(&store, plain.id).await.attempt.0, 1);
}

#[tokio::test]
async fn the_view_ranks_as_the_store_does() {
    let world = world().await;
    let app = application(&world);
    for (priority, delay_ms) in [(0, 0), (7, 0), (-7, 0), (3, 5_000)] {
        app.execute(
            "INSERT INTO fleet_submit (kind, priority, delay_ms) VALUES ('work', ?1, ?2)",
            [priority, delay_ms],
        )
        .unwrap();
        let (run_at, rank): (i64, i64) = app
            .query_row("SELECT run_at, rank FROM fleet_steps ORDER BY seq DESC", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .unwrap();
        let run_at = tl_types::UnixMs(run_at.unsigned_abs());
        assert_eq!(rank, tl_core::fleet::rank(run_at, priority));
    }
}

#[tokio::test]
async fn the_view_refuses_what_the_store_would_refuse() {
    let world = world().await;
    let app = application(&world);
    let cases = [
        "(kind) VALUES (NULL)",
        "(kind) VALUES ('')",
        "(kind) VALUES ('a b')",
        "(kind) VALUES (1)",
        "(kind, args) VALUES ('a', '[]')",
        "(kind, args) VALUES ('a', '{')",
        "(kind, args) VALUES ('a', 1)",
        "(kind, metadata) VALUES ('a', 'null')",
        "(kind, args) VALUES ('a', '{\"x\":\"' || printf('%.1048576c', 'x') || '\"}')",
        "(kind, priority) VALUES ('a', 1000001)",
        "(kind, priority) VALUES ('a', 'high')",
        "(kind, max_retries) VALUES ('a', 11)",
        "(kind, max_retries) VALUES ('a', -1)",
        "(kind, delay_ms) VALUES ('a', -1)",
        "(kind, timeout_ms) VALUES ('a', 0)",
        "(kind, unique_key) VALUES ('a', '')",
        "(kind, unique_key) VALUES ('a', printf('%.256c', 'x'))",
        "(kind, unique_until) VALUES ('a', 2)",
        "(kind, id) VALUES ('a', 'x')",
        "(kind, id) VALUES ('a', '0190F3A8-0000-7000-8000-000000000001')",
        "(kind, id) VALUES ('a', '0190f3a8-0000-7000-8000-00000000000g')",
    ];
    for case in cases {
        let refused = app.execute(&format!("INSERT INTO fleet_submit {case}"), []);
        let text = refused.map_err(|error| error.to_string());
        assert!(text.as_ref().is_err_and(|text| text.contains("must")), "{case}: {text:?}");
    }
    assert_eq!(world.store().counts().await.unwrap().value.pending, 0);
}
