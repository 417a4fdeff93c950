//! Which term each entry of a stretch is of, remembered when the entries themselves are let go.
//!
//! Where two logs have an entry of the same index and term, it is the same entry. So a record of an
//! older log is the entry that was committed exactly if its term is the one that is known here: a
//! copy that was overwritten later is told from the one that took its place, wherever both stand.
//!
//! Terms only rise along a log and change when a leader does, so a few runs say it all. At most
//! [`TERM_RUNS_MAX`] are kept; what is before them is not known.

use std::collections::VecDeque;

use tl_types::{Index, Term};

/// Runs of one group; each begins with another term.
pub(crate) const TERM_RUNS_MAX: usize = 128;

/// Terms of the entries from the first run to `end`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Terms {
    /// Where each run begins, never empty.
    runs: VecDeque<(Index, Term)>,
    end: Index,
}

impl Terms {
    /// The term of one entry.
    pub(crate) fn of((index, term): (Index, Term)) -> Terms {
        Terms { runs: VecDeque::from([(index, term)]), end: index }
    }

    pub(crate) fn first(&self) -> Index {
        self.runs.front().map_or(self.end, |(first, _)| *first)
    }

    pub(crate) fn end(&self) -> Index {
        self.end
    }

    /// Takes the next entry of a log, which may take the place of others or come behind a gap: what
    /// is before a gap is forgotten.
    pub(crate) fn push(&mut self, index: Index, term: Term) {
        if index <= self.first() || index.0 > self.end.0 + 1 {
            *self = Terms::of((index, term));
            return;
        }
        while self.runs.back().is_some_and(|(first, _)| *first >= index) {
            self.runs.pop_back();
        }
        if self.runs.back().is_some_and(|(_, last)| *last != term) {
            self.runs.push_back((index, term));
        }
        if self.runs.len() > TERM_RUNS_MAX {
            self.runs.pop_front();
        }
        self.end = index;
    }

    /// The same up to this entry, if its term is the one that is known; else that alone.
    pub(crate) fn up_to(mut self, (index, term): (Index, Term)) -> Terms {
        if self.term(index) != Some(term) {
            return Terms::of((index, term));
        }
        while self.runs.back().is_some_and(|(first, _)| *first > index) {
            self.runs.pop_back();
        }
        self.end = index;
        self
    }

    pub(crate) fn term(&self, index: Index) -> Option<Term> {
        if index < self.first() || index > self.end {
            return None;
        }
        let behind = self.runs.partition_point(|(first, _)| *first <= index);
        Some(self.runs[behind - 1].1)
    }

    /// The last entry up to `index` whose term is not above `term`, if it is known.
    pub(crate) fn last_not_above(&self, index: Index, term: Term) -> Option<Index> {
        self.term(index)?;
        let mut last = index;
        for (first, of) in self.runs.iter().rev().filter(|(first, _)| *first <= index) {
            if *of <= term {
                return Some(last);
            }
            last = Index(first.0.saturating_sub(1));
        }
        None
    }

    /// The runs from `from` on, the first of them cut off there.
    pub(crate) fn runs_from(&self, from: Index) -> Vec<(Index, Term)> {
        let behind = self.runs.partition_point(|(first, _)| *first <= from);
        let mut runs: Vec<_> = self.runs.iter().skip(behind.saturating_sub(1)).copied().collect();
        if let Some((first, _)) = runs.first_mut() {
            *first = from.max(*first);
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(of: &[(u64, u64)]) -> Terms {
        let mut terms = Terms::of((Index(of[0].0), Term(of[0].1)));
        of[1..].iter().for_each(|(index, term)| terms.push(Index(*index), Term(*term)));
        terms
    }

    fn all(terms: &Terms) -> Vec<(u64, u64)> {
        let known = (terms.first().0..=terms.end().0).map(Index);
        known.map(|index| (index.0, terms.term(index).expect("known").0)).collect()
    }

    #[test]
    fn a_log_that_is_written_again_is_remembered_as_it_was_written_last() {
        let mut log = vec![(4, 1), (5, 1), (6, 2), (7, 2), (8, 4)];
        let mut terms = terms(&log);
        assert_eq!(all(&terms), log);
        assert_eq!((terms.term(Index(3)), terms.term(Index(9))), (None, None));
        terms.push(Index(6), Term(5));
        log.truncate(2);
        log.push((6, 5));
        assert_eq!(all(&terms), log, "what was behind is gone");
        terms.push(Index(5), Term(5));
        assert_eq!(all(&terms), [(4, 1), (5, 5)], "a run begins earlier");
        terms.push(Index(4), Term(6));
        assert_eq!(all(&terms), [(4, 6)]);
        terms.push(Index(9), Term(6));
        assert_eq!(all(&terms), [(9, 6)], "behind a gap");
    }

    #[test]
    fn what_is_known_ends_where_it_is_told_to() {
        let log = [(4, 1), (5, 1), (6, 2), (7, 3)];
        for (index, term) in log {
            let cut = terms(&log).up_to((Index(index), Term(term)));
            assert_eq!(all(&cut), log[..=(index as usize - 4)]);
        }
        assert_eq!(all(&terms(&log).up_to((Index(5), Term(9)))), [(5, 9)], "another log");
        assert_eq!(all(&terms(&log).up_to((Index(8), Term(3)))), [(8, 3)], "not known");
    }

    #[test]
    fn the_last_entry_of_a_term_or_an_earlier_one_is_found() {
        let terms = terms(&[(4, 2), (5, 2), (6, 5), (7, 5), (8, 7)]);
        let last = |index, term| terms.last_not_above(Index(index), Term(term)).map(|it| it.0);
        assert_eq!((last(8, 7), last(8, 6), last(7, 5)), (Some(8), Some(7), Some(7)));
        assert_eq!((last(8, 4), last(6, 2), last(5, 2)), (Some(5), Some(5), Some(5)));
        assert_eq!((last(8, 1), last(3, 9), last(9, 9)), (None, None, None));
    }

    #[test]
    fn runs_say_the_same_and_are_bounded() {
        let known = terms(&[(4, 2), (5, 2), (6, 5), (7, 5), (8, 7)]);
        let runs = |from| known.runs_from(Index(from)).iter().map(|it| (it.0.0, it.1.0)).collect();
        let all: [Vec<(u64, u64)>; 3] = [runs(5), runs(6), runs(8)];
        assert_eq!(all, [vec![(5, 2), (6, 5), (8, 7)], vec![(6, 5), (8, 7)], vec![(8, 7)]]);
        let many: Vec<_> = (1..=2 * TERM_RUNS_MAX as u64).map(|at| (at, at)).collect();
        let many = terms(&many);
        assert_eq!(many.runs.len(), TERM_RUNS_MAX);
        assert_eq!(many.first(), Index(TERM_RUNS_MAX as u64 + 1));
        assert_eq!(many.term(many.first()), Some(Term(many.first().0)));
    }
}
