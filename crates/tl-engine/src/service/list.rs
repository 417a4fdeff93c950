//! Lists: every group gives its next rows, and the page is their merge.

use std::sync::Arc;

use tl_core::list::{ListPage, ListQuery, ListingFilter, page};
use tl_store::OrderedStore;
use tl_types::{GroupId, SessionId};
use tl_wire::json::write::quoted;
use tl_wire::query::Listing;

use super::{Service, blocking, damage};
use crate::api::{Caller, ListSessions, ServiceError, Session, SessionPage};
use crate::node::rows::BlockingRows;

impl<S: OrderedStore + 'static> Service<S> {
    /// One page of the caller's sessions in its namespace, by id.
    ///
    /// A create acknowledged by this node before the call is in it. A selective filter may give
    /// a short page with a cursor.
    ///
    /// # Errors
    /// `raft_unavailable` when `consistent` was asked for and a group cannot confirm it.
    pub async fn list_sessions(
        &self,
        caller: &Caller,
        request: ListSessions,
    ) -> Result<SessionPage, ServiceError> {
        if request.freshness.consistent {
            for group in (0..self.inner.groups).map(GroupId) {
                self.read_index(caller.deadline, group).await?;
            }
        }
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
        let (store, groups) = (Arc::clone(&self.inner.store), self.inner.groups);
        let parts = blocking(move || {
            (0..groups)
                .map(GroupId)
                .map(|group| {
                    let generation = store.applied(group).generation;
                    page(&BlockingRows::new(&*store, group, generation), &query)
                })
                .collect::<Result<Vec<ListPage>, _>>()
        })
        .await?
        .map_err(|poison| damage(&poison.to_string()))?;
        Ok(merge(parts, limit))
    }
}

/// The first `limit` rows of all parts by id, no further than the least of the places where a
/// part has stopped looking.
fn merge(parts: Vec<ListPage>, limit: usize) -> SessionPage {
    let horizon: Option<SessionId> =
        parts.iter().filter_map(|part| part.resume_after.clone()).min();
    let mut sessions: Vec<_> = parts.into_iter().flat_map(|part| part.sessions).collect();
    sessions.sort_unstable_by(|a, b| a.path.name.cmp(&b.path.name));
    if let Some(horizon) = &horizon {
        sessions.retain(|row| row.path.name <= *horizon);
    }
    let next = if sessions.len() > limit {
        sessions.truncate(limit);
        sessions.last().map(|row| row.path.name.clone())
    } else {
        horizon
    };
    SessionPage {
        sessions: sessions.into_iter().map(|row| Session(Box::new(row))).collect(),
        next_cursor: next.map(|id| id.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tl_core::{SessionHeader, SessionRow};
    use tl_types::{Namespace, ResourceNumber, ResourcePath, Tenant};

    fn part(ids: &[&str], resume_after: Option<&str>) -> ListPage {
        let id = |id: &str| SessionId::new(id).expect("id");
        let tenant = Tenant::new("t").expect("tenant");
        let row = |name: &&str| SessionRow {
            path: ResourcePath::session(tenant.clone(), Namespace::default_namespace(), id(name)),
            number: ResourceNumber(1),
            header: SessionHeader::default(),
        };
        ListPage { sessions: ids.iter().map(row).collect(), resume_after: resume_after.map(id) }
    }

    fn seen(page: &SessionPage) -> (Vec<&str>, Option<&str>) {
        let ids = page.sessions.iter().map(|session| session.0.path.name.as_str()).collect();
        (ids, page.next_cursor.as_deref())
    }

    #[test]
    fn parts_are_merged_by_id_and_the_cursor_is_the_last_one_shown() {
        let page = merge(vec![part(&["b", "d"], None), part(&["a", "c"], None)], 3);
        assert_eq!(seen(&page), (vec!["a", "b", "c"], Some("c")));
        let page = merge(vec![part(&["b"], None), part(&["a"], None)], 2);
        assert_eq!(seen(&page), (vec!["a", "b"], None));
    }

    #[test]
    fn nothing_is_shown_behind_a_place_where_a_group_has_not_looked_yet() {
        let page = merge(vec![part(&["a", "x"], None), part(&["b"], Some("k"))], 10);
        assert_eq!(seen(&page), (vec!["a", "b"], Some("k")));
        let page = merge(vec![part(&[], Some("k")), part(&["z"], None)], 10);
        assert_eq!(seen(&page), (vec![], Some("k")));
    }
}
