//! Telling others that there may be work: a hint on a connection of its own, outside every
//! producer's transaction, and seldom. A commit that carries a NOTIFY takes a lock of the whole
//! instance, so producers carry none. Who misses a hint finds the work by polling.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio_postgres::AsyncMessage;

use super::options::PostgresOptions;

/// Shortest time between two hints of one process.
const HINT_EVERY: Duration = Duration::from_millis(20);
/// Wait before a lost connection is made again.
const AGAIN: Duration = Duration::from_secs(2);

/// Hints to and from the other processes, for as long as it lives.
#[derive(Debug)]
pub(super) struct Hints {
    ask: Arc<Notify>,
    task: AbortHandle,
}

impl Hints {
    pub(super) fn start(options: PostgresOptions, wakes: Arc<watch::Sender<u64>>) -> Hints {
        let ask = Arc::new(Notify::new());
        let task = tokio::spawn(keep(options, wakes, Arc::clone(&ask))).abort_handle();
        Hints { ask, task }
    }

    /// Something new may be claimed. Many of these are one hint.
    pub(super) fn send(&self) {
        self.ask.notify_one();
    }
}

impl Drop for Hints {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep(options: PostgresOptions, wakes: Arc<watch::Sender<u64>>, ask: Arc<Notify>) {
    loop {
        // How it ended does not matter: it was only a hint.
        drop(listen(&options, &wakes, &ask).await);
        tokio::time::sleep(AGAIN).await;
    }
}

async fn listen(
    options: &PostgresOptions,
    wakes: &watch::Sender<u64>,
    ask: &Notify,
) -> Result<(), tokio_postgres::Error> {
    let (client, mut connection) = options.config.connect(options.tls.clone()).await?;
    let channel = format!("fleet_{}", options.schema);
    let hear = async {
        loop {
            match poll_fn(|cx| connection.poll_message(cx)).await {
                Some(Ok(AsyncMessage::Notification(_))) => {
                    wakes.send_modify(|wake| *wake = wake.wrapping_add(1));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            }
        }
    };
    let say = async {
        // The channel's name is made of a plain name; see the options.
        client.batch_execute(&format!("LISTEN \"{channel}\"")).await?;
        let statement = client.prepare("SELECT pg_notify($1, '')").await?;
        loop {
            ask.notified().await;
            client.query(&statement, &[&channel]).await?;
            tokio::time::sleep(HINT_EVERY).await;
        }
    };
    tokio::select! {
        ended = hear => ended,
        ended = say => ended,
    }
}
