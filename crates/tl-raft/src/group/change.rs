//! Members of one group: taken up when a change of them is committed, and changed when this node
//! leads. Why that is safe stands in [`super`].

use raft::eraftpb::{Entry, Message, MessageType, Snapshot};
use tl_types::{Index, Term};
use tl_wal::Record;

use super::{Group, UNCOMMITTED_OVERHEAD};
use crate::deeds::{Outcome, PeerId, Token};
use crate::members::{CAUGHT_UP_ENTRIES, ChangeRefused, MemberChange, Members};

impl Group {
    /// The members that an entry makes, unless those known here are as new.
    pub(super) fn news_of(&self, entry: &Entry) -> Option<Members> {
        let members = Members::of_entry(Index(entry.index), &entry.data)?;
        let members = members.expect("it was looked at when it came in");
        (members.at > self.members().at).then_some(members)
    }

    /// Tells Raft of new members, and records them.
    pub(super) fn take_up(&mut self, members: Members, records: &mut Vec<Record>) {
        let steps = match self.members().step_to(&members) {
            Some(step) => vec![step],
            // This replica began with others than the group had: it is new and only follows.
            None => {
                assert!(!self.leads(), "a leader knows what it came from");
                members.steps_from(self.members())
            }
        };
        for step in steps {
            self.raw.apply_conf_change(&step).expect("the steps lead from one to the other");
        }
        let reached = self.raw.raft.prs().conf().to_conf_state();
        assert!(members.are(&reached), "group {}: {reached:?} are not {members:?}", self.id);
        // Raft would count on its own progress, which is gone.
        if self.leads() && !members.is_voter(self.peer) {
            self.raw.raft.become_follower(self.raw.raft.term, raft::INVALID_ID);
        }
        self.giving.retain(|peer| members.contains(*peer));
        self.demands.retain(|peer, _| members.contains(*peer));
        self.raw.mut_store().set_members(members);
        self.record_members(records);
        self.stepped();
    }

    /// What the members are is found again after a restart, whatever becomes of the log.
    pub(super) fn record_members(&mut self, records: &mut Vec<Record>) {
        let (group, bytes) = (self.id, self.members().encode());
        records.push(Record::Membership { group, bytes });
        self.unrecorded = None;
    }

    /// Proposes a change of members, or says why not.
    pub(crate) fn change_members(
        &mut self,
        change: MemberChange,
        token: Token,
        outcomes: &mut Vec<Outcome>,
    ) {
        match self.propose_change(change) {
            Ok((index, term)) => self.tokens.proposed(index, term, token),
            Err(reason) => outcomes.push(Outcome::ChangeRefused { token, reason }),
        }
    }

    fn propose_change(&mut self, change: MemberChange) -> Result<(Index, Term), ChangeRefused> {
        if !self.leads() {
            return Err(ChangeRefused::NotLeader { leader: self.leader() });
        }
        let raft = &self.raw.raft;
        if raft.lead_transferee.is_some() || self.installing.is_some() || self.is_damaged {
            return Err(ChangeRefused::Busy);
        }
        if raft.has_pending_conf() || !raft.commit_to_current_term() || !self.held.is_empty() {
            return Err(ChangeRefused::Pending);
        }
        let mut next = self.members().changed(change)?;
        if !next.voters.contains(&self.peer) {
            return Err(ChangeRefused::LeaderLeaves);
        }
        if let MemberChange::Swap { new_in, .. } = change
            && !self.has_caught_up(new_in)
        {
            return Err(ChangeRefused::NotCaughtUp);
        }
        next.at = Index(raft.raft_log.last_index() + 1);
        let mut entry = Entry::default();
        entry.data = next.encode_entry();
        let bytes = raft.uncommitted_size();
        if bytes > 0 && bytes + entry.data.len() + UNCOMMITTED_OVERHEAD > self.uncommitted_bytes_max
        {
            return Err(ChangeRefused::Busy);
        }
        // Raft takes it for any entry here, because it would read its own encoding of changes. In
        // this turn it goes into the log, which knows what it is (`GroupLog`), as every replica does.
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.peer.0;
        message.set_entries(vec![entry].into());
        self.raw.raft.step(message).map_err(|_| ChangeRefused::Busy)?;
        self.raw.raft.pending_conf_index = next.at.0;
        Ok((next.at, Term(self.raw.raft.term)))
    }

    /// Whether a learner has nearly all that is committed, the change that made it one included.
    fn has_caught_up(&self, learner: PeerId) -> bool {
        let raft = &self.raw.raft;
        !self.is_in_doubt(learner)
            && raft.prs().get(learner.0).is_some_and(|progress| {
                progress.recent_active
                    && progress.pending_request_snapshot == raft::INVALID_INDEX
                    && progress.matched >= self.members().at.0
                    && progress.matched + CAUGHT_UP_ENTRIES >= raft.raft_log.committed
            })
    }

    /// This node came later and was given nothing of the group yet.
    pub(super) fn has_nothing(&self) -> bool {
        self.raw.raft.raft_log.last_index() == 0 && !self.members().is_voter(self.peer)
    }
}

/// The members that a leader tells with rows.
pub(super) fn told_members(snapshot: &Snapshot) -> Option<Members> {
    let bytes = Some(&snapshot.data).filter(|bytes| !bytes.is_empty())?;
    Some(Members::decode(bytes).expect("it was looked at when it came in"))
}

pub(super) fn asks_for_vote(message: &Message) -> bool {
    matches!(message.get_msg_type(), MessageType::MsgRequestVote | MessageType::MsgRequestPreVote)
}
