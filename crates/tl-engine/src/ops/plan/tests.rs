use tl_types::{Index, Term};

use super::*;
use crate::ops::look::Replica;

fn members(voters: &[u64], outgoing: &[u64], learners: &[u64]) -> Members {
    let peers = |numbers: &[u64]| numbers.iter().copied().map(PeerId).collect::<Vec<_>>();
    Members {
        voters: peers(voters),
        voters_outgoing: peers(outgoing),
        learners: peers(learners),
        ..Members::founding(&peers(&[1, 2, 3]))
    }
}

fn wanted(numbers: &[u64]) -> Wanted {
    let peers: BTreeSet<PeerId> = numbers.iter().copied().map(PeerId).collect();
    let next_peer = PeerId(peers.last().expect("somebody votes").0 + 1);
    Wanted { peers, next_peer, heirs: BTreeMap::new() }
}

/// The same with lives that are over and who has their name now.
fn wanted_of(numbers: &[u64], heirs: &[(u64, u64)]) -> Wanted {
    let heirs = heirs.iter().map(|(old, new)| (PeerId(*old), PeerId(*new))).collect();
    Wanted { heirs, ..wanted(numbers) }
}

fn step(members: &Members, list: &[u64], is_caught_up: bool) -> Step {
    next_step(members, &wanted(list), |_| is_caught_up)
}

const ADD: MemberChange = MemberChange::AddLearner(PeerId(4));
const SWAP: MemberChange = MemberChange::Swap { new_in: PeerId(4), old_out: PeerId(2) };

#[test]
fn each_step_is_found_by_looking_at_the_group() {
    let list = [1, 3, 4];
    assert_eq!(step(&members(&[1, 2, 3], &[], &[]), &[1, 2, 3], false), Step::Done);
    assert_eq!(step(&members(&[1, 2, 3], &[], &[]), &list, false), Step::Change(ADD));
    assert_eq!(step(&members(&[1, 2, 3], &[], &[4]), &list, false), Step::Wait);
    assert_eq!(step(&members(&[1, 2, 3], &[], &[4]), &list, true), Step::Change(SWAP));
    let joint = members(&[1, 3, 4], &[1, 2, 3], &[]);
    assert_eq!(step(&joint, &list, true), Step::Change(MemberChange::LeaveJoint));
    assert_eq!(step(&members(&[1, 3, 4], &[], &[]), &list, false), Step::Done);
}

#[test]
fn a_new_life_that_is_lost_too_makes_way_for_the_next() {
    let list = [1, 3, 5];
    let remove = MemberChange::RemoveLearner(PeerId(4));
    assert_eq!(step(&members(&[1, 2, 3], &[], &[4]), &list, true), Step::Change(remove));
    let add = Step::Change(MemberChange::AddLearner(PeerId(5)));
    assert_eq!(step(&members(&[1, 2, 3], &[], &[]), &list, true), add, "it never voted");
    assert_eq!(step(&members(&[1, 3, 4], &[], &[]), &list, true), add, "it voted already");
    let swap = MemberChange::Swap { new_in: PeerId(5), old_out: PeerId(4) };
    assert_eq!(step(&members(&[1, 3, 4], &[], &[5]), &list, true), Step::Change(swap));
    // What is joint is left first, whoever was meant.
    let joint = members(&[1, 3, 4], &[1, 2, 3], &[]);
    assert_eq!(step(&joint, &list, true), Step::Change(MemberChange::LeaveJoint));
}

