//! The content hash: equal for texts that differ only in whitespace, escapes and member order.
//!
//! ```text
//! string   xxh3-128 of the unescaped bytes          number   xxh3-128 of the spelling
//! member   xxh3-128 of (key hash ‖ value hash)      object   of (wrapping sum of members ‖ count)
//! array    chain: next = xxh3-128 of (so far ‖ item)
//! ```
//!
//! Each kind has its own seed, so that `"1"`, `1` and `[1]` differ. Not a cryptographic hash: a
//! producer that searches for a collision fools only itself.

use xxhash_rust::const_xxh3::xxh3_128_with_seed as const_hash;
use xxhash_rust::xxh3::xxh3_128_with_seed;

const STRING: u64 = 1;
const NUMBER: u64 = 2;
const MEMBER: u64 = 3;
const OBJECT: u64 = 4;
const ARRAY: u64 = 5;
const LITERAL: u64 = 6;
const KEY: u64 = 7;

pub(super) const TRUE: u128 = const_hash(b"true", LITERAL);
pub(super) const FALSE: u128 = const_hash(b"false", LITERAL);
pub(super) const NULL: u128 = const_hash(b"null", LITERAL);
pub(super) const EMPTY_ARRAY: u128 = const_hash(b"", ARRAY);

/// Hash of a string by its unescaped bytes.
#[must_use]
pub fn string_hash(text: &[u8]) -> u128 {
    xxh3_128_with_seed(text, STRING)
}

/// Hash of a number by its spelling.
#[must_use]
pub fn number_hash(spelling: &[u8]) -> u128 {
    xxh3_128_with_seed(spelling, NUMBER)
}

/// Hash of a member's name by its unescaped bytes.
#[must_use]
pub const fn key_hash(name: &[u8]) -> u128 {
    const_hash(name, KEY)
}

/// The same as [`key_hash`], by the implementation that is quick at run time.
pub(super) fn scanned_key_hash(name: &[u8]) -> u128 {
    xxh3_128_with_seed(name, KEY)
}

/// Hash of one member.
#[must_use]
pub fn member_hash(key: u128, value: u128) -> u128 {
    pair(key, value, MEMBER)
}

pub(super) fn array_step(so_far: u128, item: u128) -> u128 {
    pair(so_far, item, ARRAY)
}

fn pair(first: u128, second: u128, seed: u64) -> u128 {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(&first.to_le_bytes());
    bytes[16..].copy_from_slice(&second.to_le_bytes());
    xxh3_128_with_seed(&bytes, seed)
}

/// Members of an object, combined without regard to their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HashSum {
    sum: u128,
    count: u64,
}

impl HashSum {
    /// Takes one member in.
    pub fn add(&mut self, member: u128) {
        self.sum = self.sum.wrapping_add(member);
        self.count += 1;
    }

    /// How many members were taken in.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }
}

/// Hash of an object with these members.
#[must_use]
pub fn object_hash(members: HashSum) -> u128 {
    pair(members.sum, u128::from(members.count), OBJECT)
}
