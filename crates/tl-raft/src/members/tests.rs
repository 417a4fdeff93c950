#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use raft::{Changer, ProgressTracker};

use super::*;

fn peers(numbers: &[u64]) -> Vec<PeerId> {
    numbers.iter().copied().map(PeerId).collect()
}

fn members(at: u64, voters: &[u64], outgoing: &[u64], learners: &[u64], highest: u64) -> Members {
    Members {
        at: Index(at),
        voters: peers(voters),
        voters_outgoing: peers(outgoing),
        learners: peers(learners),
        highest: PeerId(highest),
    }
}

/// Any members that three, four or five voters may come to.
fn any_members() -> impl Strategy<Value = Members> {
    let numbers = prop::collection::btree_set(1..12u64, 5..8);
    (numbers, 3..5usize, any::<bool>(), any::<bool>()).prop_map(
        |(numbers, voters, is_joint, has_learner)| {
            let numbers: Vec<u64> = numbers.into_iter().collect();
            let outgoing = if is_joint { &numbers[1..=voters] } else { &[] };
            let learners = if has_learner { &numbers[numbers.len() - 1..] } else { &numbers[..0] };
            let voters = &numbers[..voters];
            let votes = |peer: &u64| voters.contains(peer) || outgoing.contains(peer);
            let learners: Vec<u64> = learners.iter().copied().filter(|peer| !votes(peer)).collect();
            members(7, voters, outgoing, &learners, 20)
        },
    )
}

/// What Raft makes of a change.
fn told(tracker: &mut ProgressTracker, change: &ConfChangeV2) {
    let mut changer = Changer::new(tracker);
    let (conf, changes) = if change.leave_joint() {
        changer.leave_joint()
    } else if let Some(auto_leave) = change.enter_joint() {
        assert!(!auto_leave, "a joint change is left by an entry of its own");
        changer.enter_joint(auto_leave, &change.changes)
    } else {
        changer.simple(&change.changes)
    }
    .unwrap();
    tracker.apply_conf(conf, changes, 1);
}

fn tracker_of(members: &Members) -> ProgressTracker {
    let mut tracker = ProgressTracker::new(8);
    let nobody = members_of_nobody();
    members.steps_from(&nobody).iter().for_each(|step| told(&mut tracker, step));
    tracker
}

fn members_of_nobody() -> Members {
    members(0, &[], &[], &[], 0)
}

proptest! {
    #[test]
    fn members_come_back_from_their_bytes(members in any_members()) {
        prop_assert_eq!(Members::decode(&members.encode()), Ok(members.clone()));
        let entry = members.encode_entry();
        prop_assert!(is_change(&entry));
        prop_assert_eq!(Members::of_entry(members.at, &entry), Some(Ok(members.clone())));
        prop_assert!(Members::of_entry(Index(8), &entry).unwrap().is_err(), "another entry's");
        for cut in 0..members.encode().len() {
            prop_assert!(Members::decode(&members.encode()[..cut]).is_err());
        }
    }

    #[test]
    fn any_bytes_are_members_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(members) = Members::decode(&bytes) {
            prop_assert_eq!(members.encode(), bytes.clone());
        }
        let versioned = [&[VERSION][..], &bytes].concat();
        if let Ok(members) = Members::decode(&versioned) {
            prop_assert_eq!(members.encode(), versioned);
        }
    }

    #[test]
    fn raft_comes_from_any_members_to_any_others(one in any_members(), other in any_members()) {
        let mut tracker = tracker_of(&one);
        prop_assert!(one.are(&tracker.conf().to_conf_state()));
        other.steps_from(&one).iter().for_each(|step| told(&mut tracker, step));
        prop_assert!(other.are(&tracker.conf().to_conf_state()));
    }

    #[test]
    fn one_step_is_taken_only_from_what_it_came_from(
        one in any_members(),
        other in any_members(),
    ) {
        if let Some(step) = one.step_to(&other) {
            let mut tracker = tracker_of(&one);
            told(&mut tracker, &step);
            prop_assert!(other.are(&tracker.conf().to_conf_state()));
        }
    }
}

/// The bytes of version 1, as they must stay.
#[test]
fn the_encoding_does_not_change() {
    let number = |number: u8| [0, 0, 0, 0, 0, 0, 0, number];
    let members = members(300, &[1, 2, 4], &[1, 2, 3], &[], 4);
    let golden = [
        &[1][..],
        &[0, 0, 0, 0, 0, 0, 1, 44],
        &number(4),
        &[3],
        &number(1),
        &number(2),
        &number(4),
        &[3],
        &number(1),
        &number(2),
        &number(3),
        &[0],
    ]
    .concat();
    assert_eq!(members.encode(), golden);
    assert_eq!(members.encode_entry(), [b"\0TLM", &golden[..]].concat());
}