/// Takes every step until there is none, each member caught up at once; `see` looks at what comes of it.
fn follow(mut members: Members, wanted: &Wanted, mut see: impl FnMut(&Members)) -> Members {
    for _ in 0..32 {
        let Step::Change(change) = next_step(&members, wanted, |_| true) else { break };
        match change {
            MemberChange::AddLearner(peer) => {
                assert!(peer > members.highest, "{peer} may have been a member");
                members.highest = peer;
                members.learners.push(peer);
            }
            MemberChange::RemoveLearner(peer) => members.learners.retain(|it| *it != peer),
            MemberChange::Swap { new_in, old_out } => {
                members.learners.retain(|it| *it != new_in);
                members.voters_outgoing = members.voters.clone();
                members.voters.retain(|it| *it != old_out);
                members.voters.push(new_in);
            }
            MemberChange::LeaveJoint => members.voters_outgoing.clear(),
        }
        see(&members);
    }
    members
}

#[test]
fn of_two_members_that_are_replaced_at_once_each_gets_its_own_place() {
    // 2 and 4 are lost; whoever had 4 was given 6, and whoever had 2 was given 7.
    let names = [(2, 7), (4, 6)];
    let name =
        |peer: &PeerId| names.iter().find(|(old, _)| *old == peer.0).map_or(peer.0, |it| it.1);
    let founding = Members::founding(&[1, 2, 3, 4, 5].map(PeerId));
    let mut seen = 0;
    let last = follow(founding, &wanted_of(&[1, 3, 5, 6, 7], &names), |members| {
        seen += 1;
        let of_names: BTreeSet<u64> = members.voters.iter().map(name).collect();
        assert_eq!(of_names.len(), 5, "two lives of a name count: {:?}", members.voters);
    });
    assert_eq!(
        BTreeSet::from_iter(last.voters.iter().copied()),
        [1, 3, 5, 6, 7].map(PeerId).into()
    );
    assert_eq!(seen, 6);
}

#[test]
fn where_names_are_not_known_or_were_mixed_up_the_group_comes_to_the_list_all_the_same() {
    let list = [1, 3, 5, 6, 7];
    let five = [1, 2, 3, 4, 5];
    // Another release let 6 come in for 2, whose place is that of 7.
    let mixed = [1, 3, 4, 5, 6];
    for (voters, heirs) in [
        (five, &[][..]),
        (five, &[(2, 7)]),
        (five, &[(4, 6)]),
        (mixed, &[(2, 7), (4, 6)]),
        (mixed, &[]),
    ] {
        let founding = Members::founding(&voters.map(PeerId));
        let last = follow(founding, &wanted_of(&list, heirs), |_| {});
        assert_eq!(BTreeSet::from_iter(last.voters.iter().copied()), list.map(PeerId).into());
        assert!(last.learners.is_empty() && !last.is_joint());
    }
}

/// How many names have a vote, where lives that are over are known by their heirs.
fn names(members: &Members, wanted: &Wanted) -> usize {
    let name = |peer: &PeerId| wanted.heirs.get(peer).copied().unwrap_or(*peer);
    members.voters.iter().map(name).collect::<BTreeSet<_>>().len()
}

#[test]
fn two_lives_of_one_name_that_both_vote_hold_up_no_other_name() {
    // Whoever had 2 was given 7, and 6 came in for it; 4 and then 6 were lives of what is 8 now.
    let wanted = wanted_of(&[1, 3, 5, 7, 8], &[(2, 7), (4, 8), (6, 8)]);
    let mixed = Members::founding(&[1, 3, 4, 5, 6].map(PeerId));
    let add = MemberChange::AddLearner(PeerId(7));
    assert_eq!(next_step(&mixed, &wanted, |_| true), Step::Change(add));
    let last = follow(mixed, &wanted, |_| {});
    assert_eq!(BTreeSet::from_iter(last.voters), wanted.peers);
}

