//! The stored events of a session, read forward and held against lines of a file.

use std::collections::VecDeque;
use std::time::Duration;

use tl_client::{Client, ClientError, Event, NewEvent, RetryPolicy};
use tl_types::Seq;
use tl_types::limits::PAGE_MAX;

use super::lines::Positioned;

/// How a line compares to what is stored.
#[derive(Debug, PartialEq, Eq)]
pub enum Compared {
    /// It is stored with the same content.
    Same,
    /// It is stored at `seq` and differs in this member.
    Different { seq: u64, field: &'static str },
    /// It is not stored behind the lines compared before.
    Absent,
}

/// A reader that only moves forward: lines stand in the store in the order of the file, with
/// other producers' events between them.
pub struct Stored {
    client: Client,
    session: String,
    cursor: Seq,
    page: VecDeque<Event>,
    at_end: bool,
}

impl Stored {
    pub fn new(client: &Client, session: &str) -> Stored {
        Stored {
            client: client.clone(),
            session: session.to_owned(),
            cursor: Seq(0),
            page: VecDeque::new(),
            at_end: false,
        }
    }

    /// Looks for the line's producer position behind everything looked at before.
    ///
    /// # Errors
    /// [`ClientError`] when the session cannot be read.
    pub async fn compare(&mut self, line: &Positioned) -> Result<Compared, ClientError> {
        while let Some(event) = self.next().await? {
            if *event.producer_id != *line.producer_id || event.producer_seq != line.producer_seq {
                continue;
            }
            let stored = NewEvent::from_event(&event).map_err(|e| ClientError::Unexpected {
                url: format!("session {}", self.session),
                what: format!("event {}: {e}", event.seq),
            })?;
            return Ok(match stored.difference(&line.event) {
                Some(field) => Compared::Different { seq: event.seq.0, field },
                None => Compared::Same,
            });
        }
        Ok(Compared::Absent)
    }

    async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        if self.page.is_empty() && !self.at_end {
            let mut attempts = RetryPolicy::default().start();
            let page = loop {
                let (limit, wait) = (PAGE_MAX as u32, Duration::ZERO);
                match self.client.events(&self.session, self.cursor, limit, wait).await {
                    Ok(page) => break page,
                    Err(failure) => attempts.again(failure).await?,
                }
            };
            self.at_end = page.up_to_date || page.next_cursor <= self.cursor;
            self.cursor = page.next_cursor;
            self.page = page.events.into();
        }
        Ok(self.page.pop_front())
    }
}
