//! One group: Raft's state machine, the log it reads from, and what waits for the disk.
//!
//! A `Ready` is taken at most once per turn. Its records join the turn's log job; its number is
//! confirmed to Raft when that job is done, in order. What a follower or candidate says (votes,
//! answers to appends) promises that the records are kept, so it waits with them; a `Ready`
//! without records waits for the ones before it, because what it says may rest on those.
//!
//! Edges of the `raft` crate (0.7.0) that this module is built around:
//!  - it stops the process on an answer from its storage that it did not expect: see `GroupLog`;
//!  - it draws election time-outs from the thread's random numbers: see [`Group::stepped`];
//!  - it recognises what became durable by index and term alone: see [`Group::confirm`];
//!  - it drops reads and proposals without a word in several states: see `Reads`, `propose_all`;
//!  - standing for election reads all committed entries that are not applied in one piece, to
//!    look for membership changes: they are in memory, but the pause grows with their number, so
//!    a caller keeps up with applying;
//!  - it hands out committed entries only once they are durable here too, and `applied` may not
//!    pass that point; later versions can be told otherwise, and then both asserts here change;
//!  - between the `Ready` with a snapshot and the end of its sync, standing for election would read
//!    entries that are gone: no election clock runs then, see [`Group::tick`];
//!  - a leader of the only vote sends before its own term is on disk: a group with fewer than three
//!    voters has no learners, see [`CHANGE_VOTERS_MIN`](crate::CHANGE_VOTERS_MIN);
//!  - it takes up changed members when it is told to, also a leader that is none of them any more,
//!    and stops the process when such a one goes on leading: see `Group::take_up`;
//!  - it lets anybody stand who is asked to, with a vote or not: see [`Group::campaign`];
//!  - it leaves a joint change by itself only if its leader stays, so it is never asked to.
//!
//! Members change by entries of the log ([`Members`]). Raft takes up a change when it is committed
//! and handed out, and nobody stands for election with a change committed and not taken up. Two rules
//! keep that true over restarts, of which Raft knows nothing here, since the commit index is not
//! recorded:
//!
//!  - a change, and what follows it, is handed out to be applied once the record of the members is on
//!    disk: so rows never reach further than what is known of the members;
//!  - of the changes in a log that is read again, all but the last are committed (`Recovery`).
//!
//! Then whoever stands knows all changes but the last that is committed, and majorities of
//! neighbours meet: a winner has all that was taken under either.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use raft::eraftpb::{Entry, HardState, Message, MessageType};
use raft::{Config, ProgressState, RawNode, ReadOnlyOption, StateRole};
use tl_types::{GroupId, Index, Term};
use tl_wal::Record;

use crate::config::DriverConfig;
use crate::deeds::{
    ApplyBatch, Committed, Deeds, FollowerStatus, GroupStatus, Installed, JobId, Outcome, PeerId,
    ReadReady, Role, RoleChange, Staged, Token,
};
use crate::group_log::GroupLog;
use crate::members::{Members, is_change};
use crate::reads::{Reads, RoundId};
use crate::recovery::RecoveredGroup;
use crate::tokens::Tokens;

use self::change::{asks_for_vote, told_members};
use self::doubt::{Demand, Doubt};
use crate::doubt::Note;

mod change;
mod doubt;
mod feed;
mod quiet;
mod rows;

pub(crate) use self::quiet::{Beat, Heard};

/// Counted by Raft's uncommitted budget for an entry on top of its data, at most, bytes.
const UNCOMMITTED_OVERHEAD: usize = 32;

