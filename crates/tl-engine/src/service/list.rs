//! Lists: every group gives its next rows, and the page is their merge.
//!
//! Ids of neighbours in the list lie in different groups, so each group is asked for a few rows
//! at a time and asked again when the merge has used them up. A page is bounded in rows and in
//! bytes; one that is cut short has a cursor like any other.
//!
//! Of groups that are elsewhere the first rows are asked for together, one question for each member;
//! the few that are needed further, and what a member left out, one by one. A replica that has stopped
//! counts as elsewhere, and so does one of which it is not known that it keeps up (see `fresh`): their
//! rows may be older than what was acknowledged.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tl_core::list::{ListPage, ListQuery, ListingFilter, page};
use tl_core::{Poison, SessionRow};
use tl_store::OrderedStore;
use tl_types::limits::PAGE_BYTES_MAX;
use tl_types::{ErrorCode, GroupId, SessionId};
use tl_wire::json::write::quoted;
use tl_wire::query::Listing;

use super::elsewhere::Asked;
use super::{Service, damage, unexpected};
use crate::api::{Caller, ListSessions, ServiceError, Session, SessionPage};
use crate::node::rows::BlockingRows;
use crate::peer::read::PARTS_BYTES_MAX;
use crate::peer::{Found, Read};

/// Rows that a group is asked for beyond its even share of the page.
const SHARE_MARGIN_ROWS: usize = 2;
/// Longest wait for a member's parts of a list before others are asked.
const PARTS_WITHIN: Duration = Duration::from_secs(2);
/// Lists that run at the same time on one node; further ones wait for their turn.
pub const LISTS_AT_ONCE_MAX: usize = 4;

