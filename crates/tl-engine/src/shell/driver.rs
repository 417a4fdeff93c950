//! The driver thread: a small loop around [`Node::turn`].

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tl_core::{Change, Effect};
use tl_raft::{FeedCounts, JobId, LogJob, PeerId, Token};
use tl_store::OrderedStore;
use tl_types::{GroupId, Seq};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::admission::Permit;
use super::answers::{Addressed, Answer};
use super::aside::AsideBox;
use super::cold::ColdBox;
use super::feed::FeedBox;
use super::flush::Background;
use super::links::{Links, NoAnswer};
use super::log::LogBox;
use super::pulse::Pulse;
use super::relay::{Again, Served};
use super::waiters::Waiters;
use super::{Ask, Mail, Shared, time};
use crate::api::TailEnd;
use crate::front::{Front, Offer, Ticket, Told};
use crate::hub::{ReplyGuards, TopicKey};
use crate::metrics::Stage;
use crate::node::{CatchUpCounts, CatchUpOpen, Done, Failure, Input, Node, Turned};
use crate::ops::look::{GroupLook, look};
use crate::peer::{Answer as PeerAnswer, Question};
use crate::service::forward::{Tried, told, tried};
use crate::service::{Applied, Proposal};

/// Longest wait for mail: the driver's clock ticks at least this often.
const TICK: Duration = Duration::from_millis(50);
/// So long after its last write of the log the driver has the end of the log confirmed.
const NUDGE_AFTER: Duration = Duration::from_millis(25);
/// How often it looks for forwarded writes whose answer is late.
const LATE_EVERY: Duration = Duration::from_millis(250);

/// Who waits for a token's answer.
enum Waiter {
    /// A request on the runtime.
    Task { to: oneshot::Sender<Answer>, permit: Option<Permit> },
    /// A request of the front on this thread.
    Front {
        ticket: Ticket,
        permit: Permit,
        /// With others: what is tried again when it had no effect.
        again: Option<Box<Again>>,
    },
    /// Another node's question.
    Peer { from: PeerId, id: u64, group: GroupId, permit: Permit, _place: OwnedSemaphorePermit },
}

/// The threads around the driver, and what it shares with them.
pub(crate) struct Around<S> {
    pub(crate) shared: Arc<Shared<S>>,
    pub(crate) log: Arc<LogBox>,
    pub(crate) background: Arc<Background>,
    pub(crate) cold: Arc<ColdBox>,
    pub(crate) asides: Arc<AsideBox>,
    pub(crate) feeds: Arc<FeedBox>,
    pub(crate) pulse: Arc<Pulse>,
    /// The other nodes; `None` for a node that is a cluster of its own.
    pub(crate) links: Option<Arc<Links>>,
}

struct Loop<'a, S> {
    around: &'a Around<S>,
    front: Option<Box<dyn Front>>,
    /// Requests whose answer is still to come; bounded by admission.
    waiters: Waiters<Waiter>,
    answers: Vec<Addressed>,
    mail: Vec<Mail>,
    offers: Vec<Offer>,
    inbox: Vec<Input>,
    /// Who wants to know how the groups are; told once a turn, all the same.
    looks: Vec<oneshot::Sender<Arc<[GroupLook]>>>,
    /// The job that this thread wrote; told behind those of the log thread, which came before.
    written: Option<JobId>,
    /// When this thread last wrote the log, until the log thread is told to confirm its end.
    wrote: Option<Instant>,
    /// What transfers had done when it was last told.
    counted: CatchUpCounts,
    /// Where they were when it was last told.
    open: CatchUpOpen,
    /// When late answers were last looked for.
    late: Instant,
    /// What the log had given to followers when it was last told.
    fed: FeedCounts,
}

pub(crate) fn run<S: OrderedStore + 'static>(mut node: Node<S>, around: &Around<S>) {
    let mut state = Loop {
        around,
        front: None,
        waiters: Waiters::default(),
        answers: Vec::new(),
        mail: Vec::new(),
        offers: Vec::new(),
        inbox: Vec::new(),
        looks: Vec::new(),
        written: None,
        wrote: None,
        counted: CatchUpCounts::default(),
        open: CatchUpOpen::default(),
        late: Instant::now(),
        fed: FeedCounts::default(),
    };
    let mut more = true;
    while state.gather(more) {
        let turn = around.shared.hub.turn();
        let started = Instant::now();
        let mut turned = node.turn(time::now(), &mut state.inbox);
        more = turned.more;
        let mut job = turned.log.take();
        if let Some(links) = &around.links {
            // Frames leave before the log is written: followers write at the same time.
            links.send(std::mem::take(&mut turned.frames));
            links.send_bulk(std::mem::take(&mut turned.bulk));
            links.roles_changed(&turned.roles);
            if started.duration_since(state.late) >= LATE_EVERY {
                state.late = started;
                links.end_late(started);
            }
            state.count(node.catch_up_counts(), node.catch_up_open());
            state.count_feeds(node.driver().feed_counts());
        }
        // With others to hear from, this thread must not wait for the disk.
        if (state.front.is_none() || around.links.is_some())
            && let Some(job) = job.take()
        {
            // Its sync goes on beside what follows.
            around.log.push(job);
        }
        state.act(turned, started);
        if let Some(links) = &around.links {
            links.release();
        }
        drop(turn);
        state.tell_looks(&node);
        if let Some(job) = job {
            more |= state.write(job);
        }
    }
}

