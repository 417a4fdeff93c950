//! A replica whose rows are damaged does not win: it is not elected in the group, and applies
//! nothing until it has other rows (P1, P8). Of one whose disk was wiped [`super::one_life`] and
//! [`super::leader_completeness`] say the same.

use tl_types::{GroupId, Index, Term};

use super::{Checked, Violation};

const PROMISE: &str = "a damaged replica never wins";

/// A machine is elected; `is_stopped` says whether its rows of the group are known to be damaged.
///
/// # Errors
/// They are.
pub fn led(machine: usize, group: GroupId, term: Term, is_stopped: bool) -> Checked {
    if !is_stopped {
        return Ok(());
    }
    let what = format!("group {group}: machine {machine} with damaged rows leads term {term}");
    Err(Violation::new(PROMISE, what))
}

/// A machine has applied entries up to this one. `stopped_at` is what was applied when its rows were
/// found to be damaged; the next entry may have been under way beside then.
///
/// # Errors
/// They were, and it goes on.
pub fn applied(machine: usize, group: GroupId, index: Index, stopped_at: Option<Index>) -> Checked {
    if stopped_at.is_none_or(|stopped_at| index.0 <= stopped_at.0 + 1) {
        return Ok(());
    }
    let what = format!("group {group}: machine {machine} applies entry {index} to damaged rows");
    Err(Violation::new(PROMISE, what))
}
