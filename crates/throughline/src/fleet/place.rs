//! Opening the shared database.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tl_core::fleet::BreakerSettings;
use tl_fleet::postgres::PostgresStore;
use tl_fleet::sqlite::{SqliteOptions, SqliteStore};
use tl_fleet::{FleetService, Guard, Store, StoreError};

use super::PlaceArgs;
use super::settings::{FleetSettings, LOOK, Place};
use crate::failure::Failure;

/// Shortest and longest wait between tries of a pod to reach its database at the start.
const AGAIN: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// A fleet for a word that only looks or changes: the tables must be there.
pub async fn open(place: PlaceArgs) -> anyhow::Result<FleetService> {
    let settings = FleetSettings::of_process(place.flags())?;
    let store: Arc<dyn Store> = match settings.place {
        Place::Sqlite(path) => {
            if !path.is_file() {
                return Err(Failure::WithAdvice {
                    what: format!("there is no fleet at {}", path.display()),
                    advice: "start one with `tl fleet run`, go to the folder where it runs, or \
                             name its file with --db"
                        .to_owned(),
                }
                .into());
            }
            let opened = SqliteStore::open_aside(SqliteOptions::new(&path)).await;
            Arc::new(opened.with_context(|| format!("opening {}", path.display()))?)
        }
        Place::Postgres(options) => {
            let opened = PostgresStore::open(options.without_migration()).await;
            Arc::new(opened.context("opening the fleet in Postgres")?)
        }
    };
    Ok(alone(store))
}

/// A fleet without a pod.
pub fn alone(store: Arc<dyn Store>) -> FleetService {
    let call_ms = u64::try_from(LOOK.as_millis()).expect("seconds fit");
    FleetService::alone(Arc::new(Guard::new(store, BreakerSettings::default(), call_ms)))
}

/// The store of a pod; makes what is not there.
///
/// # Errors
/// [`StoreError`]; `Unavailable` may be over soon.
pub async fn make(place: &Place) -> Result<Arc<dyn Store>, StoreError> {
    match place {
        Place::Sqlite(path) => {
            make_folder(path)?;
            Ok(Arc::new(SqliteStore::open_aside(SqliteOptions::new(path)).await?))
        }
        Place::Postgres(options) => Ok(Arc::new(PostgresStore::open((**options).clone()).await?)),
    }
}

fn make_folder(path: &Path) -> Result<(), StoreError> {
    let refused = |error: std::io::Error| StoreError::Refused { source: Arc::new(error) };
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => {
            std::fs::create_dir_all(folder).map_err(refused)
        }
        _ => Ok(()),
    }
}

/// The store of a pod, once the database answers: a pod that starts in an outage waits for its
/// end as one that runs does, and says why it waits.
///
/// # Errors
/// [`StoreError`] that waiting does not mend.
pub async fn wait_for(
    place: &Place,
    waits: impl Fn(&StoreError),
) -> Result<Arc<dyn Store>, StoreError> {
    let (mut pause, longest) = AGAIN;
    loop {
        match make(place).await {
            Err(error @ (StoreError::Unavailable { .. } | StoreError::OutcomeUnknown { .. })) => {
                waits(&error);
                let error = anyhow::Error::from(error);
                tracing::warn!(error = format!("{error:#}"), "waiting for the database");
            }
            opened => return opened,
        }
        tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        pause = (pause * 2).min(longest);
    }
}
