//! The query of a list of sessions.

use tl_types::{ErrorCode, SessionId};

use super::decode::{Value, pairs};
use super::{Freshness, page_limit};
use crate::error::WireError;

/// Which sessions a list shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Listing {
    /// `archived=false`, or nothing said.
    #[default]
    Active,
    /// `archived=true`.
    Archived,
    /// `archived=all`.
    All,
}

/// Query of a list of sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListQuery {
    /// Most rows in the page.
    pub limit: usize,
    /// Ids behind this one.
    pub cursor: Option<SessionId>,
    /// Which sessions.
    pub archived: Listing,
    /// Name and text, each once, sorted by name: a session is shown when its metadata has every
    /// name with exactly that string. Compare with [`Members`](crate::session::Members) by way
    /// of [`quoted`](crate::json::write::quoted).
    pub metadata: Vec<(String, String)>,
    /// How fresh the list must be.
    pub freshness: Freshness,
}

impl ListQuery {
    /// Reads a query. `metadata.key=v` and `metadata[key]=v` are the same filter, and the first
    /// form wins where both name a key; a filter without a key in the first form is dropped.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidLimit`], [`ErrorCode::InvalidCursor`],
    /// [`ErrorCode::InvalidListQuery`] for `archived` and freshness,
    /// [`ErrorCode::InvalidMetadata`] for a filter that is not one key and one text.
    pub fn parse(query: &str) -> Result<ListQuery, WireError> {
        let mut freshness = Freshness::default();
        let (mut limit, mut cursor, mut archived) = (None, None, None);
        let (mut dotted, mut nested) = (Filters::default(), Filters::default());
        for pair in pairs(query) {
            match &*pair.name {
                "limit" => limit = Some(pair.value),
                "cursor" => cursor = Some(pair.value),
                "archived" => archived = Some(pair.value),
                name => {
                    if let Some(key) = name.strip_prefix("metadata.") {
                        if !key.is_empty()
                            && let Some(text) = pair.value
                        {
                            dotted.put(key, text);
                        }
                    } else if let Some(key) = nested_key(name) {
                        let (Some(key), Some(text)) = (key, pair.value) else {
                            return Err(bad_filter());
                        };
                        nested.put(key, text);
                    } else {
                        freshness.take(name, &pair.value, ErrorCode::InvalidListQuery)?;
                    }
                }
            }
        }
        for (key, text) in dotted.0 {
            nested.put(&key, text);
        }
        let mut metadata = nested.0;
        metadata.sort_unstable();
        Ok(ListQuery {
            limit: page_limit(limit)?,
            cursor: cursor.map(|value| list_cursor(&value)).transpose()?,
            archived: archived.map_or(Ok(Listing::Active), |value| listing(&value))?,
            metadata,
            freshness,
        })
    }
}

/// Filters with each key once. Few, since a request target is short.
#[derive(Default)]
struct Filters(Vec<(String, String)>);

impl Filters {
    fn put(&mut self, key: &str, text: String) {
        match self.0.iter_mut().find(|(name, _)| name == key) {
            Some((_, old)) => *old = text,
            None => self.0.push((key.to_owned(), text)),
        }
    }
}

/// `None` for another parameter; `Some(None)` for one that starts like a filter and is none.
fn nested_key(name: &str) -> Option<Option<&str>> {
    let rest = name.strip_prefix("metadata")?;
    if rest.is_empty() {
        return Some(None);
    }
    let rest = rest.strip_prefix('[')?;
    let key = rest.strip_suffix(']').filter(|key| !key.is_empty() && !key.contains(['[', ']']));
    Some(key)
}

fn bad_filter() -> WireError {
    WireError::new(
        ErrorCode::InvalidMetadata,
        "A metadata filter is one key and one text: metadata.key=text or metadata[key]=text",
    )
}

fn list_cursor(value: &Value) -> Result<SessionId, WireError> {
    value.as_deref().and_then(SessionId::new).ok_or_else(|| {
        WireError::new(
            ErrorCode::InvalidCursor,
            "cursor must be the next_cursor of the page before, or be left out",
        )
    })
}

fn listing(value: &Value) -> Result<Listing, WireError> {
    match value.as_deref() {
        Some("false") => Ok(Listing::Active),
        Some("true") => Ok(Listing::Archived),
        Some("all") => Ok(Listing::All),
        Some(_) | None => {
            Err(WireError::new(ErrorCode::InvalidListQuery, "archived must be false, true or all"))
        }
    }
}
