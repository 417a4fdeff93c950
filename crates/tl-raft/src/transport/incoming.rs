//! Connections from peers that stand, one per peer and lane: a newer one takes the older's place.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::hello::{Hello, Lane, Refusal, supersedes};
use crate::deeds::PeerId;

/// What stands.
#[derive(Default)]
pub(super) struct Incoming {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    standing: BTreeMap<(PeerId, Lane), Standing>,
    made: u64,
}

struct Standing {
    number: u64,
    /// The caller's run, and the connection's place in it.
    age: (u64, u64),
    end: watch::Sender<Option<Refusal>>,
    reading: Arc<tokio::sync::Mutex<()>>,
}

/// The place of one connection; given back when it is dropped.
pub(super) struct Place {
    incoming: Arc<Incoming>,
    key: (PeerId, Lane),
    /// Given to no other connection of this process.
    pub(super) number: u64,
    /// Why this connection is to end, once it is.
    pub(super) end: watch::Receiver<Option<Refusal>>,
    /// Held while reading, so that what an older connection brought is handed on before.
    pub(super) reading: Arc<tokio::sync::Mutex<()>>,
}

impl Incoming {
    /// Takes the place for a new connection and ends the one that has it.
    ///
    /// # Errors
    /// When the one that has it is the newer.
    pub(super) fn take(self: &Arc<Self>, hello: &Hello) -> Result<Place, Refusal> {
        let key = (hello.from.peer, hello.lane);
        let age = (hello.run, hello.ordinal);
        let mut inner = self.inner.lock();
        let mut reading = Arc::default();
        if let Some(standing) = inner.standing.get(&key) {
            if !supersedes(age, standing.age) {
                return Err(Refusal::Replaced);
            }
            standing.end.send_replace(Some(Refusal::Replaced));
            reading = Arc::clone(&standing.reading);
        }
        inner.made += 1;
        let number = inner.made;
        let (end, ended) = watch::channel(None);
        let standing = Standing { number, age, end, reading: Arc::clone(&reading) };
        inner.standing.insert(key, standing);
        Ok(Place { incoming: Arc::clone(self), key, number, end: ended, reading })
    }

    /// Ends every connection for which there is a reason.
    pub(super) fn end(&self, reason: impl Fn(PeerId) -> Option<Refusal>) {
        for ((peer, _), standing) in &self.inner.lock().standing {
            if let Some(refusal) = reason(*peer) {
                standing.end.send_replace(Some(refusal));
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inner = self.incoming.inner.lock();
        if inner.standing.get(&self.key).is_some_and(|standing| standing.number == self.number) {
            inner.standing.remove(&self.key);
        }
    }
}

impl Place {
    /// Waits for a reason to end.
    pub(super) async fn ended(mut end: watch::Receiver<Option<Refusal>>) -> Refusal {
        match end.wait_for(Option::is_some).await {
            Ok(reason) => reason.unwrap_or(Refusal::Replaced),
            // A newer connection has taken the place and dropped the sender with it.
            Err(_) => Refusal::Replaced,
        }
    }
}
