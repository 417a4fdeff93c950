//! What `/v1/ops/…` answers: the bodies, and how they are put together from what is known.

use serde::Serialize;
use tl_raft::{Members, PeerId, Role};

use super::look::GroupLook;
use super::plan::Progress;
use super::report::Report;
use super::states::NodeState;
use super::writable::{MemberView, Unwritable, unwritable};

/// The whole node, and its cluster as it sees it.
#[derive(Debug, Clone, Serialize)]
pub struct StatusPage {
    /// This node's name.
    pub node: String,
    /// Its state.
    pub state: NodeState,
    /// Whether it holds replicas.
    pub local_write_node: bool,
    /// `write_node`, or `router_node` for one without groups.
    pub local_mode: &'static str,
    /// Whether it is ready.
    pub local_ready: bool,
    /// Whether it is drained.
    pub local_drained: bool,
    /// Why it is not ready, if it is not.
    pub reason: Option<String>,
    /// All members that hold replicas.
    pub write_nodes: Vec<String>,
    /// Copies of each group.
    pub write_replication_factor: usize,
    /// Groups of the cluster.
    pub num_groups: u16,
    /// Groups with a replica here.
    pub local_groups: usize,
    /// Groups that this node leads.
    pub groups_led: u16,
    /// Groups that take no writes as far as is known here, and why.
    pub not_writable: Vec<NotWritable>,
    /// Files and room for them.
    pub storage: StoragePage,
    /// Members that are heard of, and those of them that are ready.
    pub observer: ObserverPage,
    /// Every member.
    pub nodes: Vec<NodePage>,
    /// Number of the list of members that is in force here; 0 is that of the founding.
    pub members_number: u64,
    /// The feature level that is committed, as far as is known here.
    pub feature_level: u16,
    /// The replacement that is under way as far as this node's groups show; else nothing.
    pub replacing: Option<ReplacingPage>,
}

/// A member that gets a new life, group by group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReplacingPage {
    /// Who it is.
    pub nodes: Vec<String>,
    /// Groups of this node whose members are those of the list.
    pub groups_done: usize,
    /// All groups of this node.
    pub groups: u16,
}

/// The feature level that was committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LevelPage {
    /// The level.
    pub feature_level: u16,
    /// Number of the list of members that says so.
    pub members_number: u64,
}

/// What is left of a replacement; nothing when every group follows the list.
pub(crate) fn replacing_page(progress: &Progress, groups: u16) -> Option<ReplacingPage> {
    // Before the first look, and as long as the founding's list is in force, nothing is known to
    // be under way.
    if progress.number == 0 || progress.is_complete(groups.into()) {
        return None;
    }
    Some(ReplacingPage { nodes: progress.replacing.clone(), groups_done: progress.done, groups })
}

/// A group that takes no writes.
#[derive(Debug, Clone, Serialize)]
pub struct NotWritable {
    /// The group.
    pub group: u16,
    /// Why.
    #[serde(flatten)]
    pub why: Unwritable,
    /// What to do next.
    pub advice: String,
}

/// Where the node keeps its data.
#[derive(Debug, Clone, Serialize)]
pub struct StoragePage {
    /// The data directory.
    pub data_dir: String,
    /// Free bytes of the fullest file system that the node writes to.
    pub disk_free_bytes: u64,
    /// Free bytes below which clients' writes are refused.
    pub disk_reserve_bytes: u64,
    /// Whether clients' writes find no room.
    pub disk_full: bool,
}

/// Who is seen.
#[derive(Debug, Clone, Serialize)]
pub struct ObserverPage {
    /// Members of which something was heard lately, this one among them.
    pub visible_nodes: Vec<String>,
    /// Those of them that are ready.
    pub ready_nodes: Vec<String>,
}

/// One member.
#[derive(Debug, Clone, Serialize)]
pub struct NodePage {
    /// Its name.
    pub node: String,
    /// Whether it is the node that answers.
    pub local: bool,
    /// Its state.
    pub state: NodeState,
    /// What it said last of itself, also when it is silent.
    pub said: Option<NodeState>,
    /// Why it is not ready, in its own words.
    pub reason: Option<String>,
    /// Since when nothing was heard of it, milliseconds.
    pub silent_ms: u64,
    /// Groups that it leads, as it said.
    pub groups_led: Option<u16>,
    /// Tails that are open there.
    pub tails_open: Option<u32>,
    /// Whether its disk has no room for clients' writes.
    pub disk_full: Option<bool>,
    /// Groups that it stopped because of damage.
    pub groups_stopped: Vec<u16>,
    /// The highest feature level that it speaks, as it said.
    pub feature_level_max: Option<u16>,
    /// Of the groups that the answering node leads: those whose replica there is behind.
    pub replicas_behind: u16,
    /// Of the same groups: entries that the replica furthest behind lacks.
    pub lag_entries_max: u64,
}

