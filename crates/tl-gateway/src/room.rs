//! Memory that many requests share: bodies on their way in, pages on their way out.
//!
//! Counted in KiB on one semaphore per purpose, so that what all of them take together has a
//! limit that an operator chooses, however many connections there are.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// One request's part of a shared amount of memory; given back when dropped.
#[derive(Debug)]
pub struct Room {
    all: Arc<Semaphore>,
    kib: u32,
    held: Option<OwnedSemaphorePermit>,
}

impl Room {
    /// No room taken yet.
    pub fn new(all: Arc<Semaphore>) -> Room {
        Room { all, kib: 0, held: None }
    }

    /// Takes room for `bytes` in all; false when there is none. What was taken stays taken.
    pub fn grow(&mut self, bytes: usize) -> bool {
        let Some(more) = self.missing(bytes) else { return true };
        match Arc::clone(&self.all).try_acquire_many_owned(more) {
            Ok(taken) => {
                self.merge(more, taken);
                true
            }
            Err(_) => false,
        }
    }

    /// The same, but waits in turn until there is room; false when there is none by `deadline`.
    pub async fn wait(&mut self, bytes: usize, deadline: Instant) -> bool {
        let Some(more) = self.missing(bytes) else { return true };
        let turn = Arc::clone(&self.all).acquire_many_owned(more);
        match tokio::time::timeout_at(deadline.into(), turn).await {
            Ok(Ok(taken)) => {
                self.merge(more, taken);
                true
            }
            Ok(Err(_)) | Err(_) => false,
        }
    }

    /// Gives back what is not needed for `bytes`.
    pub fn shrink(&mut self, bytes: usize) {
        let kib = kib(bytes);
        let Some(held) = &mut self.held else { return };
        if let Some(spare) = self.kib.checked_sub(kib).filter(|spare| *spare > 0) {
            drop(held.split(spare as usize));
            self.kib = kib;
        }
    }

    /// Ties the room to the bytes that it is for: given back when the last of them is dropped,
    /// which for a reply is when the socket has taken it.
    pub fn hold(mut self, bytes: Vec<u8>) -> Bytes {
        self.shrink(bytes.len());
        Bytes::from_owner(Roomed { bytes, _room: self })
    }

    fn missing(&self, bytes: usize) -> Option<u32> {
        kib(bytes).checked_sub(self.kib).filter(|more| *more > 0)
    }

    fn merge(&mut self, more: u32, taken: OwnedSemaphorePermit) {
        self.kib += more;
        match &mut self.held {
            Some(held) => held.merge(taken),
            None => self.held = Some(taken),
        }
    }
}

fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

struct Roomed {
    bytes: Vec<u8>,
    _room: Room,
}

impl AsRef<[u8]> for Roomed {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn room_is_taken_at_the_limit_refused_one_past_it_and_given_back() {
        let all = Arc::new(Semaphore::new(4));
        let mut one = Room::new(Arc::clone(&all));
        assert!(one.grow(1) && one.grow(1024) && one.grow(3 * 1024));
        let mut two = Room::new(Arc::clone(&all));
        assert!(two.grow(1024), "the last KiB");
        assert!(!two.grow(1025) && two.grow(1024));
        drop(one);
        assert!(two.grow(4 * 1024));
        drop(two);
        assert_eq!(all.available_permits(), 4);
    }

    #[tokio::test]
    async fn whoever_waits_gets_what_a_reply_gives_back_with_its_last_byte() {
        let all = Arc::new(Semaphore::new(4));
        let soon = Instant::now() + Duration::from_millis(5);
        let mut one = Room::new(Arc::clone(&all));
        assert!(one.wait(4 * 1024, soon).await);
        let mut two = Room::new(Arc::clone(&all));
        assert!(!two.wait(1, soon).await, "none by the deadline");
        let reply = one.hold(vec![b'x'; 2 * 1024]);
        assert_eq!(all.available_permits(), 2, "a reply keeps what it needs");
        let rest = reply.slice(1..);
        drop(reply);
        assert!(two.grow(2 * 1024) && !two.grow(3 * 1024));
        drop(rest);
        assert!(two.grow(4 * 1024));
    }
}
