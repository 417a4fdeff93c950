//! What goes into a turn and what comes out of it: plain values, no behaviour.

use std::fmt;

use bytes::Bytes;
use tl_types::ids::{Generation, GroupId, Index, Term};
use tl_wal::{Record, Want};

use crate::members::{ChangeRefused, MemberChange, Members};

/// A replica's number in Raft, given out once per (node, life of its data directory) and never
/// used again. Never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u64);

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The caller's name for one proposal or one read. The driver gives it back in exactly one
/// answer and never looks into it; the caller keeps it unique while it is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// Number of a log job: rising by one from 1, confirmed in that order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

/// The time of a turn; the driver has no clock of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds on a clock that never goes back and counts suspended time.
    pub boot_ms: u64,
}

/// One thing that happened since the last turn.
#[derive(Debug, Clone)]
pub enum Inbound {
    /// Put `data` into the group's log. Answered by [`Committed::token`] or an [`Outcome`].
    /// `data` is not empty: an empty entry is a new leader's own.
    Propose {
        /// The group whose log it goes to.
        group: GroupId,
        /// Comes back with the answer.
        token: Token,
        /// The entry, opaque here.
        data: Bytes,
    },
    /// A frame as another driver's [`Deeds::frames`] gave it out, whole and unharmed (the
    /// transport's checksum has been looked at). Bytes that are no frame are refused, never fatal.
    Frame {
        /// Who sent it, as the transport has authenticated it.
        from: PeerId,
        /// The frame.
        bytes: Bytes,
    },
    /// The records of this job are on disk and synced. Jobs are confirmed one by one, in order,
    /// also when several were written together.
    LogDone {
        /// The job, as [`LogJob::id`] named it.
        job: JobId,
    },
    /// Ask for an index from which a read is linearizable. Answered by [`ReadReady`] or
    /// [`Outcome::ReadFailed`].
    ReadIndex {
        /// The group to be read.
        group: GroupId,
        /// Comes back with the answer.
        token: Token,
    },
    /// The caller has applied the group's entries up to this one.
    Applied {
        /// The group.
        group: GroupId,
        /// Last index applied; not above what [`Deeds::apply`] has handed out.
        index: Index,
    },
    /// Stand for election now, for example because the leader has said that it goes away.
    Campaign {
        /// The group.
        group: GroupId,
    },
    /// Hand leadership of a group led here to another voter, if that was heard of lately and has
    /// all that is committed.
    Transfer {
        /// The group.
        group: GroupId,
        /// Who shall lead.
        to: PeerId,
    },
    /// Change who belongs to a group led here. Answered by [`Committed::token`], with no data, once
    /// the change is committed, or by an [`Outcome`].
    ChangeMembers {
        /// The group.
        group: GroupId,
        /// What shall change.
        change: MemberChange,
        /// Comes back with the answer.
        token: Token,
    },
    /// The connection to this peer broke: what was sent lately may be lost.
    Unreachable {
        /// The peer.
        peer: PeerId,
    },
    /// A follower of [`Deeds::lacking`] is being given the group's rows: entries that it will
    /// need stay in memory meanwhile, within a budget. Once the rows are there, durably, `rows`
    /// says which entry is the last in them, and Raft tells the follower to go on from it. To be
    /// repeated when it may not have heard.
    Giving {
        /// The group.
        group: GroupId,
        /// The follower.
        to: PeerId,
        /// The last entry in the rows and its term, once they are there.
        rows: Option<(Index, Term)>,
    },
    /// That is over, done or not.
    Given {
        /// The group.
        group: GroupId,
        /// The follower.
        to: PeerId,
    },
    /// Rows of a group are here, whole, checked and durable, under a generation that is not live:
    /// a leader may now tell this node to go on from them, and nothing else.
    Staged {
        /// The group.
        group: GroupId,
        /// What they are.
        rows: Staged,
    },
    /// The group's rows are damaged here: entries are not applied any more. From now on this node
    /// does not stand for election in it, hands it over if it leads, and asks its leader for rows
    /// until [`Deeds::installed`] says that there are some.
    Damaged {
        /// The group.
        group: GroupId,
    },
    /// What came of a [`Fetch`]: the entries from its first one on, as far as they could be read.
    /// None means that the log does not have them, and that the follower needs rows.
    Fetched {
        /// The group.
        group: GroupId,
        /// For whom.
        to: PeerId,
        /// The first of them.
        from: Index,
        /// Their terms and data.
        entries: Vec<(Term, Bytes)>,
    },
    /// Those rows are no longer to be used. Not while [`Driver::is_installing`](crate::Driver::is_installing).
    Unstaged {
        /// The group.
        group: GroupId,
    },
}

