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
    for (position, record) in (0..).map(Position).zip(records) {
        recovery.record(position, record);
    }
    recovery.finish(&[]).map(|mut groups| groups.pop().unwrap())
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
    recovery.record(Position(0), Record::HardState { group: GroupId(99), term: Term(1), vote: 1 });
    assert_eq!(recovery.unknown_records(), 1);
}

#[test]
fn what_was_applied_on_the_way_leaves_nothing_behind() {
    let mut recovery = recovery(1, (1, 1), 0);
    for record in [hard(2, 1), entry(1, 1)] {
        recovery.record(Position(0), record);
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
    other.record(Position(0), entry(1, 2));
    assert!(!other.is_next(GROUP, Index(2)), "the log has another entry there");
    let mut hole = recovery(1, (1, 1), 0);
    assert!(!hole.is_next(GROUP, Index(3)));
    hole.record(Position(0), entry(3, 1));
    assert!(!hole.is_next(GROUP, Index(4)));
    assert!(!hole.is_next(GroupId(9), Index(1)), "a group that does not live here");
}

#[test]
fn an_entry_that_comes_again_behind_its_application_is_named() {
    let mut recovery = recovery(1, (0, 0), 0);
    recovery.record(Position(0), hard(2, 1));
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

/// Recovers three voters' group whose records stand at positions 10, 20, ... from a log with damage.
fn damaged(
    applied: (u64, u64),
    records: &[Record],
    damages: &[(u64, Option<u64>)],
) -> Result<RecoveredGroup, RecoverError> {
    let mut recovery = recovery(3, applied, 1 << 20);
    for (at, record) in (1..).zip(records) {
        recovery.record(Position(10 * at), record.clone());
    }
    let damage = |(at, entry): &(u64, Option<u64>)| LogDamage {
        position: Position(*at),
        group: Some(GROUP),
        entry: entry.map(Index),
    };
    let damages: Vec<_> = damages.iter().map(damage).collect();
    recovery.finish(&damages).map(|mut groups| groups.pop().unwrap())
}

fn change(at: u64, voters: &[u64], learners: &[u64]) -> Members {
    let peers = |numbers: &[u64]| numbers.iter().copied().map(PeerId).collect::<Vec<_>>();
    Members {
        at: Index(at),
        voters: peers(voters),
        voters_outgoing: Vec::new(),
        learners: peers(learners),
        highest: PeerId(9),
    }
}

fn change_entry(term: u64, members: &Members) -> Record {
    let (term, index, data) = (Term(term), members.at, members.encode_entry());
    Record::Entry { group: GROUP, term, index, data }
}

fn members_record(members: &Members) -> Record {
    Record::Membership { group: GROUP, bytes: members.encode() }
}

#[test]
fn a_group_that_lost_a_record_starts_from_its_rows_with_what_stands_highest() {
    let learner = change(3, &[1, 2, 3], &[4]);
    let swapped = change(4, &[1, 2, 4], &[]);
    let records = [
        hard(2, 3),
        entry(1, 2),
        entry(2, 2),
        change_entry(2, &learner),
        members_record(&learner),
        // That one was committed is only said by a later one in the log, which may be missing.
        change_entry(2, &swapped),
        change_entry(2, &change(5, &[1, 2, 4], &[5])),
    ];
    let group = damaged((2, 2), &records, &[(65, None)]).unwrap();
    assert!(group.is_doubted());
    assert_eq!((group.base, group.last()), ((Index(2), Term(2)), Index(2)), "no entries");
    assert_eq!((group.term, group.vote), (Term(2), 3));
    assert_eq!((&group.members, group.are_members_recorded), (&learner, true));
    // An entry of a later term says that the replica was in it, and of its vote then nothing.
    let later = [&records[..3], &[entry(3, 7)]].concat();
    let group = damaged((2, 2), &later, &[(35, None)]).unwrap();
    assert_eq!((group.term, group.vote), (Term(7), 0));
    let other = LogDamage { position: Position(15), group: Some(GroupId(5)), entry: None };
    let mut sound = recovery(3, (2, 2), 1 << 20);
    for (at, record) in (1..).zip(&records[..3]) {
        sound.record(Position(10 * at), record.clone());
    }
    assert!(!sound.finish(&[other]).unwrap()[0].is_doubted(), "that is another group's");
}

#[test]
fn a_record_that_the_group_is_doubted_takes_the_place_of_damage_before_it() {
    let doubted = [hard(2, 3), entry(1, 2), hard(2, DOUBTED)];
    for damages in [&[][..], &[(15, None)], &[(25, None)], &[(35, None)]] {
        let group = damaged((0, 0), &doubted, damages).unwrap();
        assert!(group.is_doubted() && group.term == Term(2) && group.vote == 3, "{damages:?}");
    }
    let members = change(9, &[1, 2, 3], &[]);
    let over =
        [&doubted[..], &[hard(4, 2), installed(40, 4, 2), members_record(&members)]].concat();
    for (at, is_doubted) in [(15, false), (25, false), (35, true), (45, true), (65, true)] {
        let group = damaged((0, 0), &over, &[(at, None)]).unwrap();
        assert_eq!(group.is_doubted(), is_doubted, "damage at {at}");
        assert_eq!((group.members.at, group.applied), (Index(9), Index(40)));
        assert_eq!(group.installed().unwrap().generation, Generation(2));
    }
}

#[test]
fn a_lost_entry_that_is_applied_durably_is_no_loss_if_the_rest_fits() {
    let records = [hard(2, 3), entry(1, 1), entry(3, 2), entry(4, 2), entry(5, 2)];
    let group = damaged((3, 2), &records, &[(25, Some(2))]).unwrap();
    assert!(!group.is_doubted());
    assert_eq!((group.base, group.last()), ((Index(3), Term(2)), Index(5)));
    // One behind what the store has is one.
    assert!(damaged((3, 2), &records, &[(45, Some(4))]).unwrap().is_doubted());
    assert!(
        damaged((3, 2), &records, &[(25, None)]).unwrap().is_doubted(),
        "it may have been a vote"
    );
    // What stands behind the hole was cut off by what stood in it.
    let stale = [hard(2, 3), entry(1, 1), entry(2, 1), entry(3, 1), entry(4, 1)];
    assert!(damaged((2, 2), &stale, &[(55, Some(2))]).unwrap().is_doubted());
    // All that is left is applied.
    let group = damaged((9, 2), &records, &[(25, Some(2))]).unwrap();
    assert_eq!((group.is_doubted(), group.base), (false, (Index(9), Term(2))));
}

#[test]
fn what_a_start_went_on_with_behind_a_lost_entry_stays_at_the_next_one() {
    let first = [hard(2, 3), entry(1, 1), entry(2, 1), entry(3, 1)];
    let group = damaged((5, 2), &first, &[(45, Some(4))]).unwrap();
    assert_eq!((group.is_doubted(), group.last()), (false, Index(5)));
    let second = [&first[..], &[entry(6, 2), entry(7, 2)]].concat();
    let group = damaged((5, 2), &second, &[(45, Some(4))]).unwrap();
    assert_eq!((group.is_doubted(), group.base), (false, (Index(5), Term(2))));
    assert_eq!((group.last(), terms(&group)), (Index(7), vec![2, 2]));
    // What stood in a hole behind them may have cut them off.
    for at in [55, 65] {
        assert!(damaged((5, 2), &second, &[(at, Some(4))]).unwrap().is_doubted(), "at {at}");
    }
    // So it is for the first entries that are left of a log.
    let rest = [hard(2, 3), entry(3, 2), entry(4, 2)];
    let group = damaged((2, 2), &rest, &[(5, Some(2))]).unwrap();
    assert_eq!((group.is_doubted(), group.last()), (false, Index(4)));
}

#[test]
fn a_lost_entry_before_rows_that_were_put_in_place_is_no_loss() {
    let records = [hard(2, 3), entry(2, 2), entry(3, 2), installed(40, 2, 2), entry(41, 2)];
    for applied in [3, 2] {
        let group = damaged((applied, 2), &records, &[(15, Some(1))]).unwrap();
        assert!(!group.is_doubted(), "applied {applied} before the rows");
        assert_eq!((group.base.0, group.last()), (Index(40), Index(41)));
    }
    // Behind them, it is missing from what follows.
    let hole = [&records[..4], &[entry(42, 2)]].concat();
    assert!(damaged((3, 2), &hole, &[(45, Some(41))]).unwrap().is_doubted());
}

#[test]
fn what_damage_explains_is_no_error_and_what_it_does_not_still_is() {
    let hole = [hard(1, 1), entry(4, 1)];
    assert!(damaged((2, 1), &hole, &[(15, Some(3))]).unwrap().is_doubted());
    let forgotten = [hard(1, 1), entry(1, 2)];
    assert!(damaged((0, 0), &forgotten, &[(15, None)]).unwrap().is_doubted());
    let mut alone = recovery(1, (0, 0), 0);
    alone.record(Position(10), hard(1, 1));
    let damage = LogDamage { position: Position(20), group: None, entry: None };
    assert_eq!(alone.finish(&[damage]).unwrap_err(), RecoverError::Alone { group: GROUP });
}

#[test]
fn rows_that_the_log_names_again_behind_damage_do_not_cut_off_what_came_since() {
    let records =
        [hard(3, 0), installed(40, 3, 1), entry(41, 3), installed(40, 3, 1), entry(42, 3)];
    let group = damaged((40, 3), &records, &[]).unwrap();
    assert_eq!((group.base.0, group.last()), (Index(40), Index(42)));
}
