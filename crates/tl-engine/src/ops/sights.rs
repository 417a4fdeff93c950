//! What a node has seen of the other members: when each was heard last, and what it said.
//!
//! Every frame counts as a sign of life; leaders send heartbeats, and members ask one another
//! several times a second, so two that reach each other are never silent for long.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tl_raft::PeerId;

use super::report::{Lag, Report};
use super::states::Sight;

/// A report older than this is not acted upon, milliseconds.
const REPORT_FRESH_MS: u64 = 5_000;

/// See the module. Times are those of the boot clock.
#[derive(Debug)]
pub(crate) struct Sights(BTreeMap<PeerId, Seen>);

#[derive(Debug)]
struct Seen {
    heard_ms: AtomicU64,
    said: Mutex<Option<(u64, Arc<Report>)>>,
}

impl Sights {
    /// Nobody was seen; silence counts from now.
    pub(crate) fn new(others: impl IntoIterator<Item = PeerId>, now_ms: u64) -> Sights {
        let seen = || Seen { heard_ms: AtomicU64::new(now_ms), said: Mutex::default() };
        Sights(others.into_iter().map(|peer| (peer, seen())).collect())
    }

    /// Something came from a peer.
    pub(crate) fn heard(&self, peer: PeerId, now_ms: u64) {
        if let Some(seen) = self.0.get(&peer) {
            seen.heard_ms.fetch_max(now_ms, Ordering::Relaxed);
        }
    }

    /// A peer said how it is.
    pub(crate) fn said(&self, peer: PeerId, report: Report, now_ms: u64) {
        if let Some(seen) = self.0.get(&peer) {
            *seen.said.lock() = Some((now_ms, Arc::new(report)));
        }
    }

    /// The last report of a peer, however old.
    pub(crate) fn report(&self, peer: PeerId) -> Option<Arc<Report>> {
        let said = self.0.get(&peer)?.said.lock();
        said.as_ref().map(|(_, report)| Arc::clone(report))
    }

    /// What is known of a peer; of one that is no member, nothing ever.
    pub(crate) fn sight(&self, peer: PeerId, now_ms: u64) -> Sight {
        let heard_ms = self.0.get(&peer).map(|seen| seen.heard_ms.load(Ordering::Relaxed));
        let silent_ms = heard_ms.map_or(u64::MAX, |heard_ms| now_ms.saturating_sub(heard_ms));
        Sight { silent_ms, said: self.report(peer).map(|report| report.standing) }
    }

    /// The largest of what leaders say that this node's replicas lack.
    pub(crate) fn own_lag(&self, now_ms: u64) -> Option<Lag> {
        let lags = self.0.values().filter_map(|seen| {
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
