//! Sealing: the sender is known, so the actor is decided, the principal goes into the metadata
//! and the content gets its hash.

use bytes::Bytes;
use tl_types::{Actor, Envelope, ErrorCode, Principal};
use xxhash_rust::xxh3::xxh3_128;

use super::rules::PRINCIPAL_FIELDS;
use super::{Metadata, ParsedEvent, Part};
use crate::error::WireError;
use crate::json::write;
use crate::json::{HashSum, key_hash, member_hash, object_hash, string_hash};

/// How content hashes are computed. The number is stored beside each hash; another way of
/// computing takes another number, and hashes of different numbers are never compared.
pub const HASH_ALGORITHM: u8 = 1;

/// An event ready to be proposed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedEvent {
    /// What is stored.
    pub envelope: Envelope,
    /// Content hash, by [`HASH_ALGORITHM`].
    pub hash: u128,
}

const PRINCIPAL_KEY: u128 = key_hash(b"starcite_principal");
const FIELD_KEYS: [u128; 4] = [
    key_hash(PRINCIPAL_FIELDS[0].as_bytes()),
    key_hash(PRINCIPAL_FIELDS[1].as_bytes()),
    key_hash(PRINCIPAL_FIELDS[2].as_bytes()),
    key_hash(PRINCIPAL_FIELDS[3].as_bytes()),
];

impl ParsedEvent {
    /// Decides the actor and completes metadata and hash.
    ///
    /// An event without an actor is the sender's own. With an actor it must be the sender's own,
    /// unless the sender may name any.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidEvent`] when the actor is malformed or not the sender's.
    pub fn seal(self, principal: &Principal) -> Result<SealedEvent, WireError> {
        let (actor_text, actor) = self.actor(principal)?;
        let (metadata, metadata_hash) =
            self.metadata.sealed(principal.tenant.as_str(), &actor_text, &actor);
        let hash = self.content_hash(&actor_text, metadata_hash);
        let envelope = Envelope {
            event_type: self.event_type.bytes,
            payload: self.payload.bytes,
            actor: actor_text,
            source: self.source.map(|part| part.bytes),
            metadata,
            refs: self.refs.map(|part| part.bytes),
            idempotency_key: self.idempotency_key.map(|part| part.bytes),
            producer_id: self.producer_id.bytes,
            producer_seq: self.producer_seq,
            event_time: self.event_time,
        };
        Ok(SealedEvent { envelope, hash })
    }

    fn actor(&self, principal: &Principal) -> Result<(Bytes, Actor), WireError> {
        let own = || Bytes::from(principal.actor.to_string());
        let Some(sent) = &self.actor else { return Ok((own(), principal.actor.clone())) };
        let actor = std::str::from_utf8(sent).ok().and_then(Actor::parse).ok_or_else(|| {
            WireError::new(
                ErrorCode::InvalidEvent,
                "actor must look like user:<id>, agent:<id> or service:<id>",
            )
        })?;
        if !principal.any_actor && actor != principal.actor {
            return Err(WireError::new(
                ErrorCode::InvalidEvent,
                format!("actor must be your own, {}, or be left out", principal.actor),
            ));
        }
        Ok((sent.clone(), actor))
    }

    /// Every content field in a fixed order: a byte that says whether it is there, then its
    /// hash or number in sixteen bytes.
    fn content_hash(&self, actor: &[u8], metadata: u128) -> u128 {
        let hash = |part: &Option<Part>| part.as_ref().map(|part| part.hash);
        let fields = [
            Some(self.event_type.hash),
            Some(self.payload.hash),
            Some(string_hash(actor)),
            hash(&self.source),
            Some(metadata),
            hash(&self.refs),
            hash(&self.idempotency_key),
            Some(self.producer_id.hash),
            Some(u128::from(self.producer_seq)),
            self.event_time.map(|at| u128::from(at.0)),
        ];
        let mut bytes = [0; 10 * 17];
        for (slot, field) in bytes.chunks_exact_mut(17).zip(fields) {
            if let Some(value) = field {
                slot[0] = 1;
                slot[1..].copy_from_slice(&value.to_le_bytes());
            }
        }
        xxh3_128(&bytes)
    }
}

impl Metadata {
    /// The metadata object with the principal as its last member, and its hash.
    ///
    /// A client that sends back what it was given gets the same bytes again: its own members of
    /// the principal stand first, the server's behind them.
    fn sealed(&self, tenant: &str, actor_text: &[u8], actor: &Actor) -> (Bytes, u128) {
        let values =
            [tenant.as_bytes(), actor_text, actor.kind.word().as_bytes(), actor.id.as_bytes()];
        let texts: usize = values.iter().map(|value| value.len()).sum();
        let room = self.inner.len() + self.principal_inner.len() + texts + 96;
        let mut out = Vec::with_capacity(room);
        out.push(b'{');
        out.extend_from_slice(&self.inner);
        if !self.inner.is_empty() {
            out.push(b',');
        }
        out.extend_from_slice(b"\"starcite_principal\":{");
        out.extend_from_slice(&self.principal_inner);
        let mut principal: HashSum = self.principal_members;
        for ((name, key), value) in PRINCIPAL_FIELDS.iter().zip(FIELD_KEYS).zip(values) {
            if out.last() != Some(&b'{') {
                out.push(b',');
            }
            write::string(&mut out, name);
            out.push(b':');
            write::utf8(&mut out, value);
            principal.add(member_hash(key, string_hash(value)));
        }
        out.extend_from_slice(b"}}");
        let mut members = self.members;
        members.add(member_hash(PRINCIPAL_KEY, object_hash(principal)));
        (out.into(), object_hash(members))
    }
}
