//! Which proposal is which entry, until the entry's fate is sealed.
//!
//! An entry that is cut off this node's log is not lost yet: another replica may hold it and
//! bring it back as a later leader. What proves that it never takes effect is a committed entry
//! that no log has together with it: another one at its index, or one of a later term before it,
//! because terms never fall along a log. Those are the only grounds for "lost".

use std::collections::VecDeque;

use tl_types::{Index, Term};

use crate::deeds::Token;

#[derive(Debug, Clone, Copy)]
struct Proposed {
    index: Index,
    term: Term,
    token: Token,
}

/// Proposals of one group that are in the log and not committed.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    /// Of the newest proposals, rising by index.
    recent: VecDeque<Proposed>,
    /// Of older terms, where a newer proposal took the same or a lower index.
    displaced: Vec<Proposed>,
}

impl Tokens {
    pub(crate) fn proposed(&mut self, index: Index, term: Term, token: Token) {
        while self.recent.back().is_some_and(|last| last.index >= index) {
            self.displaced.extend(self.recent.pop_back());
        }
        self.recent.push_back(Proposed { index, term, token });
    }

    /// An entry is committed: returns its own token, and hands those it defeats to `lost`.
    /// Called for every index in order.
    pub(crate) fn committed(
        &mut self,
        index: Index,
        term: Term,
        mut lost: impl FnMut(Token),
    ) -> Option<Token> {
        let mut own = None;
        let mut settle = |proposed: Proposed| {
            if proposed.index == index && proposed.term == term {
                own = Some(proposed.token);
            } else {
                lost(proposed.token);
            }
        };
        let settled = |proposed: &Proposed| proposed.index <= index || proposed.term < term;
        // Terms rise along `recent` as indexes do, so what is settled is at the front.
        while self.recent.front().is_some_and(settled) {
            settle(self.recent.pop_front().expect("just seen"));
        }
        if !self.displaced.is_empty() {
            self.displaced.extract_if(.., |old| settled(old)).for_each(settle);
        }
        own
    }

    /// A snapshot stands in the place of all entries up to `index`: hands over the proposals of
    /// which nobody here will learn what became of them.
    pub(crate) fn skipped(&mut self, index: Index, mut unknown: impl FnMut(Token)) {
        while self.recent.front().is_some_and(|first| first.index <= index) {
            unknown(self.recent.pop_front().expect("just seen").token);
        }
        let gone = self.displaced.extract_if(.., |old| old.index <= index);
        gone.for_each(|old| unknown(old.token));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_committed_entry_of_a_later_term_settles_all_of_earlier_terms_behind_it() {
        let mut tokens = Tokens::default();
        let mut lost = Vec::new();
        for index in 5..=9 {
            tokens.proposed(Index(index), Term(2), Token(index));
        }
        assert_eq!(tokens.committed(Index(5), Term(2), |token| lost.push(token)), Some(Token(5)));
        assert_eq!(lost, []);
        assert_eq!(tokens.committed(Index(6), Term(3), |token| lost.push(token)), None);
        assert_eq!(lost, [6, 7, 8, 9].map(Token));
    }

    #[test]
    fn of_what_a_snapshot_skips_nobody_knows_the_outcome() {
        let mut tokens = Tokens::default();
        for index in 5..=7 {
            tokens.proposed(Index(index), Term(2), Token(index));
        }
        tokens.proposed(Index(6), Term(3), Token(16));
        let mut unknown = Vec::new();
        tokens.skipped(Index(6), |token| unknown.push(token));
        assert_eq!(unknown, [5, 16, 6].map(Token));
        let mut lost = Vec::new();
        assert_eq!(tokens.committed(Index(7), Term(2), |token| lost.push(token)), Some(Token(7)));
        assert_eq!(lost, []);
    }

    #[test]
    fn a_proposal_that_came_back_under_a_later_leader_is_not_lost() {
        let mut tokens = Tokens::default();
        let mut lost = Vec::new();
        tokens.proposed(Index(5), Term(2), Token(1));
        tokens.proposed(Index(6), Term(2), Token(2));
        // Cut off, and this node led again and proposed at 5.
        tokens.proposed(Index(5), Term(6), Token(3));
        // Yet a later leader had kept the entries of term 2.
        assert_eq!(tokens.committed(Index(5), Term(2), |token| lost.push(token)), Some(Token(1)));
        assert_eq!(lost, [Token(3)]);
        assert_eq!(tokens.committed(Index(6), Term(7), |token| lost.push(token)), None);
        assert_eq!(lost, [Token(3), Token(2)]);
    }
}
