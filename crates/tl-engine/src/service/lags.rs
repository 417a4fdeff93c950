//! How far open tails are behind what they may show, looked at when somebody asks.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tl_types::Seq;

use crate::hub::Topic;

/// The open tails of a node with their cursors.
#[derive(Debug, Default)]
pub(crate) struct Lags(Mutex<Open>);

#[derive(Debug, Default)]
struct Open {
    next: u64,
    tails: HashMap<u64, (Arc<Topic>, Arc<AtomicU64>)>,
}

/// One open tail's place among them, given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    lags: Arc<Lags>,
    id: u64,
    cursor: Arc<AtomicU64>,
}

/// What all tails together say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Lag {
    /// Tails that have not been given everything yet.
    pub(crate) behind: u64,
    /// Events that the one furthest behind has not been given.
    pub(crate) events_max: u64,
    /// The same of all tails together.
    pub(crate) events: u64,
}

impl Lags {
    /// A tail opens at a cursor.
    pub(crate) fn open(self: &Arc<Self>, topic: &Arc<Topic>, cursor: Seq) -> Place {
        let cursor = Arc::new(AtomicU64::new(cursor.0));
        let mut open = self.0.lock();
        let id = open.next;
        open.next += 1;
        open.tails.insert(id, (Arc::clone(topic), Arc::clone(&cursor)));
        Place { lags: Arc::clone(self), id, cursor }
    }

    /// Looks at every open tail.
    pub(crate) fn look(&self) -> Lag {
        let mut lag = Lag::default();
        for (topic, cursor) in self.0.lock().tails.values() {
            let events = topic.sight().visible.0.saturating_sub(cursor.load(Ordering::Relaxed));
            lag.behind += u64::from(events > 0);
            lag.events_max = lag.events_max.max(events);
            lag.events += events;
        }
        lag
    }
}

impl Place {
    /// The tail has given events up to here.
    pub(crate) fn gave(&self, cursor: Seq) {
        self.cursor.store(cursor.0, Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.lags.0.lock().tails.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{Hub, TopicKey};
    use tl_types::{GroupId, ResourceNumber};

    #[test]
    fn lag_is_what_may_be_shown_and_was_not_given() {
        let (hub, lags) = (Hub::new(), Arc::new(Lags::default()));
        let member = hub.join(TopicKey { group: GroupId(1), number: ResourceNumber(1) });
        member.topic().saw_head(Seq(10), None);
        let near = lags.open(member.topic(), Seq(8));
        let far = lags.open(member.topic(), Seq(0));
        let ahead = lags.open(member.topic(), Seq(99));
        assert_eq!(lags.look(), Lag { behind: 2, events_max: 10, events: 12 });
        near.gave(Seq(10));
        drop(far);
        assert_eq!(lags.look(), Lag::default());
        drop((near, ahead));
        assert!(lags.0.lock().tails.is_empty());
    }
}
