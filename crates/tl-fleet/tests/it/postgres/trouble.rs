//! The database in trouble, and pods that meet.

use std::collections::BTreeSet;
use std::sync::Arc;

use tl_fleet::postgres::{PostgresOptions, PostgresStore};
use tl_fleet::{NewStep, Store, StoreError, Unique, UniqueUntil};

use super::{client, fresh_options, server, world};
use crate::conformance::{World, claim_as, completed, finish, numbered, submit};

#[tokio::test]
async fn a_database_that_is_away_is_told_from_one_that_refuses() {
    let away = PostgresOptions::parse("host=/nowhere/at/all user=x").unwrap();
    let answer = PostgresStore::open(away).await;
    assert!(matches!(answer, Err(StoreError::Unavailable { .. })), "{answer:?}");
    let (options, _) = fresh_options();
    drop(options);
    let nobody = server::server().url().replace("user=postgres", "user=nobody_here");
    let answer = PostgresStore::open(PostgresOptions::parse(&nobody).unwrap()).await;
    assert!(matches!(answer, Err(StoreError::Refused { .. })), "{answer:?}");

    let world = world().await;
    let role = format!("reader_{}", world.schema);
    let make = format!(
        "CREATE ROLE {role} LOGIN; ALTER ROLE {role} SET default_transaction_read_only = on;
         GRANT USAGE ON SCHEMA {0} TO {role};
         GRANT ALL ON ALL TABLES IN SCHEMA {0} TO {role};
         GRANT ALL ON ALL SEQUENCES IN SCHEMA {0} TO {role};",
        world.schema
    );
    world.client.batch_execute(&make).await.unwrap();
    let url = server::server().url().replace("user=postgres", &format!("user={role}"));
    let reader = PostgresOptions::parse(&url).unwrap().schema(&world.schema).unwrap();
    let answer = PostgresStore::open(reader).await;
    assert!(
        matches!(answer, Err(StoreError::Refused { .. })),
        "read-only is not ready: {answer:?}"
    );
}

#[tokio::test]
async fn a_store_goes_on_after_its_connections_were_ended() {
    let world = world().await;
    let store = world.store();
    let id = submit(&store, numbered(1)).await;
    let end = "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity
               WHERE pid <> pg_backend_pid() AND query LIKE '%\"' || $1 || '\".%'";
    for _ in 0..2 {
        let ended: i64 = world.client.query_one(end, &[&world.schema]).await.unwrap().get(0);
        assert!(ended > 0);
        // The first call may meet the ended connection; what it says may be repeated.
        loop {
            match store.submit(vec![NewStep { id, ..numbered(1) }]).await {
                Ok(answer) => {
                    assert!(answer.value[0].deduped);
                    break;
                }
                Err(error) => assert!(error.is_outage(), "{error:?}"),
            }
        }
    }
    assert_eq!(claim_as(&store, "w", 9).await.len(), 1);
}

#[tokio::test]
async fn batches_that_meet_crosswise_all_end() {
    let world = world().await;
    let steps: Vec<_> = (0..40)
        .map(|number| NewStep {
            unique: Some(Unique { key: format!("k{number}"), until: UniqueUntil::Finished }),
            ..numbered(number)
        })
        .collect();
    let mut backwards = steps.clone();
    backwards.reverse();
    for _ in 0..5 {
        let pods: Vec<_> = [&steps, &backwards, &steps, &backwards]
            .into_iter()
            .map(|batch| {
                let (store, batch) = (world.store(), batch.clone());
                tokio::spawn(async move { store.submit(batch).await.unwrap().value })
            })
            .collect();
        let mut new = 0;
        for pod in pods {
            new += pod.await.unwrap().iter().filter(|submitted| !submitted.deduped).count();
        }
        let claims = claim_as(&world.store(), "w", 100).await;
        let ids: BTreeSet<_> = claims.iter().map(|claim| claim.key.id).collect();
        assert!(new == ids.len() && (new == 40 || new == 0), "{new} new, {} claimed", ids.len());
        for claim in claims {
            finish(&world.store(), claim.key, completed("1")).await;
        }
    }
    // Ids that were finished stay so, whoever submits them again.
    assert_eq!(world.store.counts().await.unwrap().value.completed, 40);
}

#[tokio::test]
async fn a_submission_that_meets_the_end_of_its_step_does_not_run_it_again() {
    let world = world().await;
    let store = world.store();
    let new = numbered(1);
    submit(&store, new.clone()).await;
    let claim = claim_as(&store, "w", 1).await.remove(0);
    // The end is written and not yet committed when the same submission comes again.
    let mut other = client().await;
    let tx = other.transaction().await.unwrap();
    let report = tl_fleet::Finish { key: claim.key, outcome: completed("1") };
    world.store.finish_in(&tx, &report).await.unwrap();
    let again = {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.submit(vec![new]).await.unwrap().value.remove(0) })
    };
    let waits = "SELECT EXISTS (SELECT FROM pg_stat_activity
                                WHERE wait_event_type = 'Lock' AND query LIKE '%\"' || $1 || '\".%')";
    while !world.client.query_one(waits, &[&world.schema]).await.unwrap().get::<_, bool>(0) {
        tokio::task::yield_now().await;
    }
    tx.commit().await.unwrap();
    let again = again.await.unwrap();
    assert_eq!((again.deduped, again.state), (true, tl_fleet::StepState::Completed));
    assert_eq!(claim_as(&store, "w", 1).await, []);
}

#[tokio::test]
async fn another_process_is_told_of_new_work() {
    let (options, _) = fresh_options();
    let one = PostgresStore::open(options.clone()).await.unwrap();
    let other = PostgresStore::open(options).await.unwrap();
    let mut wakes = other.wakes();
    wakes.mark_unchanged();
    // The hint may be lost while the listener is still connecting: so does a producer go on.
    loop {
        one.submit(vec![numbered(1)]).await.unwrap();
        let told = tokio::time::timeout(std::time::Duration::from_millis(200), wakes.changed());
        if told.await.is_ok() {
            break;
        }
    }
}

#[tokio::test]
async fn finished_rows_are_none_of_a_claims_business() {
    let world = world().await;
    let store = world.store();
    let fill = format!(
        "INSERT INTO {0}.fleet_finished (seq, id, kind, state, priority, run_at, attempt, charged,
             attempts_max, cancel_asked, created_at, updated_at, finished_at, args, metadata)
         SELECT nextval('{0}.fleet_seq'), gen_random_uuid(), 'work', 3, 0, 0, 1, 0, 4, false, 0, 0,
                n, '{{}}', '{{}}' FROM generate_series(1, 20000) AS n",
        world.schema
    );
    world.client.batch_execute(&fill).await.unwrap();
    store.submit((0..50).map(numbered).collect()).await.unwrap();
    // Blocks of tables and indexes that were looked at, by the server's own count.
    let looked = format!(
        "SELECT sum(coalesce(seq_scan, 0) + coalesce(idx_scan, 0))::bigint FROM pg_stat_user_tables
         WHERE schemaname = '{}' AND relname LIKE 'fleet_finished%'",
        world.schema
    );
    let count = || async {
        world.client.batch_execute("SELECT pg_stat_force_next_flush()").await.unwrap();
        world.client.query_one(&looked, &[]).await.unwrap().get::<_, i64>(0)
    };
    let before = count().await;
    let claims = claim_as(&store, "w", 50).await;
    assert_eq!((claims.len(), count().await), (50, before));
}