#[test]
fn members_that_cannot_be_are_refused() {
    let cases = [
        ("nobody", members(0, &[], &[], &[], 0)),
        ("number 0", members(0, &[0, 1, 2], &[], &[], 3)),
        ("above the highest", members(0, &[1, 2, 4], &[], &[], 3)),
        ("twice", members(0, &[1, 2, 2], &[], &[], 3)),
        ("out of order", members(0, &[2, 1, 3], &[], &[], 3)),
        ("votes and does not", members(5, &[1, 2, 3], &[], &[3], 3)),
        ("one vote and a learner", members(5, &[1], &[], &[2], 2)),
        ("one vote by a change", members(5, &[1], &[], &[], 2)),
        ("two votes and a learner", members(0, &[1, 2], &[], &[3], 3)),
        ("from two votes", members(5, &[1, 2, 3], &[1, 2], &[], 3)),
        ("too many", members(0, &[1, 2, 3, 4, 5, 6, 7, 8], &[], &[], 8)),
    ];
    for (case, members) in cases {
        assert!(Members::decode(&members.encode()).is_err(), "{case}");
    }
    for sound in [members(0, &[1], &[], &[], 1), members(0, &[1, 2], &[], &[], 2)] {
        assert_eq!(Members::decode(&sound.encode()), Ok(sound.clone()));
    }
    let longer = [&members(0, &[1], &[], &[], 1).encode()[..], &[0]].concat();
    assert!(Members::decode(&longer).is_err());
}

#[test]
fn a_lost_disk_is_replaced_in_three_changes_and_a_number_comes_once() {
    let founding = Members::founding(&peers(&[3, 1, 2]));
    assert_eq!(founding, members(0, &[1, 2, 3], &[], &[], 3));
    let (new_in, old_out) = (PeerId(4), PeerId(3));
    let learning = founding.changed(MemberChange::AddLearner(new_in)).unwrap();
    assert_eq!(learning, members(0, &[1, 2, 3], &[], &[4], 4));
    let joint = learning.changed(MemberChange::Swap { new_in, old_out }).unwrap();
    assert_eq!(joint, members(0, &[1, 2, 4], &[1, 2, 3], &[], 4));
    let left = joint.changed(MemberChange::LeaveJoint).unwrap();
    assert_eq!(left, members(0, &[1, 2, 4], &[], &[], 4));
    assert!(left.is_gone(PeerId(3)) && !left.is_gone(PeerId(5)), "5 may come");
    assert_eq!(left.changed(MemberChange::AddLearner(old_out)), Err(ChangeRefused::NumberUsed));

    let removed = learning.changed(MemberChange::RemoveLearner(new_in)).unwrap();
    assert_eq!(removed, members(0, &[1, 2, 3], &[], &[], 4));
    assert_eq!(removed.changed(MemberChange::AddLearner(new_in)), Err(ChangeRefused::NumberUsed));
}

#[test]
fn what_members_do_not_allow_is_refused_by_name() {
    use ChangeRefused as R;
    use MemberChange::{AddLearner, LeaveJoint, RemoveLearner, Swap};
    let founding = Members::founding(&peers(&[1, 2, 3]));
    let learning = founding.changed(AddLearner(PeerId(4))).unwrap();
    let swap = |new_in, old_out| Swap { new_in: PeerId(new_in), old_out: PeerId(old_out) };
    let joint = learning.changed(swap(4, 3)).unwrap();
    let cases = [
        (&founding, AddLearner(PeerId(2)), R::AlreadyMember),
        (&founding, LeaveJoint, R::NotJoint),
        (&founding, swap(4, 3), R::NoLearner),
        (&founding, RemoveLearner(PeerId(4)), R::NoLearner),
        (&learning, AddLearner(PeerId(4)), R::AlreadyMember),
        (&learning, AddLearner(PeerId(5)), R::TooManyLearners),
        (&learning, swap(4, 5), R::NoVoter),
        (&learning, swap(3, 2), R::NoLearner),
        (&joint, AddLearner(PeerId(5)), R::Joint),
        (&joint, swap(4, 3), R::Joint),
        (&Members::founding(&peers(&[1])), AddLearner(PeerId(2)), R::TooFewVoters),
        (&Members::founding(&peers(&[1, 2])), AddLearner(PeerId(3)), R::TooFewVoters),
    ];
    for (members, change, reason) in cases {
        assert_eq!(members.changed(change), Err(reason), "{change:?} of {members:?}");
    }
}