impl<S: OrderedStore + 'static> Loop<'_, S> {
    /// Collects what is to be done, and waits for it unless there is `more` already; false when
    /// the node ends. Dropping the waiters then tells every open request that its outcome is
    /// unknown.
    fn gather(&mut self, more: bool) -> bool {
        let patience = if more { Duration::ZERO } else { self.patience() };
        let mailbox = &self.around.shared.mail;
        match &mut self.front {
            None => mailbox.take(&mut self.mail, patience),
            Some(front) => {
                let idle = !patience.is_zero() && mailbox.sleep();
                front.poll(if idle { patience } else { Duration::ZERO }, &mut self.offers);
                mailbox.awake();
                mailbox.take(&mut self.mail, Duration::ZERO);
            }
        }
        let mut offers = std::mem::take(&mut self.offers);
        for Offer { ticket, proposal } in offers.drain(..) {
            self.offered(ticket, proposal);
        }
        self.offers = offers;
        let mut mail = std::mem::take(&mut self.mail);
        let goes_on = mail.drain(..).all(|mail| self.mailed(mail));
        self.mail = mail;
        self.inbox.extend(self.written.take().map(Input::LogDone));
        goes_on
    }

    /// Takes one piece of mail; false when it is the last.
    fn mailed(&mut self, mail: Mail) -> bool {
        let inbox = &mut self.inbox;
        match mail {
            Mail::Ask { ask, answer, mut permit } => {
                if let Some(permit) = &mut permit {
                    permit.pass(Stage::Queue);
                }
                let waiter = Waiter::Task { to: answer, permit };
                let token = Token(self.waiters.add(waiter));
                inbox.push(match ask {
                    Ask::Propose(group, entry) => Input::Propose { group, token, entry },
                    Ask::Read(group) => Input::Read { group, token },
                    Ask::Change(group, change) => Input::ChangeMembers { group, token, change },
                });
            }
            Mail::Input(input) => inbox.push(input),
            Mail::Frame { from, bytes } => {
                if let Some(links) = &self.around.links {
                    links.taken(bytes.len());
                }
                inbox.push(Input::Frame { from, bytes });
            }
            Mail::Bulk { from, bytes } => {
                if let Some(links) = &self.around.links {
                    links.taken(bytes.len());
                }
                inbox.push(Input::Bulk { from, bytes });
            }
            Mail::Serve(served) => {
                let Served { from, id, group, entry, mut permit, place } = served;
                permit.pass(Stage::Queue);
                self.around.shared.metrics.writes_served.inc();
                let waiter = Waiter::Peer { from, id, group, permit, _place: place };
                let token = Token(self.waiters.add(waiter));
                inbox.push(Input::Propose { group, token, entry: entry.into() });
            }
            Mail::Told(token, said) => self.told(token, said),
            Mail::Front(front) => {
                self.around.shared.mail.wake_by(front.waker());
                self.front = Some(front);
            }
            Mail::Look(answer) => self.looks.push(answer),
            Mail::Stop => return false,
        }
        true
    }

    /// Proposes what the front offers, or sends it to the node that leads its group.
    fn offered(&mut self, ticket: Ticket, proposal: Proposal) {
        let Proposal { group, entry, mut permit, to, deadline } = proposal;
        permit.pass(Stage::Queue);
        let Some(links) = &self.around.links else {
            let token = Token(self.waiters.add(Waiter::Front { ticket, permit, again: None }));
            self.inbox.push(Input::Propose { group, token, entry });
            return;
        };
        let entry = Bytes::from(entry);
        let again = Some(Box::new(Again { group, deadline, entry: entry.clone() }));
        let token = self.waiters.add(Waiter::Front { ticket, permit, again });
        let Some(to) = to else {
            let token = Token(token);
            return self.inbox.push(Input::Propose { group, token, entry: entry.to_vec() });
        };
        self.around.shared.metrics.writes_forwarded.inc();
        let left = deadline.saturating_duration_since(Instant::now());
        let wait_ms = u32::try_from(left.as_millis()).unwrap_or(u32::MAX);
        let question = Question::Propose { group, wait_ms, entry };
        let shared = Arc::clone(&self.around.shared);
        let call = Box::new(move |said| shared.mail.push(Mail::Told(token, said)));
        if links.put(to, group, &question, deadline, call).is_err() {
            self.told(token, Err(NoAnswer::NotSent));
        }
    }

