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
use raft::eraftpb::{Entry, HardState};
use raft::{Config, ProgressState, RawNode, ReadOnlyOption, StateRole};
use tl_types::{GroupId, Index, Term};

use self::doubt::{Demand, Doubt};
use crate::config::DriverConfig;
use crate::deeds::{FollowerStatus, GroupStatus, JobId, PeerId, Role, RoleChange, Staged, Token};
use crate::doubt::Note;
use crate::group_log::GroupLog;
use crate::members::Members;
use crate::reads::Reads;
use crate::recovery::RecoveredGroup;
use crate::tokens::Tokens;

mod asked;
mod change;
mod doubt;
mod feed;
mod quiet;
mod ready;
mod rows;
mod step;

pub(crate) use self::quiet::{Beat, Heard};
use self::ready::Unconfirmed;
pub(crate) use self::ready::Yield;

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
