//! Reads of groups that have no copy on this node: asked of members that have one.
//!
//! ```text
//!   read ─► who has the group? who leads, who is heard ─► question ─► found
//!                 ▲                                          │ nothing, silent, "not now"
//!                 └───────────── the next one ◄──────────────┘
//! ```
//!
//! A read changes nothing, so it is asked again of the next member whenever there is no answer. The
//! rule of presence and absence is kept where the rows are: what a member shows is there, and that
//! something is not there it says only behind a read-index round. So no answer of one member is held
//! against another's, and where nobody answers nothing is claimed. A node whose own copy is behind asks
//! others for a session's row in the same way.

use std::time::{Duration, Instant};

use tl_core::SessionRow;
use tl_raft::PeerId;
use tl_store::OrderedStore;
use tl_types::limits::REQUEST_MS_DEFAULT;
use tl_types::{ErrorCode, GroupId, Index, ResourcePath, Seq, Tenant};

use super::events::Lines;
use super::read::Wanted;
use super::{READ_WAIT_MAX, Service, unexpected};
use crate::api::{EventLine, ServiceError, TailEnd};
use crate::hub::{Membership, RECENT_EVENTS_MAX, TopicKey};
use crate::peer::{Answer as PeerAnswer, Found, Question, Read, read};
use crate::shell::links::Links;

/// A replica here that has not answered for so long is behind, or nobody leads it: others are asked as
/// well. A round has its answer, or fails, in about this time.
const BEHIND_AFTER: Duration = Duration::from_millis(REQUEST_MS_DEFAULT / 5);
/// A member is given at least so long before the next one is asked.
const TRY_MIN: Duration = Duration::from_millis(200);
/// Rest after every member of a group was asked in vain.
const ROUND_REST: Duration = Duration::from_millis(20);
/// Longest time that a read of another node is worked on.
const SERVE_MAX: Duration = Duration::from_secs(60);
/// Of the time that whoever asks waits, the part that is left to find something, in tenths: the rest
/// is for the way.
const SERVE_TENTHS: u32 = 9;
/// Between two looks at who is silent.
const SILENCE_LOOKED_AT: Duration = Duration::from_millis(250);
/// Longest time until a row is looked at again although nothing was heard of it.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Events that come along with where a session ends.
const NEWS_EVENTS_MAX: usize = 256;
/// Their bytes; one event always goes.
const NEWS_BYTES_MAX: usize = 64 * 1024;

