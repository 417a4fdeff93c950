//! Which rows here are new enough for an answer that takes no round for each group: a list's.
//!
//! ```text
//!   led here ── a majority is heard, and what came before this leader is applied ──► here
//!   followed ── its leader says how far it is ── applied here as far, in a moment ──► here
//!                    └── silent, unknown, or too far ahead ──► elsewhere
//! ```
//!
//! A replica that is cut off, behind or just starting does not know it by itself, so its word alone
//! shows nothing. One question goes to each leader, however many groups it leads. What a leader shows
//! lacks no write that was acknowledged before another one could be elected, which is about a second.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tl_raft::PeerId;
use tl_store::OrderedStore;
use tl_types::{GroupId, Index};
use tokio::task::JoinSet;

use super::Service;
use super::elsewhere::Asked;
use crate::peer::{Found, Read};

/// Longest wait for a leader to say how far its groups are, and for a new one to learn it.
const LEADERS_WITHIN: Duration = Duration::from_millis(500);
/// Longest wait for what a leader has applied to be applied here: a replica that keeps up has it on
/// its way.
const APPLIED_WITHIN: Duration = Duration::from_millis(200);
/// Between two looks at what is applied here.
const LOOK_EVERY: Duration = Duration::from_millis(2);

impl<S: OrderedStore + 'static> Service<S> {
    /// Those of these groups, all of which have a copy here, whose rows here show what was acknowledged
    /// anywhere up to about a second ago. A node of its own has nobody to be behind of.
    pub(super) async fn fresh(
        &self,
        deadline: Instant,
        groups: BTreeSet<GroupId>,
    ) -> BTreeSet<GroupId> {
        let Some(links) = &self.inner.links else { return groups };
        let mut by_leader: BTreeMap<PeerId, Vec<GroupId>> = BTreeMap::new();
        for group in &groups {
            if let Some(leader) = links.leader(*group) {
                by_leader.entry(leader).or_default().push(*group);
            }
        }
        let led = by_leader.remove(&links.me()).unwrap_or_default();
        let within = LEADERS_WITHIN.min(deadline.saturating_duration_since(Instant::now()));
        let mut asked = JoinSet::new();
        for (leader, groups) in by_leader {
            if !self.state_of(leader).is_heard() {
                continue;
            }
            let (service, links) = (self.clone(), Arc::clone(links));
            let read = Read::Applied { groups };
            asked.spawn(async move { service.ask_reader(&links, leader, within, &read).await });
        }
        let led = self.applied_of_led(Instant::now() + within, led).await;
        let mut fresh: BTreeSet<GroupId> = led.into_iter().map(|(group, _)| group).collect();
        let mut wanted = Vec::new();
        while let Some(answer) = asked.join_next().await {
            if let Ok(Asked::Found(Found::Applied(told))) = answer {
                wanted.extend(told.into_iter().filter(|(group, _)| groups.contains(group)));
            }
        }
        let until = deadline.min(Instant::now() + APPLIED_WITHIN);
        loop {
            wanted.retain(|(group, index)| {
                let is_there = self.inner.store.applied(*group).index >= *index;
                if is_there {
                    fresh.insert(*group);
                }
                !is_there
            });
            if wanted.is_empty() || Instant::now() >= until {
                return fresh;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// How far groups that this node leads are applied here, and so everything that was acknowledged
    /// of them. Left out are those that it does not lead, those that it stopped, and those without a
    /// majority: others may lead them.
    pub(super) async fn applied_of_led(
        &self,
        until: Instant,
        mut groups: Vec<GroupId>,
    ) -> Vec<(GroupId, Index)> {
        let Some(links) = &self.inner.links else { return Vec::new() };
        let stopped = self.inner.background.stopped_groups();
        groups.retain(|group| {
            links.leads(*group)
                && !stopped.iter().any(|(of, _)| of == group)
                && self.majority_is_missing(*group).is_none()
        });
        let mut rounds = JoinSet::new();
        for group in groups.iter().copied().filter(|group| !links.is_settled(*group)) {
            let service = self.clone();
            // Once in a leadership; what it confirms is noted there.
            rounds.spawn(async move { service.read_index_once(until, group).await });
        }
        while rounds.join_next().await.is_some() {}
        let applied = |group: GroupId| self.inner.store.applied(group).index;
        let settled = groups.into_iter().filter(|group| links.is_settled(*group));
        settled.map(|group| (group, applied(group))).collect()
    }
}
