use std::time::{Duration, Instant};

use tl_raft::{Role, RoleChange};
use tl_types::Term;
use tokio::sync::oneshot;

use super::clocks::CLOCKS_AGREE_MS;
use super::questions::{Asker, Call, LAST_WORDS, NO_GROUP, NUMBER_MASK, Waiting, question_id};
use super::*;
use crate::cluster::MemberList;
use crate::node::Now;
use crate::peer::{Answer, Question};

const PEER: PeerId = PeerId(2);
const RUN: u64 = 7_000;
const NOW: Now = Now { boot_ms: 5_000, wall_ms: 1_800_000_000_000 };

pub(super) fn links() -> Links {
    links_of(RUN)
}

/// Of a process that numbers its questions behind `run`.
fn links_of(run: u64) -> Links {
    Links::new(&member(&["node-1", "node-2", "node-3"], 4), 4, run, Arc::default())
}

fn list(names: &[&str]) -> MemberList {
    (*member(names, 4).list).clone()
}

/// The first of these names in a founding of all of them.
fn member(names: &[&str], groups: u16) -> Membership {
    let dir = tempfile::tempdir().expect("temp dir");
    let name = |name: &&str| ((*name).to_owned(), dir.path().join(name));
    let members: Vec<_> = names.iter().map(name).collect();
    let ids = std::cell::Cell::new(0);
    let fresh = || {
        ids.set(ids.get() + 1);
        [ids.get(); 16]
    };
    crate::cluster::found(&members, groups, tl_types::UnixMs(1), fresh).expect("founded");
    let identity = crate::identity::Identity::open(&members[0].1).expect("read");
    let settings = crate::ClusterSettings {
        members: (1..).zip(names).map(|(port, name)| format!("{name}=127.0.0.1:{port}")).collect(),
        ..Default::default()
    };
    let identity = identity.expect("there");
    let member = Membership::of(&members[0].1, &identity, &settings, names[0]);
    member.expect("fits").expect("a member")
}

fn wait(links: &Links, group: GroupId) -> (u64, oneshot::Receiver<Result<Answer, NoAnswer>>) {
    let (answer, answered) = oneshot::channel();
    let asker = Asker::Task(answer);
    let waiting = Waiting { peer: PEER, is_read: false, asker, until: None };
    (question_id(group, links.add(group, waiting)), answered)
}

fn leads(group: u16, leader: u64) -> RoleChange {
    let (group, term) = (GroupId(group), Term(1));
    let role = if leader == 1 { Role::Leader } else { Role::Follower };
    RoleChange { group, role, term, leader: (leader != 0).then_some(PeerId(leader)) }
}

#[test]
fn a_question_is_answered_by_whom_it_was_put_to_and_once() {
    let links = links();
    let (id, mut answered) = wait(&links, GroupId(3));
    links.answered(PeerId(3), Answer::Unknown.encode(id));
    assert!(answered.try_recv().is_err(), "somebody else");
    links.answered(PEER, Answer::Unknown.encode(id + 1));
    assert!(answered.try_recv().is_err(), "another question");
    links.answered(PEER, Answer::Clock { wall_ms: 5, may_lead: true }.encode(id));
    assert_eq!(answered.try_recv(), Ok(Ok(Answer::Clock { wall_ms: 5, may_lead: true })));
    links.answered(PEER, Answer::Unknown.encode(id));
    assert!(links.open.lock().waiting.is_empty());
}

#[test]
fn a_leader_has_a_round_confirmed_once_in_each_leadership() {
    let (links, group) = (links(), GroupId(3));
    assert!(!links.is_settled(group), "it does not lead");
    links.roles_changed(&[leads(3, 1)]);
    let first = links.reign(group);
    assert!(!links.is_settled(group), "what came before it may not be applied");
    links.confirmed(group, first);
    assert!(links.is_settled(group) && !links.is_settled(GroupId(2)));
    links.roles_changed(&[leads(3, 2)]);
    assert!(!links.is_settled(group));
    links.roles_changed(&[leads(3, 1)]);
    links.confirmed(group, first);
    assert!(!links.is_settled(group), "a round of the time before says nothing of this one");
    links.confirmed(group, links.reign(group));
    links.confirmed(group, first);
    assert!(links.is_settled(group), "and takes nothing back");
}

#[test]
fn an_answer_to_the_process_before_this_one_is_nobodys() {
    let (former, present) = (links_of(RUN), links_of(RUN << 20));
    let (late, _) = wait(&former, GroupId(3));
    let (_, mut answered) = wait(&present, GroupId(3));
    let taken = Answer::Taken { index: tl_types::Index(7), replies: Vec::new() };
    present.answered(PEER, taken.encode(late));
    assert!(answered.try_recv().is_err(), "its own write was not taken");
}

#[test]
fn numbers_of_questions_begin_anew_behind_the_last_one() {
    let links = links_of(u64::MAX);
    let (id, mut answered) = wait(&links, GroupId(3));
    assert_eq!(id, question_id(GroupId(3), 0));
    links.answered(PEER, Answer::Unknown.encode(id));
    assert_eq!(answered.try_recv(), Ok(Ok(Answer::Unknown)));
}