    /// Another node has answered for a write of the front, or never will.
    fn told(&mut self, token: u64, said: Result<PeerAnswer, NoAnswer>) {
        let Some(Waiter::Front { ticket, again, permit }) = self.waiters.take(token) else {
            return;
        };
        drop(permit);
        let told = match (told(said), again) {
            (Tried::Applied(applied), _) => {
                let Applied { index, replies, guards } = applied;
                Told::Answer(Answer::Applied { index, replies, guards })
            }
            (Tried::Refused(error), _) => Told::Refused(error),
            (Tried::NotTaken(_), Some(again)) => Told::Again(again),
            (Tried::NotTaken(_), None) | (Tried::Unknown, _) => {
                Told::Answer(Answer::Failed(Failure::Unknown))
            }
        };
        self.tell_front(ticket, told);
    }

    /// Tells what transfers of rows have done since it was last told.
    fn count(&mut self, counts: CatchUpCounts, open: CatchUpOpen) {
        let metrics = &self.around.shared.metrics;
        if std::mem::replace(&mut self.open, open) != open {
            metrics.transfers(open);
        }
        let before = std::mem::replace(&mut self.counted, counts);
        if before == counts {
            return;
        }
        metrics.snapshots_given.inc_by(counts.given - before.given);
        metrics.snapshots_taken.inc_by(counts.taken - before.taken);
        metrics.snapshot_bytes.inc_by(counts.bytes_given - before.bytes_given);
        let reused = |counts: CatchUpCounts| counts.bytes_resumed + counts.bytes_alike;
        metrics.snapshot_bytes_reused.inc_by(reused(counts) - reused(before));
        metrics.snapshots_not_wanted.inc_by(counts.not_wanted - before.not_wanted);
        metrics.snapshots_given_up.inc_by(counts.given_up - before.given_up);
        metrics.snapshots_let_go.inc_by(counts.let_go - before.let_go);
    }

    fn count_feeds(&mut self, fed: FeedCounts) {
        let before = std::mem::replace(&mut self.fed, fed);
        let metrics = &self.around.shared.metrics;
        metrics.log_fed_entries.inc_by(fed.entries - before.entries);
        metrics.log_fed_bytes.inc_by(fed.bytes - before.bytes);
        metrics.log_feeds_missed.inc_by(fed.missed - before.missed);
    }

    fn tell_looks(&mut self, node: &Node<S>) {
        if self.looks.is_empty() {
            return;
        }
        let look = look(node.driver(), node.groups(), |group| node.applied(group));
        let look: Arc<[GroupLook]> = look.into();
        for answer in self.looks.drain(..) {
            // Nobody waits any more.
            let _ = answer.send(Arc::clone(&look));
        }
    }

    /// How long the driver may sleep: less while the end of the log is not confirmed.
    fn patience(&mut self) -> Duration {
        match self.wrote {
            Some(at) if at.elapsed() >= NUDGE_AFTER => {
                self.around.log.nudge();
                self.wrote = None;
                TICK
            }
            Some(_) => NUDGE_AFTER,
            None => TICK,
        }
    }

    /// Writes a job of a driver with a front; true when it is on disk.
    fn write(&mut self, job: LogJob) -> bool {
        let Around { shared, log, background, pulse, .. } = self.around;
        let Some(job) = log.write_now(job, shared, background, pulse) else { return false };
        self.wrote = Some(Instant::now());
        self.written = Some(job);
        true
    }

