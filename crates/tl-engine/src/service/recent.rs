//! Which sessions were written to just now, so that their rows need not be looked for before an
//! append.
//!
//! An append needs rows in memory. Looking for them costs about as much as applying the entry,
//! which looks for them again. What was appended to since the memtable was begun has its rows
//! there. This is a hint: an entry whose rows are not in memory all the same is applied beside
//! the driver.

use std::sync::atomic::{AtomicU64, Ordering};

use tl_core::entry::Append;
use xxhash_rust::xxh3::Xxh3;

/// Sessions and producers that are remembered; a newer one takes the place of an older.
const PLACES: usize = 1 << 16;

/// Sessions with their producers, by place.
#[derive(Debug)]
pub(crate) struct Recent {
    places: Box<[AtomicU64]>,
}

impl Default for Recent {
    fn default() -> Self {
        Recent { places: (0..PLACES).map(|_| AtomicU64::new(0)).collect() }
    }
}

/// A session and producer in the life of one memtable.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark(u64);

impl Mark {
    /// The mark of an append in memtable number `memtable`; none when it has several producers.
    pub(crate) fn of(append: &Append, memtable: u64) -> Option<Mark> {
        let (first, rest) = append.events.split_first()?;
        if rest.iter().any(|event| event.producer_id != first.producer_id) {
            return None;
        }
        let path = &append.path;
        let parts = [
            path.tenant.as_str(),
            path.namespace.as_str(),
            path.name.as_str(),
            first.producer_id.as_str(),
        ];
        let mut hash = Xxh3::with_seed(memtable);
        for part in parts {
            hash.update(&(part.len() as u32).to_be_bytes());
            hash.update(part.as_bytes());
        }
        // Zero says that a place is free.
        Some(Mark(hash.digest().max(1)))
    }

    fn place(self) -> usize {
        (self.0 % PLACES as u64) as usize
    }
}

impl Recent {
    /// Whether it was remembered.
    pub(crate) fn has(&self, mark: Mark) -> bool {
        self.places[mark.place()].load(Ordering::Relaxed) == mark.0
    }

    /// Remembers it.
    pub(crate) fn remember(&self, mark: Mark) {
        self.places[mark.place()].store(mark.0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tl_core::{ContentHash, NewEvent, Text};
    use tl_types::{Namespace, ResourcePath, SessionId, Tenant};

    use super::*;

    fn append(id: &str, producers: &[&str]) -> Append {
        let event = |producer: &&str| NewEvent {
            producer_id: Text::new(bytes::Bytes::copy_from_slice(producer.as_bytes()))
                .expect("text"),
            producer_seq: 1,
            hash: ContentHash { algorithm: 1, value: 0 },
            envelope: bytes::Bytes::new(),
        };
        let tenant = Tenant::new("t").expect("a tenant");
        let id = SessionId::new(id).expect("an id");
        Append {
            path: ResourcePath::session(tenant, Namespace::default_namespace(), id),
            expected_seq: None,
            events: producers.iter().map(event).collect(),
        }
    }

    #[test]
    fn a_session_is_recent_with_its_producer_and_in_its_memtable_only() {
        let recent = Recent::default();
        let mark =
            |id, producer, memtable| Mark::of(&append(id, &[producer]), memtable).expect("one");
        assert!(!recent.has(mark("s", "p", 1)));
        recent.remember(mark("s", "p", 1));
        assert!(recent.has(mark("s", "p", 1)));
        assert!(!recent.has(mark("s", "p", 2)) && !recent.has(mark("s", "q", 1)));
        assert!(!recent.has(mark("sp", "", 1)) && !recent.has(mark("r", "p", 1)));
        assert!(Mark::of(&append("s", &["p", "p"]), 1).is_some());
        assert!(Mark::of(&append("s", &["p", "q"]), 1).is_none());
    }
}
