//! Answers on their way from the driver thread to waiting requests: one wake per batch.
//!
//! Sending straight from the driver thread would wake a worker of the runtime per request; one
//! task inside the runtime hands out a whole batch instead, and its wakes stay inside.

use std::sync::Arc;

use parking_lot::Mutex;
use tl_core::Reply;
use tl_types::Index;
use tokio::sync::{Notify, oneshot};

use super::Shared;
use super::admission::Permit;
use crate::hub::ReplyGuards;
use crate::metrics::Stage;
use crate::node::Failure;

/// What a request is told.
#[derive(Debug)]
pub enum Answer {
    /// Its entry was applied.
    Applied {
        /// Where.
        index: Index,
        /// What the rules said.
        replies: Vec<Reply>,
        /// Hold the entry's events back from tails until the reply is written.
        guards: ReplyGuards,
    },
    /// Rows up to here may be read.
    Read {
        /// What is applied.
        index: Index,
    },
    /// It was not done, or nobody knows.
    Failed(Failure),
}

/// An answer with its receiver.
#[derive(Debug)]
pub(crate) struct Addressed {
    pub(crate) to: oneshot::Sender<Answer>,
    pub(crate) answer: Answer,
    pub(crate) permit: Option<Permit>,
}

/// The batch that waits to be handed out.
#[derive(Debug, Default)]
pub struct Answers {
    batch: Mutex<Batch>,
    bell: Notify,
}

#[derive(Debug, Default)]
struct Batch {
    addressed: Vec<Addressed>,
    closed: bool,
}

impl Answers {
    /// Adds a turn's answers; `answers` is emptied.
    pub(crate) fn send(&self, answers: &mut Vec<Addressed>) {
        if answers.is_empty() {
            return;
        }
        self.batch.lock().addressed.append(answers);
        self.bell.notify_one();
    }

    /// Nothing more will come.
    pub(crate) fn close(&self) {
        self.batch.lock().closed = true;
        self.bell.notify_one();
    }
}

/// Hands out answers until the box is closed and empty.
pub(crate) async fn deliver<S>(shared: Arc<Shared<S>>) {
    loop {
        let (batch, closed) = {
            let mut batch = shared.answers.batch.lock();
            (std::mem::take(&mut batch.addressed), batch.closed)
        };
        if batch.is_empty() {
            if closed {
                return;
            }
            shared.answers.bell.notified().await;
            continue;
        }
        for mut addressed in batch {
            if let Some(permit) = &mut addressed.permit {
                permit.pass(Stage::Reply);
            }
            drop(addressed.permit);
            // Nobody waits any more: dropping the answer lets its events be seen.
            drop(addressed.to.send(addressed.answer));
        }
    }
}