impl<S: OrderedStore + 'static> Service<S> {
    /// One page of the caller's sessions in its namespace, by id.
    ///
    /// A create acknowledged by this node before the call is in it, one acknowledged by another node a
    /// second later at most. A selective filter may give a short page with a cursor.
    ///
    /// # Errors
    /// `raft_unavailable` when `consistent` was asked for and a group cannot confirm it, and when no
    /// replica of a group can be asked that is known to keep up.
    pub async fn list_sessions(
        &self,
        caller: &Caller,
        request: ListSessions,
    ) -> Result<SessionPage, ServiceError> {
        let consistent = request.freshness.consistent;
        let here = self.groups_listed_here(caller.deadline, consistent, self.groups_here()).await?;
        let limit = request.limit;
        let query = ListQuery {
            tenant: caller.principal.tenant.clone(),
            namespace: caller.namespace.clone(),
            after: request.cursor,
            limit,
            listing: match request.archived {
                Listing::Active => ListingFilter::Active,
                Listing::Archived => ListingFilter::Archived,
                Listing::All => ListingFilter::All,
            },
            metadata: request
                .metadata
                .iter()
                .map(|(name, text)| (quoted(name), quoted(text)))
                .collect(),
        };
        let groups = self.inner.groups;
        let deadline = caller.deadline;
        let turn = self.inner.lists.acquire();
        let turn = tokio::time::timeout_at(deadline.into(), turn).await;
        let Ok(Ok(_turn)) = turn else { return Err(overdue()) };
        let first = ListQuery { limit: share(groups, limit), ..query.clone() };
        let early = self.first_parts_elsewhere(deadline, consistent, &first, &here).await;
        let (service, runtime) = (self.clone(), tokio::runtime::Handle::current());
        let merged = self
            .beside(move || {
                let early = RefCell::new(early);
                let ask = |group: GroupId, after: Option<SessionId>, limit: usize| {
                    let is_first = after == query.after;
                    let query = ListQuery { after, limit, ..query.clone() };
                    if here.contains(&group) {
                        return service.part(group, &query).map_err(Failure::Rows);
                    }
                    let early = is_first.then(|| early.borrow_mut().remove(&group)).flatten();
                    if let Some(part) = early {
                        return Ok(part);
                    }
                    let asked = service.part_elsewhere(deadline, consistent, query, group);
                    runtime.block_on(asked).map_err(Failure::Elsewhere)
                };
                Merge::new(groups, limit, query.after.clone())
                    .run(ask, || Instant::now() >= deadline)
            })
            .await?;
        merged.map_err(|failure| match failure {
            Failure::Overdue => overdue(),
            Failure::Rows(poison) => damage(&poison.to_string()),
            Failure::Elsewhere(error) => error,
        })
    }

    /// Of groups with a copy here those whose parts are read here: it has not stopped, and is as new as
    /// is asked for.
    ///
    /// # Errors
    /// `raft_unavailable` when one has stopped and no other node has it, and when `consistent` was asked
    /// for and one cannot confirm it.
    async fn groups_listed_here(
        &self,
        deadline: Instant,
        consistent: bool,
        groups: Vec<GroupId>,
    ) -> Result<BTreeSet<GroupId>, ServiceError> {
        let mut here: BTreeSet<GroupId> = groups.into_iter().collect();
        for (group, _) in self.inner.background.stopped_groups() {
            if self.has_others() {
                here.remove(&group);
            } else {
                self.read_index(deadline, group).await?;
            }
        }
        if !consistent {
            return Ok(self.fresh(deadline, here).await);
        }
        for group in &here {
            self.read_index(deadline, *group).await?;
        }
        Ok(here)
    }

    /// A part of a group that is here. Blocking.
    fn part(&self, group: GroupId, query: &ListQuery) -> Result<ListPage, Poison> {
        let store = &*self.inner.store;
        let generation = store.applied(group).generation;
        page(&BlockingRows::new(store, group, generation), query)
    }

    /// The parts of groups that are here, for another node; those that find no room are left out, and
    /// those of groups that have stopped or are not known to keep up.
    pub(super) async fn parts_here(
        &self,
        deadline: Instant,
        consistent: bool,
        query: ListQuery,
        mut groups: Vec<GroupId>,
    ) -> Result<Vec<(GroupId, ListPage)>, ServiceError> {
        groups.retain(|group| group.0 < self.inner.groups && self.is_here(*group));
        let here = self.groups_listed_here(deadline, consistent, groups.clone()).await?;
        groups.retain(|group| here.contains(group));
        let service = self.clone();
        let read = move || {
            let (mut parts, mut room) = (Vec::new(), PARTS_BYTES_MAX);
            for group in groups {
                if room == 0 || Instant::now() >= deadline {
                    break;
                }
                let mut part = service.part(group, &query)?;
                room = room.saturating_sub(cut(&mut part, room));
                parts.push((group, part));
            }
            Ok(parts)
        };
        self.beside(read).await?.map_err(|poison: Poison| damage(&poison.to_string()))
    }

    /// The first parts of groups that are elsewhere, as far as the members that are asked first have
    /// them at once.
    async fn first_parts_elsewhere(
        &self,
        deadline: Instant,
        consistent: bool,
        query: &ListQuery,
        here: &BTreeSet<GroupId>,
    ) -> BTreeMap<GroupId, ListPage> {
        let mut early = BTreeMap::new();
        let Some(links) = &self.inner.links else { return early };
        let mut by_member: BTreeMap<_, Vec<GroupId>> = BTreeMap::new();
        for group in (0..self.inner.groups).map(GroupId).filter(|group| !here.contains(group)) {
            if let Some(peer) = self.readers(links, group, None).first() {
                by_member.entry(*peer).or_default().push(group);
            }
        }
        let within = PARTS_WITHIN.min(deadline.saturating_duration_since(Instant::now()));
        let mut asked = tokio::task::JoinSet::new();
        for (peer, groups) in by_member {
            let (service, links) = (self.clone(), Arc::clone(links));
            self.inner.metrics.reads_forwarded.inc();
            let read = Read::List { consistent, query: query.clone(), groups };
            asked.spawn(async move { service.ask_reader(&links, peer, within, &read).await });
        }
        while let Some(answer) = asked.join_next().await {
            // Of whom nothing comes, the groups are asked for elsewhere.
            if let Ok(Asked::Found(Found::List(parts))) = answer {
                early.extend(parts);
            }
        }
        early
    }

    async fn part_elsewhere(
        &self,
        deadline: Instant,
        consistent: bool,
        query: ListQuery,
        group: GroupId,
    ) -> Result<ListPage, ServiceError> {
        let links = self.inner.links.as_ref().expect("a group is elsewhere only with others");
        let read = Read::List { consistent, query, groups: vec![group] };
        match self.read_elsewhere(links, group, deadline, &read).await? {
            Found::List(parts) => {
                let mut parts = parts.into_iter().filter(|(of, _)| *of == group);
                let part = parts.next().ok_or_else(|| unexpected("a list of another group"))?;
                Ok(part.1)
            }
            Found::Row { .. }
            | Found::Lines(_)
            | Found::Gone(_)
            | Found::Head { .. }
            | Found::Applied(_) => {
                Err(unexpected("a list was asked for and something else was found"))
            }
        }
    }
}