/// One group, as the answering node sees it.
#[derive(Debug, Clone, Serialize)]
pub struct GroupPage {
    /// The group.
    pub group: u16,
    /// Who leads it, if known.
    pub leader: Option<String>,
    /// What the answering node is in it; `none` where it has no copy, and then the positions below
    /// are 0.
    pub role: &'static str,
    /// Its term.
    pub term: u64,
    /// Last entry of the log here.
    pub last_index: u64,
    /// Last entry known here to be committed.
    pub committed_index: u64,
    /// Last entry applied here.
    pub applied_index: u64,
    /// Whether it takes writes as far as is known here.
    pub writable: bool,
    /// Why it does not.
    #[serde(flatten)]
    pub why: Option<Unwritable>,
    /// What to do next, when it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    /// All its replicas.
    pub replicas: Vec<ReplicaPage>,
}

/// One replica of a group.
#[derive(Debug, Clone, Serialize)]
pub struct ReplicaPage {
    /// Where it is; a life that is over is marked as one.
    pub node: String,
    /// How that node is.
    pub state: NodeState,
    /// `voter`, `learner`, `joining` or `leaving` while it changes, or `none`.
    pub role: &'static str,
    /// The last entry that it has on disk; known to the leader only.
    pub matched_index: Option<u64>,
    /// Entries that it lacks; known to the leader only.
    pub lag_entries: Option<u64>,
    /// Whether the leader no longer has in memory what it lacks; known to the leader only.
    pub cut_off: Option<bool>,
}

/// A member as it is known when a page is made.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) peer: PeerId,
    pub(crate) name: String,
    pub(crate) is_local: bool,
    pub(crate) state: NodeState,
    pub(crate) silent_ms: u64,
    pub(crate) report: Option<std::sync::Arc<Report>>,
    /// It is no member any more, but some group still counts on it.
    pub(crate) is_former: bool,
    /// Its place among all members' names in order; nothing for a router or a former life.
    pub(crate) place: Option<usize>,
}

impl Member {
    pub(crate) fn view(&self, group: tl_types::GroupId) -> MemberView<'_> {
        let report = self.report.as_deref();
        MemberView {
            name: &self.name,
            state: self.state,
            is_disk_full: report.is_some_and(|report| report.is_disk_full),
            has_stopped: report.is_some_and(|report| report.stopped.contains(&group)),
            is_former: self.is_former,
        }
    }
}

/// Why a group takes no writes.
pub(crate) fn why_not(members: &[Member], look: &GroupLook) -> Option<Unwritable> {
    let view = |peer: PeerId| {
        let member = members.iter().find(|member| member.peer == peer);
        member.map(|member| member.view(look.group))
    };
    let views = |peers: &[PeerId]| {
        let views = peers.iter().map(|peer| view(*peer).unwrap_or(NOBODY));
        views.collect::<Vec<MemberView<'_>>>()
    };
    let (voters, outgoing) = (views(&look.members.voters), views(&look.members.voters_outgoing));
    unwritable([&voters, &outgoing], look.leader.and_then(view))
}

/// A voter of which nothing is known, not even a name.
const NOBODY: MemberView<'static> = MemberView {
    name: "?",
    state: NodeState::Lost,
    is_disk_full: false,
    has_stopped: false,
    is_former: true,
};

/// What a node is in a group.
fn role_in(members: &Members, peer: PeerId) -> &'static str {
    let (comes, goes) = (members.voters.contains(&peer), members.voters_outgoing.contains(&peer));
    match (comes, goes) {
        (true, true) => "voter",
        (true, false) if !members.is_joint() => "voter",
        (true, false) => "joining",
        (false, true) => "leaving",
        (false, false) if members.is_learner(peer) => "learner",
        (false, false) => "none",
    }
}

/// What replicas at `peer` lack of the groups led here: how many are behind, and the most
/// entries.
pub(crate) fn lag_at(peer: PeerId, look: &[GroupLook]) -> (u16, u64) {
    let behind = super::report::lag_of(peer, look).map_or(0, |lag| lag.groups);
    let replicas = look.iter().flat_map(|group| &group.followers);
    let lags = replicas.filter(|replica| replica.peer == peer).map(|r| r.lag_entries);
    (behind, lags.max().unwrap_or(0))
}

