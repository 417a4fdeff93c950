//! The list of a cluster's members: who they are, and in which of their lives.
//!
//! ```text
//!   founding: number 0 ── replace ──► number 1 ── replace ──► number 2 …
//!   (node.json)                       (a row of one group, and members.json of every node)
//! ```
//!
//! Invariants:
//!  - M1 a Raft number belongs to one life and is given out once: `next_peer` only rises, and
//!    every number below it that is no member's is a life that is over for good;
//!  - M2 of two lists of a cluster the one with the higher number holds;
//!  - M3 names stay: a replacement changes the life behind one of them;
//!  - M4 the feature level only rises, one list after the other.
//!
//! One form for the row, the file and the answer of a peer: JSON with a format number, at most
//! [`MEMBER_LIST_BYTES_MAX`] bytes. Format 1 names no feature level and means the first one, format 2
//! names a later one; so what was written before there were levels reads as it always did. A later
//! release that writes another form counts it up; this one then refuses to read it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tl_core::entry::LEVEL_FIRST;
use tl_raft::PeerId;
use tl_raft::transport::REMOVED_MAX;
use tl_types::NodeId;
use tl_types::limits::MEMBER_LIST_BYTES_MAX;

use super::{ClusterError, MEMBERS_MAX, MEMBERS_MIN};
use crate::identity::{Identity, Member, hex_bytes};

/// Lists of the first feature level.
const FORMAT: u32 = 1;
/// Lists that name their feature level.
const FORMAT_LEVEL: u32 = 2;
/// Longest name of a member, bytes.
const NAME_BYTES_MAX: usize = 64;
/// Former lives that are remembered by name, for people; of older ones only the number is known.
const FORMER_MAX: usize = 64;
/// Numbers that a cluster may give out. One past: no life can be replaced any more.
const PEERS_GIVEN_MAX: u64 = REMOVED_MAX as u64;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberList {
    format: u32,
    /// The feature level that is committed: entries follow its rules, and every node of the cluster
    /// speaks it.
    #[serde(default = "level_first", skip_serializing_if = "is_level_first")]
    pub level: u16,
    /// Which list this is; rises by one with each change.
    pub number: u64,
    /// The Raft number of the next new life.
    pub next_peer: u64,
    /// All members, in order of their names.
    pub members: Vec<Member>,
    /// Lives that are over, the latest last.
    pub former: Vec<Former>,
}

fn level_first() -> u16 {
    LEVEL_FIRST
}

// As serde calls it.
fn is_level_first(level: &u16) -> bool {
    *level == LEVEL_FIRST
}

/// The fields that every format has.
#[derive(Deserialize)]
struct Form {
    format: u32,
    #[serde(default = "level_first")]
    level: u16,
}

/// A life that is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Former {
    /// Whose life it was.
    pub name: String,
    /// What Raft knew it by.
    pub peer: u64,
}

/// Why a list cannot be used, or not be changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// The bytes are no list that this release can read.
    #[error("not a list of members that this release can read: {0}")]
    Foreign(String),
    /// A later release wrote them, in a form that this one does not know.
    #[error(
        "the list of members has format {format} and feature level {level}, and this release reads \
         format {FORMAT_LEVEL} at most: start this node with a newer release"
    )]
    Newer {
        /// Its format.
        format: u32,
        /// The feature level that it names.
        level: u16,
    },
    /// Nobody has this name.
    #[error("no member is called {0:?}")]
    Unknown(String),
    /// As many lives as there may be have been.
    #[error("all {PEERS_GIVEN_MAX} numbers of this cluster are given out")]
    NoMoreNumbers,
}

impl MemberList {
    /// The list that a cluster was founded with, or that a directory was made under.
    #[must_use]
    pub fn of_founding(identity: &Identity) -> MemberList {
        let mut members = identity.members.clone();
        members.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let last = members.iter().map(|member| member.peer).max().unwrap_or(0);
        MemberList {
            format: FORMAT,
            level: LEVEL_FIRST,
            number: 0,
            next_peer: last.saturating_add(1),
            members,
            former: Vec::new(),
        }
    }

