#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use tl_types::Generation;

use super::*;

const GROUP: GroupId = GroupId(4);

fn recovery(voters: u64, applied: (u64, u64), keep_bytes: usize) -> Recovery {
    let start = GroupStart {
        group: GROUP,
        voters: (1..=voters).map(PeerId).collect(),
        applied: (Index(applied.0), Term(applied.1)),
        generation: Generation(1),
    };
    Recovery::new(vec![start], keep_bytes)
}

fn entry(index: u64, term: u64) -> Record {
    Record::Entry {
        group: GROUP,
        term: Term(term),
        index: Index(index),
        data: Bytes::from_static(b"0123456789"),
    }
}

fn hard(term: u64, vote: u64) -> Record {
    Record::HardState { group: GROUP, term: Term(term), vote }
}

fn recovered(
    mut recovery: Recovery,
    records: impl IntoIterator<Item = Record>,
) -> Result<RecoveredGroup, RecoverError> {
    records.into_iter().for_each(|record| recovery.record(record));
    recovery.finish().map(|mut groups| groups.pop().unwrap())
}

fn terms(group: &RecoveredGroup) -> Vec<u64> {
    group.entries.iter().map(|entry| entry.term.0).collect()
}

#[test]
fn only_the_unapplied_tail_stays_and_the_last_hard_state_wins() {
    let records = [hard(1, 1), entry(1, 1), entry(2, 1), entry(3, 1), hard(2, 3), entry(4, 2)];
    let group = recovered(recovery(1, (2, 1), 1 << 20), records).unwrap();
    assert_eq!((group.term, group.vote), (Term(2), 3));
    assert_eq!(group.base, (Index(2), Term(1)));
    assert_eq!(terms(&group), [1, 2]);
    assert_eq!(group.last(), Index(4));
}

#[test]
fn an_entry_replaces_all_from_its_index_on() {
    let records = [hard(3, 0), entry(1, 1), entry(2, 1), entry(3, 1), entry(4, 1), entry(2, 3)];
    let group = recovered(recovery(1, (1, 1), 0), records).unwrap();
    assert_eq!(terms(&group), [3]);
    assert_eq!(group.last(), Index(2));
}

#[test]
fn a_replacement_below_what_is_applied_also_cuts_the_tail() {
    // 2..=5 of term 1 were cut off by term 2, of which 2 and 3 are applied; 4 and 5 are gone.
    let records = [
        hard(2, 0),
        entry(1, 1),
        entry(2, 1),
        entry(3, 1),
        entry(4, 1),
        entry(5, 1),
        entry(2, 2),
        entry(3, 2),
    ];
    for voters in [1, 3] {
        let group = recovered(recovery(voters, (3, 2), 1 << 20), records.clone()).unwrap();
        assert_eq!(group.last(), Index(3));
    }
}

#[test]
fn a_group_with_followers_keeps_applied_entries_up_to_the_budget() {
    let records: Vec<_> =
        std::iter::once(hard(1, 1)).chain((1..=100).map(|index| entry(index, 1))).collect();
    let all = recovered(recovery(3, (90, 1), 1 << 20), records.clone()).unwrap();
    assert_eq!(all.base, (Index(0), Term(0)));
    let size = all.entries[0].size();
    let some = recovered(recovery(3, (90, 1), 20 * size), records).unwrap();
    assert_eq!(some.base, (Index(71), Term(1)));
    assert_eq!(some.last(), Index(100));
}

#[test]
fn a_log_that_ends_before_what_is_applied_starts_there() {
    let group =
        recovered(recovery(3, (9, 2), 1 << 20), [hard(2, 1), entry(1, 1), entry(2, 2)]).unwrap();
    assert_eq!(group.base, (Index(9), Term(2)));
    assert!(group.entries.is_empty());
}

#[test]
fn an_installed_snapshot_takes_the_place_of_the_log_before_it() {
    let installed = Record::Installed {
        group: GROUP,
        index: Index(8),
        term: Term(2),
        generation: Generation(1),
    };
    let records = [hard(2, 1), entry(1, 1), entry(2, 1), installed, entry(9, 2)];
    let group = recovered(recovery(3, (8, 2), 1 << 20), records).unwrap();
    assert_eq!((group.base, group.last()), ((Index(8), Term(2)), Index(9)));
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let hole = recovered(recovery(1, (2, 1), 0), [hard(1, 1), entry(4, 1)]);
    assert_eq!(
        hole.unwrap_err(),
        RecoverError::Hole { group: GROUP, expected: Index(3), found: Index(4) }
    );
    let differs =
        recovered(recovery(1, (2, 2), 0), [hard(2, 1), entry(1, 1), entry(2, 1), entry(3, 2)]);
    assert!(matches!(differs.unwrap_err(), RecoverError::TermDiffers { index: Index(2), .. }));
    let forgotten = recovered(recovery(1, (0, 0), 0), [hard(1, 1), entry(1, 2)]);
    assert!(matches!(forgotten.unwrap_err(), RecoverError::TermForgotten { .. }));
}

