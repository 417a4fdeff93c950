//! What an operator changes: drains, and who leads a group; and waiting until it is so.

use std::time::{Duration, Instant};

use tl_raft::PeerId;
use tl_store::OrderedStore;
use tl_types::{ErrorCode, GroupId, UnixMs};
use tokio::sync::watch;

use super::{REPORT_WITHIN, Service, reason};
use crate::api::ServiceError;
use crate::node::Input;
use crate::ops::DrainError;
use crate::ops::pages::{GroupPage, NodePage};
use crate::ops::states::NodeState;
use crate::peer::{Answer, Question};
use crate::shell::links::NoAnswer;
use crate::shell::{Mail, time};

/// Between two looks while somebody waits for a state, or while a drain goes on.
pub(super) const WAIT_EVERY: Duration = Duration::from_millis(100);
/// Longest wait for another member to begin or end its drain, or to begin a repair.
pub(super) const DRAIN_WITHIN: Duration = Duration::from_secs(5);
/// Longest wait for another member to lead a group.
pub(super) const TRANSFER_WITHIN: Duration = Duration::from_secs(5);
/// Longest wait that may be asked for.
pub const WAIT_MAX: Duration = Duration::from_secs(600);

/// What somebody waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awaited {
    /// The node serves.
    Ready,
    /// The node is drained.
    Drained,
}

impl Awaited {
    fn state(self) -> NodeState {
        match self {
            Awaited::Ready => NodeState::Ready,
            Awaited::Drained => NodeState::Drained,
        }
    }
}

