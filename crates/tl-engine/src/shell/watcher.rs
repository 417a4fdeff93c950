//! The thread that watches room on disk and the memory budget, so that a write need only look
//! at flags.

use std::sync::Arc;

use tl_store::OrderedStore;

use super::Shared;
use super::admission::Admission;
use super::flush::Background;

pub(crate) fn run<S: OrderedStore>(
    shared: &Shared<S>,
    background: &Background,
    admission: &Arc<Admission>,
) {
    let mut is_blind = false;
    loop {
        if let Err(error) = shared.space.look() {
            // Said once: the full disk itself is met by whoever writes next.
            if !std::mem::replace(&mut is_blind, true) {
                tracing::warn!(%error, "cannot tell how much room is on disk");
            }
        }
        let stats = shared.store.stats();
        let (inflight_bytes, _) = admission.inflight();
        let used_bytes = admission.budget().note(
            (stats.active_bytes + stats.sealed_bytes) as u64,
            stats.cache_bytes,
            inflight_bytes as u64,
            shared.hub.recent_bytes() as u64,
        );
        let metrics = &shared.metrics;
        metrics.memory_used_bytes.set(gauge(used_bytes));
        metrics.disk_free_bytes.set(gauge(shared.space.free_bytes()));
        metrics.store_disk_bytes.set(gauge(stats.disk_bytes));
        if !background.rest_for(shared.space.pause().min(admission.budget().pause())) {
            return;
        }
    }
}

fn gauge(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
