//! Bodies that create and change sessions.

#[cfg(test)]
mod tests;

use bytes::Bytes;
use tl_types::limits::{BODY_BYTES_MAX, METADATA_BYTES_MAX, TITLE_BYTES_MAX};
use tl_types::{ErrorCode, SessionId};

use crate::append::whole_number;
use crate::error::WireError;
use crate::json::{JsonError, Kind, Node, Scanner, write};

/// Metadata of a session, member by member: raw name with its quotes, raw compact value.
///
/// Names, and values that are strings, stand in one spelling ([`write::string`]), so that equal
/// names and equal texts have equal bytes: merging and filtering compare bytes. Other values
/// stand as sent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Members(pub Vec<(Bytes, Bytes)>);

impl Members {
    /// Size as a compact object, braces included.
    #[must_use]
    pub fn object_bytes(&self) -> usize {
        let members: usize = self.0.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
        // Each member has a colon and a comma, but the last has no comma.
        2 + members - usize::from(!self.0.is_empty())
    }
}

/// A request to create a session.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CreateRequest {
    /// The id, or `None` to have one made.
    pub id: Option<SessionId>,
    /// Title; the empty one is kept.
    pub title: Option<String>,
    /// Metadata.
    pub metadata: Members,
}

/// A request to change a session's header.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PatchRequest {
    /// `Some(None)` takes the title away.
    pub title: Option<Option<String>>,
    /// Members to merge over the session's own.
    pub metadata: Option<Members>,
    /// Change only if the header has this version.
    pub expected_version: Option<u64>,
}

impl CreateRequest {
    /// Reads a body; an empty one asks for defaults. Unknown fields are ignored, the creator
    /// among them: it comes from the token.
    ///
    /// # Errors
    /// [`WireError`] naming the field at fault.
    pub fn parse(body: &[u8]) -> Result<CreateRequest, WireError> {
        if body.is_empty() {
            return Ok(CreateRequest::default());
        }
        let mut scanner = scanner(body)?;
        let fields = Fields::scan(&mut scanner)?;
        scanner.finish()?;
        fields.create(&scanner)
    }
}

impl PatchRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// [`WireError`] naming the field at fault; [`ErrorCode::InvalidSession`] when the body
    /// changes nothing.
    pub fn parse(body: &[u8]) -> Result<PatchRequest, WireError> {
        if body.is_empty() {
            return Err(nothing_to_change());
        }
        let mut scanner = scanner(body)?;
        let fields = Fields::scan(&mut scanner)?;
        scanner.finish()?;
        fields.patch(&scanner)
    }
}

fn scanner(body: &[u8]) -> Result<Scanner<'_>, WireError> {
    if body.len() > BODY_BYTES_MAX {
        return Err(WireError::too_large("the body", "bytes", BODY_BYTES_MAX, body.len()));
    }
    Ok(Scanner::new(body))
}

fn nothing_to_change() -> WireError {
    WireError::new(
        ErrorCode::InvalidSession,
        "The body changes nothing: send title, or metadata with at least one member",
    )
}

/// Where the fields of a session body stand in the compact output.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    is_object: bool,
    id: Option<Node>,
    title: Option<Node>,
    metadata: Option<Metadata>,
    expected_version: Option<Node>,
}

#[derive(Debug)]
struct Metadata {
    kind: Kind,
    members: Members,
}

impl Fields {
    /// Reads one session object.
    pub(crate) fn scan(scanner: &mut Scanner<'_>) -> Result<Fields, JsonError> {
        let mut fields = Fields::default();
        if scanner.peek_kind()? != Kind::Object {
            scanner.value()?;
            return Ok(fields);
        }
        fields.is_object = true;
        let mut object = scanner.begin_object()?;
        while let Some(key) = scanner.next_key(&mut object)? {
            match &*scanner.name(&key) {
                b"id" => fields.id = Some(scanner.value()?),
                b"title" => fields.title = Some(scanner.value()?),
                b"metadata" => fields.metadata = Some(metadata(scanner)?),
                b"expected_version" => fields.expected_version = Some(scanner.value()?),
                _ => drop(scanner.value()?),
            }
        }
        Ok(fields)
    }

    /// Judges the fields as a request to create.
    pub(crate) fn create(self, scanner: &Scanner<'_>) -> Result<CreateRequest, WireError> {
        self.check_object()?;
        let id = match self.id {
            None => None,
            Some(node) if node.kind == Kind::Null => None,
            Some(node) => Some(session_id(scanner, &node)?),
        };
        let title = match self.title {
            None => None,
            Some(node) => title(scanner, &node, ErrorCode::InvalidEvent)?,
        };
        let metadata = match self.metadata {
            None => Members::default(),
            Some(metadata) if metadata.kind == Kind::Null => Members::default(),
            Some(metadata) => metadata.check()?,
        };
        Ok(CreateRequest { id, title, metadata })
    }