/// Rows of a group up to one entry, as another replica had them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Staged {
    /// The last entry in the rows.
    pub index: Index,
    /// Its term.
    pub term: Term,
    /// The generation they are kept under.
    pub generation: Generation,
}

/// A follower that cannot go on by entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lacking {
    /// The group, led here.
    pub group: GroupId,
    /// The follower.
    pub peer: PeerId,
    /// It has the entries, its rows are damaged: it needs rows up to this one at least. 0 where
    /// entries that it needs are no longer in memory.
    pub damaged_at: Index,
}

/// Entries for a follower that are no longer in memory, to be read from the log on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// For whom.
    pub to: PeerId,
    /// Which of which group.
    pub want: Want,
}

/// From now on these rows are the group's, and its log begins behind them. The log on disk says
/// so already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Installed {
    /// The group.
    pub group: GroupId,
    /// The rows.
    pub rows: Staged,
}

/// What the caller has to do after a turn, in any order unless a field says otherwise.
#[derive(Debug, Default)]
pub struct Deeds {
    /// Write these records, sync, then send [`Inbound::LogDone`]. At most one per turn; several
    /// turns' jobs may go into one write.
    pub log: Option<LogJob>,
    /// Send these: per peer one frame of heartbeats alone, which may overtake others, and one of
    /// everything else, unless that would grow past
    /// [`FRAME_BYTES_MAX`](crate::config::FRAME_BYTES_MAX). They may leave before `log` is written.
    pub frames: Vec<(PeerId, Bytes)>,
    /// Committed entries to apply, in order within a group; at most one batch per group.
    pub apply: Vec<ApplyBatch>,
    /// Answers other than "committed" and "read ready".
    pub outcomes: Vec<Outcome>,
    /// Reads that may be served once the group has applied up to the index.
    pub reads: Vec<ReadReady>,
    /// Groups whose role, term or leader changed here.
    pub roles: Vec<RoleChange>,
    /// Followers of groups led here that need rows. Said again as long as it is so.
    pub lacking: Vec<Lacking>,
    /// Entries to be read from the log, each answered by [`Inbound::Fetched`].
    pub fetches: Vec<Fetch>,
    /// Groups that go on from other rows; entries of [`Deeds::apply`] follow these.
    pub installed: Vec<Installed>,
    /// Frames and messages refused, with the reason; to be counted and logged.
    pub rejected: Vec<Rejected>,
    /// Appends of leaders passed over because there is no room here for their entries.
    pub appends_passed_over: u64,
    /// Work was left for the next turn by a budget: call again at once.
    pub more: bool,
}

/// Records to be written in this order, behind those of all earlier jobs. They may be written in parts,
/// of which a crash leaves the first ones, as [`LogJob::may_part`] allows it.
#[derive(Debug, Clone)]
pub struct LogJob {
    /// Its number.
    pub id: JobId,
    /// What to write.
    pub records: Vec<Record>,
}

impl LogJob {
    /// Whether a crash may leave a log that ends between two records that follow each other. Rows are in
    /// place only with the members that came with them: whoever had the rows and knew older members
    /// could stand by a majority that is none any more.
    #[must_use]
    pub fn may_part(before: &Record, after: &Record) -> bool {
        let (Record::Installed { group, .. }, Record::Membership { group: of, .. }) =
            (before, after)
        else {
            return true;
        };
        group != of
    }
}

