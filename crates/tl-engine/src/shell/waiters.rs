//! Requests whose answer is still to come, by a number that is never given twice.
//!
//! A token is a place and how often the place was used. So a look-up is an index, and an answer
//! that comes twice finds nobody.

/// Bits of a token that name the place; the rest count its uses.
const PLACE_BITS: u32 = 24;

/// Waiters by token.
#[derive(Debug)]
pub(crate) struct Waiters<T> {
    places: Vec<Place<T>>,
    free: Vec<usize>,
}

#[derive(Debug)]
struct Place<T> {
    uses: u64,
    waiter: Option<T>,
}

impl<T> Default for Waiters<T> {
    fn default() -> Self {
        Waiters { places: Vec::new(), free: Vec::new() }
    }
}

impl<T> Waiters<T> {
    /// Keeps a waiter; the token is never 0.
    ///
    /// # Panics
    /// At 16 million waiters: whoever adds them is bounded far below.
    pub(crate) fn add(&mut self, waiter: T) -> u64 {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place { uses: 0, waiter: None });
            self.places.len() - 1
        });
        assert!(place < 1 << PLACE_BITS, "waiters are bounded by admission and connections");
        let slot = &mut self.places[place];
        slot.uses += 1;
        slot.waiter = Some(waiter);
        (slot.uses << PLACE_BITS) | place as u64
    }

    /// Gives the waiter back, once.
    pub(crate) fn take(&mut self, token: u64) -> Option<T> {
        let place = (token & ((1 << PLACE_BITS) - 1)) as usize;
        let slot = self.places.get_mut(place).filter(|slot| slot.uses == token >> PLACE_BITS)?;
        let waiter = slot.waiter.take()?;
        self.free.push(place);
        Some(waiter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_answered_once_and_never_given_again() {
        let mut waiters = Waiters::default();
        let (a, b) = (waiters.add('a'), waiters.add('b'));
        assert_eq!(waiters.take(a), Some('a'));
        assert_eq!(waiters.take(a), None);
        let c = waiters.add('c');
        assert_ne!(a, c, "the place is used again, the token is not");
        assert_eq!(waiters.take(a), None);
        assert_eq!((waiters.take(c), waiters.take(b)), (Some('c'), Some('b')));
        assert_eq!(waiters.take(u64::MAX), None);
        assert_eq!(waiters.places.len(), 2);
    }
}
