//! Followers that are sent entries from the log on disk, a piece at a time.
//!
//! ```text
//!   lacks entries ─► Reading ─► (fetched) ─► Sent ─► (confirmed) ─► Reading ... ─► memory has the next
//!                       └─ nothing could be read: rows    └─ silence: let go
//! ```
//!
//! One piece is on its way for a follower at a time, so pieces and their memory are bounded by the
//! number of open feeds, and a follower that is slow to sync is sent no more than it takes. Whoever
//! finds no place asks again: Raft says with every beat what a follower lacks.

use std::collections::BTreeMap;

use tl_types::{GroupId, Index, Term};

use crate::config::FETCH_SILENT_BEATS;
use crate::deeds::{Fetch, PeerId};
use crate::group::Group;

/// What was sent from the log since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FeedCounts {
    /// Entries sent.
    pub entries: u64,
    /// Bytes of their data.
    pub bytes: u64,
    /// Times that the log did not have what was looked for.
    pub missed: u64,
}

/// The feeds that are open, all groups together.
#[derive(Debug)]
pub(super) struct Feeds {
    open: BTreeMap<(GroupId, PeerId), Feed>,
    max: usize,
    pub(super) counts: FeedCounts,
}

#[derive(Debug)]
struct Feed {
    /// In which the group is led here.
    term: Term,
    /// The first entry of the piece.
    from: Index,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Reading,
    Sent { upto: Index, beats: u32 },
}

impl Feeds {
    pub(super) fn new(max: usize) -> Feeds {
        Feeds { open: BTreeMap::new(), max, counts: FeedCounts::default() }
    }

    /// A follower lacks what memory has let go; false when it needs rows.
    pub(super) fn lacks(
        &mut self,
        (id, to): (GroupId, PeerId),
        group: &Group,
        fetches: &mut Vec<Fetch>,
    ) -> bool {
        if self.max == 0 {
            return false;
        }
        if self.open.contains_key(&(id, to)) {
            return true;
        }
        // Since Raft asked, the follower may have said that it has them.
        if group.follower(to).is_none_or(|(_, next)| next >= group.first_kept()) {
            return true;
        }
        let Some(fetch) = group.fetch(to) else { return false };
        if self.open.len() < self.max {
            let feed = Feed { term: group.term(), from: fetch.want.from, stage: Stage::Reading };
            self.open.insert((id, to), feed);
            fetches.push(fetch);
        }
        true
    }

    /// Looks how far a group's followers have come with what they were sent.
    pub(super) fn look(&mut self, id: GroupId, group: &Group, fetches: &mut Vec<Fetch>) {
        if self.open.is_empty() {
            return;
        }
        let of_group = (id, PeerId(0))..=(id, PeerId(u64::MAX));
        let over: Vec<PeerId> = self
            .open
            .range_mut(of_group)
            .filter_map(|((_, to), feed)| (!feed.goes_on(*to, group, fetches)).then_some(*to))
            .collect();
        for to in over {
            self.open.remove(&(id, to));
        }
    }

    /// A beat has passed; names the groups that are to be looked at, whatever else happens in them.
    pub(super) fn beat(&mut self) -> impl Iterator<Item = GroupId> {
        self.open.iter_mut().map(|((group, _), feed)| {
            if let Stage::Sent { beats, .. } = &mut feed.stage {
                *beats += 1;
            }
            *group
        })
    }

    /// Whether a piece that was read is the one that is waited for.
    pub(super) fn awaits(&self, id: GroupId, to: PeerId, from: Index) -> bool {
        self.open
            .get(&(id, to))
            .is_some_and(|feed| feed.from == from && matches!(feed.stage, Stage::Reading))
    }

    /// A piece is on its way to the follower.
    pub(super) fn sent(&mut self, id: GroupId, to: PeerId, upto: Index) {
        if let Some(feed) = self.open.get_mut(&(id, to)) {
            feed.stage = Stage::Sent { upto, beats: 0 };
        }
    }

    pub(super) fn end(&mut self, id: GroupId, to: PeerId) {
        self.open.remove(&(id, to));
    }
}

impl Feed {
    /// False when the follower gets on without it.
    fn goes_on(&mut self, to: PeerId, group: &Group, fetches: &mut Vec<Fetch>) -> bool {
        let follower = group.follower(to).filter(|_| group.term() == self.term);
        let Some((matched, next)) = follower else { return false };
        match self.stage {
            // What comes of it is looked at then.
            Stage::Reading => return true,
            // It has them, or wants earlier ones first.
            Stage::Sent { upto, .. } if matched >= upto || next < self.from => {}
            // Whoever is there and still lacks them says so again.
            Stage::Sent { beats, .. } => return beats < FETCH_SILENT_BEATS,
        }
        let Some(fetch) = group.fetch(to) else { return false };
        (self.from, self.stage) = (fetch.want.from, Stage::Reading);
        fetches.push(fetch);
        true
    }
}