pub(crate) struct Group {
    id: GroupId,
    peer: PeerId,
    raw: RawNode<GroupLog>,
    /// Draws election time-outs.
    jitter: fastrand::Rng,
    election_ticks: (usize, usize),
    uncommitted_bytes_max: usize,
    /// (term, role) after the last step; a change means that Raft has drawn a time-out.
    seen: (u64, StateRole),
    reported: RoleChange,
    /// (term, vote) in the newest record.
    recorded: (u64, u64),
    unconfirmed: VecDeque<Unconfirmed>,
    /// The newest `Ready` whose entries or snapshot replaced others, see [`Group::confirm`].
    cut_by: u64,
    /// Rows that a leader may say to go on from.
    staged: Option<Staged>,
    /// The `Ready` that puts such rows in place, until its record is on disk.
    installing: Option<(u64, Staged)>,
    /// Its rows are damaged here: it is not led here, and rows of its leader are asked for.
    is_damaged: bool,
    /// Records of its log were lost, or may have been.
    doubt: Option<Doubt>,
    /// What is demanded of rows for doubted followers; at most one for each member.
    demands: BTreeMap<PeerId, Demand>,
    /// What is to be said beside Raft.
    notes: Vec<(PeerId, Note)>,
    /// Followers that are being given rows; while there are any, more entries are kept.
    giving: BTreeSet<PeerId>,
    giving_lag_bytes: usize,
    /// The log on disk has the entries from here on.
    log_begins: Index,
    proposals: Vec<(Token, Bytes)>,
    tokens: Tokens,
    reads: Reads,
    /// Last entry handed out to be applied.
    handed_out: Index,
    /// Committed entries behind it, beginning with a change of members whose record is on its way
    /// to the disk.
    held: VecDeque<Entry>,
    /// The job with that record.
    held_for: Option<JobId>,
    /// The change that the members are known from has no record: a later change in the log said that
    /// it is committed. It gets one before it is handed out.
    unrecorded: Option<Index>,
}

/// A `Ready` whose records, or those before it, are not known to be on disk.
struct Unconfirmed {
    number: u64,
    job: JobId,
    messages: Vec<Message>,
}

/// Where a group's `Ready` puts what it yields.
pub(crate) struct Yield<'a> {
    /// The log job that this turn's records go into.
    pub(crate) job: JobId,
    pub(crate) records: &'a mut Vec<Record>,
    /// Messages that may leave at once.
    pub(crate) messages: &'a mut Vec<Message>,
    pub(crate) deeds: &'a mut Deeds,
}

impl Group {
    pub(crate) fn new(
        config: &DriverConfig,
        recovered: RecoveredGroup,
        jitter: fastrand::Rng,
        logger: &slog::Logger,
    ) -> Group {
        let RecoveredGroup {
            group,
            members,
            are_members_recorded,
            term,
            vote,
            applied,
            base,
            terms,
            entries,
            is_doubted,
            ..
        } = recovered;
        let mut hard = HardState::default();
        hard.term = term.0;
        hard.vote = vote;
        // The commit index is not recorded; what was applied was committed, and so was the change
        // that made the members what they are. Whoever is sent a later change must hear of that with
        // it, or it would stand for election by members of which two changes are over.
        hard.commit = applied.0;
        let made_at = members.at;
        let change = (made_at > applied).then(|| made_at.0 - base.0.0 - 1);
        let change = change.and_then(|slot| entries.get(usize::try_from(slot).ok()?));
        if change.is_some_and(|entry| entry.data == members.encode_entry()) {
            hard.commit = made_at.0;
        }
        let unrecorded = (!are_members_recorded).then_some(made_at);
        // Members that this node is none of yet are others.
        let several = members.voters != [config.peer];
        let log = GroupLog::new(base, terms, entries, applied, hard, members);
        let raft = Config {
            id: config.peer.0,
            election_tick: config.election_ticks_min(),
            // Leaders are ticked once per beat, see `Driver`.
            heartbeat_tick: 1,
            applied: applied.0,
            max_size_per_msg: config.message_bytes_max as u64,
            max_inflight_msgs: config.inflight_messages_max,
            check_quorum: several,
            pre_vote: several,
            min_election_tick: config.election_ticks_min(),
            max_election_tick: config.election_ticks_max(),
            read_only_option: ReadOnlyOption::Safe,
            skip_bcast_commit: false,
            batch_append: false,
            priority: 0,
            max_uncommitted_size: config.uncommitted_bytes_max as u64,
            max_committed_size_per_ready: config.committed_bytes_max as u64,
        };
        let raw =
            RawNode::new(&raft, log, logger).expect("a checked configuration and a log in memory");
        let mut jitter = jitter;
        let doubt = is_doubted.then(|| Doubt::new(&mut jitter));
        let mut group = Group {
            id: group,
            peer: config.peer,
            seen: (raw.raft.term, raw.raft.state),
            raw,
            jitter,
            election_ticks: (config.election_ticks_min(), config.election_ticks_max()),
            uncommitted_bytes_max: config.uncommitted_bytes_max,
            reported: RoleChange { group, role: Role::Follower, term, leader: None },
            recorded: (term.0, vote),
            unconfirmed: VecDeque::new(),
            cut_by: 0,
            staged: None,
            installing: None,
            is_damaged: doubt.is_some(),
            doubt,
            demands: BTreeMap::new(),
            notes: Vec::new(),
            giving: BTreeSet::new(),
            giving_lag_bytes: config.follower_lag_bytes,
            log_begins: Index(u64::MAX),
            proposals: Vec::new(),
            tokens: Tokens::default(),
            reads: Reads::default(),
            handed_out: applied,
            held: VecDeque::new(),
            held_for: None,
            unrecorded,
        };
        group.draw_election_timeout();
        if !several {
            // Nobody else can lead, so there is nothing to wait for.
            group.campaign();
        }
        group
    }

