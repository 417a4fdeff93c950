//! Tables come to be, and are held to their version.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tl_fleet::postgres::{PostgresOptions, PostgresStore, SCHEMA_VERSION, grants, migrate};
use tl_fleet::{
    LeaderWrite, Leadership, NewStep, PodLife, Redriven, Retention, StepId, StepState, Store,
    StoreError, Unique, UniqueUntil,
};
use tokio_postgres::Row;
use uuid::Uuid;

use super::{client, fresh_options, server};
use crate::conformance::{
    LEASE_MS, claim_as, claim_one, completed, finish, info, numbered, pod, state, submit,
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
    let store = Arc::new(PostgresStore::open(theirs.clone()).await.unwrap());
    let face: Arc<dyn Store> = store.clone();
    submit(&face, numbered(1)).await;
    let claim = claim_one(&face).await;
    finish(&face, claim.key, completed("1")).await;
    retain(&face).await;
    let other = theirs.schema(&format!("{schema}_b")).unwrap();
    let refused = migrate(&other).await;
    assert!(matches!(refused, Err(StoreError::Refused { .. })), "{refused:?}");
}

/// As a leader.
async fn retain(store: &Arc<dyn Store>) {
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
    let store: Arc<dyn Store> = Arc::new(store);
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

#[tokio::test]
async fn functions_of_a_smaller_number_are_made_anew_and_those_of_a_larger_one_stay() {
    let (options, schema) = fresh_options();
    migrate(&options).await.unwrap();
    let owner = client().await;
    let look = format!("SELECT value FROM {schema}.fleet_meta WHERE name = 'functions'");
    let noted = async || owner.query_one(&look, &[]).await.unwrap().get::<_, String>(0);
    let ours = noted().await;
    let number = ours.split(' ').next().unwrap().to_owned();
    let cases = [
        (ours.clone(), false),
        (format!("{number} feed"), true),
        ("0 feed".to_owned(), true),
        ("nonsense".to_owned(), true),
        ("9999 feed".to_owned(), false),
    ];
    for (found, is_remade) in cases {
        let spoil = format!(
            "CREATE OR REPLACE FUNCTION {schema}.fleet_clock() RETURNS bigint LANGUAGE sql VOLATILE
               AS 'SELECT 7::bigint';
             UPDATE {schema}.fleet_meta SET value = '{found}' WHERE name = 'functions'"
        );
        owner.batch_execute(&spoil).await.unwrap();
        migrate(&options).await.unwrap();
        let clock = format!("SELECT {schema}.fleet_clock()");
        let clock: i64 = owner.query_one(&clock, &[]).await.unwrap().get(0);
        assert_eq!(clock != 7, is_remade, "{found}");
        assert_eq!(noted().await, if is_remade { ours.clone() } else { found });
    }
    // A role that may not make them works with those that are there.
    let role = format!("worker_{schema}");
    let script = grants(&options).replace(":\"role\"", &role);
    let older = format!(
        "CREATE ROLE {role} LOGIN; {script};
         UPDATE {schema}.fleet_meta SET value = '0 feed' WHERE name = 'functions'"
    );
    owner.batch_execute(&older).await.unwrap();
    let url = server::server().url().replace("user=postgres", &format!("user={role}"));
    let theirs = PostgresOptions::parse(&url).unwrap().schema(&schema).unwrap();
    PostgresStore::open(theirs).await.unwrap().ping().await.unwrap();
    assert_eq!(noted().await, "0 feed");
}

/// What a pod of the first version had done when it was told to end.
#[derive(Default)]
struct Done {
    submitted: Vec<Uuid>,
    completed: Vec<Uuid>,
}

/// Submits, claims and reports by the functions of the first version. Claims end when that
/// function is gone.
async fn work_as_the_first_version(
    schema: String,
    reported: Arc<AtomicUsize>,
    ends: Arc<AtomicBool>,
) -> Done {
    let client = client().await;
    let submit = format!("SELECT {schema}.fleet_submit('work')");
    let claim = format!(
        "SELECT id, token FROM {schema}.fleet_claim('w', NULL, ARRAY['work'], 1, 60000, 9, 999999)
         WHERE id IS NOT NULL"
    );
    let report = format!(
        "SELECT state FROM {schema}.fleet_finish(ARRAY[$1::uuid], ARRAY[$2::uuid], ARRAY[1::smallint],
                                                 ARRAY['1'], ARRAY[0::bigint])
         WHERE item IS NOT NULL"
    );
    let mut done = Done::default();
    while !ends.load(Ordering::SeqCst) {
        let Some(rows) = unless_migrated(client.query(&submit, &[]).await) else { continue };
        done.submitted.push(rows[0].get(0));
        let Some(rows) = unless_migrated(client.query(&claim, &[]).await) else { continue };
        for row in rows {
            let (id, token): (Uuid, Uuid) = (row.get(0), row.get(1));
            let ended = loop {
                if let Some(rows) = unless_migrated(client.query(&report, &[&id, &token]).await) {
                    break rows;
                }
            };
            assert_eq!(ended[0].get::<_, i16>(0), 3);
            done.completed.push(id);
            reported.fetch_add(1, Ordering::SeqCst);
        }
    }
    done
}

