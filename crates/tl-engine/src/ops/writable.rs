//! Why a group takes no writes, when it takes none.
//!
//! Seen from one node: it knows who leads as far as it was told, who is silent, and what the
//! others said of themselves. The first reason that holds is the one that is told.

use serde::Serialize;

use super::states::NodeState;

/// Why a group takes no writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Unwritable {
    /// Too few of its members are heard of and have not stopped it because of damage; writes go on when
    /// enough of the missing are back.
    NoMajority {
        /// Members of which nothing is heard.
        missing: Vec<String>,
    },
    /// Nobody leads it at the moment: an election is under way.
    NoLeader,
    /// Its leader is silent: an election will follow.
    LeaderSilent {
        /// The leader.
        leader: String,
    },
    /// Its leader has stopped it because of damage.
    Damaged {
        /// The member with the damage.
        member: String,
    },
    /// The disk of its leader is full.
    DiskFull {
        /// The member whose disk it is.
        member: String,
    },
}

impl Unwritable {
    /// Its word.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Unwritable::NoMajority { .. } => "no_majority",
            Unwritable::NoLeader => "no_leader",
            Unwritable::LeaderSilent { .. } => "leader_silent",
            Unwritable::Damaged { .. } => "damaged",
            Unwritable::DiskFull { .. } => "disk_full",
        }
    }

    /// A sentence that says what to do next.
    #[must_use]
    pub fn advice(&self) -> String {
        match self {
            Unwritable::NoMajority { missing } if missing.is_empty() => {
                "wait: a member is being replaced or given its rows; if it lasts, see the log of those \
                 that are not ready"
                    .to_owned()
            }
            Unwritable::NoMajority { missing } => {
                format!("start or reconnect {}", missing.join(" or "))
            }
            Unwritable::NoLeader => "wait: an election takes about a second".to_owned(),
            Unwritable::LeaderSilent { leader } => {
                format!("wait about a second for an election; if it lasts, look at {leader}")
            }
            Unwritable::Damaged { member } => {
                format!("drain {member}, so that another member leads the group, and see its log")
            }
            Unwritable::DiskFull { member } => format!("make room on the disk of {member}"),
        }
    }
}

/// A member of the group, this node among them.
#[derive(Debug, Clone, Copy)]
pub struct MemberView<'a> {
    /// Its name.
    pub name: &'a str,
    /// How it is.
    pub state: NodeState,
    /// Whether it said that its disk is full.
    pub is_disk_full: bool,
    /// Whether it stopped this group because of damage.
    pub has_stopped: bool,
    /// Its life is over: it will not be heard again.
    pub is_former: bool,
}

/// Whether a voter counts for a majority: it is heard, and has not stopped the group because of damage.
/// Whoever has stopped it confirms no write and elects nobody.
#[must_use]
pub fn counts(state: NodeState, has_stopped: bool) -> bool {
    state.is_heard() && !has_stopped
}

/// The first of these sets of voters in which those that count are no majority. While a member is
/// replaced there are two sets, and each has to have one; an empty set is none.
#[must_use]
pub fn without_majority<V>(majorities: [&[V]; 2], counts: impl Fn(&V) -> bool) -> Option<&[V]> {
    let mut sets = majorities.into_iter().filter(|voters| !voters.is_empty());
    sets.find(|voters| voters.iter().filter(|voter| counts(voter)).count() * 2 <= voters.len())
}