    pub(crate) fn members(&self) -> &Members {
        self.log().members()
    }

    pub(crate) fn several(&self) -> bool {
        self.members().voters != [self.peer]
    }

    pub(crate) fn term(&self) -> Term {
        Term(self.raw.raft.term)
    }

    pub(crate) fn leads(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    pub(crate) fn has_ready(&self) -> bool {
        self.raw.has_ready()
            || self.held_for.is_none() && !self.held.is_empty()
            || self.lacks_doubt_on_record()
    }

    fn leader(&self) -> Option<PeerId> {
        (self.raw.raft.leader_id != 0).then_some(PeerId(self.raw.raft.leader_id))
    }

    pub(crate) fn log(&self) -> &GroupLog {
        self.raw.store()
    }

    pub(crate) fn status(&self) -> GroupStatus {
        let raft = &self.raw.raft;
        GroupStatus {
            members: self.members().clone(),
            role: role(raft.state),
            term: Term(raft.term),
            leader: self.leader(),
            last: Index(raft.raft_log.last_index()),
            committed: Index(raft.raft_log.committed),
            applied: Index(raft.raft_log.applied),
            entry_bytes: self.log().bytes(),
        }
    }

    /// How far the followers are, as long as this node leads.
    pub(crate) fn followers(&self) -> Vec<FollowerStatus> {
        if !self.leads() {
            return Vec::new();
        }
        let others = self.raw.raft.prs().iter().filter(|(peer, _)| **peer != self.peer.0);
        others
            .map(|(peer, progress)| FollowerStatus {
                peer: PeerId(*peer),
                // A new leader knows of nobody what it has until it is told.
                matched: (progress.matched > 0).then_some(Index(progress.matched)),
                next: Index(progress.next_idx),
                // Of one that confirmed nothing yet only the search for a common entry tells.
                is_cut_off: progress.state == ProgressState::Snapshot
                    || !self.can_send(Index(progress.next_idx))
                    || progress.matched > 0 && !self.can_send(Index(progress.matched + 1)),
            })
            .collect()
    }

    /// One tick of the election clock, or a leader's beat; says whether anything may have come of it.
    /// While rows are put in place the clock stands still, for as long as one sync.
    pub(crate) fn tick(&mut self) -> bool {
        if self.installing.is_some() {
            return false;
        }
        if self.doubt.is_some() {
            self.ask_in_doubt();
            return true;
        }
        if self.is_damaged && !self.leads() {
            self.ask_for_rows();
            return true;
        }
        if self.is_damaged || self.leads() && !self.members().voters.contains(&self.peer) {
            self.hand_over();
        }
        let is_quiet = !self.raw.tick() && !self.leads();
        self.stepped();
        !is_quiet
    }

    /// Leads on only as long as nobody else could.
    fn hand_over(&mut self) {
        if self.raw.raft.lead_transferee.is_none() {
            let could = |peer: &PeerId| *peer != self.peer && self.could_lead(*peer);
            if let Some(to) = self.members().voters.iter().copied().find(could) {
                self.transfer(to);
            }
        }
    }

    pub(crate) fn campaign(&mut self) {
        if self.installing.is_some() || self.is_damaged || !self.raw.raft.promotable() {
            return;
        }
        // Raft refuses by doing nothing: it leads already, or may not stand.
        let _ = self.raw.campaign();
        self.stepped();
    }

    pub(crate) fn transfer(&mut self, to: PeerId) {
        if self.leads() && self.members().voters.contains(&to) && self.could_lead(to) {
            self.raw.transfer_leader(to.0);
            self.stepped();
        }
    }

    /// Whether a peer was heard of lately, has all that is committed, and did not say that its rows
    /// are damaged. One that lags would make proposals wait until it has caught up.
    fn could_lead(&self, peer: PeerId) -> bool {
        let raft = &self.raw.raft;
        raft.prs().get(peer.0).is_some_and(|progress| {
            progress.recent_active
                && progress.matched >= raft.raft_log.committed
                && progress.pending_request_snapshot == raft::INVALID_INDEX
                && !self.is_in_doubt(peer)
        })
    }

    pub(crate) fn unreachable(&mut self, peer: PeerId) {
        if self.leads() && self.members().contains(peer) {
            self.raw.report_unreachable(peer.0);
            self.stepped();
        }
    }

    /// Takes a peer's message, unless Raft would panic on it or it cannot be meant for here.
    pub(crate) fn step(&mut self, from: PeerId, mut message: Message) -> Result<(), &'static str> {
        // A number that is not known yet may be a member by a change that did not come here so far.
        if from == self.peer || self.members().is_gone(from) {
            return Err("sender is no other member of the group");
        }
        if self.doubt.is_some() {
            return self.step_in_doubt(from, message);
        }
        self.check_shape(&message)?;
        if self.has_nothing() && asks_for_vote(&message) {
            // As if it were lost. Whoever counts on this vote has given the group to this node first.
            return Ok(());
        }
        if self.is_damaged && message.get_msg_type() == MessageType::MsgTimeoutNow {
            // As if it were lost: its leader has not heard yet that the rows here are damaged.
            return Ok(());
        }
        if message.get_msg_type() == MessageType::MsgReadIndex && !self.leads() {
            // It came late. Raft would pass it on, and two followers for ever; the asker asks again.
            return Ok(());
        }
        if self.is_late_rejection(from, &message) {
            return Ok(());
        }
        let may_not_lead = self.installing.is_some() || self.is_damaged;
        if message.get_msg_type() == MessageType::MsgTimeoutNow && may_not_lead {
            // As if it were lost: the leader goes on after a while.
            return Ok(());
        }
        if message.get_msg_type() == MessageType::MsgSnapshot {
            self.check_snapshot(&mut message)?;
        }
        self.hint_by_terms(&mut message);
        self.note_answer(from, &message);
        message.from = from.0;
        message.to = self.peer.0;
        // What Raft answers with an error (a response of a peer that it does not track) is as good as lost.
        let stepped = self.raw.step(message).map_err(|_| "refused by raft");
        self.stepped();
        stepped
    }

