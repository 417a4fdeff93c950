//! A mailbox for one thread: many senders, one receiver that takes everything at once, one wake
//! per batch.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// What senders put in and one thread takes out, in order.
///
/// It has no limit of its own. A client's write holds a permit of
/// [`super::admission::Admission`], a client's read takes one connection's turn, and the rest
/// answers what went in before.
#[derive(Debug)]
pub struct Mailbox<T> {
    queue: Mutex<Vec<T>>,
    bell: Condvar,
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Mailbox { queue: Mutex::new(Vec::new()), bell: Condvar::new() }
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
        if was_empty {
            self.bell.notify_one();
        }
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
    use std::sync::Arc;

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
}
