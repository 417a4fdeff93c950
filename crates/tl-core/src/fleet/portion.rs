//! How much one call takes on when nobody knows how much is too much.

/// The size of the next call: half as much after one that failed, so that what takes longer than a
/// call may is done in the end, and a quarter more after one that went well, so that most calls
/// succeed where the most is too much for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Portion {
    size: usize,
    most: usize,
}

impl Portion {
    /// Begins with the most that a call may take on, at least one.
    #[must_use]
    pub fn new(most: usize) -> Portion {
        let most = most.max(1);
        Portion { size: most, most }
    }

    /// What the next call takes on.
    #[must_use]
    pub fn size(self) -> usize {
        self.size
    }

    /// The call of this size was made.
    pub fn went_well(&mut self) {
        self.size = self.size.saturating_add(self.size / 4 + 1).min(self.most);
    }

    /// The call of this size failed, perhaps because it took on too much.
    pub fn failed(&mut self) {
        self.size = (self.size / 2).max(1);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `-` is a call that failed, `+` one that went well.
    fn check(most: usize, calls: &str, sizes: &[usize]) {
        let mut portion = Portion::new(most);
        let mut seen = vec![portion.size()];
        for call in calls.chars() {
            match call {
                '+' => portion.went_well(),
                _ => portion.failed(),
            }
            seen.push(portion.size());
        }
        assert_eq!(seen, sizes);
    }

    #[test]
    fn what_fails_is_halved_down_to_one() {
        check(10, "-----", &[10, 5, 2, 1, 1, 1]);
        check(0, "-", &[1, 1]);
    }

    #[test]
    fn what_goes_well_grows_back_to_the_most() {
        check(10, "--+++++++", &[10, 5, 2, 3, 4, 6, 8, 10, 10, 10]);
    }

    proptest! {
        #[test]
        fn whatever_is_too_much_there_is_progress(
            most in 1_usize..100_000, enough in 1_usize..100_000,
        ) {
            let mut portion = Portion::new(most);
            let mut calls = 0;
            while portion.size() > enough {
                portion.failed();
                calls += 1;
            }
            prop_assert!(calls <= 17 && portion.size() >= 1);
            portion.went_well();
            prop_assert!(portion.size() <= most);
        }
    }
}