impl<S: OrderedStore + 'static> Service<S> {
    /// Whether this node has a copy of a group.
    pub(super) fn is_here(&self, group: GroupId) -> bool {
        self.inner.links.as_ref().is_none_or(|links| links.is_local(group))
    }

    /// The groups that this node has a copy of.
    pub(super) fn groups_here(&self) -> Vec<GroupId> {
        match &self.inner.links {
            Some(links) => links.local_groups().collect(),
            None => (0..self.inner.groups).map(GroupId).collect(),
        }
    }

    // Asking.

    /// The members that have a group, those first of which something is heard, and among these who
    /// leads it; those last whose replica has stopped. `turn` spreads what need not go to the leader.
    pub(super) fn readers(
        &self,
        links: &Links,
        group: GroupId,
        turn: Option<usize>,
    ) -> Vec<PeerId> {
        let mut readers = links.replicas(group);
        readers.retain(|peer| *peer != links.me());
        let leader = links.leader(group).filter(|_| turn.is_none());
        let turn = turn.unwrap_or(usize::from(group.0));
        let turn = turn.checked_rem(readers.len()).unwrap_or(0);
        readers.rotate_left(turn);
        readers.sort_by_key(|peer| {
            let is_silent = !self.state_of(*peer).is_heard();
            (is_silent, self.has_stopped(*peer, group), Some(*peer) != leader)
        });
        readers
    }

    /// Asks the members that have a group until one has found something.
    pub(super) async fn read_elsewhere(
        &self,
        links: &Links,
        group: GroupId,
        deadline: Instant,
        read: &Read,
    ) -> Result<Found, ServiceError> {
        let patience = deadline.min(Instant::now() + READ_WAIT_MAX);
        self.inner.metrics.reads_forwarded.inc();
        let mut told = None;
        loop {
            let readers = self.readers(links, group, None);
            for (at, peer) in readers.iter().enumerate() {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                let to_ask = u32::try_from(readers.len() - at).unwrap_or(u32::MAX);
                let within = (left / to_ask).max(TRY_MIN).min(left);
                match self.ask_reader(links, *peer, within, read).await {
                    Asked::Found(found) if found.is_something() => return Ok(found),
                    Asked::Found(_) | Asked::Nothing => {}
                    Asked::Refused(error) if is_of_that_member(error.code) => told = Some(error),
                    Asked::Refused(error) => return Err(error),
                }
            }
            self.check_running()?;
            if Instant::now() >= patience {
                return Err(told.unwrap_or_else(|| nobody(group)));
            }
            links.wait_for_change(ROUND_REST).await;
        }
    }

    pub(super) async fn ask_reader(
        &self,
        links: &Links,
        peer: PeerId,
        within: Duration,
        read: &Read,
    ) -> Asked {
        let wait = within * SERVE_TENTHS / 10;
        let wait_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        let question = Question::Read { wait_ms, read: read.clone() };
        match links.ask(peer, &question, Instant::now() + within).await {
            Ok(PeerAnswer::Found(found)) => Asked::Found(found),
            Ok(PeerAnswer::Refused(error)) => Asked::Refused(error),
            Ok(_) | Err(_) => Asked::Nothing,
        }
    }

    /// Ends what is read of members of which nothing is heard any more, as long as the node runs: others
    /// have the same.
    pub(crate) async fn keep_reads_moving(self) {
        let mut rest = tokio::time::interval(SILENCE_LOOKED_AT);
        rest.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while self.is_running() {
            rest.tick().await;
            let Some(links) = &self.inner.links else { return };
            for peer in links.others() {
                if !self.state_of(peer).is_heard() {
                    links.is_silent(peer);
                }
            }
        }
    }

    // What is read.

    /// A session's row and how far its group was applied where it was read, here or elsewhere.
    pub(super) async fn row(
        &self,
        deadline: Instant,
        wanted: Wanted<'_>,
    ) -> Result<(Option<SessionRow>, Index), ServiceError> {
        let group = wanted.path.group(self.inner.groups);
        let Some(links) = self.inner.links.as_ref().filter(|links| !links.is_local(group)) else {
            return self.row_here(deadline, wanted).await;
        };
        let read = wanted.read();
        row_of(self.read_elsewhere(links, group, deadline, &read).await?)
    }

    /// The same for an answer that needs nothing but the row. A replica that is behind says soon up to
    /// where it has to get, but not when it will: whoever has a newer one is asked meanwhile, and the
    /// first answer counts. Not for what goes on with the rows here, which may lack what the answer has.
    pub(super) async fn row_of_any(
        &self,
        deadline: Instant,
        wanted: Wanted<'_>,
    ) -> Result<(Option<SessionRow>, Index), ServiceError> {
        let own = self.row(deadline, wanted);
        tokio::pin!(own);
        let until = deadline.min(Instant::now() + BEHIND_AFTER);
        if let Ok(found) = tokio::time::timeout_at(until.into(), &mut own).await {
            return found;
        }
        let group = wanted.path.group(self.inner.groups);
        let links = self.inner.links.as_ref().filter(|links| {
            let is_heard = |peer: &PeerId| self.state_of(*peer).is_heard();
            links.is_local(group) && self.readers(links, group, None).iter().any(is_heard)
        });
        let Some(links) = links else { return own.await };
        let read = wanted.read();
        let mut elsewhere = Box::pin(self.read_elsewhere(links, group, deadline, &read));
        tokio::select! {
            found = &mut own => match found {
                Ok(found) => Ok(found),
                Err(_) => row_of(elsewhere.await?),
            },
            found = &mut elsewhere => match found.and_then(row_of) {
                Ok(found) => Ok(found),
                Err(_) => own.await,
            },
        }
    }

    async fn row_here(
        &self,
        deadline: Instant,
        wanted: Wanted<'_>,
    ) -> Result<(Option<SessionRow>, Index), ServiceError> {
        let Wanted { path, confirm, min_index } = wanted;
        let group = path.group(self.inner.groups);
        if let Some(index) = min_index {
            self.wait_applied(deadline, group, index).await?;
        }
        let mut index = self.inner.store.applied(group).index;
        if confirm {
            index = self.read_index(deadline, group).await?;
        }
        let row = self.find(path).await?;
        if row.is_some() || confirm {
            return Ok((row, index));
        }
        // Presence may be told from here; absence needs a round.
        index = self.read_index(deadline, group).await?;
        Ok((self.find(path).await?, index))
    }

    /// Confirms where a session ends, and tells its topic. Without patience, a group that has no
    /// leader is not waited for.
    pub(super) async fn look_confirmed(
        &self,
        deadline: Instant,
        path: &ResourcePath,
        member: &Membership,
        patient: bool,
    ) -> Result<Index, ServiceError> {
        let group = path.group(self.inner.groups);
        if !self.is_here(group) {
            let (row, index) = self.row(deadline, Wanted::confirmed(path)).await?;
            if let Some(row) = row {
                self.saw(member, &row).await;
            }
            return Ok(index);
        }
        let index = match patient {
            true => self.read_index(deadline, group).await?,
            false => self.read_index_once(deadline, group).await?,
        };
        self.look_again(path, member).await?;
        Ok(index)
    }

    /// Events of a session that is elsewhere, as [`Service::event_lines`] gives them.
    pub(super) async fn lines_elsewhere(
        &self,
        links: &Links,
        key: TopicKey,
        tenant: &Tenant,
        (after, upto): (Seq, Seq),
        (limit, bytes_max): (usize, usize),
    ) -> Result<Lines, ServiceError> {
        let most = upto.0.saturating_sub(after.0).min(limit as u64);
        let most = u16::try_from(most).unwrap_or(u16::MAX).min(tl_types::limits::PAGE_MAX as u16);
        if most == 0 {
            return Ok(Lines::Events(Vec::new()));
        }
        let read = Read::Lines {
            group: key.group,
            number: key.number,
            tenant: tenant.clone(),
            after,
            upto,
            limit: most,
            bytes_max: u32::try_from(bytes_max).unwrap_or(u32::MAX),
        };
        let deadline = Instant::now() + READ_WAIT_MAX;
        match self.read_elsewhere(links, key.group, deadline, &read).await? {
            Found::Lines(lines) => Ok(Lines::Events(read::numbered(after, lines))),
            Found::Gone(gap) => Ok(Lines::Gone(gap)),
            Found::Row { .. } | Found::Head { .. } | Found::List(_) | Found::Applied(_) => {
                Err(unexpected("events were asked for and something else was found"))
            }
        }
    }

    // Answering.

    /// Answers what another node reads of the rows here.
    pub(crate) async fn answer_read(&self, deadline: Instant, read: Read) -> PeerAnswer {
        let group = match &read {
            Read::Row { path, .. } | Read::Watch { path, .. } => {
                Some(path.group(self.inner.groups))
            }
            Read::Lines { group, .. } => Some(*group),
            Read::List { .. } | Read::Applied { .. } => None,
        };
        if group.is_some_and(|group| group.0 >= self.inner.groups || !self.is_here(group)) {
            return PeerAnswer::NotTaken { leader: None };
        }
        let found = match read {
            Read::Row { path, confirm, min_index } => {
                let wanted = Wanted { path: &path, confirm, min_index };
                let found = self.row_here(deadline, wanted).await;
                found.map(|(row, index)| Found::Row { index, row: row.map(Box::new) })
            }
            Read::Lines { group, number, tenant, after, upto, limit, bytes_max } => {
                let bounds = (usize::from(limit), read::page_bytes(bytes_max));
                let key = TopicKey { group, number };
                let mut lines = self.event_lines(key, &tenant, after, upto, bounds).await;
                if matches!(&lines, Err(error) if error.code == ErrorCode::SessionNotFound) {
                    // It is known elsewhere: either this replica lagged, or it is gone for good.
                    lines = match self.read_index(deadline, group).await {
                        Ok(_) => self.event_lines(key, &tenant, after, upto, bounds).await,
                        Err(error) => Err(error),
                    };
                }
                lines.map(|lines| match lines {
                    Lines::Events(lines) => Found::Lines(json_of(lines)),
                    Lines::Gone(gap) => Found::Gone(gap),
                })
            }
            Read::Watch { path, after } => self.watch_here(deadline, &path, after).await,
            Read::List { consistent, query, groups } => {
                self.parts_here(deadline, consistent, query, groups).await.map(Found::List)
            }
            Read::Applied { groups } => {
                Ok(Found::Applied(self.applied_of_led(deadline, groups).await))
            }
        };
        match found {
            Ok(found) => PeerAnswer::Found(found),
            Err(error) => PeerAnswer::Refused(error),
        }
    }

    /// Where a session ends, once that is behind `after`, or at the deadline.
    async fn watch_here(
        &self,
        deadline: Instant,
        path: &ResourcePath,
        after: Seq,
    ) -> Result<Found, ServiceError> {
        let (row, _) = self.row_here(deadline, Wanted::present(path)).await?;
        let Some(row) = row else {
            // It is known elsewhere, and confirmed to be gone with its rows.
            let ended = Some(TailEnd::Tombstoned);
            return Ok(Found::Head { last_seq: after, ended, lines: Vec::new() });
        };
        let group = path.group(self.inner.groups);
        let member = self.inner.hub.join(TopicKey { group, number: row.number });
        self.saw(&member, &row).await;
        loop {
            let wake = member.topic().wake();
            tokio::pin!(wake);
            wake.as_mut().enable();
            // What waits for its writer's reply here comes behind it elsewhere too.
            let sight = member.topic().sight();
            let ended = sight.ended.filter(|_| sight.visible == sight.head);
            let left = deadline.saturating_duration_since(Instant::now());
            if sight.visible > after || ended.is_some() || left.is_zero() {
                let lines = self.news(path, &member, after, sight.visible).await?;
                return Ok(Found::Head { last_seq: sight.visible, ended, lines });
            }
            if tokio::time::timeout(left.min(LOOK_AGAIN), wake).await.is_err() {
                member.topic().forget_recent();
                self.look_again(path, &member).await?;
            }
        }
    }

    /// The events behind a place, if they are few, read once for all that want them.
    async fn news(
        &self,
        path: &ResourcePath,
        member: &Membership,
        after: Seq,
        visible: Seq,
    ) -> Result<Vec<bytes::Bytes>, ServiceError> {
        let few = visible.0.saturating_sub(after.0) <= RECENT_EVENTS_MAX as u64 / 2;
        if visible <= after || !few {
            return Ok(Vec::new());
        }
        let (topic, bounds) = (member.topic(), (NEWS_EVENTS_MAX, NEWS_BYTES_MAX));
        let _reader = topic.fill.lock().await;
        let shared = topic.recent_after(after, visible, bounds);
        if !shared.is_empty() {
            return Ok(json_of(shared));
        }
        match self.event_lines(member.key(), &path.tenant, after, visible, bounds).await? {
            Lines::Events(lines) => {
                topic.share(&lines);
                Ok(json_of(lines))
            }
            // Whoever asks for these events is told.
            Lines::Gone(_) => Ok(Vec::new()),
        }
    }
}

