//! The other nodes of the cluster, as this node's threads see them: frames out and in, who leads
//! which group, questions under way, clocks.
//!
//! ```text
//!   driver ── frames ──► sender ═══► peer          peer ═══► heard ── frames ──► driver's mailbox
//!   service ── question ─► open ═══► peer          peer ═══► heard ── answer ──► open ─► service
//! ```
//!
//! Invariants:
//!  - L1 a question ends once: with an answer of the node that was asked, as not sent, or as
//!    unknown; it is sent once;
//!  - L2 "not sent" only when no byte of it has left;
//!  - L3 frames that wait for the driver are bounded; one past is dropped, which Raft repairs;
//!  - L4 no two questions of a node have the same number, also not those of two of its processes: an
//!    answer that comes late, to a process that is gone, is nobody's.
//!
//! What is heard is taken on the transport's own threads: nothing here waits for anything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tl_raft::transport::{FrameKind, TransportSender};
use tl_raft::{PeerId, Role, RoleChange};
use tl_types::GroupId;
use tokio::sync::{Notify, oneshot};

use crate::cluster::{MemberList, Membership, Placement};
use crate::identity::Member;
use crate::metrics::Metrics;
use crate::node::Now;
use crate::peer::{Answer, Question};

mod answers;

/// Frames of peers that wait for the driver, bytes. One past: dropped, which Raft repairs.
pub(crate) const INBOUND_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Clocks that differ by no more than this agree, milliseconds.
const CLOCKS_AGREE_MS: u128 = 1_000;
/// What a peer's clock said is forgotten after this.
const CLOCK_FRESH: Duration = Duration::from_secs(5);
/// A member that no longer leads a group has so long to say what became of the group's writes.
/// One that is well says so at once; of one that is gone the connection breaks.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// A member that said something this lately is up.
const PRESENT: Duration = Duration::from_secs(2);
/// The group of a question that concerns none.
const NO_GROUP: GroupId = GroupId(u16::MAX);

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoAnswer {
    /// The question has not left this node.
    NotSent,
    /// Whether it arrived is not known.
    Unknown,
}

/// A question under way.
struct Waiting {
    peer: PeerId,
    /// It changes nothing, so that somebody else may be asked without knowing what became of it.
    is_read: bool,
    asker: Asker,
    /// When it ends as unknown at the latest.
    until: Option<Instant>,
}

/// What is done with an answer on a thread of the transport; it must not wait.
pub(crate) type Call = Box<dyn FnOnce(Result<Answer, NoAnswer>) + Send>;

/// Who is told the answer.
enum Asker {
    /// A task, which gives up by itself.
    Task(oneshot::Sender<Result<Answer, NoAnswer>>),
    /// Whoever is behind a call.
    Call(Call),
}