/// Why the group takes no writes; `None` when nothing is known to be in the way. A leader that has
/// stopped the group counts for its majority, since that is a reason of its own.
#[must_use]
pub fn unwritable(
    majorities: [&[MemberView<'_>]; 2],
    leader: Option<MemberView<'_>>,
) -> Option<Unwritable> {
    let leads = |voter: &MemberView<'_>| {
        leader.is_some_and(|leader| leader.name == voter.name && !voter.is_former)
    };
    let confirms = |voter: &MemberView<'_>| counts(voter.state, voter.has_stopped && !leads(voter));
    if let Some(voters) = without_majority(majorities, confirms) {
        let silent = voters.iter().filter(|voter| !voter.state.is_heard());
        // A life that is over is missing too, and nobody can start it.
        let missing = silent.filter(|voter| !voter.is_former);
        let missing = missing.map(|voter| voter.name.to_owned()).collect();
        return Some(Unwritable::NoMajority { missing });
    }
    let Some(leader) = leader else {
        return Some(Unwritable::NoLeader);
    };
    let member = leader.name.to_owned();
    if !leader.state.is_heard() {
        return Some(Unwritable::LeaderSilent { leader: member });
    }
    if leader.has_stopped {
        return Some(Unwritable::Damaged { member });
    }
    leader.is_disk_full.then_some(Unwritable::DiskFull { member })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, state: NodeState) -> MemberView<'_> {
        MemberView { name, state, is_disk_full: false, has_stopped: false, is_former: false }
    }

    fn why(members: &[MemberView<'_>], leader: Option<usize>) -> Option<Unwritable> {
        unwritable([members, &[]], leader.and_then(|leader| members.get(leader)).copied())
    }

    const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

    fn words(silent: &[usize], of: usize, leader: Option<usize>) -> Option<&'static str> {
        let state = |n| if silent.contains(&n) { NodeState::Suspect } else { NodeState::Drained };
        let members: Vec<_> = (0..of).map(|n| member(NAMES[n], state(n))).collect();
        why(&members, leader).map(|why| why.word())
    }

    #[test]
    fn a_majority_that_is_heard_and_a_leader_among_it_take_writes() {
        assert_eq!(words(&[], 1, Some(0)), None, "a node of its own");
        assert_eq!(words(&[], 3, Some(2)), None);
        assert_eq!(words(&[0], 3, Some(2)), None);
        assert_eq!(words(&[0, 1], 5, Some(2)), None);
    }

    #[test]
    fn the_first_reason_that_holds_is_told() {
        assert_eq!(words(&[0, 1], 3, Some(2)), Some("no_majority"));
        assert_eq!(words(&[0, 1, 2], 5, None), Some("no_majority"));
        assert_eq!(words(&[0], 2, Some(1)), Some("no_majority"), "half is no majority");
        assert_eq!(words(&[0], 3, None), Some("no_leader"));
        assert_eq!(words(&[0], 3, Some(0)), Some("leader_silent"));
        assert_eq!(words(&[], 3, Some(9)), Some("no_leader"), "a leader that is no member");
    }

    #[test]
    fn the_missing_are_named() {
        let members = [
            member("a", NodeState::Ready),
            member("b", NodeState::Lost),
            member("c", NodeState::Suspect),
        ];
        let missing = vec!["b".to_owned(), "c".to_owned()];
        assert_eq!(why(&members, None), Some(Unwritable::NoMajority { missing }));
    }

    #[test]
    fn while_a_member_is_replaced_both_sets_of_voters_need_a_majority() {
        let up = ["a", "c"].map(|name| member(name, NodeState::Ready));
        let former = MemberView { is_former: true, ..member("b", NodeState::Lost) };
        let new = member("b", NodeState::Ready);
        let (old_ones, new_ones) = ([up[0], former, up[1]], [up[0], new, up[1]]);
        assert_eq!(unwritable([&new_ones, &old_ones], Some(up[0])), None);
        let silent = member("c", NodeState::Suspect);
        let (old_ones, new_ones) = ([up[0], former, silent], [up[0], new, silent]);
        let missing = vec!["c".to_owned()];
        let blocked = Some(Unwritable::NoMajority { missing });
        assert_eq!(unwritable([&new_ones, &old_ones], Some(up[0])), blocked, "who can be started");
        assert_eq!(unwritable([&new_ones, &[]], Some(up[0])), None, "when it is done");
    }

    #[test]
    fn damage_and_a_full_disk_count_where_the_leader_is() {
        let full = MemberView { is_disk_full: true, ..member("a", NodeState::Ready) };
        let torn = MemberView { has_stopped: true, ..member("b", NodeState::Ready) };
        let members = [full, torn, member("c", NodeState::Ready)];
        assert_eq!(why(&members, Some(2)), None, "followers do not refuse writes");
        let why = |leader| why(&members, Some(leader)).expect("a reason");
        assert_eq!(why(0), Unwritable::DiskFull { member: "a".to_owned() });
        assert_eq!(why(1), Unwritable::Damaged { member: "b".to_owned() });
        assert!(why(1).advice().contains("drain b"));
    }

    #[test]
    fn a_follower_that_has_stopped_the_group_is_none_of_the_majority() {
        let torn = MemberView { has_stopped: true, ..member("b", NodeState::Ready) };
        let silent = member("c", NodeState::Lost);
        for leader in [Some(0), None] {
            let members = [member("a", NodeState::Ready), torn, silent];
            let missing = vec!["c".to_owned()];
            assert_eq!(why(&members, leader), Some(Unwritable::NoMajority { missing }));
        }
        let members = [member("a", NodeState::Ready), torn, torn];
        let none = why(&members, Some(0)).expect("a reason");
        assert_eq!(none, Unwritable::NoMajority { missing: Vec::new() });
        assert!(none.advice().contains("given its rows"));
        // As a leader it is a reason of its own.
        let members = [torn, member("a", NodeState::Ready), silent];
        assert_eq!(why(&members, Some(0)).map(|why| why.word()), Some("damaged"));
    }
}