pub(crate) fn node_page(member: &Member, look: &[GroupLook]) -> NodePage {
    let report = member.report.as_deref();
    let (replicas_behind, lag_entries_max) = lag_at(member.peer, look);
    NodePage {
        node: member.name.clone(),
        local: member.is_local,
        state: member.state,
        said: report.map(|report| report.standing.into()),
        reason: report.map(|report| report.reason.clone()).filter(|reason| !reason.is_empty()),
        silent_ms: member.silent_ms,
        groups_led: report.map(|report| report.groups_led),
        tails_open: report.map(|report| report.tails_open),
        disk_full: report.map(|report| report.is_disk_full),
        groups_stopped: report
            .map(|report| report.stopped.iter().map(|group| group.0).collect())
            .unwrap_or_default(),
        feature_level_max: report.map(|report| report.level_spoken),
        replicas_behind,
        lag_entries_max,
    }
}

/// `has` says which members have a copy of the group, by their place among all names.
pub(crate) fn group_page(
    members: &[Member],
    look: &GroupLook,
    has: impl Fn(usize) -> bool,
) -> GroupPage {
    let why = why_not(members, look);
    let name = |peer| members.iter().find(|m| m.peer == peer).map(|m| m.name.clone());
    let role = |member: &Member| role_in(&look.members, member.peer);
    let shall_have = |member: &Member| member.place.is_some_and(&has);
    let concerned = members.iter().filter(|m| shall_have(m) || role(m) != "none");
    let replicas = concerned.map(|member| {
        let known = look.followers.iter().find(|replica| replica.peer == member.peer);
        let leads_here = member.is_local && look.role == Role::Leader;
        ReplicaPage {
            node: match member.is_former {
                true => format!("{} (replaced)", member.name),
                false => member.name.clone(),
            },
            state: member.state,
            role: role(member),
            matched_index: match known {
                Some(replica) => replica.matched.map(|index| index.0),
                None => leads_here.then_some(look.last.0),
            },
            lag_entries: match known {
                Some(replica) => Some(replica.lag_entries),
                None => leads_here.then_some(0),
            },
            cut_off: match known {
                Some(replica) => Some(replica.is_cut_off),
                None => leads_here.then_some(false),
            },
        }
    });
    GroupPage {
        group: look.group.0,
        leader: look.leader.and_then(name),
        role: match look.role {
            Role::Leader => "leader",
            Role::Candidate => "candidate",
            Role::Follower => "follower",
        },
        term: look.term.0,
        last_index: look.last.0,
        committed_index: look.committed.0,
        applied_index: look.applied.0,
        writable: why.is_none(),
        advice: why.as_ref().map(Unwritable::advice),
        why,
        replicas: replicas.collect(),
    }
}

/// A group of which the answering node has no copy: who has one, how these members are, and who
/// leads as far as was heard.
pub(crate) fn distant_page(
    members: &[Member],
    group: tl_types::GroupId,
    leader: Option<PeerId>,
    has: impl Fn(usize) -> bool,
) -> GroupPage {
    let zero = tl_types::Index(0);
    let voters: Vec<PeerId> = members
        .iter()
        .filter(|member| member.place.is_some_and(&has))
        .map(|member| member.peer)
        .collect();
    let look = GroupLook {
        group,
        role: Role::Follower,
        term: tl_types::Term(0),
        // Who leads is not told here; that somebody does is assumed of those that are heard.
        leader: leader.or_else(|| {
            let heard = |m: &&Member| voters.contains(&m.peer) && m.state.is_heard();
            members.iter().find(heard).map(|member| member.peer)
        }),
        last: zero,
        committed: zero,
        applied: zero,
        members: Members::founding(&voters),
        followers: Vec::new(),
    };
    let page = group_page(members, &look, has);
    let name = |peer| members.iter().find(|m| m.peer == peer).map(|m| m.name.clone());
    GroupPage { leader: leader.and_then(name), role: "none", ..page }
}

#[cfg(test)]
mod tests {
    use tl_types::{GroupId, Index, Term};

    use super::*;
    use crate::ops::look::Replica;

    fn member(peer: u64, state: NodeState) -> Member {
        Member {
            peer: PeerId(peer),
            name: format!("node-{peer}"),
            is_local: peer == 1,
            state,
            silent_ms: 0,
            report: None,
            is_former: false,
            place: usize::try_from(peer).ok(),
        }
    }

    fn led_here() -> GroupLook {
        let replica = |peer, lag| Replica {
            peer: PeerId(peer),
            matched: Some(Index(10 - lag)),
            lag_entries: lag,
            is_cut_off: false,
        };
        GroupLook {
            group: GroupId(7),
            role: Role::Leader,
            term: Term(3),
            leader: Some(PeerId(1)),
            last: Index(10),
            committed: Index(9),
            applied: Index(9),
            members: Members::founding(&[1, 2, 3].map(PeerId)),
            followers: vec![replica(2, 0), replica(3, 4)],
        }
    }

