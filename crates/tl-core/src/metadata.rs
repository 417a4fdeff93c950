//! A session's metadata as a list of members, each name and value as raw compact JSON.
//!
//! The edge spells equal names (and equal string values) in equal bytes, so merging and
//! filtering are comparisons of bytes and the rules hold no JSON. Kept encoded, because every
//! append carries it from row to row and hardly anybody looks inside:
//!
//! ```text
//! metadata = members × (name length varint ‖ name ‖ value length varint ‖ value)
//! ```

use std::collections::BTreeMap;

use bytes::Bytes;
use tl_types::bytes_codec::{DecodeError, Reader, put_bytes};

/// Checked when it was made; each name is expected once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metadata(Bytes);

/// A member: the name with its quotes and the value, both compact JSON.
pub type Member = (Bytes, Bytes);

impl Metadata {
    /// Metadata of these members, in this order.
    #[must_use]
    pub fn new<'a>(members: impl IntoIterator<Item = &'a Member>) -> Metadata {
        let mut out = Vec::new();
        for (name, value) in members {
            put_bytes(&mut out, name);
            put_bytes(&mut out, value);
        }
        Metadata(out.into())
    }

    /// Takes bytes that [`Metadata::encoded`] gave.
    ///
    /// # Errors
    /// [`DecodeError`] when they are not a list of members.
    pub fn from_encoded(bytes: Bytes) -> Result<Metadata, DecodeError> {
        let mut rest: &[u8] = &bytes;
        while !rest.is_empty() {
            rest = skip(skip(rest)?)?;
        }
        Ok(Metadata(bytes))
    }

    /// The bytes that rows and entries hold.
    #[must_use]
    pub fn encoded(&self) -> &Bytes {
        &self.0
    }

    /// The members, in order; slices of the row or entry they came from.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        let mut reader = Reader::new(self.0.clone());
        let mut members = Vec::new();
        while !reader.is_empty() {
            let mut part = || reader.bytes().expect("checked when the metadata was made");
            members.push((part(), part()));
        }
        members
    }

    /// Whether there is a member of this name with exactly this value.
    #[must_use]
    pub fn has(&self, name: &[u8], value: &[u8]) -> bool {
        self.members().iter().any(|(n, v)| n == name && v == value)
    }

    /// These members with those of `patch` set: one that was there keeps its place and takes the
    /// new value, others follow in the patch's order. Nothing is removed.
    #[must_use]
    pub fn merged(&self, patch: &Metadata) -> Metadata {
        let mut members = self.members();
        let mut places: BTreeMap<Bytes, usize> =
            members.iter().enumerate().map(|(place, (name, _))| (name.clone(), place)).collect();
        for (name, value) in patch.members() {
            match places.get(&name) {
                Some(place) => members[*place].1 = value,
                None => {
                    places.insert(name.clone(), members.len());
                    members.push((name, value));
                }
            }
        }
        Metadata::new(&members)
    }

    /// The members as one compact JSON object.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = vec![b'{'];
        for (place, (name, value)) in self.members().iter().enumerate() {
            if place > 0 {
                out.push(b',');
            }
            out.extend_from_slice(name);
            out.push(b':');
            out.extend_from_slice(value);
        }
        out.push(b'}');
        out
    }

    /// Length of the compact JSON object, which is what the limit counts.
    #[must_use]
    pub fn json_bytes(&self) -> usize {
        let members = self.members();
        // Each member has a colon and a comma, but the last has no comma.
        let inside: usize = members.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
        2 + inside - usize::from(!members.is_empty())
    }
}

/// What is left behind a length-prefixed part.
fn skip(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    let mut len = 0_usize;
    for (at, byte) in bytes.iter().enumerate().take(4) {
        len |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return bytes[at + 1..].get(len..).ok_or(DecodeError::Short);
        }
    }
    Err(DecodeError::Malformed("length in metadata"))
}

#[cfg(test)]
mod tests;