    /// Reads what [`MemberList::encode`] wrote.
    ///
    /// # Errors
    /// [`ListError::Foreign`] and [`ListError::Newer`].
    pub fn decode(bytes: &[u8]) -> Result<MemberList, ListError> {
        if bytes.len() > MEMBER_LIST_BYTES_MAX {
            return Err(ListError::Foreign(format!("{} bytes", bytes.len())));
        }
        let foreign = |error: serde_json::Error| ListError::Foreign(error.to_string());
        // First, for another form may have other fields.
        let Form { format, level } = serde_json::from_slice(bytes).map_err(foreign)?;
        if format > FORMAT_LEVEL {
            return Err(ListError::Newer { format, level });
        }
        if format < FORMAT {
            return Err(ListError::Foreign(format!("its format is {format}")));
        }
        let list: MemberList = serde_json::from_slice(bytes).map_err(foreign)?;
        match list.fault() {
            None => Ok(list),
            Some(fault) => Err(ListError::Foreign(fault.to_owned())),
        }
    }

    /// The list's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("names, numbers and texts can always be written as JSON")
    }

    fn fault(&self) -> Option<&'static str> {
        let (names, lives): (Vec<&str>, Vec<u64>) =
            self.members.iter().map(|member| (member.name.as_str(), member.peer)).unzip();
        let former: Vec<u64> = self.former.iter().map(|former| former.peer).collect();
        let mut seen = BTreeSet::new();
        let once = lives.iter().chain(&former).all(|peer| seen.insert(*peer));
        let ids: BTreeSet<Option<[u8; 16]>> =
            self.members.iter().map(|member| hex_bytes(&member.node_id)).collect();
        let plain = |name: &str| (1..=NAME_BYTES_MAX).contains(&name.len());
        let all_plain = names.iter().copied().all(plain)
            && self.former.iter().all(|former| plain(&former.name));
        let level_format = if self.level > LEVEL_FIRST { FORMAT_LEVEL } else { FORMAT };
        if self.level < LEVEL_FIRST || self.format != level_format {
            Some("its feature level")
        } else if !(MEMBERS_MIN..=MEMBERS_MAX).contains(&names.len()) {
            Some("the number of members")
        } else if !names.is_sorted_by(|a, b| a < b) || !all_plain {
            Some("the names of its members")
        } else if ids.contains(&None) || ids.len() != names.len() {
            Some("the ids of its members")
        } else if !once || seen.contains(&0) || seen.iter().any(|peer| *peer >= self.next_peer) {
            Some("the numbers of its members")
        } else if self.former.len() > FORMER_MAX || self.next_peer > PEERS_GIVEN_MAX {
            Some("the number of lives")
        } else {
            None
        }
    }

    /// The list in which a member has a new life.
    ///
    /// # Errors
    /// [`ListError`]: nobody has that name, or there are no numbers left.
    pub fn replaced(&self, name: &str, node_id: [u8; 16]) -> Result<MemberList, ListError> {
        let mut list = self.clone();
        let member = list.members.iter_mut().find(|member| member.name == name);
        let member = member.ok_or_else(|| ListError::Unknown(name.to_owned()))?;
        if self.next_peer >= PEERS_GIVEN_MAX {
            return Err(ListError::NoMoreNumbers);
        }
        list.former.push(Former { name: name.to_owned(), peer: member.peer });
        let excess = list.former.len().saturating_sub(FORMER_MAX);
        list.former.drain(..excess);
        *member = Member::new(name.to_owned(), node_id, self.next_peer);
        list.next_peer += 1;
        list.number += 1;
        Ok(list)
    }

    /// The list in which a higher feature level is committed.
    ///
    /// # Panics
    /// When the level does not rise.
    #[must_use]
    pub fn raised(&self, level: u16) -> MemberList {
        assert!(level > self.level, "a feature level only rises");
        MemberList { format: FORMAT_LEVEL, level, number: self.number + 1, ..self.clone() }
    }

    /// Refuses a node that speaks less than what is committed.
    ///
    /// # Errors
    /// [`ClusterError::Level`].
    pub fn check_level(&self, spoken: u16) -> Result<(), ClusterError> {
        match self.level {
            level if level <= spoken => Ok(()),
            level => Err(ClusterError::Level { level, spoken }),
        }
    }

    /// The Raft numbers of all members.
    #[must_use]
    pub fn peers(&self) -> BTreeSet<PeerId> {
        self.members.iter().map(|member| PeerId(member.peer)).collect()
    }

    /// Of the lives that are over and remembered by name, who has that name now.
    #[must_use]
    pub fn heirs(&self) -> BTreeMap<PeerId, PeerId> {
        let of_name = |name: &str| self.members.iter().find(|member| member.name == name);
        let former = self.former.iter();
        former
            .filter_map(|life| Some((PeerId(life.peer), PeerId(of_name(&life.name)?.peer))))
            .collect()
    }

    /// The Raft numbers of all lives that are over.
    #[must_use]
    pub fn removed(&self) -> BTreeSet<PeerId> {
        let members = self.peers();
        (1..self.next_peer).map(PeerId).filter(|peer| !members.contains(peer)).collect()
    }

    /// The member that has this life.
    #[must_use]
    pub fn member_of(&self, node: NodeId) -> Option<&Member> {
        self.members.iter().find(|member| NodeId(member.node_id_bytes()) == node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn founding() -> MemberList {
        let member = |name: &str, peer| Member::new(name.to_owned(), [peer as u8; 16], peer);
        let members = vec![member("a", 1), member("b", 2), member("c", 3)];
        let (level, former) = (LEVEL_FIRST, Vec::new());
        MemberList { format: FORMAT, level, number: 0, next_peer: 4, members, former }
    }

    #[test]
    fn a_replaced_member_has_a_number_that_nobody_ever_had() {
        let mut list = founding();
        let mut given = list.peers();
        for life in 10..20 {
            list = list.replaced("b", [life; 16]).expect("a member");
            let member = list.member_of(NodeId([life; 16])).expect("it is on the list");
            assert_eq!(member.name, "b");
            assert!(given.insert(PeerId(member.peer)), "given out again: {}", member.peer);
            assert_eq!(MemberList::decode(&list.encode()), Ok(list.clone()));
        }
        assert_eq!((list.number, list.next_peer), (10, 14));
        assert_eq!(list.peers(), [1, 3, 13].map(PeerId).into());
        assert_eq!(list.removed().len(), 10);
        assert!(list.removed().is_disjoint(&list.peers()));
        assert_eq!(list.heirs(), list.removed().into_iter().map(|old| (old, PeerId(13))).collect());
        assert_eq!(list.replaced("d", [1; 16]), Err(ListError::Unknown("d".to_owned())));
    }

    #[test]
    fn former_names_and_numbers_have_limits() {
        let mut list = founding();
        for life in 0..FORMER_MAX as u64 + 5 {
            let id = u128::from(life + 100).to_be_bytes();
            list = list.replaced("c", id).expect("a member");
        }
        assert_eq!(list.former.len(), FORMER_MAX);
        assert_eq!(list.removed().len(), FORMER_MAX + 5, "numbers are not forgotten");
        assert!(MemberList::decode(&list.encode()).is_ok());
        list.next_peer = PEERS_GIVEN_MAX - 1;
        let last = list.replaced("a", [77; 16]).expect("the last number");
        assert!(MemberList::decode(&last.encode()).is_ok());
        assert_eq!(last.replaced("a", [78; 16]), Err(ListError::NoMoreNumbers));
    }

    #[test]
    fn a_longest_list_fits_its_limit() {
        let name = |at: u8| format!("{}{at}", "n".repeat(NAME_BYTES_MAX - 1));
        let number = |at: usize| PEERS_GIVEN_MAX - 1 - at as u64;
        let members = (0..MEMBERS_MAX as u8)
            .map(|at| Member::new(name(at), [at; 16], number(at.into())))
            .collect();
        let former = (0..FORMER_MAX)
            .map(|at| Former { name: name(9), peer: number(at + MEMBERS_MAX) })
            .collect();
        let (next_peer, number) = (PEERS_GIVEN_MAX, u64::MAX);
        let (format, level) = (FORMAT_LEVEL, u16::MAX);
        let list = MemberList { format, level, number, next_peer, members, former };
        assert!(list.encode().len() <= MEMBER_LIST_BYTES_MAX);
        assert_eq!(MemberList::decode(&list.encode()), Ok(list));
    }

    #[test]
    fn the_form_is_a_promise_golden() {
        let list = founding().replaced("b", [0xab; 16]).expect("a member");
        let golden = concat!(
            r#"{"format":1,"number":1,"next_peer":5,"members":["#,
            r#"{"name":"a","node_id":"01010101010101010101010101010101","peer":1},"#,
            r#"{"name":"b","node_id":"abababababababababababababababab","peer":4},"#,
            r#"{"name":"c","node_id":"03030303030303030303030303030303","peer":3}],"#,
            r#""former":[{"name":"b","peer":2}]}"#,
        );
        assert_eq!(String::from_utf8(list.encode()).expect("text"), golden);
        assert_eq!(MemberList::decode(golden.as_bytes()), Ok(list.clone()));
        assert_eq!(list.level, LEVEL_FIRST, "what names no level");

        let raised = golden
            .replacen(r#"{"format":1,"number":1"#, r#"{"format":2,"level":3,"number":2"#, 1)
            .into_bytes();
        assert_eq!(list.raised(3).encode(), raised);
        assert_eq!(MemberList::decode(&raised), Ok(list.raised(3)));
    }

    #[test]
    fn a_level_stays_when_a_member_is_replaced_and_refuses_who_speaks_less() {
        let list = founding().raised(2);
        assert_eq!((list.number, list.level), (1, 2));
        let replaced = list.replaced("a", [9; 16]).expect("a member");
        assert_eq!((replaced.number, replaced.level), (2, 2));
        assert_eq!(MemberList::decode(&replaced.encode()), Ok(replaced.clone()));
        assert!(replaced.check_level(2).is_ok() && founding().check_level(1).is_ok());
        let refused = replaced.check_level(1).expect_err("below").to_string();
        assert!(refused.contains("feature level 2") && refused.contains("speaks 1"), "{refused}");
    }

    #[test]
    #[should_panic(expected = "only rises")]
    fn a_level_never_falls() {
        let _ = founding().raised(LEVEL_FIRST);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let said = |change: &dyn Fn(&mut MemberList)| {
            let mut list = founding().replaced("b", [9; 16]).expect("a member");
            change(&mut list);
            MemberList::decode(&list.encode()).map(|_| ()).map_err(|error| error.to_string())
        };
        assert_eq!(said(&|_| {}), Ok(()));
        type Change<'a> = &'a dyn Fn(&mut MemberList);
        let bad: [(Change<'_>, &str); 14] = [
            (
                &|list| list.format = 3,
                "format 3 and feature level 1, and this release reads format 2",
            ),
            (&|list| list.format = 0, "its format is 0"),
            (&|list| list.format = 2, "its feature level"),
            (&|list| list.level = 2, "its feature level"),
            (&|list| (list.format, list.level) = (2, 0), "its feature level"),
            (&|list| list.members.truncate(2), "the number of members"),
            (&|list| list.members.swap(0, 1), "the names of its members"),
            (&|list| list.members[0].name.clear(), "the names of its members"),
            (&|list| list.former[0].name = "n".repeat(65), "the names of its members"),
            (&|list| list.members[0].node_id.pop().map(drop).unwrap_or(()), "the ids"),
            (&|list| list.members[0].node_id = list.members[1].node_id.clone(), "the ids"),
            (&|list| list.members[0].peer = 2, "the numbers of its members"),
            (&|list| list.members[0].peer = 0, "the numbers of its members"),
            (&|list| list.next_peer = 4, "the numbers of its members"),
        ];
        for (change, why) in bad {
            let error = said(change).expect_err(why);
            assert!(error.contains(why), "{error}");
        }
        let later = br#"{"format":3,"what":"nobody knows"}"#;
        let error = MemberList::decode(later).expect_err("a later form").to_string();
        assert!(error.contains("format 3 and feature level 1"), "{error}");
        for bytes in [&b""[..], b"{}", b"[1]", b"\xff", &[b' '; MEMBER_LIST_BYTES_MAX + 1]] {
            assert!(MemberList::decode(bytes).is_err());
        }
    }
}
