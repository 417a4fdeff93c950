//! The cluster's list of members: a numbered value that one group keeps for all.
//!
//! ```text
//! row = number u64 ‖ list            no row: number 0, the list that the cluster was founded with
//! ```
//!
//! The list is opaque here. A change names the number that its caller saw, so of two changes that
//! were thought out over the same list one is refused.

use bytes::Bytes;
use tl_types::RowKey;
use tl_types::keys::GroupField;
use tl_types::limits::MEMBER_LIST_BYTES_MAX;

use crate::entry::SetMembers;
use crate::reply::{Reason, Reply};
use crate::rows::{Poison, Rows};
use crate::view::View;

/// Bytes of the number in front of the list.
const NUMBER_BYTES: usize = 8;

/// Puts the next list in the place of the present one.
pub(super) fn set(view: &mut View<'_>, set: &SetMembers) -> Result<Reply, Reason> {
    let (max, got) = (MEMBER_LIST_BYTES_MAX, set.list.len());
    if got > max {
        let (limit, max, got) = ("member_list_bytes_max", max as u64, got as u64);
        return Err(Reason::TooLarge { limit, max, got });
    }
    let current = load(view).map_or(0, |(number, _)| number);
    if current != set.expected {
        return Err(Reason::ExpectedVersion { expected: set.expected, current });
    }
    let mut row = Vec::with_capacity(NUMBER_BYTES + got);
    row.extend_from_slice(&current.saturating_add(1).to_be_bytes());
    row.extend_from_slice(&set.list);
    view.put(RowKey::group(GroupField::Members), row.into());
    Ok(Reply::Done)
}

/// The list in force and its number; `None` as long as it is that of the founding.
///
/// # Errors
/// [`Poison`] when the row was cold or damaged.
pub fn members(rows: &dyn Rows) -> Result<Option<(u64, Bytes)>, Poison> {
    View::read(rows, load)
}

fn load(view: &mut View<'_>) -> Option<(u64, Bytes)> {
    let row = view.get(&RowKey::group(GroupField::Members))?;
    match row.first_chunk::<NUMBER_BYTES>() {
        Some(number) => Some((u64::from_be_bytes(*number), row.slice(NUMBER_BYTES..))),
        None => {
            view.damaged("the list of members has no number".into());
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use tl_types::Index;

    use super::*;
    use crate::entry::{Command, Entry};
    use crate::group::apply;
    use crate::memory::MemoryRows;

    fn put(rows: &mut MemoryRows, expected: u64, list: impl Into<Bytes>) -> Reply {
        let entry = Entry::new([Command::SetMembers(SetMembers { expected, list: list.into() })]);
        let outcome = apply(rows, Index(1), entry.encode().into()).expect("an entry");
        rows.write(outcome.writes);
        outcome.replies.into_iter().next().expect("one reply for one command")
    }

    #[test]
    fn of_two_changes_over_the_same_list_one_is_refused() {
        let mut rows = MemoryRows::default();
        assert_eq!(members(&rows), Ok(None));
        assert_eq!(put(&mut rows, 0, "first"), Reply::Done);
        let Reply::Refused(refusal) = put(&mut rows, 0, "late") else { panic!("taken") };
        assert_eq!(refusal.reason, Reason::ExpectedVersion { expected: 0, current: 1 });
        assert_eq!(members(&rows), Ok(Some((1, Bytes::from_static(b"first")))));
        assert_eq!(put(&mut rows, 1, "second"), Reply::Done);
        assert_eq!(members(&rows), Ok(Some((2, Bytes::from_static(b"second")))));
    }

    #[test]
    fn a_list_has_a_longest_length() {
        let mut rows = MemoryRows::default();
        let Reply::Refused(refusal) = put(&mut rows, 0, vec![7; MEMBER_LIST_BYTES_MAX + 1]) else {
            panic!("one past is taken")
        };
        assert_eq!(refusal.code(), tl_types::ErrorCode::PayloadTooLarge);
        assert_eq!(put(&mut rows, 0, vec![7; MEMBER_LIST_BYTES_MAX]), Reply::Done);
    }

    #[test]
    fn a_row_without_a_number_is_damage() {
        let mut rows = MemoryRows::default();
        let key = RowKey::group(GroupField::Members);
        rows.write(vec![(key, Some(Bytes::from_static(b"short")))]);
        assert!(matches!(members(&rows), Err(Poison::Damaged(_))));
    }
}
