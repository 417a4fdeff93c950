//! What one turn of a node takes and gives.
use std::collections::BTreeMap;

use tl_core::clock::Reading;
use tl_core::{Effect, Outcome, Reply};
use tl_raft::{
    ChangeRefused, Fetch, JobId, LogJob, MemberChange, PeerId, Rejected, RoleChange, Token,
};
use tl_store::OrderedStore;
use tl_types::{Generation, GroupId, Index, UnixMs};

use super::rows::BlockingRows;
use super::{Aside, AsideDone, Fetched};

/// The time of a turn, read once by the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds on the boot clock, which never goes back.
    pub boot_ms: u64,
    /// Milliseconds on the wall clock, which may jump.
    pub wall_ms: u64,
}

impl From<Now> for Reading {
    fn from(now: Now) -> Reading {
        Reading { boot_ms: now.boot_ms, wall: UnixMs(now.wall_ms) }
    }
}

/// One thing that happened since the last turn.
#[derive(Debug)]
pub enum Input {
    /// Put an encoded entry into a group's log; its stamp is set here.
    Propose {
        /// The group.
        group: GroupId,
        /// Comes back in a [`Done`].
        token: Token,
        /// The entry, not stamped yet.
        entry: Vec<u8>,
    },
    /// Ask for an index from which rows may be read linearizably, applied on this node.
    Read {
        /// The group.
        group: GroupId,
        /// Comes back in a [`Done`].
        token: Token,
    },
    /// A log job is on disk and synced.
    LogDone(JobId),
    /// A frame from a peer.
    Frame {
        /// Who sent it.
        from: PeerId,
        /// The frame.
        bytes: bytes::Bytes,
    },
    /// Work that was done beside the driver.
    BesideDone(BesideDone),
    /// A piece of something large from a peer.
    Bulk {
        /// Who sent it.
        from: PeerId,
        /// The piece.
        bytes: bytes::Bytes,
    },
    /// Work for a transfer of rows that was done off the driver.
    AsideDone(AsideDone),
    /// Entries that were read from the log for a follower.
    Fetched(Fetched),
    /// The first entry that the log on disk has of each group, after it let go of some.
    LogBegins(BTreeMap<GroupId, Index>),
    /// Rows are durable up to these indexes: entries behind them may leave memory.
    Flushed(Vec<(GroupId, Index)>),
    /// Hand the leadership of a group to a peer, if this node leads it and the peer could lead now.
    Transfer {
        /// The group.
        group: GroupId,
        /// Who shall lead.
        to: PeerId,
    },
    /// Change who belongs to a group that this node leads.
    ChangeMembers {
        /// The group.
        group: GroupId,
        /// Comes back in a [`Done`], with no replies, once the change is made.
        token: Token,
        /// What shall change.
        change: MemberChange,
    },
    /// An operator wants the rows of a group to be given anew by its leader, as if they were
    /// damaged. For groups that others have too.
    Repair(GroupId),
    /// The connection to a peer broke.
    Unreachable(PeerId),
    /// A majority of the cluster's wall clocks agreed with this node's when its clocks said so.
    ClocksAgree(Now),
}

/// An answer for a token, or the effects of an entry that nobody here waits for.
#[derive(Debug)]
pub enum Done {
    /// An entry was applied.
    Applied {
        /// The group.
        group: GroupId,
        /// Who proposed it here, if anyone.
        token: Option<Token>,
        /// Its index.
        index: Index,
        /// One reply per command, or the one refusal.
        replies: Vec<Reply>,
        /// What to wake.
        effects: Vec<Effect>,
    },
    /// Rows applied up to `index` may be read.
    Read {
        /// The reader.
        token: Token,
        /// What is applied.
        index: Index,
    },
    /// Nothing was done, or nobody knows.
    Failed {
        /// The proposer or reader.
        token: Token,
        /// Why.
        failure: Failure,
    },
}

/// Why a token was not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// This node does not lead the group; nothing was proposed.
    NotLeader(Option<PeerId>),
    /// Too much of this group waits to be committed; nothing was proposed.
    Busy,
    /// Proposed and provably overwritten: it never takes effect.
    Lost,
    /// The group is stopped here.
    Stopped,
    /// Proposed; whether it takes effect is unknown here.
    Unknown,
    /// The group's members do not change so now; nothing was proposed.
    ChangeRefused(ChangeRefused),
}

/// An entry whose rows must be loaded first: rules run over blocking reads, off the driver. The
/// group waits, so the rows cannot change meanwhile and the outcome stays valid.
#[derive(Debug)]
pub struct Beside {
    pub(super) group: GroupId,
    pub(super) generation: Generation,
    pub(super) index: Index,
    pub(super) entry: bytes::Bytes,
    pub(super) level_spoken: u16,
}

/// What [`Beside::run`] found.
#[derive(Debug)]
pub struct BesideDone {
    pub(super) group: GroupId,
    pub(super) generation: Generation,
    pub(super) outcome: Result<Outcome, String>,
}

impl Beside {
    /// Applies the entry over blocking reads.
    pub fn run<S: OrderedStore>(self, store: &S) -> BesideDone {
        let rows = BlockingRows::keeping(store, self.group, self.generation);
        let outcome = tl_core::apply_up_to(self.level_spoken, &rows, self.index, self.entry)
            .map_err(|stop| crate::chain(&stop));
        BesideDone { group: self.group, generation: self.generation, outcome }
    }
}

/// What the caller has to do after a turn.
#[derive(Debug, Default)]
pub struct Turned {
    /// Write, sync, then say [`Input::LogDone`].
    pub log: Option<LogJob>,
    /// Send these.
    pub frames: Vec<(PeerId, bytes::Bytes)>,
    /// Answers and effects, in order within a group.
    pub done: Vec<Done>,
    /// Run these off the driver and bring back [`Input::BesideDone`].
    pub beside: Vec<Beside>,
    /// Send these on the connections for what is large.
    pub bulk: Vec<(PeerId, bytes::Bytes)>,
    /// Run these off the driver too, where they may take longer, and bring back
    /// [`Input::AsideDone`].
    pub asides: Vec<Aside>,
    /// Read these from the log, off the driver, and bring back [`Input::Fetched`]; see [`fetch`].
    pub fetches: Vec<Fetch>,
    /// Changed: entries behind these are to stay in the log, since whoever is given rows up to them
    /// needs those next.
    pub log_held: Option<BTreeMap<GroupId, Index>>,
    /// Groups that go on from rows of another node, and the last entry in these.
    pub installed: Vec<(GroupId, Index)>,
    /// What could not be read for a node that is behind, and why.
    pub troubles: Vec<(GroupId, String)>,
    /// Groups that stopped in this turn, and why.
    pub stopped: Vec<(GroupId, String)>,
    /// Roles that changed.
    pub roles: Vec<RoleChange>,
    /// What peers sent and could not be taken.
    pub rejected: Vec<Rejected>,
    /// Appends of leaders passed over because there is no room here for their entries.
    pub appends_passed_over: u64,
    /// A memtable was sealed: flush it.
    pub sealed: bool,
    /// Call again at once.
    pub more: bool,
    /// Entries applied in this turn.
    pub applied: usize,
}
