//! Tables come to be, and are held to their version.

use tl_fleet::postgres::{PostgresOptions, PostgresStore, SCHEMA_VERSION, grants, migrate};
use tl_fleet::{Store, StoreError};

use super::{client, fresh_options, server};
use crate::conformance::{claim_one, completed, finish, info, numbered, submit};

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
    let life = store.register(info("p"), 30_000).await.unwrap();
    assert!(life.value.incarnation.0 > 0);
    let other = theirs.schema(&format!("{schema}_b")).unwrap();
    let refused = migrate(&other).await;
    assert!(matches!(refused, Err(StoreError::Refused { .. })), "{refused:?}");
}
