//! The thread that reads entries back from the log for followers that lack what memory has let go.
//! What waits is read in one go over the log's segments.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tl_raft::Fetch;
use tl_wal::Reader;

use super::log::LogBox;
use super::mailbox::Mailbox;
use super::{Mail, Shared};
use crate::node::{Input, fetch};

/// What is to be read; the driver has a limit for that.
#[derive(Debug, Default)]
pub(crate) struct FeedBox {
    queue: Mailbox<Option<Fetch>>,
    stopped: AtomicBool,
}

impl FeedBox {
    pub(crate) fn push(&self, fetch: Fetch) {
        self.queue.push(Some(fetch));
    }

    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.queue.push(None);
    }
}

pub(crate) fn run<S>(shared: &Shared<S>, log: &LogBox, feeds: &FeedBox) {
    let (mut batch, mut reader) = (Vec::new(), Reader::default());
    while !feeds.stopped.load(Ordering::Relaxed) {
        feeds.queue.take(&mut batch, Duration::from_secs(60));
        let fetches: Vec<Fetch> = batch.drain(..).flatten().collect();
        if fetches.is_empty() {
            continue;
        }
        for fetched in fetch(fetches, &mut reader, |wants| log.segments_with(wants)) {
            shared.mail.push(Mail::Input(Input::Fetched(fetched)));
        }
    }
}