/// What became of one question.
#[derive(Debug)]
pub(super) enum Asked {
    Found(Found),
    Refused(ServiceError),
    /// It was not sent, not taken, or not answered.
    Nothing,
}

/// Whether another member may answer otherwise: this one is away from the others, has too much to do,
/// or cannot read its rows.
fn is_of_that_member(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::RaftUnavailable
            | ErrorCode::RaftTimeout
            | ErrorCode::InternalError
            | ErrorCode::EventGapDetected
            | ErrorCode::EventStoreBackpressure
            | ErrorCode::TooManyTails
    )
}

/// Until when another node's read is worked on that waits so long for its answer.
pub(crate) fn served_until(wait_ms: u32) -> Instant {
    Instant::now() + Duration::from_millis(wait_ms.into()).min(SERVE_MAX)
}

/// The row that was asked for, and how far its group was applied there.
fn row_of(found: Found) -> Result<(Option<SessionRow>, Index), ServiceError> {
    match found {
        Found::Row { index, row } => Ok((row.map(|row| *row), index)),
        Found::Lines(_)
        | Found::Gone(_)
        | Found::Head { .. }
        | Found::List(_)
        | Found::Applied(_) => Err(unexpected("a row was asked for and something else was found")),
    }
}

fn json_of(lines: Vec<EventLine>) -> Vec<bytes::Bytes> {
    lines.into_iter().map(|line| line.json).collect()
}

/// No member with a copy of the group answers.
fn nobody(group: GroupId) -> ServiceError {
    ServiceError::new(
        ErrorCode::RaftUnavailable,
        format!("No member that has group {group} answers this node; repeat the request"),
    )
    .with("group", u64::from(group.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_member_is_asked_unless_the_answer_is_about_the_session() {
        let of_the_member: Vec<&str> = ErrorCode::ALL
            .iter()
            .filter(|code| is_of_that_member(**code))
            .map(|code| code.word())
            .collect();
        assert_eq!(of_the_member.len(), 6, "{of_the_member:?}");
        assert!(!is_of_that_member(ErrorCode::SessionTombstoned));
    }
}
