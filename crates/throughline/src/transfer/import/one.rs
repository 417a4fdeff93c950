//! One session of an import: append; where the server says that something is there already,
//! compare and go on behind it.

use std::fmt;
use std::sync::atomic::Ordering;

use anyhow::Context;
use tl_client::{Client, ClientError, CreateSession, NewEvent, RetryPolicy};
use tokio::sync::mpsc;

use super::Done;
use crate::transfer::lines::{Positioned, SessionLine};
use crate::transfer::stored::{Compared, Stored};

/// What became of one session.
#[derive(Debug, Default)]
pub struct SessionOutcome {
    pub events: u64,
    pub appended: u64,
    pub already_there: u64,
    pub difference: Option<Difference>,
}

/// An event that is stored with other content than the file has.
#[derive(Debug, PartialEq, Eq)]
pub struct Difference {
    pub session: String,
    pub seq: u64,
    pub field: &'static str,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference { session, seq, field } = self;
        write!(f, "session {session} differs from the file: seq {seq}, member {field}")
    }
}

/// Refusals that mean "this position is taken": what is stored decides what to do.
const TAKEN: [&str; 3] = ["producer_seq_conflict", "producer_replay_conflict", "session_closed"];

/// Writes one session. A difference ends it without an error: other sessions go on.
pub async fn import_session(
    client: &Client,
    line: SessionLine,
    mut batches: mpsc::Receiver<Vec<Positioned>>,
    done: &Done,
) -> anyhow::Result<SessionOutcome> {
    let id = line.id.clone();
    create(client, &line).await.with_context(|| format!("session {id}"))?;
    let mut session =
        OneSession { client, id: &id, stored: None, outcome: SessionOutcome::default() };
    while let Some(batch) = batches.recv().await {
        session.outcome.events += batch.len() as u64;
        let taken = session.take(&batch).await.with_context(|| format!("session {id}"))?;
        done.events.fetch_add(batch.len() as u64, Ordering::Relaxed);
        if let Taken::Different = taken {
            return Ok(session.outcome);
        }
    }
    let outcome = session.outcome;
    if line.archived {
        client.archive(&id).await.with_context(|| format!("session {id}"))?;
    }
    if line.state.as_deref() == Some("closed") {
        client.close(&id).await.with_context(|| format!("session {id}"))?;
    }
    Ok(outcome)
}

async fn create(client: &Client, line: &SessionLine) -> Result<(), ClientError> {
    let session = CreateSession {
        id: Some(line.id.clone()),
        title: line.title.clone(),
        metadata: line.metadata.clone(),
    };
    let mut attempts = RetryPolicy::default().start();
    while let Err(failure) = client.create_or_bind(&session).await {
        attempts.again(failure).await?;
    }
    Ok(())
}

enum Taken {
    All,
    Different,
}

struct OneSession<'a> {
    client: &'a Client,
    id: &'a str,
    /// Set once something was found to be there already.
    stored: Option<Stored>,
    outcome: SessionOutcome,
}

impl OneSession<'_> {
    async fn take(&mut self, batch: &[Positioned]) -> Result<Taken, ClientError> {
        let mut rest = batch;
        loop {
            while let Some((line, behind)) = rest.split_first() {
                let Some(stored) = &mut self.stored else { break };
                match stored.compare(line).await? {
                    Compared::Same => {
                        self.outcome.already_there += 1;
                        rest = behind;
                    }
                    Compared::Different { seq, field } => {
                        let session = self.id.to_owned();
                        self.outcome.difference = Some(Difference { session, seq, field });
                        return Ok(Taken::Different);
                    }
                    Compared::Absent => break,
                }
            }
            if rest.is_empty() {
                return Ok(Taken::All);
            }
            match self.append(rest).await {
                Ok(()) => return Ok(Taken::All),
                Err(ClientError::Refused(refusal))
                    if self.stored.is_none() && TAKEN.contains(&refusal.code.as_str()) =>
                {
                    self.stored = Some(Stored::new(self.client, self.id));
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    async fn append(&mut self, lines: &[Positioned]) -> Result<(), ClientError> {
        let events: Vec<(NewEvent, String, u64)> = lines
            .iter()
            .map(|line| (line.event.clone(), line.producer_id.clone(), line.producer_seq))
            .collect();
        let mut attempts = RetryPolicy::default().start();
        let mut repeated = false;
        let batch = loop {
            match self.client.append_positioned(self.id, &events).await {
                Ok(batch) => break batch,
                Err(failure) => attempts.again(failure).await?,
            }
            repeated = true;
        };
        // After an answer that was lost, `deduped` speaks of our own first attempt.
        if batch.deduped && !repeated {
            self.outcome.already_there += lines.len() as u64;
        } else {
            self.outcome.appended += lines.len() as u64;
        }
        Ok(())
    }
}
