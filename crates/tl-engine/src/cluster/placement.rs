//! Which members have a copy of a group.
//!
//! ```text
//!   group 17:  node-1 0.93   node-2 0.12   node-3 0.55   node-4 0.71   node-5 0.08
//!                 └────────────── the three highest ────────┘
//! ```
//!
//! Every pair of a group and a member's *name* has a fixed draw, a hash, and the members with the
//! highest ones have the group (rendezvous hashing). So nothing has to be stored but how many copies
//! there are, every node finds the same, and a new life under the same name has the places of the
//! one before it.
//!
//! Invariants:
//!  - R1 a group has as many copies as were founded, on different members, or one on each member
//!    where there are fewer members than that;
//!  - R2 with one name more or less, a group keeps its places but for at most one: those that the
//!    new name wins, or that the gone name had;
//!  - R3 the first group, which keeps the list of members, is on every member.
//!
//! Absent: weights, racks, and places that move while the cluster runs.

use tl_raft::PeerId;
use tl_types::GroupId;
use xxhash_rust::xxh3::Xxh3;

use super::MemberList;

/// Copies of each group in a cluster with more members than that.
pub const COPIES: u8 = 3;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// By group: places of its members among all names in order, themselves in order.
    homes: Vec<Box<[u8]>>,
    copies: usize,
}

impl Placement {
    /// Places `groups` groups on members with these names, which are in order and different. Without
    /// a number of copies every member has every group.
    ///
    /// # Panics
    /// With more than 255 names: a cluster has far fewer members.
    #[must_use]
    pub fn new<'a>(
        names: impl IntoIterator<Item = &'a str>,
        copies: Option<u8>,
        groups: u16,
    ) -> Placement {
        let names: Vec<&str> = names.into_iter().collect();
        assert!(names.len() <= usize::from(u8::MAX), "few enough members to count in a byte");
        let copies = copies.map_or(names.len(), usize::from).min(names.len());
        let homes = (0..groups).map(GroupId).map(|group| homes_of(group, &names, copies));
        Placement { homes: homes.collect(), copies }
    }

    /// Copies of each group but the first.
    #[must_use]
    pub fn copies(&self) -> usize {
        self.copies
    }

    /// The members of a group as places among all names in order; none for a group that there is
    /// not.
    #[must_use]
    pub fn places(&self, group: GroupId) -> &[u8] {
        self.homes.get(usize::from(group.0)).map_or(&[], |homes| homes)
    }

    /// Whether the name at this place has the group.
    #[must_use]
    pub fn has(&self, group: GroupId, place: usize) -> bool {
        self.places(group).iter().any(|home| usize::from(*home) == place)
    }

    /// The groups of the name at this place.
    pub fn groups_of(&self, place: usize) -> impl Iterator<Item = GroupId> + '_ {
        let groups = (0..).map(GroupId).zip(&self.homes);
        let has = move |homes: &[u8]| homes.iter().any(|home| usize::from(*home) == place);
        groups.filter(move |(_, homes)| has(homes)).map(|(group, _)| group)
    }

    /// The members of a group in their present lives, in order of their names. `members` are the
    /// lives of all names in order.
    pub fn pick<'a, T>(&self, group: GroupId, members: &'a [T]) -> impl Iterator<Item = &'a T> {
        self.places(group).iter().filter_map(|place| members.get(usize::from(*place)))
    }

    /// The same from a list of members.
    #[must_use]
    pub fn peers(&self, group: GroupId, list: &MemberList) -> Vec<PeerId> {
        self.pick(group, &list.members).map(|member| PeerId(member.peer)).collect()
    }
}

fn homes_of(group: GroupId, names: &[&str], copies: usize) -> Box<[u8]> {
    let all = 0..u8::try_from(names.len()).expect("few members");
    if group == GroupId(0) {
        return all.collect();
    }
    let mut drawn: Vec<(u64, u8)> =
        all.map(|place| (draw(group, names[usize::from(place)]), place)).collect();
    // Equal draws are as good as impossible; the order of names decides them.
    drawn.sort_unstable_by_key(|(draw, place)| (std::cmp::Reverse(*draw), *place));
    let mut homes: Vec<u8> = drawn.into_iter().take(copies).map(|(_, place)| place).collect();
    homes.sort_unstable();
    homes.into()
}