/// Cuts a part so that it takes about so many bytes, at least one row; says how many it takes.
fn cut(part: &mut ListPage, bytes_max: usize) -> usize {
    let mut bytes = 0;
    let fits = part.sessions.iter().take_while(|row| {
        let has_room = bytes < bytes_max;
        if has_room {
            bytes += row.header.metadata.encoded().len() + ROW_BYTES;
        }
        has_room
    });
    let fits = fits.count();
    if fits < part.sessions.len() {
        part.sessions.truncate(fits);
        part.resume_after = part.sessions.last().map(|row| row.path.name.clone());
    }
    bytes
}

/// Rows that each group is asked for at a time.
fn share(groups: u16, limit: usize) -> usize {
    limit.div_ceil(usize::from(groups)) + SHARE_MARGIN_ROWS
}

fn overdue() -> ServiceError {
    ServiceError::new(
        ErrorCode::RaftUnavailable,
        "The list could not be read in time; ask for a smaller page",
    )
}

/// Why a page could not be made.
#[derive(Debug)]
enum Failure {
    Overdue,
    Rows(Poison),
    Elsewhere(ServiceError),
}

/// The rest of one group's part of the list.
#[derive(Debug)]
struct Part {
    group: GroupId,
    rows: VecDeque<SessionRow>,
    /// Where the group goes on; `None` when it has no more.
    resume_after: Option<SessionId>,
}

/// A merge under way.
#[derive(Debug)]
struct Merge {
    limit: usize,
    share: usize,
    after: Option<SessionId>,
    groups: u16,
}

impl Merge {
    fn new(groups: u16, limit: usize, after: Option<SessionId>) -> Merge {
        Merge { limit, share: share(groups, limit), after, groups }
    }

    /// Takes the smallest id of all parts until the page is full.
    ///
    /// A part that was asked and gave nothing although it goes on has looked at as many rows as
    /// it may; nothing behind that place can be shown, so the page ends there.
    fn run(
        self,
        ask: impl Fn(GroupId, Option<SessionId>, usize) -> Result<ListPage, Failure>,
        overdue: impl Fn() -> bool,
    ) -> Result<SessionPage, Failure> {
        let fill = |group, after| {
            if overdue() {
                return Err(Failure::Overdue);
            }
            let ListPage { sessions, resume_after } = ask(group, after, self.share)?;
            Ok(Part { group, rows: sessions.into(), resume_after })
        };
        let mut parts = Parts::default();
        for group in (0..self.groups).map(GroupId) {
            parts.put(fill(group, self.after.clone())?);
        }
        let (mut sessions, mut bytes) = (Vec::new(), 0);
        while let Some((id, mut part)) = parts.by_first_id.pop_first() {
            let Some(row) = part.rows.pop_front() else { continue };
            bytes += row.header.metadata.encoded().len() + ROW_BYTES;
            sessions.push((id.clone(), row));
            if part.rows.is_empty() && part.resume_after.is_some() {
                part = fill(part.group, part.resume_after)?;
            }
            parts.put(part);
            if sessions.len() == self.limit || bytes >= PAGE_BYTES_MAX {
                break;
            }
        }
        let Parts { by_first_id, horizon } = parts;
        let behind = by_first_id.into_keys().next();
        if let Some(horizon) = &horizon {
            sessions.retain(|(id, _)| id <= horizon);
        }
        let last = sessions.last().map(|(id, _)| id.clone());
        let next = match (behind, horizon) {
            // The page is full, or the place where a group stopped looking comes first.
            (Some(behind), Some(horizon)) if horizon < behind => Some(horizon),
            (Some(_), _) => last,
            (None, horizon) => horizon,
        };
        Ok(SessionPage {
            sessions: sessions.into_iter().map(|(_, row)| Session(Box::new(row))).collect(),
            next_cursor: next.map(|id| id.to_string()),
        })
    }
}

/// The parts of a merge.
#[derive(Debug, Default)]
struct Parts {
    /// Parts with rows by their first id, which is unique: a name lives in one group only.
    by_first_id: BTreeMap<SessionId, Part>,
    /// The first place behind which some group has not looked.
    horizon: Option<SessionId>,
}

impl Parts {
    fn put(&mut self, part: Part) {
        if let Some(row) = part.rows.front() {
            self.by_first_id.insert(row.path.name.clone(), part);
        } else if let Some(end) = part.resume_after {
            self.horizon = Some(match self.horizon.take() {
                Some(least) => least.min(end),
                None => end,
            });
        }
    }
}