/// Committed entries of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplyBatch {
    /// The group.
    pub group: GroupId,
    /// The entries: contiguous, and following those of the batch before.
    pub entries: Vec<Committed>,
}

/// One committed entry, on a majority's disks and on this node's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Its position.
    pub index: Index,
    /// The term in which it was proposed.
    pub term: Term,
    /// What was proposed; empty for the entry with which a leader opens its term, and for a change
    /// of members, which is nobody's but Raft's.
    pub data: Bytes,
    /// Set if the entry was proposed through this driver since it was made.
    pub token: Option<Token>,
}

/// How a proposal or read ended when it ended badly. A token that is never answered (its node
/// lost contact before the entry's fate was known) has an unknown outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Not proposed: this node does not lead the group.
    NotLeader {
        /// The proposal.
        token: Token,
        /// Who leads, if known.
        leader: Option<PeerId>,
    },
    /// Not proposed: too many bytes of this group wait to be committed.
    Busy {
        /// The proposal.
        token: Token,
    },
    /// Proposed, but what was committed instead rules it out: it never takes effect.
    Lost {
        /// The proposal.
        token: Token,
    },
    /// Proposed; a snapshot stands in the place of the entry, so what became of it is not known
    /// here.
    Unknown {
        /// The proposal.
        token: Token,
    },
    /// Not proposed: the group's members, or how far they are, do not allow this change.
    ChangeRefused {
        /// The change.
        token: Token,
        /// Why.
        reason: ChangeRefused,
    },
    /// No majority confirmed a read index within the election time-out.
    ReadFailed {
        /// The read.
        token: Token,
        /// Who leads, if known.
        leader: Option<PeerId>,
    },
}

/// A read may be served from this node's rows once `index` is applied here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadReady {
    /// The group.
    pub group: GroupId,
    /// The read.
    pub token: Token,
    /// What must be applied first.
    pub index: Index,
}

/// What this node is in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Follows the leader, or waits for one.
    Follower,
    /// Stands for election (asking first whether it would win included).
    Candidate,
    /// Leads: proposals are taken here.
    Leader,
}

/// The group's role, term or leader is no longer what was last reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoleChange {
    /// The group.
    pub group: GroupId,
    /// What this node is in it now.
    pub role: Role,
    /// The term it is in.
    pub term: Term,
    /// Who leads, if known.
    pub leader: Option<PeerId>,
}

/// Something a peer sent that could not be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rejected {
    /// Who sent it.
    pub from: PeerId,
    /// The group concerned, if it got that far.
    pub group: Option<GroupId>,
    /// Why, in a few fixed words.
    pub reason: &'static str,
}

/// Where a group stands, for status pages and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupStatus {
    /// Who belongs to it, as far as it is known here.
    pub members: Members,
    /// What this node is in it.
    pub role: Role,
    /// The term it is in.
    pub term: Term,
    /// Who leads, if known.
    pub leader: Option<PeerId>,
    /// Last entry of the log, synced or not.
    pub last: Index,
    /// Last entry known to be committed.
    pub committed: Index,
    /// Last entry that the caller has reported as applied.
    pub applied: Index,
    /// Bytes of entries held in memory.
    pub entry_bytes: usize,
}

/// How far a follower or a learner is, as the leader of its group knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FollowerStatus {
    /// The follower.
    pub peer: PeerId,
    /// The last entry that it has confirmed; `None` before it said anything to this leader.
    pub matched: Option<Index>,
    /// The entry that it is sent next. Before it has confirmed something, it has this one only if
    /// the leader has not asked far enough back yet.
    pub next: Index,
    /// Whether what it lacks next is neither in the leader's memory nor in its log: it needs rows.
    pub is_cut_off: bool,
}
