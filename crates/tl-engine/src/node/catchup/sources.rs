//! Where a taker may have rows of a transfer already, and the loads that are kept for that.

use tl_types::{Generation, GroupId, RowKey};

/// A load that was cut off stays for so long, for another transfer to copy from it, milliseconds.
/// What an earlier process left behind stays for so long after a start.
pub(super) const CUT_OFF_STAYS_MS: u64 = 10 * 60 * 1_000;
/// Loads that were cut off and stay, of all groups; the oldest goes first.
pub(super) const CUT_OFF_MAX: usize = 4;
/// A giver that so often in a row did not say what is in a chunk is asked for rows only: it may
/// be of an earlier release, which does not know the question.
const UNANSWERED_MAX: u32 = 3;

/// Rows of one generation up to about this key.
pub(super) type Extent = (Generation, RowKey);

/// What one transfer may copy from.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// A load that was cut off.
    pub(super) cut_off: Option<Extent>,
    /// What the group reads now, damaged or not.
    pub(super) live: Option<Extent>,
    /// Questions in a row that were not answered in time.
    unanswered: u32,
}

impl Sources {
    /// Picks what is of use from all that has rows, where the group reads the generation `live`.
    pub(super) fn pick(live: Generation, of_use: Vec<Extent>, cut_off: Option<Extent>) -> Sources {
        let mut sources = Sources { cut_off, ..Sources::default() };
        for extent in of_use {
            if extent.0 == live {
                sources.live = Some(extent);
            } else if extent.0 > live {
                sources.cut_off = further(sources.cut_off, Some(extent));
            }
        }
        sources
    }

    /// Those that may have rows behind this one, in the order in which they are looked at.
    pub(super) fn behind(&self, key: Option<&RowKey>) -> Vec<Generation> {
        let all = self.cut_off.iter().chain(&self.live);
        let reaching = all.filter(|(_, upto)| key.is_none_or(|key| upto > key));
        reaching.filter(|_| self.unanswered < UNANSWERED_MAX).map(|(of, _)| *of).collect()
    }

    pub(super) fn not_answered(&mut self) {
        self.unanswered += 1;
    }

    pub(super) fn answered(&mut self) {
        self.unanswered = 0;
    }
}

/// The one that came further; the later one if both came as far.
pub(super) fn further(one: Option<Extent>, other: Option<Extent>) -> Option<Extent> {
    one.into_iter().chain(other).max_by(|one, other| (&one.1, one.0).cmp(&(&other.1, other.0)))
}

/// Loads that were cut off and may be of use to the next transfer: at most one for each group.
#[derive(Debug)]
pub(super) struct CutOffs {
    /// The oldest first.
    kept: Vec<CutOff>,
    /// When what an earlier process left behind goes; nothing is known of it here.
    former_until_ms: Option<u64>,
}

#[derive(Debug)]
struct CutOff {
    group: GroupId,
    extent: Extent,
    until_ms: u64,
}

impl CutOffs {
    pub(super) fn new(now_ms: u64) -> CutOffs {
        CutOffs { kept: Vec::new(), former_until_ms: Some(now_ms + CUT_OFF_STAYS_MS) }
    }

    /// Keeps a load in place of what was kept of the group; returns whose was the oldest, if that
    /// has to go.
    pub(super) fn keep(&mut self, group: GroupId, extent: Extent, now_ms: u64) -> Option<GroupId> {
        self.kept.retain(|kept| kept.group != group);
        self.kept.push(CutOff { group, extent, until_ms: now_ms + CUT_OFF_STAYS_MS });
        (self.kept.len() > CUT_OFF_MAX).then(|| self.kept.remove(0).group)
    }

    pub(super) fn take(&mut self, group: GroupId) -> Option<Extent> {
        let at = self.kept.iter().position(|kept| kept.group == group)?;
        Some(self.kept.remove(at).extent)
    }

    pub(super) fn of(&self, group: GroupId) -> Option<Generation> {
        let mut kept = self.kept.iter().filter(|kept| kept.group == group);
        kept.next().map(|kept| kept.extent.0)
    }

    /// There is no room for any of them: none stays any longer.
    pub(super) fn let_all_go(&mut self) {
        self.kept.iter_mut().for_each(|kept| kept.until_ms = 0);
        self.former_until_ms = self.former_until_ms.map(|_| 0);
    }

