//! Submissions and completions inside a transaction of the caller.

use tl_fleet::{Finish, Finished, NewStep, StepId, StepState, Store};
use uuid::Uuid;

use super::{client, world};
use crate::conformance::{
    World, claim_as, claim_one, completed, kind, numbered, recover, state, step,
};

#[tokio::test]
async fn a_submission_is_there_if_and_only_if_the_caller_commits() {
    let world = world().await;
    let mut other = client().await;
    for commits in [false, true] {
        let new = numbered(1);
        let tx = other.transaction().await.unwrap();
        let submitted = world.store.submit_in(&tx, std::slice::from_ref(&new)).await.unwrap();
        assert_eq!((submitted[0].id, submitted[0].deduped), (new.id, false));
        if commits {
            tx.commit().await.unwrap();
        } else {
            tx.rollback().await.unwrap();
        }
        let there = world.store.steps(vec![new.id]).await.unwrap().value[0].is_some();
        assert_eq!(there, commits);
    }
}

#[tokio::test]
async fn a_handlers_rows_and_its_completion_are_there_together_or_not_at_all() {
    let world = world().await;
    let mut other = client().await;
    let store = world.store();
    store.submit(vec![numbered(1)]).await.unwrap();
    let claim = claim_one(&store).await;
    let mine = format!("{}.mine", world.schema);
    other.batch_execute(&format!("CREATE TABLE {mine} (n integer)")).await.unwrap();
    let report = Finish { key: claim.key, outcome: completed("1") };

    let tx = other.transaction().await.unwrap();
    tx.batch_execute(&format!("INSERT INTO {mine} VALUES (1)")).await.unwrap();
    let ended = world.store.finish_in(&tx, &report).await.unwrap();
    assert_eq!(ended, Finished::Now(StepState::Completed));
    tx.rollback().await.unwrap();
    assert_eq!(state(&store, claim.key.id).await, StepState::Claimed);

    world.pass(crate::conformance::LEASE_MS).await;
    recover(&store).await;
    let tx = other.transaction().await.unwrap();
    assert_eq!(world.store.finish_in(&tx, &report).await.unwrap(), Finished::Fenced);
    tx.rollback().await.unwrap();

    let claim = claim_one(&store).await;
    let report = Finish { key: claim.key, outcome: completed("1") };
    let tx = other.transaction().await.unwrap();
    tx.batch_execute(&format!("INSERT INTO {mine} VALUES (1)")).await.unwrap();
    world.store.finish_in(&tx, &report).await.unwrap();
    tx.commit().await.unwrap();
    let rows = other.query(&format!("SELECT n FROM {mine}"), &[]).await.unwrap();
    assert_eq!((rows.len(), state(&store, claim.key.id).await), (1, StepState::Completed));
}

#[tokio::test]
async fn any_program_submits_by_the_sql_function() {
    let world = world().await;
    let store = world.store();
    let sql = format!(
        "SELECT {0}.fleet_submit('work', '{{\"n\": 1}}', priority => 3, max_retries => 1,
            delay_ms => 5000, unique_key => 'k', unique_until => 'finished'),
         {0}.fleet_submit('work', unique_key => 'k')",
        world.schema
    );
    let row = world.client.query_one(&sql, &[]).await.unwrap();
    let (id, twin) = (StepId(row.get::<_, Uuid>(0)), StepId(row.get(1)));
    assert_eq!(id, twin, "a key that is held is answered with the step that holds it");
    assert_eq!(id.0.get_version_num(), 7);
    let found = step(&store, id).await;
    assert_eq!((found.args.as_str(), found.priority), (r#"{"n": 1}"#, 3));
    assert_eq!((found.attempts_max, found.state), (2, StepState::Scheduled));
    world.pass(5_000).await;
    assert_eq!(claim_as(&store, "w", 9).await.len(), 1);

    // What it refuses is what every submission refuses, at the limit and one past it.
    let largest = 1_048_576 - NewStep::new(kind("w")).payload_bytes() + 2;
    let args = |bytes: usize| format!("'{{\"a\":\"{}\"}}'", "x".repeat(bytes - 8));
    let calls = [
        (format!("'w', {}", args(largest)), true),
        (format!("'w', {}", args(largest + 1)), false),
        ("'a b'".to_owned(), false),
        ("''".to_owned(), false),
        (format!("'{}'", "k".repeat(128)), true),
        (format!("'{}'", "k".repeat(129)), false),
        ("'w', '[]'".to_owned(), false),
        ("'w', '{\"a\":'".to_owned(), false),
        ("'w', '{}', '1'".to_owned(), false),
        ("'w', max_retries => 10".to_owned(), true),
        ("'w', max_retries => 11".to_owned(), false),
        ("'w', max_retries => -1".to_owned(), false),
        ("'w', priority => 1000001".to_owned(), false),
        ("'w', delay_ms => 31622400001".to_owned(), false),
        ("'w', timeout_ms => 0".to_owned(), false),
        ("'w', unique_key => ''".to_owned(), false),
        ("'w', unique_key => 'x', unique_until => 'noon'".to_owned(), false),
    ];
    for (arguments, fine) in calls {
        let sql = format!("SELECT {}.fleet_submit({arguments})", world.schema);
        let answer = world.client.query_one(&sql, &[]).await;
        let shown: String = arguments.chars().take(60).collect();
        assert_eq!(answer.is_ok(), fine, "{shown}: {answer:?}");
    }
}
