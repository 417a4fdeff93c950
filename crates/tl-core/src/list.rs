//! One group's part of a list: sessions of a namespace by id, filtered.
//!
//! The directory is the index. A page looks at a bounded number of rows, so a selective filter
//! may give a short page with a place to go on from. Whoever merges the groups' parts must not
//! go past the smallest `resume_after` among them: behind it that group has not looked yet.

use tl_types::limits::LIST_ROWS_EXAMINED_MAX;
use tl_types::{Kind, Namespace, ResourcePath, RowKey, SessionId, Tenant};

use crate::metadata::Member;
use crate::rows::{Poison, Rows};
use crate::session::directory::DirectoryRow;
use crate::session::{Listing, SessionRow, SessionState, load_header};
use crate::view::View;

/// Directory rows asked for in one step.
const STEP_ROWS: usize = 256;

/// Which sessions to list by their archived flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ListingFilter {
    /// Those not hidden.
    #[default]
    Active,
    /// Those hidden.
    Archived,
    /// Both.
    All,
}

/// What to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListQuery {
    /// Owner.
    pub tenant: Tenant,
    /// Folder.
    pub namespace: Namespace,
    /// Only ids greater than this one, in byte order.
    pub after: Option<SessionId>,
    /// Most sessions.
    pub limit: usize,
    /// By archived flag.
    pub listing: ListingFilter,
    /// Metadata members that must be there, name and value as raw compact JSON; all of them.
    pub metadata: Vec<Member>,
}

/// One group's part of a page.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListPage {
    /// Matching sessions by id; deleted ones are absent.
    pub sessions: Vec<SessionRow>,
    /// Go on after this id; `None` when the group has no more.
    pub resume_after: Option<SessionId>,
}

/// One group's next matching sessions.
///
/// # Errors
/// [`Poison`] when a row was cold or damaged.
pub fn page(rows: &dyn Rows, query: &ListQuery) -> Result<ListPage, Poison> {
    page_examining(rows, query, LIST_ROWS_EXAMINED_MAX)
}

fn page_examining(
    rows: &dyn Rows,
    query: &ListQuery,
    examined_max: usize,
) -> Result<ListPage, Poison> {
    View::read(rows, |view| scan(view, query, examined_max))
}

fn scan(view: &mut View<'_>, query: &ListQuery, examined_max: usize) -> ListPage {
    let (tenant, namespace) = (query.tenant.as_str(), query.namespace.as_str());
    let prefix = RowKey::directory_prefix(Kind::Session, tenant, namespace);
    let end = prefix.prefix_end();
    // Ids hold no zero byte, so an id with one behind it stands right after the id.
    let behind = |id: &SessionId| prefix.with(id.as_str().as_bytes()).with(&[0]);
    let mut start = query.after.as_ref().map_or_else(|| prefix.clone(), behind);
    let mut page = ListPage::default();
    let mut examined = 0;
    while page.sessions.len() < query.limit && examined < examined_max {
        let wanted = if query.metadata.is_empty() {
            // Few directory rows are passed over, so little more than what is wanted is read.
            query.limit - page.sessions.len() + 1
        } else {
            STEP_ROWS
        };
        let step = wanted.min(STEP_ROWS).min(examined_max - examined);
        let found = view.range(&start, &end, step);
        let is_last = found.len() < step;
        for (key, value) in found {
            let Some(id) = id_of(&key, &prefix) else {
                view.damaged("a directory key holds no session id".into());
                return page;
            };
            if page.sessions.len() == query.limit {
                return page;
            }
            examined += 1;
            match DirectoryRow::decode(&value) {
                Ok(row) => page.sessions.extend(matching(view, query, &id, row)),
                Err(error) => view.damaged(format!("directory row of {id}: {error}")),
            }
            start = behind(&id);
            page.resume_after = Some(id);
        }
        if is_last {
            page.resume_after = None;
            return page;
        }
        if view.poison().is_some() {
            return page;
        }
    }
    page
}

fn id_of(key: &RowKey, prefix: &RowKey) -> Option<SessionId> {
    let name = key.as_bytes().strip_prefix(prefix.as_bytes())?;
    SessionId::new(std::str::from_utf8(name).ok()?)
}

fn matching(
    view: &mut View<'_>,
    query: &ListQuery,
    id: &SessionId,
    row: DirectoryRow,
) -> Option<SessionRow> {
    let listed = match query.listing {
        ListingFilter::Active => row.listing == Listing::Active,
        ListingFilter::Archived => row.listing == Listing::Archived,
        ListingFilter::All => true,
    };
    if !listed || row.state == SessionState::Tombstoned {
        return None;
    }
    let Some(header) = load_header(view, row.number) else {
        view.damaged(format!("session {} is in the directory but has no header", row.number));
        return None;
    };
    let has = |(name, value): &Member| header.metadata.has(name, value);
    if !query.metadata.iter().all(has) {
        return None;
    }
    let path = ResourcePath::session(query.tenant.clone(), query.namespace.clone(), id.clone());
    Some(SessionRow { path, number: row.number, header })
}

#[cfg(test)]
mod tests;
