//! P1: nothing is applied anywhere, and so nothing is acknowledged, before a majority of the
//! machines has its log record on disk, synced.

use tl_types::{GroupId, Index, Term};

use super::{Checked, Violation};

/// Judges an entry at the moment when the first machine applies it: `confirmed` says of each
/// machine whether its disk has confirmed the entry.
///
/// # Errors
/// Too few have.
pub fn check(group: GroupId, index: Index, term: Term, confirmed: &[bool]) -> Checked {
    let synced = confirmed.iter().filter(|confirmed| **confirmed).count();
    if synced * 2 > confirmed.len() {
        return Ok(());
    }
    Err(Violation::new(
        "applied means synced on a majority",
        format!(
            "group {group}: entry {index} of term {term} was applied when {synced} of {} disks \
             had confirmed it",
            confirmed.len()
        ),
    ))
}