impl Waiting {
    fn tell(self, said: Result<Answer, NoAnswer>) {
        match self.asker {
            // Also when nobody waits any more.
            Asker::Task(answer) => drop(answer.send(said)),
            Asker::Call(call) => call(said),
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiting").field("peer", &self.peer).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Open {
    /// The number of the last question.
    asked: u64,
    waiting: BTreeMap<(GroupId, u64), Waiting>,
}

/// What is known of a peer's clock.
#[derive(Debug, Clone, Copy)]
struct Clock {
    /// How far it is before this node's boot clock, milliseconds. Compared with the boot clock,
    /// since the wall clock of this node may be the one that jumps.
    ahead_ms: i128,
    may_lead: bool,
    at: Instant,
}

/// Who the members are, and who was one.
#[derive(Debug)]
struct Names {
    /// In order of their names, which stay while lives change.
    members: Vec<PeerId>,
    /// Members and routers, in order of their names.
    all: Vec<PeerId>,
    names: BTreeMap<PeerId, Arc<str>>,
}

impl Names {
    fn of(list: &MemberList, routers: &[Member]) -> Names {
        let former = list.former.iter().map(|former| (former.peer, &former.name));
        let named = |member: &Member| (PeerId(member.peer), Arc::<str>::from(member.name.as_str()));
        let present = list.members.iter().chain(routers).map(named);
        let former = former.map(|(peer, name)| (PeerId(peer), Arc::<str>::from(name.as_str())));
        let names: BTreeMap<PeerId, Arc<str>> = former.chain(present).collect();
        let members = list.members.iter().map(|member| PeerId(member.peer)).collect();
        let mut all: Vec<&Member> = list.members.iter().chain(routers).collect();
        all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Names { members, all: all.iter().map(|member| PeerId(member.peer)).collect(), names }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Links {
    me: PeerId,
    names: RwLock<Arc<Names>>,
    placement: Arc<Placement>,
    routers: Vec<Member>,
    /// By group: whether this node has a copy of it.
    local: Vec<bool>,
    sender: RwLock<Option<TransportSender>>,
    /// For whom something of the driver's waits until [`Links::release`].
    held: Mutex<Vec<PeerId>>,
    inbound_bytes: AtomicUsize,
    /// By group: who leads it as far as this node knows; 0 for nobody. Of groups that are elsewhere,
    /// whoever took a write last.
    leaders: Vec<AtomicU64>,
    changed: Notify,
    open: Mutex<Open>,
    clocks: Mutex<BTreeMap<PeerId, Clock>>,
    turns: answers::Turns,
    metrics: Arc<Metrics>,
}

impl Links {
    /// `run` is random, and another one in each process: its questions are numbered from there on.
    pub(crate) fn new(member: &Membership, groups: u16, run: u64, metrics: Arc<Metrics>) -> Links {
        let groups = || (0..groups).map(GroupId);
        let has = |group| member.place.is_some_and(|place| member.placement.has(group, place));
        Links {
            me: member.seat.peer,
            names: RwLock::new(Arc::new(Names::of(&member.list, &member.routers))),
            placement: Arc::clone(&member.placement),
            routers: member.routers.clone(),
            local: groups().map(has).collect(),
            sender: RwLock::new(None),
            inbound_bytes: AtomicUsize::new(0),
            leaders: groups().map(|_| AtomicU64::new(0)).collect(),
            changed: Notify::new(),
            held: Mutex::default(),
            open: Mutex::new(Open { asked: run & NUMBER_MASK, waiting: BTreeMap::new() }),
            clocks: Mutex::default(),
            turns: Mutex::default(),
            metrics,
        }
    }

    /// From now on frames leave.
    pub(crate) fn open(&self, sender: TransportSender) {
        *self.sender.write() = Some(sender);
    }

    /// Nothing leaves any more, and nobody will be answered.
    pub(crate) fn close(&self) {
        *self.sender.write() = None;
        let waiting = std::mem::take(&mut self.open.lock().waiting);
        for (_, waiting) in waiting {
            waiting.tell(Err(NoAnswer::Unknown));
        }
    }

    pub(crate) fn me(&self) -> PeerId {
        self.me
    }

    fn names(&self) -> Arc<Names> {
        Arc::clone(&self.names.read())
    }

    /// All other members and routers, in order of their names.
    pub(crate) fn others(&self) -> Vec<PeerId> {
        let names = self.names();
        names.all.iter().copied().filter(|peer| *peer != self.me).collect()
    }

    /// A member's place among all members' names in order; nothing for routers and former lives.
    pub(crate) fn place(&self, peer: PeerId) -> Option<usize> {
        self.names().members.iter().position(|member| *member == peer)
    }

    /// Which members have which groups.
    pub(crate) fn placement(&self) -> &Placement {
        &self.placement
    }

    /// The members that have a copy of a group, in order of their names.
    pub(crate) fn replicas(&self, group: GroupId) -> Vec<PeerId> {
        self.placement.pick(group, &self.names().members).copied().collect()
    }

    /// Whether this node has a copy of a group.
    pub(crate) fn is_local(&self, group: GroupId) -> bool {
        self.local.get(usize::from(group.0)).copied().unwrap_or(false)
    }

    /// The groups that this node has a copy of, in order.
    pub(crate) fn local_groups(&self) -> impl Iterator<Item = GroupId> + '_ {
        let groups = (0..).map(GroupId).zip(&self.local);
        groups.filter(|(_, is_local)| **is_local).map(|(group, _)| group)
    }

    /// Whether this node has no groups of its own.
    pub(crate) fn is_router(&self) -> bool {
        self.routers.iter().any(|router| router.peer == self.me.0)
    }

    /// Whether a node is a member, and no router or former life.
    pub(crate) fn is_member(&self, peer: PeerId) -> bool {
        self.names().members.contains(&peer)
    }

    /// A member's name, for people; also that of a life that is over.
    pub(crate) fn name(&self, peer: PeerId) -> Arc<str> {
        self.names().names.get(&peer).map_or_else(|| "?".into(), Arc::clone)
    }

    /// From now on these are the members. Nobody waits any more for what those that are gone say,
    /// and their clocks do not count.
    pub(crate) fn set_members(&self, list: &MemberList) {
        let names = Arc::new(Names::of(list, &self.routers));
        let former = std::mem::replace(&mut *self.names.write(), Arc::clone(&names));
        self.clocks.lock().retain(|peer, _| names.members.contains(peer));
        self.turns.lock().retain(|peer, _| names.all.contains(peer));
        for gone in former.members.iter().filter(|peer| !names.members.contains(peer)) {
            self.lost(*gone);
        }
    }

    // Frames of the driver.

    /// Gives the driver's frames to the transport. What it does not take is lost, and counted
    /// there.
    pub(crate) fn send(&self, frames: Vec<(PeerId, Bytes)>) {
        for (to, frame) in frames {
            self.hold(to, FrameKind::Raft, frame);
        }
        self.release();
    }

    /// Gives a frame to the transport that may wait until [`Links::release`]; whether it took it.
    fn hold(&self, to: PeerId, kind: FrameKind, payload: Bytes) -> bool {
        let taken = match &*self.sender.read() {
            Some(sender) => sender.hold(to, kind, payload).is_ok(),
            None => false,
        };
        let mut held = self.held.lock();
        if taken && !held.contains(&to) {
            held.push(to);
        }
        taken
    }

    /// Sends what was held back, on this thread if the sockets take it: the driver's own, at the
    /// end of what it does for one turn.
    pub(crate) fn release(&self) {
        let held = std::mem::take(&mut *self.held.lock());
        if let Some(sender) = &*self.sender.read() {
            held.into_iter().for_each(|peer| sender.release(peer));
        }
    }

    /// Gives pieces of what is large to the transport, on connections of their own. Whoever lacks
    /// one that was not taken asks for it again.
    pub(crate) fn send_bulk(&self, pieces: Vec<(PeerId, Bytes)>) {
        if pieces.is_empty() {
            return;
        }
        if let Some(sender) = &*self.sender.read() {
            for (to, piece) in pieces {
                let _ = sender.send(to, FrameKind::Bulk, piece);
            }
        }
    }

    /// Room for a frame on its way to the driver; false when it must be dropped.
    pub(crate) fn take_in(&self, bytes: usize) -> bool {
        let before = self.inbound_bytes.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes <= INBOUND_BYTES_MAX {
            return true;
        }
        self.inbound_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.metrics.peer_frames_dropped.inc();
        false
    }

    /// The driver has taken a frame.
    pub(crate) fn taken(&self, bytes: usize) {
        self.inbound_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    // Who leads.

    /// Who leads a group, if this node knows of anybody.
    pub(crate) fn leader(&self, group: GroupId) -> Option<PeerId> {
        let leader = self.leaders.get(usize::from(group.0))?.load(Ordering::Acquire);
        (leader != 0).then_some(PeerId(leader))
    }

    pub(crate) fn leads(&self, group: GroupId) -> bool {
        self.leader(group) == Some(self.me)
    }

    /// The first group with a copy here of which this node knows no leader.
    pub(crate) fn leaderless(&self) -> Option<GroupId> {
        self.local_groups().find(|group| self.leader(*group).is_none())
    }

    /// A member has shown that it leads a group that is elsewhere.
    pub(crate) fn leads_elsewhere(&self, group: GroupId, leader: PeerId) {
        self.note_elsewhere(group, leader.0);
    }

    /// Whoever was thought to lead a group that is elsewhere may not.
    pub(crate) fn forget_elsewhere(&self, group: GroupId) {
        self.note_elsewhere(group, 0);
    }

    fn note_elsewhere(&self, group: GroupId, leader: u64) {
        if self.is_local(group) {
            return; // Its replica here knows better.
        }
        if let Some(slot) = self.leaders.get(usize::from(group.0)) {
            slot.store(leader, Ordering::Release);
        }
    }

    /// Members whose clock was heard lately and that do not stop: they could lead.
    pub(crate) fn present(&self) -> Vec<PeerId> {
        let clocks = self.clocks.lock();
        let fresh =
            clocks.iter().filter(|(_, clock)| clock.may_lead && clock.at.elapsed() <= PRESENT);
        fresh.map(|(peer, _)| *peer).collect()
    }

    /// Groups that this node leads and others should: each group's turn goes to one member.
    pub(crate) fn led_for_others(&self) -> Vec<(GroupId, PeerId)> {
        let present = self.present();
        let groups = (0..).map(GroupId).zip(&self.leaders);
        groups
            .filter(|(_, leader)| leader.load(Ordering::Acquire) == self.me.0)
            .filter_map(|(group, _)| {
                let replicas = self.replicas(group);
                let turn = usize::from(group.0).checked_rem(replicas.len())?;
                Some((group, replicas[turn])).filter(|(_, turn)| present.contains(turn))
            })
            .collect()
    }

    /// How many groups this node leads.
    pub(crate) fn led(&self) -> usize {
        self.leaders.iter().filter(|leader| leader.load(Ordering::Acquire) == self.me.0).count()
    }

    /// The driver says that roles changed. A node that no longer leads, and is well, still answers
    /// what it was asked before: its entries are committed or overwritten. One that hangs does not,
    /// and is not waited for much longer.
    pub(crate) fn roles_changed(&self, changes: &[RoleChange]) {
        if changes.is_empty() {
            return;
        }
        for change in changes {
            let leader = if change.role == Role::Leader { Some(self.me) } else { change.leader };
            let Some(slot) = self.leaders.get(usize::from(change.group.0)) else { continue };
            slot.store(leader.map_or(0, |leader| leader.0), Ordering::Release);
            if let Some(leader) = leader {
                self.give_up(change.group, leader);
            }
        }
        self.changed.notify_waiters();
    }

    /// Questions about a group to others than its leader are to end soon.
    fn give_up(&self, group: GroupId, leader: PeerId) {
        let soon = Instant::now() + LAST_WORDS;
        let mut open = self.open.lock();
        let all = open.waiting.range_mut((group, 0)..=(group, u64::MAX));
        for (_, waiting) in all.filter(|(_, waiting)| waiting.peer != leader) {
            waiting.until = Some(waiting.until.map_or(soon, |until| until.min(soon)));
        }
    }

    /// Ends questions that were waited for long enough; called every so often.
    pub(crate) fn end_late(&self, now: Instant) {
        self.end_unknown(.., |waiting| waiting.is_over(now));
    }

    /// Ends some questions as unknown; whoever asked is told when nothing is locked.
    fn end_unknown(
        &self,
        range: impl std::ops::RangeBounds<(GroupId, u64)>,
        is_over: impl Fn(&Waiting) -> bool,
    ) {
        let mut open = self.open.lock();
        let gone = open.waiting.extract_if(range, |_, waiting| is_over(waiting));
        let gone: Vec<((GroupId, u64), Waiting)> = gone.collect();
        drop(open);
        for ((group, _), waiting) in gone {
            self.doubt(group, waiting.peer);
            waiting.tell(Err(NoAnswer::Unknown));
        }
    }

    /// Waits until some group's leader changes, or for so long.
    pub(crate) async fn wait_for_change(&self, patience: Duration) {
        let _ = tokio::time::timeout(patience, self.changed.notified()).await;
    }

    // Questions.

    /// Asks a peer, about a group if it is about one, and waits for its answer.
    pub(crate) async fn ask(
        &self,
        to: PeerId,
        question: &Question,
        deadline: Instant,
    ) -> Result<Answer, NoAnswer> {
        let (group, is_read) = match question {
            Question::Propose { group, .. } => (*group, false),
            Question::Read { .. } => (NO_GROUP, true),
            // A transfer ends with the leader that it takes away.
            Question::Clock
            | Question::Report
            | Question::Members { .. }
            | Question::Drain { .. }
            | Question::Transfer { .. }
            | Question::Repair { .. } => (NO_GROUP, false),
        };
        let (answer, answered) = oneshot::channel();
        let asker = Asker::Task(answer);
        let number = self.add(group, Waiting { peer: to, is_read, asker, until: None });
        // Also when nobody waits any more.
        let _forget = Forget { links: self, id: (group, number) };
        if !self.send_question(to, question, question_id(group, number)) {
            return Err(NoAnswer::NotSent);
        }
        match tokio::time::timeout_at(deadline.into(), answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(NoAnswer::Unknown),
        }
    }

    /// Asks a peer about a group and goes on, behind the next [`Links::release`]: the answer is given to `call`, or at `until` that it
    /// is not known ([`Links::end_late`] sees to that). `call` comes back when nothing was sent.
    pub(crate) fn put(
        &self,
        to: PeerId,
        group: GroupId,
        question: &Question,
        until: Instant,
        call: Call,
    ) -> Result<(), Call> {
        let asker = Asker::Call(call);
        let waiting = Waiting { peer: to, is_read: false, asker, until: Some(until) };
        let number = self.add(group, waiting);
        let payload = question.encode(question_id(group, number));
        if self.hold(to, FrameKind::Request, payload) {
            return Ok(());
        }
        // It may have been ended meanwhile, and then it was told.
        match self.open.lock().waiting.remove(&(group, number)) {
            Some(Waiting { asker: Asker::Call(call), .. }) => Err(call),
            Some(_) | None => Ok(()),
        }
    }

    fn add(&self, group: GroupId, waiting: Waiting) -> u64 {
        let mut open = self.open.lock();
        open.asked = (open.asked + 1) & NUMBER_MASK;
        let number = open.asked;
        open.waiting.insert((group, number), waiting);
        number
    }

    fn send_question(&self, to: PeerId, question: &Question, id: u64) -> bool {
        match &*self.sender.read() {
            Some(sender) => sender.send(to, FrameKind::Request, question.encode(id)).is_ok(),
            None => false,
        }
    }

    fn end(&self, from: PeerId, id: u64, with: Result<Answer, NoAnswer>) {
        let id = (GroupId((id >> NUMBER_BITS) as u16), id & NUMBER_MASK);
        let mut open = self.open.lock();
        if open.waiting.get(&id).is_some_and(|waiting| waiting.peer == from)
            && let Some(waiting) = open.waiting.remove(&id)
        {
            drop(open);
            if matches!(with, Ok(Answer::NotTaken { .. } | Answer::Unknown) | Err(_)) {
                self.doubt(id.0, from);
            }
            waiting.tell(with);
        }
    }

    /// A member did not take a write of a group, or does not say so: of one that is elsewhere it may not be
    /// the leader, and the next write looks for that.
    fn doubt(&self, group: GroupId, peer: PeerId) {
        if let Some(leader) =
            self.leaders.get(usize::from(group.0)).filter(|_| !self.is_local(group))
        {
            // Whoever was found to lead meanwhile stays.
            let _ = leader.compare_exchange(peer.0, 0, Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    /// A peer has answered.
    pub(crate) fn answered(&self, from: PeerId, payload: Bytes) {
        match Answer::decode(payload) {
            Ok((id, answer)) => self.end(from, id, Ok(answer)),
            Err(error) => {
                tracing::warn!(peer = %self.name(from), %error, "an answer of a peer is none");
            }
        }
    }

    /// A question that was taken by the transport has not left.
    pub(crate) fn unsent(&self, to: PeerId, payload: Bytes) {
        // Answers come back too; whoever asked hears nothing, as if they had been lost.
        if let Ok((id, _)) = Question::decode(payload) {
            self.end(to, id, Err(NoAnswer::NotSent));
        }
    }

    /// The connection to a peer broke: nobody knows what it has seen.
    pub(crate) fn lost(&self, peer: PeerId) {
        self.end_unknown(.., |waiting| waiting.peer == peer);
    }

    /// Ends the reads that somebody was asked for who is silent, and takes it for no leader of what is
    /// elsewhere: others may be asked.
    pub(crate) fn is_silent(&self, peer: PeerId) {
        self.end_unknown(.., |waiting| waiting.is_read && waiting.peer == peer);
        (0..self.leaders.len() as u16).for_each(|group| self.doubt(GroupId(group), peer));
    }

    // Clocks.

    /// A peer's wall clock said so when this node's clocks said `now`.
    pub(crate) fn saw_clock(&self, peer: PeerId, wall_ms: u64, now: Now, may_lead: bool) {
        if !self.is_member(peer) {
            return; // A router has no vote, about the time neither.
        }
        let ahead_ms = i128::from(wall_ms) - i128::from(now.boot_ms);
        let clock = Clock { ahead_ms, may_lead, at: Instant::now() };
        self.clocks.lock().insert(peer, clock);
    }

    /// Whether a majority of the members' clocks, this one's among them, say what it says now.
    pub(crate) fn clocks_agree(&self, now: Now) -> bool {
        let ahead_ms = i128::from(now.wall_ms) - i128::from(now.boot_ms);
        let clocks = self.clocks.lock();
        let agree = |clock: &&Clock| {
            clock.ahead_ms.abs_diff(ahead_ms) <= CLOCKS_AGREE_MS
                && clock.at.elapsed() <= CLOCK_FRESH
        };
        (clocks.values().filter(agree).count() + 1) * 2 > self.names().members.len()
    }
}

/// Bits of a question's id that number it; the rest is its group.
const NUMBER_BITS: u32 = 48;
const NUMBER_MASK: u64 = (1 << NUMBER_BITS) - 1;

fn question_id(group: GroupId, number: u64) -> u64 {
    (u64::from(group.0) << NUMBER_BITS) | (number & NUMBER_MASK)
}

/// Forgets a question when nobody waits for it.
struct Forget<'a> {
    links: &'a Links,
    id: (GroupId, u64),
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.links.open.lock().waiting.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tl_types::Term;

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
            members: (1..)
                .zip(names)
                .map(|(port, name)| format!("{name}=127.0.0.1:{port}"))
                .collect(),
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
        assert_eq!(
            (links.led_for_others(), links.present()),
            (both.to_vec(), vec![PEER, PeerId(3)])
        );
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
}
