//! The driver thread: a small loop around [`Node::turn`].

use std::collections::HashMap;
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
use super::{Ask, Mail, Shared, time};
use crate::api::TailEnd;
use crate::hub::{ReplyGuards, TopicKey};
use crate::node::{Done, Failure, Input, Node, Turned};

/// Longest wait for mail: the driver's clock ticks at least this often.
const TICK: Duration = Duration::from_millis(50);

struct Waiter {
    to: oneshot::Sender<Answer>,
    permit: Option<Permit>,
}

struct Loop<'a, S> {
    shared: &'a Shared<S>,
    log: &'a LogBox,
    background: &'a Background,
    cold: &'a ColdBox,
    /// Requests whose answer is still to come; bounded by admission.
    waiters: HashMap<u64, Waiter>,
    next_token: u64,
    answers: Vec<Addressed>,
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
        waiters: HashMap::new(),
        next_token: 1,
        answers: Vec::new(),
    };
    let (mut mail, mut inbox) = (Vec::new(), Vec::new());
    let mut more = true;
    loop {
        shared.mail.take(&mut mail, if more { Duration::ZERO } else { TICK });
        for item in mail.drain(..) {
            match item {
                Mail::Ask { ask, answer, permit } => {
                    inbox.push(state.open(ask, Waiter { to: answer, permit }));
                }
                Mail::Input(input) => inbox.push(input),
                // Dropping the waiters tells every open request that its outcome is unknown.
                Mail::Stop => return,
            }
        }
        let turn = shared.hub.turn();
        let turned = node.turn(time::now(), &mut inbox);
        more = turned.more;
        state.act(turned);
        drop(turn);
    }
}

impl<S: OrderedStore> Loop<'_, S> {
    fn open(&mut self, ask: Ask, waiter: Waiter) -> Input {
        let token = Token(self.next_token);
        self.next_token += 1;
        self.waiters.insert(token.0, waiter);
        match ask {
            Ask::Propose(group, entry) => Input::Propose { group, token, entry },
            Ask::Read(group) => Input::Read { group, token },
        }
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
                    let guards = self.publish(group, effects, token.is_some());
                    self.answer(token, Answer::Applied { index, replies, guards });
                }
                Done::Read { token, index } => self.answer(Some(token), Answer::Read { index }),
                Done::Failed { token, failure } => self.fail(token, failure),
            }
        }
        self.shared.answers.send(&mut self.answers);
    }

    fn fail(&mut self, token: Token, failure: Failure) {
        self.answer(Some(token), Answer::Failed(failure));
    }

    fn answer(&mut self, token: Option<Token>, answer: Answer) {
        // Without a waiter the answer is dropped, and with it a guard: its events are seen.
        let Some(waiter) = token.and_then(|token| self.waiters.remove(&token.0)) else { return };
        self.answers.push(Addressed { to: waiter.to, answer, permit: waiter.permit });
    }

    /// Tells tails what was applied; with `hold`, events wait for the writer's reply.
    fn publish(&self, group: GroupId, effects: Vec<Effect>, hold: bool) -> ReplyGuards {
        let mut guards = ReplyGuards::new();
        for effect in effects {
            match effect {
                Effect::Publish { number, first_seq, last_seq, .. } => {
                    // What is applied again after a start was counted when it was accepted.
                    if hold {
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