impl<S: OrderedStore + 'static> Service<S> {
    // Draining.

    /// Ends open tails with a resumable end and says "draining" until the process ends.
    pub fn begin_drain(&self) {
        self.inner.ops.stop();
        self.drain_on();
    }

    fn drain_on(&self) {
        self.inner.draining.send_replace(true);
        self.hand_over();
        self.inner.hub.wake_all();
    }

    /// Drains a member, or ends its drain; remembered by that member over restarts.
    ///
    /// # Errors
    /// `unknown_node`; `raft_unavailable` when the member is not reached or stops;
    /// `raft_timeout` when it did not answer; `internal_error` when it cannot write its file.
    pub async fn ops_drain(&self, node: Option<&str>, on: bool) -> Result<NodePage, ServiceError> {
        let peer = self.member_named(node)?;
        match peer {
            None => self.set_drain(on).await?,
            Some(peer) => self.ask_drain(peer, on).await?,
        }
        self.page_of(peer).await
    }

    pub(super) async fn set_drain(&self, on: bool) -> Result<(), ServiceError> {
        let ops = &self.inner.ops;
        let _turn = ops.changing.lock().await;
        if ops.is_stopping() {
            return Err(ServiceError::new(
                ErrorCode::RaftUnavailable,
                "This node is stopping; ask again when it is back",
            ));
        }
        let file = ops.drain_file.clone();
        let now = UnixMs(time::now().wall_ms);
        let written = self.beside(move || if on { file.put(now) } else { file.take_away() });
        let (is_changed, outcome) = judged(written.await?);
        if let Err(error) = &outcome {
            tracing::error!(%error, on, "a drain cannot be remembered for good");
        }
        // The node does what its file says, or it would change at its next start.
        if is_changed {
            tracing::info!(on, "the operator changed the drain of this node");
            if on {
                self.drain_on();
            } else {
                end_drain(&self.inner.draining, || ops.is_stopping());
            }
        }
        outcome
    }

    async fn ask_drain(&self, peer: PeerId, on: bool) -> Result<(), ServiceError> {
        let links = self.inner.links.as_ref().expect("another member was found through them");
        let deadline = Instant::now() + DRAIN_WITHIN;
        let name = links.name(peer);
        let refused = |code, what: String| Err(ServiceError::new(code, what));
        match links.ask(peer, &Question::Drain { on }, deadline).await {
            Ok(Answer::Report(report)) => {
                self.inner.ops.sights.said(peer, report, time::now().boot_ms);
                Ok(())
            }
            Ok(Answer::Refused(error)) => Err(error),
            Err(NoAnswer::NotSent) => refused(
                ErrorCode::RaftUnavailable,
                format!("{name} is not reached from here; nothing was changed"),
            ),
            Ok(_) | Err(NoAnswer::Unknown) => refused(
                ErrorCode::RaftTimeout,
                format!("{name} did not answer; look at its state and repeat the request"),
            ),
        }
    }

    /// Gives away what this node leads again and again while it is drained: others may elect it
    /// when they lose their leader. Until the node ends.
    pub(crate) async fn keep_drained(self) {
        let mut draining = self.inner.draining.subscribe();
        // The sender lives as long as the service.
        while draining.wait_for(|draining| *draining).await.map(drop).is_ok() && self.is_running() {
            if self.leads_for_present() {
                self.hand_over();
            }
            tokio::time::sleep(WAIT_EVERY).await;
        }
    }

    /// Waits until other members lead what this node led, or so long. Tells whether they do.
    pub async fn handed_over_within(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        while self.leads_for_present() {
            if Instant::now() >= until {
                return false;
            }
            tokio::time::sleep(WAIT_EVERY.min(limit)).await;
        }
        true
    }

    // Waiting.

    /// Waits until a member is ready or drained.
    ///
    /// # Errors
    /// `unknown_node`; `wait_timed_out` with the state that it is in.
    pub async fn ops_wait(
        &self,
        node: Option<&str>,
        awaited: Awaited,
        limit: Duration,
    ) -> Result<NodePage, ServiceError> {
        let until = Instant::now() + limit.min(WAIT_MAX);
        loop {
            // Each time, for it may be given a new life, under another number, meanwhile.
            let peer = self.member_named(node)?;
            if let Some(peer) = peer {
                self.ask_report(peer, until).await;
            }
            let state = match peer {
                None => self.standing().into(),
                Some(peer) => self.state_of(peer),
            };
            if state == awaited.state() {
                return self.page_of(peer).await;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.wait_timed_out(peer, state, awaited, limit));
            }
            tokio::time::sleep(WAIT_EVERY.min(left)).await;
        }
    }

    fn wait_timed_out(
        &self,
        peer: Option<PeerId>,
        state: NodeState,
        awaited: Awaited,
        limit: Duration,
    ) -> ServiceError {
        let (name, reason) = match (peer, &self.inner.links) {
            (Some(peer), Some(links)) => {
                let report = self.inner.ops.sights.report(peer);
                let reason = report.map(|report| report.reason.clone()).unwrap_or_default();
                (links.name(peer).to_string(), reason)
            }
            (None, _) | (_, None) => (self.inner.info.name.to_string(), reason(&self.readiness())),
        };
        let (state, wanted, ms) = (state.word(), awaited.state().word(), limit.as_millis());
        let mut what = format!("{name} is {state} after {ms} ms, not {wanted}");
        if !reason.is_empty() && state != wanted {
            what.push_str(": ");
            what.push_str(&reason);
        }
        ServiceError::new(ErrorCode::WaitTimedOut, what).with("state", state)
    }

    /// Asks a member how it is, and remembers what it says.
    pub(crate) async fn ask_report(&self, peer: PeerId, deadline: Instant) {
        let Some(links) = &self.inner.links else { return };
        let deadline = deadline.min(Instant::now() + REPORT_WITHIN);
        if let Ok(Answer::Report(report)) = links.ask(peer, &Question::Report, deadline).await {
            self.inner.ops.sights.said(peer, report, time::now().boot_ms);
        }
    }

    // Handing over one group.

    /// Has a member lead a group, and leaves it there for some minutes.
    ///
    /// # Errors
    /// `invalid_ops_request`, `unknown_node`; `raft_unavailable` when that member cannot lead it
    /// now.
    pub async fn ops_transfer(&self, group: GroupId, to: &str) -> Result<GroupPage, ServiceError> {
        self.check_group(group)?;
        let peer = self.member_named(Some(to))?;
        let Some(links) = &self.inner.links else { return self.ops_group(group).await };
        let to_peer = peer.unwrap_or(links.me());
        self.check_has_copy(links, group, to_peer)?;
        if let Some(peer) = peer {
            self.ask_report(peer, Instant::now() + REPORT_WITHIN).await;
        }
        let state = peer.map_or_else(|| self.standing().into(), |peer| self.state_of(peer));
        if matches!(
            state,
            NodeState::Draining | NodeState::Drained | NodeState::Suspect | NodeState::Lost
        ) {
            let what = format!("{to} is {}: it cannot be given a group now", state.word());
            return Err(ServiceError::new(ErrorCode::RaftUnavailable, what));
        }
        let has_stopped = match peer {
            Some(peer) => self.has_stopped(peer, group),
            None => self.inner.background.stopped_groups().iter().any(|(id, _)| *id == group),
        };
        if has_stopped {
            let what = format!("{to} stopped group {group} because of damage: it cannot lead it");
            return Err(ServiceError::new(ErrorCode::RaftUnavailable, what));
        }
        let until = Instant::now() + TRANSFER_WITHIN;
        // Who shall lead it keeps it, though the balance may want it elsewhere.
        self.tell_transfer(to_peer, group, to_peer).await;
        loop {
            let leader = links.leader(group);
            if leader == Some(to_peer) {
                return self.ops_group(group).await;
            }
            if Instant::now() >= until {
                let what = format!(
                    "{to} does not lead group {group} after {} s: it may lack entries; look at the \
                     group and try again",
                    TRANSFER_WITHIN.as_secs()
                );
                return Err(ServiceError::new(ErrorCode::RaftUnavailable, what));
            }
            if let Some(leader) = leader {
                self.tell_transfer(leader, group, to_peer).await;
            }
            links.wait_for_change(WAIT_EVERY).await;
        }
    }

    pub(super) async fn tell_transfer(&self, whom: PeerId, group: GroupId, to: PeerId) {
        let Some(links) = &self.inner.links else { return };
        if whom == links.me() {
            return self.take_transfer(group, to);
        }
        let deadline = Instant::now() + REPORT_WITHIN;
        // What came of it is seen by who leads then.
        let _ = links.ask(whom, &Question::Transfer { group, to }, deadline).await;
    }

    pub(super) fn take_transfer(&self, group: GroupId, to: PeerId) {
        let Some(links) = &self.inner.links else { return };
        if group.0 >= self.inner.groups {
            return;
        }
        if to == links.me() {
            self.inner.ops.hold(group, time::now().boot_ms);
        } else if links.leads(group) {
            self.inner.mailer.send(Mail::Input(Input::Transfer { group, to }));
        }
    }
}

