//! Which entries of a group a segment is kept for.
//!
//! A later entry with the same or a lower index replaces what it overlaps, and rows that are put in
//! place replace all before them. What is replaced is needed by nobody, so it keeps no segment: else a
//! group whose tail was overwritten and that is idle since would hold the whole log for ever.

use std::collections::BTreeMap;

use tl_types::{GroupId, Index};

use super::Segment;

/// Entries of one group in one segment, those left out that were replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub lowest: Index,
    pub highest: Index,
}

impl Segment {
    /// Remembers that an entry lies in this segment.
    pub(crate) fn note_index(&mut self, group: GroupId, index: Index) {
        let span = self.spans.entry(group).or_insert(Span { lowest: index, highest: index });
        span.lowest = index.min(span.lowest);
        span.highest = index.max(span.highest);
    }

    /// Entries of a group from `from` on that lie here were replaced; from 0 on, all of them.
    pub(crate) fn cut_from(&mut self, group: GroupId, from: Index) {
        let Some(span) = self.spans.get_mut(&group) else { return };
        if span.lowest >= from {
            self.spans.remove(&group);
        } else if span.highest >= from {
            span.highest = Index(from.0 - 1);
        }
    }
}

/// The last entry of each group that some segment is kept for.
#[derive(Debug, Default)]
pub(crate) struct Tops(BTreeMap<GroupId, Index>);

impl Tops {
    /// Takes note of an entry; whether it replaces some.
    pub(crate) fn replaces(&mut self, group: GroupId, index: Index) -> bool {
        self.0.insert(group, index).is_some_and(|top| index <= top)
    }

    /// Takes note of an entry of which nobody can tell what it replaced.
    pub(crate) fn rise(&mut self, group: GroupId, index: Index) {
        let top = self.0.entry(group).or_insert(index);
        *top = index.max(*top);
    }

    /// No entry of a group counts any more; whether one did.
    pub(crate) fn forget(&mut self, group: GroupId) -> bool {
        self.0.remove(&group).is_some()
    }
}
