//! What the log must repeat at the head of each segment: the latest state of every group.

use std::collections::BTreeMap;

use bytes::Bytes;
use tl_types::{Generation, GroupId, Index, Term};

use crate::format::{Content, RecordKind, record_bytes};
use crate::record::Record;

/// Latest state records of all groups.
#[derive(Debug, Default)]
pub(crate) struct States {
    groups: BTreeMap<GroupId, State>,
    /// Bytes that the records of all groups take.
    bytes: usize,
}

#[derive(Debug, Default)]
struct State {
    hard: Option<(Term, [u8; 8])>,
    membership: Option<Bytes>,
    installed: Option<(Index, Term, [u8; 4])>,
}

impl State {
    fn bytes(&self) -> usize {
        self.hard.as_ref().map_or(0, |(_, vote)| record_bytes(vote.len()))
            + self.membership.as_ref().map_or(0, |bytes| record_bytes(bytes.len()))
            + self.installed.as_ref().map_or(0, |(_, _, generation)| record_bytes(generation.len()))
    }
}

impl States {
    /// Bytes that the repeated records take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// At most so many bytes more once `records` are noted.
    pub fn growth(&self, records: &[Record]) -> usize {
        records
            .iter()
            .map(|record| {
                let known = self.groups.get(&record.group());
                match record {
                    Record::Entry { .. } => 0,
                    Record::HardState { .. } if known.is_some_and(|s| s.hard.is_some()) => 0,
                    Record::Installed { .. } if known.is_some_and(|s| s.installed.is_some()) => 0,
                    Record::HardState { .. } | Record::Installed { .. } => record_bytes(8),
                    Record::Membership { bytes, .. } => record_bytes(bytes.len()),
                }
            })
            .sum()
    }

    /// Takes over what a record says about its group; false when that was known.
    pub fn note(&mut self, record: &Record) -> bool {
        if matches!(record, Record::Entry { .. }) {
            return false;
        }
        let state = self.groups.entry(record.group()).or_default();
        self.bytes -= state.bytes();
        let is_news = match record {
            Record::Entry { .. } => false,
            Record::HardState { term, vote, .. } => {
                replace(&mut state.hard, (*term, vote.to_be_bytes()))
            }
            Record::Membership { bytes, .. } => {
                let is_news = state.membership.as_ref() != Some(bytes);
                if is_news {
                    // A copy: a slice would keep a whole segment in memory after a replay.
                    state.membership = Some(Bytes::copy_from_slice(bytes));
                }
                is_news
            }
            Record::Installed { index, term, generation, .. } => {
                replace(&mut state.installed, (*index, *term, generation.0.to_be_bytes()))
            }
        };
        self.bytes += state.bytes();
        is_news
    }

    /// Everything as records to write.
    pub fn contents(&self) -> impl Iterator<Item = Content<'_>> {
        self.groups.iter().flat_map(|(group, state)| {
            let content =
                |kind, term, index, data| Content { kind, group: *group, term, index, data };
            let installed = state.installed.as_ref().map(|(index, term, generation)| {
                content(RecordKind::Installed, *term, *index, &generation[..])
            });
            let membership = state
                .membership
                .as_ref()
                .map(|bytes| content(RecordKind::Membership, Term(0), Index(0), &bytes[..]));
            let hard = state
                .hard
                .as_ref()
                .map(|(term, vote)| content(RecordKind::HardState, *term, Index(0), &vote[..]));
            [installed, membership, hard].into_iter().flatten()
        })
    }
}

/// Puts a value in place of another; false when they are the same.
fn replace<T: PartialEq>(known: &mut Option<T>, new: T) -> bool {
    let new = Some(new);
    let differs = *known != new;
    *known = new;
    differs
}

/// The small fixed-size data of records that have some, kept beside a borrowed [`Content`].
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Small([u8; 8]);

/// A record as content; `small` holds what is not borrowed from the record.
pub(crate) fn content<'a>(record: &'a Record, small: &'a mut Small) -> Content<'a> {
    let none = Term(0);
    match record {
        Record::Entry { group, term, index, data } => {
            Content { kind: RecordKind::Entry, group: *group, term: *term, index: *index, data }
        }
        Record::HardState { group, term, vote } => {
            small.0 = vote.to_be_bytes();
            let (kind, index) = (RecordKind::HardState, Index(0));
            Content { kind, group: *group, term: *term, index, data: &small.0 }
        }
        Record::Membership { group, bytes } => {
            let (kind, index) = (RecordKind::Membership, Index(0));
            Content { kind, group: *group, term: none, index, data: bytes }
        }
        Record::Installed { group, index, term, generation } => {
            small.0[..4].copy_from_slice(&generation.0.to_be_bytes());
            let (kind, index) = (RecordKind::Installed, *index);
            Content { kind, group: *group, term: *term, index, data: &small.0[..4] }
        }
    }
}

/// Bytes of data that the record carries in the log.
pub(crate) fn data_bytes(record: &Record) -> usize {
    match record {
        Record::Entry { data, .. } => data.len(),
        Record::HardState { .. } => 8,
        Record::Membership { bytes, .. } => bytes.len(),
        Record::Installed { .. } => 4,
    }
}

/// A record of a group read back, or `None` when the kind is one of the log's own or the data
/// does not have the kind's shape.
pub(crate) fn decode(
    kind: RecordKind,
    group: GroupId,
    term: Term,
    index: Index,
    data: Bytes,
) -> Option<Record> {
    Some(match kind {
        RecordKind::Entry => Record::Entry { group, term, index, data },
        RecordKind::HardState => {
            let vote = u64::from_be_bytes(data.as_ref().try_into().ok()?);
            Record::HardState { group, term, vote }
        }
        RecordKind::Membership => Record::Membership { group, bytes: data },
        RecordKind::Installed => {
            let generation = Generation(u32::from_be_bytes(data.as_ref().try_into().ok()?));
            Record::Installed { group, index, term, generation }
        }
        RecordKind::Mark | RecordKind::Start | RecordKind::Next => return None,
    })
}