/// Whether a drain is changed, and what the operator is told, once the file was written or not.
fn judged(written: Result<(), DrainError>) -> (bool, Result<(), ServiceError>) {
    let Err(error) = written else { return (true, Ok(())) };
    let what = match error.stands() {
        true => {
            "It is done, but it is not certain that it outlives a loss of power; repeat the \
             request, and look at the disk"
        }
        false => "Nothing was changed, since the node cannot write the file that remembers a drain",
    };
    let what = format!("{what}: {}", crate::chain(&error));
    (error.stands(), Err(ServiceError::new(ErrorCode::InternalError, what)))
}

/// Ends an operator's drain, but for one of a node that stops. That is asked while the value is
/// held: whoever stops says so before it sets the value, so the last word is its own.
fn end_drain(draining: &watch::Sender<bool>, is_stopping: impl Fn() -> bool) {
    draining.send_if_modified(|draining| {
        let ends = *draining && !is_stopping();
        *draining &= !ends;
        ends
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::DrainFile;

    #[test]
    fn the_drain_of_a_node_that_stops_is_not_taken_back() {
        let (draining, mut seen) = watch::channel(true);
        end_drain(&draining, || true);
        assert!(*seen.borrow_and_update() && !seen.has_changed().expect("the sender lives"));
        end_drain(&draining, || false);
        assert!(!*seen.borrow());
        assert!(seen.has_changed().expect("the sender lives"), "who waits is told");
    }

    #[test]
    fn a_drain_is_what_its_file_says_and_the_answer_says_how_certain_that_is() {
        let dir = tempfile::tempdir().expect("temp dir");
        let file = DrainFile::in_dir(dir.path());
        assert_eq!(judged(file.put(UnixMs(1))), (true, Ok(())));
        let (is_changed, told) = judged(DrainFile::on_bad_disk(dir.path()).take_away());
        let told = told.expect_err("not synced").message;
        assert!(is_changed && !file.is_there().expect("looked"));
        assert!(told.starts_with("It is done, but"), "{told}");
        let (is_changed, told) = judged(DrainFile::in_dir(&dir.path().join("gone")).put(UnixMs(1)));
        let told = told.expect_err("no folder").message;
        assert!(!is_changed && told.starts_with("Nothing was changed"), "{told}");
    }
}