/// Nothing when the tables or functions have just become others, or somebody had to give way.
fn unless_migrated(answer: Result<Vec<Row>, tokio_postgres::Error>) -> Option<Vec<Row>> {
    match answer {
        Ok(rows) => Some(rows),
        Err(error) => {
            let passes = ["42883", "0A000", "40P01"];
            let code = error.code().map_or("", |code| code.code());
            assert!(passes.contains(&code), "{error:?}");
            None
        }
    }
}

#[tokio::test]
async fn many_pods_bring_up_the_first_version_at_once_while_others_work_with_it() {
    let (options, schema) = fresh_options();
    let owner = client().await;
    let first = include_str!("version_1.sql").replace('@', &format!("{schema}."));
    let make = format!(
        "CREATE SCHEMA {schema}; {first};
         INSERT INTO {schema}.fleet_meta VALUES ('schema_version', '1')"
    );
    owner.batch_execute(&make).await.unwrap();
    let (reported, ends) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let (reported, ends) = (Arc::clone(&reported), Arc::clone(&ends));
            tokio::spawn(work_as_the_first_version(schema.clone(), reported, ends))
        })
        .collect();
    while reported.load(Ordering::SeqCst) < 20 {
        tokio::task::yield_now().await;
    }
    let pods: Vec<_> = (0..6).map(|_| tokio::spawn(PostgresStore::open(options.clone()))).collect();
    for pod in pods {
        pod.await.unwrap().unwrap().ping().await.unwrap();
    }
    ends.store(true, Ordering::SeqCst);
    let mut all = Done::default();
    for worker in workers {
        let done = worker.await.unwrap();
        all.submitted.extend(done.submitted);
        all.completed.extend(done.completed);
    }
    // Every step is in one of the tables, once; what was reported is completed.
    let count = format!(
        "SELECT count(*) FROM (SELECT id FROM {schema}.fleet_steps
           UNION ALL SELECT id FROM {schema}.fleet_finished) AS f WHERE id = ANY ($1)"
    );
    let there: i64 = owner.query_one(&count, &[&all.submitted]).await.unwrap().get(0);
    assert_eq!(there, i64::try_from(all.submitted.len()).unwrap());
    let count =
        format!("SELECT count(*) FROM {schema}.fleet_finished WHERE id = ANY ($1) AND state = 3");
    let there: i64 = owner.query_one(&count, &[&all.completed]).await.unwrap().get(0);
    assert_eq!(there, i64::try_from(all.completed.len()).unwrap());
    // And the rest is worked off by this version.
    let store: Arc<dyn Store> = Arc::new(PostgresStore::open(options).await.unwrap());
    loop {
        let claims = claim_as(&store, "w", 100).await;
        if claims.is_empty() {
            break;
        }
        for claim in claims {
            finish(&store, claim.key, completed("1")).await;
        }
    }
    let counts = store.counts().await.unwrap().value;
    let submitted = all.submitted.len() as u64;
    assert_eq!((counts.completed, counts.pending, counts.claimed), (submitted, 0, 0));
}
