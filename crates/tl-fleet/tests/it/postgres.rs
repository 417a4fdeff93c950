//! The Postgres store over a real Postgres: the conformance suite by a clock that is moved by
//! hand, and what is its own.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tl_fleet::Store;
use tl_fleet::postgres::{PostgresOptions, PostgresStore};
use tokio_postgres::{Client, NoTls};

use crate::conformance::World;

mod lanes;
mod migrate;
mod own_transaction;
mod proxy;
mod races;
mod retain;
pub mod server;
mod tls;
mod trouble;

/// A schema of its own, whose clock stands still.
pub struct PostgresWorld {
    pub schema: String,
    pub client: Client,
    pub store: Arc<PostgresStore>,
}

pub fn fresh_options() -> (PostgresOptions, String) {
    static SCHEMAS: AtomicUsize = AtomicUsize::new(0);
    let schema = format!("test_{}", SCHEMAS.fetch_add(1, Ordering::Relaxed));
    let options = PostgresOptions::parse(&server::server().url()).unwrap();
    (options.schema(&schema).unwrap(), schema)
}

pub async fn client() -> Client {
    let url = server::server().url();
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

pub async fn world() -> PostgresWorld {
    let (options, schema) = fresh_options();
    let store = Arc::new(PostgresStore::open(options).await.unwrap());
    let client = client().await;
    // The clock is one function of the schema, so a test can put its own in its place.
    client
        .batch_execute(&format!(
            "CREATE TABLE {schema}.clock AS SELECT 1800000000000::bigint AS now;
             CREATE OR REPLACE FUNCTION {schema}.fleet_clock() RETURNS bigint LANGUAGE sql VOLATILE
               AS 'SELECT now FROM {schema}.clock'"
        ))
        .await
        .unwrap();
    PostgresWorld { schema, client, store }
}

impl World for PostgresWorld {
    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store) as Arc<dyn Store>
    }

    fn pass(&self, ms: u64) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let later = format!("UPDATE {}.clock SET now = now + {ms}", self.schema);
        Box::pin(async move { self.client.batch_execute(&later).await.unwrap() })
    }
}

mod suite {
    crate::conformance!(crate::postgres::world);
}