    /// Raft trusts its peers and stops the process on these; a broken peer shall not do that. A
    /// node that led, crashed and came back with a shorter log may see answers ahead of it: as a
    /// follower it passes over them.
    fn check_shape(&self, message: &Message) -> Result<(), &'static str> {
        let last = self.raw.raft.raft_log.last_index();
        match message.get_msg_type() {
            MessageType::MsgHeartbeat
                if message.term >= self.raw.raft.term && message.commit > last =>
            {
                Err("heartbeat commits entries that are not here")
            }
            MessageType::MsgAppendResponse
                if self.leads()
                    && !message.reject
                    && message.term == self.raw.raft.term
                    && message.index > last =>
            {
                Err("append answer is ahead of the log")
            }
            _ => Ok(()),
        }
    }

    /// What a follower has confirmed to this leader.
    pub(crate) fn matched(&self, peer: PeerId) -> Option<Index> {
        if !self.leads() {
            return None;
        }
        self.raw.raft.prs().get(peer.0).map(|progress| Index(progress.matched))
    }

    /// A follower never loses what it has confirmed, so a rejection from before that says nothing
    /// any more. Raft while probing would go back to where the follower stood then; entries that
    /// nobody lacks are gone from memory, and the follower would wait for a snapshot for ever.
    fn is_late_rejection(&self, from: PeerId, message: &Message) -> bool {
        let raft = &self.raw.raft;
        let matched = raft.prs().get(from.0).map_or(0, |progress| progress.matched);
        message.get_msg_type() == MessageType::MsgAppendResponse
            && self.leads()
            && message.reject
            && message.request_snapshot == raft::INVALID_INDEX
            && message.term == raft.term
            && (message.index <= matched || message.reject_hint < matched)
    }

    /// Keeps a proposal for [`Group::propose_all`]; returns whether it is the first one kept.
    pub(crate) fn queue_proposal(&mut self, token: Token, data: Bytes) -> bool {
        assert!(!data.is_empty(), "an empty entry is a new leader's own");
        assert!(!is_change(&data), "members are changed in a way of their own");
        self.proposals.push((token, data));
        self.proposals.len() == 1
    }

    /// Proposes what was queued, as one message to each follower.
    pub(crate) fn propose_all(&mut self, outcomes: &mut Vec<Outcome>) {
        if self.proposals.is_empty() {
            return;
        }
        let transferee = self.raw.raft.lead_transferee.map(PeerId);
        let mut proposals = std::mem::take(&mut self.proposals);
        if !self.leads() || transferee.is_some() {
            let leader = transferee.or(self.leader());
            outcomes
                .extend(proposals.drain(..).map(|(token, _)| Outcome::NotLeader { token, leader }));
            self.proposals = proposals;
            return;
        }
        let mut bytes = self.raw.raft.uncommitted_size();
        let mut tokens = Vec::with_capacity(proposals.len());
        let mut entries = Vec::with_capacity(proposals.len());
        for (token, data) in proposals.drain(..) {
            // An entry larger than the budget still goes when nothing else is on its way.
            if bytes > 0 && bytes + data.len() + UNCOMMITTED_OVERHEAD > self.uncommitted_bytes_max {
                outcomes.push(Outcome::Busy { token });
                continue;
            }
            bytes += data.len() + UNCOMMITTED_OVERHEAD;
            let mut entry = Entry::default();
            entry.data = data;
            entries.push(entry);
            tokens.push(token);
        }
        self.proposals = proposals;
        if entries.is_empty() {
            return;
        }
        let first = self.raw.raft.raft_log.last_index() + 1;
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.peer.0;
        message.set_entries(entries.into());
        match self.raw.raft.step(message) {
            Ok(()) => {
                let term = Term(self.raw.raft.term);
                for (index, token) in (first..).zip(tokens) {
                    self.tokens.proposed(Index(index), term, token);
                }
            }
            // Nothing was appended: a leader that is a voter and hands nothing over only refuses for
            // its budget, which counts a little differently.
            Err(_) => outcomes.extend(tokens.into_iter().map(|token| Outcome::Busy { token })),
        }
    }

    pub(crate) fn queue_read(&mut self, token: Token) {
        self.reads.add(token);
    }

    pub(crate) fn has_reads(&self) -> bool {
        !self.reads.is_empty()
    }

    /// Asks for an index for all reads that wait, if somebody could answer now.
    pub(crate) fn ask_reads(&mut self, mut round: impl FnMut() -> RoundId) {
        let answerable = if self.leads() {
            self.raw.raft.commit_to_current_term()
        } else {
            self.raw.raft.leader_id != 0
        };
        if answerable && self.reads.wants_round() {
            let context = round().encode();
            self.reads.start_round(context.clone());
            let mut entry = Entry::default();
            entry.data = context;
            let mut message = Message::default();
            message.set_msg_type(MessageType::MsgReadIndex);
            message.set_entries(vec![entry].into());
            // A refusal shows as a round without an answer.
            let _ = self.raw.raft.step(message);
        }
    }

    pub(crate) fn tick_reads(&mut self, outcomes: &mut Vec<Outcome>) {
        if self.reads.is_empty() {
            return;
        }
        let patience = u32::try_from(self.election_ticks.1).expect("an election time-out is short");
        let leader = self.leader();
        let failed = self.reads.tick(patience).into_iter();
        outcomes.extend(failed.map(|token| Outcome::ReadFailed { token, leader }));
    }

    /// The records of `job` are on disk: tells Raft, and lets go what waited for them.
    ///
    /// While a `Ready` that cuts entries off is on its way to disk, Raft is not told of those
    /// before it. Raft recognises what became durable by index and term alone; if a third leader
    /// brings the cut entries back, it would take the first copy's confirmation for theirs,
    /// although the log on disk may still end at the cut after a crash.
    /// A snapshot cuts off everything.
    pub(crate) fn confirm(
        &mut self,
        job: JobId,
        messages: &mut Vec<Message>,
        installed: &mut Vec<Installed>,
    ) {
        let mut number = None;
        while self.unconfirmed.front().is_some_and(|ready| ready.job <= job) {
            let ready = self.unconfirmed.pop_front().expect("just seen");
            assert_eq!(ready.job, job, "jobs are confirmed one by one");
            number = Some(ready.number);
            messages.extend(ready.messages);
        }
        self.held_for.take_if(|held_for| *held_for <= job);
        let number = number.expect("the group had records in this job");
        if number >= self.cut_by {
            self.raw.on_persist_ready(number);
            if let Some((_, rows)) = self.installing.take_if(|(by, _)| *by <= number) {
                self.raw.advance_apply_to(rows.index.0);
                self.is_damaged = false;
                self.doubt = None;
                installed.push(Installed { group: self.id, rows });
            }
            self.stepped();
        }
    }

    /// Notes that the caller has applied entries. What is below or equal to what is known already
    /// says nothing new.
    pub(crate) fn applied(&mut self, index: Index) {
        assert!(
            index <= self.handed_out,
            "group {}: {index} was never handed out to be applied",
            self.id
        );
        if index.0 > self.raw.raft.raft_log.applied {
            self.raw.advance_apply_to(index.0);
            // Rows that are being put in place are ahead of it.
            if index > self.log().applied() {
                self.raw.mut_store().set_applied(index);
            }
            self.stepped();
        }
    }

    /// Drops applied entries that nobody here or behind needs; of those that a follower lacks,
    /// as many as `lag_bytes` (leading) or `cache_bytes` hold stay.
    pub(crate) fn shrink(&mut self, cache_bytes: usize, lag_bytes: usize) {
        let (unneeded, keep) = if !self.several() {
            (Index(u64::MAX), 0)
        } else if self.leads() {
            let is_giving = !self.giving.is_empty();
            let most = if is_giving { lag_bytes.max(self.giving_lag_bytes) } else { lag_bytes };
            (self.confirmed_by_all(), most)
        } else {
            (Index(0), cache_bytes)
        };
        self.raw.mut_store().shrink(unneeded, keep);
    }

    pub(crate) fn applied_bytes(&self) -> usize {
        self.log().applied_bytes()
    }

    /// Drops applied entries up to `index`. A leader keeps what a follower has not confirmed to
    /// it, even if the follower has it: Raft goes on from what was confirmed, and what is dropped
    /// before that could only come back as a snapshot.
    pub(crate) fn compact(&mut self, index: Index) {
        let index = if self.leads() { index.min(self.confirmed_by_all()) } else { index };
        self.raw.mut_store().shrink(index, usize::MAX);
    }

    /// The last entry that every member has confirmed to this leader.
    fn confirmed_by_all(&self) -> Index {
        let matched = self.raw.raft.prs().iter().map(|(_, progress)| progress.matched);
        Index(matched.min().unwrap_or(0))
    }

    /// First entry in memory.
    pub(crate) fn first_kept(&self) -> Index {
        self.log().first_kept()
    }

    /// Takes one `Ready`. Returns whether this turn's log job has to be confirmed to this group.
    pub(crate) fn take_ready(&mut self, out: &mut Yield<'_>) -> bool {
        let mut ready = self.raw.ready();
        let number = ready.number();
        let records_before = out.records.len();
        let snapshot = ready.snapshot().get_metadata();
        let ends_doubt = self.doubt.is_some() && snapshot.index != 0;
        let promise = self.promise(&ready, ends_doubt);
        if !ends_doubt {
            self.record_promise(promise.filter(|it| *it != self.recorded), out.records);
        }
        if snapshot.index != 0 {
            assert!(self.is_staged(snapshot), "a snapshot is stepped only with its rows");
            let rows = self.staged.take().expect("just seen");
            self.install(number, rows, told_members(ready.snapshot()), out);
        }
        if ends_doubt {
            // Behind all else that ends it: of a job a crash may leave a first part, and that is still in
            // doubt.
            self.record_promise(promise, out.records);
        }
        let entries = ready.take_entries();
        if self.raw.mut_store().append(&entries) {
            self.cut_by = number;
        }
        out.records.extend(entries.into_iter().map(|entry| Record::Entry {
            group: self.id,
            term: Term(entry.term),
            index: Index(entry.index),
            data: entry.data,
        }));
        let mut messages = ready.take_messages();
        let mut promises = ready.take_persisted_messages();
        if self.doubt.is_some() {
            messages.clear();
            promises.retain(|message| ends_doubt && self.is_answer_to_rows(message));
        }
        out.messages.append(&mut messages);
        self.held.extend(ready.take_committed_entries());
        for state in ready.take_read_states() {
            let (group, index) = (self.id, Index(state.index));
            let tokens = self.reads.finish_round(&state.request_ctx);
            out.deeds.reads.extend(tokens.map(|token| ReadReady { group, token, index }));
        }
        self.raw.advance_append_async(ready);
        self.hand_out(out);
        let has_records = out.records.len() > records_before;

        let waits_for = if has_records {
            Some(out.job)
        } else {
            self.unconfirmed.back().map(|ready| ready.job)
        };
        match waits_for {
            Some(job) => {
                self.unconfirmed.push_back(Unconfirmed { number, job, messages: promises })
            }
            None => {
                self.raw.on_persist_ready(number);
                out.messages.extend(promises);
            }
        }
        self.report_role(out.deeds);
        has_records
    }

    /// Hands out what is committed, up to a change of members that has no record yet.
    fn hand_out(&mut self, out: &mut Yield<'_>) {
        if self.unrecorded.is_some_and(|at| at <= self.handed_out) {
            self.record_members(out.records);
        }
        let mut entries = Vec::with_capacity(self.held.len());
        while self.held_for.is_none()
            && let Some(entry) = self.held.pop_front()
        {
            let (index, term) = (Index(entry.index), Term(entry.term));
            if let Some(members) = self.news_of(&entry) {
                self.take_up(members, out.records);
                self.held_for = Some(out.job);
                self.held.push_front(entry);
                break;
            }
            if self.unrecorded == Some(index) {
                self.record_members(out.records);
                self.held_for = Some(out.job);
                self.held.push_front(entry);
                break;
            }
            assert_eq!(index.0, self.handed_out.0 + 1, "committed entries come without a hole");
            self.handed_out = index;
            let outcomes = &mut out.deeds.outcomes;
            let token =
                self.tokens.committed(index, term, |token| outcomes.push(Outcome::Lost { token }));
            // Who belongs to the group is no command for the rules.
            let data = if is_change(&entry.data) { Bytes::new() } else { entry.data };
            entries.push(Committed { index, term, data, token });
        }
        if !entries.is_empty() {
            out.deeds.apply.push(ApplyBatch { group: self.id, entries });
        }
    }

    fn report_role(&mut self, deeds: &mut Deeds) {
        let now = RoleChange {
            group: self.id,
            role: role(self.raw.raft.state),
            term: Term(self.raw.raft.term),
            leader: self.leader(),
        };
        if now != self.reported {
            self.reported = now;
            deeds.roles.push(now);
        }
    }

    /// After everything that may have moved Raft's state: if it drew an election time-out from
    /// its own random numbers, ours takes its place. It draws only when term or role changes, so
    /// that is what is looked at; comparing the drawn numbers would miss one that fell alike.
    fn stepped(&mut self) {
        let now = (self.raw.raft.term, self.raw.raft.state);
        if now != self.seen {
            self.seen = now;
            self.draw_election_timeout();
            self.reads.restart_rounds();
        }
    }

    fn draw_election_timeout(&mut self) {
        let (min, max) = self.election_ticks;
        let ticks = self.jitter.usize(min..max);
        self.raw.raft.set_randomized_election_timeout(ticks);
    }
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group")
            .field("id", &self.id)
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

fn role(state: StateRole) -> Role {
    match state {
        StateRole::Leader => Role::Leader,
        StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
        StateRole::Follower => Role::Follower,
    }
}