#[test]
fn what_has_not_left_is_told_from_what_nobody_knows() {
    let links = links();
    let (id, mut unsent) = wait(&links, GroupId(3));
    let entry = Bytes::from_static(b"e");
    let question = Question::Propose { group: GroupId(3), wait_ms: 1, entry };
    links.unsent(PEER, question.encode(id));
    assert_eq!(unsent.try_recv(), Ok(Err(NoAnswer::NotSent)));
    let (_, mut lost) = wait(&links, GroupId(3));
    links.lost(PeerId(3));
    assert!(lost.try_recv().is_err());
    links.lost(PEER);
    assert_eq!(lost.try_recv(), Ok(Err(NoAnswer::Unknown)));
}

#[test]
fn who_leads_no_more_has_a_moment_for_its_last_words() {
    let links = links();
    let (id, mut first) = wait(&links, GroupId(3));
    let (_, mut second) = wait(&links, GroupId(3));
    let (_, mut of_two) = wait(&links, GroupId(2));
    links.roles_changed(&[leads(3, 0), leads(3, 2), leads(2, 2)]);
    links.roles_changed(&[leads(3, 1)]);
    let changed = Instant::now();
    links.end_late(changed);
    let taken = Answer::Taken { index: tl_types::Index(7), replies: Vec::new() };
    links.answered(PEER, taken.encode(id));
    assert_eq!(first.try_recv(), Ok(Ok(taken)), "it was committed all the same");
    assert!(second.try_recv().is_err());
    links.end_late(changed + LAST_WORDS);
    assert_eq!(second.try_recv(), Ok(Err(NoAnswer::Unknown)), "it hangs");
    assert!(of_two.try_recv().is_err(), "another group");
    assert!(links.leads(GroupId(3)) && !links.leads(GroupId(2)));
    assert_eq!((links.leaderless(), links.led()), (Some(GroupId(0)), 1));
}

#[test]
fn who_is_called_back_is_told_once_and_not_later_than_said() {
    let links = links();
    let (said, heard) = std::sync::mpsc::channel();
    let call = || {
        let said = said.clone();
        Box::new(move |answer| said.send(answer).expect("heard")) as Call
    };
    let entry = Bytes::from_static(b"e");
    let question = Question::Propose { group: GroupId(3), wait_ms: 1, entry };
    let until = Instant::now();
    let back = links.put(PEER, GroupId(3), &question, until, call());
    assert!(back.is_err() && links.open.lock().waiting.is_empty(), "nothing leaves yet");
    let waiting = |until| {
        let asker = Asker::Call(call());
        links.add(GroupId(3), Waiting { peer: PEER, is_read: false, asker, until: Some(until) })
    };
    waiting(until);
    let later = waiting(until + Duration::from_secs(1));
    links.end_late(until);
    assert_eq!(heard.try_iter().collect::<Vec<_>>(), [Err(NoAnswer::Unknown)]);
    let taken = Answer::Taken { index: tl_types::Index(7), replies: Vec::new() };
    let id = question_id(GroupId(3), later);
    links.answered(PEER, taken.encode(id));
    links.answered(PEER, taken.encode(id));
    assert_eq!(heard.try_iter().collect::<Vec<_>>(), [Ok(taken)]);
}

#[test]
fn frames_for_the_driver_are_bounded_and_the_next_is_dropped() {
    let links = links();
    assert!(links.take_in(INBOUND_BYTES_MAX - 1) && links.take_in(1));
    assert!(!links.take_in(1), "one past");
    assert_eq!(links.metrics.peer_frames_dropped.get(), 1);
    links.taken(1);
    assert!(links.take_in(1));
}

#[test]
fn a_group_is_led_for_the_member_whose_turn_it_is_if_that_is_up() {
    let links = links();
    links.roles_changed(&[0, 1, 2, 3].map(|group| leads(group, 1)));
    assert_eq!(links.led_for_others(), []);
    links.saw_clock(PeerId(2), 0, NOW, false);
    links.saw_clock(PeerId(3), 0, NOW, true);
    assert_eq!(links.led_for_others(), [(GroupId(2), PeerId(3))]);
    links.saw_clock(PEER, 0, NOW, true);
    let both = [(GroupId(1), PEER), (GroupId(2), PeerId(3))];
    assert_eq!((links.led_for_others(), links.present()), (both.to_vec(), vec![PEER, PeerId(3)]));
    links.roles_changed(&[leads(1, 2)]);
    assert_eq!(links.led_for_others(), both[1..]);
}

