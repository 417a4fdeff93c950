//! The history of every session is linearizable: there is one order of all operations that explains
//! every answer, and in which nothing stands before something that had been answered when it began.
//!
//! ```text
//!   client a   ├─ append ─┤ 4..5       ├─ append, expects 5 ─┤ 6
//!   client b        ├──── read: 5, version 2 ────┤
//!   client c                 ├─ update ─┤ version 2
//!                                       order: append, update, read, append
//! ```
//!
//! This looks at what clients asked and were told, and at nothing else, against a model of a session in
//! a few lines: a last position, a version, and whether it is closed or deleted. An operation that
//! was refused although an earlier attempt of it may still be taken stands in the history twice:
//! as the refusal, and as a write that may come at any later time. Where such an append landed, the
//! events say.
//!
//! The search goes on with whatever explains itself now and changes nothing; of operations that change
//! something it tries one after the other. A set of operations leads to one state, whatever their
//! order, so a set that led nowhere is not tried again.

use std::collections::{HashMap, HashSet};

use tl_core::{SessionHeader, SessionState};
use tl_types::Seq;
use xxhash_rust::xxh3::xxh3_128;

use super::{SessionNo, Violation};

/// Most steps of one search; an order of so many operations is found in about as many steps as it has.
const STEPS_MAX: usize = 2_000_000;

/// The end of an operation that may take effect at any later time.
const NEVER: u64 = u64::MAX;

const PROMISE: &str = "every history is linearizable";

/// What an operation did or saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Made the session.
    Created,
    /// New events from `first` to `last`.
    Appended {
        /// First position.
        first: Seq,
        /// Last position.
        last: Seq,
    },
    /// A write that stood there before; the session ends at `head`.
    Repeated {
        /// Last position of the session.
        head: Seq,
    },
    /// Changed the header, which has this version now.
    Updated {
        /// What is seen behind the change.
        seen: Seen,
    },
    /// Changed it, perhaps, to whatever version.
    PerhapsUpdated,
    /// Closed the session. What an attempt is told may be later than what the first one did, so that
    /// is a deed of its own.
    Closed,
    /// Deleted it.
    Tombstoned,
    /// Saw its row.
    Saw(Seen),
    /// Saw that there is none.
    Absent,
    /// Refused: it is there.
    Exists,
    /// Refused: it was deleted.
    IsTombstoned,
    /// Refused: it takes no more events.
    IsClosed,
    /// Refused: it ends here.
    EndsAt(Seq),
    /// Refused: it has this version.
    HasVersion(u64),
}

/// What a row says of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    last: Seq,
    version: u64,
    state: SessionState,
}

impl Seen {
    /// As a header says.
    #[must_use]
    pub fn by(header: &SessionHeader) -> Seen {
        Seen { last: header.last_seq, version: header.version, state: header.state }
    }
}

/// A session in the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct State {
    exists: bool,
    last: Seq,
    version: u64,
    state: SessionState,
}

impl State {
    fn is(&self, seen: Seen) -> bool {
        self.exists
            && (self.last, self.version, self.state) == (seen.last, seen.version, seen.state)
    }

    /// The state behind an operation, if the operation can be here.
    fn after(&self, deed: Deed) -> Option<State> {
        let open = self.exists && self.state != SessionState::Tombstoned;
        let next = match deed {
            Deed::Created => State { exists: true, version: 1, ..State::default() },
            Deed::Appended { last, .. } => State { last, ..*self },
            Deed::Updated { .. } | Deed::PerhapsUpdated => {
                State { version: self.version + 1, ..*self }
            }
            Deed::Closed => State { state: self.state.max(SessionState::Closed), ..*self },
            Deed::Tombstoned => State { state: SessionState::Tombstoned, ..*self },
            _ => *self,
        };
        let fits = match deed {
            Deed::Created | Deed::Absent => !self.exists,
            Deed::Appended { first, .. } => {
                open && self.state == SessionState::Active && first == self.last.next()
            }
            Deed::Repeated { head } => open && head == self.last,
            Deed::Updated { seen } => open && next.is(seen),
            Deed::Closed | Deed::PerhapsUpdated => open,
            Deed::Tombstoned | Deed::Exists => self.exists,
            Deed::Saw(seen) => self.is(seen),
            Deed::IsTombstoned => self.exists && !open,
            Deed::IsClosed => open && self.state == SessionState::Closed,
            Deed::EndsAt(last) => open && last == self.last,
            Deed::HasVersion(version) => open && version == self.version,
        };
        fits.then_some(next)
    }
}

/// One operation: asked at `from_us`, answered at `to_us`.
#[derive(Debug, Clone, Copy)]
struct Op {
    from_us: u64,
    to_us: u64,
    deed: Deed,
}

/// What clients asked and were told, by session.
#[derive(Debug, Default)]
pub struct History {
    sessions: Vec<Vec<Op>>,
    /// Appends that were refused and may be taken later: session, when they were asked, their events.
    late: Vec<(SessionNo, u64, Vec<u64>)>,
    /// Where each event stands, by a hash of its content.
    landed: HashMap<u64, (SessionNo, Seq)>,
}

impl History {
    /// A run with so many sessions.
    #[must_use]
    pub fn new(sessions: usize) -> History {
        History { sessions: vec![Vec::new(); sessions], ..History::default() }
    }

    /// A client was answered.
    pub fn answered(&mut self, session: SessionNo, from_us: u64, to_us: u64, deed: Deed) {
        self.sessions[session].push(Op { from_us, to_us, deed });
    }

