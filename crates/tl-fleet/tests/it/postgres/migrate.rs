//! Tables come to be, and are held to their version.

use tl_fleet::postgres::{PostgresOptions, PostgresStore, SCHEMA_VERSION, grants, migrate};
use tl_fleet::{
    LeaderWrite, Leadership, NewStep, PodLife, Redriven, Retention, StepId, StepState, Store,
    StoreError, Unique, UniqueUntil,
};
use uuid::Uuid;

use super::{client, fresh_options, server};
use crate::conformance::{
    LEASE_MS, claim_one, completed, finish, info, numbered, pod, state, submit,
};

#[tokio::test]
async fn many_pods_may_migrate_at_once() {
    let (options, schema) = fresh_options();
    let pods: Vec<_> = (0..8).map(|_| tokio::spawn(PostgresStore::open(options.clone()))).collect();
    for pod in pods {
        pod.await.unwrap().unwrap().ping().await.unwrap();
    }
    let sql = format!("SELECT value FROM {schema}.fleet_meta WHERE name = 'schema_version'");
    let rows = client().await.query(&sql, &[]).await.unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].get::<_, String>(0), SCHEMA_VERSION.to_string());
}

#[tokio::test]
async fn tables_of_another_version_are_refused_also_while_running() {
    let (options, schema) = fresh_options();
    let refused = PostgresStore::open(options.clone().without_migration()).await;
    assert!(matches!(refused, Err(StoreError::Schema { found: 0, wanted: SCHEMA_VERSION })));
    let store = PostgresStore::open(options.clone()).await.unwrap();
    let newer = format!("UPDATE {schema}.fleet_meta SET value = '99'");
    client().await.batch_execute(&newer).await.unwrap();
    for refused in [PostgresStore::open(options.clone()).await.map(drop), migrate(&options).await] {
        assert!(matches!(refused, Err(StoreError::Schema { found: 99, .. })), "{refused:?}");
    }
    // A connection that is made anew looks again.
    let apart = store.apart().await.map(drop);
    assert!(matches!(apart, Err(StoreError::Schema { found: 99, .. })), "{apart:?}");
    let older = format!("DROP SCHEMA {schema} CASCADE");
    client().await.batch_execute(&older).await.unwrap();
    let gone = store.counts().await;
    assert!(matches!(gone, Err(StoreError::Schema { found: 0, .. })), "{gone:?}");
}

#[tokio::test]
async fn a_role_with_the_grants_alone_can_do_the_work_and_make_nothing() {
    let (options, schema) = fresh_options();
    migrate(&options).await.unwrap();
    let owner = client().await;
    let role = format!("worker_{schema}");
    owner.batch_execute(&format!("CREATE ROLE {role} LOGIN")).await.unwrap();
    let script = grants(&options).replace(":\"role\"", &role);
    owner.batch_execute(&script).await.unwrap();

    let url = server::server().url().replace("user=postgres", &format!("user={role}"));
    let theirs = PostgresOptions::parse(&url).unwrap().schema(&schema).unwrap();
    let store = std::sync::Arc::new(PostgresStore::open(theirs.clone()).await.unwrap());
    let face: std::sync::Arc<dyn Store> = store.clone();
    submit(&face, numbered(1)).await;
    let claim = claim_one(&face).await;
    finish(&face, claim.key, completed("1")).await;
    retain(&face).await;
    let other = theirs.schema(&format!("{schema}_b")).unwrap();
    let refused = migrate(&other).await;
    assert!(matches!(refused, Err(StoreError::Refused { .. })), "{refused:?}");
}

/// As a leader.
async fn retain(store: &std::sync::Arc<dyn Store>) {
    let registered = store.register(info("p"), LEASE_MS).await.unwrap().value;
    let life = PodLife { pod: pod("p"), incarnation: registered.incarnation };
    let led = store.lead(life, LEASE_MS).await.unwrap().value;
    let Leadership::Led { epoch, .. } = led else { panic!("nobody else leads") };
    let keep =
        Retention { finished_ms: 60_000, dead_ms: 60_000, pods_ms: 60_000, steps_max: 1_000 };
    let done = store.retain(epoch, keep).await.unwrap().value;
    assert!(matches!(done, LeaderWrite::Done(_)), "{done:?}");
}

#[tokio::test]
async fn tables_of_the_first_version_are_brought_up_with_all_they_hold() {
    let (options, schema) = fresh_options();
    let owner = client().await;
    let role = format!("worker_{schema}");
    let first = include_str!("version_1.sql").replace('@', &format!("{schema}."));
    // Finished ones in each state, one that waits, and a role that could do the work.
    let fill = format!(
        "CREATE SCHEMA {schema}; {first};
         INSERT INTO {schema}.fleet_meta VALUES ('schema_version', '1');
         SELECT {schema}.fleet_submit('work', '{{\"n\": 1}}', unique_key => 'waits');
         INSERT INTO {schema}.fleet_finished (seq, id, kind, state, priority, run_at, attempt,
             charged, attempts_max, cancel_asked, created_at, updated_at, finished_at, args,
             metadata, unique_key, unique_until)
           SELECT nextval('{schema}.fleet_seq'), gen_random_uuid(), 'work', state, 0, 0, 1, 0, 4,
                  false, now, now, now, '{{}}', '{{}}', 'k' || state, 1
           FROM (SELECT {schema}.fleet_clock() AS now) AS clock, generate_series(3, 5) AS state;
         INSERT INTO {schema}.fleet_unique SELECT unique_key, id FROM {schema}.fleet_finished;
         INSERT INTO {schema}.fleet_totals VALUES (3, 1), (4, 1), (5, 1);
         CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA {schema} TO {role};
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role};
         GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO {role}"
    );
    owner.batch_execute(&fill).await.unwrap();
    let finished = format!("SELECT id FROM {schema}.fleet_finished ORDER BY state");
    let rows = owner.query(&finished, &[]).await.unwrap();
    let ids: Vec<StepId> = rows.iter().map(|row| StepId(row.get::<_, Uuid>(0))).collect();

    migrate(&options).await.unwrap();
    let url = server::server().url().replace("user=postgres", &format!("user={role}"));
    let theirs = PostgresOptions::parse(&url).unwrap().schema(&schema).unwrap();
    let store = PostgresStore::open(theirs.without_migration()).await.unwrap();
    let store: std::sync::Arc<dyn Store> = std::sync::Arc::new(store);
    let states = [StepState::Completed, StepState::Failed, StepState::Cancelled];
    for (id, stands) in ids.iter().zip(states) {
        assert_eq!(state(&store, *id).await, stands);
    }
    let counts = store.counts().await.unwrap().value;
    let of = (counts.pending, counts.completed, counts.failed, counts.cancelled);
    assert_eq!(of, (1, 1, 1, 1));
    let unique = Some(Unique { key: "k3".to_owned(), until: UniqueUntil::Forgotten });
    let again = store.submit(vec![NewStep { unique, ..numbered(3) }]).await.unwrap().value;
    assert_eq!((again[0].id, again[0].deduped), (ids[0], true));
    finish(&store, claim_one(&store).await.key, completed("1")).await;
    assert_eq!(store.redrive(ids[1..].to_vec()).await.unwrap().value, [Redriven::Now; 2]);
    retain(&store).await;
    assert_eq!(store.counts().await.unwrap().value.completed, 2);
}
