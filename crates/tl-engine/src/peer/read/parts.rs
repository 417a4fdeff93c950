//! The parts that reads and findings are made of, and their limits.

use tl_types::bytes_codec::{DecodeError, Reader, put_bytes};
use tl_types::limits::PAGE_MAX;
use tl_types::{Namespace, ResourcePath, SessionId, Tenant};

pub(super) fn put_u64(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_be_bytes());
}

/// Counts are of things whose limits are far below; what is more is refused by whoever reads it.
pub(super) fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(&u16::try_from(count).unwrap_or(u16::MAX).to_be_bytes());
}

pub(super) fn at_most(
    reader: &mut Reader,
    max: usize,
    what: &'static str,
) -> Result<usize, DecodeError> {
    match usize::from(reader.u16()?) {
        count if count <= max => Ok(count),
        _ => Err(DecodeError::Malformed(what)),
    }
}

pub(super) fn page_limit(reader: &mut Reader) -> Result<u16, DecodeError> {
    match reader.u16()? {
        limit if (1..=PAGE_MAX).contains(&usize::from(limit)) => Ok(limit),
        _ => Err(DecodeError::Malformed("limit of a page")),
    }
}

pub(super) fn flag(reader: &mut Reader) -> Result<bool, DecodeError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::Malformed("flag")),
    }
}

pub(super) fn put_path(out: &mut Vec<u8>, path: &ResourcePath) {
    put_bytes(out, path.tenant.as_str().as_bytes());
    put_bytes(out, path.namespace.as_str().as_bytes());
    put_bytes(out, path.name.as_str().as_bytes());
}

pub(super) fn path(reader: &mut Reader) -> Result<ResourcePath, DecodeError> {
    let (tenant, namespace) = (tenant(reader)?, namespace(reader)?);
    let name = SessionId::new(&reader.text()?).ok_or(DecodeError::Malformed("a session's id"))?;
    Ok(ResourcePath::session(tenant, namespace, name))
}

pub(super) fn tenant(reader: &mut Reader) -> Result<Tenant, DecodeError> {
    Tenant::new(&reader.text()?).ok_or(DecodeError::Malformed("a tenant"))
}

pub(super) fn namespace(reader: &mut Reader) -> Result<Namespace, DecodeError> {
    Namespace::new(&reader.text()?).ok_or(DecodeError::Malformed("a namespace"))
}

pub(super) fn put_optional(out: &mut Vec<u8>, id: Option<&SessionId>) {
    put_bytes(out, id.map_or("", SessionId::as_str).as_bytes());
}

pub(super) fn optional(reader: &mut Reader) -> Result<Option<SessionId>, DecodeError> {
    match reader.text()? {
        text if text.is_empty() => Ok(None),
        text => SessionId::new(&text).map(Some).ok_or(DecodeError::Malformed("a session's id")),
    }
}
