//! The thread that reads rows for nodes that are far behind. It may wait for a flush, or read
//! for long, so nothing else waits for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tl_store::OrderedStore;

use super::mailbox::Mailbox;
use super::{Mail, Shared};
use crate::node::{Aside, Input};

/// Work that waits; at most one piece for each transfer.
#[derive(Debug, Default)]
pub(crate) struct AsideBox {
    queue: Mailbox<Option<Aside>>,
    stopped: AtomicBool,
}

impl AsideBox {
    pub(crate) fn push(&self, aside: Aside) {
        self.queue.push(Some(aside));
    }

    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.queue.push(None);
    }
}

pub(crate) fn run<S: OrderedStore>(shared: &Shared<S>, asides: &AsideBox) {
    let mut batch = Vec::new();
    while !asides.stopped.load(Ordering::Relaxed) {
        asides.queue.take(&mut batch, Duration::from_secs(60));
        for aside in batch.drain(..).flatten() {
            if asides.stopped.load(Ordering::Relaxed) {
                return;
            }
            shared.mail.push(Mail::Input(Input::AsideDone(aside.run(&*shared.store))));
        }
    }
}