    #[test]
    fn a_group_page_names_leader_replicas_and_what_is_in_the_way() {
        let up = [1, 2, 3].map(|peer| member(peer, NodeState::Ready));
        let page = serde_json::to_value(group_page(&up, &led_here(), |_| true)).expect("JSON");
        assert_eq!(page["leader"], "node-1");
        assert_eq!((&page["role"], &page["writable"]), (&"leader".into(), &true.into()));
        assert_eq!(page.get("reason"), None);
        let lags: Vec<_> = (0..3).map(|at| page["replicas"][at]["lag_entries"].clone()).collect();
        assert_eq!(lags, [0, 0, 4]);

        let mut alone = up.to_vec();
        for silent in &mut alone[1..] {
            silent.state = NodeState::Lost;
        }
        let page = serde_json::to_value(group_page(&alone, &led_here(), |_| true)).expect("JSON");
        assert_eq!((&page["writable"], &page["reason"]), (&false.into(), &"no_majority".into()));
        assert_eq!(page["missing"], serde_json::json!(["node-2", "node-3"]));
        assert!(page["advice"].as_str().is_some_and(|text| text.contains("node-2")));
    }

    #[test]
    fn a_group_that_is_elsewhere_is_shown_with_the_members_that_have_it() {
        let mut five = [1, 2, 3, 4, 5].map(|peer| member(peer, NodeState::Ready));
        let has = |place: usize| [2, 3, 5].contains(&place);
        let page = distant_page(&five, GroupId(9), Some(PeerId(3)), has);
        assert_eq!((page.role, page.leader.as_deref()), ("none", Some("node-3")));
        assert!(page.writable);
        let replicas: Vec<&str> = page.replicas.iter().map(|r| r.node.as_str()).collect();
        assert_eq!(replicas, ["node-2", "node-3", "node-5"]);
        five[2].state = NodeState::Lost;
        let page = distant_page(&five, GroupId(9), None, has);
        assert!(page.writable && page.leader.is_none(), "two of three are heard");
        five[4].state = NodeState::Lost;
        let page = distant_page(&five, GroupId(9), None, has);
        assert_eq!(page.why.map(|why| why.word()), Some("no_majority"));
        // A group that is here does not show who has no copy.
        let look = GroupLook { members: Members::founding(&[1, 2, 3].map(PeerId)), ..led_here() };
        let page = group_page(&five, &look, |place| (1..=3).contains(&place));
        assert_eq!(page.replicas.len(), 3);
    }

    #[test]
    fn a_life_that_is_over_is_shown_as_long_as_a_group_counts_on_it() {
        let mut members = [1, 3, 4].map(|peer| member(peer, NodeState::Ready)).to_vec();
        let former = member(2, NodeState::Lost);
        members.push(Member { is_former: true, place: None, ..former });
        let peers = |numbers: [u64; 3]| numbers.map(PeerId).to_vec();
        let mut look = led_here();
        let shown = |look: &GroupLook| {
            let page = group_page(&members, look, |_| true);
            let replicas = page.replicas.into_iter();
            replicas.map(|replica| (replica.node, replica.role)).collect::<Vec<_>>()
        };
        let of = |node: &str, role| (node.to_owned(), role);
        let (one, three) = (of("node-1", "voter"), of("node-3", "voter"));
        let gone = "node-2 (replaced)";
        look.members.learners = vec![PeerId(4)];
        let all = [one.clone(), three.clone(), of("node-4", "learner"), of(gone, "voter")];
        assert_eq!(shown(&look), all);
        look.members.learners.clear();
        (look.members.voters, look.members.voters_outgoing) = (peers([1, 3, 4]), peers([1, 2, 3]));
        let all = [one.clone(), three.clone(), of("node-4", "joining"), of(gone, "leaving")];
        assert_eq!(shown(&look), all);
        look.members.voters_outgoing.clear();
        assert_eq!(shown(&look), [one, three, of("node-4", "voter")]);
    }

    #[test]
    fn a_replacement_is_shown_until_every_group_follows_the_list() {
        let progress = |number, done| Progress { number, groups: 8, done, replacing: vec![] };
        assert_eq!(replacing_page(&progress(0, 0), 8), None);
        assert_eq!(replacing_page(&progress(1, 8), 8), None);
        let page = replacing_page(&progress(1, 7), 8).expect("one is left");
        assert_eq!((page.groups_done, page.groups), (7, 8));
    }

    #[test]
    fn lag_counts_for_the_member_that_has_it() {
        let look = [led_here()];
        assert_eq!(lag_at(PeerId(2), &look), (0, 0));
        assert_eq!(lag_at(PeerId(3), &look), (0, 4));
        assert_eq!(lag_at(PeerId(9), &look), (0, 0));
    }
}