    /// A change of the header was refused, and an earlier attempt of it may still be taken.
    pub fn may_update(&mut self, session: SessionNo, from_us: u64) {
        self.answered(session, from_us, NEVER, Deed::PerhapsUpdated);
    }

    /// The same of an append of these events.
    pub fn may_append(&mut self, session: SessionNo, from_us: u64, contents: Vec<u64>) {
        self.late.push((session, from_us, contents));
    }

    /// An event stands there.
    pub fn landed(&mut self, session: SessionNo, seq: Seq, content: u64) {
        self.landed.insert(content, (session, seq));
    }

    /// Puts every session's operations in one order; returns how many there were.
    ///
    /// # Errors
    /// There is none for one of them.
    pub fn check(&mut self) -> Result<u64, Violation> {
        for (session, from_us, contents) in std::mem::take(&mut self.late) {
            let count = contents.len() as u64;
            let landed = contents.first().and_then(|content| self.landed.get(content));
            if let Some((_, first)) = landed {
                let (first, last) = (*first, Seq(first.0 + count - 1));
                self.answered(session, from_us, NEVER, Deed::Appended { first, last });
            }
        }
        let mut answers = 0;
        for (session, ops) in self.sessions.iter_mut().enumerate() {
            ops.sort_by_key(|op| op.from_us);
            Search::new(ops)
                .run()
                .map_err(|why| Violation::new(PROMISE, format!("session {session}: {why}")))?;
            answers += ops.len() as u64;
        }
        Ok(answers)
    }
}

/// Where a search can turn round: how many operations were taken, the state, what is left to try.
struct Fork {
    taken: usize,
    state: State,
    rest: Vec<usize>,
}

struct Search<'a> {
    ops: &'a [Op],
    is_taken: Vec<bool>,
    taken: Vec<usize>,
    /// All before it are taken.
    first: usize,
    state: State,
    forks: Vec<Fork>,
    seen: HashSet<u128>,
}

impl<'a> Search<'a> {
    fn new(ops: &'a [Op]) -> Search<'a> {
        Search {
            ops,
            is_taken: vec![false; ops.len()],
            taken: Vec::new(),
            first: 0,
            state: State::default(),
            forks: Vec::new(),
            seen: HashSet::new(),
        }
    }

    fn run(mut self) -> Result<(), String> {
        let mut furthest = (0, String::new());
        for _ in 0..STEPS_MAX {
            let open = self.open();
            let is_done = open.iter().all(|at| self.ops[*at].to_us == NEVER);
            if is_done {
                return Ok(());
            }
            let fits = |at: &usize| Some((*at, self.state.after(self.ops[*at].deed)?));
            let fitting: Vec<(usize, State)> = open.iter().filter_map(fits).collect();
            // What changes nothing may stand here whatever comes behind it.
            if let Some((at, _)) = fitting.iter().find(|(_, next)| *next == self.state) {
                self.take(*at);
                continue;
            }
            let mut rest: Vec<usize> = fitting.iter().map(|(at, _)| *at).rev().collect();
            if rest.len() > 1 && !self.is_new() {
                rest.clear();
            }
            match rest.pop() {
                Some(at) => {
                    if !rest.is_empty() {
                        self.forks.push(Fork { taken: self.taken.len(), state: self.state, rest });
                    }
                    self.take(at);
                }
                None => {
                    if furthest.1.is_empty() || self.taken.len() > furthest.0 {
                        furthest = (self.taken.len(), self.stuck(&open));
                    }
                    if !self.turn_round() {
                        return Err(furthest.1);
                    }
                }
            }
        }
        Err(format!("no order was found in {STEPS_MAX} steps; {}", furthest.1))
    }

    /// Operations of which any may come next: none of them began after another one of them, or any
    /// other that is left, had been answered.
    fn open(&mut self) -> Vec<usize> {
        while self.is_taken.get(self.first) == Some(&true) {
            self.first += 1;
        }
        let mut until_us = NEVER;
        let mut open = Vec::new();
        for at in self.first..self.ops.len() {
            let op = &self.ops[at];
            if op.from_us > until_us {
                break;
            }
            if !self.is_taken[at] {
                until_us = until_us.min(op.to_us);
                open.push(at);
            }
        }
        open
    }

    fn take(&mut self, at: usize) {
        let next = self.state.after(self.ops[at].deed);
        self.state = next.expect("only what fits is taken");
        self.is_taken[at] = true;
        self.taken.push(at);
    }

    /// Whether this set of operations was not gone on from before.
    fn is_new(&mut self) -> bool {
        let set: Vec<u8> = self.is_taken.iter().map(|taken| u8::from(*taken)).collect();
        self.seen.insert(xxh3_128(&set))
    }

    fn turn_round(&mut self) -> bool {
        while let Some(mut fork) = self.forks.pop() {
            for at in self.taken.drain(fork.taken..) {
                self.is_taken[at] = false;
                self.first = self.first.min(at);
            }
            self.state = fork.state;
            if let Some(at) = fork.rest.pop() {
                if !fork.rest.is_empty() {
                    self.forks.push(fork);
                }
                self.take(at);
                return true;
            }
        }
        false
    }

    fn stuck(&self, open: &[usize]) -> String {
        let open: Vec<&Op> = open.iter().map(|at| &self.ops[*at]).collect();
        let (state, taken, of) = (self.state, self.taken.len(), self.ops.len());
        format!(
            "behind {taken} of {of} operations it is {state:?}, and none of these fits: {open:?}"
        )
    }
}

#[cfg(test)]
mod tests;
