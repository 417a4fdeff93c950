//! A mailbox for one thread: many senders, one receiver that takes everything at once, one wake
//! per batch.
//!
//! A receiver usually sleeps in [`Mailbox::take`]. One that sleeps elsewhere, on sockets, brings
//! a waker and says when it goes to sleep; senders then call the waker, once per sleep.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Wakes a receiver that sleeps elsewhere.
pub type Waker = Arc<dyn Fn() + Send + Sync>;

/// What senders put in and one thread takes out, in order.
///
/// It has no limit of its own. A client's write holds a permit of
/// [`super::admission::Admission`], a client's read takes one connection's turn, and the rest
/// answers what went in before.
pub struct Mailbox<T> {
    queue: Mutex<Vec<T>>,
    bell: Condvar,
    waker: OnceLock<Waker>,
    /// The receiver sleeps, or is about to, and wants the waker to be called.
    asleep: AtomicBool,
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Mailbox {
            queue: Mutex::new(Vec::new()),
            bell: Condvar::new(),
            waker: OnceLock::new(),
            asleep: AtomicBool::new(false),
        }
    }
}

impl<T> std::fmt::Debug for Mailbox<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mailbox").finish_non_exhaustive()
    }
}

impl<T> Mailbox<T> {
    /// Puts one item in; wakes the receiver only when the box was empty.
    pub fn push(&self, item: T) {
        let was_empty = {
            let mut queue = self.queue.lock();
            queue.push(item);
            queue.len() == 1
        };
        let Some(waker) = self.waker.get() else {
            if was_empty {
                self.bell.notify_one();
            }
            return;
        };
        // Asked behind the lock: the receiver says that it sleeps before it looks under it.
        if self.asleep.swap(false, Ordering::AcqRel) {
            waker();
        }
    }

    /// From now on the receiver sleeps elsewhere. Called once, by the receiver.
    pub fn wake_by(&self, waker: Waker) {
        let first = self.waker.set(waker).is_ok();
        assert!(first, "a mailbox has one receiver");
    }

    /// The receiver wants to sleep: true when nothing is here, and then the next item calls the
    /// waker.
    pub fn sleep(&self) -> bool {
        self.asleep.store(true, Ordering::Release);
        let is_empty = self.queue.lock().is_empty();
        if !is_empty {
            self.awake();
        }
        is_empty
    }

    /// The receiver is awake: no waker needs to be called.
    pub fn awake(&self) {
        self.asleep.store(false, Ordering::Release);
    }

    /// Moves everything into `into`, which must be empty; waits at most `patience` for a first
    /// item.
    pub fn take(&self, into: &mut Vec<T>, patience: Duration) {
        debug_assert!(into.is_empty(), "the last batch was handled");
        let mut queue = self.queue.lock();
        if queue.is_empty() && !patience.is_zero() {
            self.bell.wait_for(&mut queue, patience);
        }
        std::mem::swap(&mut *queue, into);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn everything_arrives_once_and_in_order_of_its_sender() {
        let mailbox = Arc::new(Mailbox::default());
        let senders: Vec<_> = (0..4u32)
            .map(|sender| {
                let mailbox = Arc::clone(&mailbox);
                std::thread::spawn(move || (0..1_000u32).for_each(|n| mailbox.push((sender, n))))
            })
            .collect();
        let (mut next, mut batch) = ([0u32; 4], Vec::new());
        while next.iter().sum::<u32>() < 4_000 {
            mailbox.take(&mut batch, Duration::from_secs(5));
            for (sender, n) in batch.drain(..) {
                assert_eq!(n, next[sender as usize]);
                next[sender as usize] += 1;
            }
        }
        for sender in senders {
            sender.join().expect("sender");
        }
    }

    #[test]
    fn a_receiver_that_sleeps_elsewhere_is_woken_once_per_sleep() {
        let (mailbox, wakes) = (Mailbox::default(), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&wakes);
        mailbox.wake_by(Arc::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        }));
        mailbox.push(1);
        assert_eq!(wakes.load(Ordering::Relaxed), 0, "it is awake");
        assert!(!mailbox.sleep(), "something is here");
        let mut batch = Vec::new();
        mailbox.take(&mut batch, Duration::ZERO);
        assert_eq!(std::mem::take(&mut batch), [1]);
        assert!(mailbox.sleep());
        mailbox.push(2);
        mailbox.push(3);
        assert_eq!(wakes.load(Ordering::Relaxed), 1);
        mailbox.awake();
        mailbox.push(4);
        assert_eq!(wakes.load(Ordering::Relaxed), 1);
    }
}
