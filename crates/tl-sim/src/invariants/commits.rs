//! P6: a commit is all or nothing, at every instant, on every replica. A machine that shows one
//! half of a commit shows the other.

use std::collections::BTreeMap;

use tl_types::Seq;

use super::{SessionNo, Violation};

/// Where the halves of each commit landed.
#[derive(Debug, Default)]
pub struct Commits {
    landed: BTreeMap<u64, BTreeMap<SessionNo, Seq>>,
}

/// Sessions that a commit writes to.
const HALVES: usize = 2;

impl Commits {
    /// A half of a commit stands there.
    pub fn landed(&mut self, commit: u64, session: SessionNo, seq: Seq) {
        self.landed.entry(commit).or_default().insert(session, seq);
    }

    /// A machine shows part of a commit, and all that it shows now has been reported: returns
    /// where its halves stand, so that the caller can see whether all are shown.
    ///
    /// # Errors
    /// A half has never been shown by anybody.
    pub fn halves(
        &self,
        machine: usize,
        commit: u64,
    ) -> Result<&BTreeMap<SessionNo, Seq>, Violation> {
        match self.landed.get(&commit) {
            Some(halves) if halves.len() == HALVES => Ok(halves),
            found => Err(torn(machine, commit, &format!("only {found:?} is there"))),
        }
    }
}

/// A commit of which a machine shows only a part.
#[must_use]
pub fn torn(machine: usize, commit: u64, what: &str) -> Violation {
    Violation::new(
        "a commit is all or nothing",
        format!("machine {machine}, commit {commit}: {what}"),
    )
}
