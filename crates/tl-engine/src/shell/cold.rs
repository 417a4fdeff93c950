//! The thread that applies entries whose rows are not in memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tl_store::OrderedStore;

use super::mailbox::Mailbox;
use super::{Mail, Shared};
use crate::node::{Beside, Input};

/// Entries that wait for their rows; at most one per group.
#[derive(Debug, Default)]
pub(crate) struct ColdBox {
    queue: Mailbox<Option<Beside>>,
    stopped: AtomicBool,
}

impl ColdBox {
    pub(crate) fn push(&self, beside: Beside) {
        self.queue.push(Some(beside));
    }

    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.queue.push(None);
    }
}

pub(crate) fn run<S: OrderedStore>(shared: &Shared<S>, cold: &ColdBox) {
    let mut batch = Vec::new();
    while !cold.stopped.load(Ordering::Relaxed) {
        cold.queue.take(&mut batch, Duration::from_secs(60));
        for beside in batch.drain(..).flatten() {
            shared.metrics.entries_cold.inc();
            shared.mail.push(Mail::Input(Input::BesideDone(beside.run(&*shared.store))));
        }
    }
}