    fn act(&mut self, turned: Turned, started: Instant) {
        for beside in turned.beside {
            self.around.cold.push(beside);
        }
        for aside in turned.asides {
            self.around.asides.push(aside);
        }
        if let Some(held) = turned.log_held {
            self.around.log.hold(held);
        }
        for fetch in turned.fetches {
            self.around.feeds.push(fetch);
        }
        for (group, index) in turned.installed {
            if self.around.background.group_goes_on(group) {
                self.around.shared.metrics.groups_stopped.dec();
            }
            let (group, index) = (group.0, index.0);
            tracing::info!(
                group,
                index,
                "a group that was far behind goes on from another node's rows"
            );
        }
        for (group, why) in turned.troubles {
            tracing::warn!(group = group.0, reason = %why, "a group could not be read for a node that is behind");
        }
        if turned.sealed {
            self.around.shared.memtables.fetch_add(1, Ordering::Relaxed);
            self.around.pulse.flush_waits(true);
            self.around.background.ring();
        }
        self.around.shared.metrics.entries_applied.inc_by(turned.applied as u64);
        self.around.shared.metrics.appends_passed_over.inc_by(turned.appends_passed_over);
        for rejected in &turned.rejected {
            let (peer, reason) = (rejected.from.0, rejected.reason);
            tracing::debug!(peer, reason, "passed over what a peer sent");
        }
        for (group, why) in turned.stopped {
            tracing::error!(group = group.0, reason = %why, "a group stopped");
            self.around.shared.metrics.groups_stopped.inc();
            self.around.background.group_stopped(group, why);
        }
        for done in turned.done {
            match done {
                Done::Applied { group, token, index, replies, effects } => {
                    let waiter = token.and_then(|token| self.waiters.take(token.0));
                    // What is applied again after a start was counted when it was accepted.
                    let counted = token.is_some();
                    match waiter {
                        Some(Waiter::Task { to, mut permit }) => {
                            if let Some(permit) = &mut permit {
                                permit.pass_at(Stage::Sync, started);
                                permit.pass(Stage::Apply);
                            }
                            let guards = self.publish(group, effects, counted, true);
                            let answer = Answer::Applied { index, replies, guards };
                            self.answers.push(Addressed { to, answer, permit });
                        }
                        Some(Waiter::Front { ticket, mut permit, .. }) => {
                            permit.pass_at(Stage::Sync, started);
                            permit.pass(Stage::Apply);
                            // The reply is written first; then nothing needs to be held back.
                            let guards = ReplyGuards::new();
                            let answer = Answer::Applied { index, replies, guards };
                            self.tell_front(ticket, Told::Answer(answer));
                            permit.pass(Stage::Reply);
                            self.publish(group, effects, counted, false);
                        }
                        Some(Waiter::Peer { from, id, mut permit, .. }) => {
                            permit.pass_at(Stage::Sync, started);
                            permit.pass(Stage::Apply);
                            let guards = ReplyGuards::new();
                            let answer = Answer::Applied { index, replies, guards };
                            self.answer_peer(from, id, group, answer);
                            permit.pass(Stage::Reply);
                            self.publish(group, effects, counted, false);
                        }
                        None => drop(self.publish(group, effects, counted, false)),
                    }
                }
                Done::Read { token, index } => self.answer(token, Answer::Read { index }),
                Done::Failed { token, failure } => self.fail(token, failure),
            }
        }
        self.around.shared.answers.send(&mut self.answers);
    }

    fn fail(&mut self, token: Token, failure: Failure) {
        self.answer(token, Answer::Failed(failure));
    }

    fn answer(&mut self, token: Token, answer: Answer) {
        match self.waiters.take(token.0) {
            Some(Waiter::Task { to, permit }) => {
                self.answers.push(Addressed { to, answer, permit });
            }
            Some(Waiter::Front { ticket, again, .. }) => {
                let had_no_effect =
                    matches!(answer, Answer::Failed(Failure::NotLeader(_) | Failure::Lost));
                let told = match again {
                    Some(again) if had_no_effect => Told::Again(again),
                    Some(_) | None => Told::Answer(answer),
                };
                self.tell_front(ticket, told);
            }
            Some(Waiter::Peer { from, id, group, .. }) => {
                self.answer_peer(from, id, group, answer);
            }
            None => {}
        }
    }

    fn answer_peer(&self, to: PeerId, id: u64, group: GroupId, answer: Answer) {
        if let Some(links) = &self.around.links {
            links.answer_later(to, id, &tried(group, answer).for_peer());
        }
    }

    fn tell_front(&mut self, ticket: Ticket, told: Told) {
        let front = self.front.as_mut().expect("a front that asked stays until the node ends");
        front.answer(ticket, told);
    }

    /// Tells tails what was applied; with `hold`, events wait for the writer's reply.
    fn publish(
        &self,
        group: GroupId,
        effects: Vec<Effect>,
        counted: bool,
        hold: bool,
    ) -> ReplyGuards {
        let mut guards = ReplyGuards::new();
        for effect in effects {
            match effect {
                Effect::Publish { number, first_seq, last_seq, .. } => {
                    if counted {
                        self.around
                            .shared
                            .metrics
                            .events_appended
                            .inc_by(count(first_seq, last_seq));
                    }
                    let key = TopicKey { group, number };
                    guards.extend(self.around.shared.hub.applied(key, first_seq, last_seq, hold));
                }
                Effect::SessionChanged { change, row } => {
                    let end = match change {
                        Change::Closed => TailEnd::Closed,
                        Change::Tombstoned => TailEnd::Tombstoned,
                        Change::Created
                        | Change::Activated
                        | Change::Updated
                        | Change::Archived
                        | Change::Unarchived => continue,
                    };
                    self.around.shared.hub.ended(TopicKey { group, number: row.number }, end);
                }
                Effect::DueAt(at) => self.around.background.due(group, at),
            }
        }
        guards
    }
}

fn count(first: Seq, last: Seq) -> u64 {
    last.0 + 1 - first.0
}