#[test]
fn records_of_groups_that_live_elsewhere_are_counted() {
    let mut recovery = recovery(1, (0, 0), 0);
    recovery.record(Record::HardState { group: GroupId(99), term: Term(1), vote: 1 });
    assert_eq!(recovery.unknown_records(), 1);
}

#[test]
fn what_was_applied_on_the_way_leaves_nothing_behind() {
    let mut recovery = recovery(1, (1, 1), 0);
    for record in [hard(2, 1), entry(1, 1)] {
        recovery.record(record);
    }
    for index in 2..=3 {
        assert!(recovery.is_next(GROUP, Index(index)) && !recovery.is_next(GROUP, Index(9)));
        recovery.applied(GROUP, (Index(index), Term(2)));
    }
    let group = recovered(recovery, []).unwrap();
    assert_eq!((group.applied, group.base), (Index(3), (Index(3), Term(2))));
    assert_eq!(terms(&group), [0; 0]);
}

#[test]
fn only_what_follows_the_applied_entry_itself_may_be_applied_on_the_way() {
    let mut other = recovery(1, (1, 1), 0);
    other.record(entry(1, 2));
    assert!(!other.is_next(GROUP, Index(2)), "the log has another entry there");
    let mut hole = recovery(1, (1, 1), 0);
    assert!(!hole.is_next(GROUP, Index(3)));
    hole.record(entry(3, 1));
    assert!(!hole.is_next(GROUP, Index(4)));
    assert!(!hole.is_next(GroupId(9), Index(1)), "a group that does not live here");
}

#[test]
fn an_entry_that_comes_again_behind_its_application_is_named() {
    let mut recovery = recovery(1, (0, 0), 0);
    recovery.record(hard(2, 1));
    for index in 1..=3 {
        recovery.applied(GROUP, (Index(index), Term(1)));
    }
    let error = recovered(recovery, [entry(2, 2)]).unwrap_err();
    assert_eq!(error, RecoverError::Rewritten { group: GROUP, index: Index(2) });
}

fn installed(index: u64, term: u64, generation: u32) -> Record {
    let (index, term, generation) = (Index(index), Term(term), Generation(generation));
    Record::Installed { group: GROUP, index, term, generation }
}

#[test]
fn rows_put_in_place_that_the_store_does_not_know_of_decide() {
    let records =
        [hard(3, 0), entry(1, 1), entry(2, 1), installed(40, 3, 2), entry(41, 3), entry(42, 3)];
    let group = recovered(recovery(3, (2, 1), 1 << 20), records.clone()).unwrap();
    let rows = Staged { index: Index(40), term: Term(3), generation: Generation(2) };
    assert_eq!(group.installed(), Some(rows));
    assert_eq!((group.applied, group.base), (Index(40), (Index(40), Term(3))));
    assert_eq!(terms(&group), [3, 3]);
    let bare = recovered(recovery(3, (2, 1), 1 << 20), records[..4].to_vec()).unwrap();
    assert_eq!((bare.installed(), bare.last()), (Some(rows), Index(40)));
}

#[test]
fn rows_put_in_place_that_the_store_knows_of_change_nothing() {
    let records = [installed(40, 3, 1), hard(3, 0), entry(41, 3), entry(42, 3), entry(43, 3)];
    let group = recovered(recovery(3, (42, 3), 0), records).unwrap();
    assert_eq!(group.installed(), None);
    assert_eq!((group.applied, group.last()), (Index(42), Index(43)));
}

#[test]
fn a_hole_behind_rows_put_in_place_is_found() {
    let records = [hard(3, 0), installed(40, 3, 2), entry(42, 3)];
    let hole = recovered(recovery(3, (2, 1), 0), records).unwrap_err();
    let (expected, found) = (Index(41), Index(42));
    assert_eq!(hole, RecoverError::Hole { group: GROUP, expected, found });
}