#[test]
fn of_five_a_node_knows_its_groups_and_who_has_the_others() {
    const GROUPS: u16 = 64;
    let names = ["node-1", "node-2", "node-3", "node-4", "node-5"];
    let links = Links::new(&member(&names, GROUPS), GROUPS, RUN, Arc::default());
    let local: Vec<GroupId> = links.local_groups().collect();
    assert!(local.len() > 20 && local.len() < 60, "{}", local.len());
    for group in (0..GROUPS).map(GroupId) {
        let replicas = links.replicas(group);
        assert_eq!(replicas.len(), if group.0 == 0 { 5 } else { 3 });
        assert_eq!(links.is_local(group), replicas.contains(&PeerId(1)));
        assert_eq!(links.is_local(group), local.contains(&group));
    }
    let elsewhere = (0..GROUPS).map(GroupId).find(|group| !links.is_local(*group));
    let elsewhere = elsewhere.expect("some are elsewhere");
    assert_eq!(links.leader(elsewhere), None);
    links.leads_elsewhere(elsewhere, PeerId(3));
    assert_eq!(links.leader(elsewhere), Some(PeerId(3)));
    links.forget_elsewhere(elsewhere);
    assert_eq!(links.leader(elsewhere), None);
    // Whoever does not take a write, or says nothing of it, is not asked first again.
    for said in [Some(Answer::NotTaken { leader: None }), Some(Answer::Unknown), None] {
        links.leads_elsewhere(elsewhere, PEER);
        let (id, _answered) = wait(&links, elsewhere);
        match &said {
            Some(said) => links.answered(PEER, said.encode(id)),
            None => links.lost(PEER),
        }
        assert_eq!(links.leader(elsewhere), None, "{said:?}");
        links.leads_elsewhere(elsewhere, PeerId(4));
        let (id, _answered) = wait(&links, elsewhere);
        links.answered(PEER, Answer::Unknown.encode(id));
        assert_eq!(links.leader(elsewhere), Some(PeerId(4)), "somebody else was found");
    }
    // About its own groups a node believes its replicas, and only these make it unready.
    links.leads_elsewhere(local[1], PeerId(3));
    assert_eq!((links.leader(local[1]), links.leaderless()), (None, Some(GroupId(0))));
    links.roles_changed(&local.iter().map(|group| leads(group.0, 1)).collect::<Vec<_>>());
    assert_eq!((links.leaderless(), links.led()), (None, local.len()));
    for peer in (2..=5).map(PeerId) {
        links.saw_clock(peer, NOW.wall_ms, NOW, true);
    }
    for (group, to) in links.led_for_others() {
        assert!(links.replicas(group).contains(&to), "only who has it may lead {group}");
    }
}

#[test]
fn reads_of_a_silent_member_end_and_writes_wait() {
    let links = links();
    let (_, mut write) = wait(&links, GroupId(3));
    let (id, mut read) = wait(&links, NO_GROUP);
    let number = id & NUMBER_MASK;
    let mut open = links.open.lock();
    open.waiting.get_mut(&(NO_GROUP, number)).expect("asked").is_read = true;
    drop(open);
    links.is_silent(PeerId(3));
    assert!(read.try_recv().is_err(), "somebody else");
    links.is_silent(PEER);
    assert_eq!(read.try_recv(), Ok(Err(NoAnswer::Unknown)));
    assert!(write.try_recv().is_err());
}

#[test]
fn a_member_that_was_replaced_is_waited_for_no_more() {
    let links = links();
    let (_, mut lost) = wait(&links, GroupId(3));
    for peer in [PEER, PeerId(3)] {
        links.saw_clock(peer, NOW.wall_ms, NOW, true);
    }
    let next = list(&["node-1", "node-2", "node-3"]).replaced("node-2", [9; 16]);
    links.set_members(&next.expect("a member"));
    assert_eq!(lost.try_recv(), Ok(Err(NoAnswer::Unknown)));
    assert_eq!(links.others(), [PeerId(4), PeerId(3)], "in order of their names");
    assert_eq!((&*links.name(PeerId(4)), &*links.name(PEER)), ("node-2", "node-2"));
    assert_eq!(links.present(), [PeerId(3)]);
    links.roles_changed(&[1, 2].map(|group| leads(group, 1)));
    links.saw_clock(PeerId(4), NOW.wall_ms, NOW, true);
    let turns = [(GroupId(1), PeerId(4)), (GroupId(2), PeerId(3))];
    assert_eq!(links.led_for_others(), turns, "the new life has the turn of the old one");
}

#[test]
fn clocks_agree_when_a_majority_does() {
    let links = links();
    let agreed_ms = CLOCKS_AGREE_MS as u64;
    assert!(!links.clocks_agree(NOW));
    links.saw_clock(PeerId(3), NOW.wall_ms + agreed_ms + 1, NOW, true);
    assert!(!links.clocks_agree(NOW));
    links.saw_clock(PEER, NOW.wall_ms + agreed_ms, NOW, true);
    assert!(links.clocks_agree(NOW));
}

#[test]
fn a_clock_that_jumps_agrees_with_nobody_asked_before() {
    let links = links();
    for peer in [PEER, PeerId(3)] {
        links.saw_clock(peer, NOW.wall_ms, NOW, true);
    }
    let later = Now { boot_ms: NOW.boot_ms + 700, wall_ms: NOW.wall_ms + 700 };
    assert!(links.clocks_agree(later), "time passed alike");
    let jumped = Now { boot_ms: later.boot_ms, wall_ms: later.wall_ms + 86_400_000 };
    assert!(!links.clocks_agree(jumped));
}