/// What a row takes in a page beside its metadata, roughly.
const ROW_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use tl_core::{Metadata, SessionHeader};
    use tl_types::{Namespace, ResourceNumber, ResourcePath, Tenant};

    fn id(text: &str) -> SessionId {
        SessionId::new(text).expect("id")
    }

    fn row(name: &str, metadata_bytes: usize) -> SessionRow {
        let tenant = Tenant::new("t").expect("tenant");
        let value = format!("\"{}\"", "x".repeat(metadata_bytes));
        let metadata = Metadata::new(&[("\"k\"".into(), value.into())]);
        SessionRow {
            path: ResourcePath::session(tenant, Namespace::default_namespace(), id(name)),
            number: ResourceNumber(1),
            header: SessionHeader { metadata, ..SessionHeader::default() },
        }
    }

    /// Pages through groups that hold these ids and look at most `examined` rows per question;
    /// ids in capitals do not match the filter.
    fn pages(groups: &[&str], limit: usize, examined: usize, metadata_bytes: usize) -> String {
        let ask = |group: GroupId, after: Option<SessionId>, limit: usize| {
            let names: Vec<&str> = groups[usize::from(group.0)].split(' ').collect();
            let rest =
                names.iter().filter(|name| after.as_ref().is_none_or(|a| **name > a.as_str()));
            let (mut sessions, mut resume_after, mut looked) = (Vec::new(), None, 0);
            for name in rest {
                if looked == examined || sessions.len() == limit {
                    return Ok(ListPage { sessions, resume_after });
                }
                looked += 1;
                if !name.ends_with('!') {
                    sessions.push(row(name, metadata_bytes));
                }
                resume_after = Some(id(name));
            }
            Ok(ListPage { sessions, resume_after: None })
        };
        let (mut out, mut after) = (Vec::new(), None);
        loop {
            let merge = Merge::new(groups.len() as u16, limit, after.take());
            let page = merge.run(ask, || false).expect("rows are read");
            let names: Vec<&str> = page.sessions.iter().map(|s| s.0.path.name.as_str()).collect();
            out.push(names.join(""));
            match page.next_cursor {
                Some(cursor) => after = Some(id(&cursor)),
                None => return out.join("|"),
            }
        }
    }

    #[test]
    fn pages_are_merged_by_id_and_each_session_is_shown_once() {
        assert_eq!(pages(&["b d f", "a c e"], 4, 100, 0), "abcd|ef");
        assert_eq!(pages(&["a b c d e f g", "h"], 3, 100, 0), "abc|def|gh");
        assert_eq!(pages(&["b", "a"], 2, 100, 0), "ab");
    }

    #[test]
    fn nothing_is_shown_behind_a_place_where_a_group_has_not_looked_yet() {
        assert_eq!(pages(&["b! c! d! e! f", "a g"], 10, 2, 0), "a||fg");
        assert_eq!(pages(&["m! n! o! p", "a b c"], 2, 1, 0), "ab|c|||p");
    }

    #[test]
    fn a_page_ends_with_the_session_that_reaches_its_bytes() {
        let half = PAGE_BYTES_MAX / 2;
        assert_eq!(pages(&["a c e", "b d"], 10, 100, half), "ab|cd|e");
        assert_eq!(pages(&["a c", "b"], 10, 100, half - 2 * ROW_BYTES), "abc");
    }

    #[test]
    fn a_part_that_takes_too_many_bytes_goes_on_behind_its_last_row() {
        let sessions = vec![row("a", 0), row("b", 0), row("c", 0)];
        let row_bytes = ROW_BYTES + sessions[0].header.metadata.encoded().len();
        let whole = ListPage { sessions, resume_after: None };
        let after = |bytes_max| {
            let mut part = whole.clone();
            let bytes = cut(&mut part, bytes_max);
            assert_eq!(bytes, part.sessions.len() * row_bytes);
            (part.sessions.len(), part.resume_after.map(|id| id.to_string()))
        };
        assert_eq!(after(3 * row_bytes), (3, None));
        assert_eq!(after(2 * row_bytes + 1), (3, None), "the row that reaches the limit goes");
        assert_eq!(after(2 * row_bytes), (2, Some("b".to_owned())));
        assert_eq!(after(1), (1, Some("a".to_owned())), "one row always goes");
    }

    #[test]
    fn a_list_past_its_deadline_ends() {
        let ask = |_, _, _| Ok(ListPage::default());
        let ended = Merge::new(2, 1, None).run(ask, || true);
        assert!(matches!(ended, Err(Failure::Overdue)));
    }
}