#[test]
fn from_any_mix_of_lives_a_group_comes_to_the_list_and_no_name_gets_a_second_vote() {
    const VOTERS: u64 = 5;
    let mut mixes = 0;
    for kept in 0..1_u32 << VOTERS {
        let is_kept = |peer: &u64| kept & (1 << (peer - 1)) > 0;
        let (stay, gone): (Vec<u64>, Vec<u64>) = (1..=VOTERS).partition(is_kept);
        let new: Vec<u64> = (VOTERS + 2..).take(gone.len()).collect();
        // Whose life each of them was: that of a new member, or one that votes here, or one that has
        // no copy of the group, or nobody knows.
        let mut heirs: Vec<Option<u64>> = new.iter().copied().map(Some).collect();
        heirs.extend(stay.first().copied().map(Some));
        heirs.extend([Some(99), None]);
        let all: Vec<u64> = stay.iter().chain(&new).copied().collect();
        for mix in 0..heirs.len().pow(gone.len() as u32) {
            let heir_of = |(at, old): (usize, &u64)| {
                let heir = heirs[mix / heirs.len().pow(at as u32) % heirs.len()];
                heir.map(|heir| (*old, heir))
            };
            let of_gone: Vec<(u64, u64)> = gone.iter().enumerate().filter_map(heir_of).collect();
            let wanted = Wanted { next_peer: PeerId(100), ..wanted_of(&all, &of_gone) };
            let mut members = Members::founding(&(1..=VOTERS).map(PeerId).collect::<Vec<_>>());
            // A life that was lost before it had a vote.
            members.learners = vec![PeerId(VOTERS + 1)];
            members.highest = PeerId(VOTERS + 1);
            let mut votes = names(&members, &wanted);
            let last = follow(members, &wanted, |members| {
                assert!(names(members, &wanted) >= votes, "{of_gone:?}: {members:?}");
                votes = names(members, &wanted);
            });
            assert!(last.learners.is_empty() && !last.is_joint());
            assert_eq!(BTreeSet::from_iter(last.voters), wanted.peers, "{of_gone:?}");
            mixes += 1;
        }
    }
    assert!(mixes > 20_000, "{mixes}");
}

#[test]
fn a_list_that_is_older_than_the_group_takes_nobody_out_of_it() {
    // The list before the last one; the group has been given 5 in place of 4 by another leader.
    let mut members = members(&[1, 2, 3], &[], &[5]);
    members.highest = PeerId(5);
    assert_eq!(step(&members, &[1, 3, 4], true), Step::Wait);
    assert_eq!(step(&members, &[1, 2, 3], true), Step::Wait);
    let swap = MemberChange::Swap { new_in: PeerId(5), old_out: PeerId(2) };
    assert_eq!(step(&members, &[1, 3, 5], true), Step::Change(swap));
    // Both majorities are needed meanwhile, which no list asks for.
    let mut joint = super::tests::members(&[1, 3, 5], &[1, 2, 3], &[]);
    joint.highest = PeerId(5);
    assert_eq!(step(&joint, &[1, 2, 3], true), Step::Change(MemberChange::LeaveJoint));
}

fn look(group: u16, role: Role, members: Members, lag: Option<u64>) -> GroupLook {
    let followers = lag.map(|lag| Replica {
        peer: PeerId(4),
        matched: Some(Index(1)),
        lag_entries: lag,
        is_cut_off: false,
    });
    GroupLook {
        group: GroupId(group),
        role,
        term: Term(1),
        leader: Some(PeerId(1)),
        last: Index(9),
        committed: Index(9),
        applied: Index(9),
        members,
        followers: followers.into_iter().collect(),
    }
}

