//! The one checker: what was acknowledged against what readers saw.
//!
//! A [`Ledger`] holds every write that was attempted, with its producer position and content
//! hash, and the position it was given if it was acknowledged. Readings are what readers saw, in
//! the order in which they saw it. The [`Checker`] holds one against the other:
//!
//!  - an acknowledged event is there, once, at its position, with its content;
//!  - an event that was attempted and not acknowledged is there at most once;
//!  - an event that nobody attempted is not there;
//!  - positions run from 1 without a hole, and each producer's events stand in its own order;
//!  - a batch is there as a whole, side by side, or not at all;
//!  - all readers saw the same event at the same position.

mod checker;
mod ledger;

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tl_types::Seq;
use tl_types::limits::PAGE_MAX;

pub use checker::{Checker, Finding, FindingKind, Report};
pub use ledger::{Ledger, LedgerWrite, Reading, Sighting};

use crate::client::Client;
use crate::error::ClientError;
use crate::retry::RetryPolicy;
use crate::tail::{Front, TailItem, TailOptions};

/// Sessions read at the same time.
const SESSIONS_READ_MAX: usize = 16;

/// How the sessions are read for a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// Pages, until one says that it is up to date.
    Pages,
    /// A tail from the start up to the session's last event.
    Tail(Front),
}

/// Reads every session of the ledger from the start and holds it against the ledger.
///
/// # Errors
/// [`ClientError`] when a session cannot be read; that says nothing about its events.
pub async fn check(client: &Client, ledger: &Ledger) -> Result<Report, ClientError> {
    check_via(client, ledger, Via::Pages).await
}

/// As [`check`], with a choice of how to read.
///
/// # Errors
/// As [`check`].
pub async fn check_via(client: &Client, ledger: &Ledger, via: Via) -> Result<Report, ClientError> {
    let mut checker = Checker::new(ledger);
    let sessions = checker.sessions();
    let mut readings = futures_util::stream::iter(sessions)
        .map(|session| read_all(client, session, via))
        .buffer_unordered(SESSIONS_READ_MAX);
    while let Some(reading) = readings.next().await {
        checker.complete(&reading?);
    }
    Ok(checker.report())
}

/// Reads one session from its first event to its last one.
///
/// # Errors
/// [`ClientError`] when it cannot be read.
pub async fn read_all(
    client: &Client,
    session: Arc<str>,
    via: Via,
) -> Result<Reading, ClientError> {
    match via {
        Via::Pages => read_pages(client, session).await,
        Via::Tail(front) => read_tail(client, session, front).await,
    }
}

async fn read_pages(client: &Client, session: Arc<str>) -> Result<Reading, ClientError> {
    let mut reading = Reading::new(session.clone());
    let mut cursor = Seq(0);
    loop {
        let mut attempts = RetryPolicy::default().start();
        let page = loop {
            let page = client.events(&session, cursor, PAGE_MAX as u32, Duration::ZERO);
            match page.await {
                Ok(page) => break page,
                Err(failure) => attempts.again(failure).await?,
            }
        };
        for event in &page.events {
            reading.saw(event)?;
        }
        // A page that brings nothing and claims more would be read for ever.
        if page.up_to_date || page.next_cursor <= cursor {
            return Ok(reading);
        }
        cursor = page.next_cursor;
    }
}

async fn read_tail(
    client: &Client,
    session: Arc<str>,
    front: Front,
) -> Result<Reading, ClientError> {
    let last = Seq(client.get(&session).await?.last_seq);
    let options = TailOptions { front, ..TailOptions::default() };
    let mut tail = client.tail(&session, Seq(0), options);
    let mut reading = Reading::new(session.clone());
    while tail.cursor() < last {
        match tail.next().await? {
            Some(TailItem::Event(event)) => reading.saw(&event)?,
            // The hole it leaves is found by the checker.
            Some(TailItem::Gap(_)) => {}
            None => break,
        }
    }
    Ok(reading)
}
