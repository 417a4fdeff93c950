//! What a taker knows of one transfer: how far it is, what it asked, and whether its disk has room.

use crc32fast::Hasher;
use tl_raft::PeerId;
use tl_types::{Generation, GroupId, Index, RowKey, Term, UnixMs};

use super::give::Wanted;
use super::message::What;
use super::sources::Sources;
use super::{CatchUpOpen, NO_ROOM_MS};

/// Rows on their way in.
#[derive(Debug)]
pub(super) struct Taking {
    pub(super) group: GroupId,
    pub(super) from: PeerId,
    pub(super) transfer: u64,
    /// The last entry in the rows.
    pub(super) index: Index,
    pub(super) term: Term,
    pub(super) stage: Stage,
    /// The generation that they are loaded under, once it has a name.
    pub(super) generation: Generation,
    /// The next chunk.
    pub(super) next: u64,
    pub(super) rows: u64,
    pub(super) crc: Hasher,
    /// The last row taken; the next is behind it.
    pub(super) last_key: Option<RowKey>,
    /// The stamp of the entry that wrote last, as the rows say.
    pub(super) stamp: UnixMs,
    /// What may have rows of it already.
    pub(super) sources: Sources,
    /// What was asked last of the next chunk.
    pub(super) asked: Option<Wanted>,
    /// Whether it was looked for in the sources.
    pub(super) looked: Looked,
    /// The next chunk is to be asked for when the store has room.
    pub(super) is_ask_due: bool,
    /// Rows wait to get out of memory, and none did since then.
    stuck: Option<Stuck>,
    pub(super) heard_ms: u64,
    pub(super) said_ms: u64,
}

/// Since when the store has flushed nothing, and how often it had by then.
#[derive(Debug, Clone, Copy)]
struct Stuck {
    since_ms: u64,
    flushes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Looked {
    NotYet,
    UnderWay,
    /// It is not there: what is said of it once more is a double.
    InVain,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Waits for a generation.
    Naming,
    /// Asks for chunks.
    Loading,
    /// Waits until the store has made so many memtables durable.
    Flushing { until: u64 },
    /// Raft may go on from them.
    Ready,
}

impl Taking {
    pub(super) fn new(
        now_ms: u64,
        from: PeerId,
        (group, transfer): (GroupId, u64),
        (index, term): (Index, Term),
    ) -> Taking {
        Taking {
            group,
            from,
            transfer,
            index,
            term,
            stage: Stage::Naming,
            generation: Generation(0),
            next: 0,
            rows: 0,
            crc: Hasher::new(),
            last_key: None,
            stamp: UnixMs(0),
            sources: Sources::default(),
            asked: None,
            looked: Looked::NotYet,
            is_ask_due: false,
            stuck: None,
            heard_ms: now_ms,
            said_ms: now_ms,
        }
    }

    /// The generation that rows are loaded under, if they are.
    pub(super) fn generation(&self) -> Option<Generation> {
        (self.stage != Stage::Naming).then_some(self.generation)
    }

    /// The load that was cut off and is copied from.
    pub(super) fn cut_off(&self) -> Option<Generation> {
        self.sources.cut_off.as_ref().map(|(of, _)| *of)
    }

    /// The next chunk is to be asked for: what is in it first, if it may be here.
    pub(super) fn next_question(&mut self) -> What {
        let chunk = self.next;
        let may_be_here = !self.sources.behind(self.last_key.as_ref()).is_empty();
        if self.asked.is_none() && may_be_here {
            self.asked = Some(Wanted::Fingerprint);
            return What::AskFingerprint { chunk };
        }
        self.asked = Some(Wanted::Rows);
        What::Ask { chunk }
    }

    /// Whether this is the next chunk.
    pub(super) fn waits_for(&self, chunk: u64) -> bool {
        self.stage == Stage::Loading && self.next == chunk
    }

    /// A disk may be slow: each flush that ends says that it has room.
    pub(super) fn look_whether_stuck(&mut self, now_ms: u64, is_full: bool, flushes: u64) {
        let is_waiting = is_full || matches!(self.stage, Stage::Flushing { .. });
        let before = self.stuck.filter(|before| before.flushes == flushes);
        self.stuck = is_waiting.then_some(before.unwrap_or(Stuck { since_ms: now_ms, flushes }));
    }

    /// What was asked last, once more: so the giver hears that this node is still at it.
    pub(super) fn same_question(&self) -> What {
        let chunk = self.next;
        match self.asked {
            Some(Wanted::Fingerprint) => What::AskFingerprint { chunk },
            Some(Wanted::Rows) | None => What::Ask { chunk },
        }
    }

    /// Nothing was flushed for so long that there is no room on the disk, as a rule.
    pub(super) fn has_no_room(&self, now_ms: u64) -> bool {
        self.stuck.is_some_and(|stuck| now_ms.saturating_sub(stuck.since_ms) >= NO_ROOM_MS)
    }

    pub(super) fn count(&self, open: &mut CatchUpOpen) {
        let counted = match self.stage {
            Stage::Naming | Stage::Loading => &mut open.loading,
            Stage::Flushing { .. } => &mut open.flushing,
            Stage::Ready => &mut open.installing,
        };
        *counted += 1;
    }
}