#[test]
fn two_groups_at_a_time_and_only_those_led_here() {
    let old = || members(&[1, 2, 3], &[], &[]);
    let list = wanted(&[1, 3, 4]);
    let begun = |group, lag| look(group, Role::Leader, members(&[1, 2, 3], &[], &[4]), Some(lag));
    let mut looks = vec![look(0, Role::Follower, old(), None)];
    looks.extend((1..6).map(|group| look(group, Role::Leader, old(), None)));
    assert_eq!(due(&looks, |_| list.clone()), [(GroupId(1), ADD), (GroupId(2), ADD)]);
    looks[1] = begun(1, CAUGHT_UP_ENTRIES + 1);
    looks[2] = begun(2, CAUGHT_UP_ENTRIES);
    assert_eq!(due(&looks, |_| list.clone()), [(GroupId(2), SWAP)], "one waits, one goes on");
    looks[2] = look(2, Role::Leader, members(&[1, 3, 4], &[], &[]), Some(0));
    assert_eq!(due(&looks, |_| list.clone()), [(GroupId(3), ADD)], "there is room for one");
    // What others began is gone on with, however much it is.
    for (at, look) in looks.iter_mut().enumerate() {
        *look = begun(at as u16, 0);
    }
    assert_eq!(due(&looks, |_| list.clone()).len(), 6);
}

#[test]
fn progress_counts_groups_and_names_who_is_replaced() {
    let identity = tempfile::tempdir().expect("temp dir");
    let names = ["a", "b", "c"].map(|name| (name.to_owned(), identity.path().join(name)));
    let ids = std::cell::Cell::new(0);
    let fresh = || {
        ids.set(ids.get() + 1);
        [ids.get(); 16]
    };
    crate::cluster::found(&names, 2, tl_types::UnixMs(1), fresh).expect("founded");
    let identity = crate::identity::Identity::open(&names[0].1).expect("read").expect("there");
    let list = MemberList::of_founding(&identity).replaced("b", [9; 16]).expect("a member");
    let old = look(0, Role::Follower, members(&[1, 2, 3], &[], &[4]), None);
    let new = look(1, Role::Leader, members(&[1, 3, 4], &[], &[]), None);
    let placement = Placement::new(["a", "b", "c"], None, 2);
    let progress = |looks: &[GroupLook]| super::progress(looks, &list, &placement);
    let half = progress(&[old, new.clone()]);
    assert_eq!((half.number, half.done, half.groups), (1, 1, 2));
    assert_eq!(half.replacing, ["b"]);
    assert!(!half.is_complete(2));
    let all = progress(&[new.clone(), new]);
    assert!(all.is_complete(2) && all.replacing.is_empty());
    assert!(!progress(&[]).is_complete(2), "nothing was seen");
}

#[test]
fn a_group_gets_the_new_life_of_a_member_that_has_it_and_others_are_left_alone() {
    let dir = tempfile::tempdir().expect("temp dir");
    let names = ["a", "b", "c", "d", "e"];
    let members = names.map(|name| (name.to_owned(), dir.path().join(name)));
    let ids = std::cell::Cell::new(0);
    let fresh = || {
        ids.set(ids.get() + 1);
        [ids.get(); 16]
    };
    crate::cluster::found(&members, 64, tl_types::UnixMs(1), fresh).expect("founded");
    let identity = crate::identity::Identity::open(&members[0].1).expect("read").expect("there");
    assert_eq!(identity.copies, Some(3));
    let founding = MemberList::of_founding(&identity);
    let list = founding.replaced("b", [9; 16]).expect("a member");
    let placement = Placement::new(names, identity.copies, 64);
    let looks: Vec<GroupLook> = (0..64)
        .map(|group| {
            let voters = placement.peers(GroupId(group), &founding);
            look(group, Role::Leader, Members::founding(&voters), None)
        })
        .collect();
    let (mut its, mut others) = (0, 0);
    for look in &looks {
        let step = step_of(look, &Wanted::by(&list, &placement, look.group));
        if look.members.is_voter(PeerId(2)) {
            its += 1;
            assert_eq!(step, Step::Change(MemberChange::AddLearner(PeerId(6))));
        } else {
            others += 1;
            assert_eq!(step, Step::Done);
        }
    }
    assert!(its > 10 && others > 10, "{its} and {others}");
    let half = progress(&looks, &list, &placement);
    assert_eq!((half.done, half.groups), (others, 64));
    assert_eq!(half.replacing, ["b"], "the others vote in all groups that they have");
}
