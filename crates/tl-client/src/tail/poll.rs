//! The long-poll front: pages of `GET …/events`, held open by the server while nothing is new.

use std::time::Duration;

use tl_types::Seq;

use super::{Chunk, EndReason, TailOptions};
use crate::client::Client;
use crate::error::ClientError;

pub(super) struct Poll {
    client: Client,
    session: String,
    cursor: Seq,
    batch_size: u32,
    wait: Duration,
}

impl Poll {
    pub(super) fn new(client: &Client, session: &str, cursor: Seq, options: &TailOptions) -> Poll {
        Poll {
            client: client.clone(),
            session: session.to_owned(),
            cursor,
            batch_size: options.batch_size,
            wait: options.poll_wait,
        }
    }

    pub(super) async fn step(&mut self) -> Result<Chunk, ClientError> {
        let page =
            self.client.events(&self.session, self.cursor, self.batch_size, self.wait).await?;
        if !page.events.is_empty() {
            self.cursor = page.next_cursor;
            return Ok(Chunk::Events(page.events));
        }
        // A page does not say that the session is closed. An empty one is rare (one per wait), so
        // the row is asked for then: closed, and nothing behind the cursor, is the end.
        let row = self.client.get(&self.session).await?;
        let at_end = row.last_seq <= self.cursor.0;
        match row.state.as_str() {
            "closed" if at_end => Ok(Chunk::End(EndReason::Closed)),
            _ => Ok(Chunk::Alive),
        }
    }
}
