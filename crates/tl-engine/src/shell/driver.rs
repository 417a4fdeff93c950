//! The driver thread: a small loop around [`Node::turn`].

use std::time::Duration;

use tl_core::{Change, Effect};
use tl_raft::Token;
use tl_store::OrderedStore;
use tl_types::{GroupId, Seq};
use tokio::sync::oneshot;

use super::admission::Permit;
use super::answers::{Addressed, Answer};
use super::cold::ColdBox;
use super::flush::Background;
use super::log::LogBox;
use super::waiters::Waiters;
use super::{Ask, Mail, Shared, time};
use crate::api::TailEnd;
use crate::front::{Front, Offer, Ticket};
use crate::hub::{ReplyGuards, TopicKey};
use crate::node::{Done, Failure, Input, Node, Turned};

/// Longest wait for mail: the driver's clock ticks at least this often.
const TICK: Duration = Duration::from_millis(50);

/// Who waits for a token's answer.
enum Waiter {
    /// A request on the runtime.
    Task { to: oneshot::Sender<Answer>, permit: Option<Permit> },
    /// A request of the front on this thread. The permit is held, not read.
    Front { ticket: Ticket, _permit: Permit },
}

struct Loop<'a, S> {
    shared: &'a Shared<S>,
    log: &'a LogBox,
    background: &'a Background,
    cold: &'a ColdBox,
    front: Option<Box<dyn Front>>,
    /// Requests whose answer is still to come; bounded by admission.
    waiters: Waiters<Waiter>,
    answers: Vec<Addressed>,
    mail: Vec<Mail>,
    offers: Vec<Offer>,
}

pub(crate) fn run<S: OrderedStore>(
    mut node: Node<S>,
    shared: &Shared<S>,
    log: &LogBox,
    background: &Background,
    cold: &ColdBox,
) {
    let mut state = Loop {
        shared,
        log,
        background,
        cold,
        front: None,
        waiters: Waiters::default(),
        answers: Vec::new(),
        mail: Vec::new(),
        offers: Vec::new(),
    };
    let mut inbox = Vec::new();
    let mut more = true;
    while state.gather(if more { Duration::ZERO } else { TICK }, &mut inbox) {
        let turn = shared.hub.turn();
        let turned = node.turn(time::now(), &mut inbox);
        more = turned.more;
        state.act(turned);
        drop(turn);
    }
}

impl<S: OrderedStore> Loop<'_, S> {
    /// Waits at most `patience` for something to do and collects it; false when the node ends.
    /// Dropping the waiters then tells every open request that its outcome is unknown.
    fn gather(&mut self, patience: Duration, inbox: &mut Vec<Input>) -> bool {
        match &mut self.front {
            None => self.shared.mail.take(&mut self.mail, patience),
            Some(front) => {
                let idle = !patience.is_zero() && self.shared.mail.sleep();
                front.poll(if idle { patience } else { Duration::ZERO }, &mut self.offers);
                self.shared.mail.awake();
                self.shared.mail.take(&mut self.mail, Duration::ZERO);
            }
        }
        for Offer { ticket, proposal } in self.offers.drain(..) {
            let (group, entry) = (proposal.group, proposal.entry);
            let waiter = Waiter::Front { ticket, _permit: proposal.permit };
            let token = Token(self.waiters.add(waiter));
            inbox.push(Input::Propose { group, token, entry });
        }
        for mail in self.mail.drain(..) {
            match mail {
                Mail::Ask { ask, answer, permit } => {
                    let token = Token(self.waiters.add(Waiter::Task { to: answer, permit }));
                    inbox.push(match ask {
                        Ask::Propose(group, entry) => Input::Propose { group, token, entry },
                        Ask::Read(group) => Input::Read { group, token },
                    });
                }
                Mail::Input(input) => inbox.push(input),
                Mail::Front(front) => {
                    self.shared.mail.wake_by(front.waker());
                    self.front = Some(front);
                }
                Mail::Stop => return false,
            }
        }
        true
    }

    fn act(&mut self, turned: Turned) {
        if let Some(job) = turned.log {
            self.log.push(job);
        }
        for beside in turned.beside {
            self.cold.push(beside);
        }
        if turned.sealed {
            self.background.ring();
        }
        self.shared.metrics.entries_applied.inc_by(turned.applied as u64);
        for (group, why) in turned.stopped {
            tracing::error!(group = group.0, reason = %why, "a group stopped");
            self.shared.metrics.groups_stopped.inc();
            self.background.group_stopped(group, why);
        }
        for done in turned.done {
            match done {
                Done::Applied { group, token, index, replies, effects } => {
                    let waiter = token.and_then(|token| self.waiters.take(token.0));
                    // What is applied again after a start was counted when it was accepted.
                    let counted = token.is_some();
                    match waiter {
                        Some(Waiter::Task { to, permit }) => {
                            let guards = self.publish(group, effects, counted, true);
                            let answer = Answer::Applied { index, replies, guards };
                            self.answers.push(Addressed { to, answer, permit });
                        }
                        Some(Waiter::Front { ticket, .. }) => {
                            // The reply is written first; then nothing needs to be held back.
                            let guards = ReplyGuards::new();
                            self.answer_front(ticket, Answer::Applied { index, replies, guards });
                            self.publish(group, effects, counted, false);
                        }
                        None => drop(self.publish(group, effects, counted, false)),
                    }
                }
                Done::Read { token, index } => self.answer(token, Answer::Read { index }),
                Done::Failed { token, failure } => self.fail(token, failure),
            }
        }
        self.shared.answers.send(&mut self.answers);
    }

    fn fail(&mut self, token: Token, failure: Failure) {
        self.answer(token, Answer::Failed(failure));
    }

    fn answer(&mut self, token: Token, answer: Answer) {
        match self.waiters.take(token.0) {
            Some(Waiter::Task { to, permit }) => {
                self.answers.push(Addressed { to, answer, permit });
            }
            Some(Waiter::Front { ticket, .. }) => self.answer_front(ticket, answer),
            None => {}
        }
    }

    fn answer_front(&mut self, ticket: Ticket, answer: Answer) {
        let front = self.front.as_mut().expect("a front that asked stays until the node ends");
        front.answer(ticket, answer);
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
                        self.shared.metrics.events_appended.inc_by(count(first_seq, last_seq));
                    }
                    let key = TopicKey { group, number };
                    guards.extend(self.shared.hub.applied(key, first_seq, last_seq, hold));
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
                    self.shared.hub.ended(TopicKey { group, number: row.number }, end);
                }
                Effect::DueAt(at) => self.background.due(group, at),
            }
        }
        guards
    }
}

fn count(first: Seq, last: Seq) -> u64 {
    last.0 + 1 - first.0
}
