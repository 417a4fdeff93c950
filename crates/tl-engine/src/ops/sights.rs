//! What a node has seen of the other members: when each was heard last, and what it said.
//!
//! Every frame counts as a sign of life; leaders send heartbeats, and members ask one another
//! several times a second, so two that reach each other are never silent for long.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use tl_raft::PeerId;

use super::report::{Lag, Report};
use super::states::Sight;

/// A report older than this is not acted upon, milliseconds.
const REPORT_FRESH_MS: u64 = 5_000;

/// See the module. Times are those of the boot clock.
#[derive(Debug)]
pub(crate) struct Sights(RwLock<BTreeMap<PeerId, Arc<Seen>>>);

#[derive(Debug)]
struct Seen {
    heard_ms: AtomicU64,
    said: Mutex<Option<(u64, Arc<Report>)>>,
}

impl Sights {
    /// Nobody was seen; silence counts from now.
    pub(crate) fn new(others: impl IntoIterator<Item = PeerId>, now_ms: u64) -> Sights {
        let sights = Sights(RwLock::default());
        sights.set_others(others, now_ms);
        sights
    }

    /// From now on these are the other members. The silence of new ones counts from now.
    pub(crate) fn set_others(&self, others: impl IntoIterator<Item = PeerId>, now_ms: u64) {
        let new = || Seen { heard_ms: AtomicU64::new(now_ms), said: Mutex::default() };
        let mut sights = self.0.write();
        let mut former = std::mem::take(&mut *sights);
        let kept = |peer| (peer, former.remove(&peer).unwrap_or_else(|| Arc::new(new())));
        *sights = others.into_iter().map(kept).collect();
    }

    fn seen(&self, peer: PeerId) -> Option<Arc<Seen>> {
        self.0.read().get(&peer).map(Arc::clone)
    }

    /// Something came from a peer.
    pub(crate) fn heard(&self, peer: PeerId, now_ms: u64) {
        if let Some(seen) = self.0.read().get(&peer) {
            seen.heard_ms.fetch_max(now_ms, Ordering::Relaxed);
        }
    }

    /// A peer said how it is.
    pub(crate) fn said(&self, peer: PeerId, report: Report, now_ms: u64) {
        if let Some(seen) = self.seen(peer) {
            *seen.said.lock() = Some((now_ms, Arc::new(report)));
        }
    }

    /// The last report of a peer, however old.
    pub(crate) fn report(&self, peer: PeerId) -> Option<Arc<Report>> {
        let seen = self.seen(peer)?;
        let said = seen.said.lock();
        said.as_ref().map(|(_, report)| Arc::clone(report))
    }

    /// What is known of a peer; of one that is no member, nothing ever.
    pub(crate) fn sight(&self, peer: PeerId, now_ms: u64) -> Sight {
        let heard_ms = self.seen(peer).map(|seen| seen.heard_ms.load(Ordering::Relaxed));
        let silent_ms = heard_ms.map_or(u64::MAX, |heard_ms| now_ms.saturating_sub(heard_ms));
        Sight { silent_ms, said: self.report(peer).map(|report| report.standing) }
    }

    /// The largest of what leaders say that this node's replicas lack.
    pub(crate) fn own_lag(&self, now_ms: u64) -> Option<Lag> {
        let sights = self.0.read();
        let lags = sights.values().filter_map(|seen| {
            let said = seen.said.lock();
            let (at_ms, report) = said.as_ref()?;
            report.asker.filter(|_| now_ms.saturating_sub(*at_ms) <= REPORT_FRESH_MS)
        });
        lags.max_by_key(|lag| (lag.is_cut_off, lag.entries))
    }
}

#[cfg(test)]
mod tests {
    use tl_types::GroupId;

    use super::*;
    use crate::ops::states::Standing;

    const PEER: PeerId = PeerId(2);

    fn report(asker: Option<Lag>) -> Report {
        Report {
            standing: Standing::Ready,
            is_disk_full: false,
            groups_led: 1,
            tails_open: 0,
            stopped: Vec::new(),
            asker,
            reason: String::new(),
            level_spoken: 1,
        }
    }

    #[test]
    fn silence_counts_from_the_start_and_ends_with_any_frame() {
        let sights = Sights::new([PEER], 1_000);
        assert_eq!(sights.sight(PEER, 1_400), Sight { silent_ms: 400, said: None });
        sights.heard(PEER, 1_500);
        sights.heard(PEER, 1_450);
        assert_eq!(sights.sight(PEER, 1_600).silent_ms, 100, "frames are counted as they come");
        assert_eq!(sights.sight(PEER, 1_400).silent_ms, 0);
        sights.said(PEER, report(None), 1_600);
        assert_eq!(sights.sight(PEER, 1_600).said, Some(Standing::Ready));
        assert_eq!(sights.sight(PeerId(9), 1_600), Sight { silent_ms: u64::MAX, said: None });
    }

    #[test]
    fn a_new_life_was_not_heard_and_said_nothing() {
        let sights = Sights::new([PEER, PeerId(3)], 0);
        sights.said(PEER, report(None), 10);
        sights.said(PeerId(3), report(None), 10);
        sights.set_others([PeerId(3), PeerId(4)], 1_000);
        assert_eq!(sights.sight(PeerId(4), 1_200), Sight { silent_ms: 200, said: None });
        assert_eq!(sights.sight(PEER, 1_200).silent_ms, u64::MAX, "a life that is over");
        assert_eq!(sights.sight(PeerId(3), 1_200).said, Some(Standing::Ready), "who stays");
    }

    #[test]
    fn the_worst_lag_counts_as_long_as_it_is_fresh() {
        let sights = Sights::new([PEER, PeerId(3)], 0);
        let lag = |entries, is_cut_off| Lag { groups: 1, worst: GroupId(4), entries, is_cut_off };
        sights.said(PEER, report(Some(lag(50_000, false))), 10);
        sights.said(PeerId(3), report(Some(lag(3, true))), 20);
        assert_eq!(sights.own_lag(5_010), Some(lag(3, true)), "who is cut off needs help most");
        assert_eq!(sights.own_lag(5_011), Some(lag(3, true)));
        assert_eq!(sights.own_lag(5_021), None);
        sights.said(PeerId(3), report(None), 5_000);
        assert_eq!(sights.own_lag(5_010), Some(lag(50_000, false)));
    }
}
