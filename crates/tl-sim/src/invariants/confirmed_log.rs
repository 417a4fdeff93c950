//! P1 on one machine: what its disk confirmed is in its log after every crash, votes included,
//! until the rows behind it are durable and it is let go.

use tl_types::{GroupId, Index};

use super::{Checked, Violation};
use crate::shadow::Shadow;

/// Compares a machine's log before a crash with what a replay gave. `durable` says how far the
/// machine's rows survived, by group. A group that `is_doubted` may have lost what it confirmed: it
/// knows that, and says nothing before it has other rows.
///
/// # Errors
/// Something confirmed is gone or changed.
pub(crate) fn survived(
    machine: usize,
    before: &Shadow,
    after: &Shadow,
    durable: &[Index],
    is_doubted: impl Fn(GroupId) -> bool,
) -> Checked {
    let broken = |what: String| {
        Err(Violation::new("a confirmed log survives", format!("machine {machine}, {what}")))
    };
    for (at, durable) in durable.iter().enumerate() {
        let group = GroupId(at as u16);
        if is_doubted(group) {
            continue;
        }
        let (old, new) = (before.group(group), after.group(group));
        let needed = durable.0.max(old.first().0.saturating_sub(1)) + 1;
        for index in (needed..=old.synced.0).map(Index) {
            if new.get(index) != old.get(index) {
                return broken(format!(
                    "group {group}: entry {index} was confirmed as {:?} and came back as {:?}",
                    old.get(index),
                    new.get(index)
                ));
            }
        }
        let (old, new) = (old.promised, new.promised);
        let forgotten = new.0 < old.0 || (new.0 == old.0 && old.1 != 0 && new.1 != old.1);
        if forgotten {
            return broken(format!(
                "group {group}: term {} with vote {} was confirmed; term {} with vote {} came back",
                old.0, old.1, new.0, new.1
            ));
        }
    }
    Ok(())
}
