//! Entries for followers, read back from the log by whoever has it.

use tl_raft::{Fetch, Inbound, PeerId};
use tl_types::{GroupId, Index};
use tl_wal::{ReadBack, Reader, Segments, Want};

/// What came of a [`Fetch`].
#[derive(Debug)]
pub struct Fetched {
    group: GroupId,
    to: PeerId,
    from: Index,
    read: ReadBack,
}

impl Fetched {
    pub(super) fn into_inbound(self, troubles: &mut Vec<(GroupId, String)>) -> Inbound {
        let Fetched { group, to, from, read: ReadBack { entries, trouble } } = self;
        troubles.extend(trouble.map(|trouble| (group, trouble)));
        Inbound::Fetched { group, to, from, entries }
    }
}

/// Reads what followers lack, in one go for all of them. Blocking; `segments` is asked for the parts
/// of the log that have it.
pub fn fetch(
    fetches: Vec<Fetch>,
    reader: &mut Reader,
    segments: impl FnOnce(&[Want]) -> Segments,
) -> Vec<Fetched> {
    let (to, wants): (Vec<PeerId>, Vec<Want>) =
        fetches.into_iter().map(|fetch| (fetch.to, fetch.want)).unzip();
    let read = reader.read(segments(&wants), &wants);
    let fetched = to.into_iter().zip(wants).zip(read);
    fetched
        .map(|((to, want), read)| Fetched { group: want.group, to, from: want.from, read })
        .collect()
}
