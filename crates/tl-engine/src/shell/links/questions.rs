//! Questions to other nodes that are under way.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tl_raft::PeerId;
use tl_raft::transport::FrameKind;
use tl_types::GroupId;
use tokio::sync::oneshot;

use super::Links;
use crate::peer::{Answer, Question};

/// A member that no longer leads a group has so long to say what became of the group's writes.
/// One that is well says so at once; of one that is gone the connection breaks.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(1);
/// The group of a question that concerns none.
pub(super) const NO_GROUP: GroupId = GroupId(u16::MAX);

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoAnswer {
    /// The question has not left this node.
    NotSent,
    /// Whether it arrived is not known.
    Unknown,
}

/// A question under way.
pub(super) struct Waiting {
    pub(super) peer: PeerId,
    /// It changes nothing, so that somebody else may be asked without knowing what became of it.
    pub(super) is_read: bool,
    pub(super) asker: Asker,
    /// When it ends as unknown at the latest.
    pub(super) until: Option<Instant>,
}

/// What is done with an answer on a thread of the transport; it must not wait.
pub(crate) type Call = Box<dyn FnOnce(Result<Answer, NoAnswer>) + Send>;

/// Who is told the answer.
pub(super) enum Asker {
    /// A task, which gives up by itself.
    Task(oneshot::Sender<Result<Answer, NoAnswer>>),
    /// Whoever is behind a call.
    Call(Call),
}

impl Waiting {
    pub(super) fn tell(self, said: Result<Answer, NoAnswer>) {
        match self.asker {
            // Also when nobody waits any more.
            Asker::Task(answer) => drop(answer.send(said)),
            Asker::Call(call) => call(said),
        }
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiting").field("peer", &self.peer).finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub(super) struct Open {
    /// The number of the last question.
    pub(super) asked: u64,
    pub(super) waiting: BTreeMap<(GroupId, u64), Waiting>,
}

impl Open {
    /// None under way; the next one has the number behind this.
    pub(super) fn behind(run: u64) -> Open {
        Open { asked: run & NUMBER_MASK, waiting: BTreeMap::new() }
    }
}

impl Links {
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

    pub(super) fn add(&self, group: GroupId, waiting: Waiting) -> u64 {
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

    /// Questions about a group to others than its leader are to end soon.
    pub(super) fn give_up(&self, group: GroupId, leader: PeerId) {
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
    pub(super) fn end_unknown(
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
}

/// Bits of a question's id that number it; the rest is its group.
pub(super) const NUMBER_BITS: u32 = 48;
pub(super) const NUMBER_MASK: u64 = (1 << NUMBER_BITS) - 1;

pub(super) fn question_id(group: GroupId, number: u64) -> u64 {
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
