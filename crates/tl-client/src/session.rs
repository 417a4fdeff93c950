//! Session rows and the requests that make or change them.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// A session as the server describes it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Session {
    /// Its id.
    pub id: String,
    /// Its title.
    pub title: Option<String>,
    /// Its metadata, a JSON object as stored.
    pub metadata: Box<RawValue>,
    /// Who made it, as the server wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creator_principal: Option<Box<RawValue>>,
    /// When it was made, RFC 3339.
    pub created_at: String,
    /// When its header last changed, RFC 3339.
    pub updated_at: String,
    /// Counter of its header, for `expected_version`.
    #[serde(default)]
    pub version: u64,
    /// Whether default lists leave it out.
    #[serde(default)]
    pub archived: bool,
    /// `active`, `closed` or `tombstoned`.
    #[serde(default)]
    pub state: String,
    /// Position of its last event; 0 while it has none.
    #[serde(default)]
    pub last_seq: u64,
    /// All events up to here are in the archive.
    #[serde(default)]
    pub archived_seq: u64,
    /// Owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<String>,
}

/// A session to be made.
#[derive(Debug, Clone, Default, Serialize)]
pub struct CreateSession {
    /// Its id; the server makes one when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its title.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Its metadata, a JSON object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Box<RawValue>>,
}

impl CreateSession {
    /// A session with an id and nothing else.
    #[must_use]
    pub fn with_id(id: &str) -> CreateSession {
        CreateSession { id: Some(id.to_owned()), ..CreateSession::default() }
    }
}

/// A change of a session's header. Metadata members are merged over the stored ones.
#[derive(Debug, Clone, Default, Serialize)]
pub struct PatchSession {
    /// The new title; `Some(None)` takes it away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<Option<String>>,
    /// Metadata members to set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Map<String, Value>>,
    /// Change only if the header is at this version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_version: Option<u64>,
}

/// Which sessions to list.
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    /// Most rows in the page; the server's default when absent.
    pub limit: Option<u32>,
    /// List ids after this one.
    pub cursor: Option<String>,
    /// Metadata members that must be equal.
    pub metadata: Vec<(String, String)>,
    /// `false`, `true` or `all`; only active ones when absent.
    pub archived: Option<String>,
    /// As new as every acknowledged write, also of other nodes; otherwise what other nodes took shows
    /// within a second.
    pub consistent: bool,
}

/// One page of a list.
#[derive(Debug, Clone, Deserialize)]
pub struct SessionPage {
    /// The rows, by id.
    pub sessions: Vec<Session>,
    /// Where the next page starts; absent at the end.
    pub next_cursor: Option<String>,
}

impl ListQuery {
    /// The query string, with its `?`; empty when nothing is asked.
    pub(crate) fn to_query(&self) -> String {
        let mut pairs: Vec<(String, String)> = Vec::new();
        if let Some(limit) = self.limit {
            pairs.push(("limit".into(), limit.to_string()));
        }
        if let Some(cursor) = &self.cursor {
            pairs.push(("cursor".into(), cursor.clone()));
        }
        if let Some(archived) = &self.archived {
            pairs.push(("archived".into(), archived.clone()));
        }
        if self.consistent {
            pairs.push(("consistent".into(), "true".into()));
        }
        for (name, value) in &self.metadata {
            pairs.push((format!("metadata.{name}"), value.clone()));
        }
        let pairs: Vec<String> = pairs
            .iter()
            .map(|(name, value)| format!("{}={}", percent(name), percent(value)))
            .collect();
        if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
    }
}

/// Percent-encodes everything but letters, digits and `-_.~`.
pub(crate) fn percent(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_queries_are_percent_encoded() {
        let query = ListQuery {
            limit: Some(20),
            cursor: Some("a/ü".into()),
            metadata: vec![("team a".into(), "x&y".into())],
            archived: Some("all".into()),
            consistent: true,
        };
        assert_eq!(
            query.to_query(),
            "?limit=20&cursor=a%2F%C3%BC&archived=all&consistent=true&metadata.team%20a=x%26y"
        );
        assert_eq!(ListQuery::default().to_query(), "");
    }

    #[test]
    fn a_patch_tells_no_title_from_an_unchanged_one() {
        let patch = PatchSession { title: Some(None), ..PatchSession::default() };
        assert_eq!(serde_json::to_string(&patch).expect("json"), r#"{"title":null}"#);
        assert_eq!(serde_json::to_string(&PatchSession::default()).expect("json"), "{}");
    }
}
