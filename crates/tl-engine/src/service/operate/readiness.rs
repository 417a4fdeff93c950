//! Whether a node is ready, and what is in the way.
use tl_raft::PeerId;
use tl_store::OrderedStore;
use tl_types::GroupId;

use super::Service;
use crate::api::Readiness;
use crate::ops::states::{Left, NodeState, Standing, standing};
use crate::shell::links::Links;
use crate::shell::time;

impl<S: OrderedStore + 'static> Service<S> {
    /// Whether the node can serve, and if not, why.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let not = |reason, detail| Readiness { ready: false, reason: Some(reason), detail };
        if let Some(why) = &*self.inner.failure.borrow() {
            return not("raft_sync", vec![("probe_result", why.to_string())]);
        }
        if *self.inner.draining.borrow() {
            let left = self.left();
            let mut detail = vec![("state", self.standing_word().to_owned())];
            if left.has_others {
                detail.push(("groups_led", left.groups_led.to_string()));
            }
            detail.push(("tails_open", left.tails_open.to_string()));
            return not("draining", detail);
        }
        match self.trouble() {
            Some(detail) if self.is_router() => not("router_sync", detail),
            Some(detail) => not("raft_sync", detail),
            None => Readiness { ready: true, reason: None, detail: Vec::new() },
        }
    }

    /// What keeps a node that runs from being ready, a drain aside: the first group that is not
    /// healthy, and why.
    fn trouble(&self) -> Option<Vec<(&'static str, String)>> {
        if let Some(links) = self.inner.links.as_ref().filter(|links| links.is_router()) {
            return self.out_of_reach(links);
        }
        let here = self.groups_here();
        let groups = here.len().to_string();
        let of = |group: GroupId, result: String| {
            vec![
                ("checked_groups", groups.clone()),
                ("failing_group_id", group.to_string()),
                ("probe_result", result),
            ]
        };
        if let Some((group, why)) = self.inner.background.stopped_groups().first() {
            return Some(of(*group, why.to_string()));
        }
        if let Some(links) = &self.inner.links
            && let Some(group) = links.leaderless()
        {
            let Some(missing) = self.majority_is_missing(group) else {
                let is_member = self.is_member(group);
                return Some(of(group, if is_member { "no_leader" } else { "joining" }.to_owned()));
            };
            let mut detail = of(group, "quorum_unreachable".to_owned());
            // Nobody is missing where all are heard and some have stopped the group.
            if !missing.is_empty() {
                detail.push(("missing", missing.join(",")));
            }
            return Some(detail);
        }
        if !*self.inner.ready.borrow() {
            let group = here.get(usize::from(self.inner.ops.groups_confirmed())).or(here.last());
            return Some(match group {
                Some(group) => of(*group, "startup_sync".to_owned()),
                None => vec![("probe_result", "startup_sync".to_owned())],
            });
        }
        if let Some(roster) = &self.inner.ops.roster {
            let progress = roster.progress();
            if progress.replacing.iter().any(|name| **name == *self.inner.info.name) {
                return Some(vec![
                    ("checked_groups", groups),
                    ("probe_result", "joining".to_owned()),
                    ("groups_done", progress.done.to_string()),
                ]);
            }
        }
        let lag = self.inner.ops.sights.own_lag(time::now().boot_ms)?;
        let mut detail = of(lag.worst, "behind".to_owned());
        detail.push(("groups_behind", lag.groups.to_string()));
        detail.push(("lag_entries", lag.entries.to_string()));
        Some(detail)
    }

    /// What keeps a router from being ready: the first group of which it hears no member.
    fn out_of_reach(&self, links: &Links) -> Option<Vec<(&'static str, String)>> {
        let is_heard = |peer: &PeerId| {
            // At the start nobody is silent for long yet; who is there has said how it is.
            self.inner.ops.sights.report(*peer).is_some() && self.state_of(*peer).is_heard()
        };
        let mut groups = (0..self.inner.groups).map(GroupId);
        let missing = groups.find(|group| !links.replicas(*group).iter().any(is_heard))?;
        let names = links.replicas(missing).into_iter().map(|peer| links.name(peer).to_string());
        Some(vec![
            ("checked_groups", self.inner.groups.to_string()),
            ("failing_group_id", missing.to_string()),
            ("probe_result", "not_reached".to_owned()),
            ("missing", names.collect::<Vec<_>>().join(",")),
        ])
    }

    pub(super) fn left(&self) -> Left {
        let tails = self.inner.metrics.tails_open.get();
        Left {
            groups_led: self.groups_led(),
            has_others: self.has_others(),
            tails_open: usize::try_from(tails).unwrap_or(0),
        }
    }

    pub(super) fn groups_led(&self) -> usize {
        match &self.inner.links {
            Some(links) => links.led(),
            None => usize::from(self.inner.groups),
        }
    }

    /// What this node says of itself.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let is_running = self.inner.failure.borrow().is_none();
        let drain = self.inner.draining.borrow().then(|| self.left());
        standing(is_running && self.trouble().is_none(), drain.filter(|_| is_running))
    }

    fn standing_word(&self) -> &'static str {
        NodeState::from(self.standing()).word()
    }
}

/// Why a node is not ready, in one line; empty when it is.
pub(super) fn reason(readiness: &Readiness) -> String {
    let Some(reason) = readiness.reason else { return String::new() };
    let detail: Vec<String> =
        readiness.detail.iter().map(|(name, value)| format!("{name} {value}")).collect();
    if detail.is_empty() { reason.to_owned() } else { format!("{reason} ({})", detail.join(", ")) }
}