    fn patch(self, scanner: &Scanner<'_>) -> Result<PatchRequest, WireError> {
        self.check_object()?;
        let title = match self.title {
            None => None,
            Some(node) => Some(title(scanner, &node, ErrorCode::InvalidSession)?),
        };
        let metadata = self.metadata.map(Metadata::check).transpose()?;
        let expected_version = match self.expected_version {
            None => None,
            Some(node) if node.kind == Kind::Null => None,
            Some(node) => Some(version(scanner, &node)?),
        };
        if title.is_none() && metadata.as_ref().is_none_or(|members| members.0.is_empty()) {
            return Err(nothing_to_change());
        }
        Ok(PatchRequest { title, metadata, expected_version })
    }

    fn check_object(&self) -> Result<(), WireError> {
        if self.is_object {
            return Ok(());
        }
        Err(WireError::new(ErrorCode::InvalidSession, "The body must be a JSON object"))
    }
}

impl Metadata {
    fn check(self) -> Result<Members, WireError> {
        if self.kind != Kind::Object {
            return Err(WireError::new(
                ErrorCode::InvalidMetadata,
                "metadata must be a JSON object, or be left out",
            ));
        }
        let bytes = self.members.object_bytes();
        if bytes > METADATA_BYTES_MAX {
            return Err(WireError::too_large("metadata", "bytes", METADATA_BYTES_MAX, bytes));
        }
        Ok(self.members)
    }
}

/// Reads metadata of a session. Members are copied, so that no session keeps a whole body alive;
/// once they pass the limit no more are kept.
fn metadata(scanner: &mut Scanner<'_>) -> Result<Metadata, JsonError> {
    let kind = scanner.peek_kind()?;
    let mut members = Members::default();
    if kind != Kind::Object {
        scanner.value()?;
        return Ok(Metadata { kind, members });
    }
    let mut bytes = 0;
    let mut object = scanner.begin_object()?;
    while let Some(key) = scanner.next_key(&mut object)? {
        let name = one_spelling(&scanner.name(&key));
        let value = scanner.value()?;
        let value = match value.kind {
            Kind::String => one_spelling(&scanner.text(&value)),
            Kind::Null | Kind::Bool | Kind::Number | Kind::Array | Kind::Object => {
                Bytes::copy_from_slice(scanner.raw(&value))
            }
        };
        // One member past the limit is enough to be refused.
        if bytes <= METADATA_BYTES_MAX {
            bytes += name.len() + value.len() + 2;
            members.0.push((name, value));
        }
    }
    Ok(Metadata { kind, members })
}

/// A checked string's content in the one spelling.
fn one_spelling(text: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(text.len() + 2);
    write::utf8(&mut out, text);
    out.into()
}

fn session_id(scanner: &Scanner<'_>, node: &Node) -> Result<SessionId, WireError> {
    let text = match node.kind {
        Kind::String => scanner.text(node),
        Kind::Null | Kind::Bool | Kind::Number | Kind::Array | Kind::Object => Default::default(),
    };
    if text.is_empty() {
        return Err(WireError::new(
            ErrorCode::InvalidEvent,
            "id must be a non-empty string, or be left out",
        ));
    }
    std::str::from_utf8(&text).ok().and_then(SessionId::new).ok_or_else(invalid_session_id)
}

/// An id that breaks the rule for ids.
pub(crate) fn invalid_session_id() -> WireError {
    WireError::new(
        ErrorCode::InvalidSessionId,
        "The session id must have 1 to 255 bytes of UTF-8 and no control characters",
    )
}

fn title(
    scanner: &Scanner<'_>,
    node: &Node,
    wrong_kind: ErrorCode,
) -> Result<Option<String>, WireError> {
    match node.kind {
        Kind::Null => return Ok(None),
        Kind::String => {}
        Kind::Bool | Kind::Number | Kind::Array | Kind::Object => {
            return Err(WireError::new(wrong_kind, "title must be a string or null"));
        }
    }
    let text = scanner.text(node);
    if text.len() > TITLE_BYTES_MAX {
        let sent = text.len();
        return Err(WireError::new(
            ErrorCode::InvalidSession,
            format!("title has {sent} bytes; at most {TITLE_BYTES_MAX} are allowed"),
        )
        .with("limit", TITLE_BYTES_MAX));
    }
    let text = String::from_utf8(text.into_owned()).expect("the scanner has checked UTF-8");
    Ok(Some(text))
}

fn version(scanner: &Scanner<'_>, node: &Node) -> Result<u64, WireError> {
    match whole_number(scanner.out(), node) {
        Some(version) if version >= 1 => Ok(version),
        _ => Err(WireError::new(
            ErrorCode::InvalidSession,
            "expected_version must be a whole number from 1 to 9007199254740991",
        )),
    }
}