/// The draw of a name for a group: fixed for good, since founded clusters lie where it says.
fn draw(group: GroupId, name: &str) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(&group.0.to_be_bytes());
    hash.update(name.as_bytes());
    hash.digest()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const GROUPS: u16 = 256;

    /// Names as somebody may give them, different for each seed and in order.
    fn names(seed: u64, count: usize) -> Vec<String> {
        let made = (0..count as u64).map(|number| match seed % 3 {
            0 => format!("node-{}", seed + number),
            1 => format!("{number}.db.example-{seed}"),
            _ => format!("{:x}", (seed * 31 + number).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        });
        BTreeSet::from_iter(made).into_iter().collect()
    }

    fn placed(names: &[String], copies: Option<u8>) -> Placement {
        Placement::new(names.iter().map(String::as_str), copies, GROUPS)
    }

    /// By group, the names that have it.
    fn homes(names: &[String]) -> Vec<BTreeSet<&str>> {
        let placement = placed(names, Some(COPIES));
        let named = |group| placement.pick(group, names).map(String::as_str).collect();
        (0..GROUPS).map(|group| named(GroupId(group))).collect()
    }

    #[test]
    fn three_copies_where_there_are_more_members_and_one_on_each_where_there_are_not() {
        for count in 1..=9 {
            let names = names(7, count);
            let placement = placed(&names, Some(COPIES));
            assert_eq!(placement.copies(), count.min(3));
            assert_eq!(placement.places(GroupId(0)).len(), count, "the first is everywhere");
            for group in (1..GROUPS).map(GroupId) {
                let places: BTreeSet<_> = placement.places(group).iter().collect();
                assert_eq!(places.len(), count.min(3), "on different members");
            }
            assert!(placement.places(GroupId(GROUPS)).is_empty(), "there is no such group");
            let everywhere = placed(&names, None);
            assert!((0..GROUPS).all(|group| everywhere.places(GroupId(group)).len() == count));
        }
        let three = names(7, 3);
        assert_eq!(placed(&three, Some(COPIES)), placed(&three, None), "three have everything");
    }

    #[test]
    fn members_have_about_as_many_groups_as_one_another() {
        for seed in 0..60 {
            for count in [4, 5, 7] {
                let names = names(seed, count);
                let placement = placed(&names, Some(COPIES));
                let even = usize::from(GROUPS) * 3 / count;
                for place in 0..count {
                    let has = placement.groups_of(place).count();
                    let differs = has.abs_diff(even) * 100 / even;
                    assert!(differs <= 30, "{has} of {even} groups: seed {seed}, {count} names");
                }
            }
        }
    }

    #[test]
    fn a_name_more_or_less_moves_only_its_own_share() {
        for seed in 0..60 {
            let more = names(seed, 6);
            let gone = more[usize::from(seed as u8) % 6].clone();
            let less: Vec<String> = more.iter().filter(|name| **name != gone).cloned().collect();
            let mut moved = 0;
            for (with, without) in homes(&more).iter().zip(&homes(&less)).skip(1) {
                if !with.contains(gone.as_str()) {
                    assert_eq!(with, without, "seed {seed}");
                    continue;
                }
                moved += 1;
                let stay: BTreeSet<&str> =
                    with.iter().copied().filter(|name| *name != gone).collect();
                assert!(stay.is_subset(without), "two stay and one comes: seed {seed}");
            }
            assert!((64..=192).contains(&moved), "about half of all groups had it: {moved}");
        }
    }

    #[test]
    fn places_are_a_promise_golden() {
        let five: Vec<String> = (1..=5).map(|number| format!("node-{number}")).collect();
        let placement = placed(&five, Some(COPIES));
        let seen: Vec<&[u8]> = (0..8).map(|group| placement.places(GroupId(group))).collect();
        let golden: Vec<&[u8]> = GOLDEN.to_vec();
        assert_eq!(seen, golden);
        for place in 0..5 {
            let groups: Vec<GroupId> = placement.groups_of(place).collect();
            let has = |group: &u16| placement.has(GroupId(*group), place);
            assert_eq!(groups, (0..GROUPS).filter(has).map(GroupId).collect::<Vec<_>>());
        }
    }

    /// Of node-1 to node-5, the members of the first groups.
    const GOLDEN: [&[u8]; 8] = [
        &[0, 1, 2, 3, 4],
        &[0, 3, 4],
        &[1, 3, 4],
        &[1, 3, 4],
        &[0, 3, 4],
        &[0, 1, 4],
        &[1, 2, 4],
        &[0, 1, 3],
    ];
}