    /// A group of which a load has stayed for long enough.
    pub(super) fn pop_due(&mut self, now_ms: u64) -> Option<GroupId> {
        let at = self.kept.iter().position(|kept| kept.until_ms <= now_ms)?;
        Some(self.kept.remove(at).group)
    }

    /// Once: whether what an earlier process left behind has stayed for long enough.
    pub(super) fn former_are_due(&mut self, now_ms: u64) -> bool {
        self.former_until_ms.take_if(|until_ms| *until_ms <= now_ms).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tl_types::{ResourceNumber, Seq};

    fn extent(generation: u32, seq: u64) -> Extent {
        (Generation(generation), RowKey::event(ResourceNumber(1), Seq(seq)))
    }

    fn key(seq: u64) -> RowKey {
        extent(0, seq).1
    }

    #[test]
    fn the_load_that_came_furthest_is_copied_from_and_the_groups_own_rows() {
        let all = vec![extent(2, 9), extent(3, 50), extent(4, 20), extent(5, 50)];
        let sources = Sources::pick(Generation(2), all, None);
        assert_eq!(sources.cut_off, Some(extent(5, 50)));
        let behind = |key: Option<RowKey>| sources.behind(key.as_ref());
        assert_eq!(behind(None), [Generation(5), Generation(2)]);
        assert_eq!(behind(Some(key(8))), [Generation(5), Generation(2)]);
        assert_eq!(behind(Some(key(9))), [Generation(5)], "the last row was taken");
        assert_eq!(behind(Some(key(50))), []);
        let former = vec![extent(1, 70), extent(2, 9)];
        let sources = Sources::pick(Generation(2), former, Some(extent(4, 5)));
        assert_eq!(sources.cut_off, Some(extent(4, 5)), "former rows are not looked at");
    }

    #[test]
    fn whoever_does_not_answer_is_asked_for_rows_only() {
        let mut sources = Sources::pick(Generation(2), vec![extent(2, 9)], None);
        (1..UNANSWERED_MAX).for_each(|_| sources.not_answered());
        assert_eq!(sources.behind(None), [Generation(2)]);
        sources.answered();
        (1..UNANSWERED_MAX).for_each(|_| sources.not_answered());
        assert_eq!(sources.behind(None), [Generation(2)]);
        sources.not_answered();
        assert_eq!(sources.behind(None), []);
    }

    #[test]
    fn loads_that_were_cut_off_stay_for_a_while_and_so_many_at_a_time() {
        let mut cut_offs = CutOffs::new(500);
        for group in 0..CUT_OFF_MAX as u16 {
            assert_eq!(cut_offs.keep(GroupId(group), extent(3, 1), 1_000), None);
        }
        assert_eq!(cut_offs.keep(GroupId(1), extent(4, 1), 2_000), None, "in place of another");
        assert_eq!(cut_offs.keep(GroupId(9), extent(3, 1), 2_000), Some(GroupId(0)));
        assert_eq!((cut_offs.of(GroupId(0)), cut_offs.of(GroupId(1))), (None, Some(Generation(4))));
        assert_eq!(cut_offs.take(GroupId(2)), Some(extent(3, 1)));
        assert_eq!(cut_offs.take(GroupId(2)), None);
        assert_eq!(cut_offs.pop_due(1_000 + CUT_OFF_STAYS_MS - 1), None);
        assert_eq!(cut_offs.pop_due(1_000 + CUT_OFF_STAYS_MS), Some(GroupId(3)));
        assert_eq!(cut_offs.pop_due(1_000 + CUT_OFF_STAYS_MS), None);
        assert!(!cut_offs.former_are_due(499 + CUT_OFF_STAYS_MS));
        assert!(cut_offs.former_are_due(500 + CUT_OFF_STAYS_MS));
        assert!(!cut_offs.former_are_due(500 + CUT_OFF_STAYS_MS), "once");
        cut_offs.let_all_go();
        assert_eq!(cut_offs.pop_due(0), Some(GroupId(1)), "there is no room");
        assert!(!cut_offs.former_are_due(0), "once");
        let mut cut_offs = CutOffs::new(500);
        cut_offs.let_all_go();
        assert!(cut_offs.former_are_due(0));
    }
}
